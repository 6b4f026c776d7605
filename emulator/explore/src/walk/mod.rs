//! One worker's walk through the schedules of a unit.

mod left;
mod subject;
#[cfg(test)]
mod tests;

pub(crate) use left::{Left, Walk};
pub(crate) use subject::{Subject, Walked};

use crate::defect::{Deviation, Judge, What};
use crate::error::ExploreError;
use crate::{Explored, Open, Unit};
use journal::event::End;
use left::RUN_TIME;
use machine::vm::RunLimit;
use scenario::Choice;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A unit that the host's clock ends is walked once more: the host may have
/// been busy.
const TRIES: u32 = 2;

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
    trunk: Arc<Trunk>,
    /// The default order up to the unit walked last, so that the next need
    /// not begin anew.
    cursor: Option<Cursor<M::Moment>>,
}

/// The default order, which every other is compared with.
#[derive(Default)]
pub(crate) struct Trunk {
    /// Its states: they are explored with every deviation that is allowed at
    /// all.
    states: HashSet<Key>,
    /// What the driver refuses in it, by what stands for that.
    refuses: BTreeSet<String>,
    /// Why it says too little, if it does.
    unfinished: Option<String>,
}

impl Trunk {
    /// Why it is none to deviate from.
    pub fn unfinished(&self) -> Option<&str> {
        self.unfinished.as_deref()
    }
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

/// What a step of a run made: its choices, and the end if it was the last.
type Stepped = (Vec<Choice>, Option<End>);

enum Ended {
    /// The run's own end.
    AtItsEnd,
    /// Equivalent to another from here on.
    Cut,
}

impl<'a, M: Walked> Walker<'a, M> {
    pub fn new(machine: M, reduce: bool, stop: &'a AtomicBool) -> Result<Self, ExploreError> {
        let judge = Judge::by(machine.plan());
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
            trunk: Arc::default(),
            cursor: None,
        })
    }

    /// One for another worker: the default order was run already.
    pub fn beside(
        machine: M,
        trunk: &Arc<Trunk>,
        reduce: bool,
        stop: &'a AtomicBool,
    ) -> Result<Self, ExploreError> {
        Ok(Self {
            trunk: trunk.clone(),
            ..Self::new(machine, reduce, stop)?
        })
    }

    /// Run the default order: what it gave, and its choices.
    pub fn trunk(&mut self) -> Result<(Walk, Vec<Choice>), ExploreError> {
        let start = self.start.clone();
        let mut trunk = Trunk::default();
        let mut explored = Explored::default();
        let mut choices = Vec::new();
        let mut left = None;
        for _ in 0..TRIES {
            self.restore(&start, &[])?;
            (explored, choices) = (Explored::default(), Vec::new());
            explored.runs = 1;
            left = self.default_order(&mut trunk, &mut explored, &mut choices)?;
            if !matches!(left, Some(Left::Late(_))) {
                break;
            }
        }
        trunk.refuses = self.judge.refused();
        trunk.unfinished = match &left {
            Some(Left::Late(_)) => Some(Left::open(&[]).0),
            _ => self.judge.unfinished().map(str::to_owned),
        };
        explored.choices = choices.len() as u64;
        explored.states = trunk.states.len() as u64;
        self.trunk = Arc::new(trunk);
        self.take_in(&[], &mut explored);
        Ok((Walk { explored, left }, choices))
    }

    fn default_order(
        &mut self,
        trunk: &mut Trunk,
        explored: &mut Explored,
        choices: &mut Vec<Choice>,
    ) -> Result<Option<Left>, ExploreError> {
        let mut spent = Duration::ZERO;
        self.listen(&mut explored.places);
        loop {
            if self.reduce && self.machine.may_choose() {
                trunk.states.insert(self.key()?);
            }
            let (made, end) = match self.step(&mut spent, &mut explored.places)? {
                Ok(stepped) => stepped,
                Err(left) => return Ok(Some(left)),
            };
            explored.steps += 1;
            choices.extend(made);
            if end.is_some() {
                return Ok(None);
            }
        }
    }

    /// The default order, once it was run.
    pub fn default(&self) -> &Arc<Trunk> {
        &self.trunk
    }

    /// Walk a unit.
    pub fn unit(&mut self, unit: Unit) -> Result<Walk, ExploreError> {
        let Some(first) = unit.first else {
            return Ok(self.trunk()?.0);
        };
        let mut tries = 1;
        loop {
            let mut explored = Explored::default();
            let left = self.explore(unit, first, &mut explored)?.err();
            if matches!(left, Some(Left::Late(_))) && tries < TRIES {
                tries += 1;
                continue;
            }
            return Ok(Walk { explored, left });
        }
    }

    fn explore(
        &mut self,
        unit: Unit,
        first: Deviation,
        explored: &mut Explored,
    ) -> Result<Result<(), Left>, ExploreError> {
        if let Err(left) = self.go_to(first.number)? {
            return Ok(Err(left));
        }
        let schedule = vec![first];
        self.decide(&schedule);
        let left = unit.bound.saturating_sub(1);
        let mut seen = HashMap::new();
        let walked = self.walk(schedule, left, &mut seen, explored)?;
        explored.states = seen.len() as u64;
        Ok(walked)
    }

    /// Bring the machine to the step of the default order that makes choice
    /// `number`.
    fn go_to(&mut self, number: u64) -> Result<Result<(), Left>, ExploreError> {
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
            let (_, end) = match self.step(&mut spent, &mut places)? {
                Ok(stepped) => stepped,
                Err(left) => return Ok(Err(left)),
            };
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
                return Ok(Ok(()));
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
    ) -> Result<Result<(), Left>, ExploreError> {
        // Those of fewer deviations are the smaller bounds' own.
        let own = u64::from(left == 0);
        explored.runs += own;
        let last = schedule.last().map_or(0, |deviation| deviation.number);
        let mut spent = Duration::ZERO;
        let ended = loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Err(Left::Stopped));
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
            let (made, end) = match self.step(&mut spent, &mut explored.places)? {
                Ok(stepped) => stepped,
                Err(left) => return Ok(Err(left.of(&schedule))),
            };
            explored.steps += 1;
            let branches: Vec<Choice> = made
                .into_iter()
                .filter(|choice| choice.number > last && branches(choice))
                .collect();
            explored.choices += own * branches.len() as u64;
            if let Some(point) = point.filter(|_| !branches.is_empty()) {
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
                        if let Err(why) = self.walk(longer, left - 1, seen, explored)? {
                            return Ok(Err(why));
                        }
                    }
                }
                // Back to where this schedule was.
                self.restore(&point, &schedule)?;
                let mut anew = Duration::ZERO;
                let (_, again) = match self.step(&mut anew, &mut explored.places)? {
                    Ok(stepped) => stepped,
                    Err(left) => return Ok(Err(left.of(&schedule))),
                };
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
        explored.cut += own * u64::from(matches!(ended, Ended::Cut));
        self.take_in(&schedule, explored);
        Ok(Ok(()))
    }

    /// Was this state explored with as many deviations left?
    fn known(&self, left: u32, seen: &mut HashMap<Key, u32>) -> Result<bool, ExploreError> {
        let key = self.key()?;
        // The trunk has one deviation more left than any schedule.
        if self.trunk.states.contains(&key) {
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
        explored.fired.extend(self.judge.fired());
        if let Some(why) = self.judge.unsupported() {
            let schedule = schedule.to_vec();
            explored.leave_open(why.to_owned(), Open { runs: 1, schedule });
        }
        for (key, defect) in self.judge.defects(schedule, &self.trunk.refuses) {
            explored.keep(key, defect);
        }
    }

    /// One step of a run that has taken `spent` of the host's time so far: a
    /// driver that polls for ever traps for ever, so it is the run that has a
    /// limit. A run that is left is not to be stepped on.
    fn step(
        &mut self,
        spent: &mut Duration,
        places: &mut BTreeSet<u64>,
    ) -> Result<Result<Stepped, Left>, ExploreError> {
        let began = Instant::now();
        let limit = RunLimit {
            deadline: Some(began + RUN_TIME.saturating_sub(*spent)),
            stop: Some(self.stop),
        };
        let stepped = self.machine.step(&limit)?;
        match stepped.1 {
            Some(End::Interrupted) => return Ok(Err(Left::Stopped)),
            Some(End::OutOfTime { .. }) => return Ok(Err(Left::Late(Vec::new()))),
            _ => {}
        }
        self.listen(places);
        *spent += began.elapsed();
        Ok(Ok(stepped))
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
