#![allow(clippy::unwrap_used)]

mod contiguous;
mod dxgk;
mod executive;
mod irql;
mod locks;
mod mapping;
mod mm;
mod pins;
mod pool;
mod processor;
mod work;
mod world;

use super::{Parameter, Rule, all, find, rows};
use crate::{Outcome, Stop};
use journal::event::Certainty;
use std::collections::BTreeSet;
use world::World;

/// A rule, the call that breaks it, and the nearest one that does not.
type Case = (
    &'static str,
    fn(&mut World) -> Outcome,
    fn(&mut World) -> Outcome,
);

/// Rules whose breach is no call of the driver's, and where they are tested.
const ELSEWHERE: &[&str] = &[
    // hal::tests::faults: an access of the device.
    "dma-violation",
    // dxgk::tests::life: what is left when the device is stopped, and what the
    // image imports.
    "handle-at-stop",
    "hlk-imports",
    // executive::tests::{mutexes, work}: the return of a routine.
    "apcs-disabled-at-return",
    "work-item-returns-at-irql",
    // No call of the driver alone can make Windows' own tables wrong.
    "unmap-failed",
];

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        executive::CASES,
        locks::CASES,
        work::CASES,
        mm::CASES,
        pins::CASES,
        mapping::CASES,
        contiguous::CASES,
        pool::CASES,
        processor::CASES,
        dxgk::CASES,
    ]
    .into_iter()
    .flatten()
}

fn assert_made_from(stop: &Stop, rule: &Rule) {
    assert_eq!(stop.rule, Some(rule.id), "{}", stop.reason);
    let row = rule.bug_check.unwrap();
    assert_eq!((stop.code, stop.certainty), (row.code, rule.certainty));
    for (given, parameter) in stop.parameters.into_iter().zip(row.parameters) {
        if let Parameter::Is(value) = parameter {
            assert_eq!(given, value, "{}: {:x?}", rule.id, stop.parameters);
        }
    }
    assert!(stop.reason.contains(rule.says) && stop.reason.contains(rule.source));
}

#[test]
fn each_breach_is_answered_as_its_row_says() {
    for (id, breaks, _) in cases() {
        let rule = find(id).unwrap_or_else(|| panic!("no rule {id}"));
        let mut world = World::new();
        match (breaks(&mut world), rule.returns) {
            // Windows is silent.
            (Outcome::Return(_), None) if rule.bug_check.is_none() => {
                let breach = world.breach(rule.id).unwrap_or_else(|| panic!("{id}"));
                assert_eq!(breach.certainty, rule.certainty);
                assert_eq!(
                    (breach.finding.as_str(), breach.status),
                    (rule.finding.unwrap(), None)
                );
            }
            (Outcome::Stop(stop), None) => assert_made_from(&stop, rule),
            (Outcome::Return(value), Some(expected)) => assert_eq!(value, expected, "{id}"),
            (other, _) => panic!("{id}: {other:?}"),
        }
    }
}

#[test]
fn the_nearest_call_that_breaks_nothing_goes_on() {
    for (id, _, holds) in cases() {
        let refused = find(id).and_then(|rule| rule.returns);
        let mut world = World::new();
        let outcome = holds(&mut world);
        assert_eq!(world.breach(id), None, "{id}");
        match outcome {
            Outcome::Stop(stop) => panic!("{id}: {}", stop.reason),
            Outcome::Return(value) => assert_ne!(Some(value), refused, "{id}"),
            _ => {}
        }
    }
}

#[test]
fn each_rule_with_an_answer_is_tested() {
    let tested: BTreeSet<&str> = cases().map(|(id, ..)| *id).collect();
    for rule in all() {
        let answered = rule.bug_check.is_some() || rule.returns.is_some() || rule.finding.is_some();
        let somewhere = tested.contains(rule.id) || ELSEWHERE.contains(&rule.id);
        assert_eq!(
            answered,
            somewhere || rule.irql.is_some(),
            "{} is tested where it has an answer, and only there",
            rule.id
        );
    }
}

#[test]
fn rows_are_named_once_and_say_what_and_whence() {
    /// Names of findings that a rule may give.
    const FINDINGS: &[&str] = &[
        "cpu-use-after-free",
        "double-free",
        "exclusive-access-violation",
        "foreign-mdl",
        "handle-leak",
        "import-forbidden",
        "mapped-after-free",
        "mdl-not-released",
        "mdl-use-after-free",
        "memory-leak",
        "partial-allocation-ignored",
        "wrong-irql",
    ];
    let mut ids = BTreeSet::new();
    for rule in all() {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(rule.id.chars().all(kebab), "{}", rule.id);
        assert!(ids.insert(rule.id), "{} twice", rule.id);
        assert!(
            !rule.says.is_empty() && !rule.says.ends_with('.'),
            "{}",
            rule.id
        );
        assert!(!rule.source.is_empty(), "{} has no source", rule.id);
        assert!(rule.finding.is_none_or(|f| FINDINGS.contains(&f)));
        assert!(rule.bug_check.is_none() || rule.returns.is_none());
    }
}

#[test]
fn routines_of_rules_exist() {
    // Routines of the driver, or of documents alone.
    let others = [
        "DxgkDdiBeginExclusiveAccess",
        "DxgkDdiEndExclusiveAccess",
        "DxgkDdiQueryAdapterInfo",
        "DxgkDdiSetPowerState",
        "DxgkDdiStopDevice",
        "MmGetMdlPfnArray",
    ];
    for rule in all() {
        for routine in rule.routines {
            let mut windows = World::new().windows;
            let at = windows.resolve_routine("test", routine);
            let missing = windows.missing_name(at).is_some();
            assert_eq!(missing, others.contains(routine), "{}: {routine}", rule.id);
        }
    }
}

#[test]
fn the_nine_contradictions_are_decided() {
    let decided = super::documents::RULES;
    assert_eq!(decided.len(), 9);
    assert!(decided.iter().all(|rule| rule.certainty == Certainty::Ours));
}

#[test]
fn rows_are_printed_with_their_answers() {
    let row = |id| rows().find(|row| row.id == id).unwrap();
    let irql = row("pages-irql");
    assert_eq!(irql.answer, "bug check 0xC4 (0x7E, IRQL, 0x2, 0x0)");
    assert_eq!((irql.finding, irql.certainty), ("wrong-irql", "documented"));
    assert_eq!(row("memory-handle").answer, "returns 0xC0000008");
    assert_eq!(row("pfn-number-size").answer, "");
}
