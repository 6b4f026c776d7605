//! What the driver is made to do: the adapter's life, and between start and
//! stop the scenario's steps through the driver's Escape interface.

use interface::{
    CREATE, CREATE_BLOB, CURSOR_HIDE, CURSOR_MOVE, CURSOR_SHAPE, DISPLAY, EDID, ESCAPE_SIZE,
    Escape, FREE, PRESENT, QUERY, RESIZE, SCANOUT, WAIT,
};
use journal::Event;
use scenario::{Power, Step};
use windows::dxgk::lifecycle::LifecycleError;
use windows::dxgk::{DriverCall, Progress};
use windows::{Platform, Windows};

/// Where the workload is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Workload {
    steps: Vec<Step>,
    seed: u64,
    stage: Stage,
    /// The driver's id of each resource created, in order.
    resources: Vec<u32>,
    /// The driver refused a step.
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    /// Has the driver started, and was a step called?
    pub fn began(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Step(_))
    }

    /// Do these steps instead.
    pub fn replace(&mut self, steps: Vec<Step>) {
        self.steps = steps;
    }

    /// Is there nothing to ask the driver for first? Raw Escapes are for any
    /// driver, and power states between them.
    fn is_raw(&self) -> bool {
        let escape = |step: &Step| matches!(step, Step::Escape { .. });
        let raw = |step: &Step| escape(step) || matches!(step, Step::Power { .. });
        self.steps.iter().any(escape) && self.steps.iter().all(raw)
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
                if self.is_raw() {
                    return self.step(windows, p, 0);
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
                let may_refuse = matches!(self.steps.get(index), Some(Step::Escape { .. }));
                if status >= 0x8000_0000 && !may_refuse {
                    self.refused = true;
                    p.scenario().journal().emit(Event::Refused {
                        step: format!(
                            "{} ({})",
                            index + 1,
                            self.steps.get(index).map_or("none", Step::name)
                        ),
                        status,
                    });
                    return self.stop(windows, p);
                }
                self.done(windows, p, index)?;
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

    /// Takes over what step `index` answered.
    fn done(
        &mut self,
        windows: &Windows,
        p: &dyn Platform,
        index: usize,
    ) -> Result<(), LifecycleError> {
        match self.steps.get(index) {
            Some(Step::Create { .. } | Step::CreateBlob { .. }) => {
                let answer = self.answer(windows, p)?;
                self.resources.push(answer.resource);
            }
            Some(Step::Resize { resource, .. }) => {
                let answer = self.answer(windows, p)?;
                if let Some(id) = self.resources.get_mut(*resource as usize) {
                    *id = answer.resource;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn step(
        &mut self,
        windows: &mut Windows,
        p: &mut dyn Platform,
        index: usize,
    ) -> Result<Next, LifecycleError> {
        self.stage = Stage::Step(index);
        match self.steps.get(index) {
            None => self.stop(windows, p),
            Some(Step::Power { to }) => match windows.set_power(p, *to == Power::Off) {
                Some(call) => Ok(Next::Life(Progress::Call(call))),
                None => {
                    note(
                        p,
                        format!(
                            "workload step {} was left out: the driver has no \
                             DxgkDdiSetPowerState",
                            index + 1
                        ),
                    );
                    self.step(windows, p, index + 1)
                }
            },
            Some(Step::Escape { data }) => match windows.escape(p, &data.0)? {
                Some(call) => Ok(Next::Escape(call)),
                None => self.stop(windows, p),
            },
            Some(step) => {
                let escape = self.escape(step);
                self.escape_or_stop(windows, p, &escape)
            }
        }
    }

    /// The command that a step is.
    fn escape(&self, step: &Step) -> Escape {
        let id = |resource: u32| self.resources.get(resource as usize).copied().unwrap_or(0);
        let seed = |frame: u64| self.seed.wrapping_add(frame);
        match *step {
            Step::Create {
                width,
                height,
                scanout,
            } => Escape {
                width,
                height,
                scanout,
                ..Escape::new(CREATE)
            },
            Step::CreateBlob {
                width,
                height,
                scanout,
            } => Escape {
                width,
                height,
                scanout,
                ..Escape::new(CREATE_BLOB)
            },
            Step::Present { resource, frame } => Escape {
                resource: id(resource),
                seed: seed(frame),
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
            Step::Resize {
                resource,
                width,
                height,
            } => Escape {
                resource: id(resource),
                width,
                height,
                ..Escape::new(RESIZE)
            },
            Step::Scanout { resource, scanout } => Escape {
                resource: id(resource),
                scanout,
                ..Escape::new(SCANOUT)
            },
            Step::ScanoutOff { scanout } => Escape {
                scanout,
                ..Escape::new(SCANOUT)
            },
            Step::Display { scanout } => Escape {
                scanout,
                ..Escape::new(DISPLAY)
            },
            Step::Edid { scanout } => Escape {
                scanout,
                ..Escape::new(EDID)
            },
            Step::Cursor {
                scanout,
                frame,
                x,
                y,
                hot_x,
                hot_y,
            } => Escape {
                scanout,
                seed: seed(frame),
                x,
                y,
                width: hot_x,
                height: hot_y,
                ..Escape::new(CURSOR_SHAPE)
            },
            Step::CursorMove { scanout, x, y } => Escape {
                scanout,
                x,
                y,
                ..Escape::new(CURSOR_MOVE)
            },
            Step::CursorHide { scanout } => Escape {
                scanout,
                ..Escape::new(CURSOR_HIDE)
            },
            // Of the entry points, or raw.
            Step::Power { .. } | Step::Escape { .. } => Escape::new(QUERY),
        }
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
