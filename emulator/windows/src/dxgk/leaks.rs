//! What a driver leaves behind when its device is stopped: told, and taken
//! back, so that nothing stays mapped.

use super::{Freed, Tracked, TrackedObject, framebuffer, mdl, pages};
use crate::Windows;
use crate::call::Outcome;
use crate::mm::frames::{each_frame, push_frame};
use crate::platform::Platform;
use crate::rules::dxgk as rule;
use journal::event::{AllocationId, Event, StackId, Subject};
use memory::Gva;

fn tell(p: &dyn Platform, allocation: Option<AllocationId>, address: u64, what: &str) {
    let subject = Subject {
        allocation,
        address,
    };
    // None of the driver's code is running.
    let none = StackId::default();
    rule::LEAK.report_from(p, none, subject, None, format_args!("{what} is left"));
}

impl Windows {
    /// The device is stopped: dxgkrnl takes back what the driver still has.
    pub(super) fn take_back(&mut self, p: &mut dyn Platform) {
        for (handle, tracked) in std::mem::take(&mut self.dxgk.tracked) {
            let (what, address) = describe(&tracked);
            tell(p, tracked.id, address, what);
            let freed = Freed {
                id: tracked.id,
                by_driver: false,
            };
            self.dxgk.freed.insert(handle, freed);
            let stop = match tracked.object {
                TrackedObject::Mapped(_) => mdl::take(self, p, handle, &tracked),
                _ => pages::give_back(self, p, &tracked),
            };
            note_stop(stop.as_ref());
        }
        if let Some(pinned) = self.dxgk.section.as_mut().and_then(|s| s.pinned.take()) {
            let what = "a frame buffer pinned by DxgkCbPinFrameBufferForSave";
            tell(p, Some(pinned.id), pinned.mdl.0, what);
            note_stop(framebuffer::release_pinned(self, p, &pinned).as_ref());
        }
        if let Some(view) = self.dxgk.section.as_mut().and_then(|s| s.view.take()) {
            let what = "a frame buffer mapped by DxgkCbMapFrameBufferPointer";
            tell(p, None, view.base.0, what);
            framebuffer::release_view(self, p, view);
        }
        self.dxgk.section = None;
        for address in std::mem::take(&mut self.dxgk.mappings) {
            tell(
                p,
                None,
                address.0,
                "device memory mapped by DxgkCbMapMemory",
            );
            self.mm.unmap_device_memory(p, address);
        }
    }

    /// The adapter is removed: its reserved ranges are no device's any more.
    pub(super) fn release_reserved_ranges(&mut self, p: &mut dyn Platform) {
        let mut outside = Vec::new();
        for frame in each_frame(&std::mem::take(&mut self.dxgk.reserved)) {
            let ram = p.memory().contains(frame.base(), memory::PAGE_SIZE);
            if !(self.dxgk.maps_all && ram) {
                push_frame(&mut outside, frame);
            }
        }
        let frames: Vec<_> = each_frame(&outside).collect();
        if let Some(domain) = self.dxgk.domain
            && let Err(error) = self.hal.unmap(p, domain, &frames, true)
        {
            log::warn!("ranges reserved by the hardware stay mapped: {error}");
        }
        for allocation in std::mem::take(&mut self.dxgk.reserved_ids) {
            p.scenario().journal().emit(Event::Free {
                allocation,
                stack: StackId::default(),
            });
        }
    }
}

fn describe(tracked: &Tracked) -> (&'static str, u64) {
    let (what, Gva(address)) = match tracked.object {
        TrackedObject::Mdl(at) => ("memory from DxgkCbAllocatePagesForMdl", at),
        TrackedObject::Contiguous(at) => ("memory from DxgkCbAllocateContiguousMemory", at),
        TrackedObject::Mapped(at) => ("an MDL mapped by DxgkCbMapMdlToIoMmu", at),
    };
    (what, address)
}

/// A stop while Windows itself cleans up is of the driver's own making, and
/// was told when it was made.
fn note_stop(stop: Option<&Outcome>) {
    if let Some(Outcome::Stop(stop)) = stop {
        log::warn!("taking back what the driver left: {}", stop.reason);
    }
}
