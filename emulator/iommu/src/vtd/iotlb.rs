//! The IOTLB: kept for its semantics. An entry answers until something drops
//! it, whatever the tables say by then (VT-d 6.2).

use crate::spec::registers::GUEST_ADDRESS_BITS;
use memory::{Gpa, Iova};

const WAYS: usize = 4;
/// Low bits of [`Entry::page`]: what the tables allowed at the walk.
const READ: u64 = 1;
const WRITE: u64 = 2;
const VALID: u64 = 1 << 63;
const DOMAIN: u32 = 40;

/// log2 of the sets for 4 KiB, 2 MiB and 1 GiB pages: 16 MiB, 512 MiB and
/// 64 GiB of reach.
const SETS: [u32; 3] = [10, 6, 4];
const SHIFTS: [u32; 3] = [12, 21, 30];

/// One entry; 0 as the tag where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// [`VALID`], the domain, the page number.
    tag: u64,
    /// Where the page leads, with [`READ`] and [`WRITE`].
    page: u64,
    generation: u32,
}

/// A translation that was cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub gpa: Gpa,
    pub generation: u32,
}

/// Entries of one page size, set-associative.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bank {
    shift: u32,
    sets: Vec<[Entry; WAYS]>,
    /// Which way of a full set goes next: in turn, so that it is the same in
    /// every run.
    turn: Vec<u8>,
    live: u32,
}

impl Bank {
    fn new(shift: u32, set_bits: u32) -> Self {
        Self {
            shift,
            sets: vec![[Entry::default(); WAYS]; 1 << set_bits],
            turn: vec![0; 1 << set_bits],
            live: 0,
        }
    }

    #[inline]
    fn tag(domain: u16, page: u64) -> u64 {
        VALID | u64::from(domain) << DOMAIN | page
    }

    /// Domains are spread, so that two of them with equal addresses do not
    /// share their sets.
    #[inline]
    fn index(&self, domain: u16, page: u64) -> usize {
        (page as usize ^ usize::from(domain).wrapping_mul(0x9e5)) & (self.sets.len() - 1)
    }

    #[inline]
    fn find(&self, domain: u16, iova: u64, needs: u64) -> Option<Hit> {
        let page = iova >> self.shift;
        let tag = Self::tag(domain, page);
        let set = self.sets.get(self.index(domain, page))?;
        let entry = set.iter().find(|entry| entry.tag == tag)?;
        let within = iova & ((1 << self.shift) - 1);
        (entry.page & needs == needs).then_some(Hit {
            gpa: Gpa((entry.page & !0xfff) | within),
            generation: entry.generation,
        })
    }

    fn insert(&mut self, domain: u16, iova: u64, page: u64, generation: u32) {
        let number = iova >> self.shift;
        let index = self.index(domain, number);
        let tag = Self::tag(domain, number);
        let (Some(set), Some(turn)) = (self.sets.get_mut(index), self.turn.get_mut(index)) else {
            return;
        };
        let way = set
            .iter()
            .position(|entry| entry.tag == tag)
            .or_else(|| set.iter().position(|entry| entry.tag == 0))
            .unwrap_or_else(|| {
                *turn = (*turn + 1) % WAYS as u8;
                usize::from(*turn)
            });
        if let Some(entry) = set.get_mut(way) {
            self.live += u32::from(entry.tag == 0);
            *entry = Entry {
                tag,
                page,
                generation,
            };
        }
    }

    /// Drop what `doomed` says of (domain, page number).
    fn drop_where(&mut self, doomed: impl Fn(u16, u64) -> bool) -> u32 {
        if self.live == 0 {
            return 0;
        }
        let mut dropped = 0;
        for entry in self.sets.iter_mut().flatten() {
            let domain = (entry.tag >> DOMAIN) as u16;
            let page = entry.tag & ((1 << DOMAIN) - 1);
            if entry.tag != 0 && doomed(domain, page) {
                *entry = Entry::default();
                dropped += 1;
            }
        }
        self.live -= dropped;
        dropped
    }

    /// Drop the entries of `domain` that map any of `first..=last`.
    fn drop_range(&mut self, domain: u16, first: u64, last: u64) -> u32 {
        let (first, last) = (first >> self.shift, last >> self.shift);
        if self.live == 0 || last - first >= self.sets.len() as u64 {
            return self.drop_where(|d, page| d == domain && (first..=last).contains(&page));
        }
        let mut dropped = 0;
        for page in first..=last {
            let tag = Self::tag(domain, page);
            let index = self.index(domain, page);
            let set = self.sets.get_mut(index).into_iter().flatten();
            for entry in set.filter(|entry| entry.tag == tag) {
                *entry = Entry::default();
                dropped += 1;
            }
        }
        self.live -= dropped;
        dropped
    }
}

/// Cached translations of every domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Iotlb {
    /// 4 KiB, 2 MiB, 1 GiB.
    banks: [Bank; 3],
}

impl Default for Iotlb {
    fn default() -> Self {
        let bank = |i: usize| Bank::new(SHIFTS[i], SETS[i]);
        Self {
            banks: [bank(0), bank(1), bank(2)],
        }
    }
}

impl Iotlb {
    /// Look a page up. An entry that allows less than is needed is no hit: the
    /// tables are walked again, and only they can refuse.
    #[inline]
    pub fn find(&self, domain: u16, iova: Iova, write: bool) -> Option<Hit> {
        let needs = if write { WRITE } else { READ };
        let [small, large, huge] = &self.banks;
        if let Some(hit) = small.find(domain, iova.0, needs) {
            return Some(hit);
        }
        [large, huge]
            .into_iter()
            .filter(|bank| bank.live != 0)
            .find_map(|bank| bank.find(domain, iova.0, needs))
    }

    /// Cache a leaf of `1 << shift` bytes.
    pub fn insert(
        &mut self,
        domain: u16,
        iova: Iova,
        shift: u32,
        page: Gpa,
        (read, write): (bool, bool),
        generation: u32,
    ) {
        let rights = if read { READ } else { 0 } | if write { WRITE } else { 0 };
        if let Some(bank) = self.banks.iter_mut().find(|bank| bank.shift == shift) {
            bank.insert(domain, iova.0, page.0 | rights, generation);
        }
    }

    /// Drop everything; how many entries that was.
    pub fn drop_all(&mut self) -> u32 {
        self.drop_where(|_, _| true)
    }

    /// Drop a domain.
    pub fn drop_domain(&mut self, domain: u16) -> u32 {
        self.drop_where(|d, _| d == domain)
    }

    /// Drop what a domain has of `length` bytes (a power of two) at `iova`
    /// (aligned to it), whatever the size of the pages.
    pub fn drop_range(&mut self, domain: u16, iova: Iova, length: u64) -> u32 {
        // Beyond the width nothing is cached, and a tag has no room for more.
        if iova.0 >> GUEST_ADDRESS_BITS != 0 {
            return 0;
        }
        let last = iova.0 + (length - 1);
        let banks = self.banks.iter_mut();
        banks.map(|b| b.drop_range(domain, iova.0, last)).sum()
    }

    fn drop_where(&mut self, doomed: impl Fn(u16, u64) -> bool) -> u32 {
        let banks = self.banks.iter_mut();
        banks.map(|bank| bank.drop_where(&doomed)).sum()
    }
}
