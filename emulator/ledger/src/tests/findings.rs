//! Each finding, found.

use super::*;
use crate::{Outcome as Became, Ownership, Party, Reach, Step};

#[test]
fn refused_access_to_freed_page_is_use_after_free() {
    let run = Run::isolated()
        .used()
        .cleared()
        .invalidate(true)
        .free(1)
        .command(2, 4)
        .refused(2, ADDRESS + 0x1010)
        .bug_check(ADDRESS + 0x1010, false);

    let findings = run.findings();

    assert_eq!(findings.len(), 1);
    let found = &findings[0];
    assert_eq!(found.kind, Kind::DmaUseAfterFree);
    assert_eq!(at(found).outcome, Became::Refused);
    assert_eq!(at(found).page, Some(Gpa((PAGE + 1) << 12 | 0x10)));
    let allocation = found.allocation.as_ref().unwrap();
    assert_eq!(allocation.id, AllocationId(1));
    assert_eq!(allocation.page_index, Some(1));
    assert_eq!(allocation.allocated.stack[0], 0xffff_f800_0000_0001);
    assert_eq!(
        allocation.freed.as_ref().unwrap().stack[0],
        0xffff_f800_0000_0002
    );
    let command = at(found).command.as_ref().unwrap();
    assert_eq!(command.name.as_deref(), Some("TRANSFER_TO_HOST_2D"));
    assert_eq!(
        command.submitted.as_ref().unwrap().stack[0],
        0xffff_f800_0000_0004
    );
    assert_eq!(at(found).refusal.unwrap().reason, 6);
    let stop = found.stop.as_ref().unwrap();
    assert_eq!(stop.parameters, [0x26, 0, ADDRESS + 0x1010, 6]);
    assert!(stop.seen && !stop.continued);
    assert_eq!(found.blame[0].party, Party::Driver);
    assert!(found.blame[0].reason.contains("after the free"));
}

#[test]
fn fault_told_before_its_access_is_joined_too() {
    let fault = Event::Fault {
        context: ContextId(1),
        device: DEVICE,
        iova: Iova(0x5000),
        write: false,
        reason: 6,
        recorded: false,
    };
    let findings = Run::isolated()
        .used()
        .then(fault)
        .access(1, 0x5000, Outcome::Refused)
        .findings();

    assert_eq!(findings.len(), 1);
    assert!(!at(&findings[0]).refusal.unwrap().recorded);
    assert!(!findings[0].stop.as_ref().unwrap().seen);
}

#[test]
fn accesses_of_one_cause_are_one_finding() {
    let mut run = Run::isolated()
        .used()
        .cleared()
        .invalidate(true)
        .free(1)
        .command(2, 4);
    for index in 0..4 {
        run = run.refused(2, ADDRESS + index * 0x1000);
    }
    let other_submission = run.command(3, 5).refused(3, ADDRESS);

    let findings = other_submission.findings();

    assert_eq!(findings.len(), 2);
    assert_eq!((findings[0].count, findings[1].count), (4, 1));
    assert_eq!(at(&findings[0]).iova, Iova(ADDRESS));
    assert!(findings[0].last_time > findings[0].time);
}

#[test]
fn passthrough_access_to_freed_page_is_use_after_free() {
    let findings = Run::in_domain("passthrough")
        .allocate(1, PAGE, 1)
        .command(1, 3)
        .done(1, PAGE << 12, PAGE, false)
        .free(1)
        .done(1, PAGE << 12, PAGE, true)
        .findings();

    assert_eq!(findings.len(), 1);
    let found = &findings[0];
    assert_eq!(found.kind, Kind::DmaUseAfterFree);
    assert_eq!(at(found).outcome, Became::WentThrough);
    assert_eq!(found.stop, None);
    let centre = (at(found).iova.page() - at(found).surroundings.first.page()) as usize;
    let page = at(found).surroundings.pages[centre];
    assert_eq!(
        (page.owner, page.reach, page.same),
        (Ownership::Freed, Reach::Identity, true)
    );
}

#[test]
fn refused_access_to_unmapped_address_is_dma_unmapped() {
    let rows = [
        (Run::isolated().used().refused(1, 0x9000), "no mapping"),
        (
            Run::isolated()
                .used()
                .unmap(ADDRESS)
                .invalidate(true)
                .returned()
                .refused(1, ADDRESS),
            "was unmapped",
        ),
        (
            Run::isolated().used().refused(1, PAGE << 12),
            "as a physical address",
        ),
    ];
    for (run, reason) in rows {
        let findings = run.findings();

        assert_eq!(findings.len(), 1, "{reason}");
        assert_eq!(findings[0].kind, Kind::DmaUnmapped);
        assert!(findings[0].blame[0].reason.contains(reason), "{reason}");
    }
}

#[test]
fn refusal_that_no_table_explains_is_told_by_its_reason() {
    let rows = [
        (2, "no domain", true),
        (0xf0, "bus mastering is disabled", false),
        (0xf1, "no memory", false),
    ];
    for (reason, summary, stops) in rows {
        let findings = Run::isolated()
            .used()
            .then(Event::Fault {
                context: ContextId(1),
                device: DEVICE,
                iova: Iova(ADDRESS),
                write: false,
                reason,
                recorded: false,
            })
            .access(1, ADDRESS, Outcome::Refused)
            .findings();

        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].kind, Kind::DmaUnmapped);
        assert!(
            findings[0].summary.contains(summary),
            "{}",
            findings[0].summary
        );
        assert_eq!(findings[0].stop.is_some(), stops);
    }
}

#[test]
fn refused_access_against_the_rights_is_dma_permission() {
    let run = Run::isolated()
        .allocate(1, PAGE, 1)
        .entry(1, ADDRESS, PAGE << 12 | 2)
        .command(1, 3)
        .refused(1, ADDRESS);

    assert_eq!(run.kinds(), [Kind::DmaPermission]);
}

#[test]
fn landing_after_the_free_is_free_in_flight() {
    let rows = [
        (Run::isolated(), false, false, Party::OperatingSystem),
        (Run::isolated(), true, false, Party::OperatingSystem),
        (Run::isolated(), true, true, Party::Device),
        (Run::in_domain("passthrough"), false, false, Party::Driver),
    ];
    for (run, invalidated, drained, party) in rows {
        let mut run = run.used().issue(1, ADDRESS, PAGE).cleared();
        if invalidated {
            run = run.invalidate(drained);
        }
        let findings = run.free(1).land(false).findings();

        let found: Vec<_> = findings
            .iter()
            .filter(|found| found.kind == Kind::FreeInFlight)
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].blame[0].party, party);
        assert_eq!(at(found[0]).outcome, Became::LandedLate);
        let steps = &found[0].history.moments;
        assert!(steps.iter().any(|m| matches!(m.step, Step::Landed { .. })));
    }
}

#[test]
fn page_still_mapped_at_its_free_is_mapped_after_free() {
    let findings = Run::isolated().used().unmap(ADDRESS).free(1).findings();

    assert_eq!(findings.len(), 1);
    let found = &findings[0];
    assert_eq!(found.kind, Kind::MappedAfterFree);
    assert_eq!((found.count, at(found).iova), (3, Iova(ADDRESS + 0x1000)));
    assert_eq!(at(found).device, DEVICE);
    assert_eq!(found.blame[0].party, Party::OperatingSystem);
}

#[test]
fn second_mapping_left_behind_is_mapped_after_free() {
    let other = ADDRESS + 0x4000_0000;
    let run = Run::isolated()
        .used()
        .map(other, PAGE + 2)
        .cleared()
        .invalidate(true)
        .free(1)
        .done(1, other, PAGE + 2, false);

    let findings = run.findings();

    let kinds: Vec<_> = findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [Kind::MappedAfterFree, Kind::DmaUseAfterFree]);
    assert_eq!(findings[1].related, [0]);
    assert_eq!(findings[1].blame[0].party, Party::OperatingSystem);
}

#[test]
fn large_leaf_over_a_freed_page_is_mapped_after_free() {
    // 2 MiB at the page's own physical address; bit 7 says it is a leaf.
    let base = PAGE & !511;
    let run = Run::isolated()
        .allocate(1, PAGE, 1)
        .entry(2, base << 12, base << 12 | 0x83)
        .free(1);

    let findings = run.findings();

    assert_eq!(findings.len(), 1);
    assert_eq!(at(&findings[0]).iova, Iova(PAGE << 12));
}

#[test]
fn history_shows_the_life_of_the_mapping_in_order() {
    let findings = Run::isolated()
        .used()
        .cleared()
        .invalidate(true)
        .free(1)
        .refused(1, ADDRESS)
        .findings();

    let steps: Vec<_> = findings[0]
        .history
        .moments
        .iter()
        .map(|moment| match moment.step {
            Step::Allocated { .. } => "allocated",
            Step::Mapped { .. } => "mapped",
            Step::Accessed { .. } => "accessed",
            Step::Unmapped { .. } => "unmapped",
            Step::Invalidated { .. } => "invalidated",
            Step::Freed { .. } => "freed",
            Step::Refused { .. } => "refused",
            _ => "other",
        })
        .collect();
    assert_eq!(
        steps,
        [
            "allocated",
            "mapped",
            "accessed",
            "unmapped",
            "invalidated",
            "freed",
            "refused"
        ]
    );
}

#[test]
fn command_named_after_its_finding_is_told_to_it() {
    let findings = Run::isolated()
        .used()
        .doorbell(4, Some(2))
        .take(2, 1)
        .refused(2, 0x9000)
        .name(2)
        .then(Event::Response {
            context: ContextId(2),
            code: 0x1100,
            name: NameId(1),
        })
        .findings();

    let command = at(&findings[0]).command.as_ref().unwrap();
    assert_eq!(command.name.as_deref(), Some("TRANSFER_TO_HOST_2D"));
    assert_eq!(command.answer.as_deref(), Some("OK_NODATA"));
}

#[test]
fn bug_check_is_of_the_latest_refusal_at_its_address() {
    // Two allocations have one address in turn; Windows goes on after each.
    let ledger = Run::isolated()
        .used()
        .cleared()
        .invalidate(true)
        .free(1)
        .command(2, 4)
        .refused(2, ADDRESS)
        .bug_check(ADDRESS, true)
        .allocate(2, PAGE, 1)
        .map(ADDRESS, PAGE)
        .unmap(ADDRESS)
        .invalidate(true)
        .free(2)
        .command(3, 5)
        .refused(3, ADDRESS)
        .bug_check(ADDRESS, true);
    let stops: Vec<u32> = (1u32..)
        .zip(&ledger.records)
        .filter(|(_, record)| matches!(record.event, Event::BugCheck(_)))
        .map(|(number, _)| number)
        .collect();
    let ledger = ledger.end();

    assert_eq!(ledger.findings().len(), 2);
    assert!(
        ledger
            .findings()
            .iter()
            .all(|f| f.stop.as_ref().is_some_and(|s| s.seen))
    );
    let causes: Vec<_> = stops.iter().map(|&stop| ledger.cause(stop)).collect();
    assert_eq!(causes, [Some(0), Some(1)]);
}

#[test]
fn bug_check_of_a_later_page_is_of_the_same_finding() {
    let next = ADDRESS + 0x1000;
    let run = Run::isolated()
        .allocate(1, PAGE, 2)
        .map(ADDRESS, PAGE)
        .map(next, PAGE + 1)
        .unmap(ADDRESS)
        .unmap(next)
        .invalidate(true)
        .free(1)
        .command(2, 4)
        .refused(2, ADDRESS)
        .bug_check(ADDRESS, true)
        .refused(2, next)
        .bug_check(next, true);
    let last = run.records.len() as u32;
    let ledger = run.end();

    assert_eq!(ledger.findings().len(), 1);
    let stop = ledger.findings()[0].stop.clone().unwrap();
    assert_eq!(stop.parameters[2], ADDRESS);
    assert_eq!(ledger.cause(last), Some(0));
}

#[test]
fn interrupts_are_those_of_the_device_that_went_out() {
    let message = |device, refused| Event::Message {
        device,
        address: 0xfee0_0000,
        data: 0xd0,
        refused,
    };
    let ledger = Run::isolated()
        .then(message(DEVICE, None))
        .then(message(RequesterId::new(0, 0, 0), None))
        .then(message(DEVICE, Some(NameId(2))))
        .end();

    assert_eq!(ledger.facts().interrupts, 1);
}

#[test]
fn page_out_of_the_quarantine_keeps_its_story() {
    let findings = Run::isolated()
        .used()
        .cleared()
        .invalidate(true)
        .free(1)
        .then(Event::Recycle {
            pages: vec![PageRun {
                first: Pfn(PAGE),
                count: 1,
            }],
        })
        .command(2, 4)
        .refused(2, ADDRESS)
        .findings();

    let steps: Vec<_> = findings[0]
        .history
        .moments
        .iter()
        .map(|m| &m.step)
        .collect();
    assert!(
        matches!(steps.first(), Some(Step::Allocated { .. })),
        "{steps:?}"
    );
    assert!(steps.contains(&&Step::Recycled), "{steps:?}");
}

#[test]
fn without_isolation_there_is_no_generation() {
    let findings = Run::in_domain("passthrough")
        .allocate(1, PAGE, 1)
        .free(1)
        .command(2, 4)
        .done(2, PAGE << 12, PAGE, false)
        .findings();

    assert_eq!(at(&findings[0]).generation, None);
}
