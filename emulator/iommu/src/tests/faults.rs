//! Fault records and the fault event.

use super::*;
use crate::spec::registers as reg;
use crate::spec::tables;

const RECORDS: u64 = reg::FAULT_RECORDS as u64;
const UNMAPPED: Iova = Iova(0x7_0000_0000);

/// Both halves of a record.
fn record(os: &Os, index: u16) -> [u64; 2] {
    let at = reg::FRCD + 16 * index;
    [os.get(at, 8), os.get(at + 8, 8)]
}

fn clear(os: &Os, index: u16) {
    os.set(reg::FRCD + 16 * index + 12, 4, 1 << 31);
}

/// `count` reads of addresses that are not mapped; says which were recorded.
fn fault(os: &Os, count: u64) -> Vec<bool> {
    let before = events(os).len();
    for i in 0..count {
        let _ = byte(&os.dma(DEVICE), Iova(UNMAPPED.0 + i * 4096));
    }
    let recorded = |event: &Event| match event {
        Event::Fault { recorded, .. } => Some(*recorded),
        _ => None,
    };
    events(os)[before..].iter().filter_map(recorded).collect()
}

fn unmasked() -> Os {
    let (os, _, _) = one_page();
    os.set(reg::FEDATA, 4, 0x41);
    os.set(reg::FEADDR, 4, 0xfee0_1000);
    os.set(reg::FECTL, 4, 0);
    os
}

#[test]
fn a_record_holds_address_source_reason_and_direction() {
    let (os, _, _) = one_page();
    let _ = poke(&os.dma(DEVICE), Iova(UNMAPPED.0 + 0x123));
    let _ = byte(&os.dma(OTHER), UNMAPPED);
    assert_eq!(
        record(&os, 0),
        [UNMAPPED.0, 1 << 63 | 5 << 32 | u64::from(DEVICE.0)]
    );
    assert_eq!(
        record(&os, 1),
        [UNMAPPED.0, 1 << 63 | 1 << 62 | 2 << 32 | u64::from(OTHER.0)]
    );
    assert_eq!(os.get(reg::FSTS, 4), u64::from(reg::FAULT_PENDING));
}

#[test]
fn full_records_overflow_and_nothing_more_is_recorded() {
    let (os, _, _) = one_page();
    let recorded = fault(&os, RECORDS + 3);
    assert_eq!(recorded.iter().filter(|r| **r).count() as u64, RECORDS);
    assert!(
        recorded[RECORDS as usize..].iter().all(|r| !r),
        "all of them are in the journal"
    );
    let both = u64::from(reg::FAULT_PENDING | reg::FAULT_OVERFLOW);
    assert_eq!(os.get(reg::FSTS, 4), both);
    // A free record does not help while PFO is set.
    clear(&os, 0);
    assert_eq!(fault(&os, 1), [false]);
    os.set(reg::FSTS, 4, u64::from(reg::FAULT_OVERFLOW));
    assert_eq!(fault(&os, 2), [true, false]);
    assert_eq!(os.get(reg::FSTS, 4), both, "the next record is taken");
}

#[test]
fn pending_follows_the_records_and_the_index_names_the_first() {
    let (os, _, _) = one_page();
    fault(&os, 3);
    clear(&os, 0);
    clear(&os, 2);
    assert_eq!(os.get(reg::FSTS, 4) as u32 & 0xff, reg::FAULT_PENDING);
    clear(&os, 1);
    assert_eq!(os.get(reg::FSTS, 4) as u32 & 0xff, 0);
    fault(&os, 1);
    assert_eq!(
        os.get(reg::FSTS, 4) as u32,
        reg::FAULT_PENDING | 3 << reg::FAULT_INDEX
    );
}

#[test]
fn a_fault_that_is_pending_raises_no_second_event() {
    let os = unmasked();
    fault(&os, 3);
    let messages = os.unit.take_messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        (messages[0].device, messages[0].address, messages[0].data),
        (None, 0xfee0_1000, 0x41)
    );
    (0..3).for_each(|i| clear(&os, i));
    fault(&os, 1);
    assert_eq!(os.unit.take_messages().len(), 1);
}

#[test]
fn a_masked_event_waits_for_its_mask() {
    let os = unmasked();
    os.set(reg::FECTL, 4, u64::from(reg::EVENT_MASK));
    fault(&os, 1);
    assert!(os.unit.take_messages().is_empty());
    assert_eq!(
        os.get(reg::FECTL, 4) as u32,
        reg::EVENT_MASK | reg::EVENT_PENDING
    );
    os.set(reg::FECTL, 4, 0);
    assert_eq!(os.unit.take_messages().len(), 1);
    assert_eq!(os.get(reg::FECTL, 4), 0);
}

#[test]
fn a_pending_event_goes_when_its_cause_is_cleared() {
    let os = unmasked();
    os.set(reg::FECTL, 4, u64::from(reg::EVENT_MASK));
    fault(&os, 1);
    clear(&os, 0);
    assert_eq!(os.get(reg::FECTL, 4) as u32, reg::EVENT_MASK);
    os.set(reg::FECTL, 4, 0);
    assert!(os.unit.take_messages().is_empty());
}

#[test]
fn fault_processing_disabled_records_nothing_but_in_the_journal() {
    for low in [
        tables::CONTEXT_FAULT_DISABLE,
        tables::CONTEXT_FAULT_DISABLE | tables::CONTEXT_PRESENT,
    ] {
        let os = Os::started(RAM);
        let top = os.attach(DEVICE, DOMAIN, 4);
        os.poke(os.context_entry(DEVICE), top.0 | low);
        assert_eq!(fault(&os, 2), [false, false]);
        assert_eq!(os.get(reg::FSTS, 4), 0);
    }
}

#[test]
fn a_read_of_the_interrupt_range_looks_at_the_context_first() {
    let (os, _, _) = one_page();
    let range = Iova(0xfee0_0000);
    assert_eq!(
        byte(&os.dma(OTHER), range),
        Err(FaultReason::ContextNotPresent)
    );
    clear(&os, 0);
    let entry = os.context_entry(DEVICE);
    os.poke(entry, os.look(entry) | tables::CONTEXT_FAULT_DISABLE);
    assert_eq!(
        byte(&os.dma(DEVICE), range),
        Err(FaultReason::InterruptRange)
    );
    assert_eq!(os.get(reg::FSTS, 4) as u32 & reg::FAULT_PENDING, 0);
}

#[test]
fn a_translation_alone_raises_the_event_too() {
    let os = unmasked();
    let request = crate::Request {
        device: DEVICE,
        context: journal::event::ContextId(0),
        iova: UNMAPPED,
        length: 1,
        write: false,
    };
    assert!(os.unit.translate(os.env(), request).is_err());
    assert_eq!(os.unit.take_messages().len(), 1);
}

#[test]
fn a_fault_after_a_queue_error_and_the_reverse_raise_one_event() {
    let os = unmasked();
    os.submit(&[[0, 0]]);
    fault(&os, 1);
    assert_eq!(os.unit.take_messages().len(), 1);
    let os = unmasked();
    fault(&os, 1);
    os.submit(&[[0, 0]]);
    assert_eq!(os.unit.take_messages().len(), 1);
}
