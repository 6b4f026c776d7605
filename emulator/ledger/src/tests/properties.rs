//! Whatever the journal says, the ledger stays whole.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::Global),
        (0u16..3).prop_map(Scope::Domain),
        (0u16..3, any::<u64>(), any::<u64>()).prop_map(|(domain, iova, count)| Scope::Pages {
            domain,
            iova: Iova(iova),
            count
        }),
    ]
}

/// Addresses that meet each other often, and some that are wild.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![4 => (0u64..0x20).prop_map(|page| page << 12), 1 => any::<u64>()]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Refused),
        (address(), any::<u32>(), any::<bool>()).prop_map(|(gpa, generation, cached)| {
            Outcome::Done {
                gpa: Gpa(gpa),
                generation,
                cached,
            }
        }),
        (0u32..8, address(), any::<bool>()).prop_map(|(token, gpa, cached)| Outcome::InFlight {
            token: TokenId(token),
            gpa: Gpa(gpa),
            generation: 0,
            cached,
        }),
    ]
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let run = (address(), prop_oneof![0u64..8, any::<u64>()]).prop_map(|(first, count)| PageRun {
        first: Pfn(first >> 12),
        count,
    });
    let runs = vec(run, 0..4).boxed();
    prop_oneof![
        (0u32..6, runs.clone()).prop_map(|(id, pages)| Event::Allocate(Allocation {
            id: AllocationId(id),
            kind: AllocationKind::Pool,
            handle: 0,
            address: 0,
            pages,
            requested: 0,
            stack: StackId(id),
        })),
        (0u32..6).prop_map(|id| Event::Free {
            allocation: AllocationId(id),
            stack: StackId(id)
        }),
        runs.prop_map(|pages| Event::Recycle { pages }),
        (address(), any::<u64>(), address(), any::<u8>(), 0u16..3).prop_map(
            |(address, bits, page, level, domain)| Event::TableWrite {
                address: Gpa(address),
                old: bits,
                new: page | bits & 0x83,
                table: Table::SecondLevel {
                    domain,
                    level: if level < 200 { level % 4 } else { level },
                    iova: Iova(page)
                },
            }
        ),
        (any::<bool>(), any::<u64>()).prop_map(|(high, new)| Event::TableWrite {
            address: Gpa(8 * u64::from(high)),
            old: 0,
            new,
            table: Table::Context { device: DEVICE },
        }),
        (scope(), any::<bool>()).prop_map(|(scope, drain)| Event::Invalidate {
            scope,
            drain_reads: drain,
            drain_writes: !drain,
            dropped: 0
        }),
        (0u16..3, address(), address(), any::<u32>()).prop_map(
            |(domain, iova, page, generation)| Event::Fill {
                domain,
                iova: Iova(iova),
                page: Gpa(page),
                size: 0x1000,
                entry: Gpa(0),
                value: 0,
                generation,
            }
        ),
        (0u32..4, address(), any::<bool>(), outcome()).prop_map(
            |(context, iova, write, outcome)| Event::Access {
                context: ContextId(context),
                device: DEVICE,
                iova: Iova(iova),
                length: u32::MAX,
                write,
                outcome,
            }
        ),
        (0u32..8, any::<bool>()).prop_map(|(token, drained)| Event::Landed {
            token: TokenId(token),
            drained
        }),
        (any::<u16>(), proptest::option::of(any::<u16>())).prop_map(|(queue, available)| {
            Event::Notify {
                device: DEVICE,
                queue: queue & 1,
                available,
            }
        }),
        (0u32..4, any::<u16>()).prop_map(|(context, position)| Event::Context {
            context: ContextId(context),
            device: DEVICE,
            queue: 0,
            position,
            head: 0,
        }),
        (0u32..4, address(), any::<u8>()).prop_map(|(context, iova, reason)| Event::Fault {
            context: ContextId(context),
            device: DEVICE,
            iova: Iova(iova),
            write: false,
            reason,
            recorded: true,
        }),
        address().prop_map(|address| Event::BugCheck(event::BugCheck {
            rule: None,
            subject: Default::default(),
            finding: None,
            code: 0xe6,
            parameters: [0x26, 0, address, 6],
            certainty: event::Certainty::Ours,
            reason: String::new(),
            stack: StackId(0),
            continued: true,
        })),
        Just(Event::Return {
            function: NameId(0),
            value: 0
        }),
        word(),
    ]
}

/// What driver and device say of each other.
fn word() -> impl Strategy<Value = Event> {
    let segment = || {
        (address(), any::<u32>()).prop_map(|(iova, length)| event::Segment {
            iova: Iova(iova),
            length,
        })
    };
    let pages = (address(), prop_oneof![0u64..8, any::<u64>()]).prop_map(|(first, count)| {
        vec![PageRun {
            first: Pfn(first >> 12),
            count,
        }]
    });
    prop_oneof![
        any::<u32>().prop_map(|memory| Event::Caps { memory }),
        any::<bool>().prop_map(|begun| Event::ExclusiveAccess { begun }),
        (0u64..4, pages).prop_map(|(handle, pages)| Event::MapMdl(event::MdlMapping {
            handle,
            mdl: 0,
            pages,
            write: true,
            stack: StackId(1),
        })),
        (0u64..4).prop_map(|handle| Event::UnmapMdl {
            handle,
            stack: StackId(2)
        }),
        address().prop_map(|address| Event::Physical {
            address,
            gpa: Gpa(address),
            stack: StackId(3),
        }),
        (0u32..4, 0u32..3, vec(segment(), 0..4)).prop_map(|(context, resource, segments)| {
            Event::Backing {
                context: ContextId(context),
                resource,
                segments,
            }
        }),
        (0u32..3).prop_map(|resource| Event::NoBacking {
            context: ContextId(0),
            resource
        }),
        (0u32..4, 0u32..3).prop_map(|(context, resource)| Event::Command {
            context: ContextId(context),
            name: NameId(0),
            detail: String::new(),
            resource: Some(resource),
        }),
        (any::<u16>(), segment()).prop_map(|(queue, area)| Event::Queue {
            device: DEVICE,
            queue,
            areas: [area; 3],
        }),
        (0usize..Kind::ALL.len(), 0u32..6, address()).prop_map(|(kind, id, address)| {
            Event::Breach(event::Breach {
                rule: String::new(),
                finding: Kind::ALL[kind].id().into(),
                reason: String::new(),
                certainty: event::Certainty::Ours,
                status: None,
                subject: event::Subject {
                    allocation: Some(AllocationId(id)),
                    address,
                },
                stack: StackId(id),
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_events_leave_the_ledger_whole(
        domain in prop_oneof![
            Just("isolation"), Just("passthrough"), Just("isolation-forced")
        ],
        events in vec((any::<u64>(), event()), 0..120)
    ) {
        let mut ledger = Run::in_domain(domain).ledger();
        for (time, event) in events {
            ledger.push(&Record { time, event });
        }

        prop_assert!(ledger.facts().live_allocations <= ledger.facts().allocations);
        prop_assert!(ledger.table_bytes() < 1 << 30);
        for finding in ledger.findings() {
            prop_assert!(finding.count > 0);
            prop_assert!(!finding.blame.is_empty());
            prop_assert!(finding.related.iter().all(|&to| to < ledger.findings().len()));
        }
    }

    #[test]
    fn any_healthy_lifecycle_is_silent(
        lives in vec((1u64..8, 0u64..4, any::<bool>(), any::<bool>()), 1..12)
    ) {
        let mut run = Run::isolated();
        for (number, &(pages, place, parted, reads_again)) in lives.iter().enumerate() {
            let id = number as u32 + 1;
            let (first, iova) = (PAGE + place * 3, ADDRESS + place * 0x2000);
            run = run.allocate(id, first, pages);
            for index in 0..pages {
                run = run.map(iova + index * 0x1000, first + index);
            }
            run = run.returned().command(id, 3).done(id, iova, first, false);
            if parted {
                run = run.issue(id, iova, first);
            }
            if reads_again {
                run = run.done(id, iova, first, true);
            }
            for index in 0..pages {
                run = run.unmap(iova + index * 0x1000);
            }
            if parted {
                run = run.land(true);
            }
            run = run.invalidate(true).free(id);
        }

        prop_assert_eq!(run.kinds(), []);
    }
}

#[test]
fn huge_allocations_cost_no_more_than_their_events() {
    let mut run = Run::isolated();
    for id in 1..200 {
        run = run.allocate(id, u64::from(id) << 18, u64::MAX);
    }

    let ledger = run.end();

    assert!(ledger.facts().unwatched_pages > 0);
    assert!(ledger.table_bytes() < 512 << 20);
}

#[test]
fn huge_segments_and_mdls_cost_no_more_than_their_events() {
    let mut run = Run::isolated().map(0, 1).allocate(1, 1, 1);
    for id in 1..200 {
        let segment = event::Segment {
            iova: Iova(0),
            length: u32::MAX,
        };
        run = run
            .then(Event::Backing {
                context: ContextId(1),
                resource: id,
                segments: vec![segment; 64],
            })
            .then(Event::MapMdl(event::MdlMapping {
                handle: u64::from(id),
                mdl: 0,
                pages: vec![PageRun {
                    first: Pfn(u64::from(id) << 20),
                    count: u64::MAX,
                }],
                write: false,
                stack: StackId(1),
            }));
    }

    let ledger = run.end();

    assert_eq!(ledger.findings(), []);
}

#[test]
fn page_costs_at_most_sixteen_bytes() {
    let ledger = Run::isolated().allocate(1, 0, 1 << 16).end();

    assert!(ledger.table_bytes() <= 16 << 16);
}
