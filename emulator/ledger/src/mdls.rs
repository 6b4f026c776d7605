//! MDLs that the driver mapped for the device, and the physical addresses that
//! it asked for.

use crate::finding::{MdlFacts, Place};
use crate::pages;
use journal::event::{MdlMapping, PageRun, StackId};
use memory::PAGE_SHIFT;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

/// Mappings that are in force at a time.
const MAX_LIVE: usize = 1 << 14;
/// Mappings that are over and still known.
const MAX_OVER: usize = 1 << 10;
/// Frames with a mapping.
const MAX_FRAMES: usize = 1 << 18;
/// Physical addresses asked for.
const MAX_PHYSICAL: usize = 1 << 14;

#[derive(Clone, Debug)]
struct Mapping {
    handle: u64,
    mdl: u64,
    runs: Vec<PageRun>,
    /// Frames of `runs` that were counted.
    counted: u64,
    mapped: (u64, StackId),
    unmapped: Option<(u64, StackId)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// Number of the latest mapping.
    latest: u32,
    /// Mappings in force.
    live: u32,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mdls {
    /// By number: a handle may come again.
    mappings: BTreeMap<u32, Mapping>,
    handles: BTreeMap<u64, u32>,
    frames: BTreeMap<u64, Frame>,
    over: VecDeque<u32>,
    next: u32,
    /// Some mappings or frames are missing.
    incomplete: bool,
    /// By frame.
    physical: BTreeMap<u64, (u64, StackId)>,
}

impl Mdls {
    /// An MDL was mapped. `budget` is the number of frames that may be looked
    /// at; returns how many were.
    pub(crate) fn map(&mut self, new: &MdlMapping, time: u64, budget: u64) -> u64 {
        if self.handles.len() >= MAX_LIVE || self.handles.contains_key(&new.handle) {
            self.incomplete = true;
            return 0;
        }
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        let mut counted = 0;
        for pfn in pages::frames(&new.pages, budget) {
            if self.frames.len() >= MAX_FRAMES && !self.frames.contains_key(&pfn) {
                break;
            }
            counted += 1;
            let frame = self.frames.entry(pfn).or_default();
            frame.latest = number;
            frame.live = frame.live.saturating_add(1);
        }
        self.incomplete |= counted < pages::count(&new.pages);
        self.handles.insert(new.handle, number);
        let mapping = Mapping {
            handle: new.handle,
            mdl: new.mdl,
            runs: new.pages.clone(),
            counted,
            mapped: (time, new.stack),
            unmapped: None,
        };
        self.mappings.insert(number, mapping);
        counted
    }

    /// It was unmapped. Returns its frames; the mapping has paid for them.
    pub(crate) fn unmap(&mut self, handle: u64, at: (u64, StackId)) -> Option<Vec<u64>> {
        let number = self.handles.remove(&handle)?;
        let mapping = self.mappings.get_mut(&number)?;
        mapping.unmapped = Some(at);
        let pfns: Vec<u64> = pages::frames(&mapping.runs, mapping.counted).collect();
        for pfn in &pfns {
            if let Some(frame) = self.frames.get_mut(pfn) {
                frame.live = frame.live.saturating_sub(1);
            }
        }
        self.over.push_back(number);
        if self.over.len() > MAX_OVER
            && let Some(oldest) = self.over.pop_front()
        {
            self.forget(oldest);
        }
        Some(pfns)
    }

    fn forget(&mut self, number: u32) {
        let Some(mapping) = self.mappings.remove(&number) else {
            return;
        };
        for pfn in pages::frames(&mapping.runs, mapping.counted) {
            let frame = self.frames.get(&pfn);
            if frame.is_some_and(|frame| frame.live == 0 && frame.latest == number) {
                self.frames.remove(&pfn);
            }
        }
    }

    /// Is the frame mapped for the device by an MDL, as far as is known?
    pub(crate) fn may_cover(&self, pfn: u64) -> bool {
        self.incomplete || self.frames.get(&pfn).is_some_and(|frame| frame.live > 0)
    }

    /// The latest mapping of the frame that is not older than `since`.
    pub(crate) fn describe(
        &self,
        pfn: u64,
        since: u64,
        place: impl Fn((u64, StackId)) -> Place,
    ) -> Option<MdlFacts> {
        let mapping = self.mappings.get(&self.frames.get(&pfn)?.latest)?;
        (mapping.mapped.0 >= since).then(|| MdlFacts {
            handle: mapping.handle,
            mdl: mapping.mdl,
            mapped: place(mapping.mapped),
            unmapped: mapping.unmapped.map(place),
        })
    }

    /// The driver asked where its memory is.
    pub(crate) fn asked(&mut self, address: u64, at: (u64, StackId)) {
        let pfn = address >> PAGE_SHIFT;
        if self.physical.len() >= MAX_PHYSICAL && !self.physical.contains_key(&pfn) {
            self.physical.pop_first();
        }
        self.physical.insert(pfn, at);
    }

    /// Hash which frames are mapped, and where physical addresses were asked
    /// for; of when that was what `recent` says of frame and time.
    pub(crate) fn hash_known(&self, hasher: &mut impl Hasher, recent: impl Fn(u64, u64) -> bool) {
        let Self {
            // They only tell more of a finding.
            mappings: _,
            over: _,
            next: _,
            handles,
            frames,
            incomplete,
            physical,
        } = self;
        for handle in handles.keys() {
            handle.hash(hasher);
        }
        for (pfn, frame) in frames.iter().filter(|(_, frame)| frame.live > 0) {
            (pfn, frame.live).hash(hasher);
        }
        for (&pfn, &(time, _)) in physical {
            (pfn, recent(pfn, time)).hash(hasher);
        }
        (handles.len(), incomplete, physical.len()).hash(hasher);
    }

    /// Where it asked for this frame, or for the nearest one before it.
    pub(crate) fn origin(&self, pfn: u64) -> Option<(u64, (u64, StackId))> {
        let (&of, &at) = self.physical.range(..=pfn).next_back()?;
        Some((of, at))
    }
}
