//! Results for machines: JSON, and JUnit for CI.

use crate::{Explored, Header};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::json;

/// The results as JSON. `coverage` is functions reached, functions there are,
/// and places seen; `whole` says whether all was explored.
#[must_use]
pub fn json(
    header: &Header,
    total: &Explored,
    coverage: (usize, usize, usize),
    whole: bool,
) -> String {
    let (reached, functions, places) = coverage;
    let defects: Vec<_> = total.defects.iter().collect();
    let document = json!({
        "version": 1,
        "driver": {"name": header.driver, "xxh3-128": header.digest},
        "arguments": header.arguments,
        "bounds": header.bounds,
        "whole": whole,
        "runs": total.runs,
        "cut": total.cut,
        "steps": total.steps,
        "choices": total.choices,
        "timeouts": total.timeouts,
        "coverage": {"functions": functions, "reached": reached, "places": places},
        "defects": defects.iter().map(|(identity, defect)| json!({
            "identity": identity,
            "finding": defect.finding,
            "summary": defect.summary,
            "schedule": defect.schedule.iter().map(|deviation| json!({
                "number": deviation.number,
                "take": deviation.take,
                "time": deviation.at,
                "what": deviation.words(),
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

/// The results as JUnit XML: a case that fails for each defect, or one that
/// passes.
#[must_use]
pub fn junit(header: &Header, total: &Explored) -> String {
    let mut suite = TestSuite::new(format!("dmasan explore {}", header.driver));
    for defect in total.defects.values() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type(defect.finding.clone());
        status.set_message(defect.summary.clone());
        let words = defect.schedule.iter();
        let words: Vec<String> = words
            .map(|deviation| format!("choice {}: {}", deviation.number, deviation.words()))
            .collect();
        status.set_description(words.join("\n"));
        suite.add_test_case(TestCase::new(defect.finding.clone(), status));
    }
    if total.defects.is_empty() {
        let name = format!("{} schedules", total.runs);
        suite.add_test_case(TestCase::new(name, TestCaseStatus::success()));
    }
    let mut report = Report::new("dmasan explore");
    report.add_test_suite(suite);
    // Every text in it is one that XML can hold, or is made so.
    report.to_string().unwrap_or_default()
}
