//! The routines that drivers import, by name.

mod address;
mod mdl;
mod pages;
mod pool;

use super::{AllocFailure, MdlError, Service, rules};
use crate::call::Outcome;
use crate::platform::PlatformError;
use journal::event::Certainty;
use memory::Gva;

/// By the name in the import table.
pub const SERVICES: &[(&str, Service)] = &[
    ("ExAllocatePool", pool::allocate_pool),
    ("ExAllocatePool2", pool::allocate_pool2),
    ("ExAllocatePoolWithTag", pool::allocate_pool_with_tag),
    ("ExFreePool", pool::free_pool),
    ("ExFreePoolWithTag", pool::free_pool_with_tag),
    ("IoAllocateMdl", mdl::allocate_mdl),
    ("IoFreeMdl", mdl::free_mdl),
    ("MmAllocateContiguousMemory", pages::allocate_contiguous),
    (
        "MmAllocateContiguousMemorySpecifyCache",
        pages::allocate_contiguous_specify_cache,
    ),
    ("MmAllocatePagesForMdl", pages::allocate_pages_for_mdl),
    ("MmAllocatePagesForMdlEx", pages::allocate_pages_for_mdl_ex),
    ("MmBuildMdlForNonPagedPool", mdl::build_for_nonpaged_pool),
    ("MmFreeContiguousMemory", pages::free_contiguous),
    ("MmFreePagesFromMdl", pages::free_pages_from_mdl),
    ("MmGetPhysicalAddress", address::physical_address),
    ("MmIsAddressValid", address::is_valid),
    ("MmMapIoSpace", address::map_io_space),
    ("MmMapLockedPagesSpecifyCache", mdl::map_locked_pages),
    ("MmProbeAndLockPages", mdl::probe_and_lock),
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

/// NULL, with the reason in the log: what Windows returns when an allocation
/// fails.
fn null(routine: &str, failure: &AllocFailure) -> u64 {
    log::debug!("{routine} returns NULL: {failure}");
    0
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
        MdlError::BadExtent { mdl, .. } => stop(
            (0x1a, Certainty::Ours),
            [0x1236, mdl.0, 0, 0],
            format!("MEMORY_MANAGEMENT: {error}"),
        ),
        MdlError::NotMemory { mdl, slot, pfn } => stop(
            (0xc4, Certainty::Documented),
            [0x89, mdl.0, MdlError::slot_address(mdl, slot), pfn],
            format!("bug check 0xC4, table of violations: {error}"),
        ),
    }
}

fn stop((code, certainty): (u32, Certainty), parameters: [u64; 4], reason: String) -> Outcome {
    Outcome::Stop(rules::stop(code, parameters, certainty, 0, reason))
}

/// 0xC4 with a sub-code about an MDL.
fn mdl_violation(sub_code: u64, mdl: Gva, flags: u16, third: u64, what: &str) -> Outcome {
    stop(
        (0xc4, Certainty::Documented),
        [sub_code, mdl.0, u64::from(flags), third],
        format!("{what}: MDL {mdl}, flags {flags:#06x} (bug check 0xC4, table of violations)"),
    )
}
