//! The memory callbacks of WDDM 2.4.

use super::spec::{ALLOCATION_LIMIT, allocate_contiguous as contiguous, allocate_pages as pages};
use super::{
    Freed, Tracked, TrackedObject, domain, field, finish, hal_stop, irql_stop, is_our_handle,
};
use crate::call::{Call, Outcome};
use crate::platform::{Platform, PlatformError};
use crate::rules::dxgk as rule;
use crate::{Windows, hal, mm, status};
use journal::event::{AllocationKind, Subject};
use memory::{Gva, PAGE_SIZE, Pfn};

/// First handle given out; each next one is 0x40 further, as objects in a
/// pool would be.
const FIRST_HANDLE: u64 = 0xFFFF_C00F_4000_0000;

fn fail(status: u32) -> Outcome {
    Outcome::Return(u64::from(status))
}

impl Windows {
    pub(super) fn new_handle(&mut self) -> u64 {
        let handle = FIRST_HANDLE + self.dxgk.handles * 0x40;
        self.dxgk.handles += 1;
        handle
    }
}

/// NTSTATUS DxgkCbAllocatePagesForMdl(hAdapter, DXGKARGCB_ALLOCATEPAGESFORMDL*).
///
/// Always whole or not at all: dxgkrnl adds MM_ALLOCATE_FULLY_REQUIRED.
pub(crate) fn allocate_pages_for_mdl(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    finish(try_allocate_pages(windows, p, call))
}

fn try_allocate_pages(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    let name = "DxgkCbAllocatePagesForMdl";
    if let Some(stop) = irql_stop(&windows.executive, name) {
        return Ok(Outcome::Stop(stop));
    }
    let argument = Gva(call.registers[1]);
    let bytes = p.read_u64(field(argument, pages::BYTES)?)?;
    if !is_our_handle(call.registers[0]) {
        return Ok(rule::ADAPTER.refusal(name));
    }
    if bytes == 0 || bytes > ALLOCATION_LIMIT {
        return Ok(rule::ALLOCATION_SIZE.refusal(format_args!("{name} of {bytes} bytes")));
    }
    let handle = windows.new_handle();
    let request = mm::PageRequest {
        low: p.read_u64(field(argument, pages::LOW)?)?,
        high: p.read_u64(field(argument, pages::HIGH)?)?,
        skip: p.read_u64(field(argument, pages::SKIP)?)?,
        bytes,
        flags: p.read_u32(field(argument, pages::FLAGS)?)? | mm::spec::allocate::FULLY_REQUIRED,
        kind: AllocationKind::DxgkMdl,
        handle,
    };
    let made = match windows.mm.allocate_pages_for_mdl(p, &request) {
        Ok(made) => made,
        Err(failure) => return Ok(rule::WHOLE.refusal(format_args!("{name}: {failure}"))),
    };
    match domain::map(windows, p, &made.frames, true) {
        Ok(()) => {}
        // No memory for the tables is no memory for the pages.
        Err(hal::HalError::Allocation(_)) => {
            windows.mm.release_pages(p, made.id);
            let freed = windows.mm.free_mdl_structure(p, made.mdl);
            return Ok(freed.map_or_else(|| rule::WHOLE.refusal(name), Outcome::Stop));
        }
        Err(e) => return Ok(hal_stop("mapping pages for the device", &e)),
    }
    p.write_u64(field(argument, pages::HANDLE)?, handle)?;
    p.write_u64(field(argument, pages::MDL)?, made.mdl.0)?;
    windows.dxgk.tracked.insert(
        handle,
        Tracked {
            id: Some(made.id),
            frames: made.frames,
            write: true,
            object: TrackedObject::Mdl(made.mdl),
        },
    );
    Ok(fail(status::SUCCESS))
}

/// NTSTATUS DxgkCbFreePagesFromMdl(hAdapter, DXGKARGCB_FREEPAGESFROMMDL*).
pub(crate) fn free_pages_from_mdl(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    free(windows, p, call, "DxgkCbFreePagesFromMdl", |object| {
        matches!(object, TrackedObject::Mdl(_))
    })
}

/// NTSTATUS DxgkCbAllocateContiguousMemory(hAdapter,
/// DXGKARGCB_ALLOCATECONTIGUOUSMEMORY*).
pub(crate) fn allocate_contiguous(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    finish(try_allocate_contiguous(windows, p, call))
}

fn try_allocate_contiguous(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    let name = "DxgkCbAllocateContiguousMemory";
    if let Some(stop) = irql_stop(&windows.executive, name) {
        return Ok(Outcome::Stop(stop));
    }
    let argument = Gva(call.registers[1]);
    let bytes = p.read_u64(field(argument, contiguous::BYTES)?)?;
    let boundary = p.read_u64(field(argument, contiguous::BOUNDARY)?)?;
    if !is_our_handle(call.registers[0]) {
        return Ok(rule::ADAPTER.refusal(name));
    }
    if bytes == 0 || bytes > ALLOCATION_LIMIT {
        return Ok(rule::ALLOCATION_SIZE.refusal(format_args!("{name} of {bytes} bytes")));
    }
    if boundary != 0 && (!boundary.is_power_of_two() || boundary < PAGE_SIZE) {
        return Ok(rule::BOUNDARY.refusal(format_args!("{name} with {boundary:#x}")));
    }
    let handle = windows.new_handle();
    let request = mm::ContiguousRequest {
        bytes,
        lowest: p.read_u64(field(argument, contiguous::LOWEST)?)?,
        highest: p.read_u64(field(argument, contiguous::HIGHEST)?)?,
        boundary,
        kind: AllocationKind::DxgkContiguous,
        handle,
    };
    let made = match windows.mm.allocate_contiguous(p, &request) {
        Ok(made) => made,
        Err(failure) => return Ok(rule::WHOLE.refusal(format_args!("{name}: {failure}"))),
    };
    match domain::map(windows, p, &made.frames, true) {
        Ok(()) => {}
        Err(hal::HalError::Allocation(_)) => {
            windows.mm.release_contiguous(p, made.id);
            return Ok(rule::WHOLE.refusal(name));
        }
        Err(e) => return Ok(hal_stop("mapping contiguous memory for the device", &e)),
    }
    p.write_u64(field(argument, contiguous::HANDLE)?, handle)?;
    p.write_u64(field(argument, contiguous::MEMORY)?, made.address.0)?;
    windows.dxgk.tracked.insert(
        handle,
        Tracked {
            id: Some(made.id),
            frames: made.frames,
            write: true,
            object: TrackedObject::Contiguous(made.address),
        },
    );
    Ok(fail(status::SUCCESS))
}

/// NTSTATUS DxgkCbFreeContiguousMemory(hAdapter,
/// DXGKARGCB_FREECONTIGUOUSMEMORY*).
pub(crate) fn free_contiguous(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    free(windows, p, call, "DxgkCbFreeContiguousMemory", |object| {
        matches!(object, TrackedObject::Contiguous(_))
    })
}

/// The one way back: leaf entries cleared, IOTLB invalidated, accesses in
/// flight landed; only then do the pages go to the page-frame allocator.
fn free(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
    name: &str,
    is_kind: fn(TrackedObject) -> bool,
) -> Outcome {
    if let Some(stop) = irql_stop(&windows.executive, name) {
        return Outcome::Stop(stop);
    }
    // The argument is one handle.
    let handle = match p.read_u64(Gva(call.registers[1])) {
        Ok(handle) => handle,
        Err(e) => return e.into(),
    };
    let known = windows.dxgk.tracked.get(&handle);
    if !is_our_handle(call.registers[0]) || !known.is_some_and(|t| is_kind(t.object)) {
        let (broken, subject) = windows.bad_handle(call.registers[0], handle);
        let what = format_args!("{name} of {handle:#x}");
        return match broken {
            Some(broken) => broken.refuse_and_report(p, subject, what),
            None => rule::HANDLE.refusal(what),
        };
    }
    if let Some(known) = known {
        let subject = Subject {
            allocation: known.id,
            address: handle,
        };
        if let Some(stop) = windows.locked(name, subject, &known.frames) {
            return stop;
        }
    }
    match windows.dxgk.tracked.remove(&handle) {
        Some(tracked) => {
            let by_driver = true;
            let id = tracked.id;
            windows.dxgk.freed.insert(handle, Freed { id, by_driver });
            let stop = give_back(windows, p, &tracked);
            stop.unwrap_or_else(|| fail(status::SUCCESS))
        }
        None => fail(status::INVALID_HANDLE),
    }
}

/// Unmap what was tracked and give it back to its owner; the bug check, if
/// that comes of it.
pub(super) fn give_back(
    windows: &mut Windows,
    p: &mut dyn Platform,
    tracked: &Tracked,
) -> Option<Outcome> {
    if let Err(e) = domain::unmap(windows, p, &tracked.frames, tracked.write) {
        return Some(hal_stop("unmapping freed pages", &e));
    }
    match (tracked.object, tracked.id) {
        (TrackedObject::Mdl(mdl), Some(id)) => {
            windows.mm.release_pages(p, id);
            windows.mm.free_mdl_structure(p, mdl).map(Outcome::Stop)
        }
        (TrackedObject::Contiguous(_), Some(id)) => {
            windows.mm.release_contiguous(p, id);
            None
        }
        // The driver's own pages stay the driver's.
        _ => None,
    }
}

impl Windows {
    /// The stop of `name`, which gives frames back of which one is locked for
    /// I/O. They stay the driver's.
    pub(super) fn locked(&self, name: &str, subject: Subject, frames: &[Pfn]) -> Option<Outcome> {
        let (frame, count) = self.mm.first_locked(frames.iter().copied())?;
        let what = format!("{name}: page {:#x} is locked for I/O", frame.0);
        let stop = rule::FREED_LOCKED.stop(&[frame.0, count.into()], what);
        let status = status::INVALID_PARAMETER;
        Some(Outcome::Stop(stop.about(subject).or_return(status)))
    }

    /// Which rule a handle breaks that is not live, or not the right kind, or
    /// not this adapter's, and what it is about. `None` if dxgkrnl took it
    /// back itself: the driver was told of that.
    pub(super) fn bad_handle(
        &self,
        adapter: u64,
        handle: u64,
    ) -> (Option<&'static crate::rules::Rule>, Subject) {
        let known = self.dxgk.tracked.get(&handle);
        let freed = self.dxgk.freed.get(&handle);
        let allocation = freed
            .map_or_else(|| known.map(|tracked| tracked.id), |freed| Some(freed.id))
            .flatten();
        let subject = Subject {
            allocation,
            address: handle,
        };
        let broken = match freed {
            Some(freed) if !freed.by_driver => None,
            Some(_) => Some(&rule::HANDLE_TWICE),
            None if known.is_some() && !is_our_handle(adapter) => Some(&rule::HANDLE_ADAPTER),
            None => Some(&rule::HANDLE),
        };
        (broken, subject)
    }
}

/// The frames of every live allocation, for tests and reports.
impl Windows {
    /// Frames that the callbacks gave out and have not taken back.
    #[must_use]
    pub fn tracked_frames(&self) -> Vec<Pfn> {
        let mut frames: Vec<Pfn> = self
            .dxgk
            .tracked
            .values()
            .flat_map(|t| t.frames.iter().copied())
            .collect();
        frames.sort_unstable();
        frames
    }
}
