//! Faults that the scenario injected: what follows from one is nobody else's
//! defect.

use crate::finding::{Blame, Party};
use crate::text::span;

/// A fault as it was injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Injected {
    pub time: u64,
    pub name: String,
    pub site: String,
    pub outcome: String,
}

/// The latest faults, by what they can lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Injections {
    /// Into an access itself, or into its translation.
    access: Option<Injected>,
    /// Into what takes memory from the device.
    taking: Option<Injected>,
}

impl Injections {
    pub fn push(&mut self, injected: Injected) {
        match injected.site.split(' ').next() {
            Some("access" | "entry" | "fault-record") => self.access = Some(injected),
            Some("unmap" | "descriptor" | "fill" | "evict") => self.taking = Some(injected),
            // What a driver makes of a routine that fails is the driver's.
            _ => {}
        }
    }

    /// Put the scenario first, if a finding about an access that was issued
    /// at `time` follows from what it did.
    pub fn blame(&self, time: u64, blame: &mut Vec<Blame>) {
        let driver = blame.first().is_some_and(|b| b.party == Party::Driver);
        let spoiled = self
            .access
            .as_ref()
            .filter(|injected| injected.time == time);
        let kept = self.taking.as_ref().filter(|_| !driver);
        if let Some(injected) = spoiled.or(kept) {
            let reason = format!(
                "the scenario injected \"{}\" at {}: {} at {}",
                injected.name,
                span(injected.time),
                injected.outcome,
                injected.site
            );
            let party = Party::Injected;
            blame.insert(0, Blame { party, reason });
        }
    }
}
