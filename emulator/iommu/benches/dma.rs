//! What the translation costs, beside its peers in the same process: a plain
//! read of guest memory, vm-memory's `Iotlb`, and a `BTreeMap` of ranges (the
//! shape of several VMMs). A table on stderr, JSON on stdout.
//!
//! `cargo bench -p dmasan-iommu --bench dma > dma.json`

use iommu::testing::{Os, READ_WRITE, pages};
use journal::Journal;
use memory::{Gpa, Iova, PAGE_SIZE, RequesterId};
use scenario::{Plan, Scenario};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;
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

/// Measurements of each contender: short, and taken in turn, so that what else
/// the host does falls on all of them alike.
const ROUNDS: usize = 48;

/// Nanoseconds an operation of each contender: the lower quartile of its
/// rounds. A contender does `operations` and is told the round's number.
fn race<const N: usize>(operations: usize, contenders: [&mut dyn FnMut(usize); N]) -> [f64; N] {
    let mut contenders = contenders;
    let mut times = [const { Vec::new() }; N];
    for round in 0..ROUNDS {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            contender(round);
            times.push(start.elapsed().as_nanos() as f64 / operations as f64);
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 4]
    })
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

#[derive(Default)]
struct Report {
    rows: Vec<Value>,
}

impl Report {
    fn add(&mut self, name: &str, mappings: u64, ours: f64, peer: &str, peer_ns: f64) {
        self.row(name, mappings, ours, peer, peer_ns, None);
    }

    fn row(
        &mut self,
        name: &str,
        mappings: u64,
        ours: f64,
        peer: &str,
        peer_ns: f64,
        plain: Option<f64>,
    ) {
        let ratio = peer_ns / ours;
        let mut row = json!({
            "name": name, "mappings": mappings, "ours_ns": ours,
            "peer": peer, "peer_ns": peer_ns, "ratio": ratio,
        });
        eprint!("{name:<28} {mappings:>8}  {ours:>10.1}  {peer:<22} {peer_ns:>10.1}  {ratio:>6.2}");
        if let Some(plain) = plain {
            let overhead = (ours - plain).max(0.1);
            let overhead_ratio = (peer_ns - plain) / overhead;
            eprint!("  over plain: {overhead:>6.1}  {overhead_ratio:>6.2}");
            if let Some(map) = row.as_object_mut() {
                map.insert("over_plain_ns".into(), json!(ours - plain));
                map.insert("over_plain_ratio".into(), json!(overhead_ratio));
            }
        }
        eprintln!();
        self.rows.push(row);
    }
}

/// Reads of 64 bytes at random pages: in a working set that the IOTLB holds,
/// and over all mappings.
fn reads(report: &mut Report, count: u64) {
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
        let mut random = Random(0x1234_5678_9abc_def1);
        let order: Vec<u64> = (0..READS)
            .map(|_| random.below(set) * PAGE_SIZE + random.below(63) * 64)
            .collect();
        let part = |round: usize| {
            let parts = READS / ROUND_READS;
            let from = (round % parts) * ROUND_READS;
            &order[from..from + ROUND_READS]
        };
        let mut bytes = [0u8; 64];
        let mut plain = |round| {
            for &at in part(round) {
                let page = target(at / PAGE_SIZE);
                let _ = os.memory.read(Gpa(page.0 + at % PAGE_SIZE), &mut bytes);
                black_box(&bytes);
            }
        };
        let mut bytes = [0u8; 64];
        let mut ours = |round| {
            for &at in part(round) {
                let _ = dma.read(Iova(BASE + at), &mut bytes);
                black_box(&bytes);
            }
        };
        let mut bytes = [0u8; 64];
        let mut tree = |round| {
            for &at in part(round) {
                let at = BASE + at;
                if let Some((&start, &(length, to, _))) = ranges.range(..=at).next_back()
                    && at - start + 64 <= length
                {
                    let _ = os.memory.read(Gpa(to + (at - start)), &mut bytes);
                }
                black_box(&bytes);
            }
        };
        let mut bytes = [0u8; 64];
        let mut iotlb = |round| {
            for &at in part(round) {
                let at = GuestAddress(BASE + at);
                if let Ok(found) = Iotlb::lookup(&peer, at, 64, Permissions::Read) {
                    for range in found {
                        let _ = os.memory.read(Gpa(range.base.0), &mut bytes);
                    }
                }
                black_box(&bytes);
            }
        };
        let [plain, ours, tree, iotlb] =
            race(ROUND_READS, [&mut plain, &mut ours, &mut tree, &mut iotlb]);
        report.add(name, count, ours, "plain read", plain);
        report.row(name, count, ours, "BTreeMap", tree, Some(plain));
        report.row(name, count, ours, "vm-memory Iotlb", iotlb, Some(plain));
    }
}

/// Map and unmap a page: leaf entry, invalidation with drain,
/// wait descriptor, status.
fn map_unmap(report: &mut Report, count: u64) {
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
    report.add("map + unmap, queue", count, ours, "BTreeMap", tree);
    report.add("map + unmap, queue", count, ours, "vm-memory Iotlb", iotlb);
}

/// A whole resource, its pages scattered.
fn copies(report: &mut Report) {
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
    report.add("copy 8 MiB, pages", count, ours, "plain, same pages", plain);
    report.add("copy 8 MiB, pages", count, ours, "plain, contiguous", whole);
}

/// Refused accesses and allowed ones into a journal in memory.
fn journalled(report: &mut Report) {
    let operations = 1 << 14;
    let journalled = |mapped: bool| {
        let os = Os::started(RAM);
        let top = os.attach(DEVICE, DOMAIN, 4);
        if mapped {
            os.map(top, iova(0), target(0), READ_WRITE);
        }
        let point = os.scenario.journal().save();
        let mut access = |_| {
            let _ = os.scenario.journal().restore(&point);
            let dma = os.dma(DEVICE);
            let mut bytes = [0; 64];
            for _ in 0..operations {
                let _ = black_box(dma.read(iova(0), &mut bytes));
            }
        };
        let [time] = race(operations, [&mut access]);
        time
    };
    // The peer of a rate is its goal: 1 M a second.
    report.add(
        "fault into the journal",
        0,
        journalled(false),
        "goal",
        1000.0,
    );
    report.add("read 64 B, journalled", 1, journalled(true), "goal", 1000.0);
}

fn main() {
    let mut report = Report::default();
    eprintln!(
        "{:<28} {:>8}  {:>10}  {:<22} {:>10}  {:>6}",
        "what", "mappings", "ours ns", "peer", "peer ns", "ratio"
    );
    for count in [256, 4096, 65_536, 1 << 20] {
        reads(&mut report, count);
    }
    for count in [256, 4096, 65_536] {
        map_unmap(&mut report, count);
    }
    copies(&mut report);
    journalled(&mut report);
    println!("{:#}", Value::Array(report.rows));
}
