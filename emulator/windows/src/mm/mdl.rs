//! MDLs: made in guest memory at their exact layout, and read back as what a
//! driver may have done to them.

use super::frames::{Frame, count_frames, each_frame, push_frame};
use super::pages::MDL_TAG;
use super::space::{self, Region};
use super::spec::mdl as layout;
use super::{AllocFailure, State, past, pool};
use crate::platform::{Platform, PlatformError, Protection};
use journal::event::{AllocationId, PageRun, Subject};
use memory::{Gva, PAGE_SIZE, Pfn, pages_spanned};
use thiserror::Error;

/// Why an MDL in guest memory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MdlError {
    /// It is not there, or not all of it.
    #[error("the MDL at {mdl} is not readable: {error}")]
    Unreadable {
        /// The MDL.
        mdl: Gva,
        /// What was missing.
        error: PlatformError,
    },
    /// `ByteOffset` is no offset in a page, or the MDL describes nothing.
    #[error("the MDL at {mdl} describes {count} bytes at offset {offset:#x}")]
    BadExtent {
        /// The MDL.
        mdl: Gva,
        /// `ByteCount`.
        count: u32,
        /// `ByteOffset`.
        offset: u32,
    },
    /// A page frame number that is no RAM, and the MDL is not for I/O space.
    #[error("slot {slot} of the MDL at {mdl} holds {pfn:#x}, which is no page of RAM")]
    NotMemory {
        /// The MDL.
        mdl: Gva,
        /// Index in the array.
        slot: u64,
        /// Its content.
        pfn: u64,
    },
}

impl MdlError {
    /// Guest address of the array slot `index` of the MDL at `mdl`.
    #[must_use]
    pub fn slot_address(mdl: Gva, index: u64) -> u64 {
        mdl.0
            .wrapping_add(layout::HEADER)
            .wrapping_add(index.wrapping_mul(8))
    }
}

/// An MDL's header as read from guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mdl {
    /// Where it is.
    pub address: Gva,
    /// The next of the chain, or 0.
    pub next: u64,
    /// `MdlFlags`.
    pub flags: u16,
    /// `MappedSystemVa`.
    pub mapped_system_va: u64,
    /// `StartVa`.
    pub start_va: u64,
    /// `ByteCount`.
    pub byte_count: u32,
    /// `ByteOffset`, less than a page.
    pub byte_offset: u32,
}

impl Mdl {
    /// Read the header. `Size` is not looked at: it wraps for long MDLs.
    ///
    /// # Errors
    /// [`MdlError::Unreadable`], [`MdlError::BadExtent`].
    pub fn read(platform: &dyn Platform, address: Gva) -> Result<Self, MdlError> {
        let unreadable = |error| MdlError::Unreadable {
            mdl: address,
            error,
        };
        let mut bytes = [0u8; layout::HEADER as usize];
        platform.read(address, &mut bytes).map_err(unreadable)?;
        let mdl = Self {
            address,
            next: field(&bytes, layout::NEXT, 8),
            flags: field(&bytes, layout::FLAGS, 2) as u16,
            mapped_system_va: field(&bytes, layout::MAPPED_SYSTEM_VA, 8),
            start_va: field(&bytes, layout::START_VA, 8),
            byte_count: field(&bytes, layout::BYTE_COUNT, 4) as u32,
            byte_offset: field(&bytes, layout::BYTE_OFFSET, 4) as u32,
        };
        if u64::from(mdl.byte_offset) >= PAGE_SIZE || mdl.byte_count == 0 {
            return Err(MdlError::BadExtent {
                mdl: address,
                count: mdl.byte_count,
                offset: mdl.byte_offset,
            });
        }
        Ok(mdl)
    }

    /// Slots of its array that are in use.
    #[must_use]
    pub fn pages(&self) -> u64 {
        pages_spanned(u64::from(self.byte_offset), u64::from(self.byte_count))
    }

    /// Its array, unchecked: at most 2^20 + 1 numbers.
    ///
    /// # Errors
    /// [`MdlError::Unreadable`].
    pub fn slots(&self, platform: &dyn Platform) -> Result<Vec<u64>, MdlError> {
        let mut slots = Vec::new();
        let mut page = [0u8; PAGE_SIZE as usize];
        let mut left = self.pages() * 8;
        let mut at = Gva(MdlError::slot_address(self.address, 0));
        // By pieces, so that a forged ByteCount costs no memory before the
        // first page that is not there.
        while left > 0 {
            let length = left.min(PAGE_SIZE) as usize;
            let piece = page.get_mut(..length).unwrap_or_default();
            platform
                .read(at, piece)
                .map_err(|error| MdlError::Unreadable {
                    mdl: self.address,
                    error,
                })?;
            slots.extend(piece.chunks_exact(8).map(|bytes| field(bytes, 0, 8)));
            left -= length as u64;
            at = Gva(at.0.wrapping_add(length as u64));
        }
        Ok(slots)
    }

    /// Its pages: each is RAM, unless the MDL says it describes I/O space.
    ///
    /// # Errors
    /// [`MdlError::Unreadable`], [`MdlError::NotMemory`].
    pub fn frames(&self, platform: &dyn Platform) -> Result<Vec<Pfn>, MdlError> {
        let slots = self.slots(platform)?;
        let any = self.flags & layout::IO_SPACE != 0;
        for (slot, &pfn) in slots.iter().enumerate() {
            let frame = pfn <= u64::MAX / PAGE_SIZE;
            if !frame || !any && !platform.memory().contains(Pfn(pfn).base(), PAGE_SIZE) {
                return Err(MdlError::NotMemory {
                    mdl: self.address,
                    slot: slot as u64,
                    pfn,
                });
            }
        }
        Ok(slots.into_iter().map(Pfn).collect())
    }

    pub(super) fn write_flags(
        &mut self,
        platform: &mut dyn Platform,
        flags: u16,
    ) -> Result<(), PlatformError> {
        self.flags = flags;
        let at = Gva(self.address.0.wrapping_add(layout::FLAGS));
        platform.write(at, &flags.to_le_bytes())
    }

    pub(super) fn write_mapped_va(
        &mut self,
        platform: &mut dyn Platform,
        value: u64,
    ) -> Result<(), PlatformError> {
        self.mapped_system_va = value;
        let at = Gva(self.address.0.wrapping_add(layout::MAPPED_SYSTEM_VA));
        platform.write_u64(at, value)
    }
}

fn field(bytes: &[u8], at: u64, size: usize) -> u64 {
    let at = at as usize;
    let mut value = [0u8; 8];
    if let (Some(to), Some(from)) = (value.get_mut(..size), bytes.get(at..at + size)) {
        to.copy_from_slice(from);
    }
    u64::from_le_bytes(value)
}

/// Allocate an MDL with room for what `length` bytes from `va` span, and
/// initialise it as the macro MmInitializeMdl does.
///
/// # Errors
/// [`AllocFailure`].
pub fn create(
    state: &mut State,
    platform: &mut dyn Platform,
    va: u64,
    length: u64,
) -> Result<Gva, AllocFailure> {
    if length > layout::MAX_BYTES {
        return Err(AllocFailure::BadSize { bytes: length });
    }
    let bytes = layout::HEADER + 8 * pages_spanned(va, length);
    let mdl = pool::allocate(state, platform, pool::Shape::zeroed(bytes, MDL_TAG))?;
    state.structures.insert(mdl);
    let start = va & !(PAGE_SIZE - 1);
    platform.write(Gva(mdl.0 + layout::SIZE), &(bytes as u16).to_le_bytes())?;
    platform.write_u64(Gva(mdl.0 + layout::START_VA), start)?;
    platform.write_u32(Gva(mdl.0 + layout::BYTE_COUNT), length as u32)?;
    platform.write_u32(Gva(mdl.0 + layout::BYTE_OFFSET), (va - start) as u32)?;
    Ok(mdl)
}

/// The MDL that `MmAllocatePagesForMdl` returns: start 0, no mapping.
pub(super) fn create_for_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    runs: &[PageRun],
    requested: u64,
) -> Result<Gva, AllocFailure> {
    let given = count_frames(runs);
    // The structure is made for the request (rule partial-slots), unless
    // memory is too short even for that.
    let made = create(state, platform, 0, requested * PAGE_SIZE);
    let (mdl, room) = match made {
        Err(AllocFailure::NoFrames { .. }) if requested > given => {
            (create(state, platform, 0, given * PAGE_SIZE)?, given)
        }
        made => (made?, requested),
    };
    let bytes = given * PAGE_SIZE;
    platform.write_u32(Gva(mdl.0 + layout::BYTE_COUNT), bytes as u32)?;
    let locked = layout::PAGES_LOCKED.to_le_bytes();
    platform.write(Gva(mdl.0 + layout::FLAGS), &locked)?;
    let unused = (given..room).map(|_| Pfn(layout::EMPTY_SLOT));
    write_slots(platform, mdl, each_frame(runs).chain(unused))?;
    Ok(mdl)
}

/// Fill the array of the MDL at `mdl`.
pub(super) fn write_slots(
    platform: &mut dyn Platform,
    mdl: Gva,
    frames: impl Iterator<Item = Pfn>,
) -> Result<(), PlatformError> {
    let bytes: Vec<u8> = frames.flat_map(|frame| frame.0.to_le_bytes()).collect();
    platform.write(Gva(MdlError::slot_address(mdl, 0)), &bytes)
}

/// Most pages of addresses that stay free after a mapping.
const MOST_BEYOND: u64 = 512;

/// A system mapping of an MDL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// First address of its range.
    pub base: Gva,
    /// The first frame when it was mapped.
    pub first: Option<Pfn>,
    /// `StartVa` when it was mapped.
    pub start_va: u64,
    /// Pages that are mapped.
    pub pages: u64,
    /// Of them, pages that `MmAdvanceMdl` released.
    pub passed: u64,
    /// Addresses, in pages, that are kept free after them: where the pages
    /// would be that were asked for and not given.
    pub beyond: u64,
    /// Whose pages they are.
    pub allocation: Option<AllocationId>,
}

/// Map the MDL's pages to system addresses and note it in the MDL. Returns
/// the address of its first byte. The caller has checked flags and frames.
///
/// # Errors
/// [`AllocFailure`]; nothing is then mapped.
pub fn map(
    state: &mut State,
    platform: &mut dyn Platform,
    mdl: &mut Mdl,
    frames: &[Pfn],
    protection: Protection,
) -> Result<Gva, AllocFailure> {
    let mut runs = Vec::new();
    for &frame in frames {
        push_frame(&mut runs, frame);
    }
    let allocation = first_owner(state, frames);
    let beyond = missing(state, allocation, frames.len() as u64);
    let region = Region::SystemPtes;
    let base = space::map_with_room(state, platform, region, &runs, beyond, protection)?;
    let va = Gva(base.0 + u64::from(mdl.byte_offset));
    let mut flags = mdl.flags | layout::MAPPED_TO_SYSTEM_VA;
    if flags & layout::PARTIAL != 0 {
        flags |= layout::PARTIAL_HAS_BEEN_MAPPED;
    }
    let noted = mdl
        .write_flags(platform, flags)
        .and_then(|()| mdl.write_mapped_va(platform, va.0));
    if let Err(error) = noted {
        space::unmap(state, platform, base);
        return Err(error.into());
    }
    let mapping = Mapping {
        base,
        first: frames.first().copied(),
        start_va: mdl.start_va,
        pages: frames.len() as u64,
        passed: 0,
        beyond,
        allocation,
    };
    state.mappings.insert(mdl.address, mapping);
    Ok(va)
}

/// Release the system mapping of the MDL at `mdl`, if it has one, and note
/// it in the MDL if that still is there.
pub(super) fn drop_mapping(state: &mut State, platform: &mut dyn Platform, mdl: Gva) {
    let Some(mapping) = state.mappings.remove(&mdl) else {
        return;
    };
    let subject = Subject {
        allocation: mapping.allocation,
        address: mdl.0,
    };
    state.unmap_and_note(platform, mapping.base, past::Kind::Mdl, subject);
    if let Ok(mut mdl) = Mdl::read(platform, mdl) {
        let flags = mdl.flags & !(layout::MAPPED_TO_SYSTEM_VA | layout::PARTIAL_HAS_BEEN_MAPPED);
        // It was readable a moment ago.
        let _ = mdl
            .write_flags(platform, flags)
            .and_then(|()| mdl.write_mapped_va(platform, 0));
    }
}

impl State {
    /// The first of `frames` that is locked for I/O, and how often.
    pub(crate) fn first_locked(&self, frames: impl IntoIterator<Item = Pfn>) -> Option<(Pfn, u32)> {
        let count = |frame| Some((frame, *self.locks.get(&frame)?));
        frames.into_iter().find_map(count)
    }
}

/// Undo one lock of a page; says whether it was locked.
pub(super) fn unlock(state: &mut State, frame: Pfn) -> bool {
    let Some(count) = state.locks.get_mut(&frame) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        state.locks.remove(&frame);
    }
    true
}

fn first_owner(state: &State, frames: &[Pfn]) -> Option<AllocationId> {
    match state.frame(*frames.first()?) {
        Some(Frame::Owned(id)) => Some(id),
        _ => None,
    }
}

/// Pages that were asked for and not given, of an allocation all of whose
/// `mapped` pages an MDL describes; at most [`MOST_BEYOND`].
fn missing(state: &State, allocation: Option<AllocationId>, mapped: u64) -> u64 {
    let record = allocation.and_then(|id| state.record(id));
    let missing = record
        .filter(|record| count_frames(&record.pages) == mapped)
        .map_or(0, |record| record.requested.saturating_sub(mapped));
    missing.min(MOST_BEYOND)
}

/// The first frame that belongs to nobody: with its slot.
#[must_use]
pub fn first_unowned(state: &State, frames: &[Pfn]) -> Option<(u64, Pfn)> {
    let unowned = |frame| matches!(state.frame(frame), Some(Frame::Free | Frame::Quarantined));
    (0..)
        .zip(frames.iter().copied())
        .find(|&(_, frame)| unowned(frame))
}
