//! What the second-level tables say, rebuilt from the writes of their entries,
//! and what they said before: 20 bytes for each address of a table that maps or
//! mapped something, and 16 more for each that is mapped now.

use crate::pages::{MAX_PFN, Pages};
use memory::{Gpa, Iova};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// Bits of an entry (VT-d 9.8): a leaf is present if it allows something.
const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const PAGE_SIZE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Addresses of one table of level 1, in pages.
const SPAN: u64 = 512;
/// Tables of level 1 remembered at most.
const MAX_TABLES: usize = 1 << 14;
/// Large leaves remembered at most.
const MAX_LARGE: usize = 1 << 14;

/// A leaf in 32 bits: frame number, rights, and whether a write of the entry
/// was seen at all (a guest under QEMU writes its tables unseen).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Leaf(u32);

impl Leaf {
    const READ: u32 = 1 << 28;
    const WRITE: u32 = 1 << 29;
    /// Leads beyond what is tracked.
    const BEYOND: u32 = 1 << 30;
    const SEEN: u32 = 1 << 31;

    /// An entry as hardware has it; one that leads to no RAM leads beyond what
    /// is tracked.
    pub(crate) fn entry(target: Option<u64>, read: bool, write: bool) -> u64 {
        let target = target.unwrap_or(ADDRESS) & ADDRESS;
        target | if read { READ } else { 0 } | if write { WRITE } else { 0 }
    }

    fn of(entry: u64) -> Self {
        let mut bits = Self::SEEN;
        if entry & (READ | WRITE) == 0 {
            return Self(bits);
        }
        bits |= if entry & READ != 0 { Self::READ } else { 0 };
        bits |= if entry & WRITE != 0 { Self::WRITE } else { 0 };
        let pfn = (entry & ADDRESS) >> memory::PAGE_SHIFT;
        bits |= if pfn < MAX_PFN {
            pfn as u32
        } else {
            Self::BEYOND
        };
        Self(bits)
    }

    fn seen(self) -> bool {
        self.0 & Self::SEEN != 0
    }

    fn present(self) -> bool {
        self.0 & (Self::READ | Self::WRITE) != 0
    }

    fn read(self) -> bool {
        self.0 & Self::READ != 0
    }

    fn write(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// Frame number, if it is present and tracked.
    fn pfn(self) -> Option<u64> {
        (self.present() && self.0 & Self::BEYOND == 0).then(|| u64::from(self.0) & (MAX_PFN - 1))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    now: Leaf,
    /// The last present leaf before `now`.
    before: Leaf,
    /// Who owned the page of `before` when it was changed.
    owner: Option<u32>,
    /// Event at which `now` was written.
    changed: u32,
}

impl Entry {
    /// Write a new leaf. Returns the frame that the old one led to.
    fn set(&mut self, leaf: Leaf, pages: &Pages, event: u32) -> Option<u64> {
        let old = self.now;
        if old.present() {
            self.before = old;
            self.owner = old.pfn().and_then(|pfn| pages.get(pfn).last_owner());
        }
        self.now = leaf;
        self.changed = event;
        old.pfn()
    }
}

#[derive(Clone, Debug)]
struct Table {
    /// Frame of the table, as its entries' writes show it.
    frame: Option<u64>,
    /// Does an entry above it lead to it?
    attached: bool,
    /// Event at which that changed.
    changed: u32,
    entries: Box<[Entry]>,
}

impl Table {
    fn new(event: u32) -> Self {
        Self {
            frame: None,
            attached: true,
            changed: event,
            entries: vec![Entry::default(); SPAN as usize].into_boxed_slice(),
        }
    }
}

/// What the tables say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// Nothing was seen of its entry.
    Unknown,
    /// It leads nowhere.
    Absent {
        /// Where it led before.
        before: Option<Before>,
        /// Event at which it was cleared.
        changed: u32,
    },
    /// It leads to a page; `None` for one that is not tracked.
    Present {
        /// Frame number.
        pfn: Option<u64>,
        /// May the device read?
        read: bool,
        /// May it write?
        write: bool,
        /// Event at which the entry was written.
        changed: u32,
    },
}

/// Where an address led before its entry was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    /// Frame number.
    pub(crate) pfn: u64,
    /// Allocation that owned it then.
    pub(crate) owner: Option<u32>,
}

/// What a write of an entry did to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This frame is no longer reached.
    Unmapped(u64),
    /// This frame is reached, with these rights (read, write).
    Mapped(u64, bool, bool),
}

/// The tables of every domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mappings {
    /// By domain and address divided by [`SPAN`] pages.
    tables: BTreeMap<(u16, u64), Table>,
    /// Leaves of 2 MiB and 1 GiB, by domain, level and first page.
    large: BTreeMap<(u16, u8, u64), Entry>,
    /// Frame, domain and page of each 4 KiB leaf that is present.
    reverse: BTreeSet<(u32, u16, u64)>,
}

/// Pages that one entry of a level maps.
fn span(level: u8) -> u64 {
    1 << (9 * u32::from(level.clamp(1, 6) - 1))
}

impl Mappings {
    /// An entry was written. `budget` is the number of tables that may be
    /// looked at. Returns what it means for pages of 4 KiB leaves; a large
    /// leaf is no news of a single page.
    pub(crate) fn write(
        &mut self,
        (domain, level, iova): (u16, u8, Iova),
        (address, new): (Gpa, u64),
        event: u32,
        pages: &Pages,
        budget: &mut u64,
    ) -> Vec<Change> {
        let page = iova.page();
        if level <= 1 {
            return self.write_leaf(domain, page, (address, new), event, pages);
        }
        let leaf = level <= 3 && new & PAGE_SIZE != 0 && new & (READ | WRITE) != 0;
        let base = page & !(span(level) - 1);
        let key = (domain, level, base);
        if leaf {
            if self.large.len() < MAX_LARGE || self.large.contains_key(&key) {
                let entry = self.large.entry(key).or_default();
                entry.set(Leaf::of(new), pages, event);
            }
        } else if let Some(entry) = self.large.get_mut(&key) {
            entry.set(Leaf::of(0), pages, event);
        }
        let attached = !leaf && new & (READ | WRITE) != 0;
        let below = (new & ADDRESS) >> memory::PAGE_SHIFT;
        let last = base.saturating_add(span(level) - 1) / SPAN;
        for (_, table) in self
            .tables
            .range_mut((domain, base / SPAN)..=(domain, last))
        {
            if *budget == 0 {
                break;
            }
            *budget -= 1;
            if table.attached != attached {
                table.changed = event;
            }
            table.attached = attached;
            if attached && level == 2 && table.frame.is_some_and(|frame| frame != below) {
                // Another table took its place, and nothing of it was seen.
                *table = Table::new(event);
            }
        }
        Vec::new()
    }

    fn write_leaf(
        &mut self,
        domain: u16,
        page: u64,
        (address, new): (Gpa, u64),
        event: u32,
        pages: &Pages,
    ) -> Vec<Change> {
        let key = (domain, page / SPAN);
        if self.tables.len() >= MAX_TABLES && !self.tables.contains_key(&key) {
            return Vec::new();
        }
        let table = self.tables.entry(key).or_insert_with(|| Table::new(event));
        let frame = address.page();
        if table.frame.is_some_and(|known| known != frame) {
            *table = Table::new(event);
        }
        table.frame = Some(frame);
        let Some(entry) = table.entries.get_mut((page % SPAN) as usize) else {
            return Vec::new();
        };
        let leaf = Leaf::of(new);
        let gone = entry.set(leaf, pages, event);
        let mut changes = Vec::new();
        if let Some(pfn) = gone {
            self.reverse.remove(&(pfn as u32, domain, page));
            if leaf.pfn() != gone {
                changes.push(Change::Unmapped(pfn));
            }
        }
        if let Some(pfn) = leaf.pfn() {
            self.reverse.insert((pfn as u32, domain, page));
            if gone != Some(pfn) {
                changes.push(Change::Mapped(pfn, leaf.read(), leaf.write()));
            }
        }
        changes
    }

    /// The IOMMU's walk found this leaf. Told only of entries whose writes
    /// were not seen: the history of an address under a real guest.
    pub(crate) fn fill(&mut self, domain: u16, iova: Iova, gpa: Gpa, event: u32, pages: &Pages) {
        let (page, pfn) = (iova.page(), gpa.page());
        let key = (domain, page / SPAN);
        if pfn >= MAX_PFN || (self.tables.len() >= MAX_TABLES && !self.tables.contains_key(&key)) {
            return;
        }
        let table = self.tables.entry(key).or_insert_with(|| Table::new(event));
        if let Some(entry) = table.entries.get_mut((page % SPAN) as usize)
            && !entry.now.seen()
        {
            entry.before = Leaf(pfn as u32 | Leaf::READ);
            entry.owner = pages.get(pfn).last_owner();
        }
    }

    /// What the tables say of an address now.
    pub(crate) fn translate(&self, domain: u16, iova: Iova) -> Translation {
        let page = iova.page();
        let table = self.tables.get(&(domain, page / SPAN));
        let small = table.and_then(|table| {
            let entry = table.entries.get((page % SPAN) as usize)?;
            Some((table, entry))
        });
        if let Some((table, entry)) = small
            && table.attached
            && entry.now.present()
        {
            return present(entry, 0);
        }
        let large = (2..=3).filter_map(|level| {
            let base = page & !(span(level) - 1);
            let entry = self.large.get(&(domain, level, base))?;
            Some((entry, page - base))
        });
        let mut gone = None;
        for (entry, offset) in large {
            if entry.now.present() {
                return present(entry, offset);
            }
            gone = gone.or(Some((entry, offset)));
        }
        // It leads nowhere: by what, and where to before?
        if let Some((table, entry)) = small
            && entry.now.seen()
        {
            let cut = entry.now.present() && !table.attached;
            let leaf = if cut { entry.now } else { entry.before };
            return Translation::Absent {
                before: leaf.pfn().map(|pfn| Before {
                    pfn,
                    owner: if cut { None } else { entry.owner },
                }),
                changed: if cut { table.changed } else { entry.changed },
            };
        }
        if let Some((entry, offset)) = gone {
            return Translation::Absent {
                before: entry.before.pfn().map(|pfn| Before {
                    pfn: pfn + offset,
                    owner: None,
                }),
                changed: entry.changed,
            };
        }
        Translation::Unknown
    }

    /// Where an address led when the IOMMU last walked to it, if the writes of
    /// its entry were not seen.
    pub(crate) fn last_fill(&self, domain: u16, iova: Iova) -> Option<Before> {
        let table = self.tables.get(&(domain, iova.page() / SPAN))?;
        let entry = table.entries.get((iova.page() % SPAN) as usize)?;
        let pfn = entry.before.pfn().filter(|_| !entry.now.seen())?;
        Some(Before {
            pfn,
            owner: entry.owner,
        })
    }

    /// An address whose leaf leads to this frame.
    pub(crate) fn reaching(&self, pfn: u64) -> Option<(u16, Iova)> {
        let key = u32::try_from(pfn).ok().filter(|_| pfn < MAX_PFN)?;
        // Frames are mapped a few times; a journal may say otherwise.
        let small = self
            .reverse
            .range((key, 0, 0)..=(key, u16::MAX, u64::MAX))
            .take(64)
            .find(|(_, domain, page)| {
                self.tables
                    .get(&(*domain, page / SPAN))
                    .is_some_and(|table| table.attached)
            })
            .map(|&(_, domain, page)| (domain, Iova(page << memory::PAGE_SHIFT)));
        small.or_else(|| {
            self.large
                .iter()
                .take(64)
                .find_map(|(&(domain, level, base), entry)| {
                    let offset = pfn.checked_sub(entry.now.pfn()?)?;
                    (offset < span(level)).then(|| {
                        let page = base.saturating_add(offset);
                        (domain, Iova(page.wrapping_shl(memory::PAGE_SHIFT)))
                    })
                })
        })
    }

    /// An address whose leaf led to this frame before an event, and does still.
    pub(crate) fn reaching_before(&self, pfn: u64, event: u32) -> Option<(u16, Iova)> {
        let key = u32::try_from(pfn).ok().filter(|_| pfn < MAX_PFN)?;
        self.reverse
            .range((key, 0, 0)..=(key, u16::MAX, u64::MAX))
            .take(64)
            .find(|(_, domain, page)| {
                let table = self.tables.get(&(*domain, page / SPAN));
                table.is_some_and(|table| {
                    let entry = table.entries.get((page % SPAN) as usize);
                    table.attached && entry.is_some_and(|entry| entry.changed < event)
                })
            })
            .map(|&(_, domain, page)| (domain, Iova(page << memory::PAGE_SHIFT)))
    }

    /// Hash where each address leads, and led before; of when it was changed
    /// whether that was before event `settled`.
    pub(crate) fn hash_leads(&self, settled: u32, hasher: &mut impl Hasher) {
        let hash = |entry: &Entry, hasher: &mut _| {
            let Entry {
                now,
                before,
                owner,
                changed,
            } = *entry;
            (now, before, owner, changed < settled).hash(hasher);
        };
        for (key, table) in &self.tables {
            let Table {
                frame,
                attached,
                changed,
                entries,
            } = table;
            (key, frame, attached, *changed < settled).hash(hasher);
            for (entry, index) in entries.iter().zip(0u32..) {
                if entry.now.seen() || entry.before.present() {
                    index.hash(hasher);
                    hash(entry, hasher);
                }
            }
            u32::MAX.hash(hasher);
        }
        self.tables.len().hash(hasher);
        for (key, entry) in &self.large {
            key.hash(hasher);
            hash(entry, hasher);
        }
        // `reverse` says the same as `tables`.
    }

    /// Bytes that the tables occupy.
    pub(crate) fn bytes(&self) -> usize {
        self.tables.len() * SPAN as usize * size_of::<Entry>()
            + self.large.len() * size_of::<((u16, u8, u64), Entry)>()
            + self.reverse.len() * size_of::<(u32, u16, u64)>()
    }
}

fn present(entry: &Entry, offset: u64) -> Translation {
    Translation::Present {
        pfn: entry.now.pfn().map(|pfn| pfn + offset),
        read: entry.now.read(),
        write: entry.now.write(),
        changed: entry.changed,
    }
}
