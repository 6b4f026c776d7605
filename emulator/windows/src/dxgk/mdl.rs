//! MDLs of the driver's own, mapped for the device.

use super::spec::map_mdl as map_argument;
use super::{
    Freed, Tracked, TrackedObject, domain, field, finish, hal_stop, irql_stop, is_our_handle,
};
use crate::call::{Call, Outcome};
use crate::mm::frames::push_frame;
use crate::mm::mdl::first_unowned;
use crate::mm::spec::mdl as flag;
use crate::mm::{Frame, Mdl, MdlError};
use crate::platform::{Platform, PlatformError};
use crate::rules::dxgk as rule;
use crate::{Windows, hal, status};
use journal::event::{AllocationId, Event, MdlMapping, Subject};
use memory::{Gva, Pfn};

fn done(status: u32) -> Outcome {
    Outcome::Return(status.into())
}

/// NTSTATUS DxgkCbMapMdlToIoMmu(hAdapter, DXGKARGCB_MAPMDLTOIOMMU*).
pub(crate) fn map(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    finish(try_map(windows, p, call))
}

fn try_map(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    const NAME: &str = "DxgkCbMapMdlToIoMmu";
    if let Some(stop) = irql_stop(&windows.executive, NAME) {
        return Ok(Outcome::Stop(stop));
    }
    let argument = Gva(call.registers[1]);
    let at = Gva(p.read_u64(field(argument, map_argument::MDL)?)?);
    if !is_our_handle(call.registers[0]) {
        return Ok(rule::ADAPTER.refusal(NAME));
    }
    let read = Mdl::read(p, at).and_then(|mdl| Ok((mdl, mdl.frames(p)?)));
    let (mdl, frames) = match read {
        Ok(read) => read,
        Err(MdlError::Unreadable { error, .. }) => return Err(error),
        Err(error) => return Ok(rule::MDL_POPULATED.refusal(format_args!("{NAME}: {error}"))),
    };
    let held = flag::PAGES_LOCKED | flag::SOURCE_IS_NONPAGED_POOL | flag::PARTIAL;
    if mdl.flags & held == 0 || mdl.flags & flag::IO_SPACE != 0 {
        let what = format!("{NAME} of MDL {at}, flags {:#06x}", mdl.flags);
        return Ok(rule::MDL_POPULATED.refusal(what));
    }
    let id = frames.first().and_then(|&frame| windows.owner(frame));
    if let Some((slot, frame)) = first_unowned(&windows.mm, &frames) {
        let subject = Subject {
            allocation: id,
            address: at.0,
        };
        let what = format!(
            "{NAME}: slot {slot} of MDL {at} is page {:#x}, which nobody owns",
            frame.0
        );
        return Ok(rule::MDL_PAGES.refuse_and_report(p, subject, what));
    }
    let write = windows.device_may_write(&mdl);
    match domain::map(windows, p, &frames, write) {
        Ok(()) => {}
        // No memory for the device's tables.
        Err(hal::HalError::Allocation(failure)) => {
            return Ok(rule::MDL_TABLES.refusal(format_args!("{NAME}: {failure}")));
        }
        Err(e) => return Ok(hal_stop("mapping an MDL for the device", &e)),
    }
    let handle = windows.new_handle();
    p.write_u64(field(argument, map_argument::HANDLE)?, handle)?;
    windows.mm.pin_for_device(at, &frames);
    let mut pages = Vec::new();
    for &frame in &frames {
        push_frame(&mut pages, frame);
    }
    let stack = p.stack();
    p.scenario().journal().emit(Event::MapMdl(MdlMapping {
        handle,
        mdl: at.0,
        pages,
        write,
        stack,
    }));
    windows.dxgk.tracked.insert(
        handle,
        Tracked {
            id,
            frames,
            write,
            object: TrackedObject::Mapped(at),
        },
    );
    Ok(done(status::SUCCESS))
}

/// VOID DxgkCbUnmapMdlFromIoMmu(hAdapter, DXGKARGCB_UNMAPMDLFROMIOMMU*).
pub(crate) fn unmap(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    finish(try_unmap(windows, p, call))
}

fn try_unmap(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    const NAME: &str = "DxgkCbUnmapMdlFromIoMmu";
    if let Some(stop) = irql_stop(&windows.executive, NAME) {
        return Ok(Outcome::Stop(stop));
    }
    // The argument is one handle.
    let [adapter, argument, ..] = call.registers;
    let handle = p.read_u64(Gva(argument))?;
    let known = windows.dxgk.tracked.get(&handle);
    let mapped = known.is_some_and(|t| matches!(t.object, TrackedObject::Mapped(_)));
    if !mapped || !is_our_handle(adapter) {
        let (broken, subject) = windows.bad_handle(adapter, handle);
        // Nothing is returned, so the rows about handles that have a status
        // do not say what happens here.
        if let Some(broken) = broken {
            let row = if broken == &rule::HANDLE_TWICE {
                &rule::UNMAP_TWICE
            } else {
                &rule::UNMAP_HANDLE
            };
            row.report(p, subject, None, format_args!("{NAME} of {handle:#x}"));
        }
        return Ok(done(status::SUCCESS));
    }
    let Some(tracked) = windows.dxgk.tracked.remove(&handle) else {
        return Ok(done(status::SUCCESS));
    };
    if let TrackedObject::Mapped(mdl) = tracked.object {
        windows.mm.tell_changed(p, NAME, mdl);
    }
    let freed = Freed {
        id: tracked.id,
        by_driver: true,
    };
    windows.dxgk.freed.insert(handle, freed);
    Ok(take(windows, p, handle, &tracked).unwrap_or(done(status::SUCCESS)))
}

/// Take the pages of a mapped MDL from the device, and tell; the bug check,
/// if that comes of it.
pub(super) fn take(
    windows: &mut Windows,
    p: &mut dyn Platform,
    handle: u64,
    tracked: &Tracked,
) -> Option<Outcome> {
    if let Err(e) = domain::unmap(windows, p, &tracked.frames, tracked.write) {
        return Some(hal_stop("unmapping an MDL", &e));
    }
    if let TrackedObject::Mapped(mdl) = tracked.object {
        windows.mm.unpin_for_device(mdl);
    }
    let stack = p.stack();
    p.scenario()
        .journal()
        .emit(Event::UnmapMdl { handle, stack });
    None
}

impl Windows {
    /// The allocation that a frame is part of.
    fn owner(&self, frame: Pfn) -> Option<AllocationId> {
        match self.mm.frame(frame) {
            Some(Frame::Owned(id)) => Some(id),
            _ => None,
        }
    }

    /// A buffer that was locked for a device to read (IoReadAccess) is mapped
    /// read-only. Pages that MmAllocatePagesForMdl gave were never locked for
    /// an operation, and a partial MDL does not say what its source was
    /// locked for.
    fn device_may_write(&self, mdl: &Mdl) -> bool {
        let probed = mdl.flags & flag::PAGES_LOCKED != 0
            && mdl.flags & flag::PARTIAL == 0
            && self.mm.record_at(mdl.address).is_none();
        !probed || mdl.flags & flag::WRITE_OPERATION != 0
    }
}
