//! State is data.

use super::*;
use crate::Unit;
use crate::testing::{global, pages};
use vm_memory::{Bytes, GuestAddress};

fn exercise(os: &Os, leaf: Gpa) {
    let dma = os.dma(DEVICE);
    let _ = byte(&dma, IOVA);
    os.poke(leaf, PAGE_B.0 | READ_WRITE);
    let _ = byte(&dma, IOVA);
    let _ = poke(&dma, Iova(0x5000));
    let _ = dma.message(0xfee0_0000, 3);
    let _ = dma.read_obj::<u32>(GuestAddress(0x6000));
    os.run(pages(DOMAIN, IOVA, 0, true));
    let _ = byte(&dma, IOVA);
}

#[test]
fn restore_brings_back_every_part() {
    let (os, _, leaf) = one_page();
    let _ = byte(&os.dma(DEVICE), IOVA);
    let before = os.unit.save();
    exercise(&os, leaf);
    assert!(before != os.unit.save());
    os.unit.restore(&before);
    assert!(before == os.unit.save());
}

#[test]
fn a_restored_unit_goes_on_as_the_first_did() {
    let (os, _, leaf) = one_page();
    let _ = byte(&os.dma(DEVICE), IOVA);
    let unit = os.unit.save();
    let memory = os.memory.save().unwrap();
    let journal = os.scenario.journal().save();
    let programmed = (os.tail.get(), os.waits.get());
    exercise(&os, leaf);
    let (end, told) = (os.unit.save(), os.scenario.journal().bytes());
    os.memory.restore(&memory).unwrap();
    os.scenario.journal().restore(&journal).unwrap();
    os.tail.set(programmed.0);
    os.waits.set(programmed.1);
    let second = Os {
        unit: Unit::new(),
        ..os
    };
    second.unit.restore(&unit);
    exercise(&second, leaf);
    assert!(second.unit.save() == end);
    assert_eq!(second.scenario.journal().bytes(), told);
}

#[test]
fn a_stale_entry_is_saved_too() {
    let (os, _, leaf) = one_page();
    let dma = os.dma(DEVICE);
    byte(&dma, IOVA).unwrap();
    os.poke(leaf, 0);
    let stale = os.unit.save();
    assert!(os.run(global(true)));
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::ReadDenied));
    os.unit.restore(&stale);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
}
