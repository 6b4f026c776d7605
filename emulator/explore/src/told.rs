//! Results for machines: JSON, and JUnit for CI.

use crate::{Explored, Gaps, Header};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use scenario::Plan;
use serde_json::json;

/// Was all explored that was to be?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent<'a> {
    /// All of it.
    Whole,
    /// Not all: the same command goes on where it was left.
    Cut,
    /// Shards lack this.
    Lacking(&'a Gaps),
}

/// Faults of the scenario, and answers that it writes over, that were injected
/// in no run: a sentence each. None while not all was explored.
#[must_use]
pub fn idle(header: &Header, total: &Explored, extent: Extent<'_>) -> Vec<String> {
    let Ok(plan) = Plan::parse(&header.scenario) else {
        return Vec::new();
    };
    if extent != Extent::Whole {
        return Vec::new();
    }
    let faults = plan.faults.iter().map(scenario::Fault::title);
    let answers = plan.answers.iter().map(scenario::Answer::title);
    (0..)
        .zip(faults.chain(answers))
        .filter(|(index, _)| !total.fired.contains(index))
        .map(|(index, title)| {
            let number = index + 1;
            format!("fault {number} ({title}) never fired: a test that tested nothing")
        })
        .collect()
}

/// The results as JSON. `coverage` is functions reached, functions there are,
/// and places seen.
#[must_use]
pub fn json(
    header: &Header,
    total: &Explored,
    coverage: (usize, usize, usize),
    extent: Extent<'_>,
) -> String {
    let (reached, functions, places) = coverage;
    let defects: Vec<_> = total.defects.iter().collect();
    let document = json!({
        "version": 1,
        "driver": {"name": header.driver, "xxh3-128": header.digest},
        "arguments": header.arguments,
        "bounds": header.bounds,
        "whole": extent == Extent::Whole && total.open.is_empty(),
        "gaps": match extent {
            Extent::Lacking(gaps) => json!(gaps),
            Extent::Whole | Extent::Cut => json!(null),
        },
        "runs": total.runs,
        "cut": total.cut,
        "steps": total.steps,
        "choices": total.choices,
        "timeouts": total.timeouts,
        "open": total.open.iter().map(|(why, open)| json!({
            "why": why,
            "runs": open.runs,
            "schedule": open.schedule,
        })).collect::<Vec<_>>(),
        "idle": idle(header, total, extent),
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
/// passes. What was not explored is a case too: skipped where somebody wanted
/// no more, an error where shards are missing.
#[must_use]
pub fn junit(header: &Header, total: &Explored, extent: Extent<'_>) -> String {
    let mut suite = TestSuite::new(format!("dmasan explore {}", header.driver));
    for (identity, defect) in &total.defects {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type(defect.finding.clone());
        status.set_message(defect.summary.clone());
        let words = defect.schedule.iter();
        let words: Vec<String> = words
            .map(|deviation| format!("choice {}: {}", deviation.number, deviation.words()))
            .collect();
        status.set_description(words.join("\n"));
        // Two defects of one kind are two cases, by the same names each time.
        let told = xxhash_rust::xxh3::xxh3_64(identity.as_bytes()) as u32;
        let name = format!("{} {told:08x}", defect.finding);
        suite.add_test_case(TestCase::new(name, status));
    }
    for why in idle(header, total, extent) {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type("scenario-check");
        status.set_message(why);
        suite.add_test_case(TestCase::new("each fault was injected", status));
    }
    for (why, open) in &total.open {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(open.words(why));
        suite.add_test_case(TestCase::new("every run was followed to its end", status));
    }
    if total.defects.is_empty() {
        let name = format!("{} schedules", total.runs);
        suite.add_test_case(TestCase::new(name, TestCaseStatus::success()));
    }
    let rest = match extent {
        Extent::Whole => None,
        Extent::Cut => Some((
            TestCaseStatus::skipped(),
            "the exploration was cut short".into(),
        )),
        Extent::Lacking(gaps) => {
            let lacking = gaps.words().join("; ");
            Some((TestCaseStatus::non_success(NonSuccessKind::Error), lacking))
        }
    };
    if let Some((mut status, why)) = rest {
        status.set_message(why);
        suite.add_test_case(TestCase::new("all schedules were run", status));
    }
    let mut report = Report::new("dmasan explore");
    report.add_test_suite(suite);
    // Every text in it is one that XML can hold, or is made so.
    report.to_string().unwrap_or_default()
}
