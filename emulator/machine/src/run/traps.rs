//! The driver's traps.

use super::Machine;
use crate::error::MachineError;
use crate::vm::emulate::{self, Completion, Intercept, Privileged};
use crate::vm::{Gpr, RunLimit, StepEnd, Trap, thunk};
use journal::event::{End, Event, TrapKind};
use memory::{Gva, PAGE_SIZE};
use scenario::TIME_PER_TRAP;
use windows::processor::{self, BadAccess};
use windows::{Platform, Stop, layout};

/// Trapped pages that are let through together. An instruction that is not
/// repeated touches fewer.
const MAX_PAGES: usize = 8;
/// Time-stamp counter ticks in a virtual nanosecond: a 3 GHz processor.
const TICKS: u64 = 3;

impl Machine {
    /// Deal with a trap. The device has its turn first: it works while the
    /// driver's code runs up to the trap.
    pub(super) fn handle(
        &mut self,
        trap: Trap,
        limit: &RunLimit<'_>,
    ) -> Result<Option<End>, MachineError> {
        self.board.scenario.advance(TIME_PER_TRAP);
        if let Some(end) = self.device_chosen()? {
            // Windows stopped before the trap's own work was done.
            return Ok(Some(end));
        }
        let before = self.board.scenario.now();
        if let Some(end) = self.serve(trap, limit)? {
            return Ok(Some(end));
        }
        if self.board.scenario.now() != before {
            // It let time pass: KeStallExecutionProcessor and its kind.
            self.state.release();
            self.state.goes_by_time();
        }
        if self.state.ended.is_none()
            && self.thread().waiting.is_none()
            && !self.thread().frames.is_empty()
        {
            self.deliver(true)?;
            self.thread_turn()?;
        }
        if self.state.ended.is_none()
            && self.thread().waiting.is_none()
            && !self.thread().frames.is_empty()
            && let Some(end) = self.comes_round()?
        {
            return Ok(Some(end));
        }
        Ok(self.state.ended.clone())
    }

    fn serve(&mut self, trap: Trap, limit: &RunLimit<'_>) -> Result<Option<End>, MachineError> {
        match trap {
            Trap::Port { port, value, .. } if port == thunk::CALL_PORT => self.call(value),
            Trap::Port { port, .. } if port == thunk::RETURN_PORT => self.routine_returned(),
            Trap::Port { port, .. } => Ok(Some(self.unsupported(format!(
                "the driver wrote to port {port:#x} of the machine itself"
            )))),
            Trap::Mmio {
                gpa, size, write, ..
            } => {
                match write {
                    Some(bytes) => {
                        let value = u64::from_le_bytes(bytes);
                        self.note(TrapKind::MmioWrite, gpa.0, value, size);
                        self.board.device_write(gpa, size, value);
                    }
                    None => {
                        let value = self.board.device_read(gpa, size);
                        self.note(TrapKind::MmioRead, gpa.0, value, size);
                        self.board.vm.finish_mmio_read(value.to_le_bytes())?;
                    }
                }
                self.take_messages()
            }
            Trap::PageFault {
                address,
                write,
                fetch,
                rip,
                ..
            } => self.page_fault(address, write, fetch, rip, limit),
            Trap::GeneralProtection { rip, .. } | Trap::InvalidOpcode { rip } => {
                self.privileged(&trap, rip)
            }
            Trap::Breakpoint { rip } => {
                // As without a debugger: a breakpoint that nobody handles.
                self.exception(0x8000_0003, rip, "a breakpoint (int 3)")
            }
            Trap::DivideError { rip } => self.exception(0xC000_0094, rip, "a division by zero"),
            Trap::Exception { vector, rip, .. } => {
                self.exception(0xC000_0005, rip, &format!("processor exception {vector}"))
            }
            Trap::Timeout => Ok(Some(End::OutOfTime {
                reason:
                    "the driver's code ran until the time limit (--timeout) without ending; the \
                         limit goes by this host's clock, so that a slower or busier host may \
                         come to it sooner"
                        .to_owned(),
                stack: self.board.stack_id(),
            })),
            Trap::Interrupted => Ok(Some(End::Interrupted)),
            Trap::Fatal(why) => Err(MachineError::Fatal(why)),
        }
    }

    fn note(&mut self, kind: TrapKind, address: u64, value: u64, size: u8) {
        self.watched(kind);
        let mut frames = self.board.frames();
        // After a device write RIP is at the successor: the byte before it
        // belongs to the instruction that wrote.
        if kind == TrapKind::MmioWrite
            && let Some(first) = frames.first_mut()
        {
            *first = first.wrapping_sub(1);
        }
        let stack = self.board.scenario.journal().stack(&frames);
        self.board.scenario.journal().emit(Event::Trap {
            kind,
            address,
            value,
            size,
            stack,
        });
    }

    fn unsupported(&mut self, reason: String) -> End {
        End::Unsupported {
            reason,
            stack: self.board.stack_id(),
        }
    }

    fn page_fault(
        &mut self,
        address: Gva,
        write: bool,
        fetch: bool,
        rip: Gva,
        limit: &RunLimit<'_>,
    ) -> Result<Option<End>, MachineError> {
        if let Some(name) = self.windows.missing_name(address) {
            let what = if fetch { "calls" } else { "reads the data" };
            let reason = format!(
                "the driver {what} {name}, which dmasan does not implement; \
                 `dmasan run` cannot go further with this driver"
            );
            return Ok(Some(self.unsupported(reason)));
        }
        if self.board.is_trapped(address, write, fetch) {
            let page = address.page_base();
            let time = page == layout::SHARED_DATA;
            if time {
                self.state.goes_by_time();
                self.windows
                    .executive
                    .refresh_time(&mut self.board)
                    .map_err(MachineError::Platform)?;
            }
            if !write {
                let kind = if time { TrapKind::Time } else { TrapKind::Poll };
                self.note(kind, address.0, 0, 0);
            }
            return self.let_through(page, limit);
        }
        self.note(TrapKind::PageFault, address.0, 0, 0);
        let access = BadAccess {
            address,
            write,
            fetch,
            mapped: self.board.space.mapping(address).is_some(),
            rip,
            irql: self.windows.executive.irql(),
        };
        self.raise(self.windows.bad_access(&access))
    }

    /// The driver's code raised an exception that ends in `stop`; in a
    /// double fault instead if there is no stack to raise it on.
    fn raise(&mut self, stop: Stop) -> Result<Option<End>, MachineError> {
        // SS, RSP, RFLAGS, CS, RIP and an error code, from a multiple of 16
        // on (Intel SDM vol. 3, 6.14.2).
        let pointer = self.board.vm.registers()[Gpr::Rsp];
        let top = pointer & !0xF;
        let there = [top.wrapping_sub(0x30), top.wrapping_sub(8)]
            .iter()
            .all(|&at| self.board.is_writable(Gva(at)));
        if there {
            return self.bug_check(stop);
        }
        let what_for = format!("for the exception that would be: {}", stop.reason);
        self.bug_check(processor::no_stack(pointer, &what_for))
    }

    fn exception(
        &mut self,
        status: u64,
        rip: Gva,
        what: &str,
    ) -> Result<Option<End>, MachineError> {
        self.note(TrapKind::Exception, rip.0, status, 0);
        self.raise(processor::exception(status, what, rip))
    }

    /// Let the instruction reach the trapped page, and further ones that it
    /// turns out to touch.
    fn let_through(
        &mut self,
        page: Gva,
        limit: &RunLimit<'_>,
    ) -> Result<Option<End>, MachineError> {
        // The instruction sees what the device did: that comes first.
        self.board.scenario.journal().flush()?;
        let mut pages = vec![page];
        loop {
            match self.board.step_over(&pages, limit)? {
                StepEnd::Done => return Ok(None),
                StepEnd::Trap(Trap::PageFault {
                    address,
                    write,
                    fetch,
                    ..
                }) if self.board.is_trapped(address, write, fetch)
                    && !pages.contains(&address.page_base()) =>
                {
                    // A `rep` goes on to ever further pages.
                    if pages.len() == MAX_PAGES {
                        pages.remove(0);
                    }
                    pages.push(address.page_base());
                }
                StepEnd::Trap(trap) => return self.serve(trap, limit),
            }
        }
    }

    /// An instruction that is privileged, or that was patched because it
    /// does not trap at CPL 3.
    fn privileged(&mut self, trap: &Trap, rip: Gva) -> Result<Option<End>, MachineError> {
        let code = self.patches.original_code(&self.board.space, rip);
        let registers = self.board.vm.registers();
        let gs_base = self.board.vm.gs_base();
        let decoded = emulate::decode(&code, &registers, gs_base, &self.board.space);
        match decoded {
            Ok(Some(intercept)) => self.emulate(&intercept, rip),
            Ok(None) if matches!(trap, Trap::InvalidOpcode { .. }) => {
                self.exception(0xC000_001D, rip, "an illegal instruction")
            }
            // #GP of an ordinary instruction: a non-canonical address.
            _ => self.exception(0xC000_0005, rip, "a general protection fault"),
        }
    }

    fn emulate(&mut self, intercept: &Intercept, rip: Gva) -> Result<Option<End>, MachineError> {
        use Privileged as P;
        let mut kind = TrapKind::Privileged;
        let mut with = Completion {
            interrupts: self.board.state.interrupts,
            ..Completion::default()
        };
        match intercept.what {
            P::Rdtsc { .. } | P::Rdmsr { msr: 0x10 } => {
                self.state.goes_by_time();
                with.value = self.board.scenario.now().saturating_mul(TICKS);
            }
            P::Random { .. } => with.value = self.board.scenario.random(),
            P::ReadCr { number: 8, .. } => {
                with.value = u64::from(self.windows.executive.irql());
            }
            P::ReadCr { number, .. } => with.value = control_register(number),
            P::WriteCr { number: 8, value } => {
                kind = TrapKind::Irql;
                with.value = value;
                let taken = self
                    .windows
                    .executive
                    .set_cr8(&mut self.board, value)
                    .map_err(MachineError::Platform)?;
                if !taken {
                    return self.exception(0xC000_0005, rip, "a reserved value for CR8");
                }
            }
            P::Rdmsr { msr: 0xC000_0101 } => with.value = self.board.vm.gs_base(),
            // No device answers on ports: all ones.
            P::In { .. } | P::StringIn { .. } => with.value = u64::MAX,
            P::ReadBase {
                segment: emulate::Segment::Gs,
                ..
            } => with.value = self.board.vm.gs_base(),
            P::FastFail { code } => {
                self.note(TrapKind::Exception, rip.0, u64::from(code), 0);
                return self.bug_check(processor::fast_fail(code));
            }
            P::Assert => return self.exception(0xC000_0420, rip, "a failed assertion (int 2Ch)"),
            P::Undefined => return self.exception(0xC000_001D, rip, "an undefined instruction"),
            P::WriteCr { .. }
            | P::WriteDr { .. }
            | P::WriteSelector { .. }
            | P::WriteBase { .. }
            | P::Iretq { .. }
            | P::Interrupt { .. } => {
                let reason = format!(
                    "the driver executes a privileged instruction that changes the processor \
                     itself ({:?}) at {rip}, which dmasan does not emulate",
                    intercept.what
                );
                return Ok(Some(self.unsupported(reason)));
            }
            _ => {}
        }
        if let Some(flag) = intercept.what.interrupt_flag() {
            self.board.state.interrupts = flag;
        }
        self.note(kind, rip.0, with.value, intercept.length);
        let mut registers = self.board.vm.registers();
        if intercept
            .apply(&with, &mut registers, &self.board.space)
            .is_err()
        {
            let at = Gva(registers[Gpr::Rsp]);
            return self.raise(processor::access_violation(at, "used", rip));
        }
        self.board.vm.set_registers(&registers)?;
        Ok(None)
    }

    /// Thunks made since the last time (for an interface, or by a lookup by
    /// name): guest memory gets them.
    pub(crate) fn write_new_thunks(&mut self) -> Result<(), MachineError> {
        let (first, count) = self.windows.take_new_thunks();
        for index in first..first + count {
            let at = Gva(layout::THUNKS.0 + index as u64 * layout::THUNK_SIZE);
            self.board
                .write(at, &thunk::call(index as u32))
                .map_err(MachineError::Platform)?;
        }
        Ok(())
    }

    /// Map a stack below `top`; the page below it stays unmapped.
    pub(crate) fn map_stack(&mut self, top: Gva) -> Result<(), MachineError> {
        for page in 1..=layout::STACK_SIZE / PAGE_SIZE {
            let frame = self.boot_frame()?;
            let at = Gva(top.0 - page * PAGE_SIZE);
            self.board
                .map(at, frame, windows::Protection::WRITE)
                .map_err(MachineError::Platform)?;
        }
        Ok(())
    }
}

/// Control registers as a Windows kernel has them, in the bits that do not
/// depend on the processor: protected mode with paging, write protection;
/// PAE, SSE, UMIP.
fn control_register(number: u8) -> u64 {
    match number {
        0 => 0x8005_0033,
        4 => 0x0000_0EF8,
        _ => 0,
    }
}
