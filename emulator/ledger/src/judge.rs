//! What an access means, against who owns the page and what the tables say.

use crate::finding::{Kind, Outcome, Refusal};
use crate::history::Step;
use crate::mappings::{Before, Translation};
use crate::pages::PageState;
use crate::spec::is_iommu_fault;
use crate::verdict::{self, Case};
use crate::watch::Led;
use crate::{Access, Flight, Ledger, Route, Suspect};
use journal::event::{self, ContextId, TokenId};
use memory::{Gpa, Iova, PAGE_SHIFT, RequesterId};

/// Accesses in flight at a time.
const MAX_FLIGHTS: usize = 1 << 16;
/// Accesses that wait for the end of a routine.
const MAX_SUSPECTS: usize = 64;

impl Ledger {
    pub(crate) fn access(&mut self, access: Access, outcome: event::Outcome) {
        self.facts.accesses += 1;
        let (gpa, generation, cached, token) = match outcome {
            event::Outcome::Done {
                gpa,
                generation,
                cached,
            } => (gpa, generation, cached, None),
            event::Outcome::InFlight {
                token,
                gpa,
                generation,
                cached,
            } => (gpa, generation, cached, Some(token)),
            event::Outcome::Refused => {
                self.facts.refused += 1;
                self.refused(access);
                return;
            }
        };
        let route = Route {
            gpa,
            generation,
            cached,
        };
        let bytes = u64::from(access.length);
        let sum = if access.write {
            &mut self.facts.bytes_written
        } else {
            &mut self.facts.bytes_read
        };
        *sum = sum.saturating_add(bytes);
        self.went_through(access, route, token);
    }

    fn went_through(&mut self, access: Access, route: Route, token: Option<TokenId>) {
        let pfn = route.gpa.page();
        let page = self.pages.get(pfn);
        self.note(
            pfn,
            match token {
                Some(token) => Step::Issued {
                    context: access.context,
                    write: access.write,
                    token,
                },
                None => Step::Accessed {
                    context: access.context,
                    write: access.write,
                    count: 1,
                    last: access.time,
                },
            },
        );
        self.watch(access, route);
        self.check_claims(access, route);
        let stale = self.check_stale(access, route);
        let used = page
            .former_owner()
            .map(|owner| self.use_after_free(access, Some(route), pfn, Some(owner)));
        if let (Some(stale), Some(Some(used))) = (stale, used) {
            self.relate(stale, used);
            if let Some(left) = self.about(Kind::MissingInvalidation, page.former_owner()) {
                self.relate(left, stale);
                self.relate(left, used);
            }
        }
        if let Some(token) = token {
            self.facts.in_flight += 1;
            if self.flights.len() < MAX_FLIGHTS {
                let flight = Flight {
                    access,
                    route,
                    owner: Some(page.owner).filter(|_| page.state == PageState::Owned),
                    freed: None,
                };
                self.flights.insert(token.0, flight);
            }
        }
    }

    /// Did the access use a translation that the tables no longer hold?
    fn check_stale(&mut self, access: Access, route: Route) -> Option<usize> {
        if !route.cached || self.identity(access.device) {
            return None;
        }
        let domain = self.domain_of(access.device)?;
        let changed = match self.mappings.translate(domain, access.iova) {
            // Nothing to compare with.
            Translation::Unknown => return None,
            Translation::Present {
                pfn,
                read,
                write,
                changed,
            } => {
                let allowed = if access.write { write } else { read };
                let same = pfn.is_none_or(|pfn| pfn == route.gpa.page());
                if same && allowed {
                    return None;
                }
                changed
            }
            Translation::Absent { changed, .. } => changed,
        };
        let suspect = Suspect {
            access,
            route,
            domain,
            changed,
        };
        if changed < self.settled {
            return self.stale(suspect);
        }
        if self.suspects.len() < MAX_SUSPECTS {
            self.suspects.push(suspect);
        }
        None
    }

    /// A stale access, beyond doubt.
    pub(crate) fn stale(&mut self, suspect: Suspect) -> Option<usize> {
        let Suspect { access, route, .. } = suspect;
        let page = self.pages.get(route.gpa.page());
        let invalidated = self
            .invalidations
            .first_after(suspect.domain, access.iova, suspect.changed)
            .filter(|moment| moment.event < access.event)
            .map(|moment| moment.time);
        let known = self.invalidations.complete_since(suspect.changed);
        let case = Case::Stale {
            invalidated,
            known,
            freed: page.former_owner().is_some(),
        };
        self.find(
            (Kind::StaleIotlb, Outcome::WentThrough),
            access,
            (Some(route.gpa), Some(route.generation)),
            page.last_owner(),
            &case,
        )
    }

    fn use_after_free(
        &mut self,
        access: Access,
        route: Option<Route>,
        pfn: u64,
        owner: Option<u32>,
    ) -> Option<usize> {
        let gpa = Gpa(pfn << PAGE_SHIFT);
        let identity = self.identity(access.device);
        let generation = match route {
            // Nothing is mapped that could have one.
            _ if identity => None,
            Some(route) => Some(route.generation),
            None => self.histories.get(&pfn).and_then(|h| h.generation()),
        };
        let mapped = !identity && self.mappings.reaching(pfn).is_some();
        let (outcome, at) = match route {
            Some(route) => (Outcome::WentThrough, route.gpa),
            None => (Outcome::Refused, gpa),
        };
        let case = Case::UseAfterFree { identity, mapped };
        let at = Gpa(at.page_base().0 | access.iova.offset());
        let found = self.find(
            (Kind::DmaUseAfterFree, outcome),
            access,
            (Some(at), generation),
            owner,
            &case,
        )?;
        if mapped && let Some(left) = self.about(Kind::MappedAfterFree, owner) {
            self.relate(left, found);
        }
        Some(found)
    }

    fn refused(&mut self, access: Access) {
        let domain = self.domain_of(access.device);
        let translation = domain.map_or(Translation::Unknown, |d| {
            self.mappings.translate(d, access.iova)
        });
        let filled = domain.and_then(|domain| self.mappings.last_fill(domain, access.iova));
        let (before, allowed) = match translation {
            Translation::Absent { before, .. } => (before, None),
            Translation::Unknown => (filled, None),
            Translation::Present {
                pfn, read, write, ..
            } => (
                pfn.map(|pfn| Before { pfn, owner: None }),
                Some(if access.write { write } else { read }),
            ),
        };
        let refusal = self.take_fault(access);
        let reason = refusal.map(|refusal| refusal.reason);
        let led = match (allowed, before) {
            (None, None) => Led::Never,
            (None, Some(before)) => before.owner.map_or(Led::Otherwise, Led::To),
            (Some(_), _) => Led::Otherwise,
        };
        let mut found = None;
        let mut owned = None;
        if let Some((kind, owner, case)) = self.special(access, led, reason) {
            let physical = Gpa(access.iova.0);
            let page = matches!(case, Case::RawPhysical { .. }).then_some(physical);
            let at = (page, None);
            let step = Step::Refused {
                context: access.context,
                write: access.write,
            };
            // Elsewhere the page of that number is not what was meant.
            if page.is_some() {
                self.note(access.iova.page(), step);
            }
            found = Some(self.find((kind, Outcome::Refused), access, at, owner, &case));
        } else if let Some(before) = before {
            let step = Step::Refused {
                context: access.context,
                write: access.write,
            };
            self.note(before.pfn, step);
            let owner = before.owner.or(self.pages.get(before.pfn).last_owner());
            owned = owner;
            // An owner whose record is gone was freed, and its pages given on.
            let live = |id: u32| self.allocations.get(&id).is_some_and(|a| a.freed.is_none());
            if let Some(owner) = owner
                && !live(owner)
            {
                found = Some(self.use_after_free(access, None, before.pfn, Some(owner)));
            }
        }
        let found = found.unwrap_or_else(|| {
            // What the device may do says the leaf, if it is the leaf that
            // refused.
            let kind = if allowed == Some(false) && reason.is_none_or(|r| matches!(r, 5 | 6)) {
                Kind::DmaPermission
            } else {
                Kind::DmaUnmapped
            };
            let case = Case::Refused {
                mapped: allowed.is_some(),
                before: before.is_some(),
                physical: self.pages.get(access.iova.page()).state != PageState::Never,
                reason,
            };
            let page = before.map(|before| Gpa(before.pfn << PAGE_SHIFT | access.iova.offset()));
            // Told, for the driver may take the one address for the other.
            let same = || self.pages.get(access.iova.page()).last_owner();
            let owned = owned.or_else(same);
            self.find((kind, Outcome::Refused), access, (page, None), owned, &case)
        });
        let Some(found) = found else { return };
        self.note_refusal(access.iova.page(), found);
        if let Some(before) = before {
            self.note_claim(found, before.pfn);
        }
        match refusal {
            Some(refusal) => self.explain(found, refusal),
            None => self.unexplained = Some((access, found)),
        }
    }

    /// The fault of a refused access, if it was told first.
    fn take_fault(&mut self, access: Access) -> Option<Refusal> {
        let (context, device, iova, write, refusal) = self.fault.take()?;
        ((context, device, iova.page(), write)
            == (
                access.context,
                access.device,
                access.iova.page(),
                access.write,
            ))
            .then_some(refusal)
    }

    pub(crate) fn faulted(
        &mut self,
        context: ContextId,
        device: RequesterId,
        iova: Iova,
        write: bool,
        refusal: Refusal,
    ) {
        if let Some((access, found)) = self.unexplained.take()
            && (
                access.context,
                access.device,
                access.iova.page(),
                access.write,
            ) == (context, device, iova.page(), write)
        {
            self.explain(found, refusal);
            return;
        }
        self.fault = Some((context, device, iova, write, refusal));
    }

    /// The IOMMU said why it refused the access of a finding.
    fn explain(&mut self, index: usize, refusal: Refusal) {
        let Some(finding) = self.findings.get_mut(index) else {
            return;
        };
        let Some(access) = &mut finding.access else {
            return;
        };
        if access.refusal.is_none() {
            access.refusal = Some(refusal);
            if finding.stop.is_none() && is_iommu_fault(refusal.reason) {
                finding.stop = Some(verdict::expected_stop(access.iova, refusal));
            }
        }
    }

    pub(crate) fn landed(&mut self, token: TokenId, drained: bool) {
        let Some(flight) = self.flights.remove(&token.0) else {
            self.facts.contradictions += 1;
            return;
        };
        let pfn = flight.route.gpa.page();
        self.note(pfn, Step::Landed { token, drained });
        let (Some(freed), Some(owner)) = (flight.freed, flight.owner) else {
            return;
        };
        let access = flight.access;
        let identity = self.identity(access.device);
        let drain = self
            .domain_of(access.device)
            .filter(|_| !identity)
            .map(|domain| {
                self.invalidations
                    .drain((domain, access.iova), (access.event, freed), access.write)
            });
        let landing = Access {
            time: self.time,
            ..access
        };
        self.find(
            (Kind::FreeInFlight, Outcome::LandedLate),
            landing,
            (
                Some(flight.route.gpa),
                Some(flight.route.generation).filter(|_| !identity),
            ),
            Some(owner),
            &Case::FreeInFlight {
                issued: access.time,
                drain,
            },
        );
    }

    /// An allocation was freed, and the device may still get to a page of it:
    /// by a table entry, or by what the IOMMU has cached.
    pub(crate) fn left(
        &mut self,
        kind: Kind,
        id: u32,
        (pfn, (domain, iova)): (u64, (u16, Iova)),
        pages: u64,
    ) -> Option<usize> {
        let device = self
            .contexts
            .iter()
            .find(|(_, entry)| entry.present() && entry.domain() == domain)
            .map_or(self.default_device, |(&device, _)| device);
        if self.identity(device) {
            return None;
        }
        let access = Access {
            event: self.event,
            time: self.time,
            context: ContextId(0),
            device,
            iova,
            length: 0,
            write: false,
        };
        let case = match kind {
            Kind::MissingInvalidation => Case::MissingInvalidation,
            _ => Case::MappedAfterFree {
                kind: self.allocations.get(&id).map(|record| record.kind),
            },
        };
        let found = self.find(
            (kind, Outcome::NoAccess),
            access,
            (Some(Gpa(pfn << PAGE_SHIFT)), None),
            Some(id),
            &case,
        )?;
        if let Some(finding) = self.findings.get_mut(found) {
            finding.count = finding.count.saturating_sub(1).saturating_add(pages);
            if let Some(access) = &mut finding.access {
                access.domain = Some(domain);
            }
        }
        Some(found)
    }
}
