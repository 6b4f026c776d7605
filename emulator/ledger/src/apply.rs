//! What each event changes.

use crate::history::{Moment, Step};
use crate::mappings::{Change, Translation};
use crate::pages::{self, PageState};
use crate::spec::{RESET, SECURE_MODE};
use crate::text::short;
use crate::watch::MAX_PARTIAL;
use crate::{Allocation, Kind, Ledger};
use journal::event::{self, AllocationId, Event, Scope, StackId, Table, TrapKind};
use memory::{Gpa, Iova};
use std::collections::BTreeMap;

/// Names and stacks kept.
const MAX_INTERNED: usize = 1 << 16;
/// Characters of a name.
const MAX_NAME: usize = 200;
/// Addresses of a stack.
const MAX_FRAMES: usize = 64;
/// Pages with a history.
const MAX_HISTORIES: usize = 1 << 18;
/// Pages out of the quarantine whose histories are kept.
const MAX_RECYCLED: usize = 1 << 12;
/// Freed allocations without a page of their own that are known.
const MAX_DISPLACED: usize = 1 << 10;
/// Devices whose context entries are known.
const MAX_DEVICES: usize = 1 << 10;

impl Ledger {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Begin(begin) => {
                self.passthrough = begin.domain == "passthrough";
                self.forced = begin.domain == "isolation-forced";
                self.unisolated = self.passthrough || self.forced;
                self.default_device = begin.device;
            }
            Event::Name { id, text } if self.names.len() < MAX_INTERNED => {
                self.names.insert(id.0, short(text, MAX_NAME));
            }
            Event::Stack { id, frames } if self.stacks.len() < MAX_INTERNED => {
                let frames = frames.iter().take(MAX_FRAMES).copied().collect();
                self.stacks.insert(id.0, frames);
            }
            Event::End(end) => {
                self.settle();
                if let event::End::Hang { reason, stack } = end {
                    self.hung(reason, *stack);
                }
            }
            Event::Call { function, .. } => {
                self.facts.calls += 1;
                self.open.enter(false, *function);
            }
            Event::Return { function, .. } => {
                self.open.leave(false, *function);
                self.settle();
            }
            Event::Enter { routine, .. } => self.open.enter(true, *routine),
            Event::Leave { routine, .. } => self.open.leave(true, *routine),
            Event::Breach(breach) => self.breached(breach),
            Event::Trap { kind, stack, .. } => {
                self.facts.traps += 1;
                if *kind == TrapKind::MmioWrite {
                    self.commands.mmio_write(self.time, *stack);
                }
            }
            Event::DebugPrint { .. } => self.facts.prints += 1,
            Event::Choice { .. } => self.facts.choices += 1,
            Event::BugCheck(stop) => self.stopped(stop),
            Event::Allocate(allocation) => self.allocate(allocation),
            Event::Free { allocation, stack } => self.free(*allocation, *stack),
            Event::Recycle { pages } => self.recycle(pages),
            Event::TableWrite {
                address,
                new,
                table,
                ..
            } => self.table_write(*address, *new, *table),
            Event::Invalidate {
                scope,
                drain_reads,
                drain_writes,
                ..
            } => self.invalidate(*scope, *drain_reads, *drain_writes),
            Event::Fill {
                domain,
                iova,
                page,
                size,
                generation,
                ..
            } => self.fill(*domain, (*iova, *page), *size, *generation),
            Event::Flush { .. } => self.facts.frames += 1,
            Event::Caps { memory } => self.secure = memory & SECURE_MODE != 0,
            Event::ExclusiveAccess { begun } => self.exclusive = *begun,
            Event::MapMdl(mapping) => self.map_mdl(mapping),
            Event::UnmapMdl { handle, stack } => self.unmap_mdl(*handle, *stack),
            Event::Physical { gpa, stack, .. } => self.mdls.asked(gpa.0, (self.time, *stack)),
            _ => self.apply_device(event),
        }
    }

    /// The same of the device's events.
    fn apply_device(&mut self, event: &Event) {
        match event {
            Event::Notify {
                device,
                queue,
                available,
            } => {
                self.facts.notifications += 1;
                let late = self.commands.notify(self.time, *device, *queue, *available);
                for context in late {
                    self.learn(context);
                }
            }
            Event::Context {
                context,
                device,
                queue,
                position,
                head,
            } => {
                self.facts.commands += 1;
                self.commands
                    .minted(*context, *device, *queue, *position, *head);
            }
            Event::Command {
                context,
                name,
                detail,
                resource,
            } => {
                self.commands.named(*context, *name, detail, *resource);
                self.learn(*context);
            }
            Event::Backing {
                context,
                resource,
                segments,
            } => self.attached(*context, *resource, segments),
            Event::NoBacking { resource, .. } => self.backings.detach(*resource),
            Event::Queue {
                device,
                queue,
                areas,
            } => {
                let held = self.held(*device, areas);
                self.backings.enable(*device, *queue, held);
            }
            Event::Response { context, name, .. } => {
                self.commands.answered(*context, *name);
                self.learn(*context);
            }
            Event::Access {
                context,
                device,
                iova,
                length,
                write,
                outcome,
            } => {
                let access = crate::Access {
                    event: self.event,
                    time: self.time,
                    context: *context,
                    device: *device,
                    iova: *iova,
                    length: *length,
                    write: *write,
                };
                self.access(access, *outcome);
            }
            Event::Landed { token, drained } => self.landed(*token, *drained),
            Event::Cancelled { token } => {
                self.flights.remove(&token.0);
            }
            Event::Fault {
                context,
                device,
                iova,
                write,
                reason,
                recorded,
            } => {
                self.facts.faults += 1;
                self.facts.faults_unrecorded += u64::from(!recorded);
                let refusal = crate::Refusal {
                    reason: *reason,
                    recorded: *recorded,
                };
                self.faulted(*context, *device, *iova, *write, refusal);
            }
            // The IOMMU sends some too, under its own id.
            Event::Message {
                device, refused, ..
            } if *device == self.default_device && refused.is_none() => {
                self.facts.interrupts += 1;
            }
            Event::DeviceState { device, state }
                if self.names.get(&state.0).is_some_and(|name| name == RESET) =>
            {
                self.commands.reset(*device);
                self.backings.reset(*device);
            }
            _ => {}
        }
    }

    fn moment(&self, step: Step) -> Moment {
        Moment {
            time: self.time,
            event: self.event,
            step,
        }
    }

    /// Append to the history of a page that is or was the driver's.
    pub(crate) fn note(&mut self, pfn: u64, step: Step) {
        if self.pages.get(pfn).state == PageState::Never {
            return;
        }
        let moment = self.moment(step);
        if let Some(history) = self.histories.get_mut(&pfn) {
            history.push(moment);
        } else if self.histories.len() < MAX_HISTORIES {
            self.histories.entry(pfn).or_default().push(moment);
        }
    }

    fn note_mapping(&mut self, pfn: u64) {
        let Some((domain, iova)) = self.mappings.reaching(pfn) else {
            return;
        };
        if let Translation::Present { read, write, .. } = self.mappings.translate(domain, iova) {
            let step = Step::Mapped {
                domain,
                iova,
                read,
                write,
            };
            self.note(pfn, step);
        }
    }

    fn allocate(&mut self, new: &event::Allocation) {
        let id = new.id.0;
        self.facts.allocations += 1;
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

    fn free(&mut self, allocation: AllocationId, stack: StackId) {
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
            }
        }
        if let [Some(mapped), Some(cached)] = left {
            self.relate(mapped, cached);
        }
    }

    fn recycle(&mut self, runs: &[event::PageRun]) {
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

    fn table_write(&mut self, address: Gpa, new: u64, table: Table) {
        match table {
            Table::Context { device } => {
                if self.contexts.len() < MAX_DEVICES || self.contexts.contains_key(&device) {
                    let entry = self.contexts.entry(device).or_default();
                    // The entry is 16 bytes: the half goes by the address.
                    if address.0 & 8 == 0 {
                        entry.low = new;
                    } else {
                        entry.high = new;
                    }
                }
            }
            Table::SecondLevel {
                domain,
                level,
                iova,
            } => {
                self.facts.table_writes += 1;
                self.domains.insert(domain);
                let changes = self.mappings.write(
                    (domain, level, iova),
                    (address, new),
                    self.event,
                    &self.pages,
                    &mut self.budget,
                );
                for change in changes {
                    let iova = Iova(iova.0).page_base();
                    match change {
                        Change::Unmapped(pfn) => {
                            self.iotlb.cleared(domain, iova, pfn);
                            self.note(pfn, Step::Unmapped { domain, iova });
                        }
                        Change::Mapped(pfn, read, write) => {
                            self.iotlb.mapped(domain, iova, pfn);
                            let step = Step::Mapped {
                                domain,
                                iova,
                                read,
                                write,
                            };
                            self.note(pfn, step);
                        }
                    }
                }
            }
            Table::Root { .. } | Table::Queue | Table::Status => {}
        }
    }

    fn invalidate(&mut self, scope: Scope, drain_reads: bool, drain_writes: bool) {
        self.facts.invalidations += 1;
        self.invalidations
            .push(self.time, self.event, scope, drain_reads, drain_writes);
        self.iotlb.invalidated(scope);
        // The routine did invalidate: what came before was in time.
        self.suspects
            .retain(|suspect| !crate::history::covers(scope, suspect.domain, suspect.access.iova));
    }

    fn fill(&mut self, domain: u16, (iova, page): (Iova, Gpa), size: u64, generation: u32) {
        self.domains.insert(domain);
        if size != memory::PAGE_SIZE {
            return;
        }
        self.iotlb.filled(domain, iova);
        self.mappings
            .fill(domain, iova, page, self.event, &self.pages);
        let step = Step::Filled {
            domain,
            iova: iova.page_base(),
            generation,
        };
        self.note(page.page(), step);
    }

    /// A routine of Windows is over: accesses by translations that it should
    /// have invalidated are findings now.
    fn settle(&mut self) {
        self.settled = self.event;
        for suspect in std::mem::take(&mut self.suspects) {
            self.stale(suspect);
        }
    }

    /// More is known of a command: tell the findings that show it.
    fn learn(&mut self, context: event::ContextId) {
        if self.commands.get(context).is_none_or(|known| !known.found) {
            return;
        }
        let told = self.command(context);
        for finding in &mut self.findings {
            if let Some(access) = &mut finding.access
                && let Some(shown) = &mut access.command
                && shown.context == context
            {
                *shown = told.clone();
            }
        }
    }
}
