//! One worker: LibAFL's corpus, scheduler and stages around a [`Target`].

use super::faults::{Clues, Excuse};
use super::mutate::Structured;
use super::program::Program;
use super::target::{MAP, Ran, Target};
use super::{Found, Shared, Task};
use crate::defect::Group;
use crate::error::ExploreError;
use libafl::corpus::{Corpus, InMemoryCorpus};
use libafl::events::NopEventManager;
use libafl::executors::{Executor, ExitKind, HasObservers};
use libafl::feedbacks::{ConstFeedback, MaxMapFeedback};
use libafl::inputs::{BytesInput, HasMutatorBytes};
use libafl::mutators::{HavocScheduledMutator, havoc_mutations};
use libafl::observers::{HitcountsMapObserver, MapObserver, StdMapObserver};
use libafl::schedulers::QueueScheduler;
use libafl::stages::StdMutationalStage;
use libafl::state::{HasCorpus, StdState};
use libafl::{Error, Evaluator, Fuzzer, StdFuzzer};
use libafl_bolts::rands::StdRand;
use libafl_bolts::tuples::{RefIndexable, tuple_list};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;

/// Mutations of one input in a row.
const ITERATIONS: NonZeroUsize = NonZeroUsize::new(32).unwrap();
/// Times that a finding which follows from faults is looked for without them.
const MAX_RETRIES: u32 = 4;
/// Mutations stacked, as a power of two: of structure, of bytes.
const STRUCTURED_POWER: usize = 3;
const HAVOC_POWER: usize = 4;

type Map = HitcountsMapObserver<StdMapObserver<'static, u8, false>>;

/// What runs inputs for LibAFL.
struct Runner<'a, 'r> {
    target: Target<'a>,
    shared: &'a Shared<'r>,
    task: Task,
    runs: u64,
    /// How often a finding was looked for without faults.
    retried: BTreeMap<String, u32>,
    failure: Option<ExploreError>,
    observers: (Map, ()),
}

impl HasObservers for Runner<'_, '_> {
    type Observers = (Map, ());

    fn observers(&self) -> RefIndexable<&Self::Observers, Self::Observers> {
        RefIndexable::from(&self.observers)
    }

    fn observers_mut(&mut self) -> RefIndexable<&mut Self::Observers, Self::Observers> {
        RefIndexable::from(&mut self.observers)
    }
}

impl<EM, S, Z> Executor<EM, BytesInput, S, Z> for Runner<'_, '_> {
    fn run_target(
        &mut self,
        _: &mut Z,
        _: &mut S,
        _: &mut EM,
        input: &BytesInput,
    ) -> Result<ExitKind, Error> {
        let halted = self.shared.halt.load(Ordering::Relaxed);
        if halted || self.task.runs.is_some_and(|runs| self.runs >= runs) {
            return Err(Error::shutting_down());
        }
        self.runs += 1;
        self.once(input.mutator_bytes()).map_err(|error| {
            self.failure = Some(error);
            Error::shutting_down()
        })
    }
}

impl Runner<'_, '_> {
    fn once(&mut self, bytes: &[u8]) -> Result<ExitKind, ExploreError> {
        let program = Program::decode(bytes);
        let mut map = vec![0; MAP];
        let ran = self.target.run(&program, &mut map)?;
        for (bucket, met) in map.iter().enumerate().filter(|(_, met)| **met != 0) {
            self.observers.0.set(bucket, *met);
        }
        let kind = match (ran.given_up, ran.defects.is_empty()) {
            (true, _) => ExitKind::Timeout,
            (false, false) => ExitKind::Crash,
            (false, true) => ExitKind::Ok,
        };
        self.shared.ran(&ran);
        self.look_without_faults(&program, &ran)?;
        for defect in ran.defects {
            self.make_small(&program, defect)?;
        }
        Ok(kind)
    }

    /// What follows from a fault may hide what is the driver's: look again
    /// without the faults that excuse something.
    fn look_without_faults(&mut self, program: &Program, ran: &Ran) -> Result<(), ExploreError> {
        let mut again = false;
        for group in &ran.injected {
            let tried = self.retried.entry(group.key.clone()).or_default();
            if *tried < MAX_RETRIES && self.shared.is_unknown(&group.key) {
                *tried += 1;
                again = true;
            }
        }
        let mut less = program.clone();
        less.faults.retain(|f| Excuse::of(f) == Excuse::Nothing);
        if !again || less == *program {
            return Ok(());
        }
        for defect in self.target.run(&less, &mut [])?.defects {
            self.make_small(&less, defect)?;
        }
        Ok(())
    }

    /// Keep a defect that is new, as a small input that shows it also from
    /// the driver's load.
    fn make_small(&mut self, program: &Program, defect: Group) -> Result<(), ExploreError> {
        // Only one worker makes it smaller.
        if !self.shared.is_new(&defect.key) {
            return Ok(());
        }
        let (target, shared) = (&mut self.target, self.shared);
        let among = |ran: &Ran| ran.defects.iter().any(|other| other.key == defect.key);
        let mut small = super::minimise::minimise(program.clone(), |tried| {
            if shared.halt.load(Ordering::Relaxed) {
                return Ok(false);
            }
            target.run(tried, &mut []).map(|ran| among(&ran))
        })?;
        if !among(&target.run_from(&small, &mut [], true)?) {
            small = program.clone();
        }
        if small == *program && !among(&target.run_from(&small, &mut [], true)?) {
            shared.lost(defect.key);
            return Ok(());
        }
        let found = Found {
            finding: defect.finding,
            summary: defect.summary,
            function: defect.function,
            plan: target.plan(&small),
        };
        shared.found(defect.key, found);
        Ok(())
    }
}

/// Fuzz until the task is done, or the flag says so.
pub(crate) fn work(
    target: Target<'_>,
    pages: &[u64],
    shared: &Shared<'_>,
    task: Task,
) -> Result<(), ExploreError> {
    let map = StdMapObserver::owned("driver", vec![0u8; MAP]);
    let observer = HitcountsMapObserver::new(map);
    let clues = Clues {
        pages: pages.to_vec(),
        ..target.clues.clone()
    };
    let mut feedback = MaxMapFeedback::new(&observer);
    // Defects are told apart by their identity, not by coverage.
    let mut objective = ConstFeedback::False;
    // LibAFL's other schedulers look at the host's clock, or go by hash order.
    let scheduler = QueueScheduler::new();
    let mut state = StdState::new(
        StdRand::with_seed(task.seed),
        InMemoryCorpus::<BytesInput>::new(),
        InMemoryCorpus::new(),
        &mut feedback,
        &mut objective,
    )
    .map_err(engine)?;
    let mut fuzzer = StdFuzzer::new(scheduler, feedback, objective);
    let mut events = NopEventManager::new();
    let mut stages = tuple_list!(
        StdMutationalStage::with_max_iterations(
            HavocScheduledMutator::with_max_stack_pow(
                tuple_list!(Structured::new(clues)),
                STRUCTURED_POWER
            ),
            ITERATIONS
        ),
        StdMutationalStage::with_max_iterations(
            HavocScheduledMutator::with_max_stack_pow(havoc_mutations(), HAVOC_POWER),
            ITERATIONS
        ),
    );
    let mut runner = Runner {
        target,
        shared,
        task,
        runs: 0,
        retried: BTreeMap::new(),
        failure: None,
        observers: tuple_list!(observer),
    };
    let mut seeds = 0;
    let mut known = 0;
    let ended = loop {
        // What others found interesting, the seeds first of all.
        let step = match shared.next_seed(&mut seeds, &runner.task) {
            Some(plan) => {
                let target = &runner.target;
                let program = Program::of_plan(&plan, &target.plan, target.base);
                let input = BytesInput::new(program.encode());
                if state.corpus().count() == 0 {
                    let added = fuzzer.add_input(&mut state, &mut runner, &mut events, input);
                    added.map(|_| ())
                } else {
                    let tried = fuzzer.evaluate_input(&mut state, &mut runner, &mut events, &input);
                    tried.map(|_| ())
                }
            }
            None => fuzzer
                .fuzz_one(&mut stages, &mut runner, &mut state, &mut events)
                .map(|_| ()),
        };
        let count = state.corpus().count();
        while known < count {
            let id = state.corpus().nth(known);
            if let Ok(testcase) = state.corpus().get(id)
                && let Some(input) = testcase.borrow().input()
            {
                let program = Program::decode(input.mutator_bytes());
                shared.interesting(runner.task.worker, runner.target.plan(&program));
            }
            known += 1;
        }
        if let Err(error) = step {
            break error;
        }
    };
    match (runner.failure, ended) {
        (Some(error), _) => Err(error),
        (None, Error::ShuttingDown) => Ok(()),
        (None, error) => Err(engine(error)),
    }
}

fn engine(error: Error) -> ExploreError {
    ExploreError::Engine(error.to_string())
}
