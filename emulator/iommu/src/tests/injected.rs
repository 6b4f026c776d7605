//! Faults that a scenario injects into the unit and into accesses.

use super::*;
use crate::spec::registers as reg;
use crate::testing::{global, pages};
use crate::{Issued, Landing};
use journal::Journal;
use journal::event::TokenId;
use scenario::{Plan, Scenario};

/// As [`one_page`], with one fault.
fn with(fault: &str) -> (Os, Gpa, Gpa) {
    let plan = Plan::parse(&format!("[[fault]]\n{fault}")).unwrap();
    let os = Os::new(RAM, Scenario::new(plan, Journal::in_memory()));
    os.start();
    let top = os.attach(DEVICE, DOMAIN, 4);
    let leaf = os.map(top, IOVA, PAGE_A, READ_WRITE);
    os.memory.fill(PAGE_A, 4096, b'a').unwrap();
    os.memory.fill(PAGE_B, 4096, b'b').unwrap();
    (os, top, leaf)
}

fn fired(os: &Os) -> u64 {
    os.scenario.tallies()[0].fired
}

fn next_page() -> Iova {
    Iova(IOVA.0 + 4096)
}

#[test]
fn an_entry_is_read_as_the_scenario_has_it() {
    for (outcome, read, write) in [
        (
            "not-present",
            Err(FaultReason::ReadDenied),
            Err(FaultReason::WriteDenied),
        ),
        ("read-only", Ok(b'a'), Err(FaultReason::WriteDenied)),
        (
            "reserved-bits",
            Err(FaultReason::TableReserved),
            Err(FaultReason::TableReserved),
        ),
    ] {
        let (os, _, leaf) = with(&format!("at = \"entry\"\ndo = \"{outcome}\""));
        let dma = os.dma(DEVICE);
        assert_eq!(byte(&dma, IOVA), read, "{outcome}");
        assert_eq!(poke(&dma, IOVA), write, "{outcome}");
        assert_eq!(fired(&os), 2, "{outcome}");
        // The table itself is as it was.
        assert_eq!(os.look(leaf), PAGE_A.0 | READ_WRITE);
    }
}

#[test]
fn only_the_nth_entry_is_bent() {
    let (os, _, _) = with("at = \"entry\"\ndo = \"not-present\"\nnth = 1");
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Err(FaultReason::ReadDenied));
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
}

#[test]
fn what_is_not_cached_is_walked_for_again() {
    let (os, _, leaf) = with("at = \"fill\"\ndo = \"none-cached\"");
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    os.poke(leaf, PAGE_B.0 | READ_WRITE);
    assert_eq!(byte(&dma, IOVA), Ok(b'b'));
    assert_eq!(fired(&os), 2);
}

#[test]
fn an_iotlb_of_one_entry_forgets_the_other() {
    let (os, top, leaf) = with("at = \"fill\"\ndo = \"one-entry\"");
    os.map(top, next_page(), PAGE_B, READ_WRITE);
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    os.poke(leaf, PAGE_B.0 | READ_WRITE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'), "alone, it answers");
    assert_eq!(byte(&dma, next_page()), Ok(b'b'));
    assert_eq!(byte(&dma, IOVA), Ok(b'b'), "it was pushed out");
}

#[test]
fn an_entry_of_unlimited_age_is_not_replaced() {
    // Pages that share a set of the IOTLB: one more than it has ways.
    let iova = |n: u64| Iova(n << 28);
    for (outcome, want) in [("never", b'a'), ("", b'b')] {
        let fault = match outcome {
            "" => "at = \"evict\"\ndo = \"never\"\nnth = 9".to_owned(),
            outcome => format!("at = \"evict\"\ndo = \"{outcome}\""),
        };
        let (os, top, _) = with(&fault);
        let leaves: Vec<Gpa> = (1..=5)
            .map(|n| os.map(top, iova(n), PAGE_A, READ_WRITE))
            .collect();
        let dma = os.dma(DEVICE);
        for n in 1..=5 {
            assert_eq!(byte(&dma, iova(n)), Ok(b'a'));
        }
        for leaf in leaves.iter().take(4) {
            os.poke(*leaf, PAGE_B.0 | READ_WRITE);
        }
        let seen: Vec<u8> = (1..=4).map(|n| byte(&dma, iova(n)).unwrap()).collect();
        assert_eq!(seen.contains(&b'b'), want == b'b', "{outcome}: {seen:?}");
    }
}

#[test]
fn a_dropped_invalidation_leaves_the_entry_and_the_wait_is_done() {
    let (os, _, leaf) = with("at = \"descriptor\"\ndo = \"drop\"\ndescriptor = \"iotlb\"");
    let dma = os.dma(DEVICE);
    assert_eq!(byte(&dma, IOVA), Ok(b'a'));
    os.poke(leaf, 0);
    assert!(os.run(pages(DOMAIN, IOVA, 0, true)));
    assert_eq!(byte(&dma, IOVA), Ok(b'a'), "stale");
}

#[test]
fn a_dropped_wait_writes_no_status() {
    let (os, _, _) = with("at = \"descriptor\"\ndo = \"drop\"\ndescriptor = \"wait\"");
    assert!(!os.run(global(true)));
}

#[test]
fn a_delayed_invalidation_is_done_when_its_time_has_come() {
    let (os, _, leaf) = with("at = \"descriptor\"\ndo = \"delay\"\nns = 500");
    assert_eq!(byte(&os.dma(DEVICE), IOVA), Ok(b'a'));
    os.poke(leaf, 0);
    assert!(os.run(global(true)));
    os.scenario.advance(499);
    assert_eq!(byte(&os.dma(DEVICE), IOVA), Ok(b'a'), "stale");
    let saved = os.unit.save();
    for _ in 0..2 {
        os.scenario.advance(1);
        assert_eq!(byte(&os.dma(DEVICE), IOVA), Err(FaultReason::ReadDenied));
        os.unit.restore(&saved);
    }
}

#[test]
fn the_wrong_granularity_leaves_all_pages_but_one() {
    let (os, top, _) = with("at = \"descriptor\"\ndo = \"wrong-granularity\"");
    let first = Iova(0x1000_0000);
    let leaves: Vec<Gpa> = (0..2)
        .map(|n| os.map(top, Iova(first.0 + n * 4096), PAGE_A, READ_WRITE))
        .collect();
    let dma = os.dma(DEVICE);
    for n in 0..2 {
        assert_eq!(byte(&dma, Iova(first.0 + n * 4096)), Ok(b'a'));
    }
    for leaf in leaves {
        os.poke(leaf, 0);
    }
    // Of one page nothing less can be invalidated: no site.
    assert!(os.run(pages(DOMAIN, IOVA, 0, true)));
    assert_eq!(fired(&os), 0);
    assert!(os.run(pages(DOMAIN, first, 1, true)));
    assert_eq!(byte(&dma, first), Err(FaultReason::ReadDenied));
    assert_eq!(byte(&dma, Iova(first.0 + 4096)), Ok(b'a'), "stale");
}

fn in_flight(issued: Result<Issued, crate::Fault>) -> TokenId {
    match issued.unwrap() {
        Issued::InFlight(token) => token,
        Issued::Done(_) => panic!("landed at once"),
    }
}

#[test]
fn an_invalidation_that_completes_early_drains_nothing() {
    let plan = Plan::parse(
        "[[fault]]\nat = \"descriptor\"\ndo = \"complete-early\"\n\
         [[fault]]\nat = \"access\"\ndo = \"delay\"",
    );
    let os = Os::new(RAM, Scenario::new(plan.unwrap(), Journal::in_memory()));
    os.start();
    let top = os.attach(DEVICE, DOMAIN, 4);
    os.map(top, IOVA, PAGE_A, READ_WRITE);
    let dma = os.dma(DEVICE);
    let token = in_flight(dma.issue_write(IOVA, b"x"));
    assert!(os.run(global(true)));
    assert_eq!(os.unit.in_flight(), 1);
    assert_eq!(dma.land(token, false), Landing::Pending);
}

#[test]
fn a_record_that_overflows_or_interrupts_nobody_is_told_in_the_journal() {
    for (outcome, recorded, overflow) in
        [("overflow", false, true), ("interrupt-lost", true, false)]
    {
        let (os, _, _) = with(&format!("at = \"fault-record\"\ndo = \"{outcome}\""));
        os.set(reg::FECTL, 4, 0);
        os.set(reg::FEADDR, 4, 0xfee0_0000);
        let _ = os.unit.take_messages();
        assert!(byte(&os.dma(DEVICE), next_page()).is_err());
        let status = os.get(reg::FSTS, 4) as u32;
        assert_eq!(status & reg::FAULT_OVERFLOW != 0, overflow, "{outcome}");
        assert_eq!(status & reg::FAULT_PENDING != 0, recorded, "{outcome}");
        assert!(os.unit.take_messages().is_empty(), "{outcome}");
    }
}

#[test]
fn an_access_is_spoiled_as_the_scenario_has_it() {
    let read = |os: &Os| os.dma(DEVICE).issue_read(IOVA, 4);
    let write = |os: &Os| os.dma(DEVICE).issue_write(IOVA, b"wxyz");
    let memory = |os: &Os| {
        let mut bytes = [0; 4];
        os.memory.read(PAGE_A, &mut bytes).unwrap();
        bytes
    };
    let spoiled = |outcome: &str| with(&format!("at = \"access\"\ndo = \"{outcome}\"")).0;
    let accesses = |os: &Os| {
        let is = |event: &Event| matches!(event, Event::Access { .. });
        events(os).iter().filter(|event| is(event)).count()
    };

    let os = spoiled("drop");
    assert_eq!(read(&os).unwrap(), Issued::Done(vec![0xff; 4]));
    assert_eq!(write(&os).unwrap(), Issued::Done(vec![]));
    assert_eq!((&memory(&os), accesses(&os)), (b"aaaa", 0));

    let os = spoiled("repeat");
    assert_eq!(write(&os).unwrap(), Issued::Done(vec![]));
    assert_eq!((&memory(&os), accesses(&os)), (b"wxyz", 2));

    let os = spoiled("torn");
    let token = in_flight(write(&os));
    assert_eq!(&memory(&os), b"wxaa");
    os.scenario.advance(1);
    assert_eq!(os.dma(DEVICE).land(token, false), Landing::Landed(vec![]));
    assert_eq!(&memory(&os), b"wxyz");
    let token = in_flight(read(&os));
    os.memory.fill(PAGE_A, 4, b'n').unwrap();
    let landed = os.dma(DEVICE).land(token, true);
    assert_eq!(landed, Landing::Landed(b"wxnn".to_vec()));

    let os = spoiled("delay\"\nns = 9\nname = \"late");
    let token = in_flight(write(&os));
    os.scenario.advance(8);
    assert_eq!(os.dma(DEVICE).land(token, false), Landing::Pending);
    // Where nothing else is left to happen, time passes until it lands.
    assert_eq!(os.dma(DEVICE).land(token, true), Landing::Landed(vec![]));
    assert_eq!((&memory(&os), os.scenario.now()), (b"wxyz", 9));

    let os = spoiled("redirect\"\nto = 4096\nname = \"astray");
    let reason = read(&os).unwrap_err();
    assert_eq!(
        (reason.iova, reason.reason),
        (Iova(4096), FaultReason::ReadDenied)
    );
}
