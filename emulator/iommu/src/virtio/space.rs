//! The mappings of one domain. Each is what one MAP request made, and goes as
//! a whole (virtio 1.2 §5.13.6.4).

use crate::spec::virtio::Status;
use crate::spec::virtio::request::{MAP_READ, MAP_WRITE};
use memory::Gpa;
use std::collections::BTreeMap;

/// A mapped range, but for its first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Range {
    /// Last address.
    pub last: u64,
    /// Where the first address leads.
    pub physical: u64,
    /// `MAP_*`.
    pub flags: u32,
    pub generation: u32,
}

impl Range {
    pub fn allows(&self, write: bool) -> bool {
        self.flags & if write { MAP_WRITE } else { MAP_READ } != 0
    }
}

/// Ranges that do not overlap, by first address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Space {
    ranges: BTreeMap<u64, Range>,
}

impl Space {
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Every range, ascending, with its first address.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, &Range)> {
        self.ranges.iter().map(|(&first, range)| (first, range))
    }

    /// The range that holds an address, and where the address leads.
    #[inline]
    pub fn find(&self, address: u64) -> Option<(&Range, Gpa)> {
        let (&first, range) = self.ranges.range(..=address).next_back()?;
        // What was mapped does not wrap round.
        (address <= range.last).then(|| (range, Gpa(range.physical + (address - first))))
    }

    /// Map `first..=range.last`. False: something is mapped there.
    pub fn insert(&mut self, first: u64, range: Range) -> bool {
        let below = self.ranges.range(..=range.last).next_back();
        if below.is_some_and(|(_, there)| there.last >= first) {
            return false;
        }
        self.ranges.insert(first, range);
        true
    }

    /// May `first..=last` be unmapped: does it split no mapping?
    pub fn may_remove(&self, first: u64, last: u64) -> Result<(), Status> {
        let before = first.checked_sub(1).and_then(|at| self.find(at));
        // Only the outermost mappings can reach over the ends.
        let splits = before.is_some_and(|(range, _)| range.last >= first)
            || self.find(last).is_some_and(|(range, _)| range.last > last);
        if splits { Err(Status::Range) } else { Ok(()) }
    }

    /// Unmap what lies in `first..=last`, as [`Space::may_remove`] allowed;
    /// what that was, ascending.
    pub fn remove(&mut self, first: u64, last: u64) -> Vec<(u64, Range)> {
        let mut removed = Vec::new();
        while let Some((&start, _)) = self.ranges.range(first..=last).next() {
            removed.extend(self.ranges.remove_entry(&start));
        }
        removed
    }
}
