//! Why an exploration fails.

use machine::MachineError;
use std::path::PathBuf;
use thiserror::Error;

impl ExploreError {
    /// Is it the input that is wrong?
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Read { .. } | Self::Other { .. } | Self::NotStarted
        ) || matches!(
            self,
            Self::Machine(MachineError::Load(_) | MachineError::TooLittleMemory(_))
        )
    }
}

/// Why an exploration fails.
#[derive(Debug, Error)]
pub enum ExploreError {
    /// The machine could not be made, or the host failed.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// There is no run to deviate from.
    #[error(
        "in the default order the driver does not get through what it is made to do: {why}; \
         `dmasan run` shows that run"
    )]
    Unfinished {
        /// What it stops at.
        why: String,
    },
    /// A run did not end as it did before.
    #[error("the driver did not do the same twice at choice {choice}: {why}; please report this")]
    NotDeterministic {
        /// Which choice.
        choice: u64,
        /// What differed.
        why: &'static str,
    },
    /// The results cannot be written.
    #[error("cannot write {}: {error}; what was found so far is in it", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Two explorations would write to one file.
    #[error(
        "another dmasan explore writes to {}; wait for its end, or give another --out",
        path.display()
    )]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The results of an earlier exploration cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Results of another search.
    #[error(
        "{} is of another exploration ({what} differs); give another --out, or the same arguments",
        path.display()
    )]
    Other {
        /// Where.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// There is nothing to fuzz.
    #[error(
        "the driver does not start, or has no DxgkDdiEscape: there is nothing to fuzz; \
         dmasan run says how its start ends"
    )]
    NotStarted,
    /// The engine of the fuzzer failed.
    #[error("the fuzzer failed: {0}; please report this")]
    Engine(String),
    /// A worker ended without a result.
    #[error("a worker of the exploration panicked; please report this")]
    Worker,
}
