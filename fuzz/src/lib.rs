//! What the fuzz targets share.
#![forbid(unsafe_code)]

mod guest;
mod input;
mod platform;
mod records;

pub use guest::Guest;
pub use input::Input;
pub use platform::{DATA, DATA_PAGES, DEVICE, Machine, STACK_POINTER};
pub use records::{framed, records, show};
