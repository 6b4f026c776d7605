//! What a guest tells of its memory: it adds findings, and changes none.

use super::mirror::{guest, map, unmap};
use super::*;
use crate::ClueKind;
use journal::event::{Claim, ClaimStep};
use proptest::prelude::*;

pub(super) fn claim(cookie: u64, tag: u32, step: ClaimStep, runs: &[(u64, u64)]) -> Event {
    let run = |&(first, count): &(u64, u64)| PageRun {
        first: Pfn(first),
        count,
    };
    Event::Claim(Claim {
        device: DEVICE,
        cookie,
        tag,
        step,
        pages: runs.iter().map(run).collect(),
    })
}

fn told(run: Run, step: ClaimStep) -> Run {
    run.then(claim(7, 0x99, step, &[]))
}

/// A page is mapped, and told of.
fn claimed() -> Run {
    map(guest(), ADDRESS, 1, PAGE, true).then(claim(7, 0x99, ClaimStep::Allocated, &[(PAGE, 1)]))
}

fn kinds(findings: &[Finding]) -> Vec<(Kind, bool)> {
    let kind = |finding: &Finding| (finding.kind, finding.claim.is_some());
    findings.iter().map(kind).collect()
}

#[test]
fn a_healthy_order_is_silent() {
    let run = claimed().done(1, ADDRESS, PAGE, false);
    let run = told(run, ClaimStep::Retired);
    let run = told(unmap(run, ADDRESS, 0x1000), ClaimStep::Freed);
    // Whoever gets the page next maps it anew.
    let run = map(run, ADDRESS, 1, PAGE, true).done(2, ADDRESS, PAGE, false);
    assert_eq!(run.findings(), []);
}

#[test]
fn memory_freed_while_it_is_mapped_is_found() {
    let run = told(claimed(), ClaimStep::Freed);
    let found = run.findings();
    assert_eq!(kinds(&found), [(Kind::MappedAfterFree, true)]);
    let claim = found[0].claim.unwrap();
    assert_eq!((claim.cookie, claim.tag, claim.pages), (7, 0x99, 1));
    assert!(found[0].summary.contains("as the guest told"));
}

#[test]
fn a_mapping_made_after_memory_was_given_up_is_its_next_owners() {
    let run = told(claimed(), ClaimStep::Retired);
    let run = map(unmap(run, ADDRESS, 0x1000), ADDRESS + 0x1000, 1, PAGE, true);
    assert_eq!(told(run, ClaimStep::Freed).findings(), []);
}

#[test]
fn memory_used_after_it_was_given_up_is_found() {
    let run = told(claimed(), ClaimStep::Retired).done(1, ADDRESS, PAGE, false);
    let found = run.findings();
    assert_eq!(kinds(&found), [(Kind::DmaUseAfterFree, true)]);
    assert!(found[0].summary.contains("as the guest told"));
}

#[test]
fn a_refused_access_stays_what_it_is_and_shows_the_claim() {
    let run = told(claimed(), ClaimStep::Retired);
    let found = unmap(run, ADDRESS, 0x1000).refused(1, ADDRESS).findings();
    assert_eq!(kinds(&found), [(Kind::DmaUnmapped, false)]);
    let clue = found[0].clue(ClueKind::Claimed).unwrap();
    assert!(clue.text.contains("0x7"), "{}", clue.text);
}

#[test]
fn memory_told_in_parts_is_one() {
    let run = map(guest(), ADDRESS, 2, PAGE, true)
        .then(claim(7, 0, ClaimStep::Allocated, &[(PAGE, 1)]))
        .then(claim(7, 0, ClaimStep::Extended, &[(PAGE + 1, 1)]));
    let found = told(run, ClaimStep::Freed).findings();
    assert_eq!(found[0].count, 2);
    assert_eq!(found[0].claim.unwrap().pages, 2);
}

#[test]
fn what_was_forgotten_is_held_against_nobody() {
    let run = told(claimed(), ClaimStep::Retired).then(claim(0, 0, ClaimStep::Forgotten, &[]));
    let run = told(run.done(1, ADDRESS, PAGE, false), ClaimStep::Freed);
    assert_eq!(run.findings(), []);
}

#[test]
fn claims_take_no_room_of_other_findings() {
    let mut run = map(guest(), ADDRESS, 1, PAGE, true);
    for tag in 0..2000 {
        run = run
            .then(claim(7, tag, ClaimStep::Allocated, &[(PAGE, 1)]))
            .then(claim(7, tag, ClaimStep::Freed, &[]));
    }
    let found = run.refused(1, ADDRESS + 0x5000).findings();
    assert_eq!(found.len(), crate::claims::MAX_FINDINGS + 1);
    assert_eq!(found.last().unwrap().kind, Kind::DmaUnmapped);
}

#[test]
fn many_claims_of_many_pieces_are_bounded() {
    let mut run = guest();
    for cookie in 0..6000 {
        let runs: Vec<(u64, u64)> = (0..64).map(|at| (cookie + at * 100, 1 << 40)).collect();
        run = run.then(claim(cookie, 0, ClaimStep::Allocated, &runs));
        if cookie % 2 == 0 {
            run = run.then(claim(cookie, 0, ClaimStep::Freed, &[]));
        }
    }
    assert_eq!(run.findings(), []);
}

/// Everything but what rests on claims.
fn without_claims(findings: Vec<Finding>) -> Vec<Finding> {
    let mut all = findings;
    let kept: Vec<usize> = (0..all.len()).filter(|&i| all[i].claim.is_none()).collect();
    for finding in &mut all {
        finding.clues.retain(|clue| clue.kind != ClueKind::Claimed);
        // A claim is an event too.
        for moment in &mut finding.history.moments {
            moment.event = 0;
        }
        for related in &mut finding.related {
            *related = kept.iter().position(|at| at == related).unwrap();
        }
    }
    all.retain(|finding| finding.claim.is_none());
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a guest tells, what is found without it is found with it.
    #[test]
    fn claims_hide_nothing(
        records in proptest::collection::vec(super::properties::event(), 0..60),
        claims in proptest::collection::vec(
            (0usize..60, 0u64..6, 0u32..3, 0usize..5, 0u64..0x20, 0u64..0x20), 0..30),
    ) {
        let steps = [
            ClaimStep::Allocated,
            ClaimStep::Extended,
            ClaimStep::Retired,
            ClaimStep::Freed,
            ClaimStep::Forgotten,
        ];
        let (mut with, mut without) = (Ledger::new(), Ledger::new());
        for (at, event) in records.iter().enumerate() {
            let record = Record { time: at as u64, event: event.clone() };
            without.push(&record);
            with.push(&record);
            for &(_, cookie, tag, step, first, count) in claims.iter().filter(|c| c.0 == at) {
                let event = claim(cookie, tag, steps[step], &[(first, count)]);
                with.push(&Record { time: at as u64, event });
            }
        }
        let without = without_claims(without.findings().to_vec());
        prop_assert_eq!(without_claims(with.findings().to_vec()), without);
    }
}
