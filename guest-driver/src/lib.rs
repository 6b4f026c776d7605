//! A full WDDM 2.4 display miniport for virtio-gpu (PCI 1AF4:1050) that
//! keeps to Windows' IOMMU isolation: every byte the device may touch comes
//! from dxgkrnl's own allocation callbacks and goes back only after the
//! device let go of it.
//!
//! Three rules run through all of it:
//!
//! 1. Pages go back after the device *acknowledged* the detach, rings after
//!    the device *confirmed* its reset; never on the strength of a command
//!    that was merely queued.
//! 2. What the device writes is untrusted: indices and lengths are checked.
//! 3. Memory that the device reads is complete before the index that
//!    publishes it (virtio 1.2 §2.7.13).
//!
//! [`spec`] holds what standards and public headers say and no behaviour;
//! [`ring`] is the split virtqueue, which also runs on the host for its
//! tests; the rest needs the kernel.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod edid;
pub mod ring;
pub mod spec;

#[cfg(windows)]
pub mod adapter;
#[cfg(windows)]
pub mod callbacks;
#[cfg(windows)]
pub mod caps;
#[cfg(windows)]
pub mod cursor;
#[cfg(windows)]
pub mod ddi;
#[cfg(all(windows, feature = "defects"))]
pub mod defects;
#[cfg(windows)]
pub mod escape;
#[cfg(windows)]
pub mod gpu;
#[cfg(windows)]
pub mod interrupt;
#[cfg(windows)]
pub mod memory;
#[cfg(windows)]
pub mod mutations;
#[cfg(windows)]
pub mod nt;
#[cfg(windows)]
pub mod pci;
#[cfg(windows)]
pub mod power;
#[cfg(windows)]
pub mod queue;
#[cfg(windows)]
pub mod registration;
#[cfg(windows)]
pub mod registry;
#[cfg(windows)]
pub mod resource;
#[cfg(windows)]
pub mod sync;
#[cfg(windows)]
pub mod telling;
#[cfg(windows)]
pub mod virtio;
