//! A call of the driver to Windows, and what may come of it.

use crate::platform::{Platform, PlatformError};
use crate::rules::executive::ARGUMENT_NOT_MAPPED;
use journal::event::{Certainty, Subject};
use memory::Gva;

/// A call as it arrives: the Windows x64 convention, before the callee's
/// prologue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// RCX, RDX, R8, R9.
    pub registers: [u64; 4],
    /// RSP at the first instruction of the callee: the return address lies
    /// there, the fifth argument at +0x28.
    pub stack_pointer: Gva,
}

impl Call {
    /// Argument `index`, from 0, as a raw 64-bit value: narrower ones have
    /// undefined upper bits.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if it lies on a stack that is not there.
    pub fn argument(&self, platform: &dyn Platform, index: usize) -> Result<u64, PlatformError> {
        match self.registers.get(index) {
            Some(&value) => Ok(value),
            None => {
                let offset = 8 + 8 * index as u64;
                let at = self
                    .stack_pointer
                    .checked_add(offset)
                    .ok_or(PlatformError::NotMapped(self.stack_pointer))?;
                platform.read_u64(at)
            }
        }
    }

    /// Where the caller goes on.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`].
    pub fn return_address(&self, platform: &dyn Platform) -> Result<u64, PlatformError> {
        platform.read_u64(self.stack_pointer)
    }
}

/// What comes of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// RAX for the caller.
    Return(u64),
    /// The thread waits; the call returns the status of the wait.
    Block(Wait),
    /// Windows calls the driver back and returns what that returns (as
    /// `DxgkCbSynchronizeExecution` does), or `value` if given.
    Invoke {
        /// Name of the routine, for the journal.
        name: &'static str,
        /// Where it is.
        routine: Gva,
        /// Its arguments (at most four).
        arguments: [u64; 4],
        /// IRQL it runs at.
        irql: u8,
        /// RAX for the caller, instead of the routine's own.
        value: Option<u64>,
        /// Where its return value (a byte) is stored first, if anywhere.
        store: Option<Gva>,
    },
    /// The calling thread ends.
    EndThread,
    /// Windows stops, or would.
    Stop(Stop),
}

impl Outcome {
    /// If Windows stops: the breach is about this.
    #[must_use]
    pub fn about(self, subject: Subject) -> Self {
        match self {
            Self::Stop(stop) => Self::Stop(stop.about(subject)),
            other => other,
        }
    }
}

/// A bug check that a call provokes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stop {
    /// Its code.
    pub code: u32,
    /// Its parameters.
    pub parameters: [u64; 4],
    /// How sure we are.
    pub certainty: Certainty,
    /// Why, in words, with the source.
    pub reason: String,
    /// The rule that was broken ([`crate::rules`]); `None` where the driver
    /// itself asked for it.
    pub rule: Option<&'static str>,
    /// What the breach is about.
    pub subject: Subject,
    /// RAX for the caller when the run goes on all the same; `None` if
    /// nothing sensible can follow.
    pub go_on: Option<u64>,
}

impl Stop {
    /// The breach is about this.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// The call can return `value` all the same.
    #[must_use]
    pub fn or_return(mut self, value: impl Into<u64>) -> Self {
        self.go_on = Some(value.into());
        self
    }
}

impl From<PlatformError> for Outcome {
    /// Windows touched memory of the driver's that is not there: a system
    /// service faults on it, as PAGE_FAULT_IN_NONPAGED_AREA (0x50) says.
    fn from(error: PlatformError) -> Self {
        let address = match &error {
            PlatformError::NotMapped(at) => at.0,
            PlatformError::CannotMap { address, .. } => address.0,
        };
        Self::Stop(ARGUMENT_NOT_MAPPED.stop(
            &[address],
            format!("an argument of the call leads nowhere: {error}"),
        ))
    }
}

/// What a thread waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wait {
    /// Dispatcher objects (events, threads, ...).
    pub objects: Vec<Gva>,
    /// All of them are waited for, at one moment; else any one suffices.
    pub all: bool,
    /// Virtual time at which the wait gives up, if ever.
    pub until: Option<u64>,
    /// Who waits: a mutex is its own then.
    pub thread: u32,
    /// The one object is a fast mutex: the IRQL before the wait.
    pub fast_mutex: Option<u8>,
}
