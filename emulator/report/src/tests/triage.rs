//! Suppressions and baselines.

use super::*;
use crate::{Baseline, Standing, json, junit, parse_suppressions, sarif};
use journal::event::{Allocation, AllocationId, AllocationKind, End, Event};
use serde_json::Value;

fn rules(function: &str) -> Vec<crate::Suppression> {
    parse_suppressions(&format!(
        "[[suppress]]\nfinding = \"dma-use-after-free\"\nfunction = \"{function}\"\n\
         reason = \"ticket 4711\"\n"
    ))
    .unwrap()
}

fn baseline(report: &Report) -> Baseline {
    Baseline::parse(json::render(report).as_bytes()).unwrap()
}

/// Use after free; the run goes on.
fn going_on() -> Vec<Record> {
    Sample::new()
        .used()
        .freed(true)
        .faulting()
        .end(End::Completed)
}

#[test]
fn suppressed_finding_does_not_fail_and_is_one_line() {
    let mut report = named(&going_on());
    report.triage(rules("*::free_backing"), None);
    let text = plain(&report);

    assert!(report.passes() && !report.is_clean());
    assert_eq!(report.standing(0), Standing::Suppressed(0));
    assert!(
        text.contains("suppressed: 1: dma-use-after-free in *::free_backing (ticket 4711)"),
        "{text}"
    );
    assert!(!text.contains("ERROR"), "{text}");
    assert!(text.ends_with("==dmasan== no new findings (1 suppressed, 0 known)\n"));
}

#[test]
fn suppression_that_covers_nothing_is_told() {
    let mut report = named(&going_on());
    report.triage(rules("*::another"), None);
    let text = plain(&report);

    assert!(!report.passes());
    assert!(
        text.contains("unused suppression: dma-use-after-free in *::another (line 1)"),
        "{text}"
    );
    assert!(junit::render(&report).contains("unused-suppression"));
}

#[test]
fn suppression_does_not_hide_the_bug_check_that_ended_the_run() {
    let mut report = named(&Sample::use_after_free());
    report.triage(rules("*"), None);
    let text = plain(&report);

    assert_eq!(report.standing(0), Standing::Suppressed(0));
    assert!(!report.passes());
    assert!(text.contains("it ended the run"), "{text}");
    assert!(text.contains("0xE6"), "{text}");
    assert!(junit::render(&report).contains("failures=\"1\""));
}

#[test]
fn suppression_covers_the_bug_check_that_the_run_went_on_after() {
    let mut records = Sample::use_after_free();
    for record in &mut records {
        match &mut record.event {
            Event::BugCheck(stop) => stop.continued = true,
            Event::End(end) => *end = End::Completed,
            _ => {}
        }
    }
    let mut report = named(&records);
    report.triage(rules("*"), None);

    assert!(report.passes(), "{}", plain(&report));
}

#[test]
fn start_failure_and_hang_are_never_excused() {
    for end in [
        End::StartFailed {
            routine: "DriverEntry".into(),
            status: 0xc000_009a,
        },
        End::Hang {
            reason: "it spins".into(),
            stack: journal::event::StackId(1),
        },
    ] {
        let records = Sample::new().end(end);
        let mut report = named(&records);
        let known = baseline(&report);
        report.triage(rules("*"), Some(&known));

        assert!(!report.passes());
    }
}

#[test]
fn baseline_knows_its_own_findings_and_bug_checks() {
    let mut report = named(&Sample::use_after_free());
    let known = baseline(&report);
    report.triage(Vec::new(), Some(&known));
    let text = plain(&report);

    assert_eq!(report.standing(0), Standing::Known);
    assert!(report.passes(), "{text}");
    assert!(
        text.contains("known: dma-use-after-free guest-driver"),
        "{text}"
    );
    assert!(!text.contains("ERROR"), "{text}");
    assert!(
        text.contains("known, and it ended the run: bug check 0xE6"),
        "{text}"
    );
    assert!(text.ends_with("no new findings (0 suppressed, 1 known)\n"));
}

#[test]
fn baseline_survives_other_addresses_and_lines() {
    let old = named(&going_on());
    let mut new = old.clone();
    for found in &mut new.findings {
        found.finding.access.as_mut().unwrap().iova.0 += 0x5000;
        for stack in [&mut found.used, &mut found.freed, &mut found.allocated] {
            for frame in stack {
                frame.address += 0x40;
                frame.offset += 4;
                frame.line = frame.line.map(|line| line + 7);
                frame.file = frame.file.as_deref().map(|file| format!("C:\\x\\{file}"));
            }
        }
    }
    new.triage(Vec::new(), Some(&baseline(&old)));

    assert_eq!(new.standing(0), Standing::Known);
    assert_eq!(new.fingerprint(0), old.fingerprint(0));
}

#[test]
fn another_function_on_a_stack_is_a_new_finding_and_the_old_one_fixed() {
    let old = named(&going_on());
    let mut new = old.clone();
    new.findings[0].freed[1].function = Some("dmasan_gpu::other".into());
    new.triage(Vec::new(), Some(&baseline(&old)));
    let text = plain(&new);

    assert!(!new.passes());
    assert!(text.contains("fixed: dma-use-after-free"), "{text}");
    assert!(text.contains("ERROR: dma-use-after-free"), "{text}");
    let sarif: Value = serde_json::from_str(&sarif::render(&new)).unwrap();
    let states: Vec<&str> = sarif["runs"][0]["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["baselineState"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["new", "absent"]);
}

#[test]
fn without_symbols_only_the_same_build_is_known() {
    let old = report(&going_on());
    let mut same = old.clone();
    same.triage(Vec::new(), Some(&baseline(&old)));
    assert!(same.passes());

    let mut other = old.clone();
    other.findings[0].freed[0].offset += 4;
    other.triage(Vec::new(), Some(&baseline(&old)));
    assert!(!other.passes());
}

#[test]
fn bad_baselines_are_refused() {
    for (text, says) in [
        ("{", "line 1"),
        ("{}", "no report"),
        ("{\"format\": \"dmasan-report\"}", "no report"),
        (
            "{\"format\": \"dmasan-report\", \"version\": 9}",
            "version 9",
        ),
        (
            "{\"format\": \"dmasan-report\", \"version\": 1, \"findings\": 3}",
            "no report",
        ),
    ] {
        let error = Baseline::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn junit_has_a_case_for_every_kind_and_the_run() {
    let healthy = junit::render(&report(&Sample::healthy()));
    for kind in ledger::Kind::ALL {
        let name = format!("name=\"{}\"", kind.id());
        assert!(healthy.contains(&name), "{healthy}");
    }
    assert!(healthy.contains("name=\"run\""));
    assert!(healthy.contains("failures=\"0\"") && healthy.contains("errors=\"0\""));

    let found = junit::render(&named(&Sample::use_after_free()));
    assert!(found.contains("failures=\"1\""), "{found}");
    assert!(found.contains("type=\"dma-use-after-free\""), "{found}");
    assert!(found.contains("freed here"), "{found}");
}

#[test]
fn junit_tells_bug_checks_start_failures_and_hangs() {
    let rows = [
        (
            Sample::new()
                .bug_check(0xc4, [0; 4], "above")
                .end(End::BugCheck),
            "<failure message=\"bug check",
        ),
        (
            Sample::new().end(End::StartFailed {
                routine: "DriverEntry".into(),
                status: 0xc000_009a,
            }),
            "type=\"start-failed\"",
        ),
        (
            Sample::new().end(End::Hang {
                reason: "spins".into(),
                stack: journal::event::StackId(1),
            }),
            "type=\"hang\"",
        ),
        (Sample::new().0, "type=\"unknown\""),
    ];
    for (records, says) in rows {
        let text = junit::render(&report(&records));
        let bad = text.contains("failures=\"1\"") || text.contains("errors=\"1\"");
        assert!(bad, "{text}");
        assert!(text.to_lowercase().contains(says), "{says}: {text}");
    }
}

#[test]
fn sarif_has_rules_places_and_stable_fingerprints() {
    let report = named(&Sample::use_after_free());
    let sarif: Value = serde_json::from_str(&sarif::render(&report)).unwrap();
    let run = &sarif["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let result = &run["results"][0];

    assert_eq!(sarif["version"], "2.1.0");
    assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]));
    assert!(rules.iter().all(|rule| rule["help"]["text"] != ""));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(
        place["artifactLocation"]["uri"],
        "guest-driver/driver/src/resource.rs"
    );
    assert_eq!(place["region"]["startLine"], 214);
    assert_eq!(result["relatedLocations"].as_array().unwrap().len(), 2);
    assert_eq!(
        result["partialFingerprints"]["dmasanCause/v1"],
        report.fingerprint(0).unwrap()
    );
    // The bug check answers the finding: it is no result of its own.
    assert_eq!(run["results"].as_array().unwrap().len(), 1);
}

#[test]
fn sarif_tells_suppressions_with_their_reason() {
    let mut report = named(&going_on());
    report.triage(rules("*"), None);
    let sarif: Value = serde_json::from_str(&sarif::render(&report)).unwrap();

    let suppression = &sarif["runs"][0]["results"][0]["suppressions"][0];
    assert_eq!(suppression["kind"], "external");
    assert_eq!(suppression["justification"], "ticket 4711");
}

#[test]
fn more_bug_checks_than_are_kept_still_count() {
    let mut sample = Sample::new().used().then(Event::Allocate(Allocation {
        id: AllocationId(9),
        kind: AllocationKind::Pool,
        handle: 0,
        address: 0,
        pages: Vec::new(),
        requested: 0,
        stack: journal::event::StackId(1),
    }));
    for _ in 0..70 {
        sample = sample.bug_check(0xc4, [0; 4], "again");
    }
    let mut report = report(&sample.end(End::Completed));
    let known = baseline(&report);
    report.triage(Vec::new(), Some(&known));

    assert!(!report.passes());
}
