//! What is walked.

use crate::error::ExploreError;
use journal::event::End;
use journal::{Journal, Record};
use machine::vm::RunLimit;
use machine::{Machine, Options, Snapshot};
use scenario::{Choice, Plan};
use std::collections::BTreeMap;

/// A driver and how it is run.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub driver: &'a [u8],
    pub name: &'a str,
    pub options: &'a Options,
}

impl Subject<'_> {
    /// A machine before anything.
    pub fn machine(&self) -> Result<Machine, ExploreError> {
        let journal = Journal::in_memory();
        Ok(Machine::new(self.driver, self.name, self.options, journal)?)
    }
}

/// A machine, or in tests what behaves as one.
pub(crate) trait Walked {
    /// A moment of it.
    type Moment: Clone;

    fn save(&self) -> Result<Self::Moment, ExploreError>;
    fn restore(&mut self, to: &Self::Moment) -> Result<(), ExploreError>;
    /// Go on by a step: the choices in it, and the end if it was the last.
    fn step(&mut self, limit: &RunLimit<'_>) -> Result<(Vec<Choice>, Option<End>), ExploreError>;
    /// Could the next step choose?
    fn may_choose(&self) -> bool;
    /// How many choices were made so far.
    fn choices(&self) -> u64;
    /// Deviate here and nowhere else from now on.
    fn decide(&self, choices: BTreeMap<u64, u32>);
    /// Of what the future depends on.
    fn digest(&self) -> Result<u128, ExploreError>;
    fn plan(&self) -> &Plan;
    /// The journal's length.
    fn told(&self) -> usize;
    /// Its records from a length on.
    fn since(&self, from: usize) -> Vec<Record>;
}

impl Walked for Machine {
    type Moment = Snapshot;

    fn save(&self) -> Result<Snapshot, ExploreError> {
        Ok(Self::save(self)?)
    }

    fn restore(&mut self, to: &Snapshot) -> Result<(), ExploreError> {
        Ok(Self::restore(self, to)?)
    }

    fn step(&mut self, limit: &RunLimit<'_>) -> Result<(Vec<Choice>, Option<End>), ExploreError> {
        self.watch_choices();
        let end = Self::step(self, limit)?;
        Ok((self.watch_choices(), end))
    }

    fn may_choose(&self) -> bool {
        Self::may_choose(self)
    }

    fn choices(&self) -> u64 {
        Self::choices(self)
    }

    fn decide(&self, choices: BTreeMap<u64, u32>) {
        Self::decide(self, choices);
    }

    fn digest(&self) -> Result<u128, ExploreError> {
        Ok(Self::digest(self)?)
    }

    fn plan(&self) -> &Plan {
        Self::plan(self)
    }

    fn told(&self) -> usize {
        self.journal().len()
    }

    fn since(&self, from: usize) -> Vec<Record> {
        self.journal().since(from)
    }
}
