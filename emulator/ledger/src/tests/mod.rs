#![allow(clippy::unwrap_used)]

mod breach;
mod claims;
mod clues;
mod commands;
mod digest;
mod findings;
mod injected;
mod mirror;
mod properties;
mod silence;
mod stale;
mod watch;

use crate::{AccessFacts, Finding, Kind, Ledger};
use journal::Record;
use journal::event::{
    self, Allocation, AllocationId, AllocationKind, Begin, ContextId, End, Event, NameId, Outcome,
    PageRun, Scope, StackId, Table, TokenId, TrapKind,
};
use memory::{Gpa, Iova, Pfn, RequesterId};

pub(crate) const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
pub(crate) const DOMAIN: u16 = 1;
/// A page of the driver's, and the address that the device knows it by.
pub(crate) const PAGE: u64 = 0x1234;
pub(crate) const ADDRESS: u64 = 0x7000_0000;

/// The access of a finding that is about one.
pub(crate) fn at(finding: &Finding) -> &AccessFacts {
    finding.access.as_ref().unwrap()
}

/// A run, told event by event, a virtual microsecond apart.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) records: Vec<Record>,
    token: u32,
}

impl Run {
    pub(crate) fn isolated() -> Self {
        Self::in_domain("isolation")
    }

    pub(crate) fn in_domain(domain: &str) -> Self {
        let begin = Begin {
            domain: domain.into(),
            device: DEVICE,
            ..Begin::default()
        };
        let mut run = Self::default().then(Event::Begin(begin));
        for (id, text) in [(0, "TRANSFER_TO_HOST_2D"), (1, "OK_NODATA"), (2, "Free")] {
            run = run.then(Event::Name {
                id: NameId(id),
                text: text.into(),
            });
        }
        for id in 1..=9 {
            run = run.then(Event::Stack {
                id: StackId(id),
                frames: vec![0xffff_f800_0000_0000 + u64::from(id), 0xffff_f800_0000_1000],
            });
        }
        run
    }

    pub(crate) fn then(mut self, event: Event) -> Self {
        let time = self.records.len() as u64 * 1000;
        self.records.push(Record { time, event });
        self
    }

    pub(crate) fn allocate(self, id: u32, first: u64, count: u64) -> Self {
        self.then(Event::Allocate(Allocation {
            id: AllocationId(id),
            kind: AllocationKind::DxgkMdl,
            handle: 0x40 + u64::from(id),
            address: 0xffff_8000_0000_0000,
            pages: vec![PageRun {
                first: Pfn(first),
                count,
            }],
            requested: count,
            stack: StackId(1),
        }))
    }

    pub(crate) fn entry(self, level: u8, iova: u64, new: u64) -> Self {
        let index = (iova >> (12 + 9 * u32::from(level - 1))) & 511;
        self.then(Event::TableWrite {
            address: Gpa((0x10_0000 + u64::from(level) * 0x1000) + index * 8),
            old: 0,
            new,
            table: Table::SecondLevel {
                domain: DOMAIN,
                level,
                iova: Iova(iova),
            },
        })
    }

    pub(crate) fn map(self, iova: u64, page: u64) -> Self {
        self.entry(1, iova, page << 12 | 3)
    }

    pub(crate) fn unmap(self, iova: u64) -> Self {
        self.entry(1, iova, 0)
    }

    pub(crate) fn invalidate(self, drain: bool) -> Self {
        self.invalidate_scope(Scope::Domain(DOMAIN), drain)
    }

    pub(crate) fn invalidate_scope(self, scope: Scope, drain: bool) -> Self {
        self.then(Event::Invalidate {
            scope,
            drain_reads: drain,
            drain_writes: drain,
            dropped: 1,
        })
    }

    pub(crate) fn free(self, id: u32) -> Self {
        self.then(Event::Free {
            allocation: AllocationId(id),
            stack: StackId(2),
        })
        .returned()
    }

    pub(crate) fn returned(self) -> Self {
        self.then(Event::Return {
            function: NameId(2),
            value: 0,
        })
    }

    /// A doorbell from the stack `stack`.
    pub(crate) fn doorbell(self, stack: u32, available: Option<u16>) -> Self {
        self.then(Event::Trap {
            kind: TrapKind::MmioWrite,
            address: 0xffff_f900_0000_0000,
            value: 0,
            size: 2,
            stack: StackId(stack),
        })
        .then(Event::Notify {
            device: DEVICE,
            queue: 0,
            available,
        })
    }

    pub(crate) fn take(self, context: u32, position: u16) -> Self {
        self.then(Event::Context {
            context: ContextId(context),
            device: DEVICE,
            queue: 0,
            position,
            head: 3,
        })
    }

    pub(crate) fn name(self, context: u32) -> Self {
        self.then(Event::Command {
            context: ContextId(context),
            name: NameId(0),
            detail: "resource 1".into(),
            resource: None,
        })
    }

    /// Doorbell, command and its name.
    pub(crate) fn command(self, context: u32, stack: u32) -> Self {
        let position = context as u16 - 1;
        self.doorbell(stack, Some(context as u16))
            .take(context, position)
            .name(context)
    }

    pub(crate) fn access(self, context: u32, iova: u64, outcome: Outcome) -> Self {
        self.then(Event::Access {
            context: ContextId(context),
            device: DEVICE,
            iova: Iova(iova),
            length: 64,
            write: false,
            outcome,
        })
    }

    pub(crate) fn done(self, context: u32, iova: u64, page: u64, cached: bool) -> Self {
        self.access(
            context,
            iova,
            Outcome::Done {
                gpa: Gpa(page << 12 | iova & 0xfff),
                generation: 1,
                cached,
            },
        )
    }

    pub(crate) fn refused(self, context: u32, iova: u64) -> Self {
        self.access(context, iova, Outcome::Refused)
            .then(Event::Fault {
                context: ContextId(context),
                device: DEVICE,
                iova: Iova(iova),
                write: false,
                reason: 6,
                recorded: true,
            })
    }

    pub(crate) fn issue(mut self, context: u32, iova: u64, page: u64) -> Self {
        self.token += 1;
        let token = TokenId(self.token);
        self.access(
            context,
            iova,
            Outcome::InFlight {
                token,
                gpa: Gpa(page << 12),
                generation: 1,
                cached: true,
            },
        )
    }

    pub(crate) fn land(self, drained: bool) -> Self {
        let token = TokenId(self.token);
        self.then(Event::Landed { token, drained })
    }

    pub(crate) fn bug_check(self, iova: u64, continued: bool) -> Self {
        self.then(Event::BugCheck(event::BugCheck {
            rule: None,
            subject: Default::default(),
            finding: None,
            code: 0xe6,
            parameters: [0x26, 0, iova, 6],
            certainty: event::Certainty::Inferred,
            reason: "a fault".into(),
            stack: StackId(0),
            continued,
        }))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::new();
        for record in &self.records {
            ledger.push(record);
        }
        ledger
    }

    pub(crate) fn end(self) -> Ledger {
        self.then(Event::End(End::Completed)).ledger()
    }

    pub(crate) fn findings(self) -> Vec<Finding> {
        self.end().findings().to_vec()
    }

    /// Before the run is over.
    pub(crate) fn findings_so_far(&self) -> Vec<Finding> {
        self.ledger().findings().to_vec()
    }

    pub(crate) fn kinds(self) -> Vec<Kind> {
        self.findings().iter().map(|finding| finding.kind).collect()
    }

    /// An allocation of four pages, mapped at [`ADDRESS`], used by a command.
    pub(crate) fn used(self) -> Self {
        let mut run = self.allocate(1, PAGE, 4);
        for index in 0..4 {
            run = run.map(ADDRESS + index * 0x1000, PAGE + index);
        }
        run.command(1, 3).done(1, ADDRESS, PAGE, false)
    }

    /// Clear the entries of [`Run::used`].
    pub(crate) fn cleared(mut self) -> Self {
        for index in 0..4 {
            self = self.unmap(ADDRESS + index * 0x1000);
        }
        self
    }
}
