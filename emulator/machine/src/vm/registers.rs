//! The driver's registers as plain data.

use iced_x86::Register;
use kvm_bindings::kvm_regs;
use std::ops::{Index, IndexMut};

/// A general-purpose register, numbered as instructions encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are the architecture's
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

/// Integer state of the driver's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registers {
    /// General-purpose registers in encoding order; index by [`Gpr`].
    pub gpr: [u64; 16],
    /// The next instruction.
    pub rip: u64,
    /// Status flags. IF, IOPL, TF, RF and NT are the machine's, not the
    /// driver's: they read as in [`Registers::clean_flags`], whatever is set.
    pub rflags: u64,
}

impl Registers {
    /// CF, PF, AF, ZF, SF, DF, OF, AC and ID: what code at CPL 3 may own.
    const OWN_FLAGS: u64 = 0x24_0cd5;
    /// Bit 1 always reads as one, and IF must be on: nothing interrupts this
    /// VM, and some hosts show IF as 1 at CPL 3 whatever was loaded.
    const FIXED_FLAGS: u64 = 0x202;

    /// `flags` with the driver's bits kept and the machine's bits fixed, so
    /// that every host shows the same.
    #[must_use]
    pub const fn clean_flags(flags: u64) -> u64 {
        flags & Self::OWN_FLAGS | Self::FIXED_FLAGS
    }

    /// The value of a general-purpose register of any width, or RIP;
    /// zero-extended. `None` for other registers.
    #[must_use]
    pub fn read(&self, register: Register) -> Option<u64> {
        if register == Register::RIP {
            return Some(self.rip);
        }
        let full = *self.gpr.get(number(register)?)?;
        Some(match register.size() {
            8 => full,
            4 => full & 0xffff_ffff,
            2 => full & 0xffff,
            _ if is_high_byte(register) => full >> 8 & 0xff,
            _ => full & 0xff,
        })
    }

    /// Write a general-purpose register as an instruction does: 32 bits clear
    /// the upper half, 8 and 16 leave the rest. Other registers are ignored.
    pub fn write(&mut self, register: Register, value: u64) {
        let Some(full) = number(register).and_then(|n| self.gpr.get_mut(n)) else {
            return;
        };
        *full = match register.size() {
            8 => value,
            4 => value & 0xffff_ffff,
            2 => *full & !0xffff | value & 0xffff,
            _ if is_high_byte(register) => *full & !0xff00 | (value & 0xff) << 8,
            _ => *full & !0xff | value & 0xff,
        };
    }

    pub(super) fn from_kvm(r: &kvm_regs) -> Self {
        Self {
            gpr: [
                r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11,
                r.r12, r.r13, r.r14, r.r15,
            ],
            rip: r.rip,
            rflags: Self::clean_flags(r.rflags),
        }
    }

    pub(super) fn to_kvm(self) -> kvm_regs {
        let [
            rax,
            rcx,
            rdx,
            rbx,
            rsp,
            rbp,
            rsi,
            rdi,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = self.gpr;
        kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: self.rip,
            rflags: Self::clean_flags(self.rflags),
        }
    }
}

fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    )
}

/// The index into [`Registers::gpr`].
fn number(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

impl Index<Gpr> for Registers {
    type Output = u64;
    fn index(&self, register: Gpr) -> &u64 {
        &self.gpr[register as usize]
    }
}

impl IndexMut<Gpr> for Registers {
    fn index_mut(&mut self, register: Gpr) -> &mut u64 {
        &mut self.gpr[register as usize]
    }
}

/// x87 and SSE state, laid out as FXSAVE64 stores it (Intel SDM vol. 1,
/// 10.5.1). Wider vectors are not exposed to the driver and not kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FpuState(pub [u8; 512]);

impl FpuState {
    const XMM: usize = 160;

    /// XMM0–XMM15; `None` for another number.
    #[must_use]
    pub fn xmm(&self, number: usize) -> Option<u128> {
        if number > 15 {
            return None;
        }
        let bytes = self.0.get(Self::XMM + 16 * number..)?.first_chunk()?;
        Some(u128::from_le_bytes(*bytes))
    }

    /// Set XMM0–XMM15; another number changes nothing.
    pub fn set_xmm(&mut self, number: usize, value: u128) {
        if number > 15 {
            return;
        }
        let at = Self::XMM + 16 * number;
        if let Some(bytes) = self.0.get_mut(at..at + 16) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

impl Default for FpuState {
    /// As after FNINIT, with every SSE exception masked.
    fn default() -> Self {
        let mut area = [0; 512];
        area[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        Self(area)
    }
}

/// Everything of the vCPU that a snapshot keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuState {
    /// Integer registers.
    pub registers: Registers,
    /// x87 and SSE.
    pub fpu: FpuState,
    /// Where GS-relative addresses start (Windows: the KPCR).
    pub gs_base: u64,
}
