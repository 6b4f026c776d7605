//! The register file.

use super::*;
use crate::spec::registers as reg;
use scenario::Scenario;

#[test]
fn capabilities_say_what_the_unit_does() {
    let os = Os::started(RAM);
    let (cap, ecap) = (os.get(reg::CAP, 8), os.get(reg::ECAP, 8));
    let field = |from: u32, bits: u32| (cap >> from) & ((1 << bits) - 1);
    assert_eq!(field(0, 3), 6, "ND: 64 K domains");
    assert_eq!(field(8, 5), 0b00110, "SAGAW: 39 and 48 bits");
    assert_eq!(field(16, 6), 47, "MGAW: 48 bits");
    assert_eq!(field(22, 1), 1, "ZLR");
    assert_eq!(field(24, 10) * 16, u64::from(reg::FRCD));
    assert_eq!(field(34, 4), 0b0011, "SLLPS: 2 MiB and 1 GiB");
    assert_eq!(field(39, 1), 1, "PSI");
    assert_eq!(field(40, 8) + 1, 8, "NFR");
    assert_eq!(field(48, 6), 18, "MAMV");
    assert_eq!(field(54, 2), 0b11, "DWD, DRD");
    assert_eq!(ecap & 0xff, 0b0100_0011, "C, QI, PT");
    assert_eq!((ecap >> 8 & 0x3ff) * 16, u64::from(reg::IVA));
    assert_eq!(os.get(reg::VER, 4), 0x10);
}

#[test]
fn no_two_rows_of_the_layout_overlap() {
    let mut rows: Vec<_> = reg::LAYOUT
        .iter()
        .map(|r| (r.offset, r.offset + u16::from(r.size)))
        .collect();
    rows.sort_unstable();
    for pair in rows.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    assert!(rows.iter().all(|row| row.1 <= reg::END));
}

#[test]
fn read_only_registers_keep_their_value() {
    let os = Os::started(RAM);
    for offset in [reg::VER, reg::CAP, reg::ECAP, reg::GSTS, reg::IQH] {
        let before = os.get(offset, 4);
        os.set(offset, 4, !before);
        assert_eq!(os.get(offset, 4), before, "{offset:#x}");
    }
}

#[test]
fn the_command_register_holds_nothing() {
    let os = Os::started(RAM);
    assert_eq!(os.get(reg::GCMD, 4), 0);
    let on = reg::QUEUE_ENABLE | reg::TRANSLATION_ENABLE | reg::SET_ROOT_POINTER;
    assert_eq!(os.get(reg::GSTS, 4) as u32, on);
    os.set(reg::GCMD, 4, u64::from(reg::QUEUE_ENABLE));
    assert_eq!(
        os.get(reg::GSTS, 4) as u32,
        reg::QUEUE_ENABLE | reg::SET_ROOT_POINTER
    );
}

#[test]
fn the_root_pointer_is_latched_by_its_command() {
    let (os, _, _) = one_page();
    os.set(reg::RTADDR, 8, RAM - 4096);
    assert_eq!(byte(&os.dma(DEVICE), IOVA), Ok(b'a'));
    let on = reg::QUEUE_ENABLE | reg::TRANSLATION_ENABLE;
    os.set(reg::GCMD, 4, u64::from(on | reg::SET_ROOT_POINTER));
    assert_eq!(
        byte(&os.dma(DEVICE), IOVA),
        Ok(b'a'),
        "the caches keep what they have"
    );
    assert_eq!(byte(&os.dma(OTHER), IOVA), Err(FaultReason::RootNotPresent));
}

#[test]
fn a_wide_register_is_written_in_halves_too() {
    let os = Os::new(RAM, Scenario::for_test());
    os.set(reg::RTADDR, 4, 0x1234_5fff);
    os.set(reg::RTADDR + 4, 4, 0x9);
    assert_eq!(os.get(reg::RTADDR, 8), 0x9_1234_5000);
    assert_eq!(os.get(reg::RTADDR + 4, 4), 9);
    assert_eq!(os.get(reg::RTADDR + 1, 1), 0x50);
}

#[test]
fn two_narrow_registers_are_written_at_once() {
    let os = Os::new(RAM, Scenario::for_test());
    os.set(reg::FEADDR, 8, 0x1_fee0_2003);
    assert_eq!(
        (os.get(reg::FEADDR, 4), os.get(reg::FEUADDR, 4)),
        (0xfee0_2000, 1)
    );
}

#[test]
fn odd_sizes_and_places_are_ignored() {
    let os = Os::started(RAM);
    let before = os.unit.save();
    let events = os.scenario.journal().len();
    for (offset, size) in [
        (0x18, 1),
        (0x18, 2),
        (0x1a, 4),
        (0x24, 8),
        (0x1000, 4),
        (u64::MAX - 3, 4),
    ] {
        os.unit.mmio_write(os.env(), offset, size, u64::MAX);
    }
    assert!(before == os.unit.save());
    assert_eq!(os.scenario.journal().len(), events);
    assert_eq!(os.unit.mmio_read(os.env(), 0x1ffc, 4), 0);
    assert_eq!(os.unit.mmio_read(os.env(), 0x18, 3), 0);
}

#[test]
fn a_context_command_by_register_is_done_at_once() {
    let (os, _, _) = one_page();
    byte(&os.dma(DEVICE), IOVA).unwrap();
    os.poke(os.context_entry(DEVICE), 0);
    os.set(reg::GCMD, 4, u64::from(reg::TRANSLATION_ENABLE));
    os.set(
        reg::CCMD,
        8,
        reg::CCMD_INVALIDATE | 1 << reg::CCMD_REQUESTED,
    );
    assert_eq!(
        os.get(reg::CCMD, 8) >> reg::CCMD_ACTUAL,
        0b0101,
        "done, global"
    );
    assert_eq!(
        byte(&os.dma(DEVICE), IOVA),
        Err(FaultReason::ContextNotPresent)
    );
}
