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
    "MmAllocateContiguousMemory",
    "MmAllocateContiguousMemoryEx",
    "MmAllocateContiguousMemorySpecifyCache",
    "MmAllocateContiguousMemorySpecifyCacheNode",
    "MmAllocateContiguousNodeMemory",
    "MmAllocateMdlForIoSpace",
    "MmAllocateNodePagesForMdlEx",
    "MmAllocatePagesForMdl",
    "MmAllocatePagesForMdlEx",
    "MmMapIoSpace",
    "MmMapLockedPages",
    "MmMapLockedPagesSpecifyCache",
];

/// Does a fault name routines that there are, and that can do what it says?
///
/// # Errors
/// What is wrong, and what to write.
pub fn check(fault: &Fault) -> Result<(), String> {
    let Some(pattern) = &fault.function else {
        return Ok(());
    };
    if !services::names().any(|name| matches(pattern, name)) {
        return Err(format!(
            "function = {pattern:?} names no routine of Windows that dmasan has"
        ));
    }
    let by_documents =
        fault.at == SiteKind::Call && fault.outcome == What::Fail && fault.status.is_none();
    if by_documents && !FALLIBLE.iter().any(|name| matches(pattern, name)) {
        return Err(format!(
            "function = {pattern:?}: no document says how it fails; give a status"
        ));
    }
    Ok(())
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
        // Without a status only what can fail by its documents is failed:
        // another routine is no site of such a fault.
        if let Some(injection) = scenario.inject_where(&site, |fault| {
            fallible || fault.outcome == What::Fail && fault.status.is_some()
        }) {
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
