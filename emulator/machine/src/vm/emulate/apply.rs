//! From what an instruction asks for to the state after it.

use super::{Completion, Destination, INTERRUPT, Intercept, Privileged};
use crate::vm::cpuid;
use crate::vm::error::SpaceError;
use crate::vm::registers::{Gpr, Registers};
use crate::vm::space::AddressSpace;
use iced_x86::Register;
use memory::Gva;

const CARRY: u64 = 1;
/// CF, PF, AF, ZF, SF, OF.
const ARITHMETIC: u64 = 0x8d5;

impl Intercept {
    /// Bring `registers` and the driver's memory to the state after the
    /// instruction. Effects on the virtual processor itself (its interrupt
    /// flag, control registers, ports) are the caller's.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`]: the destination in memory is not there.
    /// Registers are then as before.
    pub fn apply(
        &self,
        with: &Completion,
        registers: &mut Registers,
        space: &AddressSpace,
    ) -> Result<(), SpaceError> {
        use Privileged as P;
        let mut after = *registers;
        after.rip = after.rip.wrapping_add(u64::from(self.length));
        let mut pair = |value: u64| {
            after[Gpr::Rax] = value & 0xffff_ffff;
            after[Gpr::Rdx] = value >> 32;
        };
        match self.what {
            P::Popf { value, size } => {
                let flags = if size == 2 {
                    after.rflags & !0xffff | value & 0xffff
                } else {
                    value
                };
                after.rflags = Registers::clean_flags(flags);
                after[Gpr::Rsp] = after[Gpr::Rsp].wrapping_add(u64::from(size));
            }
            P::Pushf { size } => {
                let mut flags = Registers::clean_flags(after.rflags) & !INTERRUPT;
                if with.interrupts {
                    flags |= INTERRUPT;
                }
                let stack = after[Gpr::Rsp].wrapping_sub(u64::from(size));
                store(space, Gva(stack), flags, size)?;
                after[Gpr::Rsp] = stack;
            }
            P::Rdtsc { processor } => {
                pair(with.value);
                if processor {
                    after[Gpr::Rcx] = u64::from(with.extra);
                }
            }
            P::Cpuid { leaf } => {
                let answer = cpuid::read(leaf);
                let to = [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx];
                for (register, value) in to.into_iter().zip(answer) {
                    after[register] = u64::from(value);
                }
            }
            P::Rdmsr { .. } | P::Rdpmc { .. } | P::Xgetbv { .. } => pair(with.value),
            P::Rdpid { to }
            | P::ReadCr { to, .. }
            | P::ReadDr { to, .. }
            | P::ReadBase { to, .. } => after.write(to, with.value),
            P::Random { to } => {
                after.write(to, with.value);
                after.rflags = after.rflags & !ARITHMETIC | CARRY;
            }
            P::In { size, .. } => after.write(accumulator(size), with.value),
            P::StringIn { size, repeat, .. } => {
                string(registers, &mut after, Gpr::Rdi, size, repeat, |at| {
                    store(space, Gva(at), with.value, size)
                })?;
            }
            P::StringOut { size, repeat, .. } => {
                string(registers, &mut after, Gpr::Rsi, size, repeat, |_| Ok(()))?;
            }
            P::StoreSystem { to, .. } => put(&mut after, space, to, with.value)?,
            P::ReadSelector { selector, to } => {
                put(&mut after, space, to, u64::from(selector))?;
            }
            P::StoreTable { to, .. } => {
                let mut bytes = [0; 10];
                bytes[..2].copy_from_slice(&(with.extra as u16).to_le_bytes());
                bytes[2..].copy_from_slice(&with.value.to_le_bytes());
                space.write(to, &bytes)?;
            }
            P::Iretq { rip, rflags, rsp } => {
                after.rip = rip;
                after.rflags = Registers::clean_flags(rflags);
                after[Gpr::Rsp] = rsp;
            }
            P::Cli
            | P::Sti
            | P::Hlt
            | P::WriteCr { .. }
            | P::WriteDr { .. }
            | P::Wrmsr { .. }
            | P::Out { .. }
            | P::WriteBase { .. }
            | P::WriteSelector { .. }
            | P::FastFail { .. }
            | P::Assert
            | P::DebugService { .. }
            | P::Interrupt { .. }
            | P::System(_)
            | P::Undefined => {}
        }
        *registers = after;
        Ok(())
    }
}

fn accumulator(size: u8) -> Register {
    match size {
        1 => Register::AL,
        2 => Register::AX,
        _ => Register::EAX,
    }
}

fn put(
    after: &mut Registers,
    space: &AddressSpace,
    to: Destination,
    value: u64,
) -> Result<(), SpaceError> {
    match to {
        Destination::Register(register) => {
            after.write(register, value);
            Ok(())
        }
        Destination::Memory(at, size) => store(space, at, value, size),
    }
}

fn store(space: &AddressSpace, at: Gva, value: u64, size: u8) -> Result<(), SpaceError> {
    let bytes = value.to_le_bytes();
    space.write(at, bytes.get(..usize::from(size)).unwrap_or(&bytes))
}

/// One element of a string instruction.
fn string(
    before: &Registers,
    after: &mut Registers,
    pointer: Gpr,
    size: u8,
    repeat: bool,
    transfer: impl FnOnce(u64) -> Result<(), SpaceError>,
) -> Result<(), SpaceError> {
    const DIRECTION: u64 = 1 << 10;
    if repeat && before[Gpr::Rcx] == 0 {
        return Ok(());
    }
    transfer(before[pointer])?;
    let step = u64::from(size);
    after[pointer] = if before.rflags & DIRECTION == 0 {
        before[pointer].wrapping_add(step)
    } else {
        before[pointer].wrapping_sub(step)
    };
    if repeat {
        after[Gpr::Rcx] = before[Gpr::Rcx] - 1;
        if after[Gpr::Rcx] != 0 {
            after.rip = before.rip;
        }
    }
    Ok(())
}
