//! Why the driver's code stopped.

use memory::{Gpa, Gva};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Why the vCPU left the driver's code. Except for [`Trap::Fatal`], the
/// registers that [`Vm::registers`](super::Vm::registers) shows are the
/// driver's at that moment, and may be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trap {
    /// An `out` to a permitted port: an import thunk. RIP is past the `out`.
    Port {
        /// The port.
        port: u16,
        /// EAX (AX, AL) as written.
        value: u32,
        /// Bytes: 1, 2 or 4.
        size: u8,
    },
    /// An access to guest-physical space without RAM.
    ///
    /// A write is complete and RIP is past the instruction (or, if the
    /// instruction makes several accesses, the next `run` gives the next). A
    /// read waits for `finish_mmio_read`; until then RIP is at the
    /// instruction.
    Mmio {
        /// The first byte.
        gpa: Gpa,
        /// Bytes: 1 to 8.
        size: u8,
        /// What is written, little-endian, zero-filled; `None` for a read.
        write: Option<[u8; 8]>,
        /// For a read, and for a `rep` that has more to do, the instruction.
        /// For another write, its successor: KVM has moved on by then.
        rip: Gva,
    },
    /// #PF.
    PageFault {
        /// The address that could not be reached (CR2).
        address: Gva,
        /// A write.
        write: bool,
        /// An instruction fetch.
        fetch: bool,
        /// The page has a present entry that forbids this access.
        present: bool,
        /// The instruction.
        rip: Gva,
    },
    /// #GP: a privileged instruction, a patched one, or a bad address. See
    /// [`emulate`](super::emulate).
    GeneralProtection {
        /// The instruction.
        rip: Gva,
        /// The error code.
        error: u64,
    },
    /// #UD. `int 29h` and its kind arrive here too on some hosts.
    InvalidOpcode {
        /// The instruction.
        rip: Gva,
    },
    /// #DE.
    DivideError {
        /// The instruction.
        rip: Gva,
    },
    /// #BP from `int3`. RIP is past it.
    Breakpoint {
        /// The `int3`.
        rip: Gva,
    },
    /// Another exception.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code, or 0.
        error: u64,
        /// The RIP that was pushed.
        rip: Gva,
    },
    /// The host's clock ran past the limit. Only for ending a run.
    Timeout,
    /// The stop flag was set (Ctrl-C).
    Interrupted,
    /// The machine cannot go on: a triple fault, an instruction that KVM
    /// could not emulate, or a defect of ours.
    Fatal(String),
}

/// When to give up on the driver's code.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunLimit<'a> {
    /// The host's clock may end the run from here on.
    pub deadline: Option<Instant>,
    /// End the run when this is set.
    pub stop: Option<&'a AtomicBool>,
}

impl RunLimit<'_> {
    /// The trap that ends the run, if it is to end now.
    #[must_use]
    pub fn reached(&self) -> Option<Trap> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Some(Trap::Interrupted);
        }
        let deadline = self.deadline?;
        (Instant::now() >= deadline).then_some(Trap::Timeout)
    }
}
