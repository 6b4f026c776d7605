//! One worker's walk through the schedules of a unit.

use crate::defect::{Deviation, What, is_timeout, judge};
use crate::error::ExploreError;
use crate::{Explored, Unit};
use journal::Journal;
use journal::event::End;
use machine::vm::RunLimit;
use machine::{Machine, Options, Snapshot};
use scenario::Choice;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No run takes longer by the host's clock, what others take in between left
/// out; one that does says nothing.
const RUN_TIME: Duration = Duration::from_secs(20);

/// A driver and how it is run.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub driver: &'a [u8],
    pub name: &'a str,
    pub options: &'a Options,
}

/// A machine that walks.
pub(crate) struct Walker<'a> {
    machine: Machine,
    stop: &'a AtomicBool,
    reduce: bool,
    /// The machine before anything.
    start: Snapshot,
    /// States of the default order: they are explored with every deviation
    /// that is allowed at all.
    trunk: HashMap<u128, u32>,
    /// The default order up to the unit walked last, so that the next need
    /// not begin anew.
    cursor: Option<Cursor>,
    /// Why the default order says too little, if it does.
    unfinished: Option<String>,
}

struct Cursor {
    /// The next choice's number.
    choices: u64,
    snapshot: Snapshot,
}

/// The walk was stopped from outside; the unit counts for nothing.
pub(crate) struct Stopped;

enum Ended {
    /// The run's own end.
    AtItsEnd,
    /// Equivalent to another from here on.
    Cut,
}

impl<'a> Walker<'a> {
    pub fn new(
        subject: Subject<'_>,
        reduce: bool,
        stop: &'a AtomicBool,
    ) -> Result<Self, ExploreError> {
        let machine = Machine::new(
            subject.driver,
            subject.name,
            subject.options,
            Journal::in_memory(),
        )?;
        let start = machine.save()?;
        Ok(Self {
            machine,
            stop,
            reduce,
            start,
            trunk: HashMap::new(),
            cursor: None,
            unfinished: None,
        })
    }

    /// Run the default order: what it gave, and its choices.
    pub fn trunk(&mut self) -> Result<(Explored, Vec<Choice>), ExploreError> {
        let start = self.start.clone();
        self.restore(&start, &[])?;
        let mut explored = Explored {
            runs: 1,
            ..Explored::default()
        };
        let mut choices = Vec::new();
        let mut spent = Duration::ZERO;
        loop {
            if self.reduce && self.machine.may_choose() {
                self.trunk.insert(self.machine.digest()?, u32::MAX);
            }
            let (made, end) = self.step(&mut spent)?;
            explored.steps += 1;
            choices.extend(made);
            if end.is_some() {
                break;
            }
        }
        self.unfinished = self.judge(&[], &mut explored);
        explored.choices = choices.len() as u64;
        explored.states = self.trunk.len() as u64;
        Ok((explored, choices))
    }

    /// Why the default order, once it was run, is none to deviate from.
    pub fn unfinished(&self) -> Option<String> {
        self.unfinished.clone()
    }

    /// Walk a unit.
    pub fn unit(&mut self, unit: Unit) -> Result<Result<Explored, Stopped>, ExploreError> {
        let mut explored = Explored::default();
        let Some(first) = unit.first else {
            return Ok(Ok(self.trunk()?.0));
        };
        self.go_to(first.number)?;
        let schedule = vec![first];
        self.decide(&schedule);
        let left = unit.bound.saturating_sub(1);
        let mut seen = HashMap::new();
        let walked = self.walk(schedule, left, &mut seen, &mut explored)?;
        explored.states = seen.len() as u64;
        Ok(walked.map(|()| explored))
    }

    /// Bring the machine to the step of the default order that makes choice
    /// `number`.
    fn go_to(&mut self, number: u64) -> Result<(), ExploreError> {
        match self.cursor.take().filter(|cursor| cursor.choices <= number) {
            Some(cursor) => {
                self.restore(&cursor.snapshot, &[])?;
                self.cursor = Some(cursor);
            }
            None => {
                let start = self.start.clone();
                self.restore(&start, &[])?;
            }
        }
        let mut spent = Duration::ZERO;
        loop {
            let before = self.machine.choices();
            let snapshot = if self.machine.may_choose() {
                Some(self.machine.save()?)
            } else {
                None
            };
            let (_, end) = self.step(&mut spent)?;
            if self.machine.choices() > number {
                // A choice outside what `may_choose` foresees has no snapshot
                // before it; there is none such but random bytes.
                let snapshot = snapshot.ok_or(ExploreError::NotDeterministic {
                    choice: number,
                    why: "it was made where none could be",
                })?;
                self.restore(&snapshot, &[])?;
                self.cursor = Some(Cursor {
                    choices: before,
                    snapshot,
                });
                return Ok(());
            }
            if end.is_some() {
                return Err(ExploreError::NotDeterministic {
                    choice: number,
                    why: "the run ended before it",
                });
            }
        }
    }

    /// Run from here by `schedule`, and before that every schedule with up to
    /// `left` deviations more.
    fn walk(
        &mut self,
        schedule: Vec<Deviation>,
        left: u32,
        seen: &mut HashMap<u128, u32>,
        explored: &mut Explored,
    ) -> Result<Result<(), Stopped>, ExploreError> {
        explored.runs += 1;
        let last = schedule.last().map_or(0, |deviation| deviation.number);
        let mut spent = Duration::ZERO;
        let ended = loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Err(Stopped));
            }
            let may_choose = self.machine.may_choose();
            let passed = self.machine.choices() > last;
            if self.reduce && may_choose && passed && self.known(left, seen)? {
                break Ended::Cut;
            }
            let snapshot = if left > 0 && may_choose {
                Some(self.machine.save()?)
            } else {
                None
            };
            let (made, end) = self.step(&mut spent)?;
            explored.steps += 1;
            let timeout = end.as_ref().is_some_and(is_timeout);
            let branches: Vec<Choice> = made
                .into_iter()
                .filter(|choice| choice.number > last && branches(choice))
                .collect();
            explored.choices += branches.len() as u64;
            // A run that the clock ended does not end so again.
            if let Some(snapshot) = snapshot.filter(|_| !branches.is_empty() && !timeout) {
                for choice in branches {
                    let Some(what) = What::of(choice.point) else {
                        continue;
                    };
                    for take in 1..choice.options {
                        let mut longer = schedule.clone();
                        longer.push(Deviation {
                            number: choice.number,
                            take,
                            what,
                            at: Some(choice.time),
                        });
                        self.restore(&snapshot, &longer)?;
                        if let Err(stopped) = self.walk(longer, left - 1, seen, explored)? {
                            return Ok(Err(stopped));
                        }
                    }
                }
                // Back to where this schedule was.
                self.restore(&snapshot, &schedule)?;
                let (_, again) = self.step(&mut Duration::default())?;
                if again != end {
                    return Err(ExploreError::NotDeterministic {
                        choice: self.machine.choices(),
                        why: "it ended another way",
                    });
                }
            }
            if end.is_some() {
                break Ended::AtItsEnd;
            }
        };
        explored.cut += u64::from(matches!(ended, Ended::Cut));
        self.judge(&schedule, explored);
        Ok(Ok(()))
    }

    /// Was this state explored with as many deviations left?
    fn known(&self, left: u32, seen: &mut HashMap<u128, u32>) -> Result<bool, ExploreError> {
        let digest = self.machine.digest()?;
        // The trunk has one deviation more left than any schedule.
        if self.trunk.contains_key(&digest) {
            return Ok(true);
        }
        let best = seen.entry(digest).or_insert(0);
        // 0 is "not yet": what is left is stored with one added.
        if *best > left {
            return Ok(true);
        }
        *best = left + 1;
        Ok(false)
    }

    /// Take in what the run's journal says; why it is unfinished, if it is.
    fn judge(&self, schedule: &[Deviation], explored: &mut Explored) -> Option<String> {
        let records = self.machine.journal().since(HEADER);
        let judged = judge(&records, schedule);
        explored.timeouts += u64::from(judged.timeout);
        explored.places.extend(judged.places);
        for (key, defect) in judged.defects {
            explored.keep(key, defect);
        }
        judged.unfinished.or_else(|| {
            let late = || format!("it takes more than {} s", RUN_TIME.as_secs());
            judged.timeout.then(late)
        })
    }

    /// One step of a run that has taken `spent` of the host's time so far: a
    /// driver that polls for ever traps for ever, so it is the run that has a
    /// limit.
    fn step(&mut self, spent: &mut Duration) -> Result<(Vec<Choice>, Option<End>), ExploreError> {
        let began = Instant::now();
        let limit = RunLimit {
            deadline: Some(began + RUN_TIME.saturating_sub(*spent)),
            stop: None,
        };
        self.machine.watch_choices();
        let end = self.machine.step(&limit)?;
        *spent += began.elapsed();
        Ok((self.machine.watch_choices(), end))
    }

    fn restore(&mut self, to: &Snapshot, schedule: &[Deviation]) -> Result<(), ExploreError> {
        self.machine.restore(to)?;
        self.decide(schedule);
        Ok(())
    }

    fn decide(&self, schedule: &[Deviation]) {
        let mut decided: BTreeMap<u64, u32> = self.machine.plan().choices.clone();
        decided.extend(schedule.iter().map(|d| (d.number, d.take)));
        self.machine.decide(decided);
    }
}

/// Bytes before the first record of a journal.
const HEADER: usize = 8;

/// Is this a choice of a schedule?
pub(crate) fn branches(choice: &Choice) -> bool {
    What::of(choice.point).is_some()
}
