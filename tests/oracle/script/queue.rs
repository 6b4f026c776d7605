//! Queued invalidation: what stops it, and how it goes on.

use crate::bench::*;
use crate::target::RAM;

/// A descriptor between two waits.
const DESCRIPTORS: &[(&str, [u64; 2])] = &[
    ("wait", [5 | 1 << 5 | 3 << 32, STATUS + 8]),
    ("wait, SW clear", [5 | 3 << 32, 0]),
    ("wait, FN", [5 | 1 << 6 | 1 << 5, STATUS + 8]),
    ("wait, IF", [5 | 1 << 4, 0]),
    ("wait, PD", [5 | 1 << 7, 0]),
    ("wait, bit 8", [5 | 1 << 8, 0]),
    ("wait, bit 12", [5 | 1 << 12, 0]),
    ("wait, bit 31", [5 | 1 << 31, 0]),
    ("wait, unaligned status", [5 | 1 << 5, STATUS + 10]),
    ("wait, status outside RAM", [5 | 1 << 5, RAM]),
    ("IOTLB global", global()),
    ("IOTLB domain", domain(DOMAIN)),
    ("IOTLB page", pages(DOMAIN, IOVA, 0)),
    ("IOTLB page, IH", pages(DOMAIN, IOVA, 1 << 6)),
    ("IOTLB page, mask 18", pages(DOMAIN, IOVA, 18)),
    ("IOTLB page, mask 19", pages(DOMAIN, IOVA, 19)),
    ("IOTLB page, mask 63", pages(DOMAIN, IOVA, 63)),
    ("IOTLB page, beyond 48 bits", pages(DOMAIN, 1 << 60, 0)),
    ("IOTLB, no granularity", [2, 0]),
    ("IOTLB, bit 8", [2 | 1 << 4 | 1 << 8, 0]),
    ("IOTLB, bit 12", [2 | 1 << 4 | 1 << 12, 0]),
    ("IOTLB, bit 32", [2 | 1 << 4 | 1 << 32, 0]),
    ("IOTLB page, bit 71", [2 | 3 << 4, 1 << 7]),
    ("IOTLB page, bit 75", [2 | 3 << 4, 1 << 11]),
    ("IOTLB global, bit 71", [2 | 1 << 4, 1 << 7]),
    ("IOTLB global, mask 19", [2 | 1 << 4, 19]),
    ("context global", contexts(1, 0, 0, 0)),
    ("context domain", contexts(2, DOMAIN, 0, 0)),
    ("context device", contexts(3, DOMAIN, 0x20, 3)),
    ("context, no granularity", [1, 0]),
    ("context, bit 6", [1 | 1 << 4 | 1 << 6, 0]),
    ("context, bit 50", [1 | 1 << 4 | 1 << 50, 0]),
    ("context, high half", [1 | 1 << 4, 1]),
    ("interrupt entries, global", [4, 0]),
    ("interrupt entries, by index", [4 | 1 << 4, 0]),
    ("device TLB", [3 | 0x20 << 32, IOVA]),
    ("type 0", [0, 0]),
    ("type 6", [6, 0]),
    ("type 7", [7, 0]),
    ("type 8", [8, 0]),
    ("type 15", [15, 0]),
    ("type 5 with bit 9", [5 | 1 << 9, 0]),
];

pub fn run(bench: &mut Bench<'_>) {
    for (what, descriptor) in DESCRIPTORS {
        bench.one_page("descriptors");
        bench.submit(&[wait(1), *descriptor, wait(2)]);
        let status = bench.look(STATUS);
        let second = bench.look(STATUS + 8);
        let head = bench.get(reg::IQH, 8);
        let complete = bench.get(reg::ICS, 4);
        let faults = bench.faults();
        bench.row(
            *what,
            format!("status {status} {second}, IQH {head:#x}, ICS {complete}{faults}"),
        );
    }
    reasons(bench);
    going_on(bench);
    sizes(bench);
    wide(bench);
    event(bench);
}

/// IQERCD, where it is there.
fn reasons(bench: &mut Bench<'_>) {
    for (what, descriptor) in [
        ("type 0", [0, 0]),
        ("reserved bits", [2 | 1 << 4 | 1 << 8, 0]),
    ] {
        bench.one_page("IQERCD");
        bench.submit(&[descriptor]);
        bench.show(what, reg::IQERCD, 8);
    }
}

fn going_on(bench: &mut Bench<'_>) {
    bench.one_page("a stopped queue");
    bench.submit(&[[0, 0], wait(5)]);
    bench.submit(&[wait(6)]);
    let seen = bench.look(STATUS);
    bench.row("more is submitted: status", format!("{seen}"));
    bench.set(reg::FSTS, 4, IQE);
    let faults = bench.faults();
    let seen = bench.look(STATUS);
    bench.row(
        "IQE cleared, nothing mended",
        format!("status {seen}{faults}"),
    );
    bench.poke(QUEUE, 2 | 1 << 4);
    bench.set(reg::FSTS, 4, IQE);
    let seen = bench.look(STATUS);
    bench.row("mended, IQE cleared", format!("status {seen}"));
    bench.set(reg::IQT, 8, 48);
    let faults = bench.faults();
    let seen = bench.look(STATUS);
    let head = bench.get(reg::IQH, 8);
    bench.row(
        "the tail written again",
        format!("status {seen}, IQH {head:#x}{faults}"),
    );

    bench.reset("the tail before the queue");
    bench.set(reg::IQA, 8, QUEUE);
    bench.submit(&[global(), wait(9)]);
    let seen = bench.look(STATUS);
    bench.row("queue off: status", format!("{seen}"));
    bench.set(reg::GCMD, 4, QIE);
    let seen = bench.look(STATUS);
    let head = bench.get(reg::IQH, 8);
    bench.row("queue on", format!("status {seen}, IQH {head:#x}"));
}

fn sizes(bench: &mut Bench<'_>) {
    bench.one_page("sizes");
    bench.set(reg::IQT, 8, 0x1000);
    let faults = bench.faults();
    bench.row("a tail at the end of one page", faults);
    bench.one_page("sizes");
    let mut last = 0;
    for i in 1..=300 {
        bench.submit(&[wait(i)]);
        last = bench.look(STATUS);
    }
    bench.row(
        "300 descriptors in a queue of 256",
        format!("status {last}"),
    );

    bench.reset("sizes");
    // Two pages; a wait as the first descriptor of the second.
    let [low, high] = wait(4);
    bench.set(reg::IQA, 8, QUEUE | 1);
    for i in 0..256 {
        bench.poke(QUEUE + 16 * i, 4);
        bench.poke(QUEUE + 16 * i + 8, 0);
    }
    bench.poke(QUEUE + 0x1000, low);
    bench.poke(QUEUE + 0x1008, high);
    bench.set(reg::GCMD, 4, QIE);
    bench.set(reg::IQT, 8, 0x1010);
    let seen = bench.look(STATUS);
    let head = bench.get(reg::IQH, 8);
    let faults = bench.faults();
    bench.row(
        "a queue of two pages",
        format!("status {seen}, IQH {head:#x}{faults}"),
    );
}

/// Descriptors of 256 bits are for scalable mode.
fn wide(bench: &mut Bench<'_>) {
    bench.reset("wide descriptors");
    bench.set(reg::IQA, 8, QUEUE | 1 << 11);
    bench.set(reg::GCMD, 4, QIE);
    bench.submit(&[wait(3)]);
    let seen = bench.look(STATUS);
    let faults = bench.faults();
    bench.row("one wait", format!("status {seen}{faults}"));
    bench.set(reg::IQA, 8, QUEUE);
}

/// The event of a completed wait, held back by its mask.
fn event(bench: &mut Bench<'_>) {
    bench.one_page("wait event");
    bench.show("IECTL before", reg::IECTL, 4);
    bench.submit(&[[5 | 1 << 4, 0]]);
    bench.show("ICS after a wait with IF", reg::ICS, 4);
    bench.show("IECTL after it", reg::IECTL, 4);
    bench.set(reg::ICS, 4, 0);
    bench.show("ICS after 0 was written", reg::ICS, 4);
    bench.set(reg::ICS, 4, 1);
    bench.show("ICS after 1 was written", reg::ICS, 4);
    bench.show("IECTL after it", reg::IECTL, 4);
}

/// The last step: QEMU leaves this state only with its process.
pub fn outside(bench: &mut Bench<'_>) {
    bench.reset("a queue outside RAM");
    bench.set(reg::IQA, 8, RAM);
    bench.set(reg::GCMD, 4, QIE);
    bench.set(reg::IQT, 8, 16);
    let faults = bench.faults();
    let head = bench.get(reg::IQH, 8);
    bench.row("one descriptor", format!("IQH {head:#x}{faults}"));
}
