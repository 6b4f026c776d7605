//! Why the machine itself cannot go on. What the driver does wrong is an
//! [`End`](journal::event::End) of the run, not an error.

use crate::vm::VmError;
use journal::JournalError;
use memory::MemoryError;
use thiserror::Error;
use windows::PlatformError;
use windows::dxgk::lifecycle::LifecycleError;
use windows::hal::HalError;
use windows::loader::LoadError;

/// Why the machine cannot be made, or cannot go on.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The driver file is not one.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// KVM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A setting that cannot be.
    #[error("{0}")]
    Setting(String),
    /// Guest memory is too small for what has to be in it.
    #[error("{0} bytes of guest memory are too few for this driver: give more with --memory")]
    TooLittleMemory(u64),
    /// A structure of ours is not where it should be.
    #[error("the machine's own memory: {0}")]
    Platform(#[source] PlatformError),
    /// The IOMMU refused its programming.
    #[error("programming the IOMMU: {0}")]
    Hal(#[from] HalError),
    /// The life of the adapter.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// KVM gave up.
    #[error("the machine stopped: {0}")]
    Fatal(String),
    /// Snapshots need a machine between two traps and a journal in memory.
    #[error("no snapshot can be taken here: {0}")]
    Snapshot(String),
}
