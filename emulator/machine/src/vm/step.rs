//! Letting exactly one instruction of the driver pass an access trap.
//!
//! KVM's single step and hardware breakpoints do nothing at CPL 3 on some
//! hosts, so the instruction is decoded and a `hlt` is planted after it.
//! Branches, and the loads that polling loops are made of, are done by the
//! host without entering the guest: cheaper, and a branch to itself cannot be
//! stepped by a planted byte.

use super::error::{SpaceError, VmError};
use super::registers::{Gpr, Registers};
use super::simple;
use super::space::AddressSpace;
use super::trap::{RunLimit, Trap};
use super::vcpu::Vm;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Register};
use memory::{Gva, PAGE_SIZE};

/// Longest instruction, bytes.
pub(super) const MAX_INSTRUCTION: usize = 15;
const HLT: u8 = 0xf4;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StepEnd {
    /// The instruction is complete; RIP is at its successor.
    Done,
    /// It trapped. A fault leaves RIP at the instruction (a `rep` may have
    /// done part of its work); step again with the further page, or deal with
    /// the trap as with any other.
    Trap(Trap),
}

impl Vm {
    /// Let the instruction at RIP run with the trapped pages in `pages`
    /// reachable, and trap them again. Pages that are not trapped are left
    /// alone, and so are all pages that `pages` does not name.
    ///
    /// While the instruction runs, the byte after it reads as `hlt`: an
    /// instruction that reads its own successor as data sees that.
    ///
    /// # Errors
    /// As [`Vm::run`]; also [`VmError::MidInstruction`].
    pub fn step_over(
        &mut self,
        space: &mut AddressSpace,
        pages: &[Gva],
        limit: &RunLimit<'_>,
    ) -> Result<StepEnd, VmError> {
        if self.mid_instruction() {
            return Err(VmError::MidInstruction);
        }
        let mut registers = self.registers();
        let instruction = fetch(space, registers.rip);
        match by_host(&instruction, &mut registers, space, self.gs_base(), pages) {
            ByHost::Done => {
                self.set_registers(&registers)?;
                return Ok(StepEnd::Done);
            }
            ByHost::Fault(trap) => return Ok(StepEnd::Trap(trap)),
            ByHost::No => {}
        }

        let mut opened = Vec::new();
        for page in pages {
            if space.mapping(*page).is_some_and(|m| m.trapped) {
                space.untrap(*page)?;
                opened.push(*page);
            }
        }
        let next = Gva(instruction.next_ip());
        let plant = plant(space, &instruction)?;
        let ended = self.run(space, limit);
        if let Some(original) = plant {
            let mut now = [0];
            space.read(next, &mut now)?;
            // The instruction may have written over its successor.
            if now == [HLT] {
                space.write(next, &[original])?;
            }
        }
        for page in opened {
            space.trap_accesses(page)?;
        }
        Ok(match ended? {
            Trap::GeneralProtection { rip, .. } if plant.is_some() && rip == next => StepEnd::Done,
            // Nothing to execute after it, or a trapped page of code.
            Trap::PageFault {
                address,
                rip,
                fetch: true,
                ..
            } if rip == next && address == next => StepEnd::Done,
            trap => StepEnd::Trap(trap),
        })
    }
}

/// Decode what is at `rip`; an invalid instruction where nothing is mapped.
pub(super) fn fetch(space: &AddressSpace, rip: u64) -> Instruction {
    let mut bytes = [0; MAX_INSTRUCTION];
    let in_page = (PAGE_SIZE - Gva(rip).offset()).min(MAX_INSTRUCTION as u64) as usize;
    let (first, second) = bytes.split_at_mut(in_page);
    let length = if space.read(Gva(rip), first).is_err() {
        0
    } else if space
        .read(Gva(rip.wrapping_add(in_page as u64)), second)
        .is_err()
    {
        in_page
    } else {
        MAX_INSTRUCTION
    };
    Decoder::with_ip(64, &bytes[..length], rip, DecoderOptions::NONE).decode()
}

/// Put a `hlt` behind the instruction; returns what was there.
fn plant(space: &AddressSpace, instruction: &Instruction) -> Result<Option<u8>, SpaceError> {
    if instruction.is_invalid() {
        return Ok(None); // it will raise an exception
    }
    let next = Gva(instruction.next_ip());
    let mut original = [0];
    if space.read(next, &mut original).is_err() {
        return Ok(None); // going on there faults, which ends the step too
    }
    space.write(next, &[HLT])?;
    Ok(Some(original[0]))
}

/// What became of an instruction that the host tried to do itself.
enum ByHost {
    Done,
    Fault(Trap),
    No,
}

fn by_host(
    instruction: &Instruction,
    registers: &mut Registers,
    space: &AddressSpace,
    gs_base: u64,
    pages: &[Gva],
) -> ByHost {
    let access = simple::Access {
        space,
        gs_base,
        pages,
    };
    if instruction.is_invalid() {
        return ByHost::No;
    }
    if instruction.flow_control() == FlowControl::Next {
        return if simple::execute(instruction, registers, &access) {
            ByHost::Done
        } else {
            ByHost::No
        };
    }
    let before = *registers;
    match branch(instruction, registers, &access) {
        Some(Ok(())) => ByHost::Done,
        Some(Err((address, write))) => {
            let mapping = space.mapping(address);
            let trap = Trap::PageFault {
                address,
                write,
                fetch: false,
                present: mapping.is_some_and(|m| !m.trapped),
                rip: Gva(before.rip),
            };
            *registers = before;
            ByHost::Fault(trap)
        }
        None => ByHost::No,
    }
}

/// Do a near branch. `None` if it is not one, or not one for the host; an
/// error is a page that cannot be reached, and whether for writing.
fn branch(
    instruction: &Instruction,
    registers: &mut Registers,
    access: &simple::Access<'_>,
) -> Option<Result<(), (Gva, bool)>> {
    let next = instruction.next_ip();
    let code = instruction.code();
    let fault = |at: u64, write| {
        // The first byte that cannot be reached, as CR2 would say.
        let at = Gva(at);
        let reached = access.reaches(at, 1, write);
        let first = if reached {
            Gva(at.0.wrapping_add(PAGE_SIZE)).page_base()
        } else {
            at
        };
        Some(Err((first, write)))
    };
    let operand = |registers: &Registers| -> Option<Result<u64, u64>> {
        if instruction.op0_register() != Register::None {
            return registers.read(instruction.op0_register()).map(Ok);
        }
        let at = access.address(instruction, 0, registers)?;
        Some(access.load(at, 8).ok_or(at))
    };
    match code {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => {
            registers.rip = instruction.near_branch_target();
        }
        Code::Jmp_rm64 => match operand(registers)? {
            Ok(target) => registers.rip = target,
            Err(at) => return fault(at, false),
        },
        Code::Call_rel32_64 | Code::Call_rm64 => {
            let target = if code == Code::Call_rm64 {
                match operand(registers)? {
                    Ok(target) => target,
                    Err(at) => return fault(at, false),
                }
            } else {
                instruction.near_branch_target()
            };
            let stack = registers[Gpr::Rsp].wrapping_sub(8);
            if !access.store(stack, next, 8) {
                return fault(stack, true);
            }
            registers[Gpr::Rsp] = stack;
            registers.rip = target;
        }
        Code::Retnq | Code::Retnq_imm16 => {
            let stack = registers[Gpr::Rsp];
            let Some(target) = access.load(stack, 8) else {
                return fault(stack, false);
            };
            let extra = match code {
                Code::Retnq_imm16 => u64::from(instruction.immediate16()),
                _ => 0,
            };
            registers[Gpr::Rsp] = stack.wrapping_add(8 + extra);
            registers.rip = target;
        }
        _ if instruction.is_jcc_short_or_near() => {
            let taken = simple::condition(instruction.condition_code(), registers.rflags)?;
            registers.rip = if taken {
                instruction.near_branch_target()
            } else {
                next
            };
        }
        Code::Loop_rel8_64_RCX | Code::Jrcxz_rel8_64 => {
            let jump = if code == Code::Jrcxz_rel8_64 {
                registers[Gpr::Rcx] == 0
            } else {
                registers[Gpr::Rcx] = registers[Gpr::Rcx].wrapping_sub(1);
                registers[Gpr::Rcx] != 0
            };
            registers.rip = if jump {
                instruction.near_branch_target()
            } else {
                next
            };
        }
        _ => return None,
    }
    Some(Ok(()))
}
