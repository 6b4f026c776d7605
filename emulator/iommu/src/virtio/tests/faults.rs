//! Faults and accesses in flight.

use super::*;
use crate::testing::parted;
use crate::{Issued, Landing};
use journal::Journal;

fn report(reason: u8, flags: u32, device: RequesterId, address: u64) -> Vec<u8> {
    let mut bytes = vec![reason, 0, 0, 0];
    bytes.extend(flags.to_le_bytes());
    bytes.extend(u32::from(device.0).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(address.to_le_bytes());
    bytes
}

#[test]
fn every_fault_waits_to_be_reported() {
    let w = World::attached();
    let _ = w.read(GPU, 7);
    let _ = w.write(OTHER, 8);
    let _ = w.read(GPU, 0xfee00);
    let address = fault::ADDRESS;
    for wanted in [
        report(fault::MAPPING, address | fault::READ, GPU, 0x7000),
        report(fault::DOMAIN, address | fault::WRITE, OTHER, 0x8000),
        report(fault::MAPPING, address | fault::READ, GPU, 0xfee0_0000),
    ] {
        assert_eq!(w.unit.next_fault().unwrap()[..], wanted);
        w.unit.fault_reported();
    }
    assert_eq!((w.unit.next_fault(), w.unit.faults()), (None, 3));
}

#[test]
fn a_fault_that_finds_no_room_is_in_the_journal_as_lost() {
    let w = World::attached();
    for _ in 0..5000 {
        let _ = w.read(GPU, 7);
    }
    let kept = w.events().into_iter().filter_map(|event| match event {
        Event::Fault { recorded, .. } => Some(recorded),
        _ => None,
    });
    let (kept, lost): (Vec<bool>, Vec<bool>) = kept.partition(|&recorded| recorded);
    assert_eq!((kept.len(), lost.len()), (4096, 904));
}

#[test]
fn messages_are_sent_whatever_is_mapped() {
    let w = World::attached();
    let dma = w.unit.dma(w.env(), GPU, true);
    dma.message(0xfee0_1000, 9).unwrap();
    assert_eq!(w.unit.take_messages()[0].data, 9);
}

#[test]
fn what_is_in_flight_lands_before_its_mapping_is_gone() {
    type Take = fn(&World);
    let ways: [(&str, Take); 5] = [
        ("unmap", |w| assert_eq!(w.unmap(1, 0, 1), Status::Ok)),
        ("detach", |w| {
            assert_eq!(w.send(&detach(1, GPU)), Status::Ok)
        }),
        ("attach", |w| assert_eq!(w.attach(2, GPU), Status::Ok)),
        ("reset", |w| w.unit.reset(w.env())),
        ("bypass", |w| {
            w.unit.set_bypass(w.env(), true);
        }),
    ];
    for (what, take) in ways {
        let w = World::new(parted(Journal::in_memory()));
        w.attach(1, GPU);
        w.map(1, 0, 1, 3);
        let dma = w.unit.dma(w.env(), GPU, true);
        let mut issued = (0..8).map(|_| dma.issue_write(Iova(0), &[0xaa]).unwrap());
        let Some(token) = issued.find_map(|issued| match issued {
            Issued::InFlight(token) => Some(token),
            Issued::Done(_) => None,
        }) else {
            panic!("the scenario parts no access");
        };
        take(&w);
        let mut byte = [0];
        w.memory.read(Gpa(3 * PAGE_SIZE), &mut byte).unwrap();
        assert_eq!((byte, w.unit.in_flight()), ([0xaa], 0), "{what}");
        assert!(matches!(dma.land(token, true), Landing::Landed(_)));
    }
}
