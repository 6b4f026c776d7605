//! Scenario files.

use crate::answer::{self, Answer};
use crate::fault::{Fault, Line, MAX_FAULTS};
use crate::steps::{self, MAX_FRAME_SIDE, Step};
use crate::verify::Verify;
use journal::event::Point;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use thiserror::Error;
use toml::Spanned;

/// Most steps a workload may have.
pub const MAX_WORKLOAD: usize = 10_000;
/// Most deviations a file may list.
const MAX_CHOICES: usize = 1_000_000;
/// Most answers of the device that a file may write over.
const MAX_ANSWERS: usize = 10_000;
/// No scenario file is longer, bytes.
const MAX_FILE: usize = 16 << 20;

/// The order of device against driver where no deviation is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// After a doorbell the device takes one step at each of the driver's
    /// later traps, and all it can when the driver waits.
    #[default]
    Default,
    /// The device works only while the driver waits.
    Lazy,
}

/// Which accesses of the device are parted into issue and landing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// None: every access lands as it is issued.
    #[default]
    None,
    /// Reads of memory.
    Reads,
    /// Writes to memory.
    Writes,
    /// Both.
    All,
}

/// One deviation from the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// Which choice of the run, from 0.
    number: u64,
    /// Which way to take.
    take: u32,
}

/// The file as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    order: Order,
    #[serde(default)]
    part_accesses: Part,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    may_fail: bool,
    #[serde(default)]
    displays: Option<Vec<(u32, u32)>>,
    #[serde(default)]
    choice: Vec<Choice>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    answer: Vec<Answer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fault: Vec<Spanned<Fault>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verify: Option<Verify>,
    #[serde(default)]
    workload: Option<Vec<Step>>,
}

/// Why a scenario is refused.
#[derive(Debug, Error)]
pub enum PlanError {
    /// Not the TOML this reads; the message shows line and column.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// Longer than any scenario.
    #[error("the scenario is {0} bytes long; at most {MAX_FILE} are read")]
    TooLong(usize),
    /// Too many of something.
    #[error("{what}: {count} entries; at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A step that cannot be done.
    #[error("workload step {step}: {problem}")]
    Step {
        /// Which, from 1.
        step: usize,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// A fault that cannot be.
    #[error("line {line}: fault {fault}: {problem}")]
    Fault {
        /// Line of the file where it begins, from 1.
        line: usize,
        /// Which, from 1.
        fault: usize,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// Something that cannot be verified.
    #[error("verify: {0}")]
    Verify(String),
    /// More than a guest under QEMU can be told.
    #[error(
        "a guest decides itself what it does and when: of a scenario it has name, seed, [[fault]] \
         and [verify]; leave the rest out"
    )]
    Guest,
    /// A display that cannot be.
    #[error(
        "display {at} is {width} x {height}: give at most {MAX_FRAME_SIDE} x {MAX_FRAME_SIDE} \
         pixels, or 0 x 0 for none"
    )]
    Display {
        /// Which, from 0.
        at: usize,
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Two deviations for one choice.
    #[error("choice {0} is listed twice; keep one")]
    TwiceChosen(u64),
    /// Two answers for one.
    #[error("answer: {0} {1} is listed twice; keep one")]
    TwiceAnswered(&'static str, u64),
}

/// A scenario: everything about a run that is not the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name, in reports.
    pub name: String,
    /// Seed of frames and random bytes.
    pub seed: u64,
    /// The order where no deviation is listed.
    pub order: Order,
    /// Which accesses are parted.
    pub part: Part,
    /// What the driver is made to do.
    pub workload: Vec<Step>,
    /// Width and height of the display on each scanout, 0 x 0 for none;
    /// empty: as the machine has it.
    pub displays: Vec<(u32, u32)>,
    /// Deviations from the order: the way to take, by the number of the
    /// choice.
    pub choices: BTreeMap<u64, u32>,
    /// Is each allocation and mapping asked of [`Point::Fail`]?
    pub may_fail: bool,
    /// Answers of the device that are written over.
    pub answers: Vec<Answer>,
    /// Faults to inject.
    pub faults: Vec<Fault>,
    /// What must be true after the run.
    pub verify: Option<Verify>,
}

impl Default for Plan {
    /// Create a 640 x 480 resource, present a frame, free the resource.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            seed: 1,
            order: Order::Default,
            part: Part::None,
            workload: vec![
                Step::Create {
                    width: 640,
                    height: 480,
                    scanout: 0,
                },
                Step::Present {
                    resource: 0,
                    frame: 0,
                },
                Step::Free { resource: 0 },
            ],
            displays: Vec::new(),
            choices: BTreeMap::new(),
            may_fail: false,
            answers: Vec::new(),
            faults: Vec::new(),
            verify: None,
        }
    }
}

impl Plan {
    /// From the text of a scenario file.
    ///
    /// # Errors
    /// [`PlanError`], with the line where there is one.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        if text.len() > MAX_FILE {
            return Err(PlanError::TooLong(text.len()));
        }
        let file: File = toml::from_str(text)?;
        let default = Self::default();
        let workload = file.workload.unwrap_or(default.workload);
        limit("workload", workload.len(), MAX_WORKLOAD)?;
        limit("choice", file.choice.len(), MAX_CHOICES)?;
        steps::check(&workload)?;
        let displays = file.displays.unwrap_or_default();
        limit("displays", displays.len(), steps::MAX_SCANOUTS as usize)?;
        for (at, &(width, height)) in displays.iter().enumerate() {
            if width.max(height) > MAX_FRAME_SIDE {
                return Err(PlanError::Display { at, width, height });
            }
        }
        let mut choices = BTreeMap::new();
        for Choice { number, take } in file.choice {
            if choices.insert(number, take).is_some() {
                return Err(PlanError::TwiceChosen(number));
            }
        }
        limit("answer", file.answer.len(), MAX_ANSWERS)?;
        answer::check(&file.answer)?;
        limit("fault", file.fault.len(), MAX_FAULTS)?;
        let mut faults = Vec::new();
        for (index, spanned) in file.fault.into_iter().enumerate() {
            let line = line_of(text, spanned.span().start);
            let mut fault = spanned.into_inner();
            fault.line = Line(line);
            fault.check().map_err(|problem| PlanError::Fault {
                line,
                fault: index + 1,
                problem,
            })?;
            faults.push(fault);
        }
        Ok(Self {
            name: file.name.unwrap_or_else(|| "unnamed".to_owned()),
            seed: file.seed.unwrap_or(default.seed),
            order: file.order,
            part: file.part_accesses,
            workload,
            displays,
            choices,
            may_fail: file.may_fail,
            answers: file.answer,
            faults,
            verify: file.verify,
        })
    }

    /// Give the faults that name a `caller` the functions that it names:
    /// `find` says where the functions lie that a pattern `module!function`
    /// describes.
    ///
    /// # Errors
    /// [`PlanError::Fault`] of the first whose pattern names none.
    pub fn resolve_callers(
        &mut self,
        mut find: impl FnMut(&str) -> Vec<Range<u64>>,
    ) -> Result<(), PlanError> {
        for (index, fault) in self.faults.iter_mut().enumerate() {
            let Some(caller) = &fault.caller else {
                continue;
            };
            fault.callers = find(caller);
            if fault.callers.is_empty() {
                let problem = format!(
                    "caller = {caller:?} names no function of the driver: is its .pdb beside it?"
                );
                return Err(fault_error(fault, index, problem));
            }
        }
        Ok(())
    }

    /// Let somebody who knows the names look at each fault: the problem that
    /// `look` tells is the error.
    ///
    /// # Errors
    /// [`PlanError::Fault`].
    pub fn check_faults(
        &self,
        mut look: impl FnMut(&Fault) -> Result<(), String>,
    ) -> Result<(), PlanError> {
        for (index, fault) in self.faults.iter().enumerate() {
            look(fault).map_err(|problem| fault_error(fault, index, problem))?;
        }
        Ok(())
    }

    /// The same plan without its faults.
    #[must_use]
    pub fn without_faults(mut self) -> Self {
        self.faults.clear();
        self.verify = None;
        self
    }

    /// The text of a scenario file that [`Plan::parse`] reads as this plan.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let file = File {
            name: Some(self.name.clone()),
            seed: Some(self.seed),
            order: self.order,
            part_accesses: self.part,
            displays: Some(self.displays.clone()).filter(|displays| !displays.is_empty()),
            may_fail: self.may_fail,
            answer: self.answers.clone(),
            fault: self
                .faults
                .iter()
                .map(|fault| Spanned::new(0..0, fault.clone()))
                .collect(),
            verify: self.verify.clone(),
            choice: self
                .choices
                .iter()
                .map(|(&number, &take)| Choice { number, take })
                .collect(),
            workload: Some(self.workload.clone()),
        };
        // Every field is one that TOML can hold.
        toml::to_string(&file).unwrap_or_default()
    }

    /// The same plan with `number` decided.
    #[must_use]
    pub fn with_choice(mut self, number: u64, take: u32) -> Self {
        self.choices.insert(number, take);
        self
    }

    /// What the order takes at `point`.
    pub(crate) fn by_order(&self, point: Point) -> u32 {
        match (self.order, point) {
            (Order::Lazy, Point::Device) => 1,
            // Where accesses are parted, the point is to see them late: they
            // land when something makes them, or when nothing else is left.
            (_, Point::Landing | Point::InFlight) => 1,
            _ => 0,
        }
    }
}

fn fault_error(fault: &Fault, index: usize, problem: String) -> PlanError {
    PlanError::Fault {
        line: fault.line.0,
        fault: index + 1,
        problem,
    }
}

/// The line of byte `at`, from 1.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), PlanError> {
    if count > limit {
        return Err(PlanError::TooMany { what, count, limit });
    }
    Ok(())
}
