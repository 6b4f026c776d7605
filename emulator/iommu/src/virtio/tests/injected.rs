//! Faults that a scenario injects. Each test has its healthy twin in
//! `requests.rs` or `faults.rs`.

use super::*;
use journal::Journal;
use scenario::Plan;

/// The GPU in domain 1, pages 4 and 5 mapped to 2 and 3, under one fault.
fn with(fault: &str) -> World {
    let text = format!("part-accesses = \"reads\"\n[[fault]]\n{fault}");
    let plan = Plan::parse(&text).unwrap();
    let world = World::new(Scenario::new(plan, Journal::in_memory()));
    assert_eq!(world.attach(1, GPU), Status::Ok);
    assert_eq!(world.map(1, 4, 2, 2), Status::Ok);
    world
}

fn fired(world: &World) -> u64 {
    world.scenario.tallies()[0].fired
}

const REFUSED: Result<u8, FaultReason> = Err(FaultReason::ReadDenied);

#[test]
fn a_map_that_fails_maps_nothing_and_says_that_there_is_no_memory() {
    let world = with("at = \"map\"\ndo = \"fail\"\niova = [0x8000, 0x8fff]");
    assert_eq!(world.map(1, 8, 1, 2), Status::NoMem);
    assert_eq!(world.read(GPU, 8), REFUSED);
    assert_eq!(world.map(1, 9, 1, 2), Status::Ok);
    assert_eq!(fired(&world), 1);
}

#[test]
fn an_unmap_that_fails_takes_nothing_away() {
    let world = with("at = \"unmap\"\ndo = \"fail\"\nnth = 1");
    assert_eq!(world.unmap(1, 4, 2), Status::DevErr);
    assert_eq!(world.read(GPU, 4), Ok(2));
    assert_eq!(world.unmap(1, 4, 2), Status::Ok);
    assert_eq!(world.read(GPU, 4), REFUSED);
}

#[test]
fn an_attach_that_fails_leaves_the_endpoint_where_it_was() {
    let world = with("at = \"attach\"\ndo = \"fail\"\nnth = 2");
    assert_eq!(world.attach(2, GPU), Status::DevErr);
    assert_eq!(world.read(GPU, 4), Ok(2));
}

#[test]
fn a_dropped_invalidation_leaves_a_stale_way_until_the_next() {
    let world = with("at = \"descriptor\"\ndo = \"drop\"\nnth = 1");
    assert_eq!(world.unmap(1, 4, 2), Status::Ok);
    assert_eq!(world.read(GPU, 4), Ok(2), "still there");
    let cached = |event: &Event| {
        matches!(
            event,
            Event::Access {
                outcome: journal::event::Outcome::Done { cached: true, .. },
                ..
            }
        )
    };
    assert!(world.events().iter().any(cached), "told as stale");
    // To the driver it is gone: it may map something else there, and what is
    // stale wins, as in an IOTLB.
    assert_eq!(world.map(1, 4, 1, 7), Status::Ok);
    assert_eq!(world.read(GPU, 4), Ok(2));
    assert_eq!(world.unmap(1, 4, 1), Status::Ok);
    assert_eq!(world.read(GPU, 4), REFUSED);
    assert_eq!(world.read(GPU, 5), Ok(3), "nobody invalidated that");
}

#[test]
fn a_delayed_invalidation_is_done_in_time() {
    let world = with("at = \"descriptor\"\ndo = \"delay\"\nns = 500");
    assert_eq!(world.unmap(1, 4, 2), Status::Ok);
    world.scenario.advance(499);
    assert_eq!(world.read(GPU, 4), Ok(2));
    world.scenario.advance(1);
    assert_eq!(world.read(GPU, 4), REFUSED);
}

#[test]
fn of_a_wrong_granularity_one_page_is_invalidated() {
    let world = with("at = \"descriptor\"\ndo = \"wrong-granularity\"");
    assert_eq!(world.unmap(1, 4, 2), Status::Ok);
    assert_eq!(world.read(GPU, 4), REFUSED);
    assert_eq!(world.read(GPU, 5), Ok(3));
}

#[test]
fn an_invalidation_that_completes_early_waits_for_no_access() {
    for (fault, pending) in [("complete-early", 1), ("drop", 1)] {
        let world = with(&format!("at = \"descriptor\"\ndo = \"{fault}\""));
        let dma = world.unit.dma(world.env(), GPU, true);
        dma.issue_read(Iova(4 * PAGE_SIZE), 4).unwrap();
        let before = world.unit.in_flight();
        assert_eq!(world.unmap(1, 4, 2), Status::Ok);
        assert_eq!((before, world.unit.in_flight()), (1, pending), "{fault}");
    }
}

#[test]
fn a_translation_is_read_as_the_scenario_has_it() {
    for (outcome, read, write) in [
        ("not-present", REFUSED, Err(FaultReason::WriteDenied)),
        ("read-only", Ok(2), Err(FaultReason::WriteDenied)),
    ] {
        let world = with(&format!("at = \"entry\"\ndo = \"{outcome}\""));
        assert_eq!(world.read(GPU, 4), read, "{outcome}");
        assert_eq!(world.write(GPU, 4), write, "{outcome}");
        assert_eq!(fired(&world), 2, "{outcome}");
    }
}

#[test]
fn only_the_nth_translation_is_bent() {
    let world = with("at = \"entry\"\ndo = \"not-present\"\nnth = 2");
    let seen = [(); 3].map(|()| world.read(GPU, 4));
    assert_eq!(seen, [Ok(2), REFUSED, Ok(2)]);
}

#[test]
fn a_fault_without_room_is_not_reported() {
    let world = with("at = \"fault-record\"\ndo = \"overflow\"\nnth = 1");
    assert_eq!(world.read(GPU, 9), REFUSED);
    assert!(world.unit.next_fault().is_none());
    assert_eq!(world.read(GPU, 9), REFUSED);
    assert!(world.unit.next_fault().is_some());
}

#[test]
fn a_reset_forgets_what_is_stale() {
    let world = with("at = \"descriptor\"\ndo = \"drop\"");
    assert_eq!(world.unmap(1, 4, 2), Status::Ok);
    world.unit.reset(world.env());
    assert_eq!(world.attach(1, GPU), Status::Ok);
    assert_eq!(world.read(GPU, 4), REFUSED);
}
