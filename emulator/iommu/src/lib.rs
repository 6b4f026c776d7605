//! The IOMMU, and a device's only way to memory.
//!
//! [`Unit`] is a VT-d remapping unit (Intel's specification, rev. 4.1, legacy
//! mode): registers, invalidation queue, IOTLB, fault records. Its tables lie
//! in guest memory and are programmed by whoever plays the OS, so they can be
//! wrong in every way that real ones are. [`Mirror`] is a domain that another
//! unit translates for, known by the mappings it tells. [`VirtioIommu`] is the
//! unit of virtio 1.2, programmed by requests. [`Dma`] is what a device gets: it
//! translates at every access and never hands out a host pointer.
#![forbid(unsafe_code)]

mod bus;
mod dma;
mod fault;
#[doc(hidden)]
pub mod fuzzing;
mod in_flight;
mod mirror;
pub mod spec;
mod tell;
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
mod translate;
mod unit;
mod virtio;
mod vtd;

pub use bus::{Bus, BusState, Message};
pub use dma::{Dma, Issued, Landing, Slices};
pub use fault::{Fault, FaultReason};
pub use mirror::{MAX_MAPPINGS, Mapping, Mirror, MirrorError, MirrorState};
pub use translate::{Env, Request, Translate, Translation, is_interrupt_address};
pub use unit::{REGISTER_BASE, REGISTER_SIZE, Unit, UnitState};
pub use virtio::{DOMAIN_LAST, INPUT_LAST, MAX_REQUEST, PROPERTIES, VirtioIommu, VirtioIommuState};
