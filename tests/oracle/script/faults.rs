//! Fault records, overflow, and the fault event while it is masked.

use crate::bench::*;

const UNMAPPED: u64 = 0x7_0000_0000;

fn show(bench: &mut Bench<'_>, step: &str) {
    let faults = bench.faults();
    bench.row(step, faults);
}

/// FSTS without FRI, which depends on the number of records.
fn status(bench: &mut Bench<'_>, step: &str) {
    let status = bench.get(reg::FSTS, 4) & 0xff;
    bench.row(step, format!("FSTS {status:#x}"));
}

pub fn run(bench: &mut Bench<'_>) {
    records(bench);
    overflow(bench);
    event(bench);
    crossing(bench);
}

fn records(bench: &mut Bench<'_>) {
    bench.one_page("records");
    let _ = bench.try_write(0, UNMAPPED + 0x123 * 8, PAGE_A);
    show(bench, "one fault");
    let _ = bench.try_write(0, UNMAPPED + 0x5000, PAGE_A);
    show(bench, "another of the same device");
    bench.clear_faults();
    show(bench, "cleared");
    let _ = bench.try_write(1, UNMAPPED, PAGE_A);
    show(bench, "one of the other device");
    bench.set(reg::FSTS, 4, PPF);
    status(bench, "1 written to PPF");
    bench.clear_faults();
    status(bench, "the record cleared");
}

fn overflow(bench: &mut Bench<'_>) {
    bench.one_page("overflow");
    let _ = bench.try_write(0, UNMAPPED, PAGE_A);
    status(bench, "one fault");
    for i in 0..9 {
        let _ = bench.try_write(1 - (i & 1), UNMAPPED + 0x1000, PAGE_A);
    }
    status(bench, "nine more, the devices in turn");
    bench.set(reg::FSTS, 4, PFO);
    status(bench, "PFO cleared, records full");
    let _ = bench.try_write(1, UNMAPPED, PAGE_A);
    status(bench, "one more");
    for at in 0..8 {
        bench.set(0x220 + 16 * at + 12, 4, 1 << 31);
    }
    status(bench, "the records cleared, not PFO");
    let _ = bench.try_write(0, UNMAPPED + 0x3000, PAGE_A);
    show(bench, "a fault while PFO is set");
    bench.set(reg::FSTS, 4, PFO);
    let _ = bench.try_write(0, UNMAPPED + 0x4000, PAGE_A);
    show(bench, "a fault after PFO was cleared");
}

fn event(bench: &mut Bench<'_>) {
    bench.one_page("fault event");
    bench.show("FECTL before", reg::FECTL, 4);
    let _ = bench.try_write(0, UNMAPPED, PAGE_A);
    bench.show("FECTL after a fault", reg::FECTL, 4);
    bench.clear_faults();
    bench.show("FECTL after it was cleared", reg::FECTL, 4);
    bench.submit(&[[0, 0]]);
    bench.show("FECTL after a queue error", reg::FECTL, 4);
    let _ = bench.try_write(0, UNMAPPED, PAGE_A);
    show(bench, "a fault beside a queue error");
    bench.set(reg::FSTS, 4, IQE);
    bench.set(reg::FSTS, 4, PFO | IQE);
    status(bench, "IQE cleared, the descriptor still broken");
    bench.set(reg::GCMD, 4, TE);
    bench.set(reg::FSTS, 4, PFO | IQE);
    status(bench, "IQE cleared with the queue off");
    bench.show("FECTL then", reg::FECTL, 4);
    bench.clear_faults();
    bench.show("FECTL after all was cleared", reg::FECTL, 4);
}

/// An access over two pages, of which the second is not mapped.
fn crossing(bench: &mut Bench<'_>) {
    bench.one_page("over two pages");
    bench.poke(PAGE_A + 0xff8, 0);
    bench
        .target
        .dma(0, crate::target::Direction::Write, IOVA + 0xff8, 0, 16);
    let first = bench.look(PAGE_A + 0xff8) != 0;
    let faults = bench.faults();
    bench.row(
        "write of 16 bytes",
        format!(
            "first half {}{faults}",
            if first { "landed" } else { "refused" }
        ),
    );
    bench.clear_faults();
}
