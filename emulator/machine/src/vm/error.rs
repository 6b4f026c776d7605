//! What can go wrong with the machine itself; what the driver does wrong is a
//! [`Trap`](super::Trap).

use memory::{Gva, MemoryError};
use thiserror::Error;

/// A request about the driver's address space that cannot be met.
#[derive(Debug, Error)]
pub enum SpaceError {
    /// Bits 63:47 differ: no 4-level page table can map it.
    #[error("address {0} is not canonical")]
    NotCanonical(Gva),
    /// The page has a mapping already; unmap it first.
    #[error("page {0} is mapped already; unmap it first")]
    AlreadyMapped(Gva),
    /// The page has no mapping.
    #[error("page {0} is not mapped")]
    NotMapped(Gva),
    /// The frames given for page tables are used up.
    #[error("no frame left for page tables ({0} used); give the machine more")]
    OutOfFrames(u64),
    /// A page table leads outside RAM, or the frame range does.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The machine cannot go on.
#[derive(Debug, Error)]
pub enum VmError {
    /// `/dev/kvm` does not exist.
    #[error(
        "/dev/kvm does not exist: load the kvm_intel or kvm_amd module, enable virtualisation in \
         the firmware, or, in a container, pass --device /dev/kvm"
    )]
    NoKvm,
    /// `/dev/kvm` may not be opened.
    #[error(
        "/dev/kvm may not be opened by this user: join the group `kvm` (then log in again) or \
         change the permissions of /dev/kvm"
    )]
    NotPermitted,
    /// KVM is there but lacks something the machine needs.
    #[error("this host's KVM lacks {0}: a Linux kernel of 5.10 or later on x86-64 is needed")]
    Lacks(&'static str),
    /// A call to KVM failed.
    #[error("KVM: {what} failed: {error}")]
    Kvm {
        /// The call.
        what: &'static str,
        /// What the host said.
        error: std::io::Error,
    },
    /// The host gave no timer or signal for the run limit.
    #[error("cannot set up the run limit's timer: {0}")]
    Timer(std::io::Error),
    /// The driver's address space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// An MMIO read was not answered with `finish_mmio_read` before going on.
    #[error("an MMIO read is still unanswered: call finish_mmio_read first")]
    UnansweredRead,
    /// `finish_mmio_read` without an MMIO read.
    #[error("no MMIO read is waiting for an answer")]
    NothingToAnswer,
    /// Registers cannot be replaced while one instruction's MMIO accesses are
    /// only partly done.
    #[error("registers cannot be replaced in the middle of an instruction: run it to its end")]
    MidInstruction,
}

impl VmError {
    /// For `map_err` on a KVM call.
    pub(super) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm {
            what,
            error: std::io::Error::from_raw_os_error(error.errno()),
        }
    }
}

impl From<MemoryError> for VmError {
    fn from(error: MemoryError) -> Self {
        Self::Space(SpaceError::Memory(error))
    }
}
