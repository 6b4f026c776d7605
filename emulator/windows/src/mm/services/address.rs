//! Addresses: translation, and mappings of device memory.

use super::super::space::{self, Region};
use super::super::{AllocFailure, Frame, State, past, spec};
use super::{Flow, check_irql, finish, null};
use crate::call::{Call, Outcome};
use crate::platform::{Platform, Protection};
use crate::rules::{contiguous as contiguous_rule, mapping as map_rule, mm as rule};
use journal::event::{Event, PageRun, Subject};
use memory::{Gpa, Gva, PAGE_SIZE, Pfn, pages_spanned};

/// `PHYSICAL_ADDRESS (PVOID)`: 0 where nothing is mapped.
pub(super) fn physical_address(
    _: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    _: u8,
) -> Outcome {
    let [address, ..] = call.registers;
    let Some(gpa) = platform.translate(Gva(address)) else {
        return Outcome::Return(0);
    };
    let stack = platform.stack();
    platform.scenario().journal().emit(Event::Physical {
        address,
        gpa,
        stack,
    });
    Outcome::Return(gpa.0)
}

/// `BOOLEAN (PVOID)`.
pub(super) fn is_valid(_: &mut State, platform: &mut dyn Platform, call: &Call, _: u8) -> Outcome {
    let [address, ..] = call.registers;
    Outcome::Return(u64::from(platform.translate(Gva(address)).is_some()))
}

/// `PVOID (PHYSICAL_ADDRESS, SIZE_T, MEMORY_CACHING_TYPE)`.
pub(super) fn map_io_space(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    const NAME: &str = "MmMapIoSpace";
    let [address, bytes, ..] = call.registers;
    let mut flow = || -> Flow {
        check_irql(&rule::PAGE_IRQL, NAME, irql, &[])?;
        if let Some(page) = unlocked(state, address, bytes) {
            let what =
                format!("{NAME} of {bytes} bytes at {address:#x}: nobody owns page {page:#x}");
            return Err(contiguous_rule::IO_SPACE_UNLOCKED.outcome(&[address, bytes, page], what));
        }
        Ok(
            match state.map_device_memory(platform, Gpa(address), bytes) {
                Ok(at) => at.0,
                Err(failure) => null(
                    NAME,
                    &failure,
                    &contiguous_rule::IO_SPACE_SIZE,
                    &map_rule::MAP_NULL,
                ),
            },
        )
    };
    finish(flow())
}

/// The first page of RAM within a range that nobody owns.
fn unlocked(state: &State, address: u64, bytes: u64) -> Option<u64> {
    // Above the last frame there is none.
    let end = address.checked_add(bytes)?.div_ceil(PAGE_SIZE);
    (address / PAGE_SIZE..end.min(state.frames.end())).find(|&page| {
        let frame = state.frame(Pfn(page));
        matches!(frame, Some(Frame::Free | Frame::Quarantined))
    })
}

impl State {
    /// Map device memory (a BAR) for the driver: also what
    /// `DxgkCbMapMemory` does.
    ///
    /// # Errors
    /// [`AllocFailure`].
    pub fn map_device_memory(
        &mut self,
        platform: &mut dyn Platform,
        address: Gpa,
        bytes: u64,
    ) -> Result<Gva, AllocFailure> {
        let pages = pages_spanned(address.0, bytes);
        let bad = bytes == 0 || bytes > spec::mdl::MAX_BYTES;
        if bad || address.checked_add(bytes).is_none() {
            return Err(AllocFailure::BadSize { bytes });
        }
        let runs = [PageRun {
            first: Pfn::from(address),
            count: pages,
        }];
        let base = space::map(self, platform, Region::Io, &runs, Protection::WRITE)?;
        Ok(Gva(base.0 + address.offset()))
    }

    /// Undo [`State::map_device_memory`]; says whether there was such a mapping.
    pub fn unmap_device_memory(&mut self, platform: &mut dyn Platform, address: Gva) -> bool {
        let base = address.page_base();
        let subject = Subject {
            allocation: None,
            address: address.0,
        };
        Region::Io.contains(base)
            && self.unmap_and_note(platform, base, past::Kind::Device, subject)
    }
}

/// `VOID (PVOID, SIZE_T)`.
pub(super) fn unmap_io_space(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [address, bytes, ..] = call.registers;
    let address = Gva(address);
    let mut flow = || -> Flow {
        check_irql(&rule::PAGE_IRQL, "MmUnmapIoSpace", irql, &[])?;
        let pages = pages_spanned(address.0, bytes);
        match state.space.pages(address.page_base()) {
            Some(mapped) if mapped != pages => Err(contiguous_rule::IO_SPACE_COUNT.outcome(
                &[address.0, pages, mapped],
                format!("MmUnmapIoSpace of {pages} pages at {address}, {mapped} are mapped"),
            )),
            Some(_) if state.unmap_device_memory(platform, address) => Ok(0),
            _ => Err(contiguous_rule::IO_SPACE_ADDRESS.outcome(
                &[address.0, pages],
                format!("MmUnmapIoSpace of {address}, where no device memory is mapped"),
            )),
        }
    };
    finish(flow())
}
