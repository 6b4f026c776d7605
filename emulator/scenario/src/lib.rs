//! One source of choice: the order of device against driver, the timing of
//! interrupts, accesses that stay in flight, random bytes; and virtual time.
//!
//! Every room asks [`Scenario::choose`] and nothing else, so that the same
//! driver and scenario give the same journal byte for byte.
#![forbid(unsafe_code)]

mod answer;
pub mod fault;
mod plan;
mod steps;
#[cfg(test)]
mod tests;
mod verify;

pub use answer::{Answer, AnswerOf, Hex, MAX_BYTES};
pub use fault::{Descriptor, Direction, Fault, Injection, Shape, Site, SiteKind, What};
pub use plan::{MAX_WORKLOAD, Order, Part, Plan, PlanError};
pub use steps::{MAX_FRAME_SIDE, MAX_SCANOUTS, Power, Step};
pub use verify::{Frame, Returned, Verify};

use fault::{FaultState, Tally};
use journal::Journal;
use journal::event::{Event, Point};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// Virtual nanoseconds that pass with every trap of the driver.
pub const TIME_PER_TRAP: u64 = 1_000;

/// What changes as a run goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Virtual nanoseconds since the run began.
    time: u64,
    /// How many choices were made.
    choices: u64,
    /// State of the generator of random bytes.
    random: u64,
    /// Answers that the device gave, by kind ([`AnswerOf`]).
    answers: [u64; 3],
    faults: FaultState,
}

/// The scenario of one run, shared by its rooms.
#[derive(Debug)]
pub struct Scenario {
    plan: Plan,
    /// Faults that are injected: the plan's, until somebody says anew.
    faults: RefCell<Vec<Fault>>,
    /// A bit for each kind of site at which there is a fault.
    sites: Cell<u32>,
    /// Is there a fault, or may allocations fail?
    faulty: Cell<bool>,
    /// Deviations from the order, by the number of the choice: the plan's,
    /// until somebody decides anew.
    decided: RefCell<BTreeMap<u64, u32>>,
    /// Answers that are written over: the plan's, until somebody says anew.
    altered: RefCell<Vec<Answer>>,
    /// The choices since [`Scenario::watch`], if somebody watches.
    watched: RefCell<Option<Vec<Choice>>>,
    state: RefCell<State>,
    journal: Journal,
}

/// A choice that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its number in the run, from 0.
    pub number: u64,
    /// What was to choose.
    pub point: Point,
    /// How many ways there were.
    pub options: u32,
    /// Which was taken.
    pub taken: u32,
    /// Virtual time, nanoseconds.
    pub time: u64,
}

impl Scenario {
    /// A run by `plan`, told to `journal`.
    #[must_use]
    pub fn new(plan: Plan, journal: Journal) -> Self {
        let state = State {
            random: plan.seed,
            faults: FaultState::new(&plan.faults, plan.seed),
            ..State::default()
        };
        Self {
            sites: Cell::new(sites(&plan.faults)),
            faulty: Cell::new(plan.may_fail || !plan.faults.is_empty()),
            faults: RefCell::new(plan.faults.clone()),
            decided: RefCell::new(plan.choices.clone()),
            altered: RefCell::new(plan.answers.clone()),
            watched: RefCell::new(None),
            plan,
            state: RefCell::new(state),
            journal,
        }
    }

    /// The default order, told to a journal in memory: for tests.
    #[must_use]
    pub fn for_test() -> Self {
        Self::new(Plan::default(), Journal::in_memory())
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The journal that every room writes to.
    #[inline]
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Which of `options` ways is taken at `point`: 0 unless the plan says
    /// otherwise. A single way is no choice and is not recorded.
    pub fn choose(&self, point: Point, options: u32) -> u32 {
        if options <= 1 {
            return 0;
        }
        let mut state = self.state.borrow_mut();
        let number = state.choices;
        state.choices += 1;
        let decided = self.decided.borrow().get(&number).copied();
        let wanted = match (decided, point) {
            (Some(taken), _) => taken,
            (None, Point::Random) => (fault::draw(&mut state.random) % u64::from(options)) as u32,
            (None, _) => self.plan.by_order(point),
        };
        // A plan made for another driver may ask for a way that is not there.
        let taken = wanted.min(options - 1);
        self.journal.emit(Event::Choice {
            number,
            point,
            options,
            taken,
        });
        if let Some(watched) = self.watched.borrow_mut().as_mut() {
            watched.push(Choice {
                number,
                point,
                options,
                taken,
                time: state.time,
            });
        }
        taken
    }

    /// From now on deviate from the order here and nowhere else: ways to
    /// take, by the number of the choice. No part of [`Scenario::save`].
    pub fn decide(&self, choices: BTreeMap<u64, u32>) {
        *self.decided.borrow_mut() = choices;
    }

    /// The choices made since the last call, which is the first that makes
    /// them be kept.
    pub fn watch(&self) -> Vec<Choice> {
        self.watched.replace(Some(Vec::new())).unwrap_or_default()
    }

    /// Is an access of this direction to be parted into issue and landing?
    /// Asked at every access, so it is no recorded choice: only where the
    /// plan parts accesses does [`Scenario::choose`] decide about each.
    #[inline]
    #[must_use]
    pub fn parts_accesses(&self, write: bool) -> bool {
        match self.plan.part {
            Part::None => false,
            Part::Reads => !write,
            Part::Writes => write,
            Part::All => true,
        }
    }

    /// Virtual time, nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.state.borrow().time
    }

    /// Let virtual time pass.
    pub fn advance(&self, nanoseconds: u64) {
        let mut state = self.state.borrow_mut();
        state.time = state.time.saturating_add(nanoseconds);
        self.journal.set_time(state.time);
    }

    /// Bytes that a driver may not foresee (RDRAND, security cookies): from
    /// the seed, so that a run can be repeated.
    pub fn random(&self) -> u64 {
        (0..4).fold(0, |bits, _| {
            bits << 16 | u64::from(self.choose(Point::Random, 1 << 16))
        })
    }

    /// How many choices were made so far.
    #[must_use]
    pub fn choices(&self) -> u64 {
        self.state.borrow().choices
    }

    /// A point to come back to (the journal has its own).
    #[must_use]
    pub fn save(&self) -> State {
        self.state.borrow().clone()
    }

    /// Hash what the machine's future depends on: not the count of choices,
    /// by which they are only named.
    pub fn hash_state(&self, hasher: &mut impl Hasher) {
        self.now().hash(hasher);
        self.hash_timeless(hasher);
    }

    /// [`Scenario::hash_state`] but for the time.
    pub fn hash_timeless(&self, hasher: &mut impl Hasher) {
        let State {
            time: _,
            random,
            choices: _,
            answers,
            ref faults,
        } = *self.state.borrow();
        (random, faults).hash(hasher);
        if !self.altered.borrow().is_empty() {
            answers.hash(hasher);
        }
    }

    /// Go back to a point.
    pub fn restore(&self, state: &State) {
        self.journal.set_time(state.time);
        *self.state.borrow_mut() = state.clone();
    }
}

/// Answers of the device.
impl Scenario {
    /// The device answers this: what the scenario writes over it is written,
    /// and stands in the journal. Returns whether there was any.
    pub fn answer(&self, of: AnswerOf, bytes: &mut [u8]) -> bool {
        let number = {
            let mut state = self.state.borrow_mut();
            let Some(count) = state.answers.get_mut(of as usize) else {
                return false;
            };
            let number = *count;
            *count += 1;
            number
        };
        let altered = self.altered.borrow();
        let here = |answer: &&Answer| answer.of == of && answer.number == number;
        let Some((at, answer)) = altered.iter().enumerate().find(|(_, answer)| here(answer)) else {
            return false;
        };
        answer.write_over(bytes);
        self.journal.emit(Event::Injected {
            // Behind the faults.
            fault: (self.faults.borrow().len() + at) as u32,
            name: answer.title(),
            site: format!("{} {number}", of.name()),
            outcome: format!("{} bytes at {}", answer.data.0.len(), answer.at),
        });
        true
    }

    /// From now on write over these answers and no others. No part of
    /// [`Scenario::save`].
    pub fn alter(&self, answers: Vec<Answer>) {
        *self.altered.borrow_mut() = answers;
    }

    /// How many answers of a kind the device gave so far.
    #[must_use]
    pub fn answers(&self, of: AnswerOf) -> u64 {
        let state = self.state.borrow();
        state.answers.get(of as usize).copied().unwrap_or(0)
    }
}

/// Faults.
impl Scenario {
    /// From now on inject these faults and no others. One that was at the
    /// same place before goes on counting. No part of [`Scenario::save`], but
    /// for what is counted: so this comes after [`Scenario::restore`].
    pub fn infect(&self, faults: Vec<Fault>) {
        let mut state = self.state.borrow_mut();
        state.faults.tallies.resize(faults.len(), Tally::default());
        self.sites.set(sites(&faults));
        self.faulty.set(self.plan.may_fail || !faults.is_empty());
        *self.faults.borrow_mut() = faults;
    }

    /// The faults that are injected.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.borrow().clone()
    }

    /// Is there a fault at sites of this kind? Asked before
    /// [`Scenario::inject`] where a run without faults must pay nothing.
    #[inline]
    #[must_use]
    pub fn has_faults(&self, kind: SiteKind) -> bool {
        self.sites.get() & kind.bit() != 0
    }

    /// Is there a fault at all, or may allocations fail?
    #[inline]
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.faulty.get()
    }

    /// A site is passed: what is injected there, if anything. What is stands
    /// in the journal.
    #[must_use]
    pub fn inject(&self, site: &Site<'_>) -> Option<Injection> {
        self.inject_where(site, |_| true)
    }

    /// [`Scenario::inject`], of faults that `can` be there; others neither
    /// are injected nor counted.
    #[must_use]
    pub fn inject_where(&self, site: &Site<'_>, can: impl Fn(&Fault) -> bool) -> Option<Injection> {
        if !self.has_faults(site.kind) {
            return None;
        }
        let mut state = self.state.borrow_mut();
        let now = state.time;
        let faults = self.faults.borrow();
        let injection = state.faults.decide(&faults, site, now, can)?;
        let fault = faults.get(injection.fault as usize)?;
        self.journal.emit(Event::Injected {
            fault: injection.fault,
            name: fault.title(),
            site: site.words(&state.faults),
            outcome: injection.outcome.name().to_owned(),
        });
        Some(injection)
    }

    /// The driver calls a routine of Windows, from these places, innermost
    /// first.
    pub fn begin_call(&self, name: &str, frames: &[u64]) {
        let mut state = self.state.borrow_mut();
        state.faults.begin_call(name, frames);
        state.faults.occurred(&self.faults.borrow(), name);
    }

    /// The routine has done all it does.
    pub fn end_call(&self) {
        self.state.borrow_mut().faults.end_call();
    }

    /// A routine of the driver is entered.
    pub fn entered(&self, name: &str) {
        let mut state = self.state.borrow_mut();
        state.faults.occurred(&self.faults.borrow(), name);
    }

    /// The device learnt which command a context is.
    pub fn learnt(&self, context: u32, command: &str) {
        self.state.borrow_mut().faults.command = Some((context, command.to_owned()));
    }

    /// The routine that is being called finds no memory.
    pub fn refuse_memory(&self) {
        self.state.borrow_mut().faults.refused = true;
    }

    /// No routine finds memory from now on.
    pub fn exhaust_memory(&self) {
        self.state.borrow_mut().faults.low_memory = true;
    }

    /// What the routine that is being called gets is like this.
    pub fn set_shape(&self, shape: Shape) {
        self.state.borrow_mut().faults.shape = shape;
    }

    /// Does the routine that the driver is in find no memory?
    #[must_use]
    pub fn refuses_memory(&self) -> bool {
        if !self.is_faulty() {
            return false;
        }
        let faults = &self.state.borrow().faults;
        faults.call.is_some() && (faults.refused || faults.low_memory)
    }

    /// What the memory must be like that the routine gets in which the driver
    /// is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        if !self.is_faulty() {
            return Shape::default();
        }
        self.state.borrow().faults.shape
    }

    /// How often the site of each fault was passed, and how often
    /// it was injected.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        self.state.borrow().faults.tallies.clone()
    }
}

/// A bit for each kind of site at which there is a fault.
fn sites(faults: &[Fault]) -> u32 {
    faults.iter().fold(0, |bits, fault| bits | fault.at.bit())
}
