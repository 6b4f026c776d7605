//! Guest memory, and the address types of every room.
//!
//! Guest RAM is one shared memfd mapped once. Nobody outside this crate (and
//! the KVM machine, which gives the mapping to the kernel) sees a host
//! pointer: callers name guest-physical addresses and get copies.
#![allow(unsafe_code)] // the mapping itself; see `guest`

mod address;
mod guest;
mod image;
#[cfg(test)]
mod tests;

pub use address::{Gpa, Gva, Iova, PAGE_SHIFT, PAGE_SIZE, Pfn, RequesterId, pages_spanned};
pub use guest::{GuestMemory, HIGH_BASE, LOW_LIMIT, MemoryError, Slot};
pub use image::{Changed, Image, Tracker};
