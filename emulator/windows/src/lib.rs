//! What a display driver sees of Windows.
//!
//! It works over a memory and a CPU that it is given ([`Platform`]) and
//! knows nothing of KVM.
#![forbid(unsafe_code)]

pub mod call;
pub mod dxgk;
pub mod executive;
pub mod hal;
pub mod loader;
pub mod mm;
pub mod platform;
pub mod status;

pub use call::{Call, Outcome, Stop, Wait};
pub use platform::{Platform, PlatformError, Protection};
