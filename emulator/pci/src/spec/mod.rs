//! What the standards say: registers, structures, constants. No behaviour.

pub mod config;
pub mod msix;
pub mod virtio;
