//! The vCPU's state beyond the integer registers, saved and restored.
#![allow(unsafe_code)] // KVM_SET_XSAVE

use super::error::VmError;
use super::registers::{CpuState, FpuState, Registers};
use super::vcpu::{Stopped, Vm};
use kvm_bindings::{kvm_vcpu_events, kvm_xsave};

impl Vm {
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
        // Two calls to KVM, so only if it moved: by us, or, as shown at the
        // last exit, by the driver itself.
        let shown = self.vcpu.sync_regs_mut().sregs.gs.base;
        if self.gs_base != state.gs_base || shown != state.gs_base {
            self.set_gs_base(state.gs_base)?;
        }
        self.registers = Registers {
            rflags: Registers::clean_flags(state.registers.rflags),
            ..state.registers
        };
        self.dirty = true;
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
}
