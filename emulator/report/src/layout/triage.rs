//! What suppressions and baseline took out of the report, briefly.

use super::{Line, Page, Tone, stack, stop_words};
use crate::model::{Ending, Report};
use crate::triage::Standing;
use std::collections::BTreeMap;

/// Things of a kind told one by one.
const MAX_TOLD: usize = 32;

fn title(tone: Tone, text: impl Into<String>) -> Line {
    Line::new().with(Tone::Bold, "==dmasan== ").with(tone, text)
}

/// What a finding is called in a line: its id and the place to look at.
pub(crate) fn name(report: &Report, index: usize) -> String {
    report
        .findings
        .get(index)
        .map_or_else(String::new, |found| {
            let place = stack::telling(&found.places(), &report.layers);
            format!("{}{}", found.finding.kind.id(), place.unwrap_or_default())
        })
}

pub(crate) fn draw(page: &mut Page, report: &Report) {
    page.blank();
    suppressed(page, report);
    known(page, report);
    stops(page, report);
    let completed = report.ending == Ending::Completed;
    each(page, report.triage.fixed.len(), "fixed findings", |index| {
        let name = report.triage.fixed.get(index)?;
        Some(if completed {
            title(Tone::Good, format!("fixed: {name}"))
        } else {
            // The run may have ended before it got there.
            title(
                Tone::Warn,
                format!("not seen again in this shorter run: {name}"),
            )
        })
    });
    each(
        page,
        report.triage.unused.len(),
        "unused suppressions",
        |index| {
            let rule = report
                .triage
                .suppressions
                .get(*report.triage.unused.get(index)?)?;
            Some(title(Tone::Warn, format!("unused suppression: {rule}")))
        },
    );
    page.blank();
}

/// One line for all, however long: it is what a log is searched for.
fn suppressed(page: &mut Page, report: &Report) {
    let mut rules = BTreeMap::<usize, u64>::new();
    for index in 0..report.findings.len() {
        if let Standing::Suppressed(rule) = report.standing(index) {
            *rules.entry(rule).or_default() += 1;
        }
    }
    if rules.is_empty() {
        return;
    }
    let told: Vec<String> = rules
        .iter()
        .take(MAX_TOLD)
        .filter_map(|(rule, count)| {
            let rule = report.triage.suppressions.get(*rule)?;
            let times = if *count > 1 {
                format!("{count} times ")
            } else {
                String::new()
            };
            let (id, function) = (rule.kind.id(), &rule.function);
            Some(format!("{times}{id} in {function} ({})", rule.reason))
        })
        .collect();
    let count: u64 = rules.values().sum();
    let more = if rules.len() > MAX_TOLD { "; ..." } else { "" };
    let line = format!("suppressed: {count}: {}{more}", told.join("; "));
    page.lines.push(title(Tone::Warn, line));
}

fn known(page: &mut Page, report: &Report) {
    let known: Vec<usize> = (0..report.findings.len())
        .filter(|index| report.standing(*index) == Standing::Known)
        .collect();
    each(page, known.len(), "known findings", |index| {
        let name = name(report, *known.get(index)?);
        Some(title(Tone::Plain, format!("known: {name}")))
    });
}

/// Bug checks that the baseline has, and those that answer an excused finding
/// and are not excused themselves.
fn stops(page: &mut Page, report: &Report) {
    for (index, stop) in report.stops.iter().enumerate().take(MAX_TOLD) {
        let check = &stop.bug_check;
        let words = stop_words(check.code, check.parameters);
        let excused = report.stop_excused(index);
        let answered = stop.finding.map(|at| report.standing(at));
        let known = if check.continued {
            "known"
        } else {
            "known, and it ended the run"
        };
        match answered {
            None | Some(Standing::Suppressed(_) | Standing::Known)
                if excused && (answered.is_none() || !check.continued) =>
            {
                page.push(title(Tone::Plain, format!("{known}: {words}")));
            }
            Some(Standing::Suppressed(_) | Standing::Known) if !excused => {
                page.push(title(Tone::Bad, format!("ERROR: {words}")));
                page.row(
                    "why",
                    Tone::Plain,
                    "the finding that it answers is excused, but it ended the run, so that \
                     nothing after it was tested; --keep-going records it and goes on",
                );
            }
            _ => {}
        }
    }
}

fn each(page: &mut Page, count: usize, what: &str, line: impl Fn(usize) -> Option<Line>) {
    for line in (0..count.min(MAX_TOLD)).filter_map(line) {
        // Whole: they are what a log is searched for.
        page.lines.push(line);
    }
    if count > MAX_TOLD {
        let more = count - MAX_TOLD;
        page.push(title(Tone::Warn, format!("and {more} more {what}")));
    }
}
