//! What each event changes.

use crate::Ledger;
use crate::digest::Stack;
use crate::history::{Moment, Step};
use crate::injected::Injected;
use crate::mappings::{Change, Translation};
use crate::pages::PageState;
use crate::spec::{RESET, SECURE_MODE};
use crate::text::short;
use journal::event::{self, Event, NameId, Scope, StackId, Table, TrapKind};
use memory::{Gpa, Iova};

/// Names and stacks kept.
const MAX_INTERNED: usize = 1 << 16;
/// Characters of a name.
const MAX_NAME: usize = 200;
/// Addresses of a stack.
const MAX_FRAMES: usize = 64;
/// Pages with a history.
const MAX_HISTORIES: usize = 1 << 18;
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
                self.stacks.insert(id.0, Stack::new(frames));
            }
            Event::End(end) => {
                self.settle();
                if let event::End::Hang { reason, stack }
                | event::End::OutOfTime { reason, stack } = end
                {
                    self.hung(reason, *stack);
                }
            }
            Event::Call {
                function,
                arguments,
                irql,
                thread,
                stack,
            } => {
                self.facts.calls += 1;
                self.open.enter(false, *function);
                let name = self.names.get(&function.0).map_or("", String::as_str);
                let at = (self.time, *stack);
                self.clues
                    .call((*function, name), arguments, (*irql, *thread), at);
            }
            Event::Return { function, value } => {
                self.open.leave(false, *function);
                self.clues.returned(*function, *value);
                self.settle();
            }
            Event::Enter {
                routine,
                address,
                irql,
                thread,
                ..
            } => {
                self.open.enter(true, *routine);
                self.clues
                    .enter(*routine, *address, (*irql, *thread), self.time);
            }
            Event::Leave { routine, .. } => {
                self.open.leave(true, *routine);
                self.clues.leave(*routine);
            }
            Event::Breach(breach) => self.breached(breach),
            Event::Trap {
                kind, value, stack, ..
            } => {
                self.facts.traps += 1;
                match kind {
                    TrapKind::MmioWrite => self.commands.mmio_write(self.time, *stack),
                    TrapKind::Irql => self.clues.set_irql(*value, (self.time, *stack)),
                    _ => {}
                }
            }
            Event::DebugPrint { .. } => self.facts.prints += 1,
            Event::Choice { .. } => self.facts.choices += 1,
            Event::Injected {
                name,
                site,
                outcome,
                ..
            } => self.injections.push(Injected {
                time: self.time,
                name: short(name, MAX_NAME),
                site: short(site, MAX_NAME),
                outcome: short(outcome, MAX_NAME),
            }),
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
            Event::Map {
                iova,
                length,
                target,
                read,
                write,
                ..
            } => self.mirror_map((*iova, *length), *target, (*read, *write)),
            Event::Unmap { iova, length, .. } => self.mirror_unmap(*iova, *length),
            Event::Claim(claim) => self.claim(claim),
            Event::Flush { .. } => self.facts.frames += 1,
            Event::Caps { memory } => self.secure = memory & SECURE_MODE != 0,
            Event::ExclusiveAccess { begun } => self.exclusive_access(*begun),
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
                let at = self.commands.written();
                let at = at.unwrap_or((self.time, StackId(0)));
                self.backings.enable((*device, *queue), held, *areas, at);
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

    /// The text of a name, or nothing.
    pub(crate) fn named(&self, id: NameId) -> String {
        self.names.get(&id.0).cloned().unwrap_or_default()
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
        if self.terse || self.pages.get(pfn).state == PageState::Never {
            return;
        }
        let moment = self.moment(step);
        if let Some(history) = self.histories.get_mut(&pfn) {
            history.push(moment);
        } else if self.histories.len() < MAX_HISTORIES {
            self.histories.entry(pfn).or_default().push(moment);
        }
    }

    pub(crate) fn note_mapping(&mut self, pfn: u64) {
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

    pub(crate) fn table_write(&mut self, address: Gpa, new: u64, table: Table) {
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
    pub(crate) fn settle(&mut self) {
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
