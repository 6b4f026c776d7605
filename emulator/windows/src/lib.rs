//! What a display driver sees of Windows.
//!
//! It works over a memory and a CPU that it is given ([`Platform`]) and
//! knows nothing of KVM.
#![forbid(unsafe_code)]

pub mod call;
#[cfg(any())] // until its rooms are there
pub mod dxgk;
pub mod executive;
pub mod hal;
pub mod layout;
pub mod loader;
pub mod mm;
pub mod platform;
#[cfg(any())]
pub mod services;
pub mod status;

pub use call::{Call, Outcome, Stop, Wait};
pub use platform::{Platform, PlatformError, Protection};

