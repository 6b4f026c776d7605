//! What the driver is made to do: the adapter's life, and between start and
//! stop the scenario's steps through the driver's Escape interface.

use interface::{CREATE, ESCAPE_SIZE, Escape, FREE, PRESENT, QUERY, WAIT};
use journal::Event;
use scenario::Step;
use windows::dxgk::lifecycle::LifecycleError;
use windows::dxgk::{DriverCall, Progress};
use windows::{Platform, Windows};

/// Where the workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    steps: Vec<Step>,
    seed: u64,
    stage: Stage,
    /// The driver's id of each resource created, in order.
    resources: Vec<u32>,
    /// The driver refused a step.
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    /// Asked whether the driver speaks the Escape interface.
    Asked,
    /// Step `n` was called.
    Step(usize),
    Stopping,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    Life(Progress),
    Escape(DriverCall),
}

impl Workload {
    pub fn new(steps: Vec<Step>, seed: u64) -> Self {
        Self {
            steps,
            seed,
            stage: Stage::Starting,
            resources: Vec::new(),
            refused: false,
        }
    }

    /// Did the driver refuse a step? What was to be tried was not tried then.
    pub fn refused(&self) -> bool {
        self.refused
    }

    /// The next call of the driver, given what the last returned.
    pub fn next(
        &mut self,
        windows: &mut Windows,
        p: &mut dyn Platform,
        result: u64,
    ) -> Result<Next, LifecycleError> {
        match self.stage {
            Stage::Starting => {
                let progress = windows.advance(p, result)?;
                if progress != Progress::Ready {
                    return Ok(Next::Life(progress));
                }
                self.stage = Stage::Asked;
                self.escape_or_stop(windows, p, &Escape::new(QUERY))
            }
            Stage::Asked => {
                let answer = self.answer(windows, p)?;
                if result as u32 != 0 || answer.magic != interface::MAGIC {
                    note(
                        p,
                        "the driver does not answer dmasan's Escape interface: \
                         only its start and stop were run"
                            .to_owned(),
                    );
                    return self.stop(windows, p);
                }
                self.step(windows, p, 0)
            }
            Stage::Step(index) => {
                let status = result as u32;
                let answer = self.answer(windows, p)?;
                if status >= 0x8000_0000 {
                    self.refused = true;
                    p.scenario().journal().emit(Event::Refused {
                        step: format!("{} ({})", index + 1, name(self.steps.get(index))),
                        status,
                    });
                    return self.stop(windows, p);
                }
                if let Some(Step::Create { .. }) = self.steps.get(index) {
                    self.resources.push(answer.resource);
                }
                self.step(windows, p, index + 1)
            }
            Stage::Stopping => Ok(Next::Life(windows.advance(p, result)?)),
        }
    }

    fn answer(&self, windows: &Windows, p: &dyn Platform) -> Result<Escape, LifecycleError> {
        let mut bytes = [0; ESCAPE_SIZE];
        windows.escape_answer(p, &mut bytes)?;
        Ok(Escape::from_bytes(&bytes))
    }

    fn step(
        &mut self,
        windows: &mut Windows,
        p: &mut dyn Platform,
        index: usize,
    ) -> Result<Next, LifecycleError> {
        let Some(step) = self.steps.get(index) else {
            return self.stop(windows, p);
        };
        let id = |resource: u32| self.resources.get(resource as usize).copied().unwrap_or(0);
        let escape = match *step {
            Step::Create { width, height } => Escape {
                width,
                height,
                ..Escape::new(CREATE)
            },
            Step::Present { resource, frame } => Escape {
                resource: id(resource),
                seed: self.seed.wrapping_add(frame),
                ..Escape::new(PRESENT)
            },
            Step::Wait { resource } => Escape {
                resource: id(resource),
                ..Escape::new(WAIT)
            },
            Step::Free { resource } => Escape {
                resource: id(resource),
                ..Escape::new(FREE)
            },
        };
        self.stage = Stage::Step(index);
        self.escape_or_stop(windows, p, &escape)
    }

    fn escape_or_stop(
        &mut self,
        windows: &mut Windows,
        p: &mut dyn Platform,
        escape: &Escape,
    ) -> Result<Next, LifecycleError> {
        match windows.escape(p, &escape.to_bytes())? {
            Some(call) => Ok(Next::Escape(call)),
            None => self.stop(windows, p),
        }
    }

    fn stop(
        &mut self,
        windows: &mut Windows,
        p: &mut dyn Platform,
    ) -> Result<Next, LifecycleError> {
        self.stage = Stage::Stopping;
        Ok(Next::Life(windows.advance(p, 0)?))
    }
}

fn note(p: &dyn Platform, text: String) {
    p.scenario().journal().emit(Event::Note { text });
}

fn name(step: Option<&Step>) -> &'static str {
    match step {
        Some(Step::Create { .. }) => "create",
        Some(Step::Present { .. }) => "present",
        Some(Step::Wait { .. }) => "wait",
        Some(Step::Free { .. }) => "free",
        None => "none",
    }
}
