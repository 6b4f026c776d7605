//! The walk: what each kind of entry lets through, and what is recorded.

use crate::bench::*;
use crate::target::RAM;

type Change = fn(&mut Bench<'_>, u64);

fn change_leaf(bench: &mut Bench<'_>, leaf: u64, set: u64) {
    let value = bench.look(leaf);
    bench.poke(leaf, value | set);
}

fn above(bench: &mut Bench<'_>, level: u32) -> u64 {
    bench.entry(TOP, 4, level, IOVA)
}

fn change_above(bench: &mut Bench<'_>, level: u32, clear: u64, set: u64) {
    let at = above(bench, level);
    let value = bench.look(at);
    bench.poke(at, value & !clear | set);
}

fn change_context(bench: &mut Bench<'_>, low: u64, high: u64) {
    let at = Bench::context(0);
    let (old, old_high) = (bench.look(at), bench.look(at + 8));
    bench.poke(at, old | low);
    bench.poke(at + 8, old_high | high);
}

/// What is changed before translation starts, of a device with one page.
const CHANGES: &[(&str, Change)] = &[
    ("nothing changed", |_, _| ()),
    ("leaf clear", |b, leaf| b.poke(leaf, 0)),
    ("leaf read-only", |b, leaf| b.poke(leaf, PAGE_A | R)),
    ("leaf write-only", |b, leaf| b.poke(leaf, PAGE_A | W)),
    ("level 2 clear", |b, _| change_above(b, 2, u64::MAX, 0)),
    ("level 2 read-only", |b, _| change_above(b, 2, W, 0)),
    ("level 3 write-only", |b, _| change_above(b, 3, R, 0)),
    ("level 4 read-only", |b, _| change_above(b, 4, W, 0)),
    ("leaf bit 11", |b, leaf| change_leaf(b, leaf, 1 << 11)),
    ("leaf bit 50", |b, leaf| change_leaf(b, leaf, 1 << 50)),
    ("leaf bit 62", |b, leaf| change_leaf(b, leaf, 1 << 62)),
    ("leaf bits 63, 61:52, 10:2", |b, leaf| {
        change_leaf(b, leaf, 1 << 63 | 0x3ff << 52 | 0x7fc);
    }),
    ("leaf clear but for reserved bits", |b, leaf| {
        b.poke(leaf, PAGE_A | 1 << 11);
    }),
    ("leaf read-only, bit 11", |b, leaf| {
        b.poke(leaf, PAGE_A | R | 1 << 11);
    }),
    ("level 2 bit 11", |b, _| change_above(b, 2, 0, 1 << 11)),
    ("level 2 bit 62", |b, _| change_above(b, 2, 0, 1 << 62)),
    ("level 2 bit 50", |b, _| change_above(b, 2, 0, 1 << 50)),
    ("level 4 bit 7", |b, _| change_above(b, 4, 0, PS)),
    ("level 3 bit 11", |b, _| change_above(b, 3, 0, 1 << 11)),
    ("level 2 table outside RAM", |b, _| {
        change_above(b, 2, u64::MAX, RAM | RW);
    }),
    ("top table outside RAM", |b, _| {
        b.poke(Bench::context(0), RAM | 1);
    }),
    ("root entry clear", |b, _| b.poke(ROOT, 0)),
    ("root bit 5", |b, _| b.poke(ROOT, CONTEXTS | 1 | 1 << 5)),
    ("root bit 60", |b, _| b.poke(ROOT, CONTEXTS | 1 | 1 << 60)),
    ("root high half", |b, _| b.poke(ROOT + 8, 1)),
    ("root entry clear but for reserved bits", |b, _| {
        b.poke(ROOT, 1 << 5);
    }),
    ("context table outside RAM", |b, _| b.poke(ROOT, RAM | 1)),
    ("context clear", |b, _| b.poke(Bench::context(0), 0)),
    ("context clear, FPD", |b, _| b.poke(Bench::context(0), 2)),
    ("context FPD, leaf clear", |b, leaf| {
        change_context(b, 2, 0);
        b.poke(leaf, 0);
    }),
    ("context FPD, bit 4", |b, _| {
        change_context(b, 2 | 1 << 4, 0)
    }),
    ("context bit 4", |b, _| change_context(b, 1 << 4, 0)),
    ("context bit 11", |b, _| change_context(b, 1 << 11, 0)),
    ("context bit 55", |b, _| change_context(b, 1 << 55, 0)),
    ("context bit 71", |b, _| change_context(b, 0, 1 << 7)),
    ("context bit 88", |b, _| change_context(b, 0, 1 << 24)),
    ("context bits 70:67", |b, _| change_context(b, 0, 0xf << 3)),
    ("context TT 01", |b, _| change_context(b, 1 << 2, 0)),
    ("context TT 11", |b, _| change_context(b, 3 << 2, 0)),
    ("context AW 0", |b, _| {
        b.poke(Bench::context(0) + 8, DOMAIN << 8)
    }),
    ("context AW 3", |b, _| change_context(b, 0, 3)),
    ("context AW 7", |b, _| change_context(b, 0, 7)),
    ("context FPD, TT 11", |b, _| {
        change_context(b, 2 | 3 << 2, 0)
    }),
    ("leads where there is no RAM", |b, leaf| {
        b.poke(leaf, RAM | RW)
    }),
    ("leads into the interrupt range", |b, leaf| {
        b.poke(leaf, 0xfee0_0000 | RW);
    }),
];

pub fn run(bench: &mut Bench<'_>) {
    for (what, change) in CHANGES {
        for write in [true, false] {
            bench.reset("walk");
            bench.attach(0, TOP, DOMAIN, 4);
            let leaf = bench.map(TOP, IOVA, PAGE_A | RW);
            change(bench, leaf);
            bench.start();
            if write {
                bench.write(&format!("{what}: write"), 0, IOVA, PAGE_A);
            } else {
                bench.read(&format!("{what}: read"), 0, IOVA, PAGE_A);
            }
        }
    }
    addresses(bench);
    large(bench);
    widths(bench);
    pass_through(bench);
    off(bench);
}

fn addresses(bench: &mut Bench<'_>) {
    bench.one_page("addresses");
    bench.write("inside the page", 0, IOVA + 0x120, PAGE_A + 0x120);
    bench.write("the last 8 bytes", 0, IOVA + 0xff8, PAGE_A + 0xff8);
    bench.write("over the end, first half", 0, IOVA + 0xffc, PAGE_A);
    bench.write("the next page", 0, IOVA + 0x1080, PAGE_A);
    bench.write("beyond 48 bits", 0, 1 << 48 | IOVA, PAGE_A);
    bench.read("beyond 48 bits, read", 0, 1 << 48 | IOVA, PAGE_A);
    bench.write("the top bit", 0, 1 << 63 | IOVA, PAGE_A);
    bench.write("the last page of 48 bits", 0, (1 << 48) - 0x1000, PAGE_A);
    bench.write("page zero", 0, 0, PAGE_A);
    bench.write("a device that has no context", 1, IOVA, PAGE_A);
    bench.read("the same, read", 1, IOVA, PAGE_A);
    bench.map(TOP, 0xfee0_0000, PAGE_A | RW);
    bench.read("the interrupt range, read", 0, 0xfee0_0040, PAGE_A);
    bench.map(TOP, 0xfedf_f000, PAGE_A | RW);
    bench.write("below the interrupt range", 0, 0xfedf_f000, PAGE_A);
    bench.map(TOP, 0xfef0_0000, PAGE_A | RW);
    bench.write("above the interrupt range", 0, 0xfef0_0000, PAGE_A);

    bench.reset("root table outside RAM");
    bench.start();
    bench.set(reg::RTADDR, 8, RAM);
    bench.set(reg::GCMD, 4, QIE | TE | SRTP);
    bench.write("write", 0, IOVA, PAGE_A);
}

fn large(bench: &mut Bench<'_>) {
    let (two, one) = (0x4000_0000, 0x8000_0000);
    bench.reset("large pages");
    bench.attach(0, TOP, DOMAIN, 4);
    let middle = bench.entry(TOP, 4, 2, two);
    bench.poke(middle, LARGE | RW | PS);
    let high = bench.entry(TOP, 4, 3, one);
    bench.poke(high, RW | PS);
    bench.start();
    bench.write("2 MiB: start", 0, two, LARGE);
    bench.write("2 MiB: inside", 0, two + 0x3_4560, LARGE + 0x3_4560);
    bench.write("2 MiB: end", 0, two + 0x1f_fff8, LARGE + 0x1f_fff8);
    bench.read("2 MiB: read", 0, two + 0x5000, LARGE + 0x5000);
    bench.write("after it", 0, two + 0x20_0000, LARGE);
    bench.write("1 GiB: inside", 0, one + PAGE_B, PAGE_B);
    bench.write("1 GiB: where there is no RAM", 0, one + RAM, PAGE_B);
    bench.poke(middle, LARGE | R | PS);
    bench.run(global());
    bench.write("2 MiB, read-only: write", 0, two, LARGE);
    bench.poke(middle, (LARGE + 0x1000) | RW | PS);
    bench.run(global());
    bench.write("2 MiB, unaligned", 0, two, LARGE + 0x1000);
    bench.poke(middle, LARGE | RW | PS | 1 << 11);
    bench.run(global());
    bench.write("2 MiB, bit 11", 0, two, LARGE);
    bench.poke(high, 0x20_0000 | RW | PS);
    bench.run(global());
    bench.write("1 GiB, unaligned", 0, one, 0x20_0000);
}

fn widths(bench: &mut Bench<'_>) {
    bench.reset("three levels");
    bench.attach(0, TOP, DOMAIN, 3);
    let last = (1 << 39) - 0x1000;
    let leaf = bench.entry(TOP, 3, 1, last);
    bench.poke(leaf, PAGE_A | RW);
    let first = bench.entry(TOP, 3, 1, 0);
    bench.poke(first, PAGE_B | RW);
    let giant = bench.entry(TOP, 3, 3, 0x8000_0000);
    bench.poke(giant, RW | PS);
    bench.start();
    bench.write("last page", 0, last, PAGE_A);
    bench.write("first page", 0, 0, PAGE_B);
    bench.write("beyond 39 bits", 0, 1 << 39, PAGE_B);
    bench.read("beyond 39 bits, read", 0, 1 << 40, PAGE_B);
    bench.write(
        "1 GiB page at the top level",
        0,
        0x8000_0000 + PAGE_A,
        PAGE_A,
    );
}

fn pass_through(bench: &mut Bench<'_>) {
    bench.reset("pass-through");
    bench.attach(0, 0, DOMAIN, 4);
    bench.poke(Bench::context(0), 1 | 2 << 2);
    bench.start();
    bench.write("write", 0, PAGE_A, PAGE_A);
    bench.read("read", 0, PAGE_A, PAGE_A);
    bench.write("where there is no RAM", 0, RAM, PAGE_A);
    bench.write("beyond 48 bits", 0, 1 << 48 | PAGE_A, PAGE_A);
    bench.write("another device", 1, PAGE_A, PAGE_A);
    bench.reset("pass-through, broken");
    bench.attach(0, 0, DOMAIN, 4);
    bench.poke(Bench::context(0), 1 | 2 << 2 | 1 << 4);
    bench.start();
    bench.write("context bit 4", 0, PAGE_A, PAGE_A);
    bench.reset("pass-through, table beyond the host width");
    bench.attach(0, 0, DOMAIN, 4);
    bench.poke(Bench::context(0), !0xfff | 1 | 2 << 2);
    bench.start();
    bench.write("write", 0, PAGE_A, PAGE_A);
    bench.reset("pass-through, three levels");
    bench.attach(0, 0, DOMAIN, 3);
    bench.poke(Bench::context(0), 1 | 2 << 2);
    bench.start();
    bench.write("write", 0, PAGE_A, PAGE_A);
    bench.write("beyond 39 bits", 0, 1 << 39 | PAGE_A, PAGE_A);
}

fn off(bench: &mut Bench<'_>) {
    bench.one_page("translation off");
    bench.set(reg::GCMD, 4, QIE);
    bench.write("write", 0, PAGE_B, PAGE_B);
    bench.read("read", 0, PAGE_B, PAGE_B);
    bench.write("where there is no RAM", 0, RAM, PAGE_B);
    bench.set(reg::GCMD, 4, QIE | TE);
    bench.write("on again: write", 0, PAGE_B, PAGE_B);
    bench.write("on again: mapped", 0, IOVA, PAGE_A);
}
