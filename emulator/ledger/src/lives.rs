//! Allocations, from birth to free and beyond.

use crate::history::Step;
use crate::pages::{self, PageState};
use crate::{Allocation, Kind, Ledger};
use journal::event::{self, AllocationId, StackId};
use std::collections::BTreeMap;

/// Pages out of the quarantine whose histories are kept.
const MAX_RECYCLED: usize = 1 << 12;
/// Freed allocations without a page of their own that are known.
const MAX_DISPLACED: usize = 1 << 10;
/// Partial allocations known at a time.
const MAX_PARTIAL: usize = 1 << 12;

impl Ledger {
    pub(crate) fn allocate(&mut self, new: &event::Allocation) {
        let id = new.id.0;
        self.facts.allocations += 1;
        self.clues.made(new.address);
        let named = pages::count(&new.pages);
        self.facts.pages = self.facts.pages.saturating_add(named);
        if self.allocations.contains_key(&id) {
            self.facts.contradictions += 1;
            return;
        }
        self.facts.live_allocations += 1;
        self.facts.live_pages = self.facts.live_pages.saturating_add(named);
        let mut marked = 0;
        let mut lost = BTreeMap::<u32, u64>::new();
        let mut remaining = 0;
        for pfn in pages::frames(&new.pages, self.budget) {
            let Some(page) = self.pages.get_mut(pfn) else {
                break;
            };
            marked += 1;
            match page.last_owner() {
                Some(owner) if owner == id => {}
                former => {
                    remaining += 1;
                    if let Some(former) = former {
                        *lost.entry(former).or_default() += 1;
                    }
                }
            }
            page.owner = id;
            page.state = PageState::Owned;
            page.generation = page.generation.saturating_add(1);
            let fresh = !self.histories.contains_key(&pfn);
            self.note(pfn, Step::Allocated { allocation: new.id });
            // The tables may have been written first, which went unnoted for
            // a page that was nobody's.
            if fresh {
                self.note_mapping(pfn);
            }
        }
        self.budget = self.budget.saturating_sub(marked);
        self.facts.unwatched_pages = self
            .facts
            .unwatched_pages
            .saturating_add(named.saturating_sub(marked));
        for (owner, pages) in lost {
            if let Some(former) = self.allocations.get_mut(&owner) {
                former.remaining = former.remaining.saturating_sub(pages);
                if former.remaining == 0
                    && former.freed.is_some()
                    && let Some(former) = self.allocations.remove(&owner)
                {
                    if self.displaced.len() >= MAX_DISPLACED {
                        self.displaced.pop_first();
                    }
                    self.displaced.insert(owner, former);
                }
            }
        }
        if new.requested > named && self.partials.len() < MAX_PARTIAL {
            self.partials.insert(id);
        }
        self.allocations.insert(
            id,
            Allocation {
                kind: new.kind,
                requested: new.requested,
                handle: new.handle,
                address: new.address,
                runs: new.pages.clone(),
                allocated: (self.time, new.stack),
                freed: None,
                remaining,
            },
        );
    }

    pub(crate) fn free(&mut self, allocation: AllocationId, stack: StackId) {
        let id = allocation.0;
        let time = self.time;
        let Some(record) = self.allocations.get_mut(&id) else {
            self.facts.contradictions += 1;
            return;
        };
        if record.freed.is_some() {
            self.facts.contradictions += 1;
            return;
        }
        record.freed = Some((time, stack));
        let runs = std::mem::take(&mut record.runs);
        self.facts.live_allocations = self.facts.live_allocations.saturating_sub(1);
        self.facts.live_pages = self.facts.live_pages.saturating_sub(pages::count(&runs));
        self.partials.remove(&id);
        let (mut mapped, mut cached) = ((None, 0), (None, 0));
        let mut done = 0;
        for pfn in pages::frames(&runs, self.budget) {
            done += 1;
            let page = self.pages.get(pfn);
            if page.owner != id || page.state != PageState::Owned {
                continue;
            }
            if let Some(page) = self.pages.get_mut(pfn) {
                page.state = PageState::Freed;
            }
            self.note(pfn, Step::Freed { allocation });
            if let Some(at) = self.mappings.reaching(pfn) {
                mapped = (mapped.0.or(Some((pfn, at))), mapped.1 + 1);
            }
            if let Some(at) = self.iotlb.may_lead_to(pfn) {
                cached = (cached.0.or(Some((pfn, at))), cached.1 + 1);
            }
        }
        self.budget = self.budget.saturating_sub(done);
        if let Some(record) = self.allocations.get_mut(&id) {
            record.runs = runs;
        }
        self.settle();
        let event = self.event;
        self.budget = self.budget.saturating_sub(self.flights.len() as u64);
        for flight in self.flights.values_mut() {
            if flight.owner == Some(id) && flight.freed.is_none() {
                flight.freed = Some(event);
            }
        }
        let mut left = [None; 2];
        let kinds = [Kind::MappedAfterFree, Kind::MissingInvalidation];
        for (index, (kind, (first, pages))) in kinds.into_iter().zip([mapped, cached]).enumerate() {
            if let (Some((pfn, at)), Some(place)) = (first, left.get_mut(index)) {
                *place = self.left(kind, id, (pfn, at), pages);
                // The rule that was broken with it.
                if let Some(left) = *place
                    && let Some(broken) = self.about(Kind::MdlUseAfterFree, Some(id))
                {
                    self.relate(left, broken);
                }
            }
        }
        if let [Some(mapped), Some(cached)] = left {
            self.relate(mapped, cached);
        }
    }

    pub(crate) fn recycle(&mut self, runs: &[event::PageRun]) {
        let mut done = 0;
        for pfn in pages::frames(runs, self.budget) {
            done += 1;
            if self.pages.get(pfn).state != PageState::Freed {
                continue;
            }
            if let Some(page) = self.pages.get_mut(pfn) {
                page.state = PageState::Recycled;
            }
            // Histories of the latest are kept: a device that comes too late
            // often comes soon after. Of all, owner and free remain.
            self.note(pfn, Step::Recycled);
            if self.recycled.len() == MAX_RECYCLED
                && let Some(oldest) = self.recycled.pop_front()
                && self.pages.get(oldest).state == PageState::Recycled
            {
                self.histories.remove(&oldest);
            }
            self.recycled.push_back(pfn);
        }
        self.budget = self.budget.saturating_sub(done);
    }
}
