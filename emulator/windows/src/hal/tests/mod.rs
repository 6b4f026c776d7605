#![allow(clippy::unwrap_used)]

mod domain;
mod faults;
mod pci;
mod queue;
