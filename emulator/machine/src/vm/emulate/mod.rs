//! Privileged instructions: what one asks for, and completing it.
//!
//! At a #GP or #UD the caller takes the instruction's own bytes (at a patched
//! site with the original first byte), [`decode()`]s them, finds the virtual
//! value that the instruction reads or notes what it writes, and lets
//! [`Intercept::apply`] bring registers and memory to the state after it.

mod apply;
mod decode;

pub use decode::decode;
pub(in crate::vm) use decode::is_silent;

use iced_x86::{Mnemonic, Register};
use memory::Gva;

/// IF in RFLAGS.
const INTERRUPT: u64 = 1 << 9;

/// Where an instruction puts its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A general-purpose register, of its own width.
    Register(Register),
    /// Memory of the driver, and how many bytes.
    Memory(Gva, u8),
}

/// FS or GS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Segment {
    Fs,
    Gs,
}

/// What an instruction asks of the virtual processor. "Reads": the caller
/// supplies [`Completion::value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Privileged {
    /// Flags from the stack; bit 9 is the new interrupt flag.
    Popf {
        /// The flags popped.
        value: u64,
        /// Bytes popped: 8 or 2.
        size: u8,
    },
    /// Flags to the stack.
    Pushf {
        /// Bytes pushed: 8 or 2.
        size: u8,
    },
    /// Interrupts off.
    Cli,
    /// Interrupts on.
    Sti,
    /// Wait for an interrupt.
    Hlt,
    /// Reads the time; with `processor` (RDTSCP) also [`Completion::extra`].
    Rdtsc {
        /// RDTSCP.
        processor: bool,
    },
    /// CPUID; the answer is built in. KVM shows it too, but some hosts mix in
    /// features of their own.
    Cpuid {
        /// EAX.
        leaf: u32,
    },
    /// RDPID: reads the processor number.
    Rdpid {
        /// Where to.
        to: Register,
    },
    /// Reads a control register. CR8 is the IRQL.
    ReadCr {
        /// 0, 2, 3, 4 or 8.
        number: u8,
        /// Where to.
        to: Register,
    },
    /// Writes a control register.
    WriteCr {
        /// 0, 2, 3, 4 or 8.
        number: u8,
        /// What.
        value: u64,
    },
    /// Reads a debug register.
    ReadDr {
        /// 0 to 7.
        number: u8,
        /// Where to.
        to: Register,
    },
    /// Writes a debug register.
    WriteDr {
        /// 0 to 7.
        number: u8,
        /// What.
        value: u64,
    },
    /// Reads a model-specific register.
    Rdmsr {
        /// Its number.
        msr: u32,
    },
    /// Writes a model-specific register.
    Wrmsr {
        /// Its number.
        msr: u32,
        /// What.
        value: u64,
    },
    /// Reads a performance counter.
    Rdpmc {
        /// Its number.
        counter: u32,
    },
    /// Reads an extended control register.
    Xgetbv {
        /// Its number.
        register: u32,
    },
    /// Reads a port.
    In {
        /// The port.
        port: u16,
        /// Bytes.
        size: u8,
    },
    /// Writes a port.
    Out {
        /// The port.
        port: u16,
        /// Bytes.
        size: u8,
        /// What.
        value: u32,
    },
    /// One element of INS: reads a port into memory at RDI.
    StringIn {
        /// The port.
        port: u16,
        /// Bytes of an element.
        size: u8,
        /// With REP: counts RCX down and stays at the instruction until it
        /// is 0.
        repeat: bool,
    },
    /// One element of OUTS: writes memory at RSI to a port.
    StringOut {
        /// The port.
        port: u16,
        /// Bytes of an element.
        size: u8,
        /// What.
        value: u32,
        /// As for INS.
        repeat: bool,
    },
    /// Reads the base of FS or GS.
    ReadBase {
        /// Which.
        segment: Segment,
        /// Where to.
        to: Register,
    },
    /// Writes the base of FS or GS.
    WriteBase {
        /// Which.
        segment: Segment,
        /// What.
        value: u64,
    },
    /// RDRAND, RDSEED: reads random bits, and succeeds.
    Random {
        /// Where to.
        to: Register,
    },
    /// SMSW: reads CR0. SLDT, STR: read a selector.
    StoreSystem {
        /// SMSW, SLDT or STR.
        mnemonic: Mnemonic,
        /// Where to.
        to: Destination,
    },
    /// SGDT, SIDT: read a base, and its limit as [`Completion::extra`].
    StoreTable {
        /// SGDT or SIDT.
        mnemonic: Mnemonic,
        /// Where to: ten bytes.
        to: Gva,
    },
    /// `mov r, cs` or `mov r, ss`: the kernel's selector is filled in.
    ReadSelector {
        /// The selector.
        selector: u16,
        /// Where to.
        to: Destination,
    },
    /// Loads a segment register; ignored.
    WriteSelector {
        /// The selector.
        selector: u16,
    },
    /// Returns from an interrupt; bit 9 of `rflags` is the new interrupt
    /// flag.
    Iretq {
        /// The new RIP.
        rip: u64,
        /// The new flags.
        rflags: u64,
        /// The new RSP.
        rsp: u64,
    },
    /// `int 29h`: the driver found itself corrupt (`__fastfail`).
    FastFail {
        /// ECX.
        code: u32,
    },
    /// `int 2Ch`: an assertion failed.
    Assert,
    /// `int 2Dh`: a request to the kernel debugger.
    DebugService {
        /// EAX.
        service: u32,
    },
    /// Another software interrupt.
    Interrupt {
        /// Its vector.
        vector: u8,
    },
    /// A system instruction without a result for the driver: INVLPG, WBINVD,
    /// SWAPGS, LGDT, CLTS, STAC, SYSCALL and their kind.
    System(Mnemonic),
    /// UD2 and its kind: undefined on purpose.
    Undefined,
}

impl Privileged {
    /// The virtual interrupt flag after the instruction, if it sets it.
    #[must_use]
    pub fn interrupt_flag(&self) -> Option<bool> {
        match *self {
            Self::Cli => Some(false),
            Self::Sti => Some(true),
            Self::Popf { value, .. } => Some(value & INTERRUPT != 0),
            Self::Iretq { rflags, .. } => Some(rflags & INTERRUPT != 0),
            _ => None,
        }
    }
}

/// What the virtual processor says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Completion {
    /// What the instruction reads; cut to its size.
    pub value: u64,
    /// RDTSCP: the processor number; SGDT, SIDT: the limit.
    pub extra: u32,
    /// The virtual interrupt flag, as PUSHF shall show it.
    pub interrupts: bool,
}

/// An instruction that asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intercept {
    /// What.
    pub what: Privileged,
    /// Its length, bytes.
    pub length: u8,
}
