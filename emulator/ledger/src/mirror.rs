//! The domain that a remapping unit of somebody else's tells: its mappings
//! are written down as leaves are, in a domain of their own, so that what is
//! said of an address, and where it led before, is said the same way.

use crate::Ledger;
use crate::mappings::Leaf;
use journal::event::Table;
use memory::{Gpa, Iova, PAGE_SHIFT, PAGE_SIZE};
use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

/// The domain's number: VT-d keeps 0 for itself.
const DOMAIN: u16 = 0;
/// Mappings of more pages are not written down. Guests map no buffer of that
/// size at once: it is all of memory, and nothing is refused there.
const MAX_PAGES: u64 = 1 << 13;
/// Mappings remembered at most.
const MAX_MAPPINGS: usize = 1 << 20;

/// What is mapped: first and last page; none overlaps another.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Mirror {
    ranges: BTreeMap<u64, u64>,
}

impl Mirror {
    /// Take the pages from `first` to `last` out: what of them was mapped.
    fn cut(&mut self, first: u64, last: u64) -> Vec<RangeInclusive<u64>> {
        let mut taken = Vec::new();
        // From the last range that begins in or before it, downwards.
        loop {
            let below = (Bound::Unbounded, Bound::Included(last));
            let found = self.ranges.range(below).next_back();
            let Some((&start, &end)) = found.filter(|(_, end)| **end >= first) else {
                return taken;
            };
            self.ranges.remove(&start);
            if start < first {
                self.ranges.insert(start, first - 1);
            }
            if end > last {
                self.ranges.insert(last + 1, end);
            }
            taken.push(start.max(first)..=end.min(last));
        }
    }
}

impl Ledger {
    /// The device may reach a range.
    pub(crate) fn mirror_map(
        &mut self,
        (iova, length): (Iova, u64),
        target: Option<Gpa>,
        (read, write): (bool, bool),
    ) {
        let (first, pages) = (iova.page(), length >> PAGE_SHIFT);
        let ends = first.checked_add(pages).filter(|_| pages != 0);
        let Some(end) = ends else {
            return;
        };
        // A unit refuses to map what is mapped; in a journal that says so all
        // the same the last word counts, page by page.
        let replaced = self.mirror.cut(first, end - 1);
        if pages > MAX_PAGES || self.mirror.ranges.len() >= MAX_MAPPINGS {
            self.mirror_clear(replaced);
            return;
        }
        self.mirror.ranges.insert(first, end - 1);
        for page in 0..pages {
            let target = target.map(|gpa| gpa.0.saturating_add(page * PAGE_SIZE));
            let entry = Leaf::entry(target, read, write);
            self.mirror_write(first + page, entry);
        }
    }

    /// It may no longer. What was in flight has landed, so an access that is
    /// told later by what was mapped here is stale.
    pub(crate) fn mirror_unmap(&mut self, iova: Iova, length: u64) {
        self.mirror_forget(iova, length);
        self.settle();
        self.settled = self.event.saturating_add(1);
    }

    fn mirror_forget(&mut self, iova: Iova, length: u64) {
        if length == 0 {
            return;
        }
        let last = iova.0.saturating_add(length - 1) >> PAGE_SHIFT;
        let gone = self.mirror.cut(iova.page(), last);
        self.mirror_clear(gone);
    }

    fn mirror_clear(&mut self, ranges: Vec<RangeInclusive<u64>>) {
        for page in ranges.into_iter().flatten() {
            self.mirror_write(page, 0);
        }
    }

    fn mirror_write(&mut self, page: u64, entry: u64) {
        let table = Table::SecondLevel {
            domain: DOMAIN,
            level: 1,
            iova: Iova(page << PAGE_SHIFT),
        };
        // Where the tables lie is not told: one place for all.
        self.table_write(Gpa(0), entry, table);
    }
}
