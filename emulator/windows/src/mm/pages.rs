//! Page allocations: MDLs and contiguous memory. The engine under `Mm*` and
//! under dxgkrnl's callbacks.

use super::frames::{Taken, Window, count_frames, each_frame};
use super::space::{self, Region};
use super::spec::{allocate, mdl as layout};
use super::{AllocFailure, MadeWith, POISON, State, mdl, past, pool, retire, tell_recycled, zero};
use crate::call::Stop;
use crate::injected;
use crate::platform::{Platform, Protection};
use crate::rules::{contiguous as contiguous_rule, mm as rule};
use journal::event::{Allocation, AllocationId, AllocationKind, Event, PageRun, StackId, Subject};
use memory::{Gva, PAGE_SIZE, Pfn};
use scenario::Shape;

/// Tag of the pool block that an MDL structure is.
pub const MDL_TAG: u32 = u32::from_le_bytes(*b"Mdl ");

/// A live page allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// How it was made.
    pub kind: AllocationKind,
    /// Tracking handle, or 0.
    pub handle: u64,
    /// Of the MDL, or of the memory.
    pub address: Gva,
    /// Its frames, in the order of the MDL.
    pub pages: Vec<PageRun>,
    /// Pages that were asked for.
    pub requested: u64,
    /// Who asked for it.
    pub stack: StackId,
}

/// What `MmAllocatePagesForMdlEx` and `DxgkCbAllocatePagesForMdl` take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRequest {
    /// First acceptable address.
    pub low: u64,
    /// Last acceptable address.
    pub high: u64,
    /// How far the range moves up when it is exhausted; 0: there is one.
    pub skip: u64,
    /// How much.
    pub bytes: u64,
    /// `MM_ALLOCATE_*` bits ([`super::spec::allocate`]).
    pub flags: u32,
    /// For the event.
    pub kind: AllocationKind,
    /// For the event.
    pub handle: u64,
}

/// Pages and the MDL that describes them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageAllocation {
    /// The allocation.
    pub id: AllocationId,
    /// The MDL, a pool block.
    pub mdl: Gva,
    /// Its frames, in order.
    pub frames: Vec<Pfn>,
}

/// What `MmAllocateContiguousMemorySpecifyCache` and
/// `DxgkCbAllocateContiguousMemory` take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContiguousRequest {
    /// How much.
    pub bytes: u64,
    /// First acceptable address.
    pub lowest: u64,
    /// Last acceptable address.
    pub highest: u64,
    /// A multiple of this is not crossed: a power of two, or 0.
    pub boundary: u64,
    /// For the event.
    pub kind: AllocationKind,
    /// For the event.
    pub handle: u64,
}

/// Contiguous memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContiguousAllocation {
    /// The allocation.
    pub id: AllocationId,
    /// Where it is mapped.
    pub address: Gva,
    /// Its frames, ascending.
    pub frames: Vec<Pfn>,
}

impl State {
    /// Allocate pages and an MDL for them. Zeroes the pages unless the flags say
    /// not to. Without `MM_ALLOCATE_FULLY_REQUIRED` there may be fewer than asked
    /// for, and never none.
    ///
    /// # Errors
    /// [`AllocFailure`]; nothing is then allocated.
    pub fn allocate_pages_for_mdl(
        &mut self,
        platform: &mut dyn Platform,
        request: &PageRequest,
    ) -> Result<PageAllocation, AllocFailure> {
        check(request)?;
        let id = self.next_id()?;
        let runs = take(self, platform, id, request)?;
        if request.flags & allocate::DONT_ZERO == 0 {
            zero(platform.memory(), &runs);
        }
        let requested = request.bytes.div_ceil(PAGE_SIZE);
        let mdl = match mdl::create_for_pages(self, platform, &runs, requested) {
            Ok(mdl) => mdl,
            Err(error) => {
                let recycled = self.frames.release(&runs);
                tell_recycled(platform, recycled);
                return Err(error);
            }
        };
        let frames = each_frame(&runs).collect();
        let record = Record {
            kind: request.kind,
            handle: request.handle,
            address: mdl,
            pages: runs,
            requested,
            stack: platform.stack(),
        };
        let made = MadeWith {
            allocation: id,
            kind: request.kind,
        };
        self.mdls.insert(mdl, made);
        admit(self, platform, id, record);
        Ok(PageAllocation { id, mdl, frames })
    }

    /// Allocate contiguous, mapped, uninitialised memory: `MmAllocateContiguous*`
    /// promises no contents, so what a freed page held before may show (as
    /// [`super::POISON`]).
    ///
    /// # Errors
    /// [`AllocFailure`]; nothing is then allocated.
    pub fn allocate_contiguous(
        &mut self,
        platform: &mut dyn Platform,
        request: &ContiguousRequest,
    ) -> Result<ContiguousAllocation, AllocFailure> {
        if request.bytes == 0 || request.bytes > layout::MAX_BYTES {
            return Err(AllocFailure::BadSize {
                bytes: request.bytes,
            });
        }
        let boundary = request.boundary;
        if boundary != 0 && (!boundary.is_power_of_two() || boundary < PAGE_SIZE) {
            return Err(AllocFailure::BadArgument {
                argument: "BoundaryAddressMultiple",
                value: boundary,
                rule: &contiguous_rule::CONTIGUOUS_BOUNDARY,
            });
        }
        let pages = request.bytes.div_ceil(PAGE_SIZE);
        let failure = AllocFailure::NoFrames { pages };
        let window =
            Window::of_addresses(request.lowest, request.highest).ok_or(failure.clone())?;
        injected::memory(platform, pages)?;
        let shape = platform.scenario().shape();
        let window = shaped(window, shape)
            .filter(|_| shape.most.is_none_or(|most| most >= pages))
            .ok_or(failure.clone())?;
        let id = self.next_id()?;
        let taken = self
            .frames
            .allocate_contiguous(id, pages, window, 1, boundary / PAGE_SIZE)
            .ok_or(failure)?;
        tell_recycled(platform, taken.recycled);
        let mapped = space::map(
            self,
            platform,
            Region::Contiguous,
            &taken.frames,
            Protection::WRITE,
        );
        let address = match mapped {
            Ok(address) => address,
            Err(error) => {
                let recycled = self.frames.release(&taken.frames);
                tell_recycled(platform, recycled);
                return Err(error);
            }
        };
        let frames = each_frame(&taken.frames).collect();
        let record = Record {
            kind: request.kind,
            handle: request.handle,
            address,
            pages: taken.frames,
            requested: pages,
            stack: platform.stack(),
        };
        admit(self, platform, id, record);
        Ok(ContiguousAllocation {
            id,
            address,
            frames,
        })
    }

    /// Give the pages of an MDL allocation back: poisoned, held back, told. Only
    /// when no IOMMU domain maps them any more. A system mapping of the MDL is
    /// released first (as since Windows 7). The MDL structure stays; see
    /// [`State::free_mdl_structure`].
    pub fn release_pages(&mut self, platform: &mut dyn Platform, id: AllocationId) {
        self.release_pages_as(platform, id, POISON);
    }

    /// [`State::release_pages`], filled with `word` instead of the poison.
    pub(super) fn release_pages_as(
        &mut self,
        platform: &mut dyn Platform,
        id: AllocationId,
        word: u64,
    ) {
        let Some(record) = self.records.remove(&id) else {
            return;
        };
        mdl::drop_mapping(self, platform, record.address);
        retire(self, platform, id, &record.pages, word);
    }

    /// Unmap contiguous memory and give it back, as [`State::release_pages`].
    pub fn release_contiguous(&mut self, platform: &mut dyn Platform, id: AllocationId) {
        let Some(record) = self.records.remove(&id) else {
            return;
        };
        let subject = Subject {
            allocation: Some(id),
            address: record.address.0,
        };
        self.unmap_and_note(platform, record.address, past::Kind::Contiguous, subject);
        retire(self, platform, id, &record.pages, POISON);
    }

    /// Free an MDL structure that Windows itself allocated for the driver. If
    /// the driver freed it behind Windows' back, this is a double free.
    /// Returns the bug check for that.
    pub fn free_mdl_structure(&mut self, platform: &mut dyn Platform, mdl: Gva) -> Option<Stop> {
        pool::free(self, platform, mdl, None).err()
    }
}

fn check(request: &PageRequest) -> Result<(), AllocFailure> {
    if request.bytes == 0 || request.bytes > layout::MAX_BYTES {
        return Err(AllocFailure::BadSize {
            bytes: request.bytes,
        });
    }
    if !request.skip.is_multiple_of(PAGE_SIZE) {
        return Err(AllocFailure::BadArgument {
            argument: "SkipBytes",
            value: request.skip,
            rule: &rule::PAGES_SKIP,
        });
    }
    let chunks = request.flags & allocate::REQUIRE_CONTIGUOUS_CHUNKS != 0;
    let absent = [
        (allocate::FAST_LARGE_PAGES, &rule::PAGES_LARGE),
        (allocate::AND_HOT_REMOVE, &rule::PAGES_HOT_REMOVE),
    ];
    if let Some((_, rule)) = absent.iter().find(|(flag, _)| request.flags & flag != 0) {
        return Err(AllocFailure::BadArgument {
            argument: "Flags",
            value: u64::from(request.flags),
            rule,
        });
    }
    let in_chunks = request.skip.is_power_of_two() && request.bytes.is_multiple_of(request.skip);
    if chunks && request.skip != 0 && !in_chunks {
        return Err(AllocFailure::BadArgument {
            argument: "SkipBytes",
            value: request.skip,
            rule: &rule::PAGES_CHUNKS,
        });
    }
    Ok(())
}

/// Take frames as the request wants them.
fn take(
    state: &mut State,
    platform: &mut dyn Platform,
    id: AllocationId,
    request: &PageRequest,
) -> Result<Vec<PageRun>, AllocFailure> {
    let pages = request.bytes.div_ceil(PAGE_SIZE);
    let failure = AllocFailure::NoFrames { pages };
    let full = request.flags & allocate::FULLY_REQUIRED != 0;
    let Some(window) = Window::of_addresses(request.low, request.high) else {
        return Err(failure);
    };
    injected::memory(platform, pages)?;
    let shape = platform.scenario().shape();
    if shape != Shape::default() {
        return take_shaped(state, platform, id, (pages, full), window, shape);
    }
    let skip = request.skip / PAGE_SIZE;
    let mut taken = Taken::default();
    if request.flags & allocate::REQUIRE_CONTIGUOUS_CHUNKS != 0 {
        let (chunk, alignment) = if skip == 0 { (pages, 1) } else { (skip, skip) };
        while count_frames(&taken.frames) < pages {
            match state
                .frames
                .allocate_contiguous(id, chunk, window, alignment, 0)
            {
                Some(more) => append(&mut taken, more),
                None => break,
            }
        }
    } else if skip == 0 {
        // Where all are required, nothing is disturbed in vain.
        if let Some(more) = state.frames.allocate(id, pages, window, !full) {
            append(&mut taken, more);
        }
    } else {
        // The range slides up, both ends, until it leaves memory. What was
        // in it before is exhausted, so only the new part is looked at.
        let mut at = Some(window);
        while let Some(now) = at
            && now.low.0 < state.frames.end()
        {
            let missing = pages - count_frames(&taken.frames);
            if missing == 0 {
                break;
            }
            if let Some(more) = state.frames.allocate(id, missing, now, true) {
                append(&mut taken, more);
            }
            at = now.high.0.checked_add(skip).map(|high| Window {
                low: Pfn((high - skip + 1).max(window.low.0.saturating_add(skip))),
                high: Pfn(high),
            });
        }
    }
    let found = count_frames(&taken.frames);
    if found == 0 || (full && found < pages) {
        // Nobody has seen the frames: they go back as they are.
        taken.recycled.extend(state.frames.release(&taken.frames));
        tell_recycled(platform, taken.recycled);
        return Err(failure);
    }
    tell_recycled(platform, taken.recycled);
    Ok(taken.frames)
}

/// Take frames as a scenario wants them, by the rules of the routine: a part
/// only where it may give a part.
fn take_shaped(
    state: &mut State,
    platform: &dyn Platform,
    id: AllocationId,
    (pages, full): (u64, bool),
    window: Window,
    shape: Shape,
) -> Result<Vec<PageRun>, AllocFailure> {
    let failure = AllocFailure::NoFrames { pages };
    let given = shape.most.map_or(pages, |most| most.min(pages));
    if full && given < pages {
        return Err(failure);
    }
    let window = shaped(window, shape).ok_or(failure.clone())?;
    let taken = if shape.scattered {
        state.frames.allocate_scattered(id, given, window)
    } else {
        state.frames.allocate(id, given, window, !full)
    };
    let taken = taken.filter(|taken| count_frames(&taken.frames) > 0);
    let taken = taken.ok_or(failure)?;
    tell_recycled(platform, taken.recycled);
    Ok(taken.frames)
}

/// The part of a window that a scenario leaves.
fn shaped(window: Window, shape: Shape) -> Option<Window> {
    let low = match shape.above_4g {
        true => Pfn(window.low.0.max((1 << 32) / PAGE_SIZE)),
        false => window.low,
    };
    (low <= window.high).then_some(Window { low, ..window })
}

fn append(taken: &mut Taken, more: Taken) {
    taken.frames.extend(more.frames);
    taken.recycled.extend(more.recycled);
}

fn admit(state: &mut State, platform: &dyn Platform, id: AllocationId, record: Record) {
    platform
        .scenario()
        .journal()
        .emit(Event::Allocate(Allocation {
            id,
            kind: record.kind,
            handle: record.handle,
            address: record.address.0,
            pages: record.pages.clone(),
            requested: record.requested,
            stack: record.stack,
        }));
    state.records.insert(id, record);
}
