//! Capabilities, commands, and which bits of a register software can write.

use crate::bench::*;

pub fn run(bench: &mut Bench<'_>) {
    capabilities(bench);
    writable(bench);
    commands(bench);
    by_register(bench);
}

fn capabilities(bench: &mut Bench<'_>) {
    bench.reset("capabilities");
    bench.show("VER", reg::VER, 4);
    let cap = bench.get(reg::CAP, 8);
    for (name, from, bits) in [
        ("CAP.ND", 0, 3),
        ("CAP.AFL", 3, 1),
        ("CAP.RWBF", 4, 1),
        ("CAP.PLMR, PHMR", 5, 2),
        ("CAP.CM", 7, 1),
        ("CAP.SAGAW", 8, 5),
        ("CAP.MGAW", 16, 6),
        ("CAP.ZLR", 22, 1),
        ("CAP.FRO", 24, 10),
        ("CAP.SLLPS", 34, 4),
        ("CAP.PSI", 39, 1),
        ("CAP.NFR", 40, 8),
        ("CAP.MAMV", 48, 6),
        ("CAP.DWD, DRD", 54, 2),
        ("CAP.ESRTPS", 63, 1),
    ] {
        bench.row(name, format!("{:#x}", (cap >> from) & ((1 << bits) - 1)));
    }
    let ecap = bench.get(reg::ECAP, 8);
    for (name, from, bits) in [
        ("ECAP.C", 0, 1),
        ("ECAP.QI", 1, 1),
        ("ECAP.DT", 2, 1),
        ("ECAP.IR, EIM", 3, 2),
        ("ECAP.PT", 6, 1),
        ("ECAP.SC", 7, 1),
        ("ECAP.IRO", 8, 10),
        ("ECAP.MHMV", 20, 4),
        ("ECAP above bit 24", 24, 40),
    ] {
        bench.row(name, format!("{:#x}", (ecap >> from) & ((1 << bits) - 1)));
    }
}

fn writable(bench: &mut Bench<'_>) {
    bench.reset("registers");
    let iva = bench.iva;
    for (name, offset, size) in [
        ("RTADDR", reg::RTADDR, 8),
        ("FECTL", reg::FECTL, 4),
        ("FEDATA", reg::FEDATA, 4),
        ("FEADDR", reg::FEADDR, 4),
        ("FEUADDR", reg::FEUADDR, 4),
        ("IQH", reg::IQH, 8),
        ("IQT", reg::IQT, 8),
        ("IQA", reg::IQA, 8),
        ("IECTL", reg::IECTL, 4),
        ("IEDATA", reg::IEDATA, 4),
        ("IEADDR", reg::IEADDR, 4),
        ("IEUADDR", reg::IEUADDR, 4),
        ("IVA", iva, 8),
        ("VER", reg::VER, 4),
        ("GSTS", reg::GSTS, 4),
        ("FSTS", reg::FSTS, 4),
        ("ICS", reg::ICS, 4),
        ("IQERCD", reg::IQERCD, 8),
    ] {
        let ones = if size == 8 { u64::MAX } else { 0xffff_ffff };
        bench.set(offset, size, ones);
        bench.show(&format!("{name} after ones"), offset, size);
        bench.set(offset, size, 0);
        bench.show(&format!("{name} after zeros"), offset, size);
    }
    bench.set(reg::IQA, 8, 0x7fff_ffff_f007);
    bench.show("IQA after an address of 47 bits and QS 7", reg::IQA, 8);
    bench.set(reg::IQA, 8, 0);
    bench.set(reg::RTADDR, 4, 0x1234_5000);
    bench.set(reg::RTADDR + 4, 4, 0x9);
    bench.show("RTADDR written in halves", reg::RTADDR, 8);
    bench.show("RTADDR, high half", reg::RTADDR + 4, 4);
    bench.set(reg::FEADDR, 8, 0x1_fee0_2000);
    bench.show("FEUADDR after 8 bytes to FEADDR", reg::FEUADDR, 4);
}

fn commands(bench: &mut Bench<'_>) {
    bench.reset("commands");
    // RTPS, once set, has no way back to zero but a reset.
    bench.set(reg::RTADDR, 8, ROOT);
    bench.set(reg::GCMD, 4, SRTP);
    bench.show("GSTS after SRTP", reg::GSTS, 4);
    bench.set(reg::IQA, 8, QUEUE);
    bench.set(reg::GCMD, 4, QIE);
    bench.show("GSTS after QIE", reg::GSTS, 4);
    bench.set(reg::GCMD, 4, QIE | TE);
    bench.show("GSTS after QIE and TE", reg::GSTS, 4);
    bench.set(reg::GCMD, 4, TE | QIE | SRTP);
    bench.show("GSTS after SRTP while both are on", reg::GSTS, 4);
    bench.show("GCMD reads", reg::GCMD, 4);
    bench.set(reg::GCMD, 4, QIE);
    bench.show("GSTS after TE was cleared", reg::GSTS, 4);
    bench.submit(&[global(), wait(1)]);
    bench.show("IQH after two descriptors", reg::IQH, 8);
    bench.set(reg::GCMD, 4, 0);
    bench.show("GSTS after QIE was cleared", reg::GSTS, 4);
    bench.show("IQH after QIE was cleared", reg::IQH, 8);
    bench.show("IQT after QIE was cleared", reg::IQT, 8);
}

/// Register-based invalidation.
fn by_register(bench: &mut Bench<'_>) {
    bench.reset("invalidation by register");
    let (iva, iotlb) = (bench.iva, bench.iva + 8);
    for granularity in 0..4u64 {
        bench.set(reg::CCMD, 8, 1 << 63 | granularity << 61 | 7);
        bench.show(&format!("CCMD after {granularity}"), reg::CCMD, 8);
    }
    bench.set(iva, 8, IOVA);
    for granularity in 0..4u64 {
        bench.set(iotlb, 8, 1 << 63 | granularity << 60 | 7 << 32);
        bench.show(&format!("IOTLB after {granularity}"), iotlb, 8);
    }
    bench.set(iva, 8, IOVA | 19);
    bench.set(iotlb, 8, 1 << 63 | 3 << 60 | 7 << 32);
    bench.show("IOTLB after 3 with a mask beyond MAMV", iotlb, 8);
    bench.set(reg::CCMD, 4, 7);
    bench.set(reg::CCMD + 4, 4, 1 << 31 | 1 << 29);
    bench.show("CCMD written in halves", reg::CCMD, 8);
    bench.set(iotlb, 4, 0);
    bench.set(iotlb + 4, 4, 1 << 31 | 1 << 28);
    bench.show("IOTLB written in halves", iotlb, 8);

    let leaf = bench.one_page("invalidation by register, at work");
    bench.set(reg::GCMD, 4, TE);
    bench.write("fill", 0, IOVA, PAGE_A);
    bench.poke(leaf, 0);
    bench.write("leaf cleared", 0, IOVA, PAGE_A);
    bench.set(iva, 8, IOVA + 0x1000);
    bench.set(iotlb, 8, 1 << 63 | 3 << 60 | DOMAIN << 32);
    bench.write("the next page invalidated", 0, IOVA, PAGE_A);
    bench.set(iotlb, 8, 1 << 63 | 2 << 60 | (DOMAIN + 1) << 32);
    bench.write("another domain invalidated", 0, IOVA, PAGE_A);
    bench.set(iva, 8, IOVA);
    bench.set(iotlb, 8, 1 << 63 | 3 << 60 | DOMAIN << 32);
    bench.write("the page invalidated", 0, IOVA, PAGE_A);

    let leaf = bench.one_page("invalidation by register, queue on");
    bench.write("fill", 0, IOVA, PAGE_A);
    bench.poke(leaf, 0);
    bench.set(iotlb, 8, 1 << 63 | 1 << 60);
    bench.show("IOTLB after 1", iotlb, 8);
    bench.write("leaf cleared", 0, IOVA, PAGE_A);
}
