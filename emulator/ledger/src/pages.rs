//! Who owns each page of the guest: a flat table of 12 bytes a page, grown in
//! chunks, so that only touched parts of the guest cost memory.

use journal::event::PageRun;
use std::hash::{Hash, Hasher};

/// Page frames at or above this are not tracked (1 TiB of guest-physical
/// space): a journal may name any frame.
pub(crate) const MAX_PFN: u64 = 1 << 28;
/// Pages of one chunk.
const CHUNK: u64 = 512;
/// Chunks held at most: 8 Mi pages (32 GiB of guest memory in use by drivers).
const MAX_CHUNKS: usize = 1 << 14;

/// What the ledger knows of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PageState {
    /// Never given to the driver.
    #[default]
    Never,
    /// The driver's.
    Owned,
    /// Given back, held by the quarantine.
    Freed,
    /// Given back, and out of the quarantine.
    Recycled,
}

/// One page. `owner` is the last allocation it belonged to, meaningless while
/// the state is [`PageState::Never`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) owner: u32,
    /// How often it was given to the driver.
    pub(crate) generation: u32,
    pub(crate) state: PageState,
}

impl Page {
    /// The allocation it was part of and no longer is.
    pub(crate) fn former_owner(self) -> Option<u32> {
        matches!(self.state, PageState::Freed | PageState::Recycled).then_some(self.owner)
    }

    /// The allocation it is part of, or was part of last.
    pub(crate) fn last_owner(self) -> Option<u32> {
        (self.state != PageState::Never).then_some(self.owner)
    }
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    chunks: Vec<Option<Box<[Page]>>>,
    used: usize,
}

impl Pages {
    /// The page with this frame number; beyond the limits one that was never
    /// given out.
    pub(crate) fn get(&self, pfn: u64) -> Page {
        let chunk = usize::try_from(pfn / CHUNK).ok();
        chunk
            .and_then(|chunk| self.chunks.get(chunk))
            .and_then(Option::as_ref)
            .and_then(|chunk| chunk.get((pfn % CHUNK) as usize))
            .copied()
            .unwrap_or_default()
    }

    /// The same to change it, or `None` beyond the limits.
    pub(crate) fn get_mut(&mut self, pfn: u64) -> Option<&mut Page> {
        if pfn >= MAX_PFN {
            return None;
        }
        let index = (pfn / CHUNK) as usize;
        if self.chunks.get(index).is_none_or(Option::is_none) {
            if self.used >= MAX_CHUNKS {
                return None;
            }
            if self.chunks.len() <= index {
                self.chunks.resize_with(index + 1, || None);
            }
            let chunk = vec![Page::default(); CHUNK as usize].into_boxed_slice();
            *self.chunks.get_mut(index)? = Some(chunk);
            self.used += 1;
        }
        self.chunks
            .get_mut(index)?
            .as_mut()?
            .get_mut((pfn % CHUNK) as usize)
    }

    /// Hash whose each page is, or was last.
    pub(crate) fn hash_owners(&self, hasher: &mut impl Hasher) {
        for (chunk, number) in self.chunks.iter().zip(0u64..) {
            for (page, index) in chunk.iter().flat_map(|pages| pages.iter()).zip(0u64..) {
                if let Some(owner) = page.last_owner() {
                    // Out of quarantine or not: the history tells it, no more.
                    let live = page.state == PageState::Owned;
                    (number * CHUNK + index, owner, live).hash(hasher);
                }
            }
        }
        u64::MAX.hash(hasher);
    }

    /// Bytes that the table occupies.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Option<Box<[Page]>>>()
            + self.used * CHUNK as usize * size_of::<Page>()
    }
}

/// The trackable frames of `runs`, at most `limit` of them.
pub(crate) fn frames(runs: &[PageRun], limit: u64) -> impl Iterator<Item = u64> + '_ {
    runs.iter()
        .flat_map(|run| {
            let end = run.first.0.saturating_add(run.count).min(MAX_PFN);
            run.first.0..end
        })
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Pages that `runs` name, tracked or not.
pub(crate) fn count(runs: &[PageRun]) -> u64 {
    runs.iter()
        .fold(0, |sum, run| u64::saturating_add(sum, run.count))
}
