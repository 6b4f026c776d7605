//! Accesses parted into issue and landing, and what drains them.

use super::*;
use crate::testing::{global, pages, parted};
use crate::{Issued, Landing};
use journal::Journal;
use journal::event::TokenId;

/// As [`one_page`], every access parted.
fn two_moments() -> (Os, Gpa) {
    let os = Os::new(RAM, parted(Journal::in_memory()));
    os.start();
    let top = os.attach(DEVICE, DOMAIN, 4);
    let leaf = os.map(top, IOVA, PAGE_A, READ_WRITE);
    os.memory.fill(PAGE_A, 4096, b'a').unwrap();
    (os, leaf)
}

fn in_flight(issued: Result<Issued, crate::Fault>) -> TokenId {
    match issued.unwrap() {
        Issued::InFlight(token) => token,
        Issued::Done(_) => panic!("landed at once"),
    }
}

fn first(os: &Os) -> u8 {
    let mut byte = [0];
    os.memory.read(PAGE_A, &mut byte).unwrap();
    byte[0]
}

#[test]
fn an_access_lands_at_once_in_the_default_scenario() {
    let (os, _, _) = one_page();
    let dma = os.dma(DEVICE);
    assert_eq!(
        dma.issue_read(IOVA, 2).unwrap(),
        Issued::Done(b"aa".to_vec())
    );
    assert_eq!(dma.issue_write(IOVA, b"x").unwrap(), Issued::Done(vec![]));
    assert_eq!(first(&os), b'x');
}

#[test]
fn a_parted_write_lands_when_it_is_forced() {
    let (os, _) = two_moments();
    let dma = os.dma(DEVICE);
    let token = in_flight(dma.issue_write(IOVA, b"x"));
    assert_eq!((first(&os), os.unit.in_flight()), (b'a', 1));
    assert_eq!(dma.land(token, false), Landing::Pending);
    assert_eq!(dma.land(token, true), Landing::Landed(vec![]));
    assert_eq!((first(&os), os.unit.in_flight()), (b'x', 0));
    assert_eq!(dma.land(token, true), Landing::Gone);
}

#[test]
fn a_parted_read_takes_its_bytes_at_its_landing() {
    let (os, _) = two_moments();
    let dma = os.dma(DEVICE);
    let token = in_flight(dma.issue_read(IOVA, 1));
    os.memory.write(PAGE_A, b"z").unwrap();
    assert_eq!(dma.land(token, true), Landing::Landed(b"z".to_vec()));
}

#[test]
fn a_draining_invalidation_lands_what_was_issued_before() {
    let (os, leaf) = two_moments();
    let dma = os.dma(DEVICE);
    let read = in_flight(dma.issue_read(IOVA, 1));
    let write = in_flight(dma.issue_write(IOVA, b"x"));
    os.poke(leaf, 0);
    assert!(os.run(pages(DOMAIN, IOVA, 0, true)));
    assert_eq!((first(&os), os.unit.in_flight()), (b'x', 0));
    os.memory.write(PAGE_A, b"n").unwrap();
    assert_eq!(
        dma.land(read, false),
        Landing::Landed(b"a".to_vec()),
        "taken then"
    );
    assert_eq!(dma.land(write, false), Landing::Landed(vec![]));
    assert_eq!(first(&os), b'n');
    let drained = |e: &Event| matches!(e, Event::Landed { drained: true, .. });
    assert_eq!(events(&os).iter().filter(|e| drained(e)).count(), 2);
}

#[test]
fn an_invalidation_without_drain_leaves_the_window_open() {
    let (os, leaf) = two_moments();
    let dma = os.dma(DEVICE);
    let write = in_flight(dma.issue_write(IOVA, b"x"));
    os.poke(leaf, 0);
    assert!(os.run(global(false)));
    assert_eq!(os.unit.in_flight(), 1);
    assert_eq!(poke(&dma, IOVA), Err(FaultReason::WriteDenied));
    assert_eq!(dma.land(write, true), Landing::Landed(vec![]));
    assert_eq!(first(&os), b'x', "the one issued before still lands");
}

#[test]
fn draining_reads_leaves_writes() {
    let (os, _) = two_moments();
    let dma = os.dma(DEVICE);
    in_flight(dma.issue_read(IOVA, 1));
    in_flight(dma.issue_write(IOVA, b"x"));
    let [low, high] = global(false);
    assert!(os.run([low | crate::spec::descriptors::IOTLB_DRAIN_READS, high]));
    assert_eq!((first(&os), os.unit.in_flight()), (b'a', 1));
}

#[test]
fn turning_translation_off_drains() {
    let (os, _) = two_moments();
    in_flight(os.dma(DEVICE).issue_write(IOVA, b"x"));
    os.set(crate::spec::registers::GCMD, 4, 0);
    assert_eq!((first(&os), os.unit.in_flight()), (b'x', 0));
}

#[test]
fn a_reset_gives_up_what_its_device_has_in_flight() {
    let (os, _) = two_moments();
    let (dma, other) = (os.dma(DEVICE), os.dma(OTHER));
    let token = in_flight(dma.issue_write(IOVA, b"x"));
    assert_eq!(other.land(token, true), Landing::Gone, "not its token");
    other.cancel_all();
    assert_eq!(os.unit.in_flight(), 1);
    dma.cancel_all();
    assert_eq!((dma.land(token, true), first(&os)), (Landing::Gone, b'a'));
    assert!(events(&os).contains(&Event::Cancelled { token }));
}

#[test]
fn no_more_is_in_flight_than_there_is_room_for() {
    let (os, _) = two_moments();
    let dma = os.dma(DEVICE);
    for _ in 0..crate::in_flight::MAX_TOKENS {
        in_flight(dma.issue_read(IOVA, 1));
    }
    assert_eq!(
        dma.issue_read(IOVA, 1).unwrap(),
        Issued::Done(b"a".to_vec())
    );
}

#[test]
fn an_issue_is_cut_at_its_page() {
    let (os, _, _) = one_page();
    let last = Iova(IOVA.0 + 4095);
    assert_eq!(
        os.dma(DEVICE).issue_read(last, 100).unwrap(),
        Issued::Done(b"a".to_vec())
    );
}
