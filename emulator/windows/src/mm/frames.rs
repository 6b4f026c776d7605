//! The page-frame allocator: who owns each frame of RAM.
//!
//! A frame takes four bytes here. Allocation is lowest-first, so that the
//! same calls give the same frames; Windows' own tables come from the top, so
//! that they do not move a driver's pages about.

use journal::event::{AllocationId, PageRun};
use memory::{PAGE_SIZE, Pfn};
use std::collections::VecDeque;

const FREE: u32 = 0;
const RESERVED: u32 = u32::MAX;
const QUARANTINED: u32 = u32::MAX - 1;

/// The highest allocation id; the words above it mean something else.
pub const LAST_ID: AllocationId = AllocationId(u32::MAX - 2);

/// Every freed page is filled with this, little-endian, so that a stale read
/// shows what it is.
pub const POISON: u64 = 0xdead_f4ee_dead_f4ee;

/// State of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Can be given out.
    Free,
    /// Part of an allocation.
    Owned(AllocationId),
    /// Freed, and held back for a while.
    Quarantined,
    /// Windows' own: tables, stacks, images.
    Reserved,
}

impl Frame {
    fn from_word(word: u32) -> Self {
        match word {
            FREE => Self::Free,
            QUARANTINED => Self::Quarantined,
            RESERVED => Self::Reserved,
            id => Self::Owned(AllocationId(id)),
        }
    }
}

/// Frames that a caller accepts, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// The lowest.
    pub low: Pfn,
    /// The highest.
    pub high: Pfn,
}

impl Window {
    /// Every frame.
    pub const ALL: Self = Self {
        low: Pfn(0),
        high: Pfn(u64::MAX / PAGE_SIZE),
    };

    /// The frames that lie wholly within the addresses `low..=high`, if any.
    #[must_use]
    pub fn of_addresses(low: u64, high: u64) -> Option<Self> {
        let first = low.div_ceil(PAGE_SIZE);
        let end = match high.checked_add(1) {
            Some(end) => end / PAGE_SIZE,
            None => u64::MAX / PAGE_SIZE + 1,
        };
        (first < end).then(|| Self {
            low: Pfn(first),
            high: Pfn(end - 1),
        })
    }
}

/// Frames that were given out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Taken {
    /// The frames, ascending.
    pub frames: Vec<PageRun>,
    /// Frames that left the quarantine for it, oldest first.
    pub recycled: Vec<PageRun>,
}

/// Append a frame to a list of runs, keeping the order.
pub fn push_frame(runs: &mut Vec<PageRun>, frame: Pfn) {
    match runs.last_mut() {
        Some(run) if run.first.0 + run.count == frame.0 => run.count += 1,
        _ => runs.push(PageRun {
            first: frame,
            count: 1,
        }),
    }
}

/// The frames of runs, in order.
pub fn each_frame(runs: &[PageRun]) -> impl Iterator<Item = Pfn> + '_ {
    runs.iter()
        .flat_map(|run| (run.first.0..run.first.0.saturating_add(run.count)).map(Pfn))
}

/// How many frames there are in `runs`.
#[must_use]
pub fn count_frames(runs: &[PageRun]) -> u64 {
    runs.iter().map(|run| run.count).sum()
}

/// A gapless piece of RAM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Segment {
    first: u64,
    words: Vec<u32>,
    /// No word below this index is free.
    lowest: usize,
}

impl Segment {
    fn end(&self) -> u64 {
        self.first + self.words.len() as u64
    }

    /// Indexes of the frames within `window`.
    fn within(&self, window: Window) -> std::ops::Range<usize> {
        let low = window.low.0.max(self.first);
        let high = window.high.0.saturating_add(1).min(self.end());
        if low >= high {
            return 0..0;
        }
        (low - self.first) as usize..(high - self.first) as usize
    }
}

/// The allocator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frames {
    segments: Vec<Segment>,
    quarantine: VecDeque<Pfn>,
    limit: u64,
    /// Frames that are free.
    free: u64,
}

impl Frames {
    /// Manages `ranges` of RAM; overlapping ones are merged. `quarantine`
    /// frames are held back after a free.
    #[must_use]
    pub fn new(ranges: &[PageRun], quarantine: u64) -> Self {
        let mut ranges: Vec<PageRun> = ranges.iter().copied().filter(|r| r.count > 0).collect();
        ranges.sort_by_key(|r| r.first);
        let mut segments: Vec<Segment> = Vec::new();
        for range in ranges {
            let end = range.first.0.saturating_add(range.count);
            match segments.last_mut() {
                Some(last) if range.first.0 <= last.end() => {
                    let length = end.max(last.end()) - last.first;
                    last.words.resize(length as usize, FREE);
                }
                _ => segments.push(Segment {
                    first: range.first.0,
                    words: vec![FREE; range.count as usize],
                    lowest: 0,
                }),
            }
        }
        Self {
            free: segments.iter().map(|s| s.words.len() as u64).sum(),
            segments,
            quarantine: VecDeque::new(),
            limit: quarantine,
        }
    }

    /// What a frame is; `None` if it is not managed here.
    #[must_use]
    pub fn state(&self, frame: Pfn) -> Option<Frame> {
        let segment = self
            .segments
            .iter()
            .find(|s| (s.first..s.end()).contains(&frame.0))?;
        let word = segment.words.get((frame.0 - segment.first) as usize)?;
        Some(Frame::from_word(*word))
    }

    /// Frames that are free or held back within `window`.
    #[must_use]
    pub fn available(&self, window: Window) -> u64 {
        if self.covers(window) {
            return self.free + self.quarantined();
        }
        self.count(window, |word| word == FREE || word == QUARANTINED)
    }

    /// One past the highest frame.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    /// Frames held back.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.quarantine.len() as u64
    }

    /// Give the lowest `pages` free frames within `window` to `owner`. Frames
    /// leave the quarantine, oldest first, before it comes short. If there
    /// are too few all the same: what there is if `partial`, else `None` and
    /// nothing has changed.
    pub fn allocate(
        &mut self,
        owner: AllocationId,
        pages: u64,
        window: Window,
        partial: bool,
    ) -> Option<Taken> {
        if owner.0 == FREE || owner > LAST_ID {
            return None;
        }
        let mut taken = Taken::default();
        let free = self.free_within(window);
        if free < pages {
            let available = self.available(window);
            if !partial && available < pages {
                return None;
            }
            if available > free {
                taken.recycled = self.recycle_within(window, pages - free);
            }
        }
        let mut wanted = pages;
        for segment in &mut self.segments {
            let within = segment.within(window);
            let start = within.start.max(segment.lowest);
            let mut next = start;
            for index in start..within.end {
                if wanted == 0 {
                    break;
                }
                next = index + 1;
                if let Some(word) = segment.words.get_mut(index).filter(|word| **word == FREE) {
                    *word = owner.0;
                    self.free -= 1;
                    push_frame(&mut taken.frames, Pfn(segment.first + index as u64));
                    wanted -= 1;
                }
            }
            // Everything from the segment's lowest was looked at.
            if start == segment.lowest {
                segment.lowest = next;
            }
        }
        Some(taken)
    }

    /// Give `pages` frames within `window` to `owner` of which no two are
    /// neighbours; `None`, with nothing changed, if there are too few.
    pub fn allocate_scattered(
        &mut self,
        owner: AllocationId,
        pages: u64,
        window: Window,
    ) -> Option<Taken> {
        if owner.0 == FREE || owner > LAST_ID {
            return None;
        }
        let mut found = Vec::new();
        for segment in &self.segments {
            let mut last = None;
            for index in segment.within(window) {
                if found.len() as u64 == pages {
                    break;
                }
                let free = segment.words.get(index).is_some_and(|&word| word == FREE);
                if free && last.is_none_or(|last| index > last + 1) {
                    last = Some(index);
                    found.push(Pfn(segment.first + index as u64));
                }
            }
        }
        if (found.len() as u64) < pages {
            return None;
        }
        let mut taken = Taken::default();
        for frame in found {
            if let Some(word) = self.word(frame) {
                *word = owner.0;
                self.free -= 1;
                push_frame(&mut taken.frames, frame);
            }
        }
        Some(taken)
    }

    /// Give the lowest run of `pages` frames within `window` to `owner`. It
    /// starts at a multiple of `alignment` and crosses no multiple of
    /// `boundary`, both in frames, powers of two; 0 means none. `None`, with
    /// nothing changed, if there is no such run.
    pub fn allocate_contiguous(
        &mut self,
        owner: AllocationId,
        pages: u64,
        window: Window,
        alignment: u64,
        boundary: u64,
    ) -> Option<Taken> {
        if owner.0 == FREE || owner > LAST_ID || pages == 0 {
            return None;
        }
        let shape = (pages, alignment, boundary);
        let mut recycled = Vec::new();
        let (segment, index) = match self.find_run(window, shape, |word| word == FREE) {
            Some(found) => found,
            None => {
                // First make sure that emptying the quarantine helps at all.
                self.find_run(window, shape, |word| word == FREE || word == QUARANTINED)?;
                let mut batch = pages;
                loop {
                    let freed = self.recycle_within(window, batch);
                    if freed.is_empty() {
                        return None;
                    }
                    recycled.extend(freed);
                    match self.find_run(window, shape, |word| word == FREE) {
                        Some(found) => break found,
                        None => batch = batch.saturating_mul(2),
                    }
                }
            }
        };
        let segment = self.segments.get_mut(segment)?;
        let words = segment.words.get_mut(index..index + pages as usize)?;
        words.fill(owner.0);
        self.free -= pages;
        let first = Pfn(segment.first + index as u64);
        Some(Taken {
            frames: vec![PageRun {
                first,
                count: pages,
            }],
            recycled,
        })
    }

    /// Take the highest free frame for Windows itself; one from the
    /// quarantine if there is no other.
    pub fn reserve(&mut self) -> Option<(Pfn, Vec<PageRun>)> {
        let mut recycled = Vec::new();
        if self.free == 0 {
            recycled = self.recycle_within(Window::ALL, 1);
        }
        for segment in self.segments.iter_mut().rev() {
            let lowest = segment.lowest;
            let found = segment.words.iter().rposition(|&word| word == FREE);
            if let Some(index) = found.filter(|&index| index >= lowest)
                && let Some(word) = segment.words.get_mut(index)
            {
                *word = RESERVED;
                self.free -= 1;
                return Some((Pfn(segment.first + index as u64), recycled));
            }
        }
        None
    }

    /// Take back the frames of `runs` that are owned or reserved. They go to
    /// the quarantine; returned is what left it.
    pub fn release(&mut self, runs: &[PageRun]) -> Vec<PageRun> {
        for frame in each_frame(runs) {
            if let Some(word) = self.word(frame)
                && *word != FREE
                && *word != QUARANTINED
            {
                *word = QUARANTINED;
                self.quarantine.push_back(frame);
            }
        }
        let mut recycled = Vec::new();
        while self.quarantine.len() as u64 > self.limit {
            if let Some(frame) = self.quarantine.pop_front() {
                self.free(frame);
                push_frame(&mut recycled, frame);
            }
        }
        recycled
    }

    fn word(&mut self, frame: Pfn) -> Option<&mut u32> {
        let segment = self
            .segments
            .iter_mut()
            .find(|s| (s.first..s.end()).contains(&frame.0))?;
        segment.words.get_mut((frame.0 - segment.first) as usize)
    }

    fn free(&mut self, frame: Pfn) {
        for segment in &mut self.segments {
            if (segment.first..segment.end()).contains(&frame.0) {
                let index = (frame.0 - segment.first) as usize;
                if let Some(word) = segment.words.get_mut(index) {
                    *word = FREE;
                    self.free += 1;
                    segment.lowest = segment.lowest.min(index);
                }
            }
        }
    }

    /// Free the oldest `count` frames of the quarantine within `window`.
    fn recycle_within(&mut self, window: Window, count: u64) -> Vec<PageRun> {
        let mut recycled = Vec::new();
        let mut skipped = Vec::new();
        let mut left = count;
        while left > 0
            && let Some(frame) = self.quarantine.pop_front()
        {
            if (window.low..=window.high).contains(&frame) {
                left -= 1;
                self.free(frame);
                push_frame(&mut recycled, frame);
            } else {
                skipped.push(frame);
            }
        }
        for frame in skipped.into_iter().rev() {
            self.quarantine.push_front(frame);
        }
        recycled
    }

    fn free_within(&self, window: Window) -> u64 {
        if self.covers(window) {
            self.free
        } else {
            self.count(window, |word| word == FREE)
        }
    }

    /// Does `window` leave nothing out? Then no frame need be looked at.
    fn covers(&self, window: Window) -> bool {
        let whole = |s: &Segment| s.within(window).len() == s.words.len();
        self.segments.iter().all(whole)
    }

    fn count(&self, window: Window, is: impl Fn(u32) -> bool) -> u64 {
        self.segments
            .iter()
            .filter_map(|s| s.words.get(s.within(window)))
            .map(|words| words.iter().filter(|&&word| is(word)).count() as u64)
            .sum()
    }

    /// Segment and index of the lowest run of that shape (pages, alignment,
    /// boundary) whose frames all are `usable`.
    fn find_run(
        &self,
        window: Window,
        (pages, alignment, boundary): (u64, u64, u64),
        usable: impl Fn(u32) -> bool,
    ) -> Option<(usize, usize)> {
        if pages > u64::MAX / PAGE_SIZE || (boundary != 0 && pages > boundary) {
            return None;
        }
        for (number, segment) in self.segments.iter().enumerate() {
            let within = segment.within(window);
            let end = segment.first + within.end as u64;
            let mut at = segment.first + within.start as u64;
            loop {
                at = at.checked_next_multiple_of(alignment.max(1))?;
                if boundary != 0 && at / boundary != (at + pages - 1) / boundary {
                    at = at.next_multiple_of(boundary);
                    continue;
                }
                if at.saturating_add(pages) > end {
                    break;
                }
                let index = (at - segment.first) as usize;
                let words = segment.words.get(index..index + pages as usize)?;
                match words.iter().rposition(|&word| !usable(word)) {
                    None => return Some((number, index)),
                    Some(obstacle) => at += obstacle as u64 + 1,
                }
            }
        }
        None
    }
}
