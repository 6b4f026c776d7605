//! The vCPU: entering the driver's code, and telling why it left.
//!
//! While the host works, `registers` here is the truth. How it gets back into
//! the vCPU depends on where the hardware stopped: at CPL 3 (a port or MMIO
//! access) it is loaded directly, in an exception stub it goes into a frame
//! for `iretq`.
#![allow(unsafe_code)] // KVM memory slots, XSAVE and a union in kvm_run

use super::alarm::Alarm;
use super::cpuid;
use super::error::{SpaceError, VmError};
use super::layout::{self, FRAME, IRET_STUB, USER_CS, USER_SS};
use super::registers::{CpuState, FpuState, Gpr, Registers};
use super::space::AddressSpace;
use super::trap::{RunLimit, Trap};
use kvm_bindings::{
    KVM_API_VERSION, kvm_dtable, kvm_regs, kvm_segment, kvm_userspace_memory_region,
    kvm_vcpu_events, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};
use memory::{Gpa, GuestMemory, Gva, PAGE_SIZE};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Three pages that KVM wants on some hosts for real mode, which we never
/// use: in the firmware's part of the address space.
const REAL_MODE_TSS: usize = 0xfffb_d000;

// Control register bits (Intel SDM vol. 3, 2.5 and 2.2.1).
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31; // PE MP ET NE WP PG
const CR4_TSD: u64 = 1 << 2;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_UMIP: u64 = 1 << 11;
const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11; // LME LMA NXE, and no SCE

/// Where the hardware stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
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
    vcpu: VcpuFd,
    fd: VmFd,
    memory: Arc<GuestMemory>,
    /// Where the exception frame lies in RAM.
    frame: Gpa,
    alarm: Option<Alarm>,
    sync_regs: bool,
    registers: Registers,
    /// `registers` differ from the hardware's.
    dirty: bool,
    stopped: Stopped,
    /// A trap found while completing an instruction; the next `run` gives it.
    queued: Option<Trap>,
    /// The last run was cut short, so an exception may wait inside KVM.
    cut_short: bool,
    /// After an `out`, is RIP past it on this host? Unknown before the first.
    out_moves_rip: Option<bool>,
    /// KVM would move RIP if it is still here at the next entry.
    unfinished_out: Option<u64>,
    gs_base: u64,
    exits: u64,
}

impl Vm {
    /// A machine with the RAM and the page tables of `space`.
    ///
    /// # Errors
    /// [`VmError::NoKvm`], [`VmError::NotPermitted`], [`VmError::Lacks`],
    /// [`VmError::Kvm`].
    pub fn new(space: &AddressSpace) -> Result<Self, VmError> {
        let kvm = open()?;
        let fd = kvm.create_vm().map_err(VmError::kvm("KVM_CREATE_VM"))?;
        // Needed on some Intel hosts, refused on others: no harm either way.
        let _ = fd.set_tss_address(REAL_MODE_TSS);
        let memory = Arc::clone(space.memory());
        let (frame, _) = space.translate(FRAME).ok_or(SpaceError::NotMapped(FRAME))?;
        set_slots(&fd, &memory, true)?;
        let vcpu = fd.create_vcpu(0).map_err(VmError::kvm("KVM_CREATE_VCPU"))?;
        let cpuid = cpuid::table().ok_or(VmError::Lacks("a CPUID table of its size"))?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(VmError::kvm("KVM_SET_CPUID2"))?;
        let mut vm = Self {
            vcpu,
            fd,
            memory,
            frame,
            alarm: None,
            sync_regs: kvm.check_extension(Cap::SyncRegs),
            registers: Registers::default(),
            dirty: true,
            stopped: Stopped::User,
            queued: None,
            cut_short: false,
            out_moves_rip: None,
            unfinished_out: None,
            gs_base: 0,
            exits: 0,
        };
        if vm.sync_regs {
            vm.vcpu.set_sync_valid_reg(SyncReg::Register);
            // With the system registers comes CR2.
            vm.vcpu.set_sync_valid_reg(SyncReg::SystemRegister);
        }
        vm.enter_long_mode(space)?;
        vm.set_fpu(&FpuState::default())?;
        Ok(vm)
    }

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

    /// Where GS-relative addresses of the driver start.
    #[must_use]
    pub fn gs_base(&self) -> u64 {
        self.gs_base
    }

    /// Set where GS-relative addresses of the driver start.
    ///
    /// # Errors
    /// [`VmError::Kvm`].
    pub fn set_gs_base(&mut self, base: u64) -> Result<(), VmError> {
        let mut sregs = self
            .vcpu
            .get_sregs()
            .map_err(VmError::kvm("KVM_GET_SREGS"))?;
        sregs.gs.base = base;
        self.vcpu
            .set_sregs(&sregs)
            .map_err(VmError::kvm("KVM_SET_SREGS"))?;
        self.gs_base = base;
        Ok(())
    }

    /// The driver's x87 and SSE state.
    ///
    /// # Errors
    /// [`VmError::Kvm`].
    pub fn fpu(&self) -> Result<FpuState, VmError> {
        let xsave = self
            .vcpu
            .get_xsave()
            .map_err(VmError::kvm("KVM_GET_XSAVE"))?;
        let mut area = [0; 512];
        for (bytes, word) in area.chunks_exact_mut(4).zip(xsave.region) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        // Bytes for software's own use, where KVM leaves notes about itself.
        area[464..].fill(0);
        // MXCSR_MASK describes the processor, not the program.
        area[28..32].fill(0);
        Ok(FpuState(area))
    }

    /// Replace the driver's x87 and SSE state.
    ///
    /// # Errors
    /// [`VmError::Kvm`]: among others, reserved bits of MXCSR are set.
    pub fn set_fpu(&mut self, fpu: &FpuState) -> Result<(), VmError> {
        let mut xsave = kvm_xsave::default();
        for (word, bytes) in xsave.region.iter_mut().zip(fpu.0.chunks_exact(4)) {
            *word = bytes.try_into().map_or(0, u32::from_le_bytes);
        }
        xsave.region[116..128].fill(0);
        // XSTATE_BV: x87 and SSE are in the area, the rest is initial
        // (Intel SDM vol. 1, 13.4.2).
        xsave.region[128] = 3;
        // SAFETY: no dynamically enabled XSAVE feature is in use, so KVM
        // reads no more than the 4 KiB of a `kvm_xsave`.
        unsafe { self.vcpu.set_xsave(&xsave) }.map_err(VmError::kvm("KVM_SET_XSAVE"))
    }

    /// All of the CPU's state that a snapshot keeps.
    ///
    /// # Errors
    /// [`VmError::UnansweredRead`], [`VmError::MidInstruction`]: KVM holds
    /// half an instruction then; [`VmError::Kvm`].
    pub fn save_cpu(&self) -> Result<CpuState, VmError> {
        if self.stopped == Stopped::Reading {
            return Err(VmError::UnansweredRead);
        }
        if self.queued.is_some() {
            return Err(VmError::MidInstruction);
        }
        Ok(CpuState {
            registers: self.registers,
            fpu: self.fpu()?,
            gs_base: self.gs_base,
        })
    }

    /// Go on from `state`, whatever the vCPU was in the middle of.
    ///
    /// # Errors
    /// [`VmError::Kvm`].
    pub fn restore_cpu(&mut self, state: &CpuState) -> Result<(), VmError> {
        self.abandon_instruction()?;
        if self.cut_short {
            let none = kvm_vcpu_events::default();
            self.vcpu
                .set_vcpu_events(&none)
                .map_err(VmError::kvm("KVM_SET_VCPU_EVENTS"))?;
            self.cut_short = false;
        }
        self.set_fpu(&state.fpu)?;
        self.set_gs_base(state.gs_base)?;
        self.registers = Registers {
            rflags: Registers::clean_flags(state.registers.rflags),
            ..state.registers
        };
        self.dirty = true;
        Ok(())
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
        if let Some(trap) = over(limit) {
            return Ok(trap);
        }
        self.load_registers()?;
        loop {
            match self.enter()? {
                Exit::Kicked => {
                    let hardware = self.hardware_registers()?;
                    // Within a stub the driver's registers are not to be
                    // seen; it is two instructions long.
                    if layout::is_system(hardware.rip) {
                        continue;
                    }
                    if let Some(trap) = over(limit) {
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
    fn complete(&mut self) -> Result<(), VmError> {
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

    /// Leave the instruction that KVM is in the middle of.
    fn abandon_instruction(&mut self) -> Result<(), VmError> {
        // Bounded by the elements of one vector register, with room.
        for _ in 0..64 {
            if let Some(trap) = self.queued.take() {
                self.deliver(trap);
            }
            if self.stopped == Stopped::Reading {
                self.finish_mmio_read([0; 8])?;
            } else if self.queued.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Hand out a trap that was found early.
    fn deliver(&mut self, trap: Trap) -> Trap {
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
            self.alarm = Some(Alarm::start()?);
        }
        Ok(())
    }

    fn enter_long_mode(&mut self, space: &AddressSpace) -> Result<(), VmError> {
        let mut sregs = self
            .vcpu
            .get_sregs()
            .map_err(VmError::kvm("KVM_GET_SREGS"))?;
        let code = kvm_segment {
            limit: 0xffff_ffff,
            selector: USER_CS,
            type_: 11, // execute, read, accessed
            present: 1,
            dpl: 3,
            s: 1,
            l: 1,
            g: 1,
            ..Default::default()
        };
        let data = kvm_segment {
            selector: USER_SS,
            type_: 3, // read, write, accessed
            db: 1,
            l: 0,
            ..code
        };
        (sregs.cs, sregs.ss, sregs.ds, sregs.es) = (code, data, data, data);
        (sregs.fs, sregs.gs) = (data, data);
        sregs.tr = kvm_segment {
            base: layout::TSS.0,
            limit: layout::TSS_LIMIT,
            selector: layout::TSS_SELECTOR,
            type_: 11, // busy 64-bit TSS
            present: 1,
            ..Default::default()
        };
        sregs.gdt = kvm_dtable {
            base: layout::GDT.0,
            limit: layout::GDT_LIMIT,
            ..Default::default()
        };
        sregs.idt = kvm_dtable {
            base: layout::IDT.0,
            limit: layout::IDT_LIMIT,
            ..Default::default()
        };
        sregs.cr0 = CR0;
        sregs.cr3 = space.root().base().0;
        sregs.efer = EFER;
        let cr4 = CR4_PAE | CR4_TSD | CR4_OSFXSR | CR4_OSXMMEXCPT;
        sregs.cr4 = cr4 | CR4_UMIP;
        if self.vcpu.set_sregs(&sregs).is_ok() {
            return Ok(());
        }
        // A host without UMIP: the loader patches sgdt and its kind anyway.
        sregs.cr4 = cr4;
        self.vcpu
            .set_sregs(&sregs)
            .map_err(VmError::kvm("KVM_SET_SREGS"))
    }
}

/// Open `/dev/kvm` and see that it is usable.
pub(super) fn open() -> Result<Kvm, VmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => VmError::NoKvm,
        libc::EACCES | libc::EPERM => VmError::NotPermitted,
        _ => VmError::kvm("opening /dev/kvm")(error),
    })?;
    if kvm.get_api_version() != KVM_API_VERSION as i32 {
        return Err(VmError::Lacks("API version 12"));
    }
    for (capability, name) in [
        (Cap::UserMemory, "user memory slots"),
        (Cap::ImmediateExit, "immediate exit"),
        (Cap::Xsave, "XSAVE state"),
    ] {
        if !kvm.check_extension(capability) {
            return Err(VmError::Lacks(name));
        }
    }
    Ok(kvm)
}

/// Add or remove RAM.
fn set_slots(fd: &VmFd, memory: &GuestMemory, present: bool) -> Result<(), VmError> {
    for (number, slot) in memory.slots().iter().enumerate() {
        let host = memory
            .host_address(slot.file_offset)
            .ok_or(VmError::Lacks("a mapping of guest memory"))?;
        let region = kvm_userspace_memory_region {
            slot: number as u32,
            flags: 0,
            guest_phys_addr: slot.base.0,
            memory_size: if present { slot.size } else { 0 },
            userspace_addr: host,
        };
        // SAFETY: the range is the whole of a live mapping that `Vm` keeps
        // alive (it holds an Arc of the memory, dropped after the VM).
        unsafe { fd.set_user_memory_region(region) }
            .map_err(VmError::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// Has a limit been reached?
fn over(limit: &RunLimit<'_>) -> Option<Trap> {
    if limit.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
        return Some(Trap::Interrupted);
    }
    let deadline = limit.deadline?;
    (Instant::now() >= deadline).then_some(Trap::Timeout)
}
