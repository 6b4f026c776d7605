//! The GPU as a PCI device of a QEMU guest, over vfio-user: the guest's own
//! IOMMU, as QEMU emulates it, decides what the device may reach, and tells it
//! by DMA_MAP and DMA_UNMAP ([`iommu::Mirror`]). Or that IOMMU is ours, a
//! virtio-iommu served as a second device, and the guest's driver programs it
//! ([`iommu::VirtioIommu`]). And starting that QEMU from a machine description.
//!
//! The protocol is our own code over `vfio-bindings`, because the published
//! server (`vfio_user` 0.1.7) cannot send DMA_READ and DMA_WRITE and loses its
//! place in the stream when their replies arrive, takes bit 2 for "unmap all"
//! where the protocol has bit 1, agrees to one file with a message where QEMU
//! sends up to 16, answers failures with errno 0, leaves the body of a command
//! that it does not know in the stream, and blocks in one connection.
//!
//! One thread serves all of it: it takes messages, lets the devices work, and
//! sends what is due, so that a request to the IOMMU never waits for the GPU. Nothing in it waits for the peer: replies to our own commands are
//! messages like any other, so an access inside the guest's MMIO handler,
//! during which QEMU answers nothing, cannot lock up. Other threads ask
//! through a [`Handle`].
#![forbid(unsafe_code)]

pub mod audit;
mod board;
pub mod control;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod interrupts;
pub mod launch;
mod message;
mod outgoing;
pub mod qmp;
mod server;
mod spec;
#[cfg(test)]
mod tests;
mod wire;

pub use board::check_plan;
pub use error::ServeError;
pub use handle::{Handle, HandleError};
pub use server::{Ended, ServeConfig, Server};
