//! What a scenario makes of Windows: routines that fail, memory that is short
//! or strangely placed, mappings for the device that go wrong.

use crate::call::Outcome;
use crate::hal::HalError;
use crate::mm::AllocFailure;
use crate::platform::Platform;
use crate::services;
use journal::event::Point;
use memory::{PAGE_SIZE, Pfn};
use scenario::fault::{Fault, matches};
use scenario::{Shape, Site, SiteKind, What};

/// Routines that give memory or a mapping, and whose documents say what they
/// return when there is none.
pub const FALLIBLE: &[&str] = &[
    "DxgkCbAllocateContiguousMemory",
    "DxgkCbAllocatePagesForMdl",
    "DxgkCbMapFrameBufferPointer",
    "DxgkCbMapMdlToIoMmu",
    "DxgkCbMapMemory",
    "DxgkCbPinFrameBufferForSave",
    "ExAllocatePool",
    "ExAllocatePool2",
    "ExAllocatePoolWithTag",
    "IoAllocateMdl",
    "IoAllocateWorkItem",
    "MmAllocateContiguousMemory",
    "MmAllocateContiguousMemoryEx",
    "MmAllocateContiguousMemorySpecifyCache",
    "MmAllocateContiguousMemorySpecifyCacheNode",
    "MmAllocateContiguousNodeMemory",
    "MmAllocateMdlForIoSpace",
    "MmAllocateNodePagesForMdlEx",
    "MmAllocatePagesForMdl",
    "MmAllocatePagesForMdlEx",
    "MmAllocatePartitionNodePagesForMdlEx",
    "MmMapIoSpace",
    "MmMapLockedPages",
    "MmMapLockedPagesSpecifyCache",
    "PsCreateSystemThread",
];

/// Routines that return an NTSTATUS. A status from any other would be taken
/// for a pointer, an IRQL or a truth value.
const WITH_STATUS: &[&str] = &[
    "DxgkCbAcquirePostDisplayOwnership",
    "DxgkCbAcquirePostDisplayOwnership2",
    "DxgkCbAllocateContiguousMemory",
    "DxgkCbAllocatePagesForMdl",
    "DxgkCbFreeContiguousMemory",
    "DxgkCbFreePagesFromMdl",
    "DxgkCbGetDeviceInformation",
    "DxgkCbIndicateChildStatus",
    "DxgkCbMapFrameBufferPointer",
    "DxgkCbMapMdlToIoMmu",
    "DxgkCbMapMemory",
    "DxgkCbPinFrameBufferForSave",
    "DxgkCbReadDeviceSpace",
    "DxgkCbSynchronizeExecution",
    "DxgkCbUnmapFrameBufferPointer",
    "DxgkCbUnmapMemory",
    "DxgkCbUnpinFrameBufferForSave",
    "DxgkCbWriteDeviceSpace",
    "DxgkInitialize",
    "DxgkInitializeDisplayOnlyDriver",
    "ExInitializeLookasideListEx",
    "IoAcquireRemoveLockEx",
    "IoGetDeviceObjectPointer",
    "IoOpenDeviceRegistryKey",
    "IofCallDriver",
    "KeDelayExecutionThread",
    "KeWaitForMultipleObjects",
    "KeWaitForMutexObject",
    "KeWaitForSingleObject",
    "MmAllocateContiguousMemoryEx",
    "MmAllocateMdlForIoSpace",
    "MmProtectMdlSystemAddress",
    "ObCloseHandle",
    "ObReferenceObjectByHandle",
    "ObReferenceObjectByPointer",
    "PsCreateSystemThread",
    "RtlAnsiStringToUnicodeString",
    "RtlAppendUnicodeToString",
    "RtlGetVersion",
    "RtlIntegerToUnicodeString",
    "ZwClose",
    "ZwCreateKey",
    "ZwDeleteValueKey",
    "ZwFlushKey",
    "ZwLoadDriver",
    "ZwOpenKey",
    "ZwQueryValueKey",
    "ZwSetValueKey",
    "ZwUnloadDriver",
];

/// Routines of the driver that are called by name; `machine` calls a thread's.
const ROUTINES: &[&str] = &[
    "DPC",
    "DriverEntry",
    "DriverUnload",
    "DxgkCbSynchronizeExecution routine",
    "DxgkDdiAddDevice",
    "DxgkDdiBeginExclusiveAccess",
    "DxgkDdiDpcRoutine",
    "DxgkDdiEndExclusiveAccess",
    "DxgkDdiEscape",
    "DxgkDdiInterruptRoutine",
    "DxgkDdiQueryAdapterInfo",
    "DxgkDdiRemoveDevice",
    "DxgkDdiSetPowerState",
    "DxgkDdiStartDevice",
    "DxgkDdiStopDevice",
    "DxgkDdiUnload",
    "system thread",
];

/// Is there a routine of Windows, or one of the driver that Windows calls, of
/// a name that fits?
#[must_use]
pub fn is_routine(pattern: &str) -> bool {
    let mut names = services::names().chain(ROUTINES.iter().copied());
    names.any(|name| matches(pattern, name))
}

/// Does a fault name routines that there are, and that can do what it says?
///
/// # Errors
/// What is wrong, and what to write.
pub fn check(fault: &Fault) -> Result<(), String> {
    if let Some(after) = &fault.after
        && !is_routine(after)
    {
        return Err(format!(
            "after = {after:?} names no routine of Windows that dmasan has, and none of the \
             driver that it calls"
        ));
    }
    let Some(pattern) = &fault.function else {
        return Ok(());
    };
    if !services::names().any(|name| matches(pattern, name)) {
        return Err(format!(
            "function = {pattern:?} names no routine of Windows that dmasan has"
        ));
    }
    if fault.at != SiteKind::Call || fault.outcome != What::Fail {
        return Ok(());
    }
    match fault.status {
        None if !FALLIBLE.iter().any(|name| matches(pattern, name)) => Err(format!(
            "function = {pattern:?}: no document says how it fails; one that returns an \
             NTSTATUS fails with a status"
        )),
        Some(_) if !WITH_STATUS.iter().any(|name| matches(pattern, name)) => Err(format!(
            "function = {pattern:?} returns no NTSTATUS; without a status it fails as its \
             documents say"
        )),
        _ => Ok(()),
    }
}

/// What the scenario makes of a call before it is served: its end, or nothing.
pub(crate) fn begin(p: &dyn Platform, name: &str) -> Option<Outcome> {
    let scenario = p.scenario();
    let fallible = FALLIBLE.contains(&name);
    if scenario.has_faults(SiteKind::Call) {
        let site = Site {
            function: Some(name),
            ..Site::new(SiteKind::Call)
        };
        // Without a status only what can fail by its documents is failed, and
        // with one what returns one: another routine is no site of it.
        let fits = |fault: &Fault| match fault.status {
            Some(_) if fault.outcome == What::Fail => WITH_STATUS.contains(&name),
            _ => fallible,
        };
        if let Some(injection) = scenario.inject_where(&site, fits) {
            let shape = Shape::default();
            match (injection.outcome, injection.status) {
                (What::Fail, Some(status)) => return Some(Outcome::Return(u64::from(status))),
                (What::Fail, None) => scenario.refuse_memory(),
                (What::LowMemory, _) => scenario.exhaust_memory(),
                (What::Partial, _) => scenario.set_shape(Shape {
                    most: Some(injection.pages),
                    ..shape
                }),
                (What::Scattered, _) => scenario.set_shape(Shape {
                    scattered: true,
                    ..shape
                }),
                (What::Above4G, _) => scenario.set_shape(Shape {
                    above_4g: true,
                    ..shape
                }),
                _ => {}
            }
        }
    }
    if fallible && scenario.plan().may_fail && scenario.choose(Point::Fail, 2) != 0 {
        scenario.refuse_memory();
    }
    None
}

/// Fails a call that is to find no memory.
pub(crate) fn memory(p: &dyn Platform, pages: u64) -> Result<(), AllocFailure> {
    if p.scenario().refuses_memory() {
        return Err(AllocFailure::NoFrames { pages });
    }
    Ok(())
}

/// Does the scenario let `kind` fail for these pages?
fn fails(p: &dyn Platform, kind: SiteKind, frames: &[Pfn]) -> bool {
    if !p.scenario().has_faults(kind) {
        return false;
    }
    let first = frames.iter().map(|frame| frame.base().0).min();
    let last = frames.iter().map(|frame| frame.base().0).max();
    let site = Site {
        iova: first.zip(last.map(|last| last.saturating_add(PAGE_SIZE - 1))),
        ..Site::new(kind)
    };
    p.scenario().inject(&site).is_some()
}

/// Before pages are mapped for the device.
pub(crate) fn map(p: &dyn Platform, frames: &[Pfn]) -> Result<(), HalError> {
    memory(p, 1)?;
    if fails(p, SiteKind::Map, frames) {
        return Err(AllocFailure::NoFrames { pages: 1 }.into());
    }
    Ok(())
}

/// Do pages that are to be taken from the device stay its?
pub(crate) fn keeps(p: &dyn Platform, frames: &[Pfn]) -> bool {
    fails(p, SiteKind::Unmap, frames)
}

/// Before the device is attached to its domain.
pub(crate) fn attach(p: &dyn Platform) -> Result<(), HalError> {
    if fails(p, SiteKind::Attach, &[]) {
        return Err(AllocFailure::NoFrames { pages: 1 }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What has such a name and is not failed, because nothing says that it
    /// can be, or because it gives no memory.
    const NEVER: &[&str] = &["RtlFreeUnicodeString"];

    #[test]
    fn every_routine_that_gives_memory_or_a_mapping_can_fail() {
        let gives = |name: &str| {
            let own = ["Allocate", "CbMap", "MmMap", "CreateSystemThread"];
            own.iter().any(|part| name.contains(part))
        };
        let missing: Vec<&str> = services::names()
            .filter(|name| gives(name) && !FALLIBLE.contains(name) && !NEVER.contains(name))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_row_names_a_routine_once() {
        for table in [FALLIBLE, WITH_STATUS] {
            for name in table {
                assert!(services::names().any(|known| known == *name), "{name}");
            }
            assert!(table.is_sorted_by(|a, b| a < b), "{table:?}");
        }
    }

    #[test]
    fn a_fault_that_names_nothing_or_cannot_be_is_refused() {
        let fault = |lines: &str| {
            let text = format!("[[fault]]\nat = \"call\"\ndo = \"fail\"\nnth = 1\n{lines}");
            scenario::Plan::parse(&text).unwrap().faults.remove(0)
        };
        for (lines, says) in [
            ("function = \"MmNothing\"", "names no routine"),
            (
                "function = \"IoAllocateMdl\"\nafter = \"DxgkDdiStopDevcie\"",
                "after",
            ),
            ("function = \"IoFreeMdl\"", "no document"),
            (
                "function = \"IoAllocate*\"\nstatus = \"STATUS_NO_MEMORY\"",
                "no NTSTATUS",
            ),
            ("function = \"IoAllocateMdl\"", ""),
            ("function = \"IoAllocateMdl\"\nafter = \"DxgkDdiSt*\"", ""),
            ("function = \"*Alloc*\"\nstatus = \"STATUS_NO_MEMORY\"", ""),
        ] {
            let said = check(&fault(lines)).err().unwrap_or_default();
            assert!(
                said.contains(says) && said.is_empty() == says.is_empty(),
                "{lines}: {said}"
            );
        }
    }
}
