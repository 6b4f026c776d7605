//! What a run is made of that is not the driver: an input of the fuzzer,
//! decoded.
//!
//! Any bytes decode to something, so that mutations of the bytes need no
//! repair: a record is a byte that says what it is (its three lowest bits),
//! then fields of fixed size, then data with its length before it. What is
//! cut short is as long as what is left; what is too much is left out.

use super::faults;
use scenario::{Answer, AnswerOf, Fault, Hex, MAX_BYTES, Plan, Power, Step};
use std::collections::{BTreeMap, BTreeSet};

/// Most Escapes of a run.
const MAX_ESCAPES: usize = 48;
/// Most answers of the device that are written over.
const MAX_ANSWERS: usize = 16;
/// Most deviations from the default order.
const MAX_CHOICES: usize = 4;
/// Most times that the adapter is put to D3 and back.
const MAX_POWER: usize = 4;
/// Most faults.
pub(crate) const MAX_FAULTS: usize = 4;

const ESCAPE: u8 = 0;
const ANSWER: u8 = 1;
const CHOICE: u8 = 2;
const EARLY: u8 = 3;
const POWER: u8 = 4;
const FAULT: u8 = 5;

/// Numbers of a run at the moment from which inputs run: an input counts
/// from there, a scenario from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base {
    pub choices: u64,
    /// By kind of answer.
    pub answers: [u64; 3],
}

/// What an input stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    /// Private data of each Escape.
    pub escapes: Vec<Vec<u8>>,
    /// Answers written over; their numbers count from the base.
    pub answers: Vec<Answer>,
    /// The same from the start of the run, while the driver starts: the EDID
    /// and the configuration that it meets first.
    pub early: Vec<Answer>,
    /// Ways taken, by the choice's number from the base.
    pub choices: BTreeMap<u64, u32>,
    /// The adapter is put to D3 and back before the Escapes of these numbers;
    /// the number behind the last is the end.
    pub power: BTreeSet<u8>,
    /// Faults to inject, behind those of the scenario.
    pub faults: Vec<Fault>,
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn word(&mut self) -> u16 {
        u16::from(self.byte()) | u16::from(self.byte()) << 8
    }

    /// Eight bytes.
    pub fn long(&mut self) -> u64 {
        (0..4).fold(0, |bits, half| bits | u64::from(self.word()) << (16 * half))
    }

    /// An answer, unless there are enough or one of its number.
    fn answer(&mut self, known: &mut Vec<Answer>) {
        let of = AnswerOf::ALL[usize::from(self.byte()) % AnswerOf::ALL.len()];
        let number = self.byte().into();
        let at = u32::from(self.word()) % MAX_BYTES as u32;
        let length = self.byte().into();
        let data = Hex(self.take(length).to_vec());
        let twice = known.iter().any(|a| (a.of, a.number) == (of, number));
        if !twice && known.len() < MAX_ANSWERS && !data.0.is_empty() {
            known.push(Answer {
                of,
                number,
                at,
                data,
            });
        }
    }
}

impl Program {
    pub fn decode(bytes: &[u8]) -> Self {
        let mut program = Self::default();
        let mut reader = Reader::new(bytes);
        while !reader.0.is_empty() {
            match reader.byte() & 7 {
                ANSWER => reader.answer(&mut program.answers),
                EARLY => reader.answer(&mut program.early),
                POWER => {
                    let before = reader.byte() % (MAX_ESCAPES as u8 + 1);
                    if program.power.len() < MAX_POWER {
                        program.power.insert(before);
                    }
                }
                CHOICE => {
                    let number = reader.word().into();
                    let take = u32::from(reader.byte() % 3) + 1;
                    if program.choices.len() < MAX_CHOICES {
                        program.choices.insert(number, take);
                    }
                }
                FAULT => {
                    let fault = faults::read(&mut reader);
                    if program.faults.len() < MAX_FAULTS {
                        program.faults.push(fault);
                    }
                }
                _ => {
                    let length = usize::from(reader.word()) % (MAX_BYTES + 1);
                    let data = reader.take(length).to_vec();
                    if program.escapes.len() < MAX_ESCAPES {
                        program.escapes.push(data);
                    }
                }
            }
        }
        // A workload without a step would not be one of Escapes.
        if program.escapes.is_empty() {
            program.escapes.push(Vec::new());
        }
        program
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (record, answers) in [(ANSWER, &self.answers), (EARLY, &self.early)] {
            for answer in answers {
                bytes.extend([record, answer.of as u8, answer.number as u8]);
                bytes.extend((answer.at as u16).to_le_bytes());
                bytes.push(answer.data.0.len() as u8);
                bytes.extend(&answer.data.0);
            }
        }
        for &before in &self.power {
            bytes.extend([POWER, before]);
        }
        for (&number, &take) in &self.choices {
            bytes.push(CHOICE);
            bytes.extend((number as u16).to_le_bytes());
            bytes.push((take as u8).saturating_sub(1));
        }
        for fault in &self.faults {
            bytes.push(FAULT);
            faults::write(fault, &mut bytes);
        }
        for data in &self.escapes {
            bytes.push(ESCAPE);
            bytes.extend((data.len() as u16).to_le_bytes());
            bytes.extend(data);
        }
        bytes
    }

    /// The steps of the workload.
    pub fn steps(&self) -> Vec<Step> {
        let cycle = [Power::Off, Power::On].map(|to| Step::Power { to });
        let mut steps = Vec::new();
        for (number, data) in (0u8..).zip(&self.escapes) {
            if self.power.contains(&number) {
                steps.extend(cycle.clone());
            }
            steps.push(Step::Escape {
                data: Hex(data.clone()),
            });
        }
        if self.power.contains(&(self.escapes.len() as u8)) {
            steps.extend(cycle);
        }
        steps
    }

    /// The answers, counted from the start of the run.
    pub fn answers(&self, base: Base) -> Vec<Answer> {
        let mut answers = self.answers.clone();
        for answer in &mut answers {
            answer.number += base.answers[answer.of as usize];
        }
        // Where an early one has the number of a later one, it is that one.
        for early in &self.early {
            if answers
                .iter()
                .all(|a| (a.of, a.number) != (early.of, early.number))
            {
                answers.push(early.clone());
            }
        }
        answers
    }

    /// All choices that are decided, the plan's own with them.
    pub fn choices(&self, plan: &Plan, base: Base) -> BTreeMap<u64, u32> {
        let mut choices = plan.choices.clone();
        let own = self.choices.iter();
        choices.extend(own.map(|(&number, &take)| (number + base.choices, take)));
        choices
    }

    /// All faults: the plan's own, and those of the input.
    pub fn faults(&self, plan: &Plan) -> Vec<Fault> {
        plan.faults.iter().chain(&self.faults).cloned().collect()
    }

    /// The scenario that does the same from the start.
    pub fn plan(&self, of: &Plan, base: Base) -> Plan {
        Plan {
            workload: self.steps(),
            answers: self.answers(base),
            choices: self.choices(of, base),
            faults: self.faults(of),
            ..of.clone()
        }
    }

    /// An input out of a scenario that [`Program::plan`] made from `of`.
    pub fn of_plan(plan: &Plan, of: &Plan, base: Base) -> Self {
        let mut program = Self::default();
        for step in &plan.workload {
            match step {
                Step::Escape { data } if program.escapes.len() < MAX_ESCAPES => {
                    program.escapes.push(data.0.clone());
                }
                Step::Power { to: Power::Off } if program.power.len() < MAX_POWER => {
                    program.power.insert(program.escapes.len() as u8);
                }
                _ => {}
            }
        }
        for answer in &plan.answers {
            let later = answer.number.checked_sub(base.answers[answer.of as usize]);
            let to = match later {
                Some(_) => &mut program.answers,
                None => &mut program.early,
            };
            let number = later.unwrap_or(answer.number);
            if to.len() < MAX_ANSWERS {
                to.push(Answer {
                    number,
                    ..answer.clone()
                });
            }
        }
        let choices = plan.choices.iter();
        program.choices = choices
            .filter_map(|(number, &take)| Some((number.checked_sub(base.choices)?, take)))
            .take(MAX_CHOICES)
            .collect();
        let own = plan.faults.strip_prefix(of.faults.as_slice());
        let own = own.unwrap_or(&plan.faults).iter();
        program.faults = own
            .filter(|fault| faults::is_ours(fault))
            .take(MAX_FAULTS)
            .cloned()
            .collect();
        program
    }
}
