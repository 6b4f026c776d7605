//! The vCPU: entering the driver's code, and telling why it left.
//!
//! While the host works, `registers` here is the truth. How it gets back into
//! the vCPU depends on where the hardware stopped: at CPL 3 (a port or MMIO
//! access) it is loaded directly, in an exception stub it goes into a frame
//! for `iretq`.
#![allow(unsafe_code)] // reading a union in kvm_run

use super::alarm::Alarm;
use super::error::VmError;
use super::layout::{self, FRAME, IRET_STUB, USER_CS, USER_SS};
use super::registers::{Gpr, Registers};
use super::setup::set_slots;
use super::space::AddressSpace;
use super::trap::{RunLimit, Trap};
use kvm_bindings::kvm_regs;
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd, VmFd};
use memory::{Gpa, GuestMemory, Gva, PAGE_SIZE};
use std::sync::Arc;

/// Where the hardware stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stopped {
    /// In the driver's code.
    User,
    /// In an exception stub: going on takes an `iretq`.
    Stub,
    /// In the driver's code, in an MMIO read that has no answer yet.
    Reading,
}

/// What KVM_RUN came back with, copied out of the shared page.
enum Exit {
    Out {
        port: u16,
        value: u32,
        size: u8,
    },
    Mmio {
        gpa: u64,
        size: u8,
        write: Option<[u8; 8]>,
    },
    Kicked,
    Other(String),
}

/// The machine: derived from an [`AddressSpace`], which it must be run with.
#[derive(Debug)]
pub struct Vm {
    // Field order is drop order: the vCPU before its VM, and both before the
    // memory that KVM maps.
    pub(super) vcpu: VcpuFd,
    pub(super) fd: VmFd,
    pub(super) memory: Arc<GuestMemory>,
    /// Where the exception frame lies in RAM.
    pub(super) frame: Gpa,
    pub(super) alarm: Option<Alarm>,
    pub(super) sync_regs: bool,
    pub(super) registers: Registers,
    /// `registers` differ from the hardware's.
    pub(super) dirty: bool,
    pub(super) stopped: Stopped,
    /// A trap found while completing an instruction; the next `run` gives it.
    pub(super) queued: Option<Trap>,
    /// The last run was cut short, so an exception may wait inside KVM.
    pub(super) cut_short: bool,
    /// After an `out`, is RIP past it on this host? Unknown before the first.
    pub(super) out_moves_rip: Option<bool>,
    /// KVM would move RIP if it is still here at the next entry.
    pub(super) unfinished_out: Option<u64>,
    pub(super) gs_base: u64,
    pub(super) exits: u64,
}

impl Vm {
    /// The driver's integer registers.
    #[must_use]
    pub fn registers(&self) -> Registers {
        self.registers
    }

    /// Replace the driver's integer registers; it goes on from there.
    ///
    /// # Errors
    /// [`VmError::UnansweredRead`], [`VmError::MidInstruction`].
    pub fn set_registers(&mut self, registers: &Registers) -> Result<(), VmError> {
        if self.stopped == Stopped::Reading {
            return Err(VmError::UnansweredRead);
        }
        if self.queued.is_some() {
            return Err(VmError::MidInstruction);
        }
        let clean = Registers {
            rflags: Registers::clean_flags(registers.rflags),
            ..*registers
        };
        self.dirty |= clean != self.registers;
        self.registers = clean;
        Ok(())
    }

    /// Is an instruction only partly done (it makes several MMIO accesses)?
    /// Then registers cannot be replaced, and no interrupt delivered.
    #[must_use]
    pub fn mid_instruction(&self) -> bool {
        self.stopped == Stopped::Reading || self.queued.is_some()
    }

    /// Exits of the vCPU so far: what a run costs.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.exits
    }

    /// Does KVM share the registers in memory, sparing two calls an exit?
    #[must_use]
    pub fn has_sync_regs(&self) -> bool {
        self.sync_regs
    }

    /// Pages of the memory file that the CPU wrote since the last call, as
    /// words of a bitmap; bit 0 of the first is the first page.
    ///
    /// # Errors
    /// [`VmError::Kvm`].
    pub fn written(&self) -> Result<Vec<u64>, VmError> {
        let mut words = Vec::new();
        for (number, slot) in self.memory.slots().iter().enumerate() {
            let log = self
                .fd
                .get_dirty_log(number as u32, slot.size as usize)
                .map_err(VmError::kvm("KVM_GET_DIRTY_LOG"))?;
            words.extend(log);
        }
        Ok(words)
    }

    /// Run the driver's code up to its next trap.
    ///
    /// `space` must be the one that the machine was made from.
    ///
    /// # Errors
    /// [`VmError::UnansweredRead`], [`VmError::Kvm`], [`VmError::Timer`].
    pub fn run(&mut self, space: &mut AddressSpace, limit: &RunLimit<'_>) -> Result<Trap, VmError> {
        if self.stopped == Stopped::Reading {
            return Err(VmError::UnansweredRead);
        }
        if let Some(trap) = self.queued.take() {
            return Ok(self.deliver(trap));
        }
        if space.flush()? {
            self.forget_translations()?;
        }
        self.watch(limit)?;
        if let Some(trap) = limit.reached() {
            return Ok(trap);
        }
        self.load_registers()?;
        loop {
            match self.enter()? {
                Exit::Kicked => {
                    if let Some(alarm) = &self.alarm {
                        alarm.consume();
                    }
                    let hardware = self.hardware_registers()?;
                    // Within a stub the driver's registers are not to be
                    // seen; it is two instructions long.
                    if layout::is_system(hardware.rip) {
                        continue;
                    }
                    if let Some(trap) = limit.reached() {
                        self.registers = Registers::from_kvm(&hardware);
                        self.dirty = false;
                        self.stopped = Stopped::User;
                        self.cut_short = true;
                        return Ok(trap);
                    }
                }
                exit => return self.explain(space, exit),
            }
        }
    }

    /// Answer the MMIO read that the last [`Trap::Mmio`] asked for, with the
    /// first `size` of `bytes`, and complete the instruction. If it makes a
    /// further access ([`Vm::mid_instruction`]), the next `run` gives it.
    ///
    /// # Errors
    /// [`VmError::NothingToAnswer`], [`VmError::Kvm`].
    pub fn finish_mmio_read(&mut self, bytes: [u8; 8]) -> Result<(), VmError> {
        if self.stopped != Stopped::Reading {
            return Err(VmError::NothingToAnswer);
        }
        // The last exit was KVM_EXIT_MMIO: `Reading` says so.
        self.vcpu.get_kvm_run().__bindgen_anon_1.mmio.data = bytes;
        self.stopped = Stopped::User;
        self.complete()
    }

    /// Let KVM finish the instruction whose port or MMIO access it exited
    /// for, without running another.
    pub(super) fn complete(&mut self) -> Result<(), VmError> {
        self.vcpu.set_kvm_immediate_exit(1);
        let exit = self.enter();
        self.vcpu.set_kvm_immediate_exit(0);
        match exit? {
            Exit::Kicked => {}
            // The next access of the same instruction.
            exit => {
                let trap = self.explain_unfinished(exit)?;
                self.queued = Some(trap);
            }
        }
        self.registers = Registers::from_kvm(&self.hardware_registers()?);
        self.dirty = false;
        Ok(())
    }

    /// Bring the registers past an `out`.
    ///
    /// Most hosts leave RIP at it and move it at the next entry, some have
    /// moved it already; which, is learnt from the first, because completing
    /// each by another call would add a tenth to its cost.
    fn finish_out(&mut self, space: &AddressSpace, port: u16) -> Result<(), VmError> {
        let before = Registers::from_kvm(&self.hardware_registers()?);
        match self.out_moves_rip {
            None => {
                self.complete()?;
                self.out_moves_rip = Some(self.registers.rip == before.rip);
            }
            Some(true) => {
                self.registers = before;
                self.dirty = false;
            }
            Some(false) => {
                let mut bytes = [0; 2];
                let read = space.read(Gva(before.rip), &mut bytes);
                // out imm8, eax: what a thunk is made of.
                if read.is_err() || bytes != [0xe7, port as u8] {
                    return self.complete();
                }
                self.registers = before;
                self.registers.rip = before.rip.wrapping_add(2);
                self.dirty = true;
                self.unfinished_out = Some(before.rip);
            }
        }
        Ok(())
    }

    /// Hand out a trap that was found early.
    pub(super) fn deliver(&mut self, trap: Trap) -> Trap {
        if let Trap::Mmio { write: None, .. } = trap {
            self.stopped = Stopped::Reading;
        } else if let Trap::Mmio {
            gpa,
            size,
            write: Some(_),
            ..
        } = trap
        {
            // KVM splits a write after 8 bytes and at the end of a page; only
            // then may more of it be waiting.
            let at_end = (gpa.0 + u64::from(size)).is_multiple_of(PAGE_SIZE);
            if (size == 8 || at_end)
                && let Err(error) = self.complete()
            {
                return Trap::Fatal(error.to_string());
            }
        }
        trap
    }

    /// Turn an exit into a trap and the driver's registers.
    fn explain(&mut self, space: &AddressSpace, exit: Exit) -> Result<Trap, VmError> {
        match exit {
            Exit::Out { port, .. } if port < layout::VECTORS => self.exception(port as u8),
            Exit::Out { port, value, size } => {
                self.stopped = Stopped::User;
                self.finish_out(space, port)?;
                Ok(Trap::Port { port, value, size })
            }
            exit => {
                let trap = self.explain_unfinished(exit)?;
                self.registers = Registers::from_kvm(&self.hardware_registers()?);
                self.dirty = false;
                self.stopped = Stopped::User;
                Ok(self.deliver(trap))
            }
        }
    }

    fn explain_unfinished(&mut self, exit: Exit) -> Result<Trap, VmError> {
        match exit {
            Exit::Mmio { gpa, size, write } => Ok(Trap::Mmio {
                gpa: Gpa(gpa),
                size,
                write,
                rip: Gva(self.registers_rip()?),
            }),
            Exit::Other(reason) => {
                let at = self.registers_rip()?;
                Ok(Trap::Fatal(format!("{reason}, at {at:#x}")))
            }
            Exit::Out { port, .. } => Ok(Trap::Fatal(format!(
                "an output to port {port:#x} in the middle of an instruction"
            ))),
            Exit::Kicked => Ok(Trap::Interrupted),
        }
    }

    /// An exception stub reached the host: the frame says what happened.
    fn exception(&mut self, vector: u8) -> Result<Trap, VmError> {
        let mut bytes = [0; 48];
        self.memory.read(Gpa(self.frame.0 - 8), &mut bytes)?;
        let mut words = [0u64; 6];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.try_into().map_or(0, u64::from_le_bytes);
        }
        let [error, rip, cs, rflags, rsp, _ss] = words;
        let error = if layout::has_error_code(vector) {
            error
        } else {
            0
        };
        if cs != u64::from(USER_CS) {
            return Ok(Trap::Fatal(format!(
                "exception {vector} (error {error:#x}) at {rip:#x}, in the machine's own stubs"
            )));
        }
        self.registers = Registers::from_kvm(&self.hardware_registers()?);
        self.registers.rip = rip;
        self.registers.rflags = Registers::clean_flags(rflags);
        self.registers[Gpr::Rsp] = rsp;
        self.stopped = Stopped::Stub;
        self.dirty = true;
        let rip = Gva(rip);
        Ok(match vector {
            0 => Trap::DivideError { rip },
            3 => Trap::Breakpoint {
                rip: Gva(rip.0.wrapping_sub(1)),
            },
            6 => Trap::InvalidOpcode { rip },
            13 => Trap::GeneralProtection { rip, error },
            14 => Trap::PageFault {
                address: Gva(self.fault_address()?),
                write: error & 2 != 0,
                fetch: error & 16 != 0,
                present: error & 1 != 0,
                rip,
            },
            _ => Trap::Exception { vector, error, rip },
        })
    }

    /// Give the vCPU the registers to go on with.
    fn load_registers(&mut self) -> Result<(), VmError> {
        if self.unfinished_out.take() == Some(self.registers.rip) {
            let registers = self.registers;
            self.complete()?;
            self.registers = registers;
            self.dirty = true;
        }
        let mut regs = self.registers.to_kvm();
        match self.stopped {
            Stopped::User if !self.dirty => return Ok(()),
            Stopped::User | Stopped::Reading => {}
            Stopped::Stub => {
                let words = [
                    regs.rip,
                    u64::from(USER_CS),
                    regs.rflags,
                    regs.rsp,
                    u64::from(USER_SS),
                ];
                let mut bytes = [0; 40];
                for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
                self.memory.write(self.frame, &bytes)?;
                regs.rip = IRET_STUB.0;
                regs.rsp = FRAME.0;
                regs.rflags = 2;
            }
        }
        self.dirty = false;
        if self.sync_regs {
            self.vcpu.sync_regs_mut().regs = regs;
            self.vcpu.set_sync_dirty_reg(SyncReg::Register);
            return Ok(());
        }
        self.vcpu
            .set_regs(&regs)
            .map_err(VmError::kvm("KVM_SET_REGS"))
    }

    fn hardware_registers(&mut self) -> Result<kvm_regs, VmError> {
        if self.sync_regs {
            return Ok(self.vcpu.sync_regs_mut().regs);
        }
        self.vcpu.get_regs().map_err(VmError::kvm("KVM_GET_REGS"))
    }

    fn registers_rip(&mut self) -> Result<u64, VmError> {
        Ok(self.hardware_registers()?.rip)
    }

    /// CR2.
    fn fault_address(&mut self) -> Result<u64, VmError> {
        if self.sync_regs {
            return Ok(self.vcpu.sync_regs_mut().sregs.cr2);
        }
        let sregs = self
            .vcpu
            .get_sregs()
            .map_err(VmError::kvm("KVM_GET_SREGS"))?;
        Ok(sregs.cr2)
    }

    fn enter(&mut self) -> Result<Exit, VmError> {
        self.exits += 1;
        match self.vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                let mut bytes = [0; 4];
                let size = data.len().min(4);
                bytes[..size].copy_from_slice(&data[..size]);
                Ok(Exit::Out {
                    port,
                    value: u32::from_le_bytes(bytes),
                    size: size as u8,
                })
            }
            Ok(VcpuExit::MmioRead(gpa, data)) => Ok(Exit::Mmio {
                gpa,
                size: data.len() as u8,
                write: None,
            }),
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                let mut bytes = [0; 8];
                let size = data.len().min(8);
                bytes[..size].copy_from_slice(&data[..size]);
                Ok(Exit::Mmio {
                    gpa,
                    size: size as u8,
                    write: Some(bytes),
                })
            }
            Ok(VcpuExit::Shutdown) => Ok(Exit::Other("triple fault".into())),
            Ok(VcpuExit::InternalError) => Ok(Exit::Other(self.internal_error())),
            Ok(VcpuExit::Intr) => Ok(Exit::Kicked),
            Ok(other) => Ok(Exit::Other(format!("unexpected exit {other:?}"))),
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {
                Ok(Exit::Kicked)
            }
            Err(error) => Err(VmError::kvm("KVM_RUN")(error)),
        }
    }

    fn internal_error(&mut self) -> String {
        // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, whose view of
        // the union this is.
        let (suberror, data) = unsafe {
            let internal = self.vcpu.get_kvm_run().__bindgen_anon_1.internal;
            (internal.suberror, internal.data)
        };
        let what = match suberror {
            1 => "KVM cannot emulate this instruction",
            2 => "an exception arrived while another was delivered",
            3 => "an exception could not be delivered",
            _ => "KVM met an unexpected state",
        };
        format!("{what} (suberror {suberror}, {:x?})", &data[..4])
    }

    /// Make KVM forget every translation, also those to MMIO and those that
    /// pass through page tables which were rewritten: only a change of the
    /// memory slots does that.
    fn forget_translations(&mut self) -> Result<(), VmError> {
        set_slots(&self.fd, &self.memory, false)?;
        set_slots(&self.fd, &self.memory, true)
    }

    /// Tick if there is something to watch for.
    fn watch(&mut self, limit: &RunLimit<'_>) -> Result<(), VmError> {
        if limit.deadline.is_none() && limit.stop.is_none() {
            return Ok(());
        }
        if !self.alarm.as_ref().is_some_and(Alarm::is_here) {
            self.alarm = Some(Alarm::start(&self.vcpu)?);
        }
        Ok(())
    }
}
