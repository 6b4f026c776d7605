//! Page frames, system addresses, MDLs, pool, contiguous memory.
//!
//! The engine ([`pages`], [`pool`], [`mdl`]) serves both `Mm*`/`Ex*`
//! ([`SERVICES`]) and dxgkrnl's callbacks, which put the IOMMU between its
//! steps: pages go back to the allocator only when nothing maps them.

pub mod frames;
pub mod mdl;
pub mod pages;
mod past;
mod pins;
pub mod pool;
mod services;
pub mod space;
pub mod spec;
mod structures;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod user;

pub use frames::{Frame, Frames, POISON, Window};
pub use mdl::{Mdl, MdlError};
pub use pages::{ContiguousAllocation, ContiguousRequest, PageAllocation, PageRequest, Record};
pub use past::{Absent, Gone, Kind as GoneKind};
pub use services::SERVICES;
pub use space::Region;
/// MM_ALLOCATE_FULLY_REQUIRED.
pub use spec::allocate::FULLY_REQUIRED as ALLOCATE_FULLY_REQUIRED;

use crate::call::{Call, Outcome};
use crate::platform::{Platform, PlatformError};
use frames::{LAST_ID, each_frame};
use journal::event::{AllocationId, AllocationKind, Event, PageRun};
use memory::{GuestMemory, Gva, PAGE_SIZE, Pfn};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// A routine that a driver imports.
pub type Service = fn(&mut State, &mut dyn Platform, &Call, u8) -> Outcome;

/// What memory Windows has to give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Config {
    /// RAM above what the machine keeps for itself.
    pub frames: Vec<PageRun>,
    /// Frames held back after a free.
    pub quarantine: u64,
}

/// Windows' memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    frames: Frames,
    space: space::Space,
    pool: pool::Pool,
    /// Live page allocations, pool aside.
    records: BTreeMap<AllocationId, Record>,
    /// MDL structures that Windows made, until their pool is freed.
    structures: BTreeSet<Gva>,
    /// Those of them that were made with pages.
    mdls: BTreeMap<Gva, MadeWith>,
    /// MDLs mapped to system addresses, by the MDL's address.
    mappings: BTreeMap<Gva, mdl::Mapping>,
    /// MDLs mapped to user addresses, by the first address of the range.
    user_mappings: BTreeMap<Gva, user::UserMapping>,
    /// How often a frame is locked by `MmProbeAndLockPages`.
    locks: BTreeMap<Pfn, u32>,
    /// What was freed or unmapped.
    past: past::Past,
    /// What the device reaches through MDLs of the driver's own.
    pins: pins::Pins,
    last_id: u32,
}

/// What an MDL structure was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct MadeWith {
    /// The pages.
    allocation: AllocationId,
    /// How.
    kind: AllocationKind,
}

/// Why there is no memory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocFailure {
    /// Not enough free frames with these properties.
    #[error("no {pages} free page frames within the wanted range; give the machine more memory")]
    NoFrames {
        /// How many were wanted.
        pages: u64,
    },
    /// No system addresses left.
    #[error("no system addresses for {pages} pages")]
    NoAddresses {
        /// How many were wanted.
        pages: u64,
    },
    /// More than one call can give, or nothing asked for.
    #[error("an allocation of {bytes} bytes: ask for 1 byte to 4 GiB less a page")]
    BadSize {
        /// How much was asked for.
        bytes: u64,
    },
    /// An argument makes no sense.
    #[error("{argument} of {value:#x} is not allowed here")]
    BadArgument {
        /// Which.
        argument: &'static str,
        /// What it is.
        value: u64,
        /// Says what is.
        rule: &'static crate::rules::Rule,
    },
    /// Allocation ids are used up.
    #[error("more than 2^32 allocations in one run")]
    NoIds,
    /// The machine cannot map it.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// Something that is still allocated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// Which allocation.
    pub id: AllocationId,
    /// How it was made.
    pub kind: AllocationKind,
    /// Tracking handle, or 0.
    pub handle: u64,
    /// Address of the MDL or of the memory.
    pub address: Gva,
    /// Bytes.
    pub bytes: u64,
    /// Pool tag, or 0.
    pub tag: u32,
}

/// What is allocated, for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryStats {
    /// Live allocations, by id.
    pub live: Vec<Live>,
    /// MDLs that are mapped to system addresses.
    pub mapped_mdls: Vec<Gva>,
    /// Frames that can be given out at once.
    pub free_frames: u64,
    /// Frames held back after a free.
    pub quarantined_frames: u64,
}

impl State {
    /// All memory free.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            frames: Frames::new(&config.frames, config.quarantine),
            space: space::Space::default(),
            pool: pool::Pool::default(),
            records: BTreeMap::new(),
            mappings: BTreeMap::new(),
            user_mappings: BTreeMap::new(),
            locks: BTreeMap::new(),
            past: past::Past::default(),
            pins: pins::Pins::default(),
            structures: BTreeSet::new(),
            mdls: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// What a frame is.
    #[must_use]
    pub fn frame(&self, frame: Pfn) -> Option<Frame> {
        self.frames.state(frame)
    }

    /// A live page allocation (not pool).
    #[must_use]
    pub fn record(&self, id: AllocationId) -> Option<&Record> {
        self.records.get(&id)
    }

    /// The live page allocation whose MDL or memory is at `address`.
    #[must_use]
    pub fn record_at(&self, address: Gva) -> Option<(AllocationId, &Record)> {
        self.records
            .iter()
            .find(|(_, record)| record.address == address)
            .map(|(&id, record)| (id, record))
    }

    /// The live pool block that starts at `address`.
    #[must_use]
    pub fn pool_block(&self, address: Gva) -> Option<&pool::Block> {
        self.pool.block(address)
    }

    /// The live pool block in whose pages `address` lies, and its start.
    #[must_use]
    pub fn pool_block_around(&self, address: Gva) -> Option<(Gva, &pool::Block)> {
        self.pool.block_around(address)
    }

    /// What is allocated now.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        let mut live: Vec<Live> = self
            .records
            .iter()
            .map(|(&id, record)| Live {
                id,
                kind: record.kind,
                handle: record.handle,
                address: record.address,
                bytes: frames::count_frames(&record.pages) * PAGE_SIZE,
                tag: 0,
            })
            .chain(self.pool.blocks().map(|(address, block)| Live {
                id: block.id,
                kind: AllocationKind::Pool,
                handle: 0,
                address,
                bytes: block.size,
                tag: block.tag,
            }))
            .collect();
        live.sort_by_key(|entry| entry.id);
        let held = self.frames.quarantined();
        MemoryStats {
            live,
            mapped_mdls: self.mappings.keys().copied().collect(),
            free_frames: self.frames.available(Window::ALL) - held,
            quarantined_frames: held,
        }
    }

    pub(crate) fn next_id(&mut self) -> Result<AllocationId, AllocFailure> {
        if self.last_id >= LAST_ID.0 {
            return Err(AllocFailure::NoIds);
        }
        self.last_id += 1;
        Ok(AllocationId(self.last_id))
    }
}

impl State {
    /// A zeroed frame for Windows' own use, from the top of memory.
    ///
    /// # Errors
    /// [`AllocFailure::NoFrames`].
    pub fn reserve_frame(&mut self, platform: &mut dyn Platform) -> Result<Pfn, AllocFailure> {
        let (frame, recycled) = self
            .frames
            .reserve()
            .ok_or(AllocFailure::NoFrames { pages: 1 })?;
        tell_recycled(platform, recycled);
        fill(platform.memory(), frame, 0);
        Ok(frame)
    }

    /// Give frames from [`State::reserve_frame`] back.
    pub fn release_reserved(&mut self, platform: &mut dyn Platform, runs: &[PageRun]) {
        let recycled = self.frames.release(runs);
        tell_recycled(platform, recycled);
    }
}

/// Tell that `id` is back with Windows, fill its frames with `word` and hold
/// them back.
fn retire(
    state: &mut State,
    platform: &mut dyn Platform,
    id: AllocationId,
    runs: &[PageRun],
    word: u64,
) {
    for frame in each_frame(runs) {
        fill(platform.memory(), frame, word);
        // A lock does not outlive the page: its next owner knows nothing of
        // it, and a late unlock shall find none.
        state.locks.remove(&frame);
    }
    let stack = platform.stack();
    platform.scenario().journal().emit(Event::Free {
        allocation: id,
        stack,
    });
    let recycled = state.frames.release(runs);
    tell_recycled(platform, recycled);
}

fn tell_recycled(platform: &dyn Platform, pages: Vec<PageRun>) {
    if !pages.is_empty() {
        platform.scenario().journal().emit(Event::Recycle { pages });
    }
}

fn zero(memory: &GuestMemory, runs: &[PageRun]) {
    for frame in each_frame(runs) {
        fill(memory, frame, 0);
    }
}

/// Fill a page. A frame that the machine gave us but that is no RAM cannot
/// be written, and nobody can read it either.
fn fill(memory: &GuestMemory, frame: Pfn, word: u64) {
    let mut page = [0u8; PAGE_SIZE as usize];
    if word != 0 {
        for bytes in page.chunks_exact_mut(8) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    if let Err(error) = memory.write(frame.base(), &page) {
        log::warn!("a managed page frame is no memory: {error}");
    }
}
