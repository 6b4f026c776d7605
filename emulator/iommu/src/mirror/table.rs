//! Ranges of pages by address. A guest behind a remapping unit maps page by
//! page, so single pages lie in a hash table; what is longer is rare and lies
//! in a tree.

use super::{MAX_MAPPINGS, Mapping, MirrorError};
use memory::{Gpa, Iova, PAGE_SHIFT, PAGE_SIZE};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

const READ: u64 = 1;
const WRITE: u64 = 2;
const RIGHTS: u64 = READ | WRITE;
/// Leads to no RAM: the last page of the space, where none can be.
const NOWHERE: u64 = !(PAGE_SIZE - 1);

/// Where a range leads, and who may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    /// Address of the first byte, with the rights in its low bits.
    target: u64,
    generation: u32,
}

impl Entry {
    pub fn new(mapping: &Mapping, generation: u32) -> Self {
        let target = mapping.target.map_or(NOWHERE, |gpa| gpa.0 & !RIGHTS);
        let read = if mapping.read { READ } else { 0 };
        let write = if mapping.write { WRITE } else { 0 };
        Self {
            target: target | read | write,
            generation,
        }
    }

    #[inline]
    pub fn allows(self, write: bool) -> bool {
        self.target & if write { WRITE } else { READ } != 0
    }

    pub fn generation(self) -> u32 {
        self.generation
    }

    fn leads_nowhere(self) -> bool {
        self.target & !RIGHTS == NOWHERE
    }

    /// The address `offset` bytes from the start of the range.
    #[inline]
    pub fn target(self, offset: u64) -> Gpa {
        let start = self.target & !RIGHTS;
        if start == NOWHERE {
            return Gpa(NOWHERE | (offset & (PAGE_SIZE - 1)));
        }
        Gpa(start + offset)
    }

    /// What is left of a range that began `pages` earlier.
    fn later(self, pages: u64) -> Self {
        if self.leads_nowhere() {
            return self;
        }
        Self {
            target: self.target + (pages << PAGE_SHIFT),
            ..self
        }
    }

    pub fn mapping(self, first: u64, last: u64) -> Mapping {
        Mapping {
            iova: Iova(first << PAGE_SHIFT),
            // A range of all pages has a length that no u64 holds: its last
            // page is left out.
            length: (last - first).saturating_add(1).min(u64::MAX >> PAGE_SHIFT) << PAGE_SHIFT,
            target: (!self.leads_nowhere()).then(|| self.target(0)),
            read: self.allows(false),
            write: self.allows(true),
        }
    }
}

/// Page numbers by one folded multiplication: they are chosen by a guest, but
/// a bad choice only makes the guest's own accesses slower.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PageHasher(u64);

impl Hasher for PageHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The table takes its index from the low bits and its tags from the
        // high ones.
        self.0.rotate_left(20)
    }
}

/// Ranges that do not overlap; first and last page are numbers of pages.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Ranges of one page. Iterated only where the order does not matter.
    pages: HashMap<u64, Entry, BuildHasherDefault<PageHasher>>,
    /// Longer ones, by first page, with the last.
    ranges: BTreeMap<u64, (u64, Entry)>,
}

impl Table {
    /// The range that holds an address, and how far into it that is.
    #[inline]
    pub fn find(&self, iova: Iova) -> Option<(Entry, u64)> {
        let page = iova.page();
        if let Some(&entry) = self.pages.get(&page) {
            return Some((entry, iova.offset()));
        }
        let (&first, &(last, entry)) = self.ranges.range(..=page).next_back()?;
        (page <= last).then(|| (entry, iova.0 - (first << PAGE_SHIFT)))
    }

    /// Does anything lie in `first..=last`?
    fn overlaps(&self, (first, last): (u64, u64)) -> bool {
        let below = self.ranges.range(..=last).next_back();
        below.is_some_and(|(_, &(end, _))| end >= first) || self.any_page(first, last)
    }

    fn any_page(&self, first: u64, last: u64) -> bool {
        if last - first < self.pages.len() as u64 {
            (first..=last).any(|page| self.pages.contains_key(&page))
        } else {
            self.pages.keys().any(|page| (first..=last).contains(page))
        }
    }

    /// Add a range. False: it was there, exactly so.
    pub fn insert(&mut self, range: (u64, u64), entry: Entry) -> Result<bool, MirrorError> {
        let (first, last) = range;
        if self.overlaps(range) {
            let there = if first == last {
                self.pages.get(&first).copied()
            } else {
                let found = self.ranges.get(&first).filter(|(end, _)| *end == last);
                found.map(|&(_, entry)| entry)
            };
            return match there {
                Some(there) if there.target == entry.target => Ok(false),
                _ => Err(MirrorError::Overlap(Iova(first << PAGE_SHIFT))),
            };
        }
        if self.pages.len() + self.ranges.len() >= MAX_MAPPINGS {
            return Err(MirrorError::TooMany);
        }
        self.put(first, last, entry);
        Ok(true)
    }

    fn put(&mut self, first: u64, last: u64, entry: Entry) {
        if first == last {
            self.pages.insert(first, entry);
        } else {
            self.ranges.insert(first, (last, entry));
        }
    }

    /// Take out `first..=last`; ranges that reach over its ends keep what is
    /// outside. How many pages went.
    pub fn remove(&mut self, (first, last): (u64, u64)) -> u64 {
        let mut dropped = 0;
        if first == last {
            dropped += u64::from(self.pages.remove(&first).is_some());
        } else if last - first < self.pages.len() as u64 {
            for page in first..=last {
                dropped += u64::from(self.pages.remove(&page).is_some());
            }
        } else {
            let before = self.pages.len();
            self.pages.retain(|page, _| !(first..=last).contains(page));
            dropped += (before - self.pages.len()) as u64;
        }
        // From the last range that begins in or before it, downwards.
        while let Some((&start, &(end, entry))) = self.ranges.range(..=last).next_back() {
            if end < first {
                break;
            }
            self.ranges.remove(&start);
            if start < first {
                self.put(start, first - 1, entry);
            }
            if end > last {
                self.put(last + 1, end, entry.later(last + 1 - start));
            }
            dropped += end.min(last) - start.max(first) + 1;
        }
        dropped
    }

    /// Take out everything; how many pages that was.
    pub fn clear(&mut self) -> u64 {
        let long = self
            .ranges
            .iter()
            .map(|(first, (last, _))| last - first + 1);
        let dropped = long.sum::<u64>() + self.pages.len() as u64;
        self.pages.clear();
        self.ranges.clear();
        dropped
    }

    /// All of it, ascending.
    pub fn all(&self) -> Vec<((u64, u64), Entry)> {
        let single = self
            .pages
            .iter()
            .map(|(&page, &entry)| ((page, page), entry));
        let long = self.ranges.iter().map(|(&a, &(b, entry))| ((a, b), entry));
        let mut all: Vec<_> = single.chain(long).collect();
        all.sort_unstable_by_key(|&(range, _)| range);
        all
    }
}
