#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::parted;
use crate::{Issued, Landing};
use journal::Journal;
use journal::event::Event;
use memory::GuestMemory;
use proptest::prelude::*;
use scenario::Scenario;
use std::collections::BTreeMap;

const DEVICE: RequesterId = RequesterId::new(0, 1, 0);
const PAGES: u64 = 16;
/// Where addresses of the device begin.
const BASE: u64 = 0xffff_0000;

struct World {
    memory: GuestMemory,
    scenario: Scenario,
    mirror: Mirror,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let memory = GuestMemory::new(PAGES * PAGE_SIZE).unwrap();
        for page in 0..PAGES {
            let at = Gpa(page * PAGE_SIZE);
            memory.fill(at, PAGE_SIZE, page as u8).unwrap();
        }
        Self {
            memory,
            scenario,
            mirror: Mirror::new(),
        }
    }

    fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }

    fn dma(&self) -> Dma<'_> {
        self.mirror.dma(self.env(), DEVICE, true)
    }

    fn map(&self, page: u64, count: u64, target: u64) -> Result<(), MirrorError> {
        self.mirror.map(
            self.env(),
            DEVICE,
            mapping(page, count, Some(target), (true, true)),
        )
    }

    fn unmap(&self, page: u64, count: u64) -> u64 {
        let length = count * PAGE_SIZE;
        self.mirror
            .unmap(self.env(), DEVICE, at(page), length)
            .unwrap()
    }

    fn byte(&self, page: u64) -> Result<u8, FaultReason> {
        let mut byte = [0xff];
        let read = self.dma().read(at(page), &mut byte);
        read.map(|()| byte[0]).map_err(|fault| fault.reason)
    }

    fn events(&self) -> Vec<Event> {
        let (records, _) = journal::read(&self.scenario.journal().bytes()[..]).unwrap();
        records.into_iter().map(|record| record.event).collect()
    }
}

fn at(page: u64) -> Iova {
    Iova(BASE + page * PAGE_SIZE)
}

fn mapping(page: u64, count: u64, target: Option<u64>, (read, write): (bool, bool)) -> Mapping {
    Mapping {
        iova: at(page),
        length: count * PAGE_SIZE,
        target: target.map(|page| Gpa(page * PAGE_SIZE)),
        read,
        write,
    }
}

fn world() -> World {
    World::new(Scenario::for_test())
}

#[test]
fn a_mapped_range_is_reached_page_by_page() {
    let w = world();
    w.map(0, 4, 8).unwrap();
    assert_eq!([w.byte(0), w.byte(3)], [Ok(8), Ok(11)]);
    assert_eq!(w.byte(4), Err(FaultReason::ReadDenied));
}

#[test]
fn a_read_only_mapping_refuses_writes() {
    let w = world();
    let read_only = mapping(0, 1, Some(5), (true, false));
    w.mirror.map(w.env(), DEVICE, read_only).unwrap();
    let refused = w.dma().write(at(0), &[1]).unwrap_err();
    assert_eq!(refused.reason, FaultReason::WriteDenied);
    assert_eq!(w.byte(0), Ok(5));
}

#[test]
fn a_refusal_is_told_to_who_asks_for_it() {
    let w = world();
    let _ = w.dma().write(at(3), &[1, 2]);
    let refused = w.mirror.take_refused();
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].iova, refused[0].write), (at(3), true));
    assert!(w.mirror.take_refused().is_empty());
}

#[test]
fn what_leads_to_no_ram_is_let_through_and_finds_nothing() {
    let w = world();
    let rom = mapping(0, 2, None, (true, false));
    w.mirror.map(w.env(), DEVICE, rom).unwrap();
    assert_eq!(w.byte(1), Err(FaultReason::NotMemory));
    assert!(w.mirror.take_refused().is_empty());
    assert_eq!(w.mirror.mappings(), [rom]);
}

#[test]
fn an_unmap_may_name_what_was_never_mapped() {
    let w = world();
    assert_eq!(w.unmap(0, 1 << 30), 0);
}

#[test]
fn an_unmap_spans_maps_and_cuts_those_at_its_ends() {
    let w = world();
    w.map(0, 4, 0).unwrap();
    w.map(4, 1, 4).unwrap();
    w.map(6, 4, 6).unwrap();
    assert_eq!(w.unmap(2, 6), 5);
    assert_eq!([w.byte(1), w.byte(8), w.byte(9)], [Ok(1), Ok(8), Ok(9)]);
    for page in 2..8 {
        assert_eq!(w.byte(page), Err(FaultReason::ReadDenied), "page {page}");
    }
}

#[test]
fn unmap_all_leaves_nothing() {
    let w = world();
    w.map(0, 4, 0).unwrap();
    w.map(9, 1, 4).unwrap();
    assert_eq!(w.mirror.unmap_all(w.env(), DEVICE), 5);
    assert!(w.mirror.mappings().is_empty());
    let last = w.events().pop().unwrap();
    assert!(matches!(last, Event::Unmap { dropped: 5, .. }));
}

#[test]
fn an_access_in_flight_lands_before_the_unmap_returns() {
    let w = World::new(parted(Journal::in_memory()));
    w.map(0, 1, 3).unwrap();
    let dma = w.dma();
    // Choose to part: the plan takes way 0 unless it orders otherwise, so ask
    // until one stays in flight.
    let issued = (0..8).map(|_| dma.issue_write(at(0), &[0xaa]).unwrap());
    let Some(token) = issued.into_iter().find_map(|i| match i {
        Issued::InFlight(token) => Some(token),
        Issued::Done(_) => None,
    }) else {
        panic!("the scenario parts no access");
    };
    w.unmap(0, 1);
    let mut byte = [0];
    w.memory.read(Gpa(3 * PAGE_SIZE), &mut byte).unwrap();
    assert_eq!(byte, [0xaa]);
    assert_eq!(w.mirror.in_flight(), 0);
    assert!(matches!(dma.land(token, true), Landing::Landed(_)));
}

#[test]
fn the_same_mapping_again_is_no_error_and_no_event() {
    let w = world();
    w.map(0, 2, 3).unwrap();
    w.map(0, 2, 3).unwrap();
    let maps = w.events().into_iter();
    assert_eq!(maps.filter(|e| matches!(e, Event::Map { .. })).count(), 1);
}

#[test]
fn a_mapping_over_another_is_refused() {
    let w = world();
    w.map(2, 2, 3).unwrap();
    for (page, count, target) in [(2, 2, 4), (3, 1, 4), (0, 3, 1), (3, 4, 4)] {
        let refused = w.map(page, count, target);
        assert_eq!(refused, Err(MirrorError::Overlap(at(page))));
    }
    assert_eq!([w.byte(2), w.byte(3)], [Ok(3), Ok(4)]);
}

#[test]
fn a_mapping_that_can_be_none_is_refused() {
    let w = world();
    let good = mapping(0, 1, Some(0), (true, true));
    let bad = |change: fn(&mut Mapping)| {
        let mut mapping = good;
        change(&mut mapping);
        mapping
    };
    for mapping in [
        bad(|m| m.length = 0),
        bad(|m| m.length = 0x1800),
        bad(|m| m.iova = Iova(0x800)),
        bad(|m| m.iova = Iova(!0xfff)).with_length(0x2000),
        bad(|m| m.target = Some(Gpa(1))),
        bad(|m| m.target = Some(Gpa(!0xfff))).with_length(0x2000),
    ] {
        let refused = w.mirror.map(w.env(), DEVICE, mapping);
        assert!(
            matches!(refused, Err(MirrorError::BadRange { .. })),
            "{mapping:?}"
        );
    }
}

impl Mapping {
    fn with_length(self, length: u64) -> Self {
        Self { length, ..self }
    }
}

#[test]
fn the_interrupt_range_is_never_memory() {
    let w = world();
    let everything = Mapping {
        iova: Iova(0),
        length: 1 << 40,
        target: Some(Gpa(0)),
        read: true,
        write: true,
    };
    w.mirror.map(w.env(), DEVICE, everything).unwrap();
    let refused = w.dma().read(Iova(0xfee0_0000), &mut [0; 4]).unwrap_err();
    assert_eq!(refused.reason, FaultReason::InterruptRange);
    w.dma().write(Iova(0xfee0_1000), &[7, 0, 0, 0]).unwrap();
    assert_eq!(w.mirror.take_messages()[0].data, 7);
}

#[derive(Clone, Debug)]
enum Step {
    Map {
        page: u64,
        count: u64,
        target: Option<u64>,
        rights: (bool, bool),
    },
    Unmap {
        page: u64,
        count: u64,
    },
    UnmapAll,
    Access {
        page: u64,
        write: bool,
    },
    SaveAndRestore,
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..24u64;
    let count = prop_oneof![3 => Just(1u64), 2 => 2..8u64, 1 => Just(1u64 << 20)];
    prop_oneof![
        4 => (page.clone(), 1..6u64, prop::option::weighted(0.9, 0..8u64), any::<(bool, bool)>())
            .prop_map(|(page, count, target, rights)| Step::Map { page, count, target, rights }),
        3 => (page.clone(), count).prop_map(|(page, count)| Step::Unmap { page, count }),
        1 => Just(Step::UnmapAll),
        6 => (page, any::<bool>()).prop_map(|(page, write)| Step::Access { page, write }),
        1 => Just(Step::SaveAndRestore),
    ]
}

/// Page of the device, and what it leads to.
type Model = BTreeMap<u64, (Option<u64>, bool, bool)>;

proptest! {
    #[test]
    fn the_mirror_agrees_with_a_map_of_pages(steps in prop::collection::vec(step(), 1..60)) {
        let w = world();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Map { page, count, target, rights } => {
                    let wanted = mapping(page, count, target, rights);
                    let taken = model.range(page..page + count).next().is_some();
                    let again = w.mirror.mappings().contains(&wanted);
                    let result = w.mirror.map(w.env(), DEVICE, wanted);
                    prop_assert_eq!(result.is_ok(), !taken || again);
                    if result.is_ok() {
                        for n in 0..count {
                            let to = target.map(|target| target + n);
                            model.insert(page + n, (to, rights.0, rights.1));
                        }
                    }
                }
                Step::Unmap { page, count } => {
                    let gone: Vec<u64> = model.range(page..page + count).map(|(&p, _)| p).collect();
                    prop_assert_eq!(w.unmap(page, count), gone.len() as u64);
                    for page in gone {
                        model.remove(&page);
                    }
                }
                Step::UnmapAll => {
                    prop_assert_eq!(w.mirror.unmap_all(w.env(), DEVICE), model.len() as u64);
                    model.clear();
                }
                Step::Access { page, write } => {
                    let expected = match model.get(&page) {
                        Some(&(target, read, writable)) if if write { writable } else { read } => {
                            target.map(|to| to as u8).ok_or(FaultReason::NotMemory)
                        }
                        _ if write => Err(FaultReason::WriteDenied),
                        _ => Err(FaultReason::ReadDenied),
                    };
                    let got = if write {
                        // The byte that is there, so that pages keep telling
                        // themselves apart.
                        let byte = expected.unwrap_or(0xff);
                        let written = w.dma().write(at(page), &[byte]);
                        written.map(|()| byte).map_err(|fault| fault.reason)
                    } else {
                        w.byte(page)
                    };
                    prop_assert_eq!(got, expected);
                }
                Step::SaveAndRestore => {
                    let state = w.mirror.save();
                    w.mirror.unmap_all(w.env(), DEVICE);
                    w.mirror.restore(&state);
                    prop_assert_eq!(w.mirror.save(), state);
                }
            }
            let pages: u64 = w.mirror.mappings().iter().map(|m| m.length / PAGE_SIZE).sum();
            prop_assert_eq!(pages, model.len() as u64);
        }
    }
}
