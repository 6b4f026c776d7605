//! An operating system of a few lines, and a notebook of what it saw.
//!
//! Register offsets and bits stand here once more, and on purpose: taken from
//! public definitions (Linux, QEMU, Intel's datasheets), not from the crate
//! under test.

use crate::target::{DEVICES, Direction, Target};
use std::fmt::Write as _;

pub mod reg {
    pub const VER: u64 = 0x00;
    pub const CAP: u64 = 0x08;
    pub const ECAP: u64 = 0x10;
    pub const GCMD: u64 = 0x18;
    pub const GSTS: u64 = 0x1c;
    pub const RTADDR: u64 = 0x20;
    pub const CCMD: u64 = 0x28;
    pub const FSTS: u64 = 0x34;
    pub const FECTL: u64 = 0x38;
    pub const FEDATA: u64 = 0x3c;
    pub const FEADDR: u64 = 0x40;
    pub const FEUADDR: u64 = 0x44;
    pub const IQH: u64 = 0x80;
    pub const IQT: u64 = 0x88;
    pub const IQA: u64 = 0x90;
    pub const ICS: u64 = 0x9c;
    pub const IECTL: u64 = 0xa0;
    pub const IEDATA: u64 = 0xa4;
    pub const IEADDR: u64 = 0xa8;
    pub const IEUADDR: u64 = 0xac;
    pub const IQERCD: u64 = 0xb0;
}

pub const TE: u64 = 1 << 31;
pub const SRTP: u64 = 1 << 30;
pub const QIE: u64 = 1 << 26;
pub const PFO: u64 = 1;
pub const PPF: u64 = 1 << 1;
pub const IQE: u64 = 1 << 4;
pub const MASKED: u64 = 1 << 31;

/// Memory layout: tables, then pages for data.
pub const ROOT: u64 = 0x400_0000;
pub const CONTEXTS: u64 = ROOT + 0x1000;
pub const STATUS: u64 = ROOT + 0x2000;
pub const QUEUE: u64 = ROOT + 0x4000;
/// The top tables of two domains, then tables as they are needed.
pub const TOP: u64 = ROOT + 0x8000;
pub const TOP_B: u64 = ROOT + 0x9000;
const TABLES: u64 = ROOT + 0x1_0000;
const TABLES_END: u64 = ROOT + 0x8_0000;
/// Pages that are mapped.
pub const PAGE_A: u64 = 0x500_0000;
pub const PAGE_B: u64 = 0x500_1000;
pub const LARGE: u64 = 0x520_0000;
const SCRATCH: u64 = 0x600_0000;
/// An address that is mapped, in every case that says nothing else.
pub const IOVA: u64 = 0x12_3456_7000;
pub const DOMAIN: u64 = 7;
pub const R: u64 = 1;
pub const W: u64 = 2;
pub const RW: u64 = 3;
pub const PS: u64 = 1 << 7;

/// One step: what was done, what was seen of it.
pub struct Row {
    pub case: &'static str,
    pub step: String,
    pub seen: String,
}

/// A target, and what was seen of it so far.
pub struct Bench<'t> {
    pub target: &'t mut dyn Target,
    pub rows: Vec<Row>,
    case: &'static str,
    next: u64,
    tail: u64,
    token: u64,
    /// Said with the next row.
    note: String,
    /// Fault records: first offset and count; the IOTLB registers' offset.
    frcd: u64,
    records: u64,
    pub iva: u64,
}

impl<'t> Bench<'t> {
    pub fn new(target: &'t mut dyn Target) -> Self {
        let cap = target.get(reg::CAP, 8);
        let ecap = target.get(reg::ECAP, 8);
        Self {
            target,
            rows: Vec::new(),
            case: "",
            next: TABLES,
            tail: 0,
            token: 0,
            note: String::new(),
            frcd: 16 * ((cap >> 24) & 0x3ff),
            records: 1 + ((cap >> 40) & 0xff),
            iva: 16 * ((ecap >> 8) & 0x3ff),
        }
    }

    pub fn row(&mut self, step: impl Into<String>, seen: impl Into<String>) {
        self.rows.push(Row {
            case: self.case,
            step: step.into(),
            seen: std::mem::take(&mut self.note) + &seen.into(),
        });
    }

    pub fn get(&mut self, offset: u64, size: u8) -> u64 {
        self.target.get(offset, size)
    }

    pub fn set(&mut self, offset: u64, size: u8, value: u64) {
        self.target.set(offset, size, value);
    }

    /// A row with the value of a register.
    pub fn show(&mut self, step: &str, offset: u64, size: u8) {
        let value = self.get(offset, size);
        self.row(step, format!("{value:#x}"));
    }

    /// Everything off and forgotten; empty tables.
    pub fn reset(&mut self, case: &'static str) {
        self.case = case;
        self.quiesce();
        self.set(reg::GCMD, 4, 0);
        self.set(reg::IQT, 8, 0);
        self.clear_faults();
        self.set(reg::ICS, 4, 1);
        self.set(reg::FECTL, 4, MASKED);
        self.set(reg::IECTL, 4, MASKED);
        self.set(reg::CCMD, 8, 1 << 63 | 1 << 61);
        self.set(self.iva + 8, 8, 1 << 63 | 1 << 60);
        self.target.clear(ROOT, TABLES_END - ROOT);
        self.next = TABLES;
        self.tail = 0;
    }

    /// Bring the queue, also one that stopped, behind a wait descriptor:
    /// QEMU disables it in no other state.
    fn quiesce(&mut self) {
        if self.get(reg::GSTS, 4) & QIE == 0 {
            return;
        }
        let head = self.get(reg::IQH, 8);
        let next = (head + 16) % (0x1000 << (self.get(reg::IQA, 8) & 7));
        let [low, high] = wait(0);
        self.poke(QUEUE + head, low);
        self.poke(QUEUE + head + 8, high);
        self.set(reg::IQT, 8, next);
        self.set(reg::FSTS, 4, IQE);
        self.set(reg::IQT, 8, next);
        assert_eq!(self.get(reg::IQH, 8), next, "{}", self.case);
    }

    /// Root pointer, queue, translation: on.
    pub fn start(&mut self) {
        self.set(reg::RTADDR, 8, ROOT);
        self.set(reg::GCMD, 4, SRTP);
        self.set(reg::IQA, 8, QUEUE);
        self.set(reg::GCMD, 4, QIE);
        self.set(reg::GCMD, 4, QIE | TE);
    }

    /// [`Bench::reset`], the first device in [`DOMAIN`] with four levels and
    /// [`IOVA`] mapped to [`PAGE_A`], and [`Bench::start`]. Gives the leaf
    /// entry's place.
    pub fn one_page(&mut self, case: &'static str) -> u64 {
        self.reset(case);
        self.attach(0, TOP, DOMAIN, 4);
        let leaf = self.map(TOP, IOVA, PAGE_A | RW);
        self.start();
        leaf
    }

    pub fn context(device: usize) -> u64 {
        CONTEXTS + 16 * u64::from(DEVICES[device] & 0xff)
    }

    pub fn attach(&mut self, device: usize, top: u64, domain: u64, levels: u64) {
        self.target.poke(ROOT, CONTEXTS | 1);
        let entry = Self::context(device);
        self.target.poke(entry + 8, (levels - 2) | domain << 8);
        self.target.poke(entry, top | 1);
    }

    /// Where the entry of `level` for `iova` lies below a top table of
    /// `levels`; tables on the way are made.
    pub fn entry(&mut self, top: u64, levels: u32, level: u32, iova: u64) -> u64 {
        let mut table = top;
        let mut at = levels;
        loop {
            let entry = table + 8 * ((iova >> (12 + 9 * (at - 1))) & 0x1ff);
            if at == level {
                return entry;
            }
            if self.target.look(entry) & RW == 0 {
                assert!(self.next < TABLES_END);
                let page = self.next;
                self.next += 0x1000;
                self.target.poke(entry, page | RW);
            }
            table = self.target.look(entry) & 0xffff_ffff_f000;
            at -= 1;
        }
    }

    /// Write a leaf of 4 KiB below a top table of four levels.
    pub fn map(&mut self, top: u64, iova: u64, leaf: u64) -> u64 {
        let entry = self.entry(top, 4, 1, iova);
        self.target.poke(entry, leaf);
        entry
    }

    pub fn poke(&mut self, at: u64, value: u64) {
        self.target.poke(at, value);
    }

    pub fn look(&mut self, at: u64) -> u64 {
        self.target.look(at)
    }

    /// The bits of FSTS that mean something, and the pending records.
    pub fn faults(&mut self) -> String {
        let status = self.get(reg::FSTS, 4);
        let mut seen = String::new();
        for (bit, name) in [(PFO, "PFO"), (PPF, "PPF"), (IQE, "IQE")] {
            if status & bit != 0 {
                let _ = write!(seen, " {name}");
            }
        }
        let other = status & !(PFO | PPF | IQE | 0xff00);
        if other != 0 {
            let _ = write!(seen, " FSTS {other:#x}");
        }
        let mut records = Vec::new();
        for i in 0..self.records {
            let at = self.frcd + 16 * i;
            let (low, high) = (self.get(at, 8), self.get(at + 8, 8));
            if high >> 63 == 0 {
                continue;
            }
            // Everything but F, T1, FR and SID must be zero; PV means nothing
            // while PP (bit 95) is clear.
            let pasid = if high >> 31 & 1 == 0 {
                0xf_ffff << 40
            } else {
                0
            };
            let rest = high & !(0b11 << 62 | 0xff << 32 | 0xffff | pasid);
            let way = if high >> 62 & 1 == 1 { 'R' } else { 'W' };
            let mut text = format!(
                " [{way} reason {:x} from {:04x} at {low:#x}]",
                (high >> 32) & 0xff,
                high & 0xffff
            );
            if rest != 0 {
                let _ = write!(text, " rest {rest:#x}");
            }
            records.push((i, text));
        }
        // Units have different numbers of records: show them from the first.
        let first = (status >> 8) & 0xff;
        if status & PPF != 0 && !records.iter().any(|(i, _)| *i == first) {
            seen.push_str(" FRI names no fault");
        }
        let count = self.records;
        records.sort_by_key(|(i, _)| (i + count - first) % count);
        seen.extend(records.into_iter().map(|(_, text)| text));
        seen
    }

    /// Clear the records and what FSTS keeps.
    pub fn clear_faults(&mut self) {
        for i in 0..self.records {
            self.set(self.frcd + 16 * i + 12, 4, 1 << 31);
        }
        self.set(reg::FSTS, 4, PFO | IQE);
    }

    /// The device writes 8 bytes; a row says whether they came to `target`,
    /// and the faults, which are cleared.
    pub fn write(&mut self, step: &str, device: usize, iova: u64, target: u64) {
        let landed = self.try_write(device, iova, target);
        let faults = self.faults();
        self.row(step, format!("{landed}{faults}"));
        self.clear_faults();
    }

    /// The same without row, and without clearing.
    pub fn try_write(&mut self, device: usize, iova: u64, target: u64) -> &'static str {
        let token = self.device_token(device);
        self.target.poke(target, 0);
        self.target.dma(device, Direction::Write, iova, 0, 8);
        if self.look(target) == token {
            "landed"
        } else {
            "refused"
        }
    }

    /// The device reads 8 bytes; a row says whether they are those at
    /// `source`, and the faults, which are cleared. Translation is switched
    /// off and on again to look into the device's buffer.
    pub fn read(&mut self, step: &str, device: usize, iova: u64, source: u64) {
        let token = self.fresh();
        self.poke(source, token);
        self.target.dma(device, Direction::Read, iova, 64, 8);
        let faults = self.faults();
        self.clear_faults();
        let status = self.get(reg::GSTS, 4);
        self.set(reg::GCMD, 4, status & QIE);
        self.poke(SCRATCH, 0);
        self.target.dma(device, Direction::Write, SCRATCH, 64, 8);
        let landed = if self.look(SCRATCH) == token {
            "landed"
        } else {
            "refused"
        };
        self.set(reg::GCMD, 4, status & (QIE | TE));
        self.row(step, format!("{landed}{faults}"));
    }

    fn fresh(&mut self) -> u64 {
        self.token += 1;
        0x6f72_6163_6c65_0000 + self.token
    }

    /// What the device's buffer starts with ([`Bench::teach`]).
    fn device_token(&self, device: usize) -> u64 {
        0x4445_5649_4345_0000 + device as u64
    }

    /// Fill the start of each device's buffer, with translation off.
    pub fn teach(&mut self) {
        for device in 0..DEVICES.len() {
            let token = self.device_token(device);
            self.poke(SCRATCH, token);
            self.poke(SCRATCH + 8, token);
            self.target.dma(device, Direction::Read, SCRATCH, 0, 16);
        }
    }

    /// Put descriptors into the queue and move its tail.
    pub fn submit(&mut self, descriptors: &[[u64; 2]]) {
        for [low, high] in descriptors {
            self.poke(QUEUE + self.tail, *low);
            self.poke(QUEUE + self.tail + 8, *high);
            self.tail = (self.tail + 16) % 0x1000;
        }
        self.set(reg::IQT, 8, self.tail);
    }

    /// Submit and wait by a status write, which must come.
    pub fn run(&mut self, descriptor: [u64; 2]) {
        self.poke(STATUS, 0);
        self.submit(&[descriptor, wait(1)]);
        if self.look(STATUS) != 1 {
            self.note.push_str("(an invalidation did not complete) ");
        }
    }
}

/// A wait descriptor that writes `value` to [`STATUS`].
pub const fn wait(value: u64) -> [u64; 2] {
    [5 | 1 << 5 | value << 32, STATUS]
}

/// IOTLB invalidations, draining both ways.
pub const fn global() -> [u64; 2] {
    [2 | 1 << 4 | 0b11 << 6, 0]
}

pub const fn domain(id: u64) -> [u64; 2] {
    [2 | 2 << 4 | 0b11 << 6 | id << 16, 0]
}

pub const fn pages(id: u64, iova: u64, mask: u64) -> [u64; 2] {
    [2 | 3 << 4 | 0b11 << 6 | id << 16, iova | mask]
}

/// Context-cache invalidation: 1 global, 2 domain, 3 device.
pub const fn contexts(granularity: u64, id: u64, source: u64, mask: u64) -> [u64; 2] {
    [
        1 | granularity << 4 | id << 16 | source << 32 | mask << 48,
        0,
    ]
}
