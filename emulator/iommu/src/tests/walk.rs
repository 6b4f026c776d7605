//! The walk, each fault reason by an exact setup (VT-d 7.1.3).

use super::*;
use crate::spec::registers as reg;
use crate::spec::tables;
use crate::testing::pages;

/// What is wrong, how to make it so (given the leaf entry and the top table),
/// whether the access writes, and what is said.
type Row = (&'static str, fn(&Os, Gpa, Gpa), bool, FaultReason);

fn set_context(os: &Os, low: u64, high: u64) {
    let entry = os.context_entry(DEVICE);
    os.poke(entry, os.look(entry) | low);
    os.poke(Gpa(entry.0 + 8), os.look(Gpa(entry.0 + 8)) | high);
}

fn root_entry(os: &Os) -> Gpa {
    Gpa(os.root.0 + 16 * u64::from(DEVICE.bus()))
}

fn above(os: &Os, top: Gpa, level: u8) -> Gpa {
    os.entry(top, 4, level, IOVA)
}

const ROWS: &[Row] = &[
    (
        "root clear",
        |os, _, _| os.poke(root_entry(os), 0),
        false,
        FaultReason::RootNotPresent,
    ),
    (
        "context clear",
        |os, _, _| os.poke(os.context_entry(DEVICE), 0),
        false,
        FaultReason::ContextNotPresent,
    ),
    (
        "TT 01 without ECAP.DT",
        |os, _, _| set_context(os, 0b01 << 2, 0),
        false,
        FaultReason::ContextInvalid,
    ),
    (
        "TT 11",
        |os, _, _| set_context(os, 0b11 << 2, 0),
        false,
        FaultReason::ContextInvalid,
    ),
    (
        "AW of 57 bits",
        |os, _, _| set_context(os, 0, 0b011),
        false,
        FaultReason::ContextInvalid,
    ),
    (
        "write to a page not mapped",
        |os, leaf, _| os.poke(leaf, 0),
        true,
        FaultReason::WriteDenied,
    ),
    (
        "read of a page not mapped",
        |os, leaf, _| os.poke(leaf, 0),
        false,
        FaultReason::ReadDenied,
    ),
    (
        "write to a read-only page",
        |os, leaf, _| os.poke(leaf, PAGE_A.0 | 1),
        true,
        FaultReason::WriteDenied,
    ),
    (
        "read of a write-only page",
        |os, leaf, _| os.poke(leaf, PAGE_A.0 | 2),
        false,
        FaultReason::ReadDenied,
    ),
    (
        "write forbidden at level 3",
        |os, _, top| os.poke(above(os, top, 3), os.look(above(os, top, 3)) & !2),
        true,
        FaultReason::WriteDenied,
    ),
    (
        "not mapped at level 2",
        |os, _, top| os.poke(above(os, top, 2), 0),
        false,
        FaultReason::ReadDenied,
    ),
    (
        "table outside RAM",
        |os, _, top| os.poke(above(os, top, 2), RAM | 3),
        false,
        FaultReason::TableAccess,
    ),
    (
        // LCT.4.3, not LSS.1.
        "top table outside RAM",
        |os, _, _| {
            let entry = os.context_entry(DEVICE);
            os.poke(entry, RAM | tables::CONTEXT_PRESENT);
        },
        false,
        FaultReason::ContextInvalid,
    ),
    (
        "context address beyond the host width",
        |os, _, _| set_context(os, 1 << 55, 0),
        false,
        FaultReason::ContextReserved,
    ),
    (
        "context table outside RAM",
        |os, _, _| os.poke(root_entry(os), RAM | 1),
        false,
        FaultReason::ContextAccess,
    ),
    (
        "root table outside RAM",
        |os, _, _| {
            os.set(reg::RTADDR, 8, RAM);
            os.set(
                reg::GCMD,
                4,
                u64::from(reg::SET_ROOT_POINTER | reg::QUEUE_ENABLE | reg::TRANSLATION_ENABLE),
            );
        },
        false,
        FaultReason::RootAccess,
    ),
    (
        "root reserved, low half",
        |os, _, _| os.poke(root_entry(os), os.look(root_entry(os)) | 1 << 5),
        false,
        FaultReason::RootReserved,
    ),
    (
        "root reserved, high half",
        |os, _, _| os.poke(Gpa(root_entry(os).0 + 8), 1),
        false,
        FaultReason::RootReserved,
    ),
    (
        "root beyond the host width",
        |os, _, _| os.poke(root_entry(os), os.look(root_entry(os)) | 1 << 60),
        false,
        FaultReason::RootReserved,
    ),
    (
        "context reserved, low half",
        |os, _, _| set_context(os, 1 << 4, 0),
        false,
        FaultReason::ContextReserved,
    ),
    (
        "context reserved, high half",
        |os, _, _| set_context(os, 0, 1 << 7),
        false,
        FaultReason::ContextReserved,
    ),
    (
        "leaf with SNP without ECAP.SC",
        |os, leaf, _| os.poke(leaf, PAGE_A.0 | 3 | 1 << 11),
        false,
        FaultReason::TableReserved,
    ),
    (
        "leaf beyond the host width",
        |os, leaf, _| os.poke(leaf, PAGE_A.0 | 3 | 1 << 50),
        false,
        FaultReason::TableReserved,
    ),
    (
        "large page at level 4",
        |os, _, top| {
            os.poke(
                above(os, top, 4),
                os.look(above(os, top, 4)) | tables::ENTRY_LARGE,
            )
        },
        false,
        FaultReason::TableReserved,
    ),
    (
        "unaligned 2 MiB page",
        |os, _, top| os.poke(above(os, top, 2), 0x1000 | 3 | tables::ENTRY_LARGE),
        false,
        FaultReason::TableReserved,
    ),
    (
        "unaligned 1 GiB page",
        |os, _, top| os.poke(above(os, top, 3), 0x20_0000 | 3 | tables::ENTRY_LARGE),
        false,
        FaultReason::TableReserved,
    ),
    (
        "leads into the interrupt range",
        |os, leaf, _| os.poke(leaf, 0xfee0_0000 | 3),
        true,
        FaultReason::InterruptRange,
    ),
    (
        "leads where there is no RAM",
        |os, leaf, _| os.poke(leaf, RAM | 3),
        false,
        FaultReason::NotMemory,
    ),
];

#[test]
fn each_broken_table_gives_its_fault_reason() {
    for (what, break_it, write, reason) in ROWS {
        let (os, top, leaf) = one_page();
        break_it(&os, leaf, top);
        let dma = os.dma(DEVICE);
        let result = if *write {
            poke(&dma, IOVA)
        } else {
            byte(&dma, IOVA).map(drop)
        };
        assert_eq!(result, Err(*reason), "{what}");
        assert!(!dma.peek(IOVA, &mut [0]) || *write, "peek agrees: {what}");
    }
}

#[test]
fn a_mapped_page_is_read_and_written() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    assert_eq!(poke(&dma, Iova(IOVA.0 + 9)), Ok(()));
    assert_eq!(byte(&dma, Iova(IOVA.0 + 9)), Ok(b'x'));
}

#[test]
fn ignored_bits_of_an_entry_are_ignored() {
    let (os, _, leaf) = one_page();
    os.poke(leaf, PAGE_A.0 | 3 | 1 << 63 | 0x3ff << 52 | 1 << 10);
    assert_eq!(byte(&os.dma(DEVICE), IOVA), Ok(b'a'));
}

#[test]
fn an_address_beyond_48_bits_is_refused() {
    let (os, _, _) = one_page();
    assert_eq!(
        byte(&os.dma(DEVICE), Iova(1 << 48 | IOVA.0)),
        Err(FaultReason::AddressBeyond)
    );
    assert_eq!(
        byte(&os.dma(DEVICE), Iova(u64::MAX)),
        Err(FaultReason::AddressBeyond)
    );
}

#[test]
fn a_cached_page_is_no_alias_of_addresses_beyond_the_width() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    for bit in 48..64 {
        let beyond = Iova(1 << bit | IOVA.0);
        assert_eq!(byte(&dma, beyond), Err(FaultReason::AddressBeyond), "{bit}");
    }
}

#[test]
fn a_narrow_device_does_not_use_what_a_wide_one_of_its_domain_cached() {
    let (os, _, _) = one_page();
    let wide = Iova(1 << 40);
    os.map(
        Gpa(os.look(os.context_entry(DEVICE)) & tables::ADDRESS),
        wide,
        PAGE_A,
        READ_WRITE,
    );
    os.attach(OTHER, DOMAIN, 3);
    assert_eq!(byte(&os.dma(DEVICE), wide), Ok(b'a'));
    let _ = byte(&os.dma(OTHER), Iova(0));
    assert_eq!(byte(&os.dma(OTHER), wide), Err(FaultReason::AddressBeyond));
}

#[test]
fn a_right_that_an_upper_level_withholds_is_not_cached() {
    let (os, top, _) = one_page();
    os.poke(above(&os, top, 3), os.look(above(&os, top, 3)) & !2);
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    assert_eq!(poke(&dma, IOVA), Err(FaultReason::WriteDenied));
}

#[test]
fn three_levels_translate_39_bits_and_no_more() {
    let os = Os::started(RAM);
    let top = os.attach(DEVICE, DOMAIN, 3);
    let last = Iova((1 << 39) - 4096);
    os.poke(os.entry(top, 3, 1, last), PAGE_A.0 | 3);
    os.memory.fill(PAGE_A, 4096, b'a').unwrap();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, last), Ok(b'a'));
    assert_eq!(byte(&dma, Iova(1 << 39)), Err(FaultReason::AddressBeyond));
}

#[test]
fn an_access_over_two_pages_stops_at_the_one_that_is_not_mapped() {
    let (os, _, _) = one_page();
    let mut bytes = [0; 16];
    let start = Iova(IOVA.0 + 4096 - 8);
    let fault = os.dma(DEVICE).read(start, &mut bytes).unwrap_err();
    assert_eq!(fault.iova, Iova(IOVA.0 + 4096));
    assert_eq!(&bytes, b"aaaaaaaa\0\0\0\0\0\0\0\0");
}

#[test]
fn pages_of_2_mib_and_1_gib_are_cached_whole() {
    let os = Os::new(64 << 20, scenario::Scenario::for_test());
    os.start();
    let top = os.attach(DEVICE, DOMAIN, 4);
    let (large, huge) = (Iova(0x4000_0000), Iova(0x8000_0000));
    os.poke(
        os.entry(top, 4, 2, large),
        0x20_0000 | 3 | tables::ENTRY_LARGE,
    );
    os.poke(os.entry(top, 4, 3, huge), 3 | tables::ENTRY_LARGE);
    os.memory.write(Gpa(0x23_4567), b"2").unwrap();
    os.memory.write(Gpa(0x345_6789), b"1").unwrap();
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, Iova(large.0 + 0x3_4567)), Ok(b'2'));
    assert_eq!(byte(&dma, Iova(huge.0 + 0x345_6789)), Ok(b'1'));
    // Stale, anywhere in the page.
    os.poke(os.entry(top, 4, 2, large), 0);
    os.poke(os.entry(top, 4, 3, huge), 0);
    assert_eq!(byte(&dma, Iova(large.0 + 0x1f_ffff)), Ok(0));
    assert_eq!(byte(&dma, Iova(huge.0 + 0x100)), Ok(0));
    // One page of each drops the whole.
    assert!(os.run(pages(DOMAIN, Iova(large.0 + 0x5000), 0, true)));
    assert!(os.run(pages(DOMAIN, Iova(huge.0 + 0x77_7000), 0, true)));
    assert_eq!(byte(&dma, large), Err(FaultReason::ReadDenied));
    assert_eq!(byte(&dma, huge), Err(FaultReason::ReadDenied));
}

#[test]
fn a_huge_page_does_not_lead_into_the_interrupt_range() {
    let os = Os::started(RAM);
    let top = os.attach(DEVICE, DOMAIN, 4);
    os.poke(
        os.entry(top, 4, 3, Iova(0)),
        0xc000_0000 | 3 | tables::ENTRY_LARGE,
    );
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, Iova(0)), Err(FaultReason::NotMemory));
    assert_eq!(
        byte(&dma, Iova(0x3ee0_0000)),
        Err(FaultReason::InterruptRange)
    );
}

#[test]
fn pass_through_leads_to_the_same_address() {
    let (os, _, _) = one_page();
    set_context(&os, tables::TYPE_PASS_THROUGH << 2, 0);
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, Iova(PAGE_A.0)), Ok(b'a'));
    assert_eq!(byte(&dma, Iova(1 << 48)), Err(FaultReason::AddressBeyond));
}

#[test]
fn pass_through_ignores_the_table_and_its_width() {
    // 9.3: the address is ignored; 3.9: the host's width is the limit.
    let os = Os::started(RAM);
    let _ = os.attach(DEVICE, DOMAIN, 3);
    let entry = os.context_entry(DEVICE);
    let kind = tables::TYPE_PASS_THROUGH << tables::CONTEXT_TYPE;
    os.poke(entry, !0xfff | kind | tables::CONTEXT_PRESENT);
    let dma = os.dma(DEVICE);
    assert_eq!(poke(&dma, Iova(PAGE_A.0)), Ok(()));
    assert_eq!(byte(&dma, Iova(1 << 39)), Err(FaultReason::NotMemory));
    assert_eq!(byte(&dma, Iova(1 << 48)), Err(FaultReason::AddressBeyond));
    os.poke(entry, kind | 1 << 4 | tables::CONTEXT_PRESENT);
    assert!(os.run(crate::testing::contexts(1, 0, DEVICE, 0)));
    assert_eq!(
        byte(&dma, Iova(PAGE_A.0)),
        Err(FaultReason::ContextReserved)
    );
}

#[test]
fn with_translation_off_an_address_is_physical() {
    let (os, _, _) = one_page();
    os.set(reg::GCMD, 4, 0);
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, Iova(PAGE_A.0)), Ok(b'a'));
    assert_eq!(byte(&dma, Iova(RAM)), Err(FaultReason::NotMemory));
}

#[test]
fn the_interrupt_range_is_never_memory() {
    let (os, top, _) = one_page();
    os.map(top, Iova(0xfee0_0000), PAGE_A, READ_WRITE);
    let dma = os.dma(DEVICE);
    assert_eq!(
        byte(&dma, Iova(0xfee0_0000)),
        Err(FaultReason::InterruptRange)
    );
    assert_eq!(
        dma.write(Iova(0xfee0_0000), &[0; 8]).unwrap_err().reason,
        FaultReason::InterruptRange
    );
    dma.write(Iova(0xfee0_1000), &0x41u32.to_le_bytes())
        .unwrap();
    dma.message(0xfee0_2000, 0x42).unwrap();
    let sent: Vec<_> = os
        .unit
        .take_messages()
        .iter()
        .map(|m| (m.device, m.address, m.data))
        .collect();
    assert_eq!(
        sent,
        [
            (Some(DEVICE), 0xfee0_1000, 0x41),
            (Some(DEVICE), 0xfee0_2000, 0x42)
        ]
    );
    assert_eq!(byte(&os.dma(DEVICE), IOVA), Ok(b'a'), "memory is untouched");
}

#[test]
fn without_bus_mastering_nothing_leaves_the_device() {
    let (os, _, _) = one_page();
    let dma = os.unit.dma(os.env(), DEVICE, false);
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::BusMasterDisabled));
    assert_eq!(
        dma.message(0xfee0_0000, 1).unwrap_err().reason,
        FaultReason::BusMasterDisabled
    );
    assert!(!dma.peek(IOVA, &mut [0]));
    assert!(os.unit.take_messages().is_empty());
    assert_eq!(os.get(reg::FSTS, 4), 0, "the remapping unit never saw it");
}

#[test]
fn a_read_of_the_interrupt_range_is_recorded_only_while_translation_is_on() {
    let (os, _, _) = one_page();
    os.set(reg::GCMD, 4, 0);
    assert_eq!(
        byte(&os.dma(DEVICE), Iova(0xfee0_0000)),
        Err(FaultReason::InterruptRange)
    );
    assert_eq!(os.get(reg::FSTS, 4), 0);
}

#[test]
fn an_interrupt_request_is_one_aligned_doubleword() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    for (at, bytes) in [(0xfee0_0002, &[0; 4][..]), (0xfee0_0000, &[0; 2])] {
        let fault = dma.write(Iova(at), bytes).unwrap_err();
        assert_eq!(fault.reason, FaultReason::InterruptRange);
    }
    assert!(os.unit.take_messages().is_empty());
}
