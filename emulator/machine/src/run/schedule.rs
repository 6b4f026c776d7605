//! Who goes on at a trap: the choices of a schedule.
//!
//! By default the device takes one step at each trap, interrupts and DPCs
//! come as soon as they may, and a thread goes on until it waits. A deviation
//! holds something back for one trap, or until the driver waits; "waits"
//! includes what a driver does instead: polling memory or a register of the
//! device, looking at the time, stalling. So nothing is held back from a
//! driver that spins for it.

use super::{Machine, RunState};
use crate::error::MachineError;
use gpu::Stepped;
use journal::event::{End, Point, TrapKind};
use scenario::{Order, Scenario};
use std::collections::BTreeMap;

/// The default: at once, or one step.
const NOW: u32 = 0;
/// Not at this trap.
const LATER: u32 = 1;
/// Not before the driver waits.
const HELD: u32 = 2;
/// All the device can do.
const ALL: u32 = 3;

/// What the schedule holds back until the driver waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub device: bool,
    pub interrupts: bool,
    pub dpcs: bool,
}

impl Held {
    /// May it be delivered now? Asks the scenario unless it is held back.
    pub fn allows(held: &mut bool, scenario: &Scenario, point: Point) -> bool {
        if *held {
            return false;
        }
        match scenario.choose(point, 3) {
            NOW => true,
            LATER => false,
            _ => {
                *held = true;
                false
            }
        }
    }
}

impl RunState {
    /// The driver waits, or does what amounts to it.
    pub(super) fn release(&mut self) {
        self.held = Held::default();
    }
}

impl Machine {
    /// The device's turn at a trap of the driver.
    pub(super) fn device_chosen(&mut self) -> Result<Option<End>, MachineError> {
        if self.state.held.device || !self.board.device_has_work() {
            return Ok(None);
        }
        let scenario = &self.board.scenario;
        let way = match (self.choosing, scenario.plan().order) {
            (true, _) => scenario.choose(Point::Device, 4),
            (false, Order::Default) => NOW,
            (false, Order::Lazy) => LATER,
        };
        match way {
            NOW => self.device_step(),
            HELD => {
                self.state.held.device = true;
                Ok(None)
            }
            ALL => {
                self.state.others_go_on(self.board.scenario.now());
                while self.board.device_has_work() {
                    let stepped = self.board.step_device();
                    if let Some(end) = self.take_messages()? {
                        return Ok(Some(end));
                    }
                    if stepped == Stepped::Waiting {
                        break;
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// A trap by which the driver waits for the device, or for time.
    pub(super) fn watched(&mut self, kind: TrapKind) {
        if matches!(kind, TrapKind::Poll | TrapKind::Time | TrapKind::MmioRead) {
            self.state.release();
        }
    }

    /// After a trap: may another thread have the CPU? Threads are switched
    /// where Windows may, below DISPATCH_LEVEL.
    pub(super) fn thread_turn(&mut self) -> Result<(), MachineError> {
        if !self.choosing || self.windows.executive.irql() >= 2 || self.board.vm.mid_instruction() {
            return Ok(());
        }
        let ready: Vec<usize> = (0..self.state.threads.len())
            .filter(|&index| index != self.state.current && self.is_ready(index))
            .collect();
        let taken = self
            .board
            .scenario
            .choose(Point::Thread, ready.len() as u32 + 1);
        match (taken as usize).checked_sub(1).and_then(|at| ready.get(at)) {
            Some(&other) => {
                // What it waits for has come.
                self.satisfy(other);
                self.switch_to(other)
            }
            None => Ok(()),
        }
    }

    pub(super) fn is_ready(&self, index: usize) -> bool {
        let thread = &self.state.threads[index];
        match &thread.waiting {
            None => thread.ready(),
            Some(waiting) => {
                !thread.frames.is_empty()
                    && self
                        .windows
                        .executive
                        .would_satisfy(&self.board, &waiting.wait)
            }
        }
    }

    /// Deviate from the order here and nowhere else, from now on.
    pub fn decide(&self, choices: BTreeMap<u64, u32>) {
        self.board.scenario.decide(choices);
    }

    /// The choices made since the last call.
    pub fn watch_choices(&self) -> Vec<scenario::Choice> {
        self.board.scenario.watch()
    }

    /// How many choices were made so far.
    #[must_use]
    pub fn choices(&self) -> u64 {
        self.board.scenario.choices()
    }

    /// Do these steps instead of the plan's, from now on; part of what
    /// [`Machine::save`] keeps.
    pub fn replace_workload(&mut self, steps: Vec<scenario::Step>) {
        self.state.workload.replace(steps);
    }

    /// Write over these answers of the device and no others, from now on.
    pub fn alter(&self, answers: Vec<scenario::Answer>) {
        self.board.scenario.alter(answers);
    }

    /// Inject these faults and no others, from now on: after a restore, which
    /// sets back what of them is counted.
    pub fn infect(&self, faults: Vec<scenario::Fault>) {
        self.board.scenario.infect(faults);
    }

    /// Virtual time, nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.board.scenario.now()
    }

    /// How many answers of a kind the device gave so far.
    #[must_use]
    pub fn answers(&self, of: scenario::AnswerOf) -> u64 {
        self.board.scenario.answers(of)
    }

    /// Was the workload's first step called?
    #[must_use]
    pub fn began_workload(&self) -> bool {
        self.state.workload.began()
    }

    /// Is no routine of the driver under way on the thread that has the
    /// processor?
    #[must_use]
    pub fn is_between_calls(&self) -> bool {
        self.thread().frames.is_empty()
    }

    /// Where the driver goes on.
    #[must_use]
    pub fn goes_on_at(&self) -> u64 {
        self.board.vm.registers().rip
    }

    /// The private data of the last Escape.
    #[must_use]
    pub fn escape_data(&self) -> Option<Vec<u8>> {
        self.windows.escape_question(&self.board)
    }

    /// What is run: workload, seed, order.
    #[must_use]
    pub fn plan(&self) -> &scenario::Plan {
        self.board.scenario.plan()
    }

    /// Could the next [`Machine::step`] make a choice of a schedule? A
    /// snapshot before any other step is of no use.
    #[must_use]
    pub fn may_choose(&self) -> bool {
        !self.board.vm.mid_instruction()
            && (self.board.device_has_work()
                || !self.state.interrupts.is_empty()
                || self.windows.dpc_pending()
                || self.state.threads.len() > 1
                || self.board.scenario.plan().may_fail
                || self.board.scenario.plan().part != scenario::Part::None)
    }
}
