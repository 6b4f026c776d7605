//! System address space: which addresses are in use.
//!
//! Each region gives its addresses out in turn and comes back to freed ones
//! only after a gigabyte of others, so that a use after free still faults,
//! yet page tables stay bounded. After each range lies a page that is never
//! mapped.

use super::frames::each_frame;
use super::{AllocFailure, State};
use crate::platform::{Platform, Protection};
use journal::event::PageRun;
use memory::{Gva, PAGE_SIZE};
use std::collections::BTreeMap;

/// Pages of a region that are gone through before an address comes again.
const ROUND: u64 = (1 << 30) / PAGE_SIZE;
/// Pages of a region, should a round not do.
const LIMIT: u64 = (1 << 38) / PAGE_SIZE;

/// What system addresses are for. Windows places these regions at random
/// within its half; ours are fixed, so that runs can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Region {
    /// Pool blocks.
    Pool,
    /// Mappings of MDLs.
    SystemPtes,
    /// `MmAllocateContiguousMemory` and its kin.
    Contiguous,
    /// Device memory.
    Io,
    /// Windows' own: stacks and structures the driver sees.
    System,
    /// Mappings of MDLs for user mode.
    User,
}

impl Region {
    const ALL: [Self; 6] = [
        Self::Pool,
        Self::SystemPtes,
        Self::Contiguous,
        Self::Io,
        Self::System,
        Self::User,
    ];

    /// Its first address. None lies in the first slot of the upper half
    /// (0xFFFF8000_00000000, 512 GiB): hypervisors keep that for themselves,
    /// and the nested KVM of some clouds cannot map it.
    #[must_use]
    pub const fn base(self) -> Gva {
        Gva(match self {
            Self::Pool => 0xffff_ad00_1000_0000,
            Self::SystemPtes => 0xffff_a480_0000_0000,
            Self::Contiguous => 0xffff_a600_0000_0000,
            Self::Io => 0xffff_a700_0000_0000,
            Self::System => 0xffff_a800_0000_0000,
            Self::User => 0x0000_0200_0000_0000,
        })
    }

    /// Does `address` lie in it?
    #[must_use]
    pub const fn contains(self, address: Gva) -> bool {
        address.0.wrapping_sub(self.base().0) < LIMIT * PAGE_SIZE
    }

    fn of(address: Gva) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|region| region.contains(address))
    }
}

/// Addresses in use, by region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Space {
    areas: BTreeMap<Region, Area>,
}

/// Page numbers are relative to the region's base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Area {
    next: u64,
    /// First page and length.
    live: BTreeMap<u64, u64>,
}

impl Area {
    /// A gap for `pages` pages and a guard page within `from..to`.
    fn gap(&self, from: u64, to: u64, pages: u64) -> Option<u64> {
        let mut at = from;
        for (&start, &length) in self.live.range(from..) {
            if at + pages < start {
                break;
            }
            at = start + length + 1;
        }
        (at + pages < to).then_some(at)
    }
}

impl Space {
    /// Take addresses for `pages` pages; `None` if there are none.
    pub fn allocate(&mut self, region: Region, pages: u64) -> Option<Gva> {
        if pages == 0 || pages >= LIMIT {
            return None;
        }
        let area = self.areas.entry(region).or_default();
        let at = area
            .gap(area.next, ROUND, pages)
            .or_else(|| area.gap(0, ROUND, pages))
            .or_else(|| area.gap(0, LIMIT, pages))?;
        area.live.insert(at, pages);
        area.next = at + pages + 1;
        Some(Gva(region.base().0 + at * PAGE_SIZE))
    }

    /// Give the range that starts at `base` back; its pages.
    pub fn release(&mut self, base: Gva) -> Option<u64> {
        let region = Region::of(base)?;
        let at = (base.0 - region.base().0) / PAGE_SIZE;
        if base.offset() != 0 {
            return None;
        }
        self.areas.get_mut(&region)?.live.remove(&at)
    }

    /// The pages of the range that starts at `base`.
    #[must_use]
    pub fn pages(&self, base: Gva) -> Option<u64> {
        let region = Region::of(base)?;
        let at = (base.0 - region.base().0) / PAGE_SIZE;
        if base.offset() != 0 {
            return None;
        }
        self.areas.get(&region)?.live.get(&at).copied()
    }
}

/// Map frames, in order, at new addresses of `region`.
///
/// # Errors
/// [`AllocFailure::NoAddresses`], [`AllocFailure::Platform`]; nothing is then
/// mapped.
pub fn map(
    state: &mut State,
    platform: &mut dyn Platform,
    region: Region,
    runs: &[PageRun],
    protection: Protection,
) -> Result<Gva, AllocFailure> {
    map_with_room(state, platform, region, runs, 0, protection)
}

/// [`map`], with addresses for `beyond` more pages after them, which stay
/// unmapped.
///
/// # Errors
/// As [`map`].
pub fn map_with_room(
    state: &mut State,
    platform: &mut dyn Platform,
    region: Region,
    runs: &[PageRun],
    beyond: u64,
    protection: Protection,
) -> Result<Gva, AllocFailure> {
    let pages = super::frames::count_frames(runs).saturating_add(beyond);
    if platform.scenario().refuses_memory() {
        return Err(AllocFailure::NoAddresses { pages });
    }
    let base = state
        .space
        .allocate(region, pages)
        .ok_or(AllocFailure::NoAddresses { pages })?;
    state.past.forget(base, pages);
    for (index, frame) in each_frame(runs).enumerate() {
        let at = Gva(base.0 + index as u64 * PAGE_SIZE);
        if let Err(error) = platform.map(at, frame, protection) {
            for done in 0..index as u64 {
                platform.unmap(Gva(base.0 + done * PAGE_SIZE));
            }
            state.space.release(base);
            return Err(error.into());
        }
    }
    Ok(base)
}

/// Unmap the range that starts at `base`; its pages, `None` if there is none.
pub fn unmap(state: &mut State, platform: &mut dyn Platform, base: Gva) -> Option<u64> {
    let pages = state.space.release(base)?;
    for index in 0..pages {
        platform.unmap(Gva(base.0 + index * PAGE_SIZE));
    }
    Some(pages)
}

impl State {
    /// Zeroed memory of Windows' own that the driver sees (stacks, the KPCR,
    /// structures): mapped, never the driver's to free, and in no event.
    ///
    /// # Errors
    /// [`AllocFailure`].
    pub fn system_memory(
        &mut self,
        platform: &mut dyn Platform,
        bytes: u64,
        protection: Protection,
    ) -> Result<Gva, AllocFailure> {
        let mut runs = Vec::new();
        for _ in 0..bytes.div_ceil(PAGE_SIZE).max(1) {
            match self.reserve_frame(platform) {
                Ok(frame) => super::frames::push_frame(&mut runs, frame),
                Err(error) => {
                    self.release_reserved(platform, &runs);
                    return Err(error);
                }
            }
        }
        map(self, platform, Region::System, &runs, protection).inspect_err(|_| {
            self.release_reserved(platform, &runs);
        })
    }

    /// Give memory from [`State::system_memory`] back.
    pub fn free_system_memory(&mut self, platform: &mut dyn Platform, base: Gva) {
        let Some(pages) = self.space.pages(base) else {
            return;
        };
        let mut runs = Vec::new();
        for index in 0..pages {
            if let Some(gpa) = platform.translate(Gva(base.0 + index * PAGE_SIZE)) {
                super::frames::push_frame(&mut runs, gpa.into());
            }
        }
        unmap(self, platform, base);
        self.release_reserved(platform, &runs);
    }
}
