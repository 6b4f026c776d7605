//! The driver's machine: a small KVM virtual machine that runs a Windows
//! driver's code at CPL 3, with an emulated virtio-gpu behind an emulated
//! IOMMU.
//!
//! | module | subject |
//! |---|---|
//! | [`vm`] | KVM: page tables, the vCPU, its traps |
//! | `board` | memory, CPU, IOMMU and device on their buses |
//! | `load` | putting it together: the driver's image, Windows' structures |
//! | `run` | entering the driver, its traps, the device's turns, snapshots |
//! | [`lint`] | what can be said of a driver before its defects show |
//! | `workload` | what the driver is made to do |

mod board;
mod error;
pub mod lint;
mod load;
mod options;
mod run;
pub mod vm;
mod workload;

pub use board::VendorWrite;
pub use error::MachineError;
pub use gpu::{VendorRegion, commands};
pub use load::functions;
pub use options::{DEFAULT_MEMORY, DEFAULT_QUARANTINE, DEVICE, Options};
pub use run::{Machine, Snapshot};
/// Routines that give memory or a mapping: a fault may let them fail.
pub use windows::injected::{FALLIBLE, check as check_fault};
