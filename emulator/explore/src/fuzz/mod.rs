//! Fuzzing a driver: what programs send it, what the device answers, and the
//! order of the two, guided by how much of the driver's code is met.
//!
//! An input (`program`) is the private data of a few Escapes, answers of
//! the device that are written over, deviations from the default order,
//! allocations that fail, times at which the adapter is put to D3 and back,
//! and faults of Windows, IOMMU and device (`faults`). Each runs from one
//! snapshot, made when the driver had started (`target`), to its unload; one
//! that is about the start, by an answer or a fault, runs from before that.
//! The engine is LibAFL (`engine`): corpus, scheduling,
//! mutation at random; mutations that know the structure are ours
//! (`mutate`). Coverage is a map of pairs of successive trap sites, and of
//! places on stacks with their callers: the driver runs unchanged, so code
//! between two traps is seen by where it leads.
//!
//! What is a defect is what exploring calls one; here defects are one if
//! finding and function of the driver are, for inputs differ in all else.
//! What follows from a fault, and is nobody's defect, is counted only. Each
//! defect is made small (`minimise`), shown again from the driver's load, and
//! kept as a scenario.

mod engine;
mod faults;
mod minimise;
mod mutate;
mod program;
mod target;
#[cfg(test)]
mod tests;

use crate::error::ExploreError;
use crate::walk::Subject;
use machine::Options;
use scenario::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use target::{Ran, Target};

/// How long and how to search.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Seed of every mutation.
    pub seed: u64,
    /// End after so many runs, those that make a defect small apart. With one
    /// worker the results are the same each time.
    pub runs: Option<u64>,
    /// Workers.
    pub jobs: usize,
    /// End then.
    pub deadline: Option<Instant>,
}

/// A defect, and the small scenario that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Identifier of the finding, or `bug-check`.
    pub finding: String,
    /// What happened, in a sentence.
    pub summary: String,
    /// Where the function of the driver begins that it is in.
    pub function: Option<u64>,
    /// The scenario.
    pub plan: Plan,
}

/// What fuzzing gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fuzzed {
    /// Inputs run.
    pub runs: u64,
    /// Runs that were given up: they took too long.
    pub given_up: u64,
    /// Inputs that met something new.
    pub corpus: u64,
    /// By finding and function.
    pub defects: BTreeMap<String, Found>,
    /// What followed from injected faults and is nobody's defect: in how many
    /// runs, by identifier of the finding.
    pub injected: BTreeMap<String, u64>,
    /// Defects that were not seen again when their input ran from the
    /// driver's load, by finding and function.
    pub lost: BTreeSet<String>,
    /// Addresses of driver code seen: trap sites and their callers.
    pub places: BTreeSet<u64>,
}

/// What is to be kept at once, so that nothing is lost.
#[derive(Clone, Copy, Debug)]
pub enum Kept<'a> {
    /// An input that met something new, as a scenario.
    Interesting(&'a Plan),
    /// A defect, and what stands for it.
    Defect(&'a str, &'a Found),
}

/// How far it is, for a progress bar; read while the workers write.
#[derive(Debug, Default)]
pub struct FuzzProgress {
    /// Inputs run.
    pub runs: AtomicU64,
    /// Inputs in the corpus.
    pub corpus: AtomicU64,
    /// Distinct defects so far.
    pub defects: AtomicU64,
    /// Places of driver code seen.
    pub places: AtomicU64,
    /// Functions of the driver.
    pub functions: Vec<Range<u64>>,
    /// How many of them were reached.
    pub reached: AtomicU64,
}

impl FuzzProgress {
    /// For a driver with these functions.
    #[must_use]
    pub fn of(functions: Vec<Range<u64>>) -> Self {
        Self {
            functions,
            ..Self::default()
        }
    }
}

/// What one worker does.
#[derive(Clone, Copy, Debug)]
struct Task {
    worker: usize,
    seed: u64,
    runs: Option<u64>,
}

/// What the workers share.
struct Shared<'r> {
    halt: &'r AtomicBool,
    progress: &'r FuzzProgress,
    keep: &'r (dyn Fn(Kept<'_>) + Sync),
    fuzzed: Mutex<Fuzzed>,
    /// Defects that somebody makes small, or has.
    known: Mutex<BTreeSet<String>>,
    /// Inputs for all, and who found them; the seeds nobody.
    inputs: Mutex<Vec<(Option<usize>, Plan)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared<'_> {
    fn ran(&self, ran: &Ran) {
        let mut fuzzed = lock(&self.fuzzed);
        fuzzed.runs += 1;
        fuzzed.given_up += u64::from(ran.given_up);
        let kinds: BTreeSet<&String> = ran.injected.iter().map(|of| &of.finding).collect();
        for kind in kinds {
            *fuzzed.injected.entry(kind.clone()).or_default() += 1;
        }
        let known = fuzzed.places.len();
        fuzzed.places.extend(&ran.places);
        let store = |to: &AtomicU64, value: u64| to.store(value, Ordering::Relaxed);
        store(&self.progress.runs, fuzzed.runs);
        if fuzzed.places.len() > known {
            store(&self.progress.places, fuzzed.places.len() as u64);
            let reached = crate::reached(&self.progress.functions, &fuzzed.places);
            store(&self.progress.reached, reached as u64);
        }
    }

    /// Does nobody know this defect?
    fn is_unknown(&self, identity: &str) -> bool {
        !lock(&self.known).contains(identity)
    }

    /// Is it this worker's to make this defect small?
    fn is_new(&self, identity: &str) -> bool {
        lock(&self.known).insert(identity.to_owned())
    }

    fn found(&self, identity: String, found: Found) {
        (self.keep)(Kept::Defect(&identity, &found));
        lock(&self.fuzzed).defects.insert(identity, found);
        self.progress.defects.fetch_add(1, Ordering::Relaxed);
    }

    /// It was not seen again.
    fn lost(&self, identity: String) {
        lock(&self.fuzzed).lost.insert(identity);
    }

    /// An input met something that was new to this worker.
    fn interesting(&self, worker: usize, plan: Plan) {
        let mut inputs = lock(&self.inputs);
        if inputs.iter().all(|(_, known)| *known != plan) {
            (self.keep)(Kept::Interesting(&plan));
            inputs.push((Some(worker), plan));
        }
        lock(&self.fuzzed).corpus = inputs.len() as u64;
        let corpus = inputs.len() as u64;
        self.progress.corpus.store(corpus, Ordering::Relaxed);
    }

    /// The next input of somebody else's, from number `from` on.
    fn next_seed(&self, from: &mut usize, task: &Task) -> Option<Plan> {
        let inputs = lock(&self.inputs);
        while let Some((finder, plan)) = inputs.get(*from) {
            *from += 1;
            if *finder != Some(task.worker) {
                return Some(plan.clone());
            }
        }
        None
    }
}

/// Fuzz a driver, beginning with the Escapes of the options' workload and
/// with `seeds`, which are scenarios that an earlier call gave. `keep` is told
/// what is found as it is found. Ends when the effort is spent or `stop` is
/// set; `true` unless it was `stop`.
///
/// # Errors
/// [`ExploreError`]: the machine cannot be made, the driver has not started,
/// or the host failed.
pub fn fuzz(
    driver: (&[u8], &str),
    options: &Options,
    effort: Effort,
    seeds: Vec<Plan>,
    (stop, progress): (&AtomicBool, &FuzzProgress),
    keep: &(dyn Fn(Kept<'_>) + Sync),
) -> Result<(Fuzzed, bool), ExploreError> {
    let subject = Subject {
        driver: driver.0,
        name: driver.1,
        options,
    };
    let first = Target::new(subject)?.ok_or(ExploreError::NotStarted)?;
    let (escapes, pages) = target::observe(subject)?;
    let pages = &pages;
    let mut inputs = vec![(None, first.plan(&seed_of(escapes)))];
    inputs.extend(seeds.into_iter().map(|plan| (None, plan)));
    let halt = AtomicBool::new(false);
    let shared = Shared {
        halt: &halt,
        progress,
        keep,
        fuzzed: Mutex::default(),
        known: Mutex::default(),
        inputs: Mutex::new(inputs),
    };
    let jobs = effort.jobs.max(1);
    let mut first = Some(first);
    let mut failure = None;
    std::thread::scope(|scope| {
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let flag = &halt;
        let watch = scope.spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            let tick = Duration::from_millis(20);
            while finished.recv_timeout(tick) == Err(Timeout) {
                let late = effort.deadline.is_some_and(|at| Instant::now() >= at);
                if late || stop.load(Ordering::Relaxed) {
                    flag.store(true, Ordering::Relaxed);
                }
            }
        });
        let workers: Vec<_> = (0..jobs)
            .map(|worker| {
                let target = first.take();
                let shared = &shared;
                let share = |runs: u64| {
                    runs / jobs as u64 + u64::from((worker as u64) < runs % jobs as u64)
                };
                let task = Task {
                    worker,
                    seed: effort.seed.wrapping_add(worker as u64),
                    runs: effort.runs.map(share),
                };
                scope.spawn(move || {
                    let target = match target {
                        Some(target) => Some(target),
                        None => Target::new(subject)?,
                    };
                    let target = target.ok_or(ExploreError::NotStarted)?;
                    engine::work(target, pages, shared, task)
                })
            })
            .collect();
        for worker in workers {
            let ended = worker.join().unwrap_or(Err(ExploreError::Worker));
            if let Err(error) = ended {
                halt.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
        }
        drop(done);
        let _ = watch.join();
    });
    match failure {
        Some(error) => Err(error),
        None => {
            let fuzzed = lock(&shared.fuzzed).clone();
            Ok((fuzzed, !stop.load(Ordering::Relaxed)))
        }
    }
}

/// Where to begin: what the workload sends, or something of no meaning.
fn seed_of(escapes: Vec<Vec<u8>>) -> program::Program {
    program::Program {
        escapes: match escapes.is_empty() {
            true => vec![vec![0; 64]],
            false => escapes,
        },
        ..program::Program::default()
    }
}
