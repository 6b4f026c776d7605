//! Running: entering the driver, handling its traps, giving the device its
//! turns.
//!
//! One [`Machine::step`] is one trap of the driver, or one thing that happens
//! while it waits. Between two steps the machine is plain data
//! ([`Machine::save`]).

mod calls;
mod digest;
mod idle;
mod schedule;
mod snapshot;
mod spin;
pub(crate) mod threads;
mod traps;

pub use snapshot::Snapshot;

use crate::board::{Board, VendorWrite};
use crate::error::MachineError;
use crate::vm::patch::PatchTable;
use crate::vm::{Gpr, Registers, RunLimit, Trap};
use crate::workload::Workload;
use journal::event::{self, BugCheck, Event, Point};
use memory::{GuestMemory, Gva};
use scenario::{Site, SiteKind, What};
use schedule::Held;
use threads::{Frame, Purpose, Thread};
use windows::dxgk::{DEVICE_IRQL, DriverCall};
use windows::{Platform, Stop, Windows, processor};

/// Most routines of the driver that one thread is inside of. A stack of
/// Windows' size ends far earlier, but a driver may move RSP.
const MAX_FRAMES: usize = 1024;
/// Most interrupts that wait for delivery; more of the same message are one.
const MAX_PENDING: usize = 2048;

/// What of the machine is neither board nor Windows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RunState {
    pub threads: Vec<Thread>,
    pub current: usize,
    /// Messages of the device not yet delivered, oldest first.
    pub interrupts: Vec<u32>,
    /// Messages that the scenario makes late, each with its virtual time.
    pub late: Vec<(u64, u32)>,
    pub workload: Workload,
    /// What the last routine of the adapter's life returned.
    pub result: u64,
    pub traps: u64,
    pub ended: Option<event::End>,
    /// What the schedule holds back.
    pub held: schedule::Held,
    /// How long the routine under way takes, and where it was.
    pub spin: spin::Spin,
    /// Frames for stacks made later.
    pub boot: crate::load::BootFrames,
}

/// A driver in its machine.
pub struct Machine {
    pub(crate) board: Board,
    pub(crate) windows: Windows,
    pub(crate) state: RunState,
    pub(crate) keep_going: bool,
    /// May this step choose? As it could be foreseen before the step: what it
    /// brings about itself (a DPC queued, a thread made) is not held back at
    /// once, nor anything within an instruction.
    pub(crate) choosing: bool,
    /// Instructions of the driver that a trapping byte lies over.
    pub(crate) patches: PatchTable,
}

impl RunState {
    /// A message waits for delivery.
    fn pend(&mut self, message: u32) {
        let waiting = &mut self.interrupts;
        if !waiting.contains(&message) && waiting.len() < MAX_PENDING {
            waiting.push(message);
        }
    }

    /// Late messages whose time has come wait for delivery.
    fn pend_late(&mut self, now: u64) {
        while let Some(at) = self.late.iter().position(|&(due, _)| due <= now) {
            let (_, message) = self.late.remove(at);
            self.pend(message);
        }
    }
}

impl Machine {
    /// Go on by one trap, or by one thing that happens while the driver
    /// waits. `Some` once the run has ended; the journal's last event says
    /// the same.
    ///
    /// # Errors
    /// [`MachineError`]: the host failed, not the driver. The journal is then
    /// without its end, and readable.
    pub fn step(&mut self, limit: &RunLimit<'_>) -> Result<Option<event::End>, MachineError> {
        self.choosing = self.may_choose();
        if self.state.ended.is_none() {
            let advanced = self.advance(limit);
            // Entering a routine may have ended the run on its own.
            if let Ok(Some(end)) = &advanced {
                self.state.ended = Some(end.clone());
            }
            if let Some(end) = &self.state.ended {
                self.board.scenario.journal().emit(Event::End(end.clone()));
            }
            // Nothing that the driver sees next may be lost, nor what came
            // before the host failed.
            self.board.scenario.journal().flush()?;
            advanced?;
        }
        Ok(self.state.ended.clone())
    }

    fn advance(&mut self, limit: &RunLimit<'_>) -> Result<Option<event::End>, MachineError> {
        self.state.pend_late(self.board.scenario.now());
        if let Some(end) = self.expire_timers()? {
            return Ok(Some(end));
        }
        if let Some(end) = self.too_long() {
            return Ok(Some(end));
        }
        let thread = self.thread();
        let idle = thread.frames.is_empty() || thread.waiting.is_some();
        // A waiting driver with a periodic timer never gets to the vCPU,
        // which looks at the limit itself.
        if idle && let Some(trap) = limit.reached() {
            return self.handle(trap, limit);
        }
        if thread.frames.is_empty() {
            return self.next_of_life();
        }
        if thread.waiting.is_some() {
            return self.wait();
        }
        self.write_new_thunks()?;
        let rip = Gva(self.board.vm.registers().rip);
        let trap = if is_canonical(rip) || self.board.vm.mid_instruction() {
            self.board.run(limit)?
        } else {
            // The processor refuses the jump itself; a host may refuse to
            // load such a RIP at all.
            Trap::GeneralProtection { rip, error: 0 }
        };
        self.state.traps += 1;
        self.handle(trap, limit)
    }

    /// Traps of the driver so far.
    #[must_use]
    pub fn traps(&self) -> u64 {
        self.state.traps
    }

    /// Exits of the vCPU so far.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.board.vm.exits()
    }

    /// The frame last flushed to a scanout.
    #[must_use]
    pub fn frame(&self, scanout: u32) -> Option<&gpu::Frame> {
        self.board.gpu.frame(scanout)
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &journal::Journal {
        self.board.scenario.journal()
    }

    /// Did the driver refuse a step of the workload?
    #[must_use]
    pub fn workload_refused(&self) -> bool {
        self.state.workload.refused()
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.board.memory
    }

    /// Windows, to be looked at.
    #[must_use]
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// What the driver wrote to the vendor's BAR, if the device has one.
    #[must_use]
    pub fn vendor_writes(&self) -> &[VendorWrite] {
        self.board.vendor.as_ref().map_or(&[], |(_, writes)| writes)
    }

    /// Windows and the platform it runs on, for a test that plays the
    /// operating system badly.
    pub fn parts(&mut self) -> (&mut Windows, &mut dyn Platform) {
        (&mut self.windows, &mut self.board)
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.state.threads[self.state.current]
    }

    pub(crate) fn thread_mut(&mut self) -> &mut Thread {
        &mut self.state.threads[self.state.current]
    }

    /// Call a routine of the driver on the current thread, on top of what it
    /// does now.
    pub(crate) fn enter(
        &mut self,
        call: &DriverCall,
        purpose: Purpose,
    ) -> Result<(), MachineError> {
        if self.board.scenario.is_faulty() {
            self.board.scenario.entered(call.name);
        }
        let journal = self.board.scenario.journal();
        let routine = journal.name(call.name);
        journal.emit(Event::Enter {
            routine,
            address: call.routine.0,
            arguments: call.arguments.clone(),
            irql: call.irql,
            thread: self.state.current as u32,
        });
        let thread = &self.state.threads[self.state.current];
        let (resume, top) = if thread.frames.is_empty() {
            (None, thread.stack.0 - 0x40)
        } else {
            let cpu = self.board.vm.save_cpu()?;
            let top = cpu.registers[Gpr::Rsp];
            (Some(cpu), top)
        };
        let now = self.board.scenario.now();
        match purpose {
            Purpose::Life => self.state.life_goes_on(now),
            Purpose::Asynchronous => self.state.others_go_on(now),
            Purpose::Nested { .. } | Purpose::Thread => {}
        }
        let frame = Frame {
            purpose,
            name: call.name,
            routine,
            resume,
            waiting: self.thread_mut().waiting.take(),
            irql: self.windows.executive.irql(),
            called_at: call.irql,
            interrupts: self.board.state.interrupts,
        };
        let nested = self.thread().frames.len();
        self.thread_mut().frames.push(frame);
        self.windows
            .executive
            .set_irql(&mut self.board, call.irql)
            .map_err(MachineError::Platform)?;

        // The x64 convention: home space for four arguments above the return
        // address, further ones above that; RSP is 8 below a multiple of 16.
        let extra = call.arguments.len().saturating_sub(4) as u64;
        let pointer = (top.wrapping_sub(8 + 0x20 + 8 * extra) & !0xF).wrapping_sub(8);
        let mut registers = Registers {
            rip: call.routine.0,
            rflags: 0x202,
            ..Registers::default()
        };
        registers[Gpr::Rsp] = pointer;
        let places = [Gpr::Rcx, Gpr::Rdx, Gpr::R8, Gpr::R9];
        for (place, value) in places.into_iter().zip(&call.arguments) {
            registers[place] = *value;
        }
        let mut written = self
            .board
            .space
            .write_u64(Gva(pointer), windows::layout::RETURN.0);
        for (index, value) in call.arguments.iter().enumerate().skip(4) {
            let at = Gva(pointer.wrapping_add(8 + 8 * index as u64));
            written = written.and(self.board.space.write_u64(at, *value));
        }
        if written.is_err() || nested >= MAX_FRAMES {
            let stop = processor::no_stack(pointer, &format!("to call {}", call.name));
            self.state.ended = self.bug_check(stop)?;
            return Ok(());
        }
        self.board.vm.set_registers(&registers)?;
        Ok(())
    }

    /// Windows stops, or would: `None` if the run goes on.
    pub(crate) fn bug_check(&mut self, stop: Stop) -> Result<Option<event::End>, MachineError> {
        let continued = self.keep_going && stop.go_on.is_some();
        let stack = self.board.stack_id();
        let rule = stop.rule.and_then(windows::rules::find);
        self.board
            .scenario
            .journal()
            .emit(Event::BugCheck(BugCheck {
                rule: rule.map(|rule| rule.id.to_owned()),
                finding: rule.and_then(|rule| rule.finding).map(str::to_owned),
                subject: stop.subject,
                code: stop.code,
                parameters: stop.parameters,
                certainty: stop.certainty,
                reason: stop.reason,
                stack,
                continued,
            }));
        Ok((!continued).then_some(event::End::BugCheck))
    }

    /// Signal the timers whose time has come.
    fn expire_timers(&mut self) -> Result<Option<event::End>, MachineError> {
        match self.windows.executive.expire_timers(&mut self.board) {
            Ok(()) => Ok(None),
            Err(error) => {
                let stop = self
                    .windows
                    .object_freed("KTIMER or its KDPC", "set", &error);
                self.bug_check(stop)
            }
        }
    }

    /// One step of the device, and what it sent.
    pub(crate) fn device_step(&mut self) -> Result<Option<event::End>, MachineError> {
        self.board.step_device();
        self.state.others_go_on(self.board.scenario.now());
        self.take_messages()
    }

    /// Sort out the interrupt messages that were sent. A fault of the IOMMU
    /// is Windows' own interrupt and is served at once.
    pub(crate) fn take_messages(&mut self) -> Result<Option<event::End>, MachineError> {
        use windows::hal::Interrupt;
        for message in self.board.take_messages() {
            match self
                .windows
                .hal
                .message_target(message.address, message.data)
            {
                Some(Interrupt::Device { message, .. }) => self.interrupted(message),
                Some(Interrupt::IommuFault) => {
                    if let Some(stop) = self.windows.hal.fault_interrupt(&mut self.board)
                        && let Some(end) = self.bug_check(stop)?
                    {
                        return Ok(Some(end));
                    }
                }
                None => log::warn!("an interrupt message to nobody: {:#x}", message.address),
            }
        }
        Ok(None)
    }

    /// A message of the device reaches the processor, unless the scenario
    /// has it otherwise.
    fn interrupted(&mut self, message: u32) {
        let injection = self.board.scenario.inject(&Site::new(SiteKind::Interrupt));
        let later = injection
            .map(|injection| self.board.scenario.now().saturating_add(injection.ns))
            .filter(|_| self.state.late.len() < MAX_PENDING);
        match (injection.map(|injection| injection.outcome), later) {
            (Some(What::Lost), _) => return,
            (Some(What::Late), Some(due)) => {
                self.state.late.push((due, message));
                return;
            }
            (Some(What::Spurious), Some(due)) => self.state.late.push((due, message)),
            _ => {}
        }
        self.state.pend(message);
    }

    /// The faults of the scenario, and the answers that it writes over: what
    /// each is called, and how often it was injected.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, u64)> {
        let scenario = &self.board.scenario;
        let faults = scenario.faults();
        let names = faults.iter().map(scenario::Fault::title);
        let fired = scenario.tallies().into_iter().map(|tally| tally.fired);
        let answers = scenario.plan().answers.iter().map(|answer| {
            let given = scenario.answers(answer.of) > answer.number;
            (answer.title(), u64::from(given))
        });
        names.zip(fired).chain(answers).collect()
    }

    /// Deliver what may interrupt the driver now: an interrupt first, then a
    /// DPC. Returns whether something was entered.
    pub(crate) fn deliver(&mut self, may_wait: bool) -> Result<bool, MachineError> {
        if self.board.vm.mid_instruction() {
            return Ok(false);
        }
        let may_wait = may_wait && self.choosing;
        let irql = self.windows.executive.irql();
        let Self { board, state, .. } = self;
        if !state.interrupts.is_empty() && irql < DEVICE_IRQL && board.state.interrupts {
            let held = &mut state.held.interrupts;
            if !may_wait || Held::allows(held, &board.scenario, Point::Interrupt) {
                let message = self.state.interrupts.remove(0);
                if let Some(call) = self.windows.interrupt(message) {
                    self.enter(&call, Purpose::Asynchronous)?;
                    return Ok(true);
                }
            }
        }
        // A DPC is an interrupt too: software's, at DISPATCH_LEVEL.
        if irql < 2
            && self.board.state.interrupts
            && self.windows.dpc_pending()
            && (!may_wait
                || Held::allows(&mut self.state.held.dpcs, &self.board.scenario, Point::Dpc))
        {
            match self.windows.take_dpc(&mut self.board) {
                Ok(Some(call)) => {
                    self.enter(&call, Purpose::Asynchronous)?;
                    return Ok(true);
                }
                Ok(None) => {}
                Err(error) => {
                    let stop = self.windows.object_freed("KDPC", "queued", &error);
                    self.state.ended = self.bug_check(stop)?;
                }
            }
        }
        Ok(false)
    }
}

/// Can the processor hold this address? Bits 63 to 47 are alike (Intel SDM
/// vol. 1, 3.3.7.1).
fn is_canonical(address: Gva) -> bool {
    address.0.cast_signed() << 16 >> 16 == address.0.cast_signed()
}
