//! Searches the orders of device against driver for those that show a
//! defect, and gives the shortest.
//!
//! A *schedule* is the default order with at most `bound` deviations, each at
//! a choice of the scenario: the device waits or runs ahead, an interrupt or
//! a DPC comes late, another thread gets the CPU, an allocation fails. (As
//! CHESS bounds preemptions: Musuvathi and Qadeer, PLDI 2007.)
//!
//! The search is depth-first from snapshots, and deepens step by step: every
//! schedule of one deviation comes before any of two, so that what is found
//! first is shortest. It is cut into [`Unit`]s, one for each first deviation,
//! which are independent of each other: results do not depend on how many
//! workers share them, on the order in which these finish, or on the shard
//! that a unit falls into.
//!
//! Two schedules are equivalent from the moment at which the whole machine is
//! in the same state ([`machine::Machine::digest`]), the ledger remembers the
//! same of what later findings depend on ([`ledger::Ledger::digest`]) and the
//! scenario has the same decisions left: the second is cut off there if the
//! first was explored with as many deviations left. Independent actions
//! commute into the same state, so this is a partial-order reduction that
//! needs no footprint of anybody's, and cannot be wrong about one.
#![forbid(unsafe_code)]

mod asked;
mod defect;
mod error;
pub mod fuzz;
mod merge;
mod pool;
mod results;
#[cfg(test)]
mod tests;
mod told;
mod walk;

pub use defect::{Defect, Deviation, What};
pub use error::ExploreError;
pub use merge::{Gap, Gaps, Merged, merge};
pub use pool::{Progress, explore};
pub use results::{Header, Line, Results, Whole};
pub use told::{Extent, idle, json, junit};

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The digest by which a driver is known: XXH3-128, as hexadecimal digits.
#[must_use]
pub fn digest(driver: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(driver))
}

/// How many of the functions have one of the places in them.
#[must_use]
pub fn reached(functions: &[Range<u64>], places: &BTreeSet<u64>) -> usize {
    let met = |function: &&Range<u64>| {
        function.start < function.end && places.range((*function).clone()).next().is_some()
    };
    functions.iter().filter(met).count()
}

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Most deviations of a schedule.
    pub deviations: u32,
    /// Cut off schedules that have become equivalent to others? Without, it
    /// is the measure of what that saves.
    pub reduce: bool,
    /// This shard, from 0, and how many there are.
    pub shard: (u32, u32),
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            deviations: 2,
            reduce: true,
            shard: (0, 1),
        }
    }
}

/// A piece of the search: all schedules that begin with this deviation, up to
/// a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unit {
    /// Most deviations of its schedules, this one with them.
    pub bound: u32,
    /// The first; `None` for the default order itself.
    pub first: Option<Deviation>,
}

/// Runs that say nothing of what comes after some moment in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// How many there are.
    pub runs: u64,
    /// The shortest schedule of one.
    pub schedule: Vec<Deviation>,
}

impl Open {
    /// The same in a sentence, with why.
    #[must_use]
    pub fn words(&self, why: &str) -> String {
        let by = match self.schedule.as_slice() {
            [] => "the default order".to_owned(),
            schedule => {
                let words = schedule
                    .iter()
                    .map(|of| format!("choice {}: {}", of.number, of.words()));
                words.collect::<Vec<_>>().join(", ")
            }
        };
        match self.runs {
            1 => format!("a run was not followed to its end ({by}): {why}"),
            runs => format!("{runs} runs were not followed to their end (first {by}): {why}"),
        }
    }
}

/// What exploring a unit gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explored {
    /// Schedules that were run, to their end or to where they were cut off,
    /// each once: a unit counts those of as many deviations as its bound.
    pub runs: u64,
    /// Those that were cut off, being equivalent to others from there on.
    pub cut: u64,
    /// Steps of the machine.
    pub steps: u64,
    /// Choices met.
    pub choices: u64,
    /// Distinct states met where something was to choose, in this unit.
    pub states: u64,
    /// Units that the host's clock ended: they are no result, and no file has
    /// them.
    pub timeouts: u64,
    /// Runs that could not be followed to their end, by why not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub open: BTreeMap<String, Open>,
    /// The scenario's faults that were injected in any run, from 0; after
    /// them the answers that were written over.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub fired: BTreeSet<u32>,
    /// The defects, by their identity; each with its shortest schedule.
    pub defects: BTreeMap<String, Defect>,
    /// Addresses of driver code seen: trap sites and their callers.
    pub places: BTreeSet<u64>,
}

impl Explored {
    /// Take in what another unit gave.
    pub fn add(&mut self, other: Self) {
        // A file of results may say any number.
        let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
        add(&mut self.runs, other.runs);
        add(&mut self.cut, other.cut);
        add(&mut self.steps, other.steps);
        add(&mut self.choices, other.choices);
        add(&mut self.states, other.states);
        add(&mut self.timeouts, other.timeouts);
        self.places.extend(other.places);
        self.fired.extend(other.fired);
        for (why, open) in other.open {
            self.leave_open(why, open);
        }
        for (key, defect) in other.defects {
            self.keep(key, defect);
        }
    }

    /// Runs could not be followed to their end.
    pub(crate) fn leave_open(&mut self, why: String, open: Open) {
        let Some(known) = self.open.get_mut(&why) else {
            self.open.insert(why, open);
            return;
        };
        known.runs = known.runs.saturating_add(open.runs);
        let order = |schedule: &[Deviation]| (schedule.len(), schedule.to_vec());
        if order(&open.schedule) < order(&known.schedule) {
            known.schedule = open.schedule;
        }
    }

    /// Keep a defect, if it is new or its schedule is shorter.
    pub(crate) fn keep(&mut self, key: String, defect: Defect) {
        match self.defects.get_mut(&key) {
            Some(known) if known.order() <= defect.order() => {}
            Some(known) => *known = defect,
            None => {
                self.defects.insert(key, defect);
            }
        }
    }
}
