//! The report as JUnit XML, which CI systems show.
//!
//! One suite, with a case for the run itself, one for each thing that the
//! scenario asks of it, and one for each kind of finding, so that a dashboard sees the same cases whether they pass or not; a further
//! finding of a kind is a case of its own. Times are virtual: equal journals
//! give equal documents.

use crate::layout::{self, stack, stop_words};
use crate::model::{Ending, Frame, Report};
use crate::triage::Standing;
use journal::Tail;
use journal::status_name;
use ledger::Kind;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use std::collections::BTreeMap;
use std::time::Duration;

/// Columns of a description.
const WIDTH: usize = 100;
/// Type of a failure of what the scenario asks.
const CHECK: &str = "scenario-check";

/// The whole document. Empty only if the writer of XML fails, which it does
/// not on text.
#[must_use]
pub fn render(report: &Report) -> String {
    let (name, class) = names(report);
    let mut suite = TestSuite::new(name);
    let time = Duration::from_nanos(report.facts.time);
    suite.set_time(time);
    let mut run = TestCase::new("run", ending(report));
    run.set_classname(class.as_str()).set_time(time);
    suite.add_test_case(run);
    for check in &report.checks {
        let status = match &check.failure {
            None => TestCaseStatus::success(),
            Some(why) => bad(
                NonSuccessKind::Failure,
                CHECK,
                why,
                format!("{}: {why}", check.name),
            ),
        };
        let mut case = TestCase::new(check.name.as_str(), status);
        case.set_classname(class.as_str());
        suite.add_test_case(case);
    }
    stops(report, &class, &mut suite);
    findings(report, &class, &mut suite);
    for index in &report.triage.unused {
        if let Some(rule) = report.triage.suppressions.get(*index) {
            suite.add_property(("unused-suppression", rule.to_string().as_str()));
        }
    }
    for fixed in &report.triage.fixed {
        suite.add_property(("fixed", fixed.as_str()));
    }
    let notes = report.notes.iter().map(|note| format!("note: {note}"));
    let printed = report.printed.iter().map(|line| line.text.clone());
    let lines: Vec<String> = notes.chain(printed).collect();
    if !lines.is_empty() {
        suite.set_system_out(lines.join("\n"));
    }
    let mut document = quick_junit::Report::new("dmasan");
    document.set_time(time).add_test_suite(suite);
    document.to_string().unwrap_or_default()
}

/// Names of the suite and of the class of its cases.
fn names(report: &Report) -> (String, String) {
    match &report.begin {
        None => ("dmasan".to_owned(), "dmasan".to_owned()),
        Some(begin) => {
            let scenario = if begin.scenario.is_empty() {
                String::new()
            } else {
                format!(", {}", begin.scenario)
            };
            let name = format!("{} ({}{scenario})", begin.driver, begin.domain);
            (name, format!("dmasan.{}", begin.driver))
        }
    }
}

fn bad(kind: NonSuccessKind, ty: &str, message: &str, text: String) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status
        .set_type(ty)
        .set_message(message)
        .set_description(text);
    status
}

/// How the run itself went. A bug check has a case of its own.
fn ending(report: &Report) -> TestCaseStatus {
    use NonSuccessKind::{Error, Failure};
    let repeat = || {
        let command = report.meta.reproduce.as_deref();
        command.map_or_else(String::new, |command| format!("repeat: {command}\n"))
    };
    let told = |kind, ty: &str, reason: &str, stack: &[Frame]| {
        let text = format!("{reason}\n{}{}", lines(stack), repeat());
        bad(kind, ty, reason, text)
    };
    // The scenario judges what a driver makes of its faults.
    let allowed = |what: String| {
        let mut status = TestCaseStatus::skipped();
        status.set_message(format!("the scenario allows it: {what}"));
        status
    };
    let asked = report.expected.is_some();
    match &report.ending {
        Ending::Completed | Ending::BugCheck if report.refused && asked => {
            allowed("the driver refused a step of the workload".to_owned())
        }
        Ending::Completed | Ending::BugCheck if report.refused => {
            let reason = "the driver refused a step of the workload";
            let notes = report.notes.join("\n");
            bad(
                Failure,
                "workload-refused",
                reason,
                format!("{notes}\n{}", repeat()),
            )
        }
        Ending::Completed | Ending::BugCheck => match &report.meta.tail {
            Tail::Clean => TestCaseStatus::success(),
            Tail::Torn { at, why, .. } => {
                let reason = format!("the journal is torn at byte {at} ({why})");
                told(Error, "torn-journal", &reason, &[])
            }
        },
        Ending::StartFailed { routine, status } => {
            let name = status_name(*status).unwrap_or("an NTSTATUS without a common name");
            let reason = format!("{routine} returned {status:#010x} ({name})");
            if asked {
                return allowed(reason);
            }
            told(Failure, "start-failed", &reason, &[])
        }
        // Its finding has a case of its own.
        Ending::Hang { .. } if report.hang_told() => TestCaseStatus::success(),
        Ending::Hang { reason, stack } => told(Failure, "hang", reason, stack),
        Ending::Unsupported { reason, stack } => told(Error, "unsupported", reason, stack),
        Ending::Interrupted => told(Error, "interrupted", "the run was stopped", &[]),
        Ending::Unknown => told(
            Error,
            "unknown",
            "the journal ends before the run does",
            &[],
        ),
    }
}

fn lines(frames: &[Frame]) -> String {
    let mut text = String::new();
    for (number, frame) in stack::shown(frames).enumerate() {
        let source = stack::source(frame).unwrap_or_default();
        let line = format!("    #{number:<2} {}  {source}", stack::symbol(frame));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bug checks that no new finding tells of.
fn stops(report: &Report, class: &str, suite: &mut TestSuite) {
    let mut names = BTreeMap::new();
    for (index, stop) in report.stops.iter().enumerate() {
        let told = stop
            .finding
            .is_some_and(|at| report.standing(at) == Standing::New || report.stop_excused(index));
        if told {
            continue;
        }
        let check = &stop.bug_check;
        let words = stop_words(check.code, check.parameters);
        let expected = stop.finding.is_some_and(|at| report.is_expected(at));
        let status = if report.stop_excused(index) {
            let mut status = TestCaseStatus::skipped();
            status.set_message(match expected {
                true => format!("it answers what the scenario asks for: {words}"),
                false => format!("known from the baseline: {words}"),
            });
            status
        } else {
            let text = format!("{words}\n{}\n{}", check.reason, lines(&stop.stack));
            bad(NonSuccessKind::Failure, "bug-check", &words, text)
        };
        let name = numbered(&mut names, format!("bug-check {:#x}", check.code));
        let mut case = TestCase::new(name, status);
        case.set_classname(class);
        suite.add_test_case(case);
    }
    if !report.omitted_stops.is_empty() {
        let status = if report.passes() {
            TestCaseStatus::skipped()
        } else {
            let message = "more bug checks than a report keeps";
            bad(
                NonSuccessKind::Failure,
                "bug-check",
                message,
                message.to_owned(),
            )
        };
        let mut case = TestCase::new("further bug checks", status);
        case.set_classname(class);
        suite.add_test_case(case);
    }
}

fn findings(report: &Report, class: &str, suite: &mut TestSuite) {
    for kind in Kind::ALL {
        let of_kind = |index: &usize| {
            let found = report.findings.get(*index);
            found.is_some_and(|found| found.finding.kind == kind)
        };
        let mut names = BTreeMap::new();
        for index in (0..report.findings.len()).filter(of_kind) {
            let name = numbered(&mut names, kind.id().to_owned());
            let mut case = TestCase::new(name, status(report, index));
            case.set_classname(class);
            if let Some(print) = report.fingerprint(index) {
                case.add_property(("fingerprint", print.as_str()));
            }
            suite.add_test_case(case);
        }
        if names.is_empty() {
            let mut case = TestCase::new(kind.id(), TestCaseStatus::success());
            case.set_classname(class);
            suite.add_test_case(case);
        }
    }
    let omitted = report.facts.findings_omitted;
    if omitted > 0 {
        let message = format!("{omitted} more findings than a report keeps");
        let status = bad(
            NonSuccessKind::Failure,
            "omitted",
            &message,
            message.clone(),
        );
        let mut case = TestCase::new("further findings", status);
        case.set_classname(class);
        suite.add_test_case(case);
    }
}

fn status(report: &Report, index: usize) -> TestCaseStatus {
    let name = layout::triage::name(report, index);
    let skipped = |message: String| {
        let mut status = TestCaseStatus::skipped();
        status.set_message(message);
        status
    };
    match report.standing(index) {
        Standing::Known => skipped(format!("known from the baseline: {name}")),
        Standing::Expected => skipped(format!("the scenario asks for it: {name}")),
        Standing::Suppressed(rule) => {
            let rule = report.triage.suppressions.get(rule);
            let reason = rule.map_or("", |rule| rule.reason.as_str());
            skipped(format!("suppressed: {name}: {reason}"))
        }
        Standing::New => {
            let found = report.findings.get(index);
            let id = found.map_or("", |found| found.finding.kind.id());
            let summary = found.map_or("", |found| found.finding.summary.as_str());
            let text = crate::text::plain(layout::one(report, index, WIDTH));
            bad(
                NonSuccessKind::Failure,
                id,
                &format!("{name}: {summary}"),
                text,
            )
        }
    }
}

/// The name itself for the first, then `name #2` and so on: CI systems tell
/// cases apart by name.
fn numbered(seen: &mut BTreeMap<String, u64>, name: String) -> String {
    let count = seen.entry(name.clone()).or_default();
    *count += 1;
    match *count {
        1 => name,
        count => format!("{name} #{count}"),
    }
}
