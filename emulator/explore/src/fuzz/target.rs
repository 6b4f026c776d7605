//! A machine that runs inputs from where the driver has started.

use super::program::{Base, Program};
use crate::defect::{Defect, judge};
use crate::error::ExploreError;
use crate::walk::Subject;
use journal::Journal;
use journal::event::Event;
use machine::vm::RunLimit;
use machine::{Machine, Options, Snapshot};
use scenario::{AnswerOf, Hex, Plan, Step};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Buckets of the coverage map.
pub(crate) const MAP: usize = 1 << 14;
/// Steps after which a run is given up.
const MAX_STEPS: u64 = 20_000;
/// No run takes longer by the host's clock; one that does says nothing.
const RUN_TIME: Duration = Duration::from_secs(20);

pub(crate) struct Target {
    machine: Machine,
    /// What is run where the input says nothing.
    plan: Plan,
    /// The driver has started, and the first Escape comes next.
    ready: Snapshot,
    /// Where the journal's records begin.
    first: usize,
    pub base: Base,
}

/// What a run gave.
#[derive(Default)]
pub(crate) struct Ran {
    /// By identity.
    pub defects: Vec<(String, Defect)>,
    /// Places of driver code seen.
    pub places: BTreeSet<u64>,
    /// The host's clock ended it, or it went on for too many steps.
    pub given_up: bool,
}

impl Target {
    /// `None` if the driver never gets to its first Escape.
    pub fn new(subject: Subject<'_>) -> Result<Option<Self>, ExploreError> {
        let plan = Plan {
            workload: vec![Step::Escape {
                data: Hex::default(),
            }],
            answers: Vec::new(),
            ..subject.options.plan.clone()
        };
        let options = Options {
            plan: plan.clone(),
            ..subject.options.clone()
        };
        let journal = Journal::in_memory();
        let first = journal.len();
        let mut machine = Machine::new(subject.driver, subject.name, &options, journal)?;
        let mut ready = None;
        while !machine.began_workload() {
            if machine.is_between_calls() {
                let base = Base {
                    choices: machine.choices(),
                    answers: AnswerOf::ALL.map(|of| machine.answers(of)),
                };
                ready = Some((machine.save()?, base));
            }
            if machine.step(&limit())?.is_some() {
                return Ok(None);
            }
        }
        Ok(ready.map(|(ready, base)| Self {
            machine,
            plan,
            ready,
            first,
            base,
        }))
    }

    /// Run an input; `map` counts how often each pair of successive trap
    /// sites, and of a place and its caller, was met.
    pub fn run(&mut self, program: &Program, map: &mut [u8]) -> Result<Ran, ExploreError> {
        let machine = &mut self.machine;
        machine.restore(&self.ready)?;
        machine.replace_workload(program.steps());
        machine.decide(program.choices(&self.plan, self.base));
        machine.alter(program.answers(self.base));
        let mut last = 0;
        let mut steps = 0;
        loop {
            let end = machine.step(&limit())?;
            let here = machine.goes_on_at();
            count(map, last, here);
            last = here;
            steps += 1;
            if end.is_some() || steps == MAX_STEPS {
                break;
            }
        }
        let records = machine.journal().since(self.first);
        let judged = judge(&records, &[]);
        for record in &records {
            if let Event::Stack { frames, .. } = &record.event {
                for pair in frames.windows(2) {
                    if let &[place, caller] = pair {
                        count(map, place, !caller);
                    }
                }
            }
        }
        Ok(Ran {
            defects: judged.defects,
            places: judged.places,
            given_up: judged.timeout || steps == MAX_STEPS,
        })
    }

    /// The scenario that does what an input does, from the start.
    pub fn plan(&self, program: &Program) -> Plan {
        program.plan(&self.plan, self.base)
    }
}

/// Private data of the Escapes that a scenario's workload comes to.
pub(crate) fn escapes(subject: Subject<'_>) -> Result<Vec<Vec<u8>>, ExploreError> {
    let journal = Journal::in_memory();
    let mut machine = Machine::new(subject.driver, subject.name, subject.options, journal)?;
    let mut found = Vec::new();
    let mut from = machine.journal().len();
    let mut escape = None;
    for _ in 0..MAX_STEPS {
        let end = machine.step(&limit())?;
        for record in machine.journal().since(from) {
            match record.event {
                Event::Name { id, text } if text == ESCAPE => escape = Some(id),
                Event::Enter { routine, .. } if Some(routine) == escape => {
                    found.extend(machine.escape_data());
                }
                _ => {}
            }
        }
        from = machine.journal().len();
        if end.is_some() {
            break;
        }
    }
    Ok(found)
}

const ESCAPE: &str = "DxgkDdiEscape";

fn limit() -> RunLimit<'static> {
    RunLimit {
        deadline: Some(Instant::now() + RUN_TIME),
        stop: None,
    }
}

/// A pair was met.
fn count(map: &mut [u8], from: u64, to: u64) {
    // As splitmix64 spreads: the places of a driver differ in few bits.
    let mut hash = from.rotate_left(32) ^ to;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    if let Some(bucket) = map.get_mut((hash >> 40) as usize % MAP) {
        *bucket = bucket.saturating_add(1);
    }
}
