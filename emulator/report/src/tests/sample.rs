//! Journals to draw: a driver that frees a framebuffer which a resource still
//! refers to, against several operating systems.

use journal::Record;
use journal::event::{
    Allocation, AllocationId, AllocationKind, Begin, BugCheck, Certainty, ContextId, End, Event,
    NameId, Outcome, PageRun, Scope, StackId, Table, TokenId, TrapKind,
};
use memory::{Gpa, Iova, Pfn, RequesterId};
use symbols::{Module, Symbolizer};

const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
pub(crate) const BASE: u64 = 0xffff_f800_1000_0000;
const PAGE: u64 = 0x1a40;
const ADDRESS: u64 = 0x4000_0000;

#[derive(Clone, Default)]
pub(crate) struct Sample(pub(crate) Vec<Record>);

impl Sample {
    pub(crate) fn new() -> Self {
        let mut sample = Self::default().then(Event::Begin(Begin {
            version: "0.1.0".into(),
            driver: "dmasan-gpu.sys".into(),
            domain: "isolation".into(),
            scenario: "default".into(),
            device: DEVICE,
            ..Begin::default()
        }));
        for (id, text) in [(1, "TRANSFER_TO_HOST_2D"), (2, "RESOURCE_ATTACH_BACKING")] {
            sample = sample.then(Event::Name {
                id: NameId(id),
                text: text.into(),
            });
        }
        for (id, first) in [(1, 0x1120), (2, 0x2230), (3, 0x3340)] {
            let frames = vec![BASE + first, BASE + 0x4450, BASE + 0x5560];
            sample = sample.then(Event::Stack {
                id: StackId(id),
                frames,
            });
        }
        sample
    }

    pub(crate) fn then(mut self, event: Event) -> Self {
        let time = 10_000 + self.0.len() as u64 * 1_250;
        self.0.push(Record { time, event });
        self
    }

    pub(crate) fn print(self, text: &str) -> Self {
        self.then(Event::DebugPrint { text: text.into() })
    }

    pub(crate) fn end(self, end: End) -> Vec<Record> {
        self.then(Event::End(end)).0
    }

    /// The leaf entry of one page of the framebuffer is written.
    pub(crate) fn entry_of(self, index: u64, new: u64) -> Self {
        self.then(Event::TableWrite {
            address: Gpa(0x10_0000 + index * 8),
            old: 0,
            new,
            table: Table::SecondLevel {
                domain: 1,
                level: 1,
                iova: Iova(ADDRESS + index * 0x1000),
            },
        })
    }

    /// The frames of the framebuffer are allocated and mapped again, and the
    /// resource that had them is read.
    pub(crate) fn again(self) -> Self {
        self.then(Event::Allocate(Allocation {
            id: AllocationId(6),
            kind: AllocationKind::DxgkMdl,
            handle: 0x46,
            address: 0xffff_8000_0006_2000,
            pages: vec![PageRun {
                first: Pfn(PAGE),
                count: 12,
            }],
            requested: 12,
            stack: StackId(2),
        }))
        .entries(true)
        .access(1, 1, Self::went(1, false))
    }

    pub(crate) fn entries(mut self, map: bool) -> Self {
        for index in 0..12 {
            let new = if map { (PAGE + index) << 12 | 3 } else { 0 };
            self = self.entry_of(index, new);
        }
        self
    }

    fn command(self, context: u32, name: u32, detail: &str) -> Self {
        self.then(Event::Trap {
            kind: TrapKind::MmioWrite,
            address: 0xffff_f900_0000_3000,
            value: 0,
            size: 2,
            stack: StackId(3),
        })
        .then(Event::Notify {
            device: DEVICE,
            queue: 0,
            available: Some(context as u16),
        })
        .then(Event::Context {
            context: ContextId(context),
            device: DEVICE,
            queue: 0,
            position: context as u16 - 1,
            head: 0,
        })
        .then(Event::Command {
            context: ContextId(context),
            name: NameId(name),
            detail: detail.into(),
            resource: None,
        })
    }

    fn access(self, context: u32, page: u64, outcome: Outcome) -> Self {
        self.then(Event::Access {
            context: ContextId(context),
            device: DEVICE,
            iova: Iova(ADDRESS + page * 0x1000),
            length: 4096,
            write: false,
            outcome,
        })
    }

    fn went(page: u64, cached: bool) -> Outcome {
        Outcome::Done {
            gpa: Gpa((PAGE + page) << 12),
            generation: 1,
            cached,
        }
    }

    /// Allocated, mapped, used.
    pub(crate) fn used(self) -> Self {
        self.then(Event::Allocate(Allocation {
            id: AllocationId(1),
            kind: AllocationKind::DxgkMdl,
            handle: 0x41,
            address: 0xffff_8000_0001_2000,
            pages: vec![PageRun {
                first: Pfn(PAGE),
                count: 12,
            }],
            requested: 12,
            stack: StackId(1),
        }))
        .entries(true)
        .command(1, 1, "resource 1, 64x192 at 0,0")
        .then(Event::Fill {
            domain: 1,
            iova: Iova(ADDRESS + 0x1000),
            page: Gpa((PAGE + 1) << 12),
            size: 4096,
            entry: Gpa(0x10_0008),
            value: (PAGE + 1) << 12 | 3,
            generation: 1,
        })
        .access(1, 1, Self::went(1, false))
        .access(1, 1, Self::went(1, true))
    }

    pub(crate) fn freed(self, invalidated: bool) -> Self {
        let mut sample = self.entries(false);
        if invalidated {
            sample = sample.then(Event::Invalidate {
                scope: Scope::Domain(1),
                drain_reads: true,
                drain_writes: true,
                dropped: 12,
            });
        }
        sample.then(Event::Free {
            allocation: AllocationId(1),
            stack: StackId(2),
        })
    }

    pub(crate) fn faulting(self) -> Self {
        let mut sample = self.command(2, 1, "resource 1, 64x192 at 0,0");
        for page in 1..4 {
            sample = sample.access(2, page, Outcome::Refused).then(Event::Fault {
                context: ContextId(2),
                device: DEVICE,
                iova: Iova(ADDRESS + page * 0x1000),
                write: false,
                reason: 6,
                recorded: page == 1,
            });
        }
        sample
    }

    /// An access to the driver's own memory, refused; with its table entries
    /// in place or not.
    pub(crate) fn unmapped_while_owned(self, mapped: bool, reason: u8) -> Self {
        let sample = if mapped { self } else { self.entries(false) };
        sample
            .then(Event::Fault {
                context: ContextId(1),
                device: DEVICE,
                iova: Iova(ADDRESS + 0x1000),
                write: false,
                reason,
                recorded: reason < 0xf0,
            })
            .access(1, 1, Outcome::Refused)
    }

    pub(crate) fn bug_check(self, code: u32, parameters: [u64; 4], reason: &str) -> Self {
        self.then(Event::BugCheck(BugCheck {
            rule: None,
            subject: Default::default(),
            finding: None,
            code,
            parameters,
            certainty: Certainty::Inferred,
            reason: reason.into(),
            stack: StackId(2),
            continued: false,
        }))
    }

    /// Use after free, refused; Windows stops.
    pub(crate) fn use_after_free() -> Vec<Record> {
        Self::new()
            .used()
            .freed(true)
            .faulting()
            .print("vidpn: commit, mode 64x48\n")
            .bug_check(
                0xe6,
                [0x26, 0, ADDRESS + 0x1000, 6],
                "an IOMMU fault stops Windows (bug check reference, 0xE6)",
            )
            .end(End::BugCheck)
    }

    /// The same, but the IOTLB was never invalidated.
    pub(crate) fn stale() -> Vec<Record> {
        Self::new()
            .used()
            .freed(false)
            .command(2, 1, "resource 1, 64x192 at 0,0")
            .access(2, 1, Self::went(1, true))
            .end(End::Completed)
    }

    /// An access that lands after the free.
    pub(crate) fn late() -> Vec<Record> {
        let token = TokenId(7);
        let outcome = Outcome::InFlight {
            token,
            gpa: Gpa((PAGE + 1) << 12),
            generation: 1,
            cached: true,
        };
        Self::new()
            .used()
            .access(1, 1, outcome)
            .freed(false)
            .then(Event::Landed {
                token,
                drained: false,
            })
            .end(End::Completed)
    }

    pub(crate) fn healthy() -> Vec<Record> {
        Self::new()
            .used()
            .then(Event::Flush {
                scanout: 0,
                width: 64,
                height: 48,
                crc: 1,
            })
            .freed(true)
            .end(End::Completed)
    }
}

pub(crate) fn symbolizer() -> Symbolizer {
    let mut symbolizer = Symbolizer::new();
    symbolizer.add_module(Module {
        name: "dmasan-gpu.sys".into(),
        base: BASE,
        size: 0x10000,
        symbols: None,
    });
    symbolizer
}
