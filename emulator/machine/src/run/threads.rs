//! Threads and the routines of the driver that run in them.
//!
//! An interrupt or a DPC borrows the stack of whichever thread is current,
//! as on Windows; so each thread has a stack of frames, and only the
//! innermost runs.

use crate::vm::CpuState;
use journal::event::NameId;
use memory::Gva;
use windows::Wait;

/// Why Windows called a routine of the driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// The adapter's life, or an Escape: the result goes to the workload.
    Life,
    /// An interrupt or a DPC: the result is dropped.
    Asynchronous,
    /// A callback within a service that the driver called.
    Nested {
        /// The service.
        function: NameId,
        /// RAX for the driver, instead of the routine's own.
        value: Option<u64>,
        /// Where the low byte of the routine's result goes first.
        store: Option<Gva>,
    },
    /// The start routine of a system thread.
    Thread,
}

/// A routine that Windows called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    pub purpose: Purpose,
    pub routine: NameId,
    /// The routine, for a person.
    pub name: &'static str,
    /// What the CPU did before, if anything.
    pub resume: Option<CpuState>,
    /// What the interrupted frame waits for.
    pub waiting: Option<Waiting>,
    /// IRQL before.
    pub irql: u8,
    /// IRQL that it was called at, and has to return at.
    pub called_at: u8,
    /// Interrupt flag before: `cli` in a routine ends with it.
    pub interrupts: bool,
}

/// A service that has not returned, because it waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Waiting {
    pub wait: Wait,
    pub function: NameId,
}

/// What the processor is to a thread that does not run now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parked {
    pub cpu: CpuState,
    /// A thread may wait at APC_LEVEL; another one's IRQL is its own.
    pub irql: u8,
    pub interrupts: bool,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Thread {
    pub frames: Vec<Frame>,
    pub waiting: Option<Waiting>,
    /// While another thread runs; `None` before its first instruction.
    pub parked: Option<Parked>,
    pub stack: Gva,
    pub ended: bool,
}

impl Thread {
    /// A thread that has run nothing; `stack` is the top of its stack.
    pub fn new(stack: Gva) -> Self {
        Self {
            frames: Vec::new(),
            waiting: None,
            parked: None,
            stack,
            ended: false,
        }
    }

    /// Could it run on if it were given the CPU?
    pub fn ready(&self) -> bool {
        !self.ended && !self.frames.is_empty() && self.waiting.is_none()
    }
}
