//! What the HAL and the PCI bus driver do: program the remapping unit, place
//! a device's BARs, connect its messages.
//!
//! The remapping unit is VT-d hardware to this room: registers, tables in
//! memory, descriptors. Each table entry and half descriptor that is written
//! stands in the journal.

mod contexts;
mod domain;
mod faults;
mod owners;
mod pci;
mod queue;
pub mod spec;
#[cfg(test)]
mod tests;
mod unit;

pub use domain::{DomainId, DomainKind};
pub use pci::{Interrupt, MemoryRange, MessageVector, Resources};
pub use queue::{Block, Invalidation, blocks};

use crate::mm::AllocFailure;
use crate::platform::Platform;
use journal::event::{Event, Table};
use memory::{Gpa, MemoryError, Pfn, RequesterId};
use std::collections::BTreeMap;
use thiserror::Error;

/// What the HAL remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The remapping unit, once initialised.
    unit: Option<unit::Unit>,
    /// Context tables, by bus.
    contexts: BTreeMap<u8, Pfn>,
    domains: BTreeMap<DomainId, domain::Domain>,
    /// The domain of devices that nobody isolates.
    default_domain: Option<DomainId>,
    devices: BTreeMap<RequesterId, Device>,
    /// Vectors given to devices.
    vectors: BTreeMap<u8, (RequesterId, u32)>,
    /// How far the windows for BARs are used up.
    bars: pci::Windows,
}

/// A known device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Device {
    domain: Option<DomainId>,
    resources: Resources,
}

/// What the HAL cannot do.
#[derive(Debug, Error)]
pub enum HalError {
    /// [`State::init`] was not called.
    #[error("the remapping unit is not initialised")]
    NotInitialised,
    /// The remapping unit lacks what is needed.
    #[error("the remapping unit has no {0}")]
    Lacks(&'static str),
    /// A status bit, or the status of a wait descriptor, never came.
    #[error("the remapping unit does not answer: {0}")]
    Timeout(&'static str),
    /// The queue stopped at an error (IQERCD).
    #[error("the remapping unit stopped at an invalidation descriptor, code {0:#x}")]
    Queue(u64),
    /// No such domain.
    #[error("there is no domain {}", .0.0)]
    NoDomain(DomainId),
    /// All 65,535 domain ids are in use.
    #[error("domain ids are used up")]
    NoDomainIds,
    /// A domain with devices cannot go.
    #[error("domain {} still has devices", .0.0)]
    DomainInUse(DomainId),
    /// The device is in no domain.
    #[error("device {0} is attached to no domain")]
    NotAttached(RequesterId),
    /// The device is in a domain that is not the default one.
    #[error("device {0} is attached to a domain already")]
    AlreadyAttached(RequesterId),
    /// Tables cannot map this frame at its own address.
    #[error("page {0:#x} is beyond 48 bits")]
    BeyondWidth(u64),
    /// The page is not mapped in the domain.
    #[error("page {page:#x} is not mapped in domain {}", domain.0)]
    NotMapped {
        /// Which domain.
        domain: DomainId,
        /// Page number.
        page: u64,
    },
    /// The page is mapped for as long as the domain lives.
    #[error("page {page:#x} is mapped in domain {} for good", domain.0)]
    Lasting {
        /// Which domain.
        domain: DomainId,
        /// Page number.
        page: u64,
    },
    /// No room for a BAR.
    #[error("BAR {bar} of device {device} of {size:#x} bytes finds no place")]
    NoRoom {
        /// Which device.
        device: RequesterId,
        /// Which BAR.
        bar: u8,
        /// Bytes.
        size: u64,
    },
    /// No page frames for tables.
    #[error(transparent)]
    Allocation(#[from] AllocFailure),
    /// A table is not in memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl State {
    /// The domain a device is in.
    #[must_use]
    pub fn domain_of(&self, device: RequesterId) -> Option<DomainId> {
        self.devices.get(&device)?.domain
    }
}

/// Write an 8-byte entry, and tell.
fn write_entry(
    platform: &dyn Platform,
    address: Gpa,
    new: u64,
    table: Table,
) -> Result<(), MemoryError> {
    let memory = platform.memory();
    let old = memory.read_u64(address)?;
    memory.write_u64(address, new)?;
    let journal = platform.scenario().journal();
    if journal.is_enabled() {
        journal.emit(Event::TableWrite {
            address,
            old,
            new,
            table,
        });
    }
    Ok(())
}
