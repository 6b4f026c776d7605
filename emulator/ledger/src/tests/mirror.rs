//! A domain that another remapping unit tells.

use super::*;
use crate::Party;

pub(super) fn map(run: Run, iova: u64, pages: u64, page: u64, write: bool) -> Run {
    run.then(Event::Map {
        device: DEVICE,
        iova: Iova(iova),
        length: pages << 12,
        target: Some(Gpa(page << 12)),
        read: true,
        write,
        generation: 1,
    })
}

pub(super) fn unmap(run: Run, iova: u64, length: u64) -> Run {
    run.then(Event::Unmap {
        device: DEVICE,
        iova: Iova(iova),
        length,
        dropped: 0,
    })
}

fn summary(run: Run) -> (Kind, String) {
    let found = run.refused(1, ADDRESS + 0x1000).findings();
    assert_eq!(found.len(), 1);
    (found[0].kind, found[0].summary.clone())
}

pub(super) fn guest() -> Run {
    Run::in_domain("guest")
}

#[test]
fn what_was_never_mapped_is_said_so() {
    let (kind, said) = summary(map(guest(), ADDRESS, 1, PAGE, true));
    assert_eq!(kind, Kind::DmaUnmapped);
    assert!(said.contains("never mapped"), "{said}");
}

#[test]
fn what_was_unmapped_is_said_so_however_it_was() {
    for (start, length) in [(ADDRESS + 0x1000, 0x1000), (ADDRESS, 0x4000), (0, !0xfff)] {
        let run = map(guest(), ADDRESS, 4, PAGE, true);
        let (kind, said) = summary(unmap(run, start, length));
        assert_eq!(kind, Kind::DmaUnmapped);
        assert!(said.contains("no longer mapped"), "{start:#x}: {said}");
    }
}

#[test]
fn an_unmap_beside_leaves_the_mapping() {
    let run = map(guest(), ADDRESS, 4, PAGE, true);
    let (_, said) = summary(unmap(run, ADDRESS + 0x2000, 0x1000));
    assert!(said.contains("the mapping does not allow it"), "{said}");
}

#[test]
fn a_shorter_mapping_over_a_longer_one_hides_no_page_of_it() {
    let run = map(guest(), ADDRESS, 4, PAGE, true);
    let run = map(run, ADDRESS, 1, PAGE + 8, true);
    let (kind, said) = summary(unmap(run, ADDRESS, 0x4000));
    assert_eq!(kind, Kind::DmaUnmapped);
    assert!(said.contains("no longer mapped"), "{said}");
}

#[test]
fn mappings_that_overlap_are_unmapped_page_by_page() {
    let overlapping = || {
        let run = map(guest(), ADDRESS, 4, PAGE, true);
        map(run, ADDRESS + 0x1000, 4, PAGE + 8, true)
    };
    // The page that is looked at is the second.
    for (start, length, mapped) in [
        (ADDRESS, 0x1000, true),
        (ADDRESS + 0x2000, 0x3000, true),
        (ADDRESS + 0x1000, 0x1000, false),
        (ADDRESS, 0x5000, false),
    ] {
        let (_, said) = summary(unmap(overlapping(), start, length));
        let wanted = match mapped {
            true => "the mapping does not allow it",
            false => "no longer mapped",
        };
        assert!(said.contains(wanted), "{start:#x}, {length:#x}: {said}");
    }
}

#[test]
fn a_mapping_of_very_much_takes_the_place_of_what_was_there() {
    let run = map(guest(), ADDRESS, 4, PAGE, true);
    let run = map(run, ADDRESS, 1 << 14, 0, true);
    let (_, said) = summary(run);
    assert!(said.contains("no longer mapped"), "{said}");
}

#[test]
fn without_stacks_the_page_tells_findings_apart_and_a_command_has_one() {
    let mut run = guest()
        .refused(1, ADDRESS)
        .refused(1, ADDRESS + 0x1000)
        .refused(0, ADDRESS + 0x1000)
        .refused(0, ADDRESS + 0x2000)
        .refused(2, ADDRESS);
    run.records
        .retain(|record| !matches!(record.event, Event::Stack { .. }));
    let found = run.findings();
    let told: Vec<_> = found.iter().map(|finding| finding.count).collect();
    assert_eq!(told, [3, 1, 1], "{found:?}");
}

/// Somebody orders the device to do something.
fn order(run: Run, context: u32) -> Run {
    let name = NameId(77);
    run.then(Event::Name {
        id: name,
        text: event::ORDERED.to_owned(),
    })
    .then(Event::Context {
        context: ContextId(context),
        device: DEVICE,
        queue: event::NO_QUEUE,
        position: 0,
        head: 0,
    })
    .then(Event::Command {
        context: ContextId(context),
        name,
        detail: "read 64 bytes".to_owned(),
        resource: None,
    })
}

#[test]
fn what_was_ordered_is_nobody_elses_and_a_finding_of_its_own() {
    let run = order(map(guest(), ADDRESS, 1, PAGE, true), 9)
        .refused(9, ADDRESS + 0x1000)
        .refused(1, ADDRESS + 0x1000);
    let found = run.findings();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].blame[0].party, Party::Injected);
    assert_eq!(
        found[0].blame[0].reason,
        "the device was ordered to read 64 bytes"
    );
    assert!(found[1].blame.iter().all(|b| b.party != Party::Injected));
}

#[test]
fn a_translation_that_was_kept_is_stale_once_it_is_unmapped() {
    let kept = Outcome::Done {
        gpa: Gpa(PAGE << 12),
        generation: 1,
        cached: true,
    };
    let mapped = map(guest(), ADDRESS, 1, PAGE, true).access(1, ADDRESS, kept);
    assert!(mapped.findings().is_empty());
    let run = map(guest(), ADDRESS, 1, PAGE, true);
    let found = unmap(run, ADDRESS, 0x1000)
        .access(1, ADDRESS, kept)
        .findings();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kind, Kind::StaleIotlb);
}
