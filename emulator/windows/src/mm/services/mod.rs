//! The routines that drivers import, by name.

mod address;
mod derived;
mod mdl;
mod pages;
mod pool;

use super::{AllocFailure, Mdl, MdlError, Service};
use crate::call::Outcome;
use crate::platform::PlatformError;
use crate::rules::{Rule, mm as rule};

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
    ("MmAllocateContiguousMemory", pages::allocate_contiguous),
    (
        "MmAllocateContiguousMemorySpecifyCache",
        pages::allocate_contiguous_specify_cache,
    ),
    (
        "MmAllocateContiguousMemorySpecifyCacheNode",
        // The node is a preference, and there is one.
        pages::allocate_contiguous_specify_cache_node,
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
    ("MmFreeContiguousMemory", pages::free_contiguous),
    (
        "MmFreeContiguousMemorySpecifyCache",
        pages::free_contiguous_specify_cache,
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

/// What Windows does about an MDL that it cannot use.
fn bad_mdl(error: MdlError) -> Outcome {
    match error {
        MdlError::Unreadable { error, .. } => error.into(),
        MdlError::BadExtent { mdl, .. } => rule::MDL_EXTENT.outcome(&[mdl.0], &error),
        MdlError::NotMemory { mdl, slot, pfn } => {
            let at = MdlError::slot_address(mdl, slot);
            rule::MDL_NO_RAM.outcome(&[mdl.0, at, pfn], &error)
        }
    }
}

/// A row of bug check 0xC4 about an MDL and its flags; `third` is its fourth
/// parameter, where it has one.
fn violation(rule: &Rule, routine: &str, mdl: &Mdl, third: Option<u16>) -> Outcome {
    let flags = u64::from(mdl.flags);
    let values: Vec<u64> = [mdl.address.0, flags]
        .into_iter()
        .chain(third.map(u64::from))
        .collect();
    let what = format!("{routine}: MDL {}, flags {flags:#06x}", mdl.address);
    rule.outcome(&values, what)
}
