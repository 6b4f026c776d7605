//! A journal again, without driver or KVM: the IOMMU is rebuilt from the
//! register and table writes that the journal holds, every access of the
//! device is translated anew, and what comes out is compared with what the
//! journal says.
//!
//! The findings of the rebuilt run are the ledger's over the recomputed
//! events; they must be those of the recorded run.
#![forbid(unsafe_code)]

mod compare;
mod rebuild;
#[cfg(test)]
mod tests;

pub use compare::Difference;
pub use rebuild::{ReplayError, Replayed, replay};
