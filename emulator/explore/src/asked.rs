//! What a scenario asks of every run by it, as far as a run has answered.

use journal::event::{Event, NameId, Point};
use ledger::Ledger;
use scenario::fault::matches;
use scenario::{Plan, Verify};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// Findings that say that something was not given back.
const LEAKS: [&str; 3] = ["handle-leak", "mdl-not-released", "memory-leak"];

/// The faults and the `[verify]` of a scenario, and what of them came true.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    verify: Verify,
    /// How many faults and answers there are.
    faults: u32,
    /// Those that were injected.
    fired: BTreeSet<u32>,
    /// Routines of which `verify` names the status: which of these.
    routines: BTreeMap<NameId, Vec<usize>>,
    /// Which status was returned.
    returned: BTreeSet<usize>,
    /// A schedule had an allocation or a mapping fail.
    failed: bool,
}

impl Asked {
    /// By this plan.
    pub fn of(plan: &Plan) -> Self {
        Self {
            verify: plan.verify.clone().unwrap_or_default(),
            faults: plan.faults.len().saturating_add(plan.answers.len()) as u32,
            ..Self::default()
        }
    }

    /// Take in what comes next in the journal.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Injected { fault, .. } => {
                self.fired.insert(*fault);
            }
            Event::Choice {
                point: Point::Fail,
                taken,
                ..
            } => self.failed |= *taken != 0,
            Event::Name { id, text } => {
                let status = self.verify.status.iter().enumerate();
                let named = status.filter(|(_, wanted)| matches(&wanted.function, text));
                let named: Vec<usize> = named.map(|(index, _)| index).collect();
                if !named.is_empty() {
                    self.routines.insert(*id, named);
                }
            }
            Event::Return {
                function: id,
                value,
            }
            | Event::Leave { routine: id, value } => {
                for &index in self.routines.get(id).into_iter().flatten() {
                    let wanted = self.verify.status.get(index);
                    if wanted.is_some_and(|wanted| wanted.returns.0 == *value as u32) {
                        self.returned.insert(index);
                    }
                }
            }
            _ => {}
        }
    }

    /// Hash what of the past later verdicts depend on.
    pub fn hash(&self, hasher: &mut impl Hasher) {
        (&self.fired, &self.returned, self.failed).hash(hasher);
    }

    /// The faults that were injected.
    pub fn fired(&self) -> &BTreeSet<u32> {
        &self.fired
    }

    /// Was anything done to this run that may keep the driver from what it is
    /// to do?
    pub fn disturbed(&self) -> bool {
        self.failed || !self.fired.is_empty()
    }

    /// Does the scenario list this finding?
    pub fn expects(&self, finding: &str) -> bool {
        let mut listed = self.verify.findings.iter().flatten();
        listed.any(|id| id == finding)
    }

    /// Does the scenario say which findings are to be made? What the driver
    /// refuses is then no failure of a run.
    pub fn lists_findings(&self) -> bool {
        self.verify.findings.is_some()
    }

    /// What is not as the scenario asks, once a run has ended: what that is
    /// called, and a sentence. A run without its faults is asked nothing.
    pub fn broken(&self, ledger: &Ledger) -> Vec<(String, String)> {
        if self.fired.len() < self.faults as usize {
            return Vec::new();
        }
        let found = |id: &str| ledger.findings().iter().any(|f| f.kind.id() == id);
        let mut broken = Vec::new();
        for id in self.verify.findings.iter().flatten() {
            if !found(id) {
                let why = format!("verify: no {id} was found");
                broken.push((format!("verify findings {id}"), why));
            }
        }
        for (index, wanted) in self.verify.status.iter().enumerate() {
            if !self.returned.contains(&index) {
                let what = format!("{} never returned {}", wanted.function, wanted.returns);
                broken.push((format!("verify status {index}"), format!("verify: {what}")));
            }
        }
        if let Some(wanted) = self.verify.released {
            let released = ledger.live(1).is_empty() && !LEAKS.iter().any(|id| found(id));
            if released != wanted {
                let what = if wanted {
                    "not everything"
                } else {
                    "everything"
                };
                let why = format!("verify: {what} was released in the end");
                broken.push(("verify released".to_owned(), why));
            }
        }
        broken
    }
}
