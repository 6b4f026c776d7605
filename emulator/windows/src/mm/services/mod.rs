//! The routines that drivers import, by name.

mod address;
mod advance;
mod contiguous;
mod derived;
mod mdl;
mod pages;
mod pool;

use super::{Absent, AllocFailure, GoneKind, Mdl, MdlError, Service, State};
use crate::call::Outcome;
use crate::platform::PlatformError;
use crate::rules::{Rule, mm as rule};
use journal::event::Subject;
use memory::{Gva, Pfn};

/// By the name in the import table.
pub const SERVICES: &[(&str, Service)] = &[
    ("ExAllocatePool", pool::allocate_pool),
    ("ExAllocatePool2", pool::allocate_pool2),
    ("ExAllocatePoolWithTag", pool::allocate_pool_with_tag),
    ("ExFreePool", pool::free_pool),
    ("ExFreePoolWithTag", pool::free_pool_with_tag),
    ("IoAllocateMdl", mdl::allocate_mdl),
    ("IoBuildPartialMdl", derived::build_partial),
    ("IoFreeMdl", mdl::free_mdl),
    ("MmAdvanceMdl", advance::advance),
    (
        "MmAllocateContiguousMemory",
        contiguous::allocate_contiguous,
    ),
    (
        "MmAllocateContiguousMemoryEx",
        contiguous::allocate_contiguous_ex,
    ),
    (
        "MmAllocateContiguousMemorySpecifyCache",
        contiguous::allocate_contiguous_specify_cache,
    ),
    (
        "MmAllocateContiguousMemorySpecifyCacheNode",
        contiguous::allocate_contiguous_specify_cache_node,
    ),
    (
        "MmAllocateContiguousNodeMemory",
        contiguous::allocate_contiguous_node,
    ),
    ("MmAllocateMdlForIoSpace", derived::allocate_for_io_space),
    ("MmAllocateNodePagesForMdlEx", pages::allocate_node_pages),
    ("MmAllocatePagesForMdl", pages::allocate_pages_for_mdl),
    ("MmAllocatePagesForMdlEx", pages::allocate_pages_for_mdl_ex),
    (
        "MmAllocatePartitionNodePagesForMdlEx",
        pages::allocate_partition_node_pages,
    ),
    ("MmBuildMdlForNonPagedPool", mdl::build_for_nonpaged_pool),
    ("MmFreeContiguousMemory", contiguous::free_contiguous),
    (
        "MmFreeContiguousMemorySpecifyCache",
        contiguous::free_contiguous_specify_cache,
    ),
    ("MmFreePagesFromMdl", pages::free_pages_from_mdl),
    ("MmFreePagesFromMdlEx", pages::free_pages_from_mdl_ex),
    ("MmGetPhysicalAddress", address::physical_address),
    ("MmIsAddressValid", address::is_valid),
    ("MmMapIoSpace", address::map_io_space),
    ("MmMapLockedPages", mdl::map_locked_pages_old),
    ("MmMapLockedPagesSpecifyCache", mdl::map_locked_pages),
    ("MmProbeAndLockPages", mdl::probe_and_lock),
    ("MmProtectMdlSystemAddress", derived::protect),
    ("MmUnlockPages", mdl::unlock),
    ("MmUnmapIoSpace", address::unmap_io_space),
    ("MmUnmapLockedPages", mdl::unmap_locked_pages),
];

/// The body of a service: an early end is an outcome too.
type Flow = Result<u64, Outcome>;

fn finish(flow: Flow) -> Outcome {
    match flow {
        Ok(value) => Outcome::Return(value),
        Err(outcome) => outcome,
    }
}

/// What Windows returns when an allocation fails: as `bad_size`, a rule about
/// an argument, or `none` says.
fn null(routine: &str, failure: &AllocFailure, bad_size: &Rule, none: &Rule) -> u64 {
    let rule = match failure {
        AllocFailure::BadSize { .. } => bad_size,
        AllocFailure::BadArgument { rule, .. } => rule,
        _ => none,
    };
    rule.refuse(format_args!("{routine} returns NULL: {failure}"))
}

/// Hold the IRQL rule of a routine.
fn check_irql(rule: &Rule, name: &str, irql: u8, values: &[u64]) -> Result<(), Outcome> {
    match rule.breach(name, irql, values) {
        Some(stop) => Err(Outcome::Stop(stop.or_return(0u64))),
        None => Ok(()),
    }
}

fn arguments<const N: usize>(
    platform: &dyn crate::Platform,
    call: &crate::Call,
) -> Result<[u64; N], PlatformError> {
    let mut values = [0; N];
    for (index, value) in values.iter_mut().enumerate() {
        *value = call.argument(platform, index)?;
    }
    Ok(values)
}

/// Refuse to give back a page that is locked for I/O.
fn check_unlocked(
    state: &State,
    name: &str,
    frames: impl IntoIterator<Item = Pfn>,
    subject: Subject,
) -> Result<(), Outcome> {
    let Some((frame, count)) = state.first_locked(frames) else {
        return Ok(());
    };
    let what = format!("{name}: page {:#x} is locked for I/O", frame.0);
    Err(rule::FREED_LOCKED
        .outcome(&[frame.0, u64::from(count)], what)
        .about(subject))
}

/// [`check_irql`] of a call that is about the MDL or the memory at `at`.
fn check_irql_of(
    state: &State,
    rule: &Rule,
    name: &str,
    irql: u8,
    values: &[u64],
    at: Gva,
) -> Result<(), Outcome> {
    check_irql(rule, name, irql, values).map_err(|outcome| outcome.about(state.subject_at(at)))
}

/// What Windows does about an MDL that it cannot use.
fn bad_mdl(state: &State, error: MdlError) -> Outcome {
    match error {
        MdlError::Unreadable { mdl, error } => match state.absent(mdl) {
            Some(Absent::Gone(gone)) if matches!(gone.kind, GoneKind::Pool { .. }) => {
                rule::MDL_FREED
                    .outcome(&[mdl.0], format!("the MDL is {}", gone.describe()))
                    .about(state.subject_at(mdl))
            }
            _ => error.into(),
        },
        MdlError::BadExtent { mdl, .. } => rule::MDL_EXTENT
            .outcome(&[mdl.0], &error)
            .about(state.subject_at(mdl)),
        MdlError::NotMemory { mdl, slot, pfn } => {
            let at = MdlError::slot_address(mdl, slot);
            rule::MDL_NO_RAM
                .outcome(&[mdl.0, at, pfn], &error)
                .about(state.subject_at(mdl))
        }
    }
}

/// A row of bug check 0xC4 about an MDL and its flags; `third` is its fourth
/// parameter, where it has one.
fn violation(state: &State, rule: &Rule, routine: &str, mdl: &Mdl, third: Option<u16>) -> Outcome {
    let flags = u64::from(mdl.flags);
    let values: Vec<u64> = [mdl.address.0, flags]
        .into_iter()
        .chain(third.map(u64::from))
        .collect();
    let what = format!("{routine}: MDL {}, flags {flags:#06x}", mdl.address);
    rule.outcome(&values, what)
        .about(state.subject_at(mdl.address))
}
