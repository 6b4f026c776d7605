//! What happened to a page, in a bounded list; and the invalidations, which
//! concern many pages and are kept once.

use journal::event::{AllocationId, ContextId, Scope, StackId, TokenId};
use memory::Iova;
use serde::Serialize;
use std::collections::VecDeque;

/// Moments kept from the beginning of a page's history.
const FIRST: usize = 6;
/// Moments kept from its end.
const LAST: usize = 10;
/// Invalidations kept.
const MAX_INVALIDATIONS: usize = 4096;

/// One thing that happened to a page or to an address that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It became part of an allocation.
    Allocated {
        /// Which.
        allocation: AllocationId,
    },
    /// A leaf entry that leads to it was written.
    Mapped {
        /// The domain of the table.
        domain: u16,
        /// From where.
        iova: Iova,
        /// May the device read?
        read: bool,
        /// May it write?
        write: bool,
    },
    /// A leaf entry that led to it was cleared or changed.
    Unmapped {
        /// The domain of the table.
        domain: u16,
        /// From where it had led.
        iova: Iova,
    },
    /// The IOMMU dropped what it had cached for the address.
    Invalidated {
        /// How much was dropped with it.
        scope: Scope,
        /// Reads in flight landed first.
        drain_reads: bool,
        /// Writes in flight landed first.
        drain_writes: bool,
    },
    /// The IOMMU cached a translation that leads to it.
    Filled {
        /// The domain of the context entry.
        domain: u16,
        /// From where.
        iova: Iova,
        /// Generation of the mapping.
        generation: u32,
    },
    /// The device accessed it, several times in a row.
    Accessed {
        /// The command of the first of these accesses.
        context: ContextId,
        /// To memory?
        write: bool,
        /// How many accesses.
        count: u64,
        /// When the last of them was, virtual nanoseconds.
        last: u64,
    },
    /// An access to it was issued and is in flight.
    Issued {
        /// For which command.
        context: ContextId,
        /// To memory?
        write: bool,
        /// Its token.
        token: TokenId,
    },
    /// An access in flight landed.
    Landed {
        /// Its token.
        token: TokenId,
        /// Did an invalidation make it land?
        drained: bool,
    },
    /// An access that would have led to it was refused.
    Refused {
        /// For which command.
        context: ContextId,
        /// To memory?
        write: bool,
    },
    /// An MDL that holds it was mapped for the device.
    MdlMapped {
        /// Handle of the mapping.
        handle: u64,
        /// Who mapped it.
        stack: StackId,
    },
    /// That mapping was taken back.
    MdlUnmapped {
        /// Handle of the mapping.
        handle: u64,
        /// Who unmapped it.
        stack: StackId,
    },
    /// Its allocation was freed.
    Freed {
        /// Which.
        allocation: AllocationId,
    },
    /// It left the quarantine.
    Recycled,
}

/// A [`Step`], and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// Virtual nanoseconds since the run began.
    pub time: u64,
    /// Number of the event in the journal, from 1: orders moments of one time.
    pub event: u32,
    /// What happened.
    pub step: Step,
}

/// What happened to a page: its first moments and its last ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    first: Vec<Moment>,
    last: VecDeque<Moment>,
    omitted: u64,
}

impl History {
    /// Append a moment; equal accesses in a row become one.
    pub(crate) fn push(&mut self, moment: Moment) {
        let latest = self.last.back_mut().or(self.first.last_mut());
        if let (
            Some(Moment {
                step: Step::Accessed {
                    write, count, last, ..
                },
                ..
            }),
            Step::Accessed {
                write: new_write, ..
            },
        ) = (latest, &moment.step)
            && write == new_write
        {
            *count = count.saturating_add(1);
            *last = moment.time;
            return;
        }
        if self.first.len() < FIRST {
            self.first.push(moment);
            return;
        }
        if self.last.len() == LAST {
            self.last.pop_front();
            self.omitted = self.omitted.saturating_add(1);
        }
        self.last.push_back(moment);
    }

    /// The generation of the latest translation that was cached since the
    /// page was last allocated.
    pub(crate) fn generation(&self) -> Option<u32> {
        let moments = self.last.iter().rev().chain(self.first.iter().rev());
        moments
            .take_while(|moment| !matches!(moment.step, Step::Allocated { .. }))
            .find_map(|moment| match moment.step {
                Step::Filled { generation, .. } => Some(generation),
                _ => None,
            })
    }

    /// All that is kept, with the first invalidation that covered the address
    /// after each unmapping.
    pub(crate) fn told(&self, log: &Invalidations) -> Told {
        let mut moments = Vec::new();
        let kept: Vec<&Moment> = self.first.iter().chain(&self.last).collect();
        let mut omitted_before = None;
        for (index, moment) in kept.iter().enumerate() {
            if index == self.first.len() && self.omitted > 0 {
                omitted_before = Some(moments.len());
            }
            moments.push((*moment).clone());
            if let Step::Unmapped { domain, iova } = moment.step
                && let Some(found) = log.first_after(domain, iova, moment.event)
            {
                moments.push(found);
            }
        }
        // The place of the gap goes by number, for the sort moves moments.
        let gap_at = omitted_before
            .and_then(|at| moments.get(at))
            .map(|m| m.event);
        moments.sort_by_key(|moment| moment.event);
        moments.dedup();
        let gap = gap_at.and_then(|event| moments.iter().position(|m| m.event >= event));
        Told {
            moments,
            omitted: self.omitted,
            gap,
        }
    }
}

/// The history of a page as a finding shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// What is known, in order.
    pub moments: Vec<Moment>,
    /// How many moments were left out.
    pub omitted: u64,
    /// They were left out before the moment with this index.
    pub gap: Option<usize>,
}

/// Did an invalidation wait for accesses in flight (DR, DW; VT-d 6.5.2.3)?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Drain {
    /// There was none.
    NotInvalidated,
    /// None did.
    No,
    /// One did.
    Yes,
}

#[derive(Clone, Debug)]
struct Invalidation {
    time: u64,
    event: u32,
    scope: Scope,
    drain_reads: bool,
    drain_writes: bool,
}

/// The latest invalidations of the IOTLB.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invalidations {
    log: VecDeque<Invalidation>,
    /// Up to this event some are missing.
    forgotten: u32,
}

impl Invalidations {
    /// Note one; those of the context cache concern no address.
    pub(crate) fn push(
        &mut self,
        time: u64,
        event: u32,
        scope: Scope,
        drain_reads: bool,
        drain_writes: bool,
    ) {
        if matches!(
            scope,
            Scope::ContextGlobal | Scope::ContextDomain(_) | Scope::ContextDevice(..)
        ) {
            return;
        }
        if self.log.len() == MAX_INVALIDATIONS
            && let Some(oldest) = self.log.pop_front()
        {
            self.forgotten = oldest.event;
        }
        self.log.push_back(Invalidation {
            time,
            event,
            scope,
            drain_reads,
            drain_writes,
        });
    }

    /// The first one after `event` that covers the address.
    pub(crate) fn first_after(&self, domain: u16, iova: Iova, event: u32) -> Option<Moment> {
        let from = self.log.partition_point(|entry| entry.event <= event);
        let found = self
            .log
            .range(from..)
            .find(|entry| covers(entry.scope, domain, iova))?;
        Some(Moment {
            time: found.time,
            event: found.event,
            step: Step::Invalidated {
                scope: found.scope,
                drain_reads: found.drain_reads,
                drain_writes: found.drain_writes,
            },
        })
    }

    /// How the invalidations of an address between two events drained.
    pub(crate) fn drain(
        &self,
        (domain, iova): (u16, Iova),
        (from, to): (u32, u32),
        write: bool,
    ) -> Drain {
        let start = self.log.partition_point(|entry| entry.event <= from);
        self.log
            .range(start..)
            .take_while(|entry| entry.event < to)
            .filter(|entry| covers(entry.scope, domain, iova))
            .map(|entry| {
                let drained = if write {
                    entry.drain_writes
                } else {
                    entry.drain_reads
                };
                if drained { Drain::Yes } else { Drain::No }
            })
            .max()
            .unwrap_or(Drain::NotInvalidated)
    }

    /// Are all invalidations after `event` known?
    pub(crate) fn complete_since(&self, event: u32) -> bool {
        event >= self.forgotten
    }
}

/// Does an invalidation of this scope drop the translation of the address?
pub(crate) fn covers(scope: Scope, domain: u16, iova: Iova) -> bool {
    match scope {
        Scope::Global => true,
        Scope::Domain(of) => of == domain,
        Scope::Pages {
            domain: of,
            iova: first,
            count,
        } => of == domain && iova.page().wrapping_sub(first.page()) < count,
        Scope::ContextGlobal | Scope::ContextDomain(_) | Scope::ContextDevice(..) => false,
    }
}
