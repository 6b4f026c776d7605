//! One PCI function with the virtio-pci transport (virtio 1.2 §4.1):
//! configuration space, BARs, MSI-X, common configuration, queues.
//!
//! What the device behind it does is a [`Device`]; how it runs is its own
//! affair. It holds a [`Function`] and asks it for chains of descriptors,
//! and the function asks it for features and configuration. All memory is
//! reached through [`iommu::Dma`].
#![forbid(unsafe_code)]

mod capabilities;
mod config;
mod device;
mod function;
mod msix;
pub mod spec;
#[cfg(test)]
mod tests;
mod transport;

pub use config::{ConfigSpace, Identity};
pub use device::Device;
pub use function::{Function, NO_QUEUE, Setup, VendorRegion, layout};
pub use msix::Msix;
pub use transport::{Chain, MAX_CHAIN, RingError, Segment, Transport};
