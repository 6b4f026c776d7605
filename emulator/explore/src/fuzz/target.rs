//! A machine that runs inputs from where the driver has started.

use super::faults::{Clues, Excuse, begins_after};
use super::program::{Base, Program};
use crate::defect::{Group, Judge};
use crate::error::ExploreError;
use crate::walk::Subject;
use journal::event::Event;
use journal::{Journal, Record};
use machine::vm::RunLimit;
use machine::{Machine, MachineError, Options, Snapshot};
use scenario::{AnswerOf, Hex, Plan, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Buckets of the coverage map.
pub(crate) const MAP: usize = 1 << 14;
/// Steps after which a run is given up.
const MAX_STEPS: u64 = 20_000;
/// Pages of the device's that are kept to aim faults at.
const MAX_PAGES: usize = 1024;
/// No run takes longer by the host's clock; one that does says nothing.
const RUN_TIME: Duration = Duration::from_secs(20);

pub(crate) struct Target<'a> {
    subject: Subject<'a>,
    machine: Machine,
    /// What is run where the input says nothing.
    pub plan: Plan,
    /// A machine of its own for inputs that begin with the driver's load, and
    /// that moment: a journal goes back in one past only. Made when needed.
    fresh: Option<(Machine, Snapshot)>,
    /// The driver has started, and the first Escape comes next.
    ready: Snapshot,
    /// Where the driver's functions lie.
    functions: Vec<Range<u64>>,
    /// What the driver does while it starts.
    pub clues: Clues,
    /// Routines that were called by then, Windows' and the driver's.
    called: BTreeSet<String>,
    /// Where the journal's records begin.
    first: usize,
    pub base: Base,
}

/// What a run gave.
#[derive(Default)]
pub(crate) struct Ran {
    pub defects: Vec<Group>,
    /// What follows from faults.
    pub injected: Vec<Group>,
    /// Places of driver code seen.
    pub places: BTreeSet<u64>,
    /// The host's clock ended it, it went on for too many steps, or Windows
    /// could not go on.
    pub given_up: bool,
}

impl<'a> Target<'a> {
    /// `None` if the driver never gets to its first Escape.
    pub fn new(subject: Subject<'a>) -> Result<Option<Self>, ExploreError> {
        let plan = Plan {
            workload: vec![Step::Escape {
                data: Hex::default(),
            }],
            answers: Vec::new(),
            // That an allocation fails is a choice too.
            may_fail: true,
            ..subject.options.plan.clone()
        };
        let first = Journal::in_memory().len();
        let mut machine = machine(subject, &plan)?;
        let mut ready = None;
        while !machine.began_workload() {
            if machine.is_between_calls() {
                let base = Base {
                    choices: machine.choices(),
                    answers: AnswerOf::ALL.map(|of| machine.answers(of)),
                };
                ready = Some((machine.save()?, base, machine.now()));
            }
            if machine.step(&limit())?.is_some() {
                return Ok(None);
            }
        }
        let records = machine.journal().since(first);
        let (edids, called) = (edids(&records), called(&records));
        let mut functions = machine::functions(subject.driver)?;
        functions.sort_unstable_by_key(|function| function.start);
        Ok(ready.map(|(ready, base, started)| Self {
            subject,
            machine,
            plan,
            fresh: None,
            ready,
            functions,
            clues: Clues {
                edids,
                pages: Vec::new(),
                started,
            },
            called,
            first,
            base,
        }))
    }

    /// Run an input; `map` counts how often each pair of successive trap
    /// sites, and of a place and its caller, was met.
    pub fn run(&mut self, program: &Program, map: &mut [u8]) -> Result<Ran, ExploreError> {
        // What the driver is to meet as it starts it must start for.
        let later = |fault| {
            let called = self.called.iter().map(String::as_str);
            begins_after(fault, self.clues.started, called)
        };
        let load = !program.early.is_empty() || !program.faults.iter().all(later);
        self.run_from(program, map, load)
    }

    /// The same, from the driver's load if that is asked for.
    pub fn run_from(
        &mut self,
        program: &Program,
        map: &mut [u8],
        load: bool,
    ) -> Result<Ran, ExploreError> {
        let machine = if !load {
            self.machine.restore(&self.ready)?;
            &mut self.machine
        } else {
            let (machine, start) = match &mut self.fresh {
                Some(fresh) => fresh,
                none => {
                    let machine = machine(self.subject, &self.plan)?;
                    let start = machine.save()?;
                    none.insert((machine, start))
                }
            };
            machine.restore(start)?;
            machine
        };
        machine.replace_workload(program.steps());
        machine.decide(program.choices(&self.plan, self.base));
        machine.alter(program.answers(self.base));
        let faults = program.faults(&self.plan);
        machine.infect(faults.clone());
        let mut last = 0;
        let mut steps = 0;
        loop {
            let end = match machine.step(&limit()) {
                Ok(end) => end,
                // Windows does not get through the adapter's life with an
                // IOMMU that does not answer: that says nothing of a driver.
                Err(MachineError::Hal(_) | MachineError::Lifecycle(_)) if !faults.is_empty() => {
                    return Ok(Ran {
                        given_up: true,
                        ..Ran::default()
                    });
                }
                Err(error) => return Err(error.into()),
            };
            let here = machine.goes_on_at();
            count(map, last, here);
            last = here;
            steps += 1;
            if end.is_some() || steps == MAX_STEPS {
                break;
            }
        }
        let records = machine.journal().since(self.first);
        let mut judge = Judge::new();
        let mut places = BTreeSet::new();
        judge.take(&records, &mut places);
        let mut excuse = None;
        for record in &records {
            match &record.event {
                Event::Stack { frames, .. } => {
                    for pair in frames.windows(2) {
                        if let &[place, caller] = pair {
                            count(map, place, !caller);
                        }
                    }
                }
                Event::Injected { fault, .. } => {
                    excuse = excuse.max(faults.get(*fault as usize).map(Excuse::of));
                }
                _ => {}
            }
        }
        let groups = judge.groups(&self.functions).into_iter();
        let (injected, defects) = groups.partition(|group| {
            group.injected
                || match excuse {
                    None | Some(Excuse::Nothing) => false,
                    Some(Excuse::Accesses) => !group.own_act,
                    Some(Excuse::Everything) => true,
                }
        });
        Ok(Ran {
            defects,
            injected,
            given_up: judge.timeout() || steps == MAX_STEPS,
            places,
        })
    }

    /// The scenario that does what an input does, from the start.
    pub fn plan(&self, program: &Program) -> Plan {
        program.plan(&self.plan, self.base)
    }
}

/// A machine that does the plan.
fn machine(subject: Subject<'_>, plan: &Plan) -> Result<Machine, ExploreError> {
    let options = Options {
        plan: plan.clone(),
        ..subject.options.clone()
    };
    Subject {
        options: &options,
        ..subject
    }
    .machine()
}

/// Names of the routines that were called, Windows' and the driver's.
fn called(records: &[Record]) -> BTreeSet<String> {
    let mut names = BTreeMap::new();
    let mut called = BTreeSet::new();
    for record in records {
        match &record.event {
            Event::Name { id, text } => {
                names.insert(*id, text);
            }
            Event::Call { function: id, .. } | Event::Enter { routine: id, .. } => {
                called.extend(names.get(id).map(|name| (*name).clone()));
            }
            _ => {}
        }
    }
    called
}

/// Which responses of the device, counted from 0, were EDIDs.
fn edids(records: &[Record]) -> Vec<u64> {
    let (mut names, mut commands) = (BTreeMap::new(), BTreeMap::new());
    let mut found = Vec::new();
    let mut responses = 0;
    for record in records {
        match &record.event {
            Event::Name { id, text } => {
                names.insert(*id, text.as_str());
            }
            Event::Command { context, name, .. } => {
                commands.insert(*context, *name);
            }
            Event::Response { context, .. } => {
                let command = commands.get(context).and_then(|name| names.get(name));
                if command.is_some_and(|name| name.contains("EDID")) {
                    found.push(responses);
                }
                responses += 1;
            }
            _ => {}
        }
    }
    found
}

/// What a scenario's workload comes to: private data of its Escapes, and the
/// pages that the device accesses.
pub(crate) fn observe(subject: Subject<'_>) -> Result<(Vec<Vec<u8>>, Vec<u64>), ExploreError> {
    let journal = Journal::in_memory();
    let mut machine = Machine::new(subject.driver, subject.name, subject.options, journal)?;
    let mut found = Vec::new();
    let mut pages = BTreeSet::new();
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
                Event::Access { iova, .. } => {
                    pages.insert(iova.0 & !0xfff);
                }
                _ => {}
            }
        }
        from = machine.journal().len();
        if end.is_some() {
            break;
        }
    }
    Ok((found, pages.into_iter().take(MAX_PAGES).collect()))
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
