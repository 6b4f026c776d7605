//! What the guest told of its memory by the device's vendor region.
//!
//! Nobody has checked it, and whoever tells it may lie. So it is kept apart
//! from what is known: it never says whose a page is where the ledger asks
//! that, it has findings, room and work of its own, and those that the ledger
//! has without it stay as they are. What it adds is said to be told by the
//! guest.
//!
//! A page is told to be given up from the step *retired* on. Whoever gets it
//! next maps it anew, and a mapping says when it was made: only what was
//! mapped before that step is held against it.

use crate::finding::{ClaimFacts, Clue, ClueKind, Kind, Outcome, Place};
use crate::mappings::Translation;
use crate::verdict::Case;
use crate::{Access, Ledger, Route};
use journal::event::{Claim, ClaimStep, ContextId, PageRun};
use memory::{Gpa, PAGE_SHIFT};
use std::collections::{BTreeMap, VecDeque};

/// Memory told of and not freed, at a time.
const MAX_LIVE: usize = 1 << 12;
/// The same freed, the oldest forgotten first.
const MAX_FREED: usize = 1 << 12;
/// Runs of pages, of all of it.
const MAX_RUNS: usize = 1 << 17;
/// Memory forgotten before what is left of it is looked for.
const TIDY: usize = 256;
/// Work that each claim pays for, and that may be saved up, in pages looked
/// at.
const WORK: u64 = 1 << 12;
const MAX_WORK: u64 = 1 << 20;
/// Findings that rest on claims: no room of the others' is taken.
pub(crate) const MAX_FINDINGS: usize = 128;

/// When something was told: event and time.
pub(crate) type Told = (u32, u64);

/// Memory that the guest told of.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    cookie: u64,
    tag: u32,
    runs: Vec<PageRun>,
    allocated: Told,
    retired: Option<Told>,
    freed: Option<Told>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    known: BTreeMap<u32, Known>,
    next: u32,
    /// What is not freed, by cookie.
    live: BTreeMap<u64, u32>,
    freed: VecDeque<u32>,
    /// Whose a frame is told to be, or to have been last: last frame and id,
    /// by the first.
    pages: BTreeMap<u64, (u64, u32)>,
    /// Runs of all that is known.
    runs: usize,
    /// Memory forgotten since `pages` was tidied.
    forgotten: usize,
    work: u64,
    /// Findings that rest on claims.
    pub(crate) findings: usize,
}

impl Claims {
    fn begin(&mut self, claim: &Claim, at: Told) {
        // An old one of that name is told of no more.
        if let Some(old) = self.live.remove(&claim.cookie) {
            self.forget(old);
        }
        if self.live.len() >= MAX_LIVE {
            return;
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.live.insert(claim.cookie, id);
        self.known.insert(
            id,
            Known {
                cookie: claim.cookie,
                tag: claim.tag,
                runs: Vec::new(),
                allocated: at,
                retired: None,
                freed: None,
            },
        );
        self.extend(id, &claim.pages);
    }

    fn extend(&mut self, id: u32, pages: &[PageRun]) {
        for run in pages {
            let last = run.count.checked_sub(1);
            let last = last.and_then(|more| run.first.0.checked_add(more));
            self.tidy();
            // As many pieces as runs, and one more for each that was cut.
            let room = self.runs < MAX_RUNS && self.pages.len() < 2 * MAX_RUNS;
            let (Some(last), true, Some(known)) = (last, room, self.known.get_mut(&id)) else {
                continue;
            };
            known.runs.push(*run);
            self.runs += 1;
            self.take_away(run.first.0, last);
            self.pages.insert(run.first.0, (last, id));
        }
    }

    /// These frames are nobody's.
    fn take_away(&mut self, first: u64, last: u64) {
        while let Some((&start, &(end, id))) = self.pages.range(..=last).next_back() {
            if end < first {
                break;
            }
            self.pages.remove(&start);
            if start < first {
                self.pages.insert(start, (first - 1, id));
            }
            if end > last {
                self.pages.insert(last + 1, (end, id));
            }
        }
    }

    fn forget(&mut self, id: u32) {
        let Some(known) = self.known.remove(&id) else {
            return;
        };
        self.runs = self.runs.saturating_sub(known.runs.len());
        // Its pieces lead to nothing from now on.
        self.forgotten += 1;
    }

    /// Drop pieces that lead to nothing, where it is worth it.
    fn tidy(&mut self) {
        if self.pages.len() >= 2 * MAX_RUNS && self.forgotten >= TIDY {
            let known = &self.known;
            self.pages.retain(|_, (_, id)| known.contains_key(id));
            self.forgotten = 0;
        }
    }

    fn free(&mut self, id: u32, at: Told) {
        if let Some(known) = self.known.get_mut(&id) {
            known.retired.get_or_insert(at);
            known.freed = Some(at);
            self.live.remove(&known.cookie);
            self.freed.push_back(id);
        }
        if self.freed.len() > MAX_FREED
            && let Some(oldest) = self.freed.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Whose a frame is told to have been, if it was given up.
    fn given_up(&self, pfn: u64) -> Option<(u32, Told)> {
        let (_, &(last, id)) = self.pages.range(..=pfn).next_back()?;
        let known = self.known.get(&id).filter(|_| pfn <= last)?;
        Some((id, known.retired?))
    }
}

impl Ledger {
    /// The guest told something of its memory.
    pub(crate) fn claim(&mut self, claim: &Claim) {
        self.facts.claims += 1;
        let at = (self.event, self.time);
        self.claims.work = self.claims.work.saturating_add(WORK).min(MAX_WORK);
        let live = self.claims.live.get(&claim.cookie).copied();
        match (claim.step, live) {
            (ClaimStep::Allocated, _) => self.claims.begin(claim, at),
            (ClaimStep::Extended, Some(id)) => self.claims.extend(id, &claim.pages),
            (ClaimStep::Retired, Some(id)) => {
                if let Some(known) = self.claims.known.get_mut(&id) {
                    known.retired.get_or_insert(at);
                }
            }
            (ClaimStep::Freed, Some(id)) => {
                self.claims.free(id, at);
                self.still_mapped(id, claim);
            }
            (ClaimStep::Forgotten, _) => {
                self.claims = Claims {
                    findings: self.claims.findings,
                    next: self.claims.next,
                    work: self.claims.work,
                    ..Claims::default()
                };
            }
            // Of nothing that is known: the guest's affair.
            (_, None) => {}
        }
    }

    /// Memory is told to be freed: is a mapping left that was there when it
    /// was told to be given up?
    fn still_mapped(&mut self, id: u32, claim: &Claim) {
        let Some(known) = self.claims.known.get(&id) else {
            return;
        };
        let Some((retired, _)) = known.retired else {
            return;
        };
        let frames = known.runs.iter().flat_map(|run| {
            let last = run.first.0.saturating_add(run.count.saturating_sub(1));
            run.first.0..=last
        });
        let mut left = None;
        let mut count = 0u64;
        let mut work = self.claims.work;
        for pfn in frames {
            if work == 0 {
                break;
            }
            work -= 1;
            if let Some((domain, iova)) = self.mappings.reaching_before(pfn, retired) {
                left = left.or(Some((pfn, domain, iova)));
                count += 1;
            }
        }
        self.claims.work = work;
        let Some((pfn, domain, iova)) = left else {
            return;
        };
        let access = Access {
            event: self.event,
            time: self.time,
            context: ContextId(0),
            device: claim.device,
            iova,
            length: 0,
            write: false,
        };
        let page = Gpa(pfn << PAGE_SHIFT);
        let kind = (Kind::MappedAfterFree, Outcome::NoAccess);
        let found = self.find_claimed(kind, access, (page, None), id, &Case::ClaimedMapped);
        if let Some(finding) = found.and_then(|index| self.findings.get_mut(index)) {
            finding.count = finding.count.saturating_sub(1).saturating_add(count);
            if let Some(access) = &mut finding.access {
                access.domain = Some(domain);
            }
        }
    }

    /// An access went through: to memory that is told to be given up?
    pub(crate) fn check_claims(&mut self, access: Access, route: Route) {
        let Some((id, (retired, time))) = self.claims.given_up(route.gpa.page()) else {
            return;
        };
        let translation = self
            .domain_of(access.device)
            .map_or(Translation::Unknown, |domain| {
                self.mappings.translate(domain, access.iova)
            });
        let stale = match translation {
            Translation::Present { pfn, changed, .. } => {
                pfn == Some(route.gpa.page()) && changed < retired
            }
            // By a translation that is no more, of a mapping that still was.
            Translation::Absent { before, changed } if route.cached => {
                before.is_some_and(|before| before.pfn == route.gpa.page()) && changed > retired
            }
            // Nothing is isolated, so nothing says who has the page now. But
            // what the device was told before cannot mean its new owner.
            _ => self.told_device(access).is_some_and(|told| told <= time),
        };
        if stale {
            let page = (route.gpa, Some(route.generation));
            let kind = (Kind::DmaUseAfterFree, Outcome::WentThrough);
            self.find_claimed(kind, access, page, id, &Case::ClaimedUse);
        }
    }

    /// When the device was told the address of an access, as a backing or as
    /// a queue's.
    fn told_device(&self, access: Access) -> Option<u64> {
        let command = self.commands.get(access.context);
        let attached = command
            .and_then(|command| self.backings.attached(command.resource?, access.iova.0))
            .and_then(|attached| attached.at);
        let area = || {
            let (_, at) = self.backings.area(access.device, access.iova)?;
            Some(at)
        };
        attached.or_else(area).map(|(time, _)| time)
    }

    /// What the guest told of the memory that a refused access would have
    /// reached.
    pub(crate) fn claimed_clue(&self, pfn: u64) -> Option<Clue> {
        let (id, (_, time)) = self.claims.given_up(pfn)?;
        let known = self.claims.known.get(&id)?;
        Some(Clue {
            kind: ClueKind::Claimed,
            text: format!(
                "as the guest told, the memory ({}) was given up here",
                format_args!("{:#x}", known.cookie)
            ),
            place: Place {
                time,
                stack: Vec::new(),
            },
        })
    }

    /// What a finding shows of a claim.
    pub(crate) fn claim_facts(&self, id: u32, pfn: u64) -> Option<ClaimFacts> {
        let known = self.claims.known.get(&id)?;
        let pages = crate::pages::count(&known.runs);
        Some(ClaimFacts {
            cookie: known.cookie,
            tag: known.tag,
            pages,
            page_index: crate::page_index(&known.runs, pfn),
            allocated: known.allocated.1,
            retired: known.retired.map(|(_, time)| time),
            freed: known.freed.map(|(_, time)| time),
        })
    }

    /// The tag of a claim: what happens to several of one has one cause.
    pub(crate) fn claim_tag(&self, id: u32) -> Option<u32> {
        self.claims.known.get(&id).map(|known| known.tag)
    }
}
