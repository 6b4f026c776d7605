//! The least of an operating system: programs a [`Unit`] through its tables,
//! registers and queue as a real one does. For tests, benchmarks and fuzzing
//! of every room that has a device.
//!
//! It panics where its memory is too small: it never runs on hostile input.

use crate::spec::descriptors as desc;
use crate::spec::registers as reg;
use crate::spec::tables;
use crate::{Dma, Env, Unit};
use journal::Journal;
use memory::{Gpa, GuestMemory, Iova, PAGE_SIZE, RequesterId};
use scenario::{Plan, Scenario};
use std::cell::Cell;

/// R and W.
pub const READ_WRITE: u64 = tables::ENTRY_READ | tables::ENTRY_WRITE;

/// A scenario that parts every access into issue and landing.
#[must_use]
pub fn parted(journal: Journal) -> Scenario {
    let plan = Plan::parse("part-accesses = \"all\"").expect("a plan");
    Scenario::new(plan, journal)
}

/// A memory, a remapping unit, and who programs it.
#[derive(Debug)]
pub struct Os {
    /// Guest RAM. Tables grow from page 1 up; take data from the end.
    pub memory: GuestMemory,
    /// Choices and the journal.
    pub scenario: Scenario,
    /// The unit.
    pub unit: Unit,
    /// The root table.
    pub root: Gpa,
    /// The invalidation queue, one page.
    pub queue: Gpa,
    /// The next page for a table.
    pub next: Cell<u64>,
    /// Tail of the queue, bytes.
    pub tail: Cell<u64>,
    /// Wait descriptors so far; the value that the last one writes.
    pub waits: Cell<u32>,
}

impl Os {
    /// `size` bytes of RAM; translation is off.
    #[must_use]
    pub fn new(size: u64, scenario: Scenario) -> Self {
        let memory = GuestMemory::new(size).expect("host gives memory");
        let page = PAGE_SIZE;
        Self {
            memory,
            scenario,
            unit: Unit::new(),
            root: Gpa(page),
            queue: Gpa(2 * page),
            next: Cell::new(4 * page),
            tail: Cell::new(0),
            waits: Cell::new(0),
        }
    }

    /// The same, in the default scenario, with the queue and translation on.
    #[must_use]
    pub fn started(size: u64) -> Self {
        let os = Self::new(size, Scenario::for_test());
        os.start();
        os
    }

    /// Set the root table, then enable queue and translation.
    pub fn start(&self) {
        self.set(reg::RTADDR, 8, self.root.0);
        self.set(reg::IQA, 8, self.queue.0);
        self.set(reg::GCMD, 4, u64::from(reg::SET_ROOT_POINTER));
        self.set(reg::GCMD, 4, u64::from(reg::QUEUE_ENABLE));
        let both = reg::QUEUE_ENABLE | reg::TRANSLATION_ENABLE;
        self.set(reg::GCMD, 4, u64::from(both));
    }

    /// What every call wants.
    #[must_use]
    pub fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }

    /// A device's way to memory, bus mastering enabled.
    #[must_use]
    pub fn dma(&self, device: RequesterId) -> Dma<'_> {
        self.unit.dma(self.env(), device, true)
    }

    /// Read a register.
    #[must_use]
    pub fn get(&self, offset: u16, size: u8) -> u64 {
        self.unit.mmio_read(self.env(), u64::from(offset), size)
    }

    /// Write a register.
    pub fn set(&self, offset: u16, size: u8, value: u64) {
        self.unit
            .mmio_write(self.env(), u64::from(offset), size, value);
    }

    /// Write 8 bytes of RAM.
    pub fn poke(&self, at: Gpa, value: u64) {
        self.memory.write_u64(at, value).expect("inside RAM");
    }

    /// Read 8 bytes of RAM.
    #[must_use]
    pub fn look(&self, at: Gpa) -> u64 {
        self.memory.read_u64(at).expect("inside RAM")
    }

    /// A zeroed page for a table.
    #[must_use]
    pub fn page(&self) -> Gpa {
        let page = Gpa(self.next.get());
        self.next.set(page.0 + PAGE_SIZE);
        self.memory.fill(page, PAGE_SIZE, 0).expect("inside RAM");
        page
    }

    /// Where the context entry of `device` lies; the table is made if there is
    /// none.
    #[must_use]
    pub fn context_entry(&self, device: RequesterId) -> Gpa {
        let entry = Gpa(self.root.0 + 16 * u64::from(device.bus()));
        if self.look(entry) & tables::ROOT_PRESENT == 0 {
            self.poke(entry, self.page().0 | tables::ROOT_PRESENT);
        }
        Gpa((self.look(entry) & tables::ADDRESS) + 16 * u64::from(device.devfn()))
    }

    /// Put `device` into `domain` with `levels` (3 or 4) of fresh tables; gives
    /// the top table.
    pub fn attach(&self, device: RequesterId, domain: u16, levels: u8) -> Gpa {
        let top = self.page();
        let entry = self.context_entry(device);
        let width = u64::from(levels - 2);
        let high = width | u64::from(domain) << tables::CONTEXT_DOMAIN;
        self.poke(Gpa(entry.0 + 8), high);
        self.poke(entry, top.0 | tables::CONTEXT_PRESENT);
        top
    }

    /// Where the entry of `level` (1 maps 4 KiB) for `iova` lies, under a top
    /// table of `levels`; tables on the way are made.
    #[must_use]
    pub fn entry(&self, top: Gpa, levels: u8, level: u8, iova: Iova) -> Gpa {
        let mut table = top;
        let mut at = levels;
        loop {
            let shift = 12 + 9 * (u32::from(at) - 1);
            let entry = Gpa(table.0 | ((iova.0 >> shift) & 0x1ff) << 3);
            if at == level {
                return entry;
            }
            if self.look(entry) & READ_WRITE == 0 {
                self.poke(entry, self.page().0 | READ_WRITE);
            }
            table = Gpa(self.look(entry) & tables::ADDRESS);
            at -= 1;
        }
    }

    /// Map a 4 KiB page under a 4-level top table; gives the leaf entry's
    /// place.
    pub fn map(&self, top: Gpa, iova: Iova, page: Gpa, rights: u64) -> Gpa {
        let entry = self.entry(top, 4, 1, iova);
        self.poke(entry, page.0 | rights);
        entry
    }

    /// Put descriptors into the queue and move the tail.
    pub fn submit(&self, descriptors: &[[u64; 2]]) {
        for [low, high] in descriptors {
            let at = Gpa(self.queue.0 + self.tail.get());
            self.poke(at, *low);
            self.poke(Gpa(at.0 + 8), *high);
            self.tail.set((self.tail.get() + desc::SIZE) % PAGE_SIZE);
        }
        self.set(reg::IQT, 8, self.tail.get());
    }

    /// Submit and wait by a status write; false if the queue stopped.
    pub fn run(&self, descriptor: [u64; 2]) -> bool {
        let value = self.waits.get().wrapping_add(1);
        self.waits.set(value);
        let status = Gpa(3 * PAGE_SIZE);
        let wait = [
            desc::WAIT | desc::WAIT_STATUS | u64::from(value) << desc::WAIT_DATA,
            status.0,
        ];
        self.submit(&[descriptor, wait]);
        self.look(status) as u32 == value
    }
}

/// IOTLB invalidation of everything; `drain` sets DR and DW.
#[must_use]
pub const fn global(drain: bool) -> [u64; 2] {
    [iotlb(1, 0, drain), 0]
}

/// IOTLB invalidation of a domain.
#[must_use]
pub const fn domain(domain: u16, drain: bool) -> [u64; 2] {
    [iotlb(2, domain, drain), 0]
}

/// IOTLB invalidation of `1 << mask` pages.
#[must_use]
pub const fn pages(domain: u16, iova: Iova, mask: u8, drain: bool) -> [u64; 2] {
    [iotlb(3, domain, drain), iova.page_base().0 | mask as u64]
}

const fn iotlb(granularity: u64, domain: u16, drain: bool) -> u64 {
    let drained = if drain {
        desc::IOTLB_DRAIN_READS | desc::IOTLB_DRAIN_WRITES
    } else {
        0
    };
    desc::IOTLB | granularity << desc::GRANULARITY | (domain as u64) << desc::DOMAIN | drained
}

/// Context-cache invalidation: 1 global, 2 domain, 3 device.
#[must_use]
pub const fn contexts(granularity: u64, domain: u16, source: RequesterId, mask: u64) -> [u64; 2] {
    let low = desc::CONTEXT
        | granularity << desc::GRANULARITY
        | (domain as u64) << desc::DOMAIN
        | (source.0 as u64) << desc::CONTEXT_SOURCE
        | mask << desc::CONTEXT_FUNCTION_MASK;
    [low, 0]
}
