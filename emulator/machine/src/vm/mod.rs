//! A small long-mode VM whose code runs at CPL 3, and whose every exit is a
//! typed [`Trap`]. It knows nothing of Windows, of devices or of journals.
//!
//! | module | subject |
//! |---|---|
//! | `vcpu` | [`Vm`]: the vCPU, entering it and telling why it left |
//! | `setup`, `state` | making a [`Vm`]; saving and restoring it |
//! | `space`, `pte` | [`AddressSpace`]: page tables, access traps, the driver's memory |
//! | `layout` | descriptor tables, the exception stubs and their addresses |
//! | `step`, `simple` | letting one instruction pass an access trap |
//! | [`emulate`] | what a privileged instruction asks for, and completing it |
//! | [`patch`] | finding the instructions that do not trap at CPL 3 |
//! | [`thunk`], [`helpers`] | the guest code that we add to a driver |
//! | `alarm` | ending a run by the host's clock |
//! | `probe` | what this host's KVM can do |

mod alarm;
mod cpuid;
pub mod emulate;
mod error;
mod frames;
pub mod helpers;
mod layout;
pub mod patch;
mod probe;
mod pte;
mod registers;
mod setup;
mod simple;
mod space;
mod state;
mod step;
#[cfg(test)]
mod tests;
pub mod thunk;
mod trap;
mod vcpu;

pub use error::{SpaceError, VmError};
pub use frames::{FrameAllocator, FrameRange};
pub use layout::{KERNEL_CS, KERNEL_SS, SYSTEM_BASE, SYSTEM_PAGES, USER_CS, USER_SS};
pub use probe::{KvmFacts, probe};
pub use pte::{Mapping, Protection};
pub use registers::{CpuState, FpuState, Gpr, Registers};
pub use space::{AddressSpace, SpaceState};
pub use step::StepEnd;
pub use trap::{RunLimit, Trap};
pub use vcpu::Vm;
