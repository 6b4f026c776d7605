//! Faults that the scenario injected: what follows from one is nobody else's
//! defect.

use crate::finding::{Blame, Party};
use crate::text::span;
use std::collections::VecDeque;

/// The latest injections of each sort that are remembered.
const MAX_INJECTIONS: usize = 256;

/// A fault as it was injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Injected {
    pub time: u64,
    pub name: String,
    pub site: String,
    pub outcome: String,
}

impl Injected {
    /// The device's addresses that it concerns, both ends included; `None` if
    /// the site names none, and it may be all.
    fn range(&self) -> Option<(u64, u64)> {
        let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let last = self.site.split(' ').next_back()?;
        match last.split_once('-') {
            Some((first, last)) => Some((number(first)?, number(last)?)),
            None => number(last).map(|only| (only, only)),
        }
    }

    /// How well it fits an access of these bytes: 2 if it names them, 1 if it
    /// names none.
    fn fits(&self, (first, last): (u64, u64)) -> u8 {
        match self.range() {
            Some((from, to)) if from <= last && first <= to => 2,
            Some(_) => 0,
            None => 1,
        }
    }
}

/// The latest faults, by what they can lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Injections {
    /// Into an access itself, or into its translation.
    access: VecDeque<Injected>,
    /// Into what takes memory from the device.
    taking: VecDeque<Injected>,
}

impl Injections {
    pub fn push(&mut self, injected: Injected) {
        let to = match injected.site.split(' ').next() {
            Some("access" | "entry" | "fault-record") => &mut self.access,
            Some("unmap" | "descriptor" | "fill" | "evict") => &mut self.taking,
            // What a driver makes of a routine that fails is the driver's.
            _ => return,
        };
        if to.len() == MAX_INJECTIONS {
            to.pop_front();
        }
        to.push_back(injected);
    }

    /// Put the scenario first, if a finding about an access that was issued
    /// at `time` to these bytes (both ends included) follows from what it
    /// did. Named is the latest injection that concerns the page; where none
    /// is known to, the latest of all.
    pub fn blame(&self, time: u64, bytes: (u64, u64), blame: &mut Vec<Blame>) {
        let page = (bytes.0 & !0xfff, bytes.1 | 0xfff);
        let driver = blame.first().is_some_and(|b| b.party == Party::Driver);
        let spoiled = self.access.iter().filter(|of| of.time == time);
        let kept = self.taking.iter().filter(|_| !driver);
        let Some((fits, injected)) = best(spoiled, page).or_else(|| best(kept, page)) else {
            return;
        };
        let mut reason = format!(
            "the scenario injected \"{}\" at {}: {} at {}",
            injected.name,
            span(injected.time),
            injected.outcome,
            injected.site
        );
        if fits == 0 {
            reason.push_str(" (the latest injection: none is known to concern this address)");
        }
        let party = Party::Injected;
        blame.insert(0, Blame { party, reason });
    }
}

/// The latest of those that fit best, and how well.
fn best<'a>(
    injections: impl Iterator<Item = &'a Injected>,
    page: (u64, u64),
) -> Option<(u8, &'a Injected)> {
    let fit = injections.map(|injected| (injected.fits(page), injected));
    fit.max_by_key(|(fits, _)| *fits)
}
