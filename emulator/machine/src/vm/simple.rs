//! The few instructions that the host does itself when it lets the driver
//! past an access trap: plain loads and stores, compares and tests. They are
//! what polling loops consist of, and doing them here costs no entry into the
//! guest.

use super::registers::Registers;
use super::space::AddressSpace;
use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};
use memory::{Gva, PAGE_SIZE};

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

/// The driver's memory as one instruction may reach it.
pub(super) struct Access<'a> {
    pub space: &'a AddressSpace,
    pub gs_base: u64,
    /// Trapped pages that may be reached this once.
    pub pages: &'a [Gva],
}

impl Access<'_> {
    /// The address of a memory operand.
    pub fn address(
        &self,
        instruction: &Instruction,
        operand: u32,
        registers: &Registers,
    ) -> Option<u64> {
        operand_address(instruction, operand, registers, self.gs_base)
    }

    /// May the driver read, or write, these bytes now?
    pub fn reaches(&self, at: Gva, size: u64, write: bool) -> bool {
        let last = Gva(at.0.wrapping_add(size.saturating_sub(1)));
        [at, last].into_iter().all(|byte| {
            self.space.mapping(byte).is_some_and(|mapping| {
                let page = byte.page_base();
                mapping.protection.user
                    && (!write || mapping.protection.write)
                    && (!mapping.trapped || self.pages.iter().any(|p| p.page_base() == page))
                    && self
                        .space
                        .memory()
                        .contains(mapping.frame.base(), PAGE_SIZE)
            })
        })
    }

    /// Up to 8 bytes, zero-extended.
    pub fn load(&self, at: u64, size: usize) -> Option<u64> {
        if !self.reaches(Gva(at), size as u64, false) {
            return None;
        }
        let mut bytes = [0; 8];
        self.space.read(Gva(at), bytes.get_mut(..size)?).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Up to 8 bytes; `false` if they cannot be written.
    pub fn store(&self, at: u64, value: u64, size: usize) -> bool {
        let bytes = value.to_le_bytes();
        let Some(bytes) = bytes.get(..size) else {
            return false;
        };
        self.reaches(Gva(at), size as u64, true) && self.space.write(Gva(at), bytes).is_ok()
    }
}

/// The linear address of a memory operand, with GS where the driver has it
/// and the other segments at zero.
pub(super) fn operand_address(
    instruction: &Instruction,
    operand: u32,
    registers: &Registers,
    gs_base: u64,
) -> Option<u64> {
    instruction.virtual_address(operand, 0, |register, _, _| match register {
        Register::GS => Some(gs_base),
        Register::CS | Register::DS | Register::ES | Register::SS | Register::FS => Some(0),
        register => registers.read(register),
    })
}

/// Do the instruction if it is one of ours and all it touches can be reached:
/// then registers and memory are as after it. Otherwise nothing has changed.
pub(super) fn execute(
    instruction: &Instruction,
    registers: &mut Registers,
    access: &Access<'_>,
) -> bool {
    attempt(instruction, registers, access).is_some()
}

fn attempt(
    instruction: &Instruction,
    registers: &mut Registers,
    access: &Access<'_>,
) -> Option<()> {
    if instruction.op_count() != 2 || instruction.has_lock_prefix() {
        return None;
    }
    let mut after = *registers;
    after.rip = instruction.next_ip();
    let load = |operand| load(instruction, operand, registers, access);
    match instruction.mnemonic() {
        Mnemonic::Mov => {
            let (value, _) = load(1)?;
            store(instruction, value, registers, &mut after, access)?;
        }
        Mnemonic::Movzx => {
            let (value, _) = load(1)?;
            store(instruction, value, registers, &mut after, access)?;
        }
        Mnemonic::Movsx | Mnemonic::Movsxd => {
            let (value, size) = load(1)?;
            let shift = 64 - 8 * size as u32;
            let value = ((value << shift) as i64 >> shift) as u64;
            store(instruction, value, registers, &mut after, access)?;
        }
        Mnemonic::Cmp => {
            let (left, size) = load(0)?;
            let (right, _) = load(1)?;
            after.rflags = after.rflags & !ARITHMETIC | subtraction(left, right, size);
        }
        Mnemonic::Test => {
            let (left, size) = load(0)?;
            let (right, _) = load(1)?;
            after.rflags = after.rflags & !ARITHMETIC | logic(left & right, size);
        }
        _ => return None,
    }
    *registers = after;
    Some(())
}

/// An operand's value, and its size in bytes. Immediates come sign-extended.
fn load(
    instruction: &Instruction,
    operand: u32,
    registers: &Registers,
    access: &Access<'_>,
) -> Option<(u64, usize)> {
    match instruction.op_kind(operand) {
        OpKind::Register => {
            let register = instruction.op_register(operand);
            Some((registers.read(register)?, register.size()))
        }
        OpKind::Memory => {
            let size = instruction.memory_size().size();
            let at = access.address(instruction, operand, registers)?;
            Some((access.load(at, size)?, size))
        }
        _ => Some((instruction.try_immediate(operand).ok()?, 8)),
    }
}

fn store(
    instruction: &Instruction,
    value: u64,
    before: &Registers,
    after: &mut Registers,
    access: &Access<'_>,
) -> Option<()> {
    if instruction.op_kind(0) == OpKind::Memory {
        let at = access.address(instruction, 0, before)?;
        let size = instruction.memory_size().size();
        return access.store(at, value, size).then_some(());
    }
    let register = instruction.op0_register();
    register.is_gpr().then(|| after.write(register, value))
}

fn mask(size: usize) -> u64 {
    u64::MAX >> (64 - 8 * size.clamp(1, 8))
}

/// ZF, SF and PF of a result.
fn of_result(result: u64, size: usize) -> u64 {
    let mut flags = 0;
    if result == 0 {
        flags |= ZF;
    }
    if result >> (8 * size.clamp(1, 8) - 1) & 1 != 0 {
        flags |= SF;
    }
    if (result as u8).count_ones().is_multiple_of(2) {
        flags |= PF;
    }
    flags
}

fn logic(result: u64, size: usize) -> u64 {
    of_result(result & mask(size), size)
}

fn subtraction(left: u64, right: u64, size: usize) -> u64 {
    let (left, right) = (left & mask(size), right & mask(size));
    let result = left.wrapping_sub(right) & mask(size);
    let mut flags = of_result(result, size);
    if left < right {
        flags |= CF;
    }
    if (left ^ right ^ result) & 0x10 != 0 {
        flags |= AF;
    }
    let overflow = (left ^ right) & (left ^ result);
    if overflow >> (8 * size.clamp(1, 8) - 1) & 1 != 0 {
        flags |= OF;
    }
    flags
}

/// Does a condition hold? `None` for no condition.
pub(super) fn condition(code: ConditionCode, rflags: u64) -> Option<bool> {
    let is = |flag| rflags & flag != 0;
    Some(match code {
        ConditionCode::o => is(OF),
        ConditionCode::no => !is(OF),
        ConditionCode::b => is(CF),
        ConditionCode::ae => !is(CF),
        ConditionCode::e => is(ZF),
        ConditionCode::ne => !is(ZF),
        ConditionCode::be => is(CF) || is(ZF),
        ConditionCode::a => !is(CF) && !is(ZF),
        ConditionCode::s => is(SF),
        ConditionCode::ns => !is(SF),
        ConditionCode::p => is(PF),
        ConditionCode::np => !is(PF),
        ConditionCode::l => is(SF) != is(OF),
        ConditionCode::ge => is(SF) == is(OF),
        ConditionCode::le => is(ZF) || is(SF) != is(OF),
        ConditionCode::g => !is(ZF) && is(SF) == is(OF),
        ConditionCode::None => return None,
    })
}
