//! What caches answer after the tables have changed.

use crate::bench::*;

pub fn run(bench: &mut Bench<'_>) {
    leaves(bench);
    masks(bench);
    hints(bench);
    large(bench);
    changed_leaves(bench);
    contexts_cached(bench);
    function_masks(bench);
    roots(bench);
    shared(bench);
}

/// Fill, clear, try; then what each invalidation does.
fn leaves(bench: &mut Bench<'_>) {
    let rows: &[(&str, [u64; 2])] = &[
        ("global", global()),
        ("its domain", domain(DOMAIN)),
        ("another domain", domain(DOMAIN + 1)),
        ("its page", pages(DOMAIN, IOVA, 0)),
        ("its page in another domain", pages(DOMAIN + 1, IOVA, 0)),
        ("the next page", pages(DOMAIN, IOVA + 0x1000, 0)),
        ("the page before", pages(DOMAIN, IOVA - 0x1000, 0)),
        ("its device's context", contexts(3, DOMAIN, 0x20, 0)),
        ("all contexts", contexts(1, 0, 0, 0)),
    ];
    for (what, descriptor) in rows {
        let leaf = bench.one_page("cleared leaf");
        let _ = bench.try_write(0, IOVA, PAGE_A);
        bench.poke(leaf, 0);
        bench.write(&format!("{what}: before"), 0, IOVA, PAGE_A);
        bench.run(*descriptor);
        bench.write(&format!("{what}: after"), 0, IOVA, PAGE_A);
    }
}

/// Address masks: which pages a range drops, also where its address is not
/// aligned to it.
fn masks(bench: &mut Bench<'_>) {
    for (address, mask) in [
        (0x4000, 2),
        (0x6000, 2),
        (0x7000, 3),
        (0x3000, 1),
        (0, 9),
        (0, 18),
    ] {
        bench.one_page("ranges");
        let base = IOVA & !0xffff;
        let offsets = [0x2000, 0x4000, 0x5000, 0x7000, 0x8000];
        let mut leaves = Vec::new();
        for offset in offsets {
            leaves.push(bench.map(TOP, base + offset, (PAGE_A + offset) | RW));
            let _ = bench.try_write(0, base + offset, PAGE_A + offset);
        }
        for leaf in leaves {
            bench.poke(leaf, 0);
        }
        bench.run(pages(DOMAIN, base + address, mask));
        let mut landed = String::new();
        for offset in offsets {
            if bench.try_write(0, base + offset, PAGE_A + offset) == "landed" {
                landed.push_str(&format!(" {offset:#x}"));
            }
        }
        bench.clear_faults();
        bench.row(format!("mask {mask} at {address:#x}: still cached"), landed);
    }
}

fn hints(bench: &mut Bench<'_>) {
    let leaf = bench.one_page("invalidation hint");
    let _ = bench.try_write(0, IOVA, PAGE_A);
    bench.poke(leaf, 0);
    bench.run(pages(DOMAIN, IOVA, 1 << 6));
    bench.write("leaf cleared, page invalidated with IH", 0, IOVA, PAGE_A);
    let leaf = bench.one_page("no draining");
    let _ = bench.try_write(0, IOVA, PAGE_A);
    bench.poke(leaf, 0);
    bench.run([2 | 3 << 4 | DOMAIN << 16, IOVA]);
    bench.write("page invalidated without DR and DW", 0, IOVA, PAGE_A);
}

fn large(bench: &mut Bench<'_>) {
    let two = 0x4000_0000;
    for (what, descriptor) in [
        ("its first page", pages(DOMAIN, two, 0)),
        ("a page inside", pages(DOMAIN, two + 0x5000, 0)),
        ("a range of itself", pages(DOMAIN, two, 9)),
        ("a wider range", pages(DOMAIN, two, 12)),
        ("the page after it", pages(DOMAIN, two + 0x20_0000, 0)),
    ] {
        bench.reset("cleared 2 MiB page");
        bench.attach(0, TOP, DOMAIN, 4);
        let middle = bench.entry(TOP, 4, 2, two);
        bench.poke(middle, LARGE | RW | PS);
        bench.start();
        let _ = bench.try_write(0, two + 0x7000, LARGE + 0x7000);
        bench.poke(middle, 0);
        bench.write(&format!("{what}: before"), 0, two + 0x9000, LARGE + 0x9000);
        bench.run(descriptor);
        bench.write(&format!("{what}: after"), 0, two + 0x9000, LARGE + 0x9000);
    }
}

/// Changes that are not removals.
fn changed_leaves(bench: &mut Bench<'_>) {
    let leaf = bench.one_page("changed leaf");
    let _ = bench.try_write(0, IOVA, PAGE_A);
    bench.poke(leaf, PAGE_B | RW);
    bench.write("moved: to the old page", 0, IOVA, PAGE_A);
    bench.run(pages(DOMAIN, IOVA, 0));
    bench.write("moved, invalidated: to the new page", 0, IOVA, PAGE_B);
    bench.poke(leaf, PAGE_B | R);
    bench.write("restricted to reading: write", 0, IOVA, PAGE_B);
    bench.run(pages(DOMAIN, IOVA, 0));
    bench.write("the same, invalidated", 0, IOVA, PAGE_B);

    let leaf = bench.one_page("widened leaf");
    bench.poke(leaf, PAGE_A | R);
    bench.run(global());
    bench
        .target
        .dma(0, crate::target::Direction::Read, IOVA, 64, 8);
    bench.poke(leaf, PAGE_A | RW);
    bench.write("read-only was cached, now writable", 0, IOVA, PAGE_A);

    let leaf = bench.one_page("denied by the cache");
    bench.poke(leaf, PAGE_A | R);
    bench.run(global());
    bench
        .target
        .dma(0, crate::target::Direction::Read, IOVA, 64, 8);
    bench.write("read-only is cached: write", 0, IOVA, PAGE_A);

    let leaf = bench.one_page("mapped later");
    bench.poke(leaf, 0);
    bench.write("not mapped", 0, IOVA, PAGE_A);
    bench.poke(leaf, PAGE_A | RW);
    bench.write("mapped, without invalidation", 0, IOVA, PAGE_A);
    let context = Bench::context(1);
    bench.poke(context, 0);
    bench.write("another device, no context", 1, IOVA, PAGE_A);
    bench.attach(1, TOP, DOMAIN, 4);
    bench.write("with a context, without invalidation", 1, IOVA, PAGE_A);
}

/// A device is moved to tables where [`IOVA`] leads to [`PAGE_B`].
fn contexts_cached(bench: &mut Bench<'_>) {
    let rows: &[(&str, [u64; 2])] = &[
        ("nothing but the IOTLB", global()),
        ("all contexts", contexts(1, 0, 0, 0)),
        ("its old domain", contexts(2, DOMAIN, 0, 0)),
        ("its new domain", contexts(2, DOMAIN + 1, 0, 0)),
        ("the device, old domain", contexts(3, DOMAIN, 0x20, 0)),
        ("the device, new domain", contexts(3, DOMAIN + 1, 0x20, 0)),
        ("another device", contexts(3, DOMAIN, 0x28, 0)),
    ];
    for (what, descriptor) in rows {
        bench.one_page("changed context");
        bench.map(TOP_B, IOVA, PAGE_B | RW);
        let _ = bench.try_write(0, IOVA, PAGE_A);
        bench.attach(0, TOP_B, DOMAIN + 1, 4);
        bench.run(*descriptor);
        bench.run(global());
        bench.write(&format!("{what}: to the old page"), 0, IOVA, PAGE_A);
        bench.write(&format!("{what}: to the new page"), 0, IOVA, PAGE_B);
    }
    bench.one_page("removed context");
    let _ = bench.try_write(0, IOVA, PAGE_A);
    bench.poke(Bench::context(0), 0);
    bench.write("nothing invalidated", 0, IOVA, PAGE_A);
    bench.run(global());
    bench.write("the IOTLB invalidated", 0, IOVA, PAGE_A);
    bench.run(contexts(3, DOMAIN, 0x20, 0));
    bench.write("its context invalidated", 0, IOVA, PAGE_A);
}

/// The device at 00:04.0, named through its functions.
fn function_masks(bench: &mut Bench<'_>) {
    for (mask, source) in [
        (0, 0x24),
        (1, 0x24),
        (1, 0x22),
        (2, 0x26),
        (2, 0x21),
        (3, 0x27),
        (3, 0x2f),
    ] {
        bench.one_page("function masks");
        let _ = bench.try_write(0, IOVA, PAGE_A);
        bench.poke(Bench::context(0), 0);
        bench.run(contexts(3, DOMAIN, source, mask));
        bench.run(global());
        bench.write(&format!("mask {mask}, source {source:#x}"), 0, IOVA, PAGE_A);
    }
}

/// A root table without entries takes the place of the old one.
fn roots(bench: &mut Bench<'_>) {
    let other = ROOT + 0x7000;
    bench.one_page("changed root");
    let _ = bench.try_write(0, IOVA, PAGE_A);
    bench.set(reg::RTADDR, 8, other);
    bench.write("RTADDR written", 0, IOVA, PAGE_A);
    bench.set(reg::GCMD, 4, QIE | TE | SRTP);
    bench.write("SRTP", 0, IOVA, PAGE_A);
    bench.run(contexts(1, 0, 0, 0));
    bench.run(global());
    bench.write("everything invalidated", 0, IOVA, PAGE_A);

    let leaf = bench.one_page("translation off and on");
    let _ = bench.try_write(0, IOVA, PAGE_A);
    bench.poke(leaf, 0);
    bench.set(reg::GCMD, 4, QIE);
    bench.set(reg::GCMD, 4, QIE | TE);
    bench.write("leaf cleared", 0, IOVA, PAGE_A);
}

/// Two devices in one domain.
fn shared(bench: &mut Bench<'_>) {
    let leaf = bench.one_page("one domain, two devices");
    bench.attach(1, TOP, DOMAIN, 4);
    let _ = bench.try_write(0, IOVA, PAGE_A);
    bench.poke(leaf, 0);
    bench.write(
        "the other device, after the leaf was cleared",
        1,
        IOVA,
        PAGE_A,
    );
    bench.run(pages(DOMAIN, IOVA, 0));
    bench.write("page invalidated: the one", 0, IOVA, PAGE_A);
    bench.write("page invalidated: the other", 1, IOVA, PAGE_A);
}
