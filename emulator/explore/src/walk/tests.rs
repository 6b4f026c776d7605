//! The search over machines that are a few lines long: what it finds with
//! reduction is what it finds without.
#![allow(clippy::unwrap_used)]

use super::{Left, Walk, Walked, Walker};
use crate::error::ExploreError;
use crate::{Deviation, Explored, Unit, What};
use journal::event::{
    self, Allocation, AllocationId, AllocationKind, Begin, ContextId, End, Event, PageRun, Point,
    Segment,
};
use journal::{Journal, Record};
use machine::vm::RunLimit;
use memory::{Gpa, Iova, Pfn, RequesterId};
use proptest::prelude::*;
use scenario::{Choice, Plan};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::atomic::AtomicBool;
use xxhash_rust::xxh3::Xxh3;

const DEVICE: RequesterId = RequesterId::new(0, 2, 0);

/// A step of the toy's driver.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Allocate this page, if it is free.
    Allocate(u64),
    /// Free it, if it is allocated.
    Free(u64),
    /// Ask the device to take this page for its resource.
    Attach(u64),
    /// Ask it to read its resource.
    Read,
    /// Wait until it has done all.
    Wait,
    /// A choice that is nobody's to deviate from; a page is freed twice
    /// where 0 is taken.
    Chance,
    /// A choice, in the runs that deviated from the first.
    Other,
    /// Takes too long by the host's clock, in those runs.
    Slow,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    at: usize,
    /// What the device has to do: a page to attach, or to read.
    queue: VecDeque<Option<u64>>,
    resource: Option<u64>,
    owned: BTreeMap<u64, u32>,
    allocations: u32,
    commands: u32,
    /// Anything but its default was taken at the first choice, until the
    /// next step of the driver's has seen it.
    other: bool,
}

/// A driver and its device: at each step of the driver the device may do
/// something, or wait.
struct Toy {
    ops: Vec<Op>,
    plan: Plan,
    /// How often the host is too slow yet.
    slow: u32,
    state: State,
    choices: u64,
    made: Vec<Choice>,
    decided: RefCell<BTreeMap<u64, u32>>,
    journal: Journal,
}

impl Toy {
    fn new(ops: &[Op], plan: Plan) -> Self {
        let journal = Journal::in_memory();
        journal.emit(Event::Begin(Begin {
            domain: "passthrough".into(),
            device: DEVICE,
            ..Begin::default()
        }));
        Self {
            ops: ops.to_vec(),
            decided: RefCell::new(plan.choices.clone()),
            plan,
            slow: 0,
            state: State::default(),
            choices: 0,
            made: Vec::new(),
            journal,
        }
    }

    fn choose(&mut self, point: Point) -> u32 {
        let number = self.choices;
        self.choices += 1;
        let decided = self.decided.borrow().get(&number).copied();
        let taken = decided.unwrap_or(0).min(1);
        self.made.push(Choice {
            number,
            point,
            options: 2,
            taken,
            time: self.state.at as u64,
        });
        taken
    }

    /// The device does the first thing it has to do.
    fn device(&mut self) {
        let Some(work) = self.state.queue.pop_front() else {
            return;
        };
        self.state.commands += 1;
        let context = ContextId(self.state.commands);
        let position = self.state.commands as u16;
        self.journal.emit(Event::Context {
            context,
            device: DEVICE,
            queue: 0,
            position,
            head: 0,
        });
        let name = self.journal.name("a command");
        self.journal.emit(Event::Command {
            context,
            name,
            detail: String::new(),
            resource: Some(1),
        });
        match work {
            Some(page) => {
                self.state.resource = Some(page);
                let segment = Segment {
                    iova: Iova(page << 12),
                    length: 4096,
                };
                self.journal.emit(Event::Backing {
                    context,
                    resource: 1,
                    segments: vec![segment],
                });
            }
            None => {
                let Some(page) = self.state.resource else {
                    return;
                };
                self.journal.emit(Event::Access {
                    context,
                    device: DEVICE,
                    iova: Iova(page << 12),
                    length: 64,
                    write: false,
                    outcome: event::Outcome::Done {
                        gpa: Gpa(page << 12),
                        generation: 0,
                        cached: false,
                    },
                });
            }
        }
    }

    fn driver(&mut self, op: Op) {
        let at = self.state.at as u64;
        match op {
            Op::Allocate(page) if !self.state.owned.contains_key(&page) => {
                self.state.allocations += 1;
                let id = self.state.allocations;
                self.state.owned.insert(page, id);
                let stack = self.journal.stack(&[0x1000 + at]);
                self.journal.emit(Event::Allocate(Allocation {
                    id: AllocationId(id),
                    kind: AllocationKind::DxgkMdl,
                    handle: 0,
                    address: 0,
                    pages: vec![PageRun {
                        first: Pfn(page),
                        count: 1,
                    }],
                    requested: 1,
                    stack,
                }));
            }
            Op::Free(page) => {
                if let Some(id) = self.state.owned.remove(&page) {
                    let stack = self.journal.stack(&[0x2000 + at]);
                    let allocation = AllocationId(id);
                    self.journal.emit(Event::Free { allocation, stack });
                }
            }
            Op::Attach(page) => self.state.queue.push_back(Some(page)),
            Op::Read => self.state.queue.push_back(None),
            Op::Wait => {
                while !self.state.queue.is_empty() {
                    self.device();
                }
            }
            Op::Chance => {
                if self.choose(Point::Random) == 0 {
                    let stack = self.journal.stack(&[0x3000 + at]);
                    self.journal.emit(Event::Breach(event::Breach {
                        rule: "TWICE".into(),
                        finding: "double-free".into(),
                        reason: "twice".into(),
                        certainty: event::Certainty::Ours,
                        status: None,
                        subject: event::Subject::default(),
                        stack,
                    }));
                }
            }
            Op::Other => {
                if std::mem::take(&mut self.state.other) {
                    self.choose(Point::Random);
                }
            }
            Op::Allocate(_) | Op::Slow => {}
        }
    }
}

impl Walked for Toy {
    type Moment = (State, u64, journal::State);

    fn save(&self) -> Result<Self::Moment, ExploreError> {
        Ok((self.state.clone(), self.choices, self.journal.save()))
    }

    fn restore(&mut self, (state, choices, journal): &Self::Moment) -> Result<(), ExploreError> {
        self.state.clone_from(state);
        self.choices = *choices;
        self.journal.restore(journal).unwrap();
        Ok(())
    }

    fn step(&mut self, _: &RunLimit<'_>) -> Result<(Vec<Choice>, Option<End>), ExploreError> {
        self.made.clear();
        if !self.state.queue.is_empty() {
            match self.choose(Point::Device) {
                0 => {}
                _ => self.device(),
            }
        } else if self.state.at == 0 {
            self.state.other = self.choose(Point::Device) != 0;
        }
        let Some(&op) = self.ops.get(self.state.at) else {
            self.journal.emit(Event::End(End::Completed));
            return Ok((self.made.clone(), Some(End::Completed)));
        };
        if matches!(op, Op::Slow) && std::mem::take(&mut self.state.other) && self.slow > 0 {
            self.slow -= 1;
            let end = End::OutOfTime {
                reason: "slow".into(),
                stack: self.journal.stack(&[]),
            };
            return Ok((self.made.clone(), Some(end)));
        }
        self.driver(op);
        self.state.at += 1;
        Ok((self.made.clone(), None))
    }

    fn may_choose(&self) -> bool {
        true
    }

    fn choices(&self) -> u64 {
        self.choices
    }

    fn decide(&self, choices: BTreeMap<u64, u32>) {
        *self.decided.borrow_mut() = choices;
    }

    fn digest(&self) -> Result<u128, ExploreError> {
        let mut hasher = Xxh3::new();
        self.state.hash(&mut hasher);
        Ok(hasher.digest128())
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn told(&self) -> usize {
        self.journal.len()
    }

    fn since(&self, from: usize) -> Vec<Record> {
        self.journal.since(from)
    }
}

/// Explore all schedules of a toy.
fn explored(ops: &[Op], plan: &Plan, bound: u32, reduce: bool) -> Explored {
    let stop = AtomicBool::new(false);
    let toy = Toy::new(ops, plan.clone());
    let mut walker = Walker::new(toy, reduce, &stop).unwrap();
    let (walk, choices) = walker.trunk().unwrap();
    let mut total = walk.explored;
    for choice in choices {
        let Some(what) = What::of(choice.point) else {
            continue;
        };
        let first = Some(Deviation {
            number: choice.number,
            take: 1 - choice.taken,
            what,
            at: Some(choice.time),
        });
        for bound in 1..=bound {
            let walk = walker.unit(Unit { bound, first }).unwrap();
            assert!(walk.left.is_none(), "nobody stopped it");
            total.add(walk.explored);
        }
    }
    total
}

/// The unit that deviates at the first choice, on a host that is too slow so
/// many times.
fn walked(slow: u32) -> Walk {
    let stop = AtomicBool::new(false);
    let ops = [Op::Slow, Op::Allocate(5), Op::Wait];
    let mut toy = Toy::new(&ops, Plan::default());
    toy.slow = slow;
    let mut walker = Walker::new(toy, true, &stop).unwrap();
    assert!(walker.trunk().unwrap().0.left.is_none());
    let first = Some(Deviation {
        number: 0,
        take: 1,
        what: What::Device,
        at: Some(0),
    });
    walker.unit(Unit { bound: 1, first }).unwrap()
}

#[test]
fn a_unit_that_a_busy_host_ends_is_walked_again() {
    let walk = walked(1);

    assert!(walk.left.is_none());
    assert_eq!(walk.explored, walked(0).explored);
}

#[test]
fn a_unit_that_takes_too_long_twice_is_left() {
    let walk = walked(u32::MAX);

    let Some(Left::Late(schedule)) = walk.left else {
        panic!("{:?}", walk.left);
    };
    assert_eq!((schedule.len(), schedule[0].number), (1, 0));
}

#[test]
fn schedules_are_counted_once() {
    let ops = [Op::Attach(5), Op::Allocate(5), Op::Allocate(6)];

    let [none, one, two] = [0, 1, 2].map(|bound| explored(&ops, &Plan::default(), bound, false));

    // The first choice, and at which of three steps the device takes the
    // page, if at any.
    assert_eq!([none.runs, one.runs, two.runs], [1, 1 + 4, 1 + 4 + 3]);
}

fn found(of: &Explored) -> Vec<&str> {
    let mut found: Vec<_> = of.defects.values().map(|d| d.finding.as_str()).collect();
    found.sort_unstable();
    found
}

/// The device takes the page for its resource before it is freed, or after
/// it was given out again: the machine is the same then, and only the ledger
/// knows whose memory the device means.
#[test]
fn equal_machines_with_unequal_pasts_are_both_gone_through() {
    let ops = [
        Op::Allocate(5),
        Op::Attach(5),
        Op::Free(5),
        Op::Allocate(5),
        Op::Wait,
        Op::Read,
        Op::Wait,
    ];
    let plan = Plan::default();

    let reduced = explored(&ops, &plan, 1, true);
    let whole = explored(&ops, &plan, 1, false);

    assert!(reduced.cut > 0, "it is a reduction");
    assert!(reduced.steps < whole.steps);
    assert_eq!(found(&reduced), ["dma-reused-memory"]);
    assert_eq!(reduced.defects, whole.defects);
}

/// A deviation makes a choice more, and is over: the machine is the same, but
/// the scenario's own decision is not met again under its number.
#[test]
fn a_scenarios_own_choices_count_from_where_the_machine_is() {
    let ops = [Op::Allocate(5), Op::Other, Op::Wait, Op::Chance];
    let plan = Plan::default().with_choice(1, 1);

    let reduced = explored(&ops, &plan, 1, true);

    assert_eq!(found(&reduced), ["double-free"]);
    assert_eq!(reduced.defects, explored(&ops, &plan, 1, false).defects);
    let plain = explored(&ops, &Plan::default(), 1, true);
    assert!(plain.cut > 0, "without one the states are equal");
}

#[test]
fn where_the_scenario_deviates_the_default_is_a_deviation() {
    let ops = [Op::Attach(5), Op::Wait];
    let plan = Plan::default().with_choice(1, 1);

    let whole = explored(&ops, &plan, 1, false);

    assert_eq!(whole.runs, 3, "the scenario's order, and two that differ");
}

fn any_op() -> impl Strategy<Value = Op> {
    let page = 5u64..7;
    prop_oneof![
        3 => page.clone().prop_map(Op::Allocate),
        2 => page.clone().prop_map(Op::Free),
        2 => page.prop_map(Op::Attach),
        2 => Just(Op::Read),
        1 => Just(Op::Wait),
        1 => Just(Op::Chance),
        1 => Just(Op::Other),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn reduction_loses_nothing(
        ops in prop::collection::vec(any_op(), 3..12),
        choices in prop::collection::btree_map(0u64..8, 0u32..2, 0..3),
    ) {
        let plan = Plan { choices, ..Plan::default() };

        let reduced = explored(&ops, &plan, 2, true);
        let whole = explored(&ops, &plan, 2, false);

        let keys = |of: &Explored| of.defects.keys().cloned().collect::<Vec<_>>();
        prop_assert_eq!(keys(&reduced), keys(&whole));
        prop_assert!(reduced.steps <= whole.steps);
    }
}
