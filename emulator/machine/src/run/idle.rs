//! What happens while the driver's code does not run: the next call of the
//! adapter's life, and waiting.

use super::Machine;
use super::threads::{Parked, Purpose};
use crate::error::MachineError;
use crate::vm::Gpr;
use crate::workload::Next;
use gpu::Stepped;
use journal::event::{End, Event};
use memory::Gva;
use windows::dxgk::Progress;
use windows::{Stop, processor};

impl Machine {
    /// No routine of the driver is running on this thread: call the next.
    pub(super) fn next_of_life(&mut self) -> Result<Option<End>, MachineError> {
        if self.windows.in_exclusive_access() {
            // The driver masks interrupts meanwhile, and its device ought to
            // be quiet: it does all that it was left to do.
            if self.board.device_has_work() {
                return self.device_turn();
            }
        } else if self.windows.is_stopped() {
            // dxgkrnl removes a device after its interrupt is disconnected
            // and its DPC has run, and a device left running works meanwhile.
            self.state.release();
            if self.deliver(false)? {
                return Ok(None);
            }
            if self.board.device_has_work() {
                return self.device_turn();
            }
        } else if self.deliver(true)? {
            return Ok(None);
        }
        if self.state.current != 0 {
            // A system thread that ended: the CPU goes to another.
            self.switch_to(0)?;
            return Ok(None);
        }
        // Workers run between the driver's routines, and before it is
        // unloaded: Windows holds its device for their items.
        let is_worker = |index: usize| {
            let thread = self.windows.executive.thread(index as u32);
            thread.is_some_and(|thread| thread.item.is_some())
        };
        let mut threads = 1..self.state.threads.len();
        if let Some(worker) = threads.find(|&index| is_worker(index) && self.is_ready(index)) {
            self.satisfy(worker);
            self.switch_to(worker)?;
            return Ok(None);
        }
        let Self {
            board,
            windows,
            state,
            ..
        } = self;
        match state.workload.next(windows, board, state.result)? {
            Next::Life(Progress::Call(call)) | Next::Escape(call) => {
                self.enter(&call, Purpose::Life)?;
                Ok(None)
            }
            Next::Life(Progress::Ready | Progress::DevicesTurn) => Ok(None),
            Next::Life(Progress::Finished) => {
                if self.windows.dxgk.is_unloaded() {
                    self.windows.mm.report_unreleased(&mut self.board);
                    self.windows.executive.report_strings_left(&self.board);
                }
                if let Some(stop) = self.left_behind()
                    && let Some(end) = self.bug_check(stop)?
                {
                    return Ok(Some(end));
                }
                Ok(Some(match self.windows.dxgk.failure() {
                    Some((routine, status)) => End::StartFailed {
                        routine: routine.to_owned(),
                        status,
                    },
                    None => End::Completed,
                }))
            }
        }
    }

    /// What of an unloaded driver would still run its code.
    fn left_behind(&self) -> Option<Stop> {
        if !self.windows.dxgk.is_unloaded() {
            return None;
        }
        let executive = &self.windows.executive;
        let thread = executive
            .threads()
            .iter()
            .find(|thread| thread.id != 0 && thread.ended.is_none());
        if let Some(thread) = thread {
            return Some(processor::left_behind(thread.start, "a system thread"));
        }
        if executive.next_deadline(None).is_some() {
            return Some(processor::left_behind(Gva(0), "a timer that is set"));
        }
        if let Some(list) = executive.lookasides().next() {
            return Some(processor::left_behind(list, "a lookaside list"));
        }
        None
    }

    /// The current thread waits: see whether it need not any more; else let
    /// the rest of the machine go on.
    pub(super) fn wait(&mut self) -> Result<Option<End>, MachineError> {
        let waits = self.state.threads.iter().filter_map(|t| t.waiting.as_ref());
        let executive = &self.windows.executive;
        if let Some(gone) = waits
            .into_iter()
            .find_map(|w| executive.wait_faults(&self.board, &w.wait))
        {
            let gone = windows::PlatformError::NotMapped(gone);
            if let windows::Outcome::Stop(stop) = self.windows.explain(gone.into()) {
                return self.bug_check(stop);
            }
        }
        // A delay gives the others their turn, however short it is.
        if let Some(waiting) = &self.thread().waiting
            && waiting.wait.objects.is_empty()
            && let Some(other) = self.other_ready()
        {
            self.switch_to(other)?;
            return Ok(None);
        }
        if self.satisfy(self.state.current) {
            return Ok(None);
        }
        self.state.release();
        if self.deliver(false)? {
            return Ok(None);
        }
        if let Some(other) = self.other_ready() {
            self.switch_to(other)?;
            return Ok(None);
        }
        self.others_or_hang(
            "every thread of the driver waits, the device has nothing to do, no interrupt or DPC \
             is pending and no timer is set",
        )
    }

    /// The driver waits: the device does all it can, and then time passes. If
    /// neither can, it waits for ever.
    pub(super) fn others_or_hang(&mut self, reason: &str) -> Result<Option<End>, MachineError> {
        if self.board.device_has_work() {
            return self.device_turn();
        }
        if self.pass_time() {
            return Ok(None);
        }
        Ok(Some(End::Hang {
            reason: reason.to_owned(),
            stack: self.board.stack_id(),
        }))
    }

    /// One step of the device while no code of the driver runs.
    pub(super) fn device_turn(&mut self) -> Result<Option<End>, MachineError> {
        self.state.others_go_on(self.board.scenario.now());
        if self.board.step_device() == Stepped::Waiting {
            // Only an access that the scenario holds back is left, and
            // nothing else is going to make it land.
            self.board.step_device_landing();
        }
        self.take_messages()
    }

    /// Complete the wait of a thread if what it waits for has come. Only the
    /// current thread's registers are at hand; others complete when they get
    /// the CPU.
    pub(super) fn satisfy(&mut self, index: usize) -> bool {
        let Some(waiting) = self.state.threads[index].waiting.clone() else {
            return true;
        };
        let status = self
            .windows
            .executive
            .try_satisfy(&mut self.board, &waiting.wait);
        let Some(status) = status else { return false };
        self.state.threads[index].waiting = None;
        let value = u64::from(status);
        self.board.scenario.journal().emit(Event::Return {
            function: waiting.function,
            value,
        });
        if index == self.state.current {
            let mut registers = self.board.vm.registers();
            registers[Gpr::Rax] = value;
            // A wait is a whole call: KVM holds no half instruction.
            let _ = self.board.vm.set_registers(&registers);
        } else if let Some(parked) = &mut self.state.threads[index].parked {
            parked.cpu.registers[Gpr::Rax] = value;
        }
        true
    }

    /// Another thread that could run now, in turn, so that none is left out.
    pub(super) fn other_ready(&mut self) -> Option<usize> {
        let (current, count) = (self.state.current, self.state.threads.len());
        for index in (current + 1..count).chain(0..current) {
            if self.state.threads[index].frames.is_empty() {
                continue;
            }
            if self.state.threads[index].ready() || self.satisfy(index) {
                return Some(index);
            }
        }
        None
    }

    /// Give the CPU to another thread.
    pub(super) fn switch_to(&mut self, index: usize) -> Result<(), MachineError> {
        self.thread_mut().parked = Some(Parked {
            cpu: self.board.vm.save_cpu()?,
            irql: self.windows.executive.irql(),
            interrupts: self.board.state.interrupts,
        });
        self.state.current = index;
        self.state.others_go_on(self.board.scenario.now());
        let parked = self.thread_mut().parked.take();
        let (irql, interrupts) = match &parked {
            Some(parked) => {
                self.board.vm.restore_cpu(&parked.cpu)?;
                (parked.irql, parked.interrupts)
            }
            None => (0, true),
        };
        self.board.state.interrupts = interrupts;
        let executive = &mut self.windows.executive;
        executive
            .switch_to(&mut self.board, index as u32)
            .and_then(|()| executive.set_irql(&mut self.board, irql))
            .map_err(MachineError::Platform)
    }

    /// Let virtual time pass up to the next moment that somebody waits for.
    pub(super) fn pass_time(&mut self) -> bool {
        let now = self.board.scenario.now();
        let waits = self
            .state
            .threads
            .iter()
            .filter_map(|t| t.waiting.as_ref().and_then(|w| w.wait.until));
        let timers = self.windows.executive.next_deadline(None);
        let late = self.state.late.iter().map(|&(due, _)| due);
        let Some(due) = waits
            .chain(timers)
            .chain(late)
            .filter(|&due| due > now)
            .min()
        else {
            return false;
        };
        // The device shows its screens while the driver waits; on its own
        // account it would go on for ever.
        let vsync = self.board.gpu.next_vsync().filter(|&next| next > now);
        let due = vsync.map_or(due, |next| next.min(due));
        self.board.scenario.advance(due - now);
        self.state.goes_by_time();
        true
    }
}
