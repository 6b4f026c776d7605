//! Keeps findings: one for each cause, told what is learnt later.

use crate::commands;
use crate::finding::{Finding, Kind, Outcome, Stop};
use crate::pages::PageState;
use crate::spec::{BUG_CHECK_DMA_VIOLATION, IOMMU_VIOLATION};
use crate::verdict::{self, Case};
use crate::{Access, Key, Ledger};
use journal::event::{self, ContextId};
use memory::{Gpa, PAGE_SHIFT};

/// Distinct findings kept.
const MAX_FINDINGS: usize = 1024;
/// Bug checks whose findings are known.
const MAX_CAUSES: usize = 4096;
/// Pages whose latest refusal is known.
const MAX_REFUSALS: usize = 1 << 16;

impl Ledger {
    /// Windows stopped: the finding that made it do so learns of it, and the
    /// stop of the finding.
    pub(crate) fn stopped(&mut self, stop: &event::BugCheck) {
        let [kind, _, address, _] = stop.parameters;
        if stop.code != BUG_CHECK_DMA_VIOLATION || kind != IOMMU_VIOLATION {
            return;
        }
        // A finding keeps the address of its first access only, and two may
        // have had one address in turn: it goes by the latest refusal there.
        let exact = self.refusals.get(&(address >> PAGE_SHIFT)).copied();
        let Some(index) = exact.or(self.refused) else {
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
                reason: crate::text::short(&stop.reason, 1000),
                seen: true,
                continued: stop.continued,
            });
        }
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
        let record = owner.and_then(|id| self.allocations.get(&id));
        let freed = record.and_then(|record| record.freed);
        let key: Key = (
            kind,
            submitted.map(|(_, stack)| stack),
            owner,
            freed.map(|(_, stack)| stack),
        );
        if let Some(&index) = self.keys.get(&key) {
            if let Some(finding) = self.findings.get_mut(index) {
                finding.count = finding.count.saturating_add(1);
                finding.last_time = access.time;
            }
            return Some(index);
        }
        if self.findings.len() >= MAX_FINDINGS {
            self.facts.findings_omitted += 1;
            return None;
        }
        let pfn = page.map(Gpa::page);
        let told = pfn.or(owner.map(|_| access.iova.page()));
        let allocation = owner.and_then(|id| {
            let record = self.allocations.get(&id)?;
            Some(self.describe(id, record, told))
        });
        let now = pfn.map(|pfn| self.pages.get(pfn)).unwrap_or_default();
        let reused_by = Some(now.owner)
            .filter(|&id| now.state == PageState::Owned && Some(id) != owner)
            .and_then(|id| Some(self.describe(id, self.allocations.get(&id)?, pfn)));
        let command = (kind != Kind::MappedAfterFree).then(|| self.command(access.context));
        let domain = self.domain_of(access.device);
        let history = told
            .and_then(|pfn| self.histories.get(&pfn))
            .map(|history| history.told(&self.invalidations))
            .unwrap_or_default();
        let mut finding = Finding {
            kind,
            summary: String::new(),
            count: 1,
            time: access.time,
            last_time: access.time,
            device: access.device,
            domain,
            iova: access.iova,
            page,
            length: access.length,
            write: access.write,
            outcome,
            generation,
            allocation,
            reused_by,
            command,
            refusal: None,
            blame: Vec::new(),
            stop: None,
            history,
            surroundings: self.surroundings(access.device, domain, access.iova, owner),
            related: Vec::new(),
        };
        finding.summary = verdict::summary(&finding, case);
        finding.blame = verdict::blame(&finding, case);
        let index = self.findings.len();
        self.findings.push(finding);
        self.keys.insert(key, index);
        self.commands.mark(access.context);
        Some(index)
    }
}
