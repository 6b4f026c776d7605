//! Keeps findings: one for each cause, told what is learnt later.

use crate::claims;
use crate::commands;
use crate::finding::{
    AccessFacts, Blame, Clue, ClueKind, Finding, Kind, MdlFacts, Outcome, Party, QueueArea, Stop,
};
use crate::pages::PageState;
use crate::spec::{BUG_CHECK_DMA_VIOLATION, IOMMU_VIOLATION};
use crate::text::short;
use crate::verdict::{self, Case};
use crate::{Access, Key, Ledger};
use journal::event::{self, ContextId, ORDERED, StackId};
use memory::{Gpa, PAGE_SHIFT};

/// Distinct findings kept.
const MAX_FINDINGS: usize = 1024;
/// Clues of a finding that more may be added to.
const MAX_CLUES: usize = 16;
/// Allocations of one finding that are counted.
const MAX_MEMBERS: usize = 1 << 10;
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

    /// Who is at fault for what the device does in this context, if somebody
    /// ordered it to.
    fn ordered(&self, context: ContextId) -> Option<Blame> {
        let known = self.commands.get(context)?;
        let name = self.names.get(&known.name?.0)?;
        (name == ORDERED).then(|| Blame {
            party: Party::Injected,
            reason: format!("the device was ordered to {}", known.detail),
        })
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
        let claimed = finding.claim.is_some();
        let full = if claimed {
            self.claims.findings >= claims::MAX_FINDINGS
        } else {
            self.findings.len() - self.claims.findings >= MAX_FINDINGS
        };
        if full {
            self.facts.findings_omitted += 1;
            return None;
        }
        self.claims.findings += usize::from(claimed);
        let index = self.findings.len();
        let owner = finding.allocation.as_ref().map(|of| of.id.0);
        self.findings.push(finding);
        self.members.push(owner.into_iter().collect());
        self.keys.insert(key, index);
        Some(index)
    }

    /// What stands for an allocation where findings are told apart.
    pub(crate) fn made(&self, owner: Option<u32>) -> Option<(StackId, u32)> {
        let id = owner?;
        let stack = self.record(id).map_or(StackId(0), |of| of.allocated.1);
        Some((stack, if stack == StackId(0) { id } else { 0 }))
    }

    /// Count another of a finding's accesses or breaches.
    pub(crate) fn again(&mut self, key: &Key, owner: Option<u32>, time: u64) -> Option<usize> {
        let index = self.keys.get(key).copied()?;
        let finding = self.findings.get_mut(index)?;
        finding.count = finding.count.saturating_add(1);
        finding.last_time = time;
        if let Some(owner) = owner
            && let Some(members) = self.members.get_mut(index)
            && members.len() < MAX_MEMBERS
            && members.insert(owner)
        {
            finding.allocations = finding.allocations.saturating_add(1);
        }
        Some(index)
    }

    /// Is the finding about this allocation?
    pub(crate) fn is_about(&self, index: usize, owner: u32) -> bool {
        let members = self.members.get(index);
        members.is_some_and(|members| members.contains(&owner))
    }

    /// Findings of this kind about an allocation.
    pub(crate) fn about(&self, kind: Kind, owner: Option<u32>) -> Option<usize> {
        let owner = owner?;
        (0..self.findings.len()).find(|index| {
            self.findings.get(*index).is_some_and(|of| of.kind == kind)
                && self.is_about(*index, owner)
        })
    }

    /// What the driver did earlier that led to an access.
    fn clues_of(
        &self,
        kind: Kind,
        access: Access,
        mdl: Option<&MdlFacts>,
    ) -> (Option<QueueArea>, Vec<Clue>) {
        let place = |at| self.place(at);
        let mut clues = Vec::new();
        let area = self.backings.area(access.device, access.iova);
        if let Some((area, at)) = area {
            clues.push(Clue {
                kind: ClueKind::QueueEnabled,
                text: format!(
                    "queue {} was enabled here, with its rings' addresses",
                    area.queue
                ),
                place: place(at),
            });
        }
        let command = self.commands.get(access.context);
        if let Some(resource) = command.and_then(|command| command.resource)
            && let Some(attached) = self.backings.attached(resource, access.iova.0)
            && attached.context != access.context
            && let Some(at) = attached.at
        {
            let told = self.command(attached.context).name.unwrap_or_default();
            clues.push(Clue {
                kind: ClueKind::Attached,
                text: format!(
                    "given to the device here: {told} of resource {resource} (command {})",
                    attached.context.0
                ),
                place: place(at),
            });
        }
        if kind == Kind::DmaPermission
            && let Some(mdl) = mdl
        {
            clues.extend(self.clues.locked(mdl.mdl, mdl.mapped.time, place));
        }
        (area.map(|(area, _)| area), clues)
    }

    /// During exclusive access: the finding that an access belongs to, though
    /// its key is another. The device's look at its rings and the command that
    /// it finds there are one breach.
    fn same_breach(&mut self, key: &Key, access: Access) -> Option<usize> {
        if key.kind != Kind::ExclusiveAccessViolation || access.context != ContextId(0) {
            return None;
        }
        let (known, _) = self.quiet.or_else(|| {
            let of_kind = |(key, _): &(&Key, &usize)| key.kind == Kind::ExclusiveAccessViolation;
            let (key, index) = self.keys.iter().rfind(of_kind)?;
            Some((*key, *index))
        })?;
        self.again(&known, None, access.time)
    }

    /// What stands for the cause of an access where no stack does, as in a
    /// guest: its page, and that of the first such access of its command for
    /// all of the command's.
    fn told_apart(&mut self, key: &Key, access: Access) -> u64 {
        let exclusive = key.kind == Kind::ExclusiveAccessViolation;
        if !self.stacks.is_empty() || key.allocated.is_some() || exclusive {
            return 0;
        }
        match self.nameless {
            Some((context, page)) if context == access.context && context != ContextId(0) => page,
            _ => {
                let page = access.iova.page();
                self.nameless = Some((access.context, page));
                page
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
        let record = owner.and_then(|id| self.record(id));
        let freed = record.and_then(|record| record.freed);
        let exclusive = kind == Kind::ExclusiveAccessViolation;
        let ordered = self.ordered(access.context);
        let key = Key {
            kind,
            used: submitted.map(|(_, stack)| stack),
            // Any memory is as wrong as any other then.
            allocated: self.made(owner).filter(|_| !exclusive),
            freed: freed.map(|(_, stack)| stack).filter(|_| !exclusive),
            address: 0,
            claim: None,
        };
        let key = Key {
            // Each order is a cause of its own, and none of the driver's.
            address: match &ordered {
                Some(_) => access.context.0.into(),
                None => self.told_apart(&key, access),
            },
            ..key
        };
        if let Some(index) = self.same_breach(&key, access) {
            return Some(index);
        }
        if let Some(index) = self.again(&key, owner, access.time) {
            return Some(index);
        }
        let mut finding = self.accessed((kind, outcome), access, (page, generation), owner);
        if let Some(facts) = finding.access.take() {
            finding.summary = verdict::summary(&finding, &facts, case);
            finding.blame = verdict::blame(&finding, &facts, case);
            let last = access.length.saturating_sub(1).into();
            let bytes = (access.iova.0, access.iova.0.saturating_add(last));
            self.injections
                .blame(access.time, bytes, &mut finding.blame);
            if let Some(blame) = ordered {
                finding.blame = vec![blame];
            }
            finding.access = Some(facts);
        }
        self.commands.mark(access.context);
        // The look at the ring came before the command was known.
        if exclusive && let Some((former, index)) = self.quiet.take() {
            self.keys.remove(&former);
            self.keys.insert(key, index);
            let known = self.findings.get_mut(index)?;
            finding.count = known.count.saturating_add(1);
            finding.time = known.time;
            finding.stop = known.stop.take();
            finding.related = std::mem::take(&mut known.related);
            *known = finding;
            return Some(index);
        }
        let index = self.keep(key, finding)?;
        if exclusive && access.context == ContextId(0) {
            self.quiet = Some((key, index));
        }
        Some(index)
    }

    /// The same of a finding that rests on what the guest told. It is kept
    /// apart from all others.
    pub(crate) fn find_claimed(
        &mut self,
        (kind, outcome): (Kind, Outcome),
        access: Access,
        (page, generation): (Gpa, Option<u32>),
        id: u32,
        case: &Case,
    ) -> Option<usize> {
        let ordered = self.ordered(access.context);
        let key = Key {
            kind,
            used: None,
            allocated: None,
            freed: None,
            address: ordered.as_ref().map_or(0, |_| access.context.0.into()),
            claim: Some(self.claim_tag(id)?),
        };
        if let Some(index) = self.again(&key, None, access.time) {
            return Some(index);
        }
        let mut finding = self.accessed((kind, outcome), access, (Some(page), generation), None);
        finding.claim = self.claim_facts(id, page.page());
        if let Some(facts) = finding.access.take() {
            finding.summary = verdict::summary(&finding, &facts, case);
            finding.blame = match ordered {
                Some(blame) => vec![blame],
                None => verdict::blame(&finding, &facts, case),
            };
            finding.access = Some(facts);
        }
        self.commands.mark(access.context);
        self.keep(key, finding)
    }

    /// The memory that a finding is about was told to be given up.
    pub(crate) fn note_claim(&mut self, index: usize, pfn: u64) {
        let Some(clue) = self.claimed_clue(pfn) else {
            return;
        };
        if let Some(finding) = self.findings.get_mut(index)
            && finding.clue(ClueKind::Claimed).is_none()
            && finding.clues.len() < MAX_CLUES
        {
            finding.clues.push(clue);
        }
    }

    /// What is known of an access; the words come later.
    fn accessed(
        &self,
        (kind, outcome): (Kind, Outcome),
        access: Access,
        (page, generation): (Option<Gpa>, Option<u32>),
        owner: Option<u32>,
    ) -> Finding {
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
        let (area, clues) = if outcome == Outcome::NoAccess {
            (None, Vec::new())
        } else {
            self.clues_of(kind, access, mdl.as_ref())
        };
        // The allocation goes by the page of that number.
        let raw = kind == Kind::DmaRawPhysicalAddress;
        let physical = !self.identity(access.device) && (raw || page.is_none() && owner.is_some());
        Finding {
            kind,
            summary: String::new(),
            count: 1,
            time: access.time,
            last_time: access.time,
            access: Some(AccessFacts {
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
                area,
                surroundings: self.surroundings(
                    access.device,
                    domain,
                    access.iova,
                    owner,
                    physical,
                ),
            }),
            breach: None,
            allocations: u64::from(allocation.is_some()),
            allocation,
            claim: None,
            clues,
            blame: Vec::new(),
            stop: None,
            history,
            related: Vec::new(),
        }
    }
}
