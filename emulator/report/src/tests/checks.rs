//! What a scenario asks of its run, in every format.

use super::*;
use crate::{Check, Standing, json, junit, sarif};
use journal::event::End;
use serde_json::Value;

const NEVER: &str = "it never fired";

/// A healthy run of which this is asked.
fn asked(checks: Vec<Check>, findings: Option<Vec<String>>) -> Report {
    let mut report = report(&Sample::healthy());
    report.ask(checks, findings);
    report
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Results of a SARIF document that nothing suppresses.
fn results(report: &Report) -> Vec<Value> {
    let document = parsed(&sarif::render(report));
    let results = document["runs"][0]["results"].as_array().unwrap();
    let open = results.iter().filter(|one| one["suppressions"].is_null());
    open.cloned().collect()
}

#[test]
fn a_fault_that_never_fired_is_no_success_in_any_format() {
    let name = "fault 1 (the first free)";
    let report = asked(vec![Check::new(name, Some(NEVER.into()))], None);

    assert!(!report.passes() && !report.is_clean());
    let text = plain(&report);
    assert!(text.contains(name) && text.contains(NEVER), "{text}");
    assert!(
        text.contains("SUMMARY: 1 check of the scenario failed"),
        "{text}"
    );
    assert!(!text.contains("no findings"), "{text}");
    let value = parsed(&json::render(&report));
    assert_eq!(value["passes"], false);
    assert_eq!(value["clean"], false);
    assert_eq!(value["checks"][0]["name"], name);
    assert_eq!(value["checks"][0]["failure"], NEVER);
    let junit = junit::render(&report);
    assert!(junit.contains("failures=\"1\""), "{junit}");
    assert!(junit.contains(name) && junit.contains(NEVER), "{junit}");
    let results = results(&report);
    assert_eq!(results.len(), 1);
    assert_eq!(results[0]["ruleId"], "scenario-check");
    assert!(
        results[0]["message"]["text"]
            .as_str()
            .unwrap()
            .contains(NEVER)
    );
}

#[test]
fn what_is_as_asked_is_told_and_passes() {
    let report = asked(vec![Check::new("fault 1 (a)", None)], Some(Vec::new()));

    assert!(report.passes() && report.is_clean());
    let text = plain(&report);
    assert!(text.contains("fault 1 (a)"), "{text}");
    assert!(text.contains("no findings"), "{text}");
    let value = parsed(&json::render(&report));
    assert_eq!(value["checks"][0]["passes"], true);
    assert_eq!(value["checks"].as_array().unwrap().len(), 2);
    assert!(junit::render(&report).contains("failures=\"0\""));
    assert!(results(&report).is_empty());
}

#[test]
fn a_finding_that_is_asked_for_fails_nothing() {
    let mut report = report(&Sample::use_after_free());
    let id = report.findings[0].finding.kind.id().to_owned();
    assert!(!report.passes());

    report.ask(Vec::new(), Some(vec![id.clone()]));

    assert_eq!(report.standing(0), Standing::Expected);
    assert!(report.passes(), "{}", plain(&report));
    let text = plain(&report);
    assert!(text.contains(&id), "it is told all the same: {text}");
    assert!(!text.contains("SUMMARY"), "{text}");
    let value = parsed(&json::render(&report));
    assert_eq!(value["passes"], true);
    assert_eq!(value["findings"][0]["standing"], "expected");
    assert!(junit::render(&report).contains("failures=\"0\""));
    assert!(results(&report).is_empty());
}

#[test]
fn findings_must_be_those_that_are_asked_for() {
    let rows: [(_, &[&str], _); 3] = [
        (Sample::healthy(), &["hang"], "there is no finding hang"),
        (Sample::use_after_free(), &[], "there is a finding"),
        (
            Sample::new()
                .bug_check(0x50, [0; 4], "a page fault")
                .end(End::BugCheck),
            &[],
            "that answers no finding",
        ),
    ];
    for (records, wanted, says) in rows {
        let mut report = report(&records);
        report.ask(
            Vec::new(),
            Some(wanted.iter().map(|&id| id.into()).collect()),
        );

        assert!(!report.passes(), "{says}");
        let text = plain(&report);
        assert!(text.contains(says), "{says}: {text}");
        assert!(junit::render(&report).contains(says), "{says}");
        assert!(!results(&report).is_empty(), "{says}");
    }
}

#[test]
fn what_a_driver_refuses_is_for_the_scenario_to_judge() {
    let records = Sample::new().end(End::StartFailed {
        routine: "DxgkDdiStartDevice".into(),
        status: 0xC000_009A,
    });
    let mut report = report(&records);
    assert!(!report.passes());

    report.ask(Vec::new(), Some(Vec::new()));

    assert!(report.passes());
    let junit = junit::render(&report);
    assert!(junit.contains("failures=\"0\""), "{junit}");
    assert!(junit.contains("the scenario allows it"), "{junit}");
}

#[test]
fn names_that_a_scenario_makes_up_are_cleaned() {
    let check = Check::new("fault 1 (\u{1b}[2J)", Some("no\u{202e}".into()));
    let report = asked(vec![check], None);

    for text in [
        plain(&report),
        junit::render(&report),
        json::render(&report),
    ] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    }
}
