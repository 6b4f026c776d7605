//! Why an access was refused.

use journal::event::ContextId;
use memory::{Iova, RequesterId};
use thiserror::Error;

/// Why an access was refused: the reasons of VT-d (table in 7.1.3), and those
/// that stop an access before or after the remapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
#[repr(u8)]
pub enum FaultReason {
    /// The root entry of the bus is not present.
    #[error("the root entry is not present")]
    RootNotPresent = 0x1,
    /// The context entry of the device is not present.
    #[error("the context entry is not present")]
    ContextNotPresent = 0x2,
    /// The context entry asks for what the hardware does not do.
    #[error("the context entry is invalid")]
    ContextInvalid = 0x3,
    /// The address is beyond the width of the domain or of the hardware.
    #[error("the address is beyond the address width")]
    AddressBeyond = 0x4,
    /// The page is not mapped, or not for writing.
    #[error("write permission is missing")]
    WriteDenied = 0x5,
    /// The page is not mapped, or not for reading.
    #[error("read permission is missing")]
    ReadDenied = 0x6,
    /// A second-level table below the top one is not in memory; the top one is
    /// [`FaultReason::ContextInvalid`].
    #[error("a second-level table is not in memory")]
    TableAccess = 0x7,
    /// The root table is not in memory.
    #[error("the root table is not in memory")]
    RootAccess = 0x8,
    /// The context table is not in memory.
    #[error("the context table is not in memory")]
    ContextAccess = 0x9,
    /// A reserved bit of the root entry is set.
    #[error("a reserved bit of the root entry is set")]
    RootReserved = 0xa,
    /// A reserved bit of the context entry is set.
    #[error("a reserved bit of the context entry is set")]
    ContextReserved = 0xb,
    /// A reserved bit of a second-level entry is set.
    #[error("a reserved bit of a second-level entry is set")]
    TableReserved = 0xc,
    /// A read of, or a translation into, the interrupt address range.
    #[error("the access is to the interrupt address range")]
    InterruptRange = 0xe,
    /// Bus Master Enable is clear. Not a VT-d reason: the request never
    /// reached the remapping unit.
    #[error("bus mastering is disabled")]
    BusMasterDisabled = 0xf0,
    /// The access led to an address where there is no RAM. Not a VT-d reason:
    /// the remapping unit let it pass.
    #[error("there is no memory at the translated address")]
    NotMemory = 0xf1,
}

impl FaultReason {
    /// The number in the fault record and in [`journal::Event::Fault`].
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// A refused access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Hash)]
#[error("device {device} cannot {} {iova}: {reason}", if *write { "write" } else { "read" })]
pub struct Fault {
    /// Who.
    pub device: RequesterId,
    /// For which command.
    pub context: ContextId,
    /// Where.
    pub iova: Iova,
    /// To memory?
    pub write: bool,
    /// Why not.
    pub reason: FaultReason,
}
