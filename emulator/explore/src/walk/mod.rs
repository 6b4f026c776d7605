//! One worker's walk through the schedules of a unit.

mod subject;
#[cfg(test)]
mod tests;

pub(crate) use subject::{Subject, Walked};

use crate::defect::{Deviation, Judge, What, is_timeout};
use crate::error::ExploreError;
use crate::{Explored, Unit};
use journal::event::End;
use machine::vm::RunLimit;
use scenario::Choice;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No run takes longer by the host's clock, what others take in between left
/// out; one that does says nothing.
const RUN_TIME: Duration = Duration::from_secs(20);

/// A machine that walks.
pub(crate) struct Walker<'a, M: Walked> {
    machine: M,
    /// What the run says so far, and how much of its journal that is.
    judge: Judge,
    read: usize,
    stop: &'a AtomicBool,
    reduce: bool,
    /// The machine before anything.
    start: Point<M::Moment>,
    /// States of the default order: they are explored with every deviation
    /// that is allowed at all.
    trunk: HashMap<Key, u32>,
    /// The default order up to the unit walked last, so that the next need
    /// not begin anew.
    cursor: Option<Cursor<M::Moment>>,
    /// Why the default order says too little, if it does.
    unfinished: Option<String>,
}

/// Two runs that have the same key go on alike, and what is found in one from
/// there on is found in the other: digests of the machine, of what the ledger
/// remembers, and of the scenario's decisions that are still to come.
type Key = (u128, u128, u64);

/// A moment to come back to.
#[derive(Clone)]
struct Point<P> {
    moment: P,
    judge: Judge,
    read: usize,
}

struct Cursor<P> {
    /// The next choice's number.
    choices: u64,
    point: Point<P>,
}

/// The walk was stopped from outside; the unit counts for nothing.
pub(crate) struct Stopped;

enum Ended {
    /// The run's own end.
    AtItsEnd,
    /// Equivalent to another from here on.
    Cut,
}

impl<'a, M: Walked> Walker<'a, M> {
    pub fn new(machine: M, reduce: bool, stop: &'a AtomicBool) -> Result<Self, ExploreError> {
        let judge = Judge::new();
        let start = Point {
            moment: machine.save()?,
            judge: judge.clone(),
            read: HEADER,
        };
        Ok(Self {
            machine,
            judge,
            read: HEADER,
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
        self.listen(&mut explored.places);
        loop {
            if self.reduce && self.machine.may_choose() {
                let key = self.key()?;
                self.trunk.insert(key, u32::MAX);
            }
            let (made, end) = self.step(&mut spent, &mut explored.places)?;
            explored.steps += 1;
            choices.extend(made);
            if end.is_some() {
                break;
            }
        }
        self.take_in(&[], &mut explored);
        let late = || format!("it takes more than {} s", RUN_TIME.as_secs());
        let unfinished = self.judge.unfinished().map(str::to_owned);
        self.unfinished = unfinished.or_else(|| self.judge.timeout().then(late));
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
                self.restore(&cursor.point, &[])?;
                self.cursor = Some(cursor);
            }
            None => {
                let start = self.start.clone();
                self.restore(&start, &[])?;
            }
        }
        let mut spent = Duration::ZERO;
        // The default order is a unit of its own, which tells of them.
        let mut places = BTreeSet::new();
        loop {
            let before = self.machine.choices();
            let point = if self.machine.may_choose() {
                Some(self.point()?)
            } else {
                None
            };
            let (_, end) = self.step(&mut spent, &mut places)?;
            if self.machine.choices() > number {
                // A choice outside what `may_choose` foresees has no snapshot
                // before it; there is none such but random bytes.
                let point = point.ok_or(ExploreError::NotDeterministic {
                    choice: number,
                    why: "it was made where none could be",
                })?;
                self.restore(&point, &[])?;
                self.cursor = Some(Cursor {
                    choices: before,
                    point,
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
        seen: &mut HashMap<Key, u32>,
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
            let point = if left > 0 && may_choose {
                Some(self.point()?)
            } else {
                None
            };
            let (made, end) = self.step(&mut spent, &mut explored.places)?;
            explored.steps += 1;
            let timeout = end.as_ref().is_some_and(is_timeout);
            let branches: Vec<Choice> = made
                .into_iter()
                .filter(|choice| choice.number > last && branches(choice))
                .collect();
            explored.choices += branches.len() as u64;
            // A run that the clock ended does not end so again.
            if let Some(point) = point.filter(|_| !branches.is_empty() && !timeout) {
                for choice in branches {
                    let Some(what) = What::of(choice.point) else {
                        continue;
                    };
                    for take in (0..choice.options).filter(|take| *take != choice.taken) {
                        let mut longer = schedule.clone();
                        longer.push(Deviation {
                            number: choice.number,
                            take,
                            what,
                            at: Some(choice.time),
                        });
                        self.restore(&point, &longer)?;
                        if let Err(stopped) = self.walk(longer, left - 1, seen, explored)? {
                            return Ok(Err(stopped));
                        }
                    }
                }
                // Back to where this schedule was.
                self.restore(&point, &schedule)?;
                let (_, again) = self.step(&mut Duration::default(), &mut explored.places)?;
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
        self.take_in(&schedule, explored);
        Ok(Ok(()))
    }

    /// Was this state explored with as many deviations left?
    fn known(&self, left: u32, seen: &mut HashMap<Key, u32>) -> Result<bool, ExploreError> {
        let key = self.key()?;
        // The trunk has one deviation more left than any schedule.
        if self.trunk.contains_key(&key) {
            return Ok(true);
        }
        let best = seen.entry(key).or_insert(0);
        // 0 is "not yet": what is left is stored with one added.
        if *best > left {
            return Ok(true);
        }
        *best = left + 1;
        Ok(false)
    }

    fn key(&self) -> Result<Key, ExploreError> {
        Ok((
            self.machine.digest()?,
            self.judge.digest(),
            self.still_decided(),
        ))
    }

    /// The scenario's own decisions about choices that are still to come, as
    /// a digest; 0 if there is none. Equal states may have come to another
    /// number of choices, so they count from here.
    fn still_decided(&self) -> u64 {
        let next = self.machine.choices();
        let to_come = self.machine.plan().choices.range(next..);
        let bytes: Vec<u8> = to_come
            .flat_map(|(number, take)| [number - next, u64::from(*take)])
            .flat_map(u64::to_le_bytes)
            .collect();
        match bytes.is_empty() {
            true => 0,
            false => xxhash_rust::xxh3::xxh3_64(&bytes) | 1,
        }
    }

    /// Take in what is wrong in the run so far.
    fn take_in(&self, schedule: &[Deviation], explored: &mut Explored) {
        explored.timeouts += u64::from(self.judge.timeout());
        for (key, defect) in self.judge.defects(schedule) {
            explored.keep(key, defect);
        }
    }

    /// One step of a run that has taken `spent` of the host's time so far: a
    /// driver that polls for ever traps for ever, so it is the run that has a
    /// limit.
    fn step(
        &mut self,
        spent: &mut Duration,
        places: &mut BTreeSet<u64>,
    ) -> Result<(Vec<Choice>, Option<End>), ExploreError> {
        let began = Instant::now();
        let limit = RunLimit {
            deadline: Some(began + RUN_TIME.saturating_sub(*spent)),
            stop: None,
        };
        let stepped = self.machine.step(&limit)?;
        self.listen(places);
        *spent += began.elapsed();
        Ok(stepped)
    }

    /// Take in what the journal has more.
    fn listen(&mut self, places: &mut BTreeSet<u64>) {
        let records = self.machine.since(self.read);
        self.read = self.machine.told();
        self.judge.take(&records, places);
    }

    fn point(&self) -> Result<Point<M::Moment>, ExploreError> {
        Ok(Point {
            moment: self.machine.save()?,
            judge: self.judge.clone(),
            read: self.read,
        })
    }

    fn restore(
        &mut self,
        to: &Point<M::Moment>,
        schedule: &[Deviation],
    ) -> Result<(), ExploreError> {
        self.machine.restore(&to.moment)?;
        self.judge.clone_from(&to.judge);
        self.read = to.read;
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
fn branches(choice: &Choice) -> bool {
    What::of(choice.point).is_some()
}
