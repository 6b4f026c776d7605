//! Which findings make a run fail: all, but for those that are suppressed or
//! known from a baseline.

use crate::baseline::Baseline;
use crate::fingerprint;
use crate::model::{Ending, Report};
use crate::suppress::Suppression;
use ledger::Kind;
use std::collections::BTreeSet;

/// What a finding is to those who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It makes the run fail.
    New,
    /// The baseline has it.
    Known,
    /// The suppression of this number covers it.
    Suppressed(usize),
    /// The scenario says that it is to be made.
    Expected,
}

/// What suppressions and baseline say of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Triage {
    /// The suppressions asked for.
    pub suppressions: Vec<Suppression>,
    /// Those of them, by number, that cover no finding of this run.
    pub unused: Vec<usize>,
    /// Was there a baseline?
    pub baseline: bool,
    /// What the baseline has and this run has not.
    pub fixed: Vec<String>,
    /// Each finding's standing; shorter than the findings if nothing was
    /// asked.
    standings: Vec<Standing>,
    /// Is each bug check known from the baseline?
    known_stops: Vec<bool>,
}

impl Report {
    /// Judge the findings by suppressions and a baseline. A suppression goes
    /// first: it carries a reason.
    pub fn triage(&mut self, suppressions: Vec<Suppression>, baseline: Option<&Baseline>) {
        let none = Baseline::default();
        let known = baseline.unwrap_or(&none);
        let mut unused: BTreeSet<usize> = (0..suppressions.len()).collect();
        let mut seen = BTreeSet::new();
        let mut standings = Vec::new();
        for found in &self.findings {
            let print = fingerprint::of(found);
            let mut standing = if known.findings.contains_key(&print) {
                Standing::Known
            } else {
                Standing::New
            };
            seen.insert(print);
            // Each that covers it is of use, the first of them is named.
            for (index, rule) in suppressions.iter().enumerate().rev() {
                if rule.covers(found) {
                    unused.remove(&index);
                    standing = Standing::Suppressed(index);
                }
            }
            standings.push(standing);
        }
        let gone = known.findings.iter();
        self.triage = Triage {
            fixed: gone
                .filter(|(print, _)| !seen.contains(*print))
                .map(|(_, name)| name.clone())
                .collect(),
            known_stops: self
                .stops
                .iter()
                .map(|stop| known.stops.contains(&fingerprint::of_stop(stop)))
                .collect(),
            unused: unused.into_iter().collect(),
            baseline: baseline.is_some(),
            suppressions,
            standings,
        };
    }

    /// What a finding is to those who asked.
    #[must_use]
    pub fn standing(&self, index: usize) -> Standing {
        if self.is_expected(index) {
            return Standing::Expected;
        }
        let standing = self.triage.standings.get(index).copied();
        standing.unwrap_or(Standing::New)
    }

    /// Is the bug check of this number excused?
    ///
    /// One that the baseline has is. One that answers a suppressed or known
    /// finding is if the run went on after it. One that ended the run never
    /// is by a suppression: nothing after it was tested. One that answers a
    /// finding which the scenario asks for is part of that.
    #[must_use]
    pub fn stop_excused(&self, index: usize) -> bool {
        let known = self.triage.known_stops.get(index).copied();
        known == Some(true)
            || self.stops.get(index).is_some_and(|stop| {
                let expected = stop.finding.is_some_and(|at| self.is_expected(at));
                let excused = stop.finding.is_some_and(|at| self.excused(at));
                expected || stop.bug_check.continued && excused
            })
    }

    /// Bug checks without a finding that the baseline has.
    pub(crate) fn stops_known(&self) -> usize {
        let stops = self.stops.iter().enumerate();
        stops
            .filter(|(index, stop)| stop.finding.is_none() && self.stop_excused(*index))
            .count()
    }

    fn excused(&self, index: usize) -> bool {
        index < self.findings.len() && self.standing(index) != Standing::New
    }

    /// Is there nothing that a developer must look at: no finding and no bug
    /// check but excused ones, a driver that started, did what it was made to
    /// and did not hang, and is all so that the scenario asks? A journal that
    /// is cut off, or a run that was interrupted, is no defect. What a driver
    /// refuses that is to meet a fault is for the scenario to judge, if it
    /// says what is to be found.
    #[must_use]
    pub fn passes(&self) -> bool {
        let stops = self.stops.len();
        let omitted = self.omitted_stops.iter();
        let asked = self.expected.is_some();
        self.failed_checks().next().is_none()
            && (asked || !self.refused)
            && (0..self.findings.len()).all(|index| self.excused(index))
            && self.facts.findings_omitted == 0
            && (0..stops).all(|index| self.stop_excused(index))
            && omitted
                .copied()
                .all(|cause| cause.is_some_and(|index| self.excused(index)))
            && match self.ending {
                Ending::Completed | Ending::Interrupted | Ending::Unknown => true,
                // Its bug check is among those above, unless there were too
                // many to keep.
                Ending::BugCheck => stops > 0 && self.omitted_stops.is_empty(),
                Ending::StartFailed { .. } | Ending::Hang { .. } => asked,
                Ending::Unsupported { .. } => false,
            }
    }

    /// Does a finding tell of the hang that ended the run?
    pub(crate) fn hang_told(&self) -> bool {
        self.new_findings()
            .filter_map(|index| self.findings.get(index))
            .any(|found| found.finding.kind == Kind::Hang)
    }

    /// The findings that make the run fail.
    pub(crate) fn new_findings(&self) -> impl Iterator<Item = usize> {
        (0..self.findings.len()).filter(|index| !self.excused(*index))
    }
}
