//! Keeps findings: one for each cause, told what is learnt later.

use crate::commands;
use crate::finding::{AccessFacts, Finding, Kind, Outcome, Stop};
use crate::pages::PageState;
use crate::spec::{BUG_CHECK_DMA_VIOLATION, IOMMU_VIOLATION};
use crate::text::short;
use crate::verdict::{self, Case};
use crate::{Access, Key, Ledger};
use journal::event::{self, ContextId};
use memory::{Gpa, PAGE_SHIFT};

/// Distinct findings kept.
const MAX_FINDINGS: usize = 1024;
/// Characters of a reason.
pub(crate) const MAX_REASON: usize = 1000;
/// Bug checks whose findings are known.
const MAX_CAUSES: usize = 4096;
/// Pages whose latest refusal is known.
const MAX_REFUSALS: usize = 1 << 16;

impl Ledger {
    /// Windows stopped: the finding that made it do so learns of it, and the
    /// stop of the finding; the breach of a rule is a finding of its own.
    pub(crate) fn stopped(&mut self, stop: &event::BugCheck) {
        let Some(index) = self.answered(stop).or_else(|| self.stopped_by_rule(stop)) else {
            return;
        };
        if self.causes.len() < MAX_CAUSES {
            self.causes.insert(self.event, index);
        }
        if let Some(finding) = self.findings.get_mut(index)
            && finding.stop.as_ref().is_none_or(|known| !known.seen)
        {
            finding.stop = Some(Stop {
                code: stop.code,
                parameters: stop.parameters,
                certainty: stop.certainty,
                reason: short(&stop.reason, MAX_REASON),
                seen: true,
                continued: stop.continued,
            });
        }
    }

    /// The finding of the refused access that an IOMMU fault's bug check
    /// answers.
    fn answered(&self, stop: &event::BugCheck) -> Option<usize> {
        let [kind, _, address, _] = stop.parameters;
        if stop.code != BUG_CHECK_DMA_VIOLATION || kind != IOMMU_VIOLATION {
            return None;
        }
        // A finding keeps the address of its first access only, and two may
        // have had one address in turn: it goes by the latest refusal there.
        let exact = self.refusals.get(&(address >> PAGE_SHIFT)).copied();
        exact.or(self.refused)
    }

    /// Note which finding a refused access belongs to.
    pub(crate) fn note_refusal(&mut self, page: u64, finding: usize) {
        self.refused = Some(finding);
        if self.refusals.len() < MAX_REFUSALS || self.refusals.contains_key(&page) {
            self.refusals.insert(page, finding);
        }
    }

    pub(crate) fn command(&self, context: ContextId) -> crate::Command {
        commands::describe(
            context,
            self.commands.get(context),
            |name| self.names.get(&name.0).cloned().unwrap_or_default(),
            |time, stack| self.place((time, stack)),
        )
    }

    /// Two findings about one access.
    pub(crate) fn relate(&mut self, one: usize, other: usize) {
        for (of, to) in [(one, other), (other, one)] {
            if let Some(finding) = self.findings.get_mut(of)
                && !finding.related.contains(&to)
                && finding.related.len() < 8
            {
                finding.related.push(to);
            }
        }
    }

    /// Keep a finding, if there is room.
    pub(crate) fn keep(&mut self, key: Key, finding: Finding) -> Option<usize> {
        if self.findings.len() >= MAX_FINDINGS {
            self.facts.findings_omitted += 1;
            return None;
        }
        let index = self.findings.len();
        self.findings.push(finding);
        self.keys.insert(key, index);
        Some(index)
    }

    /// Count another of a finding's accesses or breaches.
    pub(crate) fn again(&mut self, key: &Key, time: u64) -> Option<usize> {
        let index = self.keys.get(key).copied()?;
        if let Some(finding) = self.findings.get_mut(index) {
            finding.count = finding.count.saturating_add(1);
            finding.last_time = time;
        }
        Some(index)
    }

    /// Add a finding, or count the access with the one that it belongs to.
    pub(crate) fn find(
        &mut self,
        (kind, outcome): (Kind, Outcome),
        access: Access,
        (page, generation): (Option<Gpa>, Option<u32>),
        owner: Option<u32>,
        case: &Case,
    ) -> Option<usize> {
        let submitted = self
            .commands
            .get(access.context)
            .and_then(|context| context.submitted);
        let record = owner.and_then(|id| self.record(id));
        let freed = record.and_then(|record| record.freed);
        let key = Key {
            kind,
            used: submitted.map(|(_, stack)| stack),
            allocation: owner,
            freed: freed.map(|(_, stack)| stack),
            address: 0,
        };
        if let Some(index) = self.again(&key, access.time) {
            return Some(index);
        }
        let pfn = page.map(Gpa::page);
        let told = pfn.or(owner.map(|_| access.iova.page()));
        let allocation = owner.and_then(|id| {
            let record = self.record(id)?;
            Some(self.describe(id, record, told))
        });
        let now = pfn.map(|pfn| self.pages.get(pfn)).unwrap_or_default();
        let reused_by = Some(now.owner)
            .filter(|&id| now.state == PageState::Owned && Some(id) != owner)
            .and_then(|id| Some(self.describe(id, self.allocations.get(&id)?, pfn)));
        let command = (outcome != Outcome::NoAccess).then(|| self.command(access.context));
        let domain = self.domain_of(access.device);
        let history = told
            .and_then(|pfn| self.histories.get(&pfn))
            .map(|history| history.told(&self.invalidations))
            .unwrap_or_default();
        let since = allocation.as_ref().map_or(0, |a| a.allocated.time);
        let mdl = told.and_then(|pfn| self.mdls.describe(pfn, since, |at| self.place(at)));
        let origin = owner
            .filter(|_| kind == Kind::DmaRawPhysicalAddress)
            .and_then(|owner| self.origin(told?, owner))
            .map(|at| self.place(at));
        let facts = AccessFacts {
            device: access.device,
            domain,
            iova: access.iova,
            page,
            length: access.length,
            write: access.write,
            outcome,
            generation,
            reused_by,
            command,
            refusal: None,
            mdl,
            origin,
            surroundings: self.surroundings(access.device, domain, access.iova, owner),
        };
        let mut finding = Finding {
            kind,
            summary: String::new(),
            count: 1,
            time: access.time,
            last_time: access.time,
            access: None,
            breach: None,
            allocation,
            blame: Vec::new(),
            stop: None,
            history,
            related: Vec::new(),
        };
        finding.summary = verdict::summary(&finding, &facts, case);
        finding.blame = verdict::blame(&finding, &facts, case);
        finding.access = Some(facts);
        let index = self.keep(key, finding)?;
        self.commands.mark(access.context);
        Some(index)
    }
}
