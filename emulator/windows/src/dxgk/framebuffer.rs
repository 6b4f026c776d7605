//! Saving the frame buffer over a loss of power: the section that
//! DXGKQAITYPE_FRAMEBUFFERSAVESIZE asks for, pinned whole for the device, or
//! mapped piece by piece for the CPU.

use super::spec::{map_framebuffer, pin_framebuffer, unmap_framebuffer};
use super::{domain, field, finish, hal_stop, irql_stop, is_our_handle};
use crate::call::{Call, Outcome};
use crate::mm::spec::allocate;
use crate::platform::{Platform, PlatformError, Protection};
use crate::rules::dxgk as rule;
use crate::{Windows, hal, mm, status};
use journal::event::{AllocationId, AllocationKind, Subject};
use memory::{Gpa, Gva, PAGE_SIZE, Pfn};
use std::collections::BTreeMap;

/// Views of a section start at multiples of this: the allocation granularity.
const GRANULARITY: u64 = 0x1_0000;

/// The section of the one physical adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Section {
    /// MaximumSize: a multiple of a page.
    pub maximum: u64,
    /// What it holds while nobody has it, by page; a page that is not there
    /// is zero.
    contents: BTreeMap<u64, Vec<u8>>,
    pub pinned: Option<Pinned>,
    pub view: Option<View>,
}

/// The section's pages, for the device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pinned {
    pub id: AllocationId,
    pub mdl: Gva,
    pub frames: Vec<Pfn>,
}

/// A piece of the section, for the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub base: Gva,
    /// Where in the section it starts.
    start: u64,
    length: u64,
}

impl Section {
    pub fn new(maximum: u64) -> Self {
        Self {
            maximum,
            ..Self::default()
        }
    }

    /// Fill a page of memory with what the section holds.
    fn page_in(&self, p: &dyn Platform, page: u64, to: Gpa) -> Result<(), PlatformError> {
        let nothing = PlatformError::NotMapped(Gva(to.0));
        match self.contents.get(&page) {
            Some(bytes) => p.memory().write(to, bytes).map_err(|_| nothing),
            None => p
                .memory()
                .write(to, &[0; PAGE_SIZE as usize])
                .map_err(|_| nothing),
        }
    }

    /// Keep what a page of memory holds.
    fn page_out(&mut self, p: &dyn Platform, page: u64, from: Gpa) {
        let mut bytes = vec![0; PAGE_SIZE as usize];
        // Memory that is gone holds nothing.
        if p.memory().read(from, &mut bytes).is_ok() && bytes.iter().any(|&byte| byte != 0) {
            self.contents.insert(page, bytes);
        } else {
            self.contents.remove(&page);
        }
    }
}

fn done(status: u32) -> Outcome {
    Outcome::Return(status.into())
}

fn is_size(section: &Section, offset: u64, size: u64) -> bool {
    size != 0
        && size.is_multiple_of(PAGE_SIZE)
        && offset.is_multiple_of(PAGE_SIZE)
        && offset
            .checked_add(size)
            .is_some_and(|end| end <= section.maximum)
}

/// What all four callbacks begin with: the argument, or the end of the call.
fn begin(
    windows: &Windows,
    p: &dyn Platform,
    call: &Call,
    name: &str,
) -> Result<Result<Gva, Outcome>, PlatformError> {
    if let Some(stop) = irql_stop(&windows.executive, name) {
        return Ok(Err(Outcome::Stop(stop)));
    }
    let argument = Gva(call.registers[1]);
    // PhysicalAdapterIndex comes first in each argument.
    let index = p.read_u32(argument)?;
    if !is_our_handle(call.registers[0]) {
        return Ok(Err(rule::ADAPTER.refusal(name)));
    }
    if index != 0 || windows.dxgk.section.is_none() {
        let what = format!("{name} of physical adapter {index}");
        return Ok(Err(rule::SAVE_ADAPTER.refusal(what)));
    }
    Ok(Ok(argument))
}

/// NTSTATUS DxgkCbPinFrameBufferForSave(hAdapter,
/// DXGKARGCB_PINFRAMEBUFFERFORSAVE*).
pub(crate) fn pin(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    finish(try_pin(windows, p, call))
}

fn try_pin(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    const NAME: &str = "DxgkCbPinFrameBufferForSave";
    let argument = match begin(windows, p, call, NAME)? {
        Ok(argument) => argument,
        Err(end) => return Ok(end),
    };
    let bytes = p.read_u64(field(argument, pin_framebuffer::SIZE)?)?;
    let Some(section) = &windows.dxgk.section else {
        return Ok(rule::SAVE_ADAPTER.refusal(NAME));
    };
    if !is_size(section, 0, bytes) {
        return Ok(rule::SAVE_SIZE.refusal(format_args!("{NAME} of {bytes:#x} bytes")));
    }
    if section.pinned.is_some() || section.view.is_some() {
        return Ok(rule::SAVE_IN_USE.refusal(NAME));
    }
    if !windows.dxgk.pin_succeeds {
        return Ok(rule::SAVE_PIN.refusal(format_args!("{NAME}, as the run was told to")));
    }
    let request = mm::PageRequest {
        low: 0,
        high: u64::MAX,
        skip: 0,
        bytes,
        flags: allocate::FULLY_REQUIRED | allocate::DONT_ZERO,
        kind: AllocationKind::FramebufferSave,
        handle: 0,
    };
    let made = match windows.mm.allocate_pages_for_mdl(p, &request) {
        Ok(made) => made,
        Err(failure) => return Ok(rule::SAVE_PIN.refusal(format_args!("{NAME}: {failure}"))),
    };
    for (page, frame) in (0..).zip(&made.frames) {
        section.page_in(p, page, frame.base())?;
    }
    match domain::map(windows, p, &made.frames, true) {
        Ok(()) => {}
        Err(hal::HalError::Allocation(_)) => {
            windows.mm.release_pages(p, made.id);
            let freed = windows.mm.free_mdl_structure(p, made.mdl);
            return Ok(freed.map_or_else(|| rule::SAVE_PIN.refusal(NAME), Outcome::Stop));
        }
        Err(e) => return Ok(hal_stop("mapping the frame buffer's section", &e)),
    }
    p.write_u64(field(argument, pin_framebuffer::MDL)?, made.mdl.0)?;
    if let Some(section) = &mut windows.dxgk.section {
        section.pinned = Some(Pinned {
            id: made.id,
            mdl: made.mdl,
            frames: made.frames,
        });
    }
    Ok(done(status::SUCCESS))
}

/// NTSTATUS DxgkCbUnpinFrameBufferForSave(hAdapter,
/// DXGKARGCB_UNPINFRAMEBUFFERFORSAVE*).
pub(crate) fn unpin(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    finish(try_unpin(windows, p, call))
}

fn try_unpin(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    const NAME: &str = "DxgkCbUnpinFrameBufferForSave";
    if let Err(end) = begin(windows, p, call, NAME)? {
        return Ok(end);
    }
    let section = windows.dxgk.section.as_ref();
    let pinned = section.and_then(|section| section.pinned.as_ref());
    if let Some(pinned) = pinned {
        let subject = Subject {
            allocation: Some(pinned.id),
            address: pinned.mdl.0,
        };
        if let Some(stop) = windows.locked(NAME, subject, &pinned.frames) {
            return Ok(stop);
        }
    }
    let pinned = windows.dxgk.section.as_mut().and_then(|s| s.pinned.take());
    let Some(pinned) = pinned else {
        return Ok(rule::SAVE_RELEASE.refuse_and_report(p, Subject::default(), NAME));
    };
    Ok(release_pinned(windows, p, &pinned).unwrap_or(done(status::SUCCESS)))
}

/// The device loses the section's pages, whose contents the section keeps.
pub(super) fn release_pinned(
    windows: &mut Windows,
    p: &mut dyn Platform,
    pinned: &Pinned,
) -> Option<Outcome> {
    if let Err(e) = domain::unmap(windows, p, &pinned.frames, true) {
        return Some(hal_stop("unmapping the frame buffer's section", &e));
    }
    if let Some(section) = &mut windows.dxgk.section {
        for (page, frame) in (0..).zip(&pinned.frames) {
            section.page_out(p, page, frame.base());
        }
    }
    windows.mm.release_pages(p, pinned.id);
    let freed = windows.mm.free_mdl_structure(p, pinned.mdl);
    freed.map(Outcome::Stop)
}

/// NTSTATUS DxgkCbMapFrameBufferPointer(hAdapter,
/// DXGKARGCB_MAPFRAMEBUFFERPOINTER*).
pub(crate) fn map(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    finish(try_map(windows, p, call))
}

fn try_map(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    const NAME: &str = "DxgkCbMapFrameBufferPointer";
    let argument = match begin(windows, p, call, NAME)? {
        Ok(argument) => argument,
        Err(end) => return Ok(end),
    };
    let size = p.read_u64(field(argument, map_framebuffer::SIZE)?)?;
    let offset = p.read_u64(field(argument, map_framebuffer::OFFSET)?)?;
    let Some(section) = &mut windows.dxgk.section else {
        return Ok(rule::SAVE_ADAPTER.refusal(NAME));
    };
    if !is_size(section, offset, size) {
        let what = format!("{NAME} of {size:#x} bytes at {offset:#x}");
        return Ok(rule::SAVE_SIZE.refusal(what));
    }
    if section.pinned.is_some() || section.view.is_some() {
        return Ok(rule::SAVE_IN_USE.refusal(NAME));
    }
    let start = offset & !(GRANULARITY - 1);
    let length = offset - start + size;
    let base = match windows.mm.system_memory(p, length, Protection::WRITE) {
        Ok(base) => base,
        Err(failure) if size == PAGE_SIZE => {
            let stop = rule::SAVE_NO_PAGE.stop(&[], format!("{NAME} of one page: {failure}"));
            return Ok(Outcome::Stop(stop.or_return(status::NO_MEMORY)));
        }
        Err(failure) => return Ok(rule::SAVE_MAP.refusal(format_args!("{NAME}: {failure}"))),
    };
    for at in (0..length).step_by(PAGE_SIZE as usize) {
        if let Some(to) = p.translate(Gva(base.0 + at)) {
            section.page_in(p, (start + at) / PAGE_SIZE, to)?;
        }
    }
    section.view = Some(View {
        base,
        start,
        length,
    });
    p.write_u64(field(argument, map_framebuffer::OFFSET)?, offset - start)?;
    p.write_u64(field(argument, map_framebuffer::ADDRESS)?, base.0)?;
    Ok(done(status::SUCCESS))
}

/// NTSTATUS DxgkCbUnmapFrameBufferPointer(hAdapter,
/// DXGKARGCB_UNMAPFRAMEBUFFERPOINTER*).
pub(crate) fn unmap(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    finish(try_unmap(windows, p, call))
}

fn try_unmap(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<Outcome, PlatformError> {
    const NAME: &str = "DxgkCbUnmapFrameBufferPointer";
    let argument = match begin(windows, p, call, NAME)? {
        Ok(argument) => argument,
        Err(end) => return Ok(end),
    };
    let address = p.read_u64(field(argument, unmap_framebuffer::ADDRESS)?)?;
    let section = windows.dxgk.section.as_ref();
    let view = section.and_then(|section| section.view);
    match view.filter(|view| view.base.0 == address) {
        Some(view) => {
            release_view(windows, p, view);
            Ok(done(status::SUCCESS))
        }
        None => {
            let subject = Subject {
                allocation: None,
                address,
            };
            let what = format!("{NAME} of {address:#x}");
            Ok(rule::SAVE_RELEASE.refuse_and_report(p, subject, what))
        }
    }
}

/// The section keeps what the CPU wrote through the view.
pub(super) fn release_view(windows: &mut Windows, p: &mut dyn Platform, view: View) {
    if let Some(section) = &mut windows.dxgk.section {
        for at in (0..view.length).step_by(PAGE_SIZE as usize) {
            if let Some(from) = p.translate(Gva(view.base.0 + at)) {
                section.page_out(p, (view.start + at) / PAGE_SIZE, from);
            }
        }
        section.view = None;
    }
    windows.mm.free_system_memory(p, view.base);
}
