//! The IOTLB: kept for its semantics. An entry answers until something drops
//! it, whatever the tables say by then (VT-d 6.2).

use crate::spec::registers::GUEST_ADDRESS_BITS;
use crate::spec::tables::HOST_ADDRESS_BITS;
use memory::{Gpa, Iova};

const WAYS: usize = 4;
/// Bits of a page number, of an IOVA as of a physical address.
const PAGE_BITS: u32 = GUEST_ADDRESS_BITS - 12;
const _: () = assert!(HOST_ADDRESS_BITS <= GUEST_ADDRESS_BITS);
/// Bits of [`Entry`]'s halves that hold no generation.
const KEY_BITS: u32 = PAGE_BITS + 16 + 1;
const LEAF_BITS: u32 = PAGE_BITS + 2;
/// Low bits of the generation, which stand above the leaf; the rest stand
/// above the key.
const LOW_GENERATION: u32 = 64 - LEAF_BITS;
const _: () = assert!(LOW_GENERATION + (64 - KEY_BITS) >= 32);

/// What the tables allowed at the walk: low bits of a leaf.
const READ: u64 = 1;
const WRITE: u64 = 2;

/// log2 of the sets for 4 KiB, 2 MiB and 1 GiB pages: 256 MiB, 2 GiB and
/// 64 GiB of reach. More than hardware has, so that less staleness goes
/// unseen.
const SETS: [u32; 3] = [14, 8, 4];
const SHIFTS: [u32; 3] = [12, 21, 30];

/// One entry in 16 bytes: a key (valid bit, domain, page number) and a leaf
/// (frame, rights), each with a part of the generation above it. Four of
/// them, a set, are one cache line. All zero where there is none.
type Entry = [u64; 2];
type Set = [u64; 2 * WAYS];

#[inline]
const fn key(domain: u16, page: u64) -> u64 {
    (1 << (KEY_BITS - 1)) | (domain as u64) << PAGE_BITS | page
}

/// A key without what stands above it.
#[inline]
const fn bare(key: u64) -> u64 {
    key & ((1 << KEY_BITS) - 1)
}

const fn entry(key: u64, frame: u64, rights: u64, generation: u32) -> Entry {
    let generation = generation as u64;
    [
        key | (generation >> LOW_GENERATION) << KEY_BITS,
        frame << 2 | rights | generation << LEAF_BITS,
    ]
}

const fn generation(entry: Entry) -> u32 {
    ((entry[0] >> KEY_BITS) << LOW_GENERATION | entry[1] >> LEAF_BITS) as u32
}

/// A translation that was cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hit {
    pub gpa: Gpa,
    pub generation: u32,
}

/// A bank as it is saved: what it holds, not what it could.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BankState {
    /// Set and way (as one number), and the entry there; ascending.
    entries: Vec<(u32, Entry)>,
    turn: u8,
}

/// The IOTLB as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State([BankState; 3]);

/// Entries of one page size, set-associative.
#[derive(Debug)]
struct Bank {
    shift: u32,
    sets: Vec<Set>,
    /// Which way of a full set goes next: in turn over the whole bank, so that
    /// it is the same in every run.
    turn: u8,
    live: u32,
}

impl Bank {
    fn new(shift: u32, set_bits: u32) -> Self {
        Self {
            shift,
            // Zero pages of the host until they are used.
            sets: vec![[0; 2 * WAYS]; 1 << set_bits],
            turn: 0,
            live: 0,
        }
    }

    /// Four neighbours share a set, each with its own way where that is free:
    /// what is used together lies together. Domains are spread, so that two of
    /// them with equal addresses do not share their sets.
    #[inline]
    fn index(&self, domain: u16, page: u64) -> usize {
        let spread = usize::from(domain).wrapping_mul(0x9e5);
        ((page >> 2) as usize ^ spread) & (self.sets.len() - 1)
    }

    #[inline]
    fn find(&self, domain: u16, iova: u64, needs: u64) -> Option<Hit> {
        let page = iova >> self.shift;
        let wanted = key(domain, page);
        let set = self.sets.get(self.index(domain, page))?;
        let (ways, _) = set.as_chunks::<2>();
        let own = ways.get((page & 3) as usize)?;
        let found = if bare(own[0]) == wanted {
            *own
        } else {
            *ways.iter().find(|entry| bare(entry[0]) == wanted)?
        };
        if found[1] & needs != needs {
            return None;
        }
        let frame = ((found[1] >> 2) & ((1 << PAGE_BITS) - 1)) << 12;
        Some(Hit {
            gpa: Gpa(frame | (iova & ((1 << self.shift) - 1))),
            generation: generation(found),
        })
    }

    fn insert(&mut self, domain: u16, iova: u64, page: Gpa, rights: u64, generation: u32) {
        let number = iova >> self.shift;
        let index = self.index(domain, number);
        let key = key(domain, number);
        let Some(set) = self.sets.get_mut(index) else {
            return;
        };
        let (ways, _) = set.as_chunks_mut::<2>();
        let own = (number & 3) as usize;
        let way = ways
            .iter()
            .position(|entry| bare(entry[0]) == key)
            .or_else(|| (ways[own][0] == 0).then_some(own))
            .or_else(|| ways.iter().position(|entry| entry[0] == 0))
            .unwrap_or_else(|| {
                self.turn = (self.turn + 1) % WAYS as u8;
                usize::from(self.turn)
            });
        if let Some(old) = ways.get_mut(way) {
            self.live += u32::from(old[0] == 0);
            *old = entry(key, page.page(), rights, generation);
        }
    }

    /// Would an entry for it take the place of another page's?
    fn would_replace(&self, domain: u16, iova: u64) -> bool {
        let page = iova >> self.shift;
        let wanted = key(domain, page);
        let set = self.sets.get(self.index(domain, page));
        set.is_some_and(|set| {
            let mut ways = set.as_chunks::<2>().0.iter();
            ways.all(|entry| entry[0] != 0 && bare(entry[0]) != wanted)
        })
    }

    fn save(&self) -> BankState {
        let ways = self.sets.iter().flat_map(|set| set.as_chunks::<2>().0);
        let live = (0..).zip(ways).filter(|(_, entry)| entry[0] != 0);
        BankState {
            // The count ends the search with the last of them.
            entries: live
                .take(self.live as usize)
                .map(|(at, &entry)| (at, entry))
                .collect(),
            turn: self.turn,
        }
    }

    fn restore(&mut self, state: &BankState) {
        self.drop_where(|_, _| true);
        for &(at, entry) in &state.entries {
            let (set, way) = (at as usize / WAYS, at as usize % WAYS);
            let set = self.sets.get_mut(set).map(|set| set.as_chunks_mut::<2>().0);
            if let Some(slot) = set.and_then(|ways| ways.get_mut(way)) {
                *slot = entry;
                self.live += 1;
            }
        }
        self.turn = state.turn;
    }

    /// Drop what `doomed` says of (domain, page number).
    fn drop_where(&mut self, doomed: impl Fn(u16, u64) -> bool) -> u32 {
        let mut dropped = 0;
        let mut left = self.live;
        for set in &mut self.sets {
            if left == 0 {
                break;
            }
            let (ways, _) = set.as_chunks_mut::<2>();
            for entry in ways.iter_mut().filter(|entry| entry[0] != 0) {
                left -= 1;
                let domain = (entry[0] >> PAGE_BITS) as u16;
                if doomed(domain, entry[0] & ((1 << PAGE_BITS) - 1)) {
                    *entry = [0; 2];
                    dropped += 1;
                }
            }
        }
        self.live -= dropped;
        dropped
    }

    /// Drop the entries of `domain` that map any of `first..=last`.
    fn drop_range(&mut self, domain: u16, first: u64, last: u64) -> u32 {
        let (first, last) = (first >> self.shift, last >> self.shift);
        if self.live == 0 {
            return 0;
        }
        if last - first >= self.sets.len() as u64 {
            return self.drop_where(|d, page| d == domain && (first..=last).contains(&page));
        }
        let mut dropped = 0;
        for page in first..=last {
            let doomed = key(domain, page);
            let index = self.index(domain, page);
            let Some(set) = self.sets.get_mut(index) else {
                continue;
            };
            let (ways, _) = set.as_chunks_mut::<2>();
            for entry in ways.iter_mut().filter(|entry| bare(entry[0]) == doomed) {
                *entry = [0; 2];
                dropped += 1;
            }
        }
        self.live -= dropped;
        dropped
    }
}

/// Cached translations of every domain.
#[derive(Debug)]
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
    /// Look a 4 KiB page up, which must be within [`GUEST_ADDRESS_BITS`]. An
    /// entry that allows less than is needed is no hit: the tables are walked
    /// again, and only they can refuse.
    #[inline]
    pub fn find_small(&self, domain: u16, iova: Iova, write: bool) -> Option<Hit> {
        let [small, ..] = &self.banks;
        small.find(domain, iova.0, if write { WRITE } else { READ })
    }

    /// Look a 2 MiB or 1 GiB page up, likewise.
    pub fn find_large(&self, domain: u16, iova: Iova, write: bool) -> Option<Hit> {
        let [_, large, huge] = &self.banks;
        let needs = if write { WRITE } else { READ };
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
            bank.insert(domain, iova.0, page, rights, generation);
        }
    }

    /// Would caching a leaf of `1 << shift` bytes push out another?
    pub fn would_replace(&self, domain: u16, iova: Iova, shift: u32) -> bool {
        let mut banks = self.banks.iter().filter(|bank| bank.shift == shift);
        banks.any(|bank| bank.would_replace(domain, iova.0))
    }

    pub fn save(&self) -> State {
        State([0, 1, 2].map(|i| self.banks[i].save()))
    }

    pub fn restore(&mut self, state: &State) {
        for (bank, saved) in self.banks.iter_mut().zip(&state.0) {
            bank.restore(saved);
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
