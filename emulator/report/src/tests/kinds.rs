//! One sample of every kind: does its report say what happened, where, and
//! what to change?

use super::*;
use crate::{PAGES, json, junit, sarif, svg};
use journal::event::{
    Allocation, AllocationId, AllocationKind, Breach, Certainty, ContextId, End, Event, MdlMapping,
    NameId, Outcome, PageRun, Scope, Segment, StackId, Subject,
};
use ledger::Kind;
use memory::{Gpa, Iova, Pfn, RequesterId};

const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
/// A page of the pool, and the addresses of the sample's framebuffer.
const POOL: u64 = 0x3000;
const ADDRESS: u64 = 0x4000_0000;
const FRAME: u64 = 0x1a40;

fn plain_memory(sample: Sample, given: u64, requested: u64) -> Sample {
    sample.then(Event::Allocate(Allocation {
        id: AllocationId(5),
        kind: AllocationKind::Pool,
        handle: 0,
        address: 0xffff_8000_0005_0000,
        pages: vec![PageRun {
            first: Pfn(POOL),
            count: given,
        }],
        requested,
        stack: StackId(1),
    }))
}

fn access(sample: Sample, context: u32, iova: u64, outcome: Outcome) -> Sample {
    let sample = sample.then(Event::Access {
        context: ContextId(context),
        device: DEVICE,
        iova: Iova(iova),
        length: 64,
        write: true,
        outcome,
    });
    match outcome {
        Outcome::Refused => sample.then(Event::Fault {
            context: ContextId(context),
            device: DEVICE,
            iova: Iova(iova),
            write: true,
            reason: 5,
            recorded: true,
        }),
        _ => sample,
    }
}

fn through(iova: u64) -> Outcome {
    Outcome::Done {
        gpa: Gpa((FRAME << 12) + (iova - ADDRESS)),
        generation: 1,
        cached: true,
    }
}

/// A rule broken in DxgkCbFreePagesFromMdl.
fn broken(id: &str, status: Option<u32>) -> Vec<Record> {
    Sample::new()
        .used()
        .freed(true)
        .then(Event::Name {
            id: NameId(9),
            text: "DxgkCbFreePagesFromMdl".into(),
        })
        .then(Event::Call {
            function: NameId(9),
            arguments: vec![0x41],
            irql: 0,
            thread: 0,
            stack: StackId(3),
        })
        .then(Event::Breach(Breach {
            rule: "a-rule".into(),
            finding: id.into(),
            reason: "it was done so. It must be done otherwise (the routine's page)".into(),
            certainty: Certainty::Inferred,
            status,
            subject: Subject {
                allocation: Some(AllocationId(1)),
                address: 0x41,
            },
            stack: StackId(3),
        }))
        .end(End::Completed)
}

fn reused() -> Vec<Record> {
    let sample = Sample::new().used().then(Event::Command {
        context: ContextId(1),
        name: NameId(2),
        detail: String::new(),
        resource: Some(3),
    });
    sample
        .then(Event::Backing {
            context: ContextId(1),
            resource: 3,
            segments: vec![Segment {
                iova: Iova(ADDRESS),
                length: 0xc000,
            }],
        })
        .freed(true)
        .again()
        .end(End::Completed)
}

fn sample(kind: Kind) -> Vec<Record> {
    let refused =
        |sample: Sample, iova| access(sample, 1, iova, Outcome::Refused).end(End::Completed);
    let used = || Sample::new().used();
    match kind {
        Kind::DmaUseAfterFree => Sample::use_after_free(),
        Kind::DmaUnmapped => {
            let sample = plain_memory(used(), 1, 1)
                .then(Event::MapMdl(MdlMapping {
                    handle: 0x77,
                    mdl: 0xffff_8000_0006_0000,
                    pages: vec![PageRun {
                        first: Pfn(FRAME),
                        count: 12,
                    }],
                    write: true,
                    stack: StackId(1),
                }))
                .entries(false)
                .then(Event::Invalidate {
                    scope: Scope::Domain(1),
                    drain_reads: true,
                    drain_writes: true,
                    dropped: 1,
                })
                .then(Event::UnmapMdl {
                    handle: 0x77,
                    stack: StackId(2),
                });
            refused(sample, ADDRESS)
        }
        Kind::DmaPermission => refused(used().entry_of(0, FRAME << 12 | 1), ADDRESS),
        Kind::DmaRawPhysicalAddress => refused(
            plain_memory(used(), 1, 1).then(Event::Physical {
                address: 0xffff_8000_0005_0000,
                gpa: Gpa(POOL << 12),
                stack: StackId(2),
            }),
            POOL << 12,
        ),
        Kind::DmaReusedMemory => reused(),
        Kind::DmaInterruptRange => refused(used(), 0xfee0_0040),
        Kind::StaleIotlb | Kind::MissingInvalidation => Sample::stale(),
        Kind::MappedAfterFree => used()
            .then(Event::Free {
                allocation: AllocationId(1),
                stack: StackId(2),
            })
            .end(End::Completed),
        Kind::FreeInFlight => Sample::late(),
        Kind::PartialAllocationIgnored => {
            refused(plain_memory(used(), 2, 8), 0xffff_ffff_ffff_f000)
        }
        Kind::ExclusiveAccessViolation => access(
            used().then(Event::ExclusiveAccess { begun: true }),
            1,
            ADDRESS,
            through(ADDRESS),
        )
        .end(End::Completed),
        Kind::Hang => used().end(End::Hang {
            reason: "it waits for an event that nobody sets".into(),
            stack: StackId(2),
        }),
        Kind::DoubleFree | Kind::ForeignMdl => broken(kind.id(), Some(0xc000_0008)),
        kind => broken(kind.id(), None),
    }
}

/// What the text must say beyond what every finding says.
fn says(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::DmaUseAfterFree => &["freed here", "wait for the answer", "0xE6"],
        Kind::DmaUnmapped => &[
            "MDL 0xffff800000060000, mapped with handle 0x77",
            "unmapped for the device here",
            "MDL unmapped",
            "handle 0x77 by dmasan-gpu.sys+0x2230",
        ],
        Kind::DmaPermission => &[
            "the mapping does not allow it",
            "map the memory with the rights",
        ],
        Kind::DmaRawPhysicalAddress => &[
            "the driver asked for the physical address here",
            "write refused",
            "DxgkCbMapMdlToIoMmu",
        ],
        Kind::DmaReusedMemory => &[
            "allocated again here",
            "by now part of allocation 6",
            "detach",
        ],
        Kind::DmaInterruptRange => &["0xFEE00000"],
        Kind::StaleIotlb => &["cached translation"],
        Kind::MissingInvalidation => &[
            "the operating system: the table entry was cleared",
            "DR and DW",
        ],
        Kind::MappedAfterFree => &["(12 pages of it)", "clear every leaf entry"],
        Kind::FreeInFlight => &["landed in memory that was freed meanwhile"],
        Kind::CpuUseAfterFree => &["used here", "freed here", "free or unmap the memory last"],
        Kind::DoubleFree => &[
            "in DxgkCbFreePagesFromMdl",
            "freed again here",
            "freed here",
            "returns 0xc0000008 (STATUS_INVALID_HANDLE)",
            "one owner",
        ],
        Kind::ForeignMdl => &["returns 0xc0000008", "free with the routine that belongs"],
        Kind::MdlNotReleased => &["call ExFreePool with the MDL"],
        Kind::MemoryLeak => &["free it in the driver's unload routine", "0xC4 (0x62)"],
        Kind::MdlUseAfterFree => &["keep the order"],
        Kind::PartialAllocationIgnored => {
            &["8 pages were asked for, 2 were given", "MmGetMdlByteCount"]
        }
        Kind::WrongIrql => &[
            "DxgkCbFreePagesFromMdl was called at an IRQL",
            "PASSIVE_LEVEL",
        ],
        Kind::HandleLeak => &["DxgkDdiStopDevice", "takes back what it can"],
        Kind::ExclusiveAccessViolation => {
            &["during exclusive access", "DxgkDdiBeginExclusiveAccess"]
        }
        Kind::ImportForbidden => &["IoMmuSecureModeSupported"],
        Kind::Hang => &[
            "it waits for an event that nobody sets",
            "the driver was here",
            "bound every wait",
        ],
    }
}

#[test]
fn every_kind_says_what_happened_where_and_what_to_change() {
    for kind in Kind::ALL {
        let report = report(&sample(kind));
        let index = report.findings.iter().position(|f| f.finding.kind == kind);
        let index = index.unwrap_or_else(|| panic!("{}: {}", kind.id(), plain(&report)));
        let text = text::plain(crate::layout::one(&report, index, 100));

        let id = format!("==dmasan== ERROR: {}", kind.id());
        for part in [
            id.as_str(),
            "at fault",
            "to mend",
            "Windows",
            "dmasan-gpu.sys+0x",
        ]
        .iter()
        .chain(says(kind))
        {
            // Text is broken into lines anywhere.
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                words(&text).contains(&words(part)),
                "{part} is not in:\n{text}"
            );
        }
        assert!(PAGES.iter().any(|(id, _)| *id == kind.id()));
    }
}

#[test]
fn every_kind_is_drawn_in_every_form_and_known_from_its_own_baseline() {
    for kind in Kind::ALL {
        let mut report = named(&sample(kind));
        for drawn in [json::render(&report), sarif::render(&report)] {
            assert!(drawn.contains(kind.id()), "{drawn}");
        }
        assert!(junit::render(&report).contains(&format!("type=\"{}\"", kind.id())));
        assert!(svg::render(&report).ends_with("</svg>\n"));

        let known = crate::Baseline::parse(json::render(&report).as_bytes()).unwrap();
        report.triage(Vec::new(), Some(&known));
        let all = 0..report.findings.len();
        assert!(
            all.into_iter()
                .all(|i| report.standing(i) == crate::Standing::Known)
        );
        assert_eq!(report.passes(), kind != Kind::Hang, "{}", plain(&report));
    }
}

#[test]
fn keys_of_every_kind_are_in_the_schema() {
    let schema = include_str!("../../SCHEMA.md");
    for kind in Kind::ALL {
        let value = json::render(&report(&sample(kind)));
        let value: serde_json::Value = serde_json::from_str(&value).unwrap();
        for finding in value["findings"].as_array().unwrap() {
            for part in [
                finding,
                &finding["breach"],
                &finding["mdl"],
                &finding["origin"],
            ] {
                for key in part
                    .as_object()
                    .into_iter()
                    .flat_map(|fields| fields.keys())
                {
                    assert!(schema.contains(&format!("`{key}`")), "{key}");
                }
            }
        }
    }
}

#[test]
fn refused_step_makes_the_run_fail_and_is_told() {
    let records = Sample::healthy();
    let mut refused = records.clone();
    let step = Event::Refused {
        step: "3 (present)".into(),
        status: 0xc000_000d,
    };
    refused.insert(
        records.len() - 1,
        Record {
            time: 0,
            event: step,
        },
    );

    assert!(report(&records).passes());
    let report = report(&refused);
    assert!(!report.passes() && !report.is_clean());
    let text = plain(&report);
    assert!(
        text.contains("the driver refused step 3 (present) of the workload with 0xc000000d"),
        "{text}"
    );
    assert!(junit::render(&report).contains("type=\"workload-refused\""));
}
