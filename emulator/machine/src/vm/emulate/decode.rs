//! From bytes to what they ask for.

use super::{Destination, Intercept, Privileged, Segment};
use crate::vm::error::SpaceError;
use crate::vm::layout::{KERNEL_CS, KERNEL_SS};
use crate::vm::registers::{Gpr, Registers};
use crate::vm::simple::operand_address;
use crate::vm::space::AddressSpace;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memory::Gva;

/// What the instruction in `code` asks for, given the registers before it
/// (RIP included). `None` if it is none of those known here: then the
/// exception is the driver's own.
///
/// # Errors
/// [`SpaceError::NotMapped`]: an operand in memory (for POPF, the stack) that
/// is not there.
pub fn decode(
    code: &[u8],
    registers: &Registers,
    gs_base: u64,
    space: &AddressSpace,
) -> Result<Option<Intercept>, SpaceError> {
    let options = DecoderOptions::NONE;
    let instruction = Decoder::with_ip(64, code, registers.rip, options).decode();
    if instruction.is_invalid() {
        return Ok(None);
    }
    let context = Context {
        instruction: &instruction,
        registers,
        gs_base,
        space,
    };
    Ok(context.what()?.map(|what| Intercept {
        what,
        length: instruction.len() as u8,
    }))
}

struct Context<'a> {
    instruction: &'a Instruction,
    registers: &'a Registers,
    gs_base: u64,
    space: &'a AddressSpace,
}

impl Context<'_> {
    fn low(&self, register: Gpr) -> u32 {
        self.registers[register] as u32
    }

    /// EDX:EAX.
    fn pair(&self) -> u64 {
        u64::from(self.low(Gpr::Rdx)) << 32 | u64::from(self.low(Gpr::Rax))
    }

    fn stack(&self, index: u64) -> Result<u64, SpaceError> {
        let at = self.registers[Gpr::Rsp].wrapping_add(8 * index);
        self.space.read_u64(Gva(at))
    }

    fn address(&self, operand: u32) -> Option<Gva> {
        operand_address(self.instruction, operand, self.registers, self.gs_base).map(Gva)
    }

    fn destination(&self) -> Option<Destination> {
        if self.instruction.op0_kind() == OpKind::Register {
            return Some(Destination::Register(self.instruction.op0_register()));
        }
        let size = self.instruction.memory_size().size() as u8;
        Some(Destination::Memory(self.address(0)?, size))
    }

    /// A 16-bit source operand.
    fn selector(&self) -> Option<u16> {
        if self.instruction.op1_kind() == OpKind::Register {
            let value = self.registers.read(self.instruction.op1_register())?;
            return Some(value as u16);
        }
        let mut bytes = [0; 2];
        self.space.read(self.address(1)?, &mut bytes).ok()?;
        Some(u16::from_le_bytes(bytes))
    }

    fn port(&self, operand: u32) -> u16 {
        match self.instruction.op_kind(operand) {
            OpKind::Immediate8 => u16::from(self.instruction.immediate8()),
            _ => self.low(Gpr::Rdx) as u16,
        }
    }

    fn what(&self) -> Result<Option<Privileged>, SpaceError> {
        use Privileged as P;
        let i = self.instruction;
        let to = i.op0_register();
        let base = |segment| P::ReadBase { segment, to };
        let set_base = |segment| P::WriteBase {
            segment,
            value: self.registers.read(to).unwrap_or(0),
        };
        Ok(Some(match i.mnemonic() {
            Mnemonic::Popfq | Mnemonic::Popf => {
                let size = if i.mnemonic() == Mnemonic::Popf { 2 } else { 8 };
                let mut bytes = [0; 8];
                let at = Gva(self.registers[Gpr::Rsp]);
                self.space.read(at, &mut bytes[..size])?;
                P::Popf {
                    value: u64::from_le_bytes(bytes),
                    size: size as u8,
                }
            }
            Mnemonic::Pushfq => P::Pushf { size: 8 },
            Mnemonic::Pushf => P::Pushf { size: 2 },
            Mnemonic::Cli => P::Cli,
            Mnemonic::Sti => P::Sti,
            Mnemonic::Hlt => P::Hlt,
            Mnemonic::Rdtsc => P::Rdtsc { processor: false },
            Mnemonic::Rdtscp => P::Rdtsc { processor: true },
            Mnemonic::Cpuid => P::Cpuid {
                leaf: self.low(Gpr::Rax),
            },
            Mnemonic::Rdpid => P::Rdpid { to },
            Mnemonic::Rdmsr => P::Rdmsr {
                msr: self.low(Gpr::Rcx),
            },
            Mnemonic::Wrmsr => P::Wrmsr {
                msr: self.low(Gpr::Rcx),
                value: self.pair(),
            },
            Mnemonic::Rdpmc => P::Rdpmc {
                counter: self.low(Gpr::Rcx),
            },
            Mnemonic::Xgetbv => P::Xgetbv {
                register: self.low(Gpr::Rcx),
            },
            Mnemonic::In => P::In {
                port: self.port(1),
                size: to.size() as u8,
            },
            Mnemonic::Out => {
                let source = i.op1_register();
                P::Out {
                    port: self.port(0),
                    size: source.size() as u8,
                    value: self.registers.read(source).unwrap_or(0) as u32,
                }
            }
            Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => P::StringIn {
                port: self.low(Gpr::Rdx) as u16,
                size: i.memory_size().size() as u8,
                repeat: i.has_rep_prefix() || i.has_repne_prefix(),
            },
            Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => {
                let size = i.memory_size().size().min(4);
                let mut bytes = [0; 4];
                self.space
                    .read(Gva(self.registers[Gpr::Rsi]), &mut bytes[..size])?;
                P::StringOut {
                    port: self.low(Gpr::Rdx) as u16,
                    size: size as u8,
                    value: u32::from_le_bytes(bytes),
                    repeat: i.has_rep_prefix() || i.has_repne_prefix(),
                }
            }
            Mnemonic::Rdfsbase => base(Segment::Fs),
            Mnemonic::Rdgsbase => base(Segment::Gs),
            Mnemonic::Wrfsbase => set_base(Segment::Fs),
            Mnemonic::Wrgsbase => set_base(Segment::Gs),
            Mnemonic::Rdrand | Mnemonic::Rdseed => P::Random { to },
            mnemonic @ (Mnemonic::Smsw | Mnemonic::Sldt | Mnemonic::Str) => {
                match self.destination() {
                    Some(to) => P::StoreSystem { mnemonic, to },
                    None => return Ok(None),
                }
            }
            mnemonic @ (Mnemonic::Sgdt | Mnemonic::Sidt) => match self.address(0) {
                Some(to) => P::StoreTable { mnemonic, to },
                None => return Ok(None),
            },
            Mnemonic::Mov => return Ok(self.mov()),
            Mnemonic::Iretq => P::Iretq {
                rip: self.stack(0)?,
                rflags: self.stack(2)?,
                rsp: self.stack(3)?,
            },
            Mnemonic::Int => match i.immediate8() {
                0x29 => P::FastFail {
                    code: self.low(Gpr::Rcx),
                },
                0x2c => P::Assert,
                0x2d => P::DebugService {
                    service: self.low(Gpr::Rax),
                },
                vector => P::Interrupt { vector },
            },
            Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => P::Undefined,
            mnemonic if is_system(mnemonic) => P::System(mnemonic),
            _ => return Ok(None),
        }))
    }

    fn mov(&self) -> Option<Privileged> {
        let i = self.instruction;
        let (to, from) = (i.op0_register(), i.op1_register());
        let value = || self.registers.read(from);
        Some(if from.is_cr() {
            Privileged::ReadCr {
                number: from.number() as u8,
                to,
            }
        } else if to.is_cr() {
            Privileged::WriteCr {
                number: to.number() as u8,
                value: value()?,
            }
        } else if from.is_dr() {
            Privileged::ReadDr {
                number: from.number() as u8,
                to,
            }
        } else if to.is_dr() {
            Privileged::WriteDr {
                number: to.number() as u8,
                value: value()?,
            }
        } else if matches!(from, Register::CS | Register::SS) {
            Privileged::ReadSelector {
                selector: if from == Register::CS {
                    KERNEL_CS
                } else {
                    KERNEL_SS
                },
                to: self.destination()?,
            }
        } else if to.is_segment_register() {
            Privileged::WriteSelector {
                selector: self.selector()?,
            }
        } else {
            return None;
        })
    }
}

fn is_system(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Invlpg
            | Mnemonic::Invpcid
            | Mnemonic::Invd
            | Mnemonic::Wbinvd
            | Mnemonic::Wbnoinvd
            | Mnemonic::Swapgs
            | Mnemonic::Lgdt
            | Mnemonic::Lidt
            | Mnemonic::Lldt
            | Mnemonic::Ltr
            | Mnemonic::Lmsw
            | Mnemonic::Clts
            | Mnemonic::Stac
            | Mnemonic::Clac
            | Mnemonic::Monitor
            | Mnemonic::Mwait
            | Mnemonic::Xsetbv
            | Mnemonic::Syscall
            | Mnemonic::Sysret
            | Mnemonic::Sysretq
            | Mnemonic::Sysenter
            | Mnemonic::Sysexit
            | Mnemonic::Sysexitq
    )
}

/// Does the instruction run at CPL 3 without a trap, though it should not?
/// These are what [`patch`](crate::vm::patch) looks for.
pub(in crate::vm) fn is_silent(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Popf
        | Mnemonic::Popfq
        | Mnemonic::Pushf
        | Mnemonic::Pushfq
        | Mnemonic::Rdtsc
        | Mnemonic::Rdtscp
        | Mnemonic::Rdpid
        | Mnemonic::Cpuid
        | Mnemonic::Rdfsbase
        | Mnemonic::Rdgsbase
        | Mnemonic::Wrfsbase
        | Mnemonic::Wrgsbase
        | Mnemonic::Rdrand
        | Mnemonic::Rdseed
        | Mnemonic::Smsw
        | Mnemonic::Sgdt
        | Mnemonic::Sidt
        | Mnemonic::Sldt
        | Mnemonic::Str
        | Mnemonic::Iretq
        | Mnemonic::Syscall
        | Mnemonic::Xgetbv => true,
        Mnemonic::Mov => {
            matches!(
                instruction.code(),
                Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg
            ) && matches!(instruction.op1_register(), Register::CS | Register::SS)
        }
        _ => false,
    }
}
