//! Sharing units among workers.

use crate::defect::{Deviation, What};
use crate::error::ExploreError;
use crate::results::Results;
use crate::walk::{Left, Subject, Trunk, Walk, Walker};
use crate::{Bounds, Explored, Unit};
use machine::{Machine, Options};
use scenario::Choice;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far it is, for a progress bar; read while the workers write.
#[derive(Debug, Default)]
pub struct Progress {
    /// Schedules run.
    pub runs: AtomicU64,
    /// Those that were cut off.
    pub cut: AtomicU64,
    /// Units of the bound under way that are done.
    pub units: AtomicU64,
    /// How many there are.
    pub of: AtomicU64,
    /// The bound under way.
    pub bound: AtomicU64,
    /// Distinct defects so far.
    pub defects: AtomicU64,
    /// Places of driver code seen.
    pub places: AtomicU64,
    /// Distinct states met where something was to choose.
    pub states: AtomicU64,
    /// Functions of the driver.
    pub functions: Vec<Range<u64>>,
    /// How many of them were reached.
    pub reached: AtomicU64,
    /// Schedules run by an earlier call.
    pub earlier: AtomicU64,
    /// Milliseconds from the first look at which the bound under way began.
    began: AtomicU64,
}

impl Progress {
    /// For a driver with these functions, of which `earlier` was explored.
    #[must_use]
    pub fn of(functions: Vec<Range<u64>>, earlier: &Explored) -> Self {
        Self {
            functions,
            earlier: AtomicU64::new(earlier.runs),
            ..Self::default()
        }
    }

    /// How long the bound under way has taken, seconds. `started` is when the
    /// exploration began.
    #[must_use]
    pub fn pass_seconds(&self, started: Instant) -> f64 {
        let began = Duration::from_millis(self.began.load(Ordering::Relaxed));
        started.elapsed().saturating_sub(began).as_secs_f64()
    }

    fn show(&self, results: &Results) {
        let all = results.total();
        let store = |to: &AtomicU64, value: u64| to.store(value, Ordering::Relaxed);
        store(&self.runs, all.runs);
        store(&self.cut, all.cut);
        store(&self.defects, all.defects.len() as u64);
        store(&self.places, all.places.len() as u64);
        store(&self.states, all.states);
        let reached = crate::reached(&self.functions, &all.places);
        store(&self.reached, reached as u64);
    }
}

/// Explore a driver's schedules, and keep what each unit gave in `results`.
/// Units that `results` has already are not walked again. Returns whether all
/// of this shard was walked, or `stop` or the deadline came first.
///
/// # Errors
/// [`ExploreError`]; what was found before is in `results`.
pub fn explore(
    driver: (&[u8], &str),
    options: &Options,
    bounds: Bounds,
    workers: usize,
    (deadline, stop): (Option<Instant>, &AtomicBool),
    results: &mut Results,
    progress: &Progress,
) -> Result<bool, ExploreError> {
    let subject = Subject {
        driver: driver.0,
        name: driver.1,
        options,
    };
    let halt = AtomicBool::new(false);
    let shared = Shared {
        subject,
        bounds,
        halt: &halt,
        progress,
        results: Mutex::new(results),
        failure: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        let (done, finished) = std::sync::mpsc::channel::<()>();
        // The flag that the walkers look at: set by the user or by the clock.
        let flag = &halt;
        let watch = scope.spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let tick = Duration::from_millis(20);
            while finished.recv_timeout(tick) == Err(Timeout) {
                let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if late || stop.load(Ordering::Relaxed) {
                    flag.store(true, Ordering::Relaxed);
                }
            }
        });
        let whole = shared.all(workers);
        drop(done);
        let _ = watch.join();
        match shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(error) => Err(error),
            None => whole,
        }
    })
}

struct Shared<'a> {
    subject: Subject<'a>,
    bounds: Bounds,
    halt: &'a AtomicBool,
    progress: &'a Progress,
    results: Mutex<&'a mut Results>,
    failure: Mutex<Option<ExploreError>>,
}

impl<'r> Shared<'r> {
    /// Walk every unit; whether all were.
    fn all(&self, workers: usize) -> Result<bool, ExploreError> {
        let started = Instant::now();
        let machine = self.subject.machine()?;
        let mut first = Walker::new(machine, self.bounds.reduce, self.halt)?;
        let (walk, choices) = first.trunk()?;
        let trunk = first.default().clone();
        drop(first);
        if matches!(walk.left, Some(Left::Stopped)) {
            return Ok(false);
        }
        if let Some(why) = trunk.unfinished()
            && walk.explored.defects.is_empty()
        {
            let why = why.to_owned();
            return Err(ExploreError::Unfinished { why });
        }
        let unit = Unit {
            bound: 0,
            first: None,
        };
        if !self.keep(unit, walk)? {
            return Ok(false);
        }
        self.lock().finish(0, 1)?;
        for bound in 1..=self.bounds.deviations {
            let began = started.elapsed().as_millis() as u64;
            self.progress.began.store(began, Ordering::Relaxed);
            if !self.pass(bound, &choices, &trunk, workers) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Walk every unit of a bound; whether all were.
    fn pass(&self, bound: u32, choices: &[Choice], trunk: &Arc<Trunk>, workers: usize) -> bool {
        let units = self.units(bound, choices);
        self.progress.bound.store(bound.into(), Ordering::Relaxed);
        self.progress.units.store(0, Ordering::Relaxed);
        self.progress
            .of
            .store(units.len() as u64, Ordering::Relaxed);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..workers.clamp(1, units.len().max(1)) {
                scope.spawn(|| {
                    if let Err(error) = self.work(&units, trunk, &next) {
                        self.fail(error);
                    }
                });
            }
        });
        let mut results = self.lock();
        let whole = units.iter().all(|unit| results.has(*unit));
        if whole && let Err(error) = results.finish(bound, units.len() as u64) {
            drop(results);
            self.fail(error);
        }
        whole
    }

    /// The units of a bound and of this shard, in the order of the default
    /// run.
    fn units(&self, bound: u32, choices: &[Choice]) -> Vec<Unit> {
        let (shard, of) = self.bounds.shard;
        choices
            .iter()
            .filter_map(|choice| Some((choice, What::of(choice.point)?)))
            .flat_map(|(choice, what)| {
                let others = (0..choice.options).filter(|take| *take != choice.taken);
                others.map(move |take| Unit {
                    bound,
                    first: Some(Deviation {
                        number: choice.number,
                        take,
                        what,
                        at: Some(choice.time),
                    }),
                })
            })
            .enumerate()
            .filter(|(index, _)| *index as u64 % u64::from(of.max(1)) == u64::from(shard))
            .map(|(_, unit)| unit)
            .collect()
    }

    fn work(
        &self,
        units: &[Unit],
        trunk: &Arc<Trunk>,
        next: &AtomicUsize,
    ) -> Result<(), ExploreError> {
        let mut walker: Option<Walker<'_, Machine>> = None;
        while !self.halt.load(Ordering::Relaxed) {
            let Some(&unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            if !self.lock().has(unit) {
                let walker = match &mut walker {
                    Some(walker) => walker,
                    None => {
                        let machine = self.subject.machine()?;
                        let reduce = self.bounds.reduce;
                        walker.insert(Walker::beside(machine, trunk, reduce, self.halt)?)
                    }
                };
                let walk = walker.unit(unit)?;
                self.keep(unit, walk)?;
            }
            self.progress.units.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Keep what a unit gave; of one that took too long only what it found,
    /// so that it is walked again the next time. Whether it is done.
    fn keep(&self, unit: Unit, walk: Walk) -> Result<bool, ExploreError> {
        let mut results = self.lock();
        let done = match walk.left {
            None => {
                results.keep(unit, walk.explored)?;
                true
            }
            Some(left) => {
                let mut found = Explored {
                    defects: walk.explored.defects,
                    ..Explored::default()
                };
                if let Left::Late(schedule) = left {
                    let (why, open) = Left::open(&schedule);
                    found.timeouts = 1;
                    found.leave_open(why, open);
                }
                results.tell(found)?;
                false
            }
        };
        self.progress.show(&results);
        Ok(done)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, &'r mut Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first failure is told; it stops the others.
    fn fail(&self, error: ExploreError) {
        self.halt.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }
}
