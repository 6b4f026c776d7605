//! What the translation costs, beside its peers in the same process: a plain
//! read of guest memory, vm-memory's `Iotlb`, and a `BTreeMap` of ranges (the
//! shape of several VMMs). `scripts/bench dma` runs it.

use bench::{Goal, Peer, Row, race};
use iommu::testing::{Os, READ_WRITE, pages};
use iommu::{Mapping, Mirror};
use journal::Journal;
use journal::event::Event;
use memory::{Gpa, Iova, PAGE_SIZE, RequesterId};
use scenario::{Plan, Scenario};
use std::collections::BTreeMap;
use std::hint::black_box;
use vm_memory::iommu::Iotlb;
use vm_memory::{GuestAddress, Permissions};

const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
const DOMAIN: u16 = 1;
/// Mapped pages lead to these many pages at the end of RAM, so that the copy
/// costs the same whatever the number of mappings.
const DATA_PAGES: u64 = 4096;
const RAM: u64 = 64 << 20;
const READS: usize = 1 << 20;
/// Of them in a round.
const ROUND_READS: usize = 1 << 15;
/// Neighbouring pages that the IOTLB holds all at once.
const IOTLB_PAGES: u64 = 65_536;
const BASE: u64 = 0x10_0000_0000;

/// Deterministic random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn quiet(size: u64) -> Os {
    let os = Os::new(size, Scenario::new(Plan::default(), Journal::disabled()));
    os.start();
    os
}

/// Where page `index` of the device leads.
fn target(index: u64) -> Gpa {
    let scattered = index.wrapping_mul(0x9e37_79b9) % DATA_PAGES;
    Gpa(RAM - (scattered + 1) * PAGE_SIZE)
}

fn iova(index: u64) -> Iova {
    Iova(BASE + index * PAGE_SIZE)
}

fn mapped(count: u64) -> (Os, Gpa) {
    let os = quiet(RAM);
    let top = os.attach(DEVICE, DOMAIN, 4);
    for index in 0..count {
        os.map(top, iova(index), target(index), READ_WRITE);
    }
    (os, top)
}

fn beside(name: &str, mappings: u64, ours: f64, peer: &str, value: f64) -> Row {
    let name = match mappings {
        0 => name.to_owned(),
        _ => format!("{name}, of {mappings}"),
    };
    Row::new(name, "ns", ours).beside(Peer { name: peer, value })
}

/// Where 64 bytes are read to. A line that lay across two pages of the stack
/// would cost more than what is measured, and only with some environments.
#[repr(align(64))]
struct Line([u8; 64]);

/// Reads of 64 bytes at random pages: in a working set that the IOTLB holds,
/// and over all mappings.
fn reads(rows: &mut Vec<Row>, count: u64) {
    let (os, _) = mapped(count);
    let dma = os.dma(DEVICE);
    let mut ranges = BTreeMap::new();
    let mut peer = Iotlb::new();
    for index in 0..count {
        let (from, to) = (iova(index).0, target(index).0);
        ranges.insert(from, (PAGE_SIZE, to, true));
        // Addresses that do not follow on keep the peer from merging them.
        peer.set_mapping(
            GuestAddress(from),
            GuestAddress(to),
            PAGE_SIZE as usize,
            Permissions::ReadWrite,
        )
        .expect("a mapping of a page");
    }
    for (name, set) in [("read 64 B, 256 pages", 256), ("read 64 B, random", count)] {
        if count == 256 && name.ends_with("random") {
            continue; // the same pages
        }
        let mut random = Random(0x1234_5678_9abc_def1);
        let order: Vec<u64> = (0..READS)
            .map(|_| random.below(set) * PAGE_SIZE + random.below(63) * 64)
            .collect();
        let part = |round: usize| {
            let parts = READS / ROUND_READS;
            let from = (round % parts) * ROUND_READS;
            &order[from..from + ROUND_READS]
        };
        let mut line = Line([0; 64]);
        let bytes = &mut line.0;
        let mut plain = |round| {
            for &at in part(round) {
                let page = target(at / PAGE_SIZE);
                let _ = os.memory.read(Gpa(page.0 + at % PAGE_SIZE), bytes);
                black_box(&*bytes);
            }
        };
        let mut line = Line([0; 64]);
        let bytes = &mut line.0;
        let mut ours = |round| {
            for &at in part(round) {
                let _ = dma.read(Iova(BASE + at), bytes);
                black_box(&*bytes);
            }
        };
        let mut line = Line([0; 64]);
        let bytes = &mut line.0;
        let mut tree = |round| {
            for &at in part(round) {
                let at = BASE + at;
                if let Some((&start, &(length, to, _))) = ranges.range(..=at).next_back()
                    && at - start + 64 <= length
                {
                    let _ = os.memory.read(Gpa(to + (at - start)), bytes);
                }
                black_box(&*bytes);
            }
        };
        let mut line = Line([0; 64]);
        let bytes = &mut line.0;
        let mut iotlb = |round| {
            for &at in part(round) {
                let at = GuestAddress(BASE + at);
                if let Ok(found) = Iotlb::lookup(&peer, at, 64, Permissions::Read) {
                    for range in found {
                        let _ = os.memory.read(Gpa(range.base.0), bytes);
                    }
                }
                black_box(&*bytes);
            }
        };
        let [plain, ours, tree, iotlb] =
            race(ROUND_READS, [&mut plain, &mut ours, &mut tree, &mut iotlb]);
        rows.push(beside(name, count, ours, "plain read", plain));
        // What translating adds. A difference below the clock's noise is none.
        let over = |time: f64| (time - plain).max(0.1);
        let name = format!("{name}, over plain");
        let [ours, tree, iotlb] = [ours, tree, iotlb].map(over);
        let row = beside(&name, count, ours, "BTreeMap", tree);
        rows.push(row.goal(Goal::RatioAtLeast(5.0)));
        let row = beside(&name, count, ours, "vm-memory Iotlb", iotlb);
        rows.push(row.goal(Goal::RatioAtLeast(5.0)));
        if set <= IOTLB_PAGES {
            let name = format!("{name}, of {count}: hits");
            rows.push(Row::new(name, "ns", ours).goal(Goal::AtMost(10.0)));
        }
    }
}

/// Map and unmap a page: leaf entry, invalidation with drain,
/// wait descriptor, status.
fn map_unmap(rows: &mut Vec<Row>, count: u64) {
    let (os, top) = mapped(count);
    let entries: Vec<Gpa> = (0..count).map(|i| os.entry(top, 4, 1, iova(i))).collect();
    let operations = 1 << 13;
    let mut random = Random(77);
    let order: Vec<u64> = (0..operations).map(|_| random.below(count)).collect();
    let mut ours = |_| {
        for &index in &order {
            let entry = entries[index as usize];
            os.poke(entry, target(index).0 | READ_WRITE);
            os.poke(entry, 0);
            black_box(os.run(pages(DOMAIN, iova(index), 0, true)));
        }
    };
    let mut ranges: BTreeMap<u64, (u64, u64)> = (0..count)
        .map(|i| (iova(i).0, (PAGE_SIZE, target(i).0)))
        .collect();
    let mut tree = |_| {
        for &index in &order {
            black_box(ranges.remove(&iova(index).0));
            ranges.insert(iova(index).0, (PAGE_SIZE, target(index).0));
        }
    };
    let mut peer = Iotlb::new();
    for index in 0..count {
        let (from, to) = (GuestAddress(iova(index).0), GuestAddress(target(index).0));
        let _ = peer.set_mapping(from, to, PAGE_SIZE as usize, Permissions::ReadWrite);
    }
    let mut iotlb = |_| {
        for &index in &order {
            let (from, to) = (GuestAddress(iova(index).0), GuestAddress(target(index).0));
            peer.invalidate_mapping(from, PAGE_SIZE as usize);
            let _ = peer.set_mapping(from, to, PAGE_SIZE as usize, Permissions::ReadWrite);
        }
    };
    let [ours, tree, iotlb] = race(operations, [&mut ours, &mut tree, &mut iotlb]);
    let name = "map + unmap, queue";
    rows.push(beside(name, count, ours, "BTreeMap", tree).goal(Goal::AtMost(250.0)));
    rows.push(beside(name, count, ours, "vm-memory Iotlb", iotlb));
}

/// Map and unmap a page of a mirrored domain, beside the same into a
/// `BTreeMap`; and a read through it.
fn mirrored(rows: &mut Vec<Row>, count: u64) {
    let os = quiet(RAM);
    let env = os.env();
    let mirror = Mirror::new();
    let mapping = |index| Mapping {
        iova: iova(index),
        length: PAGE_SIZE,
        target: Some(target(index)),
        read: true,
        write: true,
    };
    for index in 0..count {
        mirror.map(env, DEVICE, mapping(index)).expect("a page");
    }
    let operations = 1 << 13;
    let mut random = Random(77);
    let order: Vec<u64> = (0..operations).map(|_| random.below(count)).collect();
    let mut ours = |_| {
        for &index in &order {
            let _ = black_box(mirror.unmap(env, DEVICE, iova(index), PAGE_SIZE));
            let _ = black_box(mirror.map(env, DEVICE, mapping(index)));
        }
    };
    let mut ranges: BTreeMap<u64, (u64, u64)> = (0..count)
        .map(|i| (iova(i).0, (PAGE_SIZE, target(i).0)))
        .collect();
    let mut tree = |_| {
        for &index in &order {
            black_box(ranges.remove(&iova(index).0));
            ranges.insert(iova(index).0, (PAGE_SIZE, target(index).0));
        }
    };
    let [ours, tree] = race(operations, [&mut ours, &mut tree]);
    let row = beside("map + unmap, mirrored", count, ours, "BTreeMap", tree);
    rows.push(row.goal(Goal::AtMost(50.0)));

    let dma = mirror.dma(env, DEVICE, true);
    let mut line = Line([0; 64]);
    let bytes = &mut line.0;
    let mut ours = |_| {
        for &index in &order {
            let _ = dma.read(iova(index), bytes);
        }
        black_box(&*bytes);
    };
    let mut spare = Line([0; 64]);
    let rest = &mut spare.0;
    let mut plain = |_| {
        for &index in &order {
            let _ = os.memory.read(target(index), rest);
        }
        black_box(&*rest);
    };
    let [ours, plain] = race(operations, [&mut ours, &mut plain]);
    let name = "read 64 B, mirrored";
    rows.push(beside(name, count, ours, "plain read", plain));
}

/// A whole resource, its pages scattered.
fn copies(rows: &mut Vec<Row>) {
    let resource = 8 << 20;
    let count = resource / PAGE_SIZE;
    let (os, _) = mapped(count);
    let dma = os.dma(DEVICE);
    let mut bytes = vec![0u8; resource as usize];
    let mut plain = |_| {
        for (index, page) in bytes.chunks_mut(PAGE_SIZE as usize).enumerate() {
            let _ = os.memory.read(target(index as u64), page);
        }
        black_box(&bytes);
    };
    let mut others = vec![0u8; resource as usize];
    let mut ours = |_| {
        let _ = dma.read(iova(0), &mut others);
        black_box(&others);
    };
    let mut rest = vec![0u8; resource as usize];
    let mut whole = |_| {
        let _ = os.memory.read(Gpa(RAM - resource), &mut rest);
        black_box(&rest);
    };
    let [plain, ours, whole] = race(1, [&mut plain, &mut ours, &mut whole]);
    let name = "copy 8 MiB";
    rows.push(beside(name, count, ours, "plain, same pages", plain).goal(Goal::RatioAtLeast(0.9)));
    rows.push(beside(name, count, ours, "plain, contiguous", whole));
}

/// Accesses into a journal in memory, beside the same ones into none.
fn journalled(rows: &mut Vec<Row>) {
    let operations = 1 << 14;
    let machine = |mapped: bool, journal: Journal| {
        let os = Os::new(RAM, Scenario::new(Plan::default(), journal));
        os.start();
        let top = os.attach(DEVICE, DOMAIN, 4);
        if mapped {
            os.map(top, iova(0), target(0), READ_WRITE);
        }
        os
    };
    for mapped in [false, true] {
        let told = machine(mapped, Journal::in_memory());
        let silent = machine(mapped, Journal::disabled());
        let point = told.scenario.journal().save();
        let access = |os: &Os| {
            let dma = os.dma(DEVICE);
            let mut line = Line([0; 64]);
            let bytes = &mut line.0;
            for _ in 0..operations {
                let _ = black_box(dma.read(iova(0), bytes));
            }
        };
        let mut ours = |_| {
            let _ = told.scenario.journal().restore(&point);
            access(&told);
        };
        let mut none = |_| access(&silent);
        let [ours, none] = race(operations, [&mut ours, &mut none]);
        if mapped {
            rows.push(beside("read 64 B, journalled", 0, ours, "no journal", none));
            continue;
        }
        let rate = |time: f64| 1e9 / time;
        let peer = Peer {
            name: "no journal",
            value: rate(none),
        };
        let row = Row::new("faults into the journal", "1/s", rate(ours));
        rows.push(row.beside(peer).goal(Goal::AtLeast(1e6)));
        rows.push(
            Row::new("faults lost", "faults", lost(&told, operations)).goal(Goal::AtMost(0.0)),
        );
    }
}

/// Faults of the last round that the journal does not hold.
fn lost(os: &Os, operations: usize) -> f64 {
    let (records, _) = journal::read(&os.scenario.journal().bytes()[..]).expect("a journal");
    let faults = records
        .iter()
        .filter(|record| matches!(record.event, Event::Fault { .. }))
        .count();
    operations as f64 - faults as f64
}

fn main() {
    let mut rows = Vec::new();
    for count in [256, 4096, 65_536, 1 << 20] {
        reads(&mut rows, count);
    }
    for count in [256, 4096, 65_536] {
        map_unmap(&mut rows, count);
        mirrored(&mut rows, count);
    }
    copies(&mut rows);
    journalled(&mut rows);
    bench::print(&rows);
}
