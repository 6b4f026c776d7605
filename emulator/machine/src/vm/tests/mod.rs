//! Tests. Those that run code need `/dev/kvm`; without it they fail, they do
//! not skip.
#![allow(clippy::unwrap_used)]

mod costs;
mod cpu_state;
mod emulate;
mod faults;
mod harness;
mod helpers;
mod mmio;
mod patch;
mod space;
mod step;
mod traps;
