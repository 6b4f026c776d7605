//! Why a command failed, and with which exit code.

use machine::MachineError;
use qemu::launch::LaunchError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// A file that was named cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A directory where a file should be.
    #[error("{0} is a directory: name a file")]
    Directory(PathBuf),
    /// A file longer than what it could be.
    #[error("{path} has {size} bytes; at most {limit} are read")]
    TooLong {
        /// Which.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A result cannot be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The driver is none.
    #[error("{path}: {error}")]
    Driver {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: MachineError,
    },
    /// The scenario is none.
    #[error("{path}: {error}")]
    Scenario {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: scenario::PlanError,
    },
    /// The suppressions are none.
    #[error("{path}: {error}")]
    Suppressions {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: report::SuppressionsError,
    },
    /// The baseline is none.
    #[error("{path}: {error}")]
    Baseline {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: report::BaselineError,
    },
    /// Several documents for one standard output.
    #[error("only one of --json, --junit and --sarif can go to standard output (-)")]
    OneOutput,
    /// The journal is none.
    #[error("{path}: {error}")]
    Journal {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: journal::ReadError,
    },
    /// The journal cannot be replayed.
    #[error("{path}: {error}")]
    Replay {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: replay::ReplayError,
    },
    /// The driver's copy beside the journal would lie over a result.
    #[error("a driver may not be named {0:?}, which is the name of a result: rename it")]
    ReservedName(String),
    /// No rule has that name.
    #[error("there is no rule {0:?}: dmasan rules lists them")]
    NoSuchRule(String),
    /// No finding has that name.
    #[error("there is no finding {0:?}: dmasan explain lists them")]
    NoSuchFinding(String),
    /// A QEMU machine cannot be started.
    #[error(transparent)]
    Launch(LaunchError),
    /// The device of a QEMU machine cannot be served any longer.
    #[error(transparent)]
    Serve(qemu::ServeError),
    /// QEMU ended with a failure.
    #[error("QEMU ended ({status}): {words}")]
    QemuEnded {
        /// How.
        status: String,
        /// What it said last.
        words: String,
    },
    /// Nobody answers at a control socket.
    #[error("{path}: {error}: is the machine running?")]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The machine cannot be made, or cannot go on.
    #[error(transparent)]
    Machine(MachineError),
    /// An exploration failed.
    #[error(transparent)]
    Explore(#[from] ::explore::ExploreError),
    /// A report that could not be made.
    #[error("{0}")]
    Report(String),
}

impl CliError {
    /// 2 for bad input, 3 for what could not run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Explore(error) if error.is_input() => 2,
            Self::Read { .. }
            | Self::Directory(_)
            | Self::TooLong { .. }
            | Self::Driver { .. }
            | Self::Scenario { .. }
            | Self::Suppressions { .. }
            | Self::Baseline { .. }
            | Self::OneOutput
            | Self::Journal { .. }
            | Self::Replay { .. }
            | Self::ReservedName(_)
            | Self::NoSuchRule(_)
            | Self::NoSuchFinding(_)
            | Self::Launch(LaunchError::Read { .. } | LaunchError::Description { .. }) => 2,
            Self::Launch(_)
            | Self::Serve(_)
            | Self::QemuEnded { .. }
            | Self::Control { .. }
            | Self::Write { .. }
            | Self::Machine(_)
            | Self::Explore(_)
            | Self::Report(_) => 3,
        }
    }
}
