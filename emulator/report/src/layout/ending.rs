//! How the run ended, and what it did.

use super::finding::{allocation_words, certainty, stop_words};
use super::{Line, Page, Tone, stack};
use crate::model::{Ending, Frame, Report};
use crate::triage::Standing;
use journal::Tail;
use journal::status_name;
use ledger::span;

/// Bug checks told in full.
const MAX_STOPS: usize = 8;
/// Live allocations told.
const MAX_LIVE: usize = 4;
/// Checks that are as they should be, told.
const MAX_GOOD: usize = 16;
/// The driver's last lines told.
const MAX_PRINTED: usize = 6;

fn title(tone: Tone, text: impl Into<String>) -> Line {
    Line::new().with(Tone::Bold, "==dmasan== ").with(tone, text)
}

pub(crate) fn draw(page: &mut Page, report: &Report) {
    stops(page, report);
    end(page, report);
    torn(page, report);
    for (name, why) in report.failed_checks() {
        page.push(title(Tone::Bad, format!("ERROR: {name}")));
        page.wrapped(Line::plain("  "), 2, Tone::Bold, why);
    }
    // A finding has its own.
    if report.new_findings().next().is_none()
        && !report.is_clean()
        && let Some(command) = &report.meta.reproduce
    {
        page.command("repeat", command);
    }
    if !report.is_clean() && !report.printed.is_empty() {
        page.blank();
        page.push(Line::new().with(Tone::Bold, "  the driver printed last"));
        let from = report.printed.len().saturating_sub(MAX_PRINTED);
        for line in report.printed.iter().skip(from) {
            let time = format!("    {:>12}   ", span(line.time));
            page.push(
                Line::new()
                    .with(Tone::Faint, time)
                    .with(Tone::Plain, line.text.clone()),
            );
        }
    }
    page.blank();
    summary(page, report);
}

/// Bug checks that no finding tells of.
fn stops(page: &mut Page, report: &Report) {
    let own = || {
        let stops = report.stops.iter().enumerate();
        stops
            .filter(|(index, stop)| stop.finding.is_none() && !report.stop_excused(*index))
            .map(|(_, stop)| stop)
    };
    for stop in own().take(MAX_STOPS) {
        let check = &stop.bug_check;
        let words = stop_words(check.code, check.parameters);
        let text = match &check.finding {
            Some(finding) => format!("ERROR: {finding}: {words}"),
            None => format!("ERROR: {words}"),
        };
        page.push(title(Tone::Bad, text));
        page.wrapped(Line::plain("  "), 2, Tone::Bold, &check.reason);
        if let Some(rule) = &check.rule {
            let text = format!("{rule} (dmasan rules {rule})");
            page.row("rule", Tone::Plain, &text);
        }
        page.row("how sure", Tone::Faint, certainty(check.certainty));
        let went_on = if check.continued {
            ", and the run went on (--keep-going)"
        } else {
            ""
        };
        let at = format!("{}{went_on}", span(stop.time));
        page.row("when", Tone::Faint, &at);
        stack::draw(page, &stop.stack, "no stack was recorded");
        page.blank();
    }
    let more = own().count().saturating_sub(MAX_STOPS);
    if more > 0 {
        page.push(title(Tone::Warn, format!("and {more} more bug checks")));
        page.blank();
    }
}

fn place(page: &mut Page, what: String, reason: &str, frames: &[Frame]) {
    page.push(title(Tone::Bad, what));
    page.wrapped(Line::plain("  "), 2, Tone::Bold, reason);
    stack::draw(page, frames, "no stack was recorded");
}

fn end(page: &mut Page, report: &Report) {
    match &report.ending {
        Ending::Completed | Ending::BugCheck => {}
        Ending::StartFailed { routine, status } => {
            let name = status_name(*status).unwrap_or("an NTSTATUS without a common name");
            page.push(title(Tone::Bad, "ERROR: the driver did not start"));
            let text = format!("{routine} returned {status:#010x} ({name}).");
            page.wrapped(Line::plain("  "), 2, Tone::Bold, &text);
        }
        Ending::Hang { .. } if report.hang_told() => {}
        Ending::Hang { reason, stack } => {
            place(page, "ERROR: hang".into(), reason, stack);
        }
        Ending::Unsupported { reason, stack } => {
            let what = "ERROR: the driver needs what this machine does not have";
            place(page, what.into(), reason, stack);
        }
        Ending::Interrupted => {
            let text = "interrupted: the run was stopped before its end";
            page.push(title(Tone::Warn, text));
        }
        Ending::Unknown => {
            let text = "the journal ends before the run does: what follows is not known";
            page.push(title(Tone::Warn, text));
        }
    }
}

fn torn(page: &mut Page, report: &Report) {
    if let Tail::Torn { at, lost, why } = &report.meta.tail {
        let text = format!(
            "the journal is torn at byte {at} ({why}); {lost} bytes were left aside, all before \
             them is good"
        );
        let first = title(Tone::Plain, "");
        page.wrapped(first, 11, Tone::Warn, &text);
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} bytes"),
        10_240..10_485_760 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

fn summary(page: &mut Page, report: &Report) {
    let facts = &report.facts;
    if let Some(begin) = &report.begin {
        let mut ran = format!("{}, {} domain", begin.driver, begin.domain);
        if !begin.scenario.is_empty() {
            ran.push_str(&format!(", scenario {}", begin.scenario));
        }
        ran.push_str(&format!(
            ", {} of virtual time, {} and {} made",
            span(facts.time),
            counted(facts.calls, "call", "calls"),
            counted(facts.choices, "choice", "choices"),
        ));
        page.row("ran", Tone::Plain, &ran);
    }
    let good = report.checks.iter().filter(|check| check.failure.is_none());
    for check in good.clone().take(MAX_GOOD) {
        page.row("as asked", Tone::Good, &check.name);
    }
    let more = good.count().saturating_sub(MAX_GOOD);
    if more > 0 {
        page.row("", Tone::Good, &format!("and {more} more"));
    }
    for note in &report.notes {
        page.row("note", Tone::Warn, note);
    }
    let text = format!(
        "{} shown, {}, {}, {}",
        counted(facts.frames, "frame", "frames"),
        counted(facts.notifications, "doorbell", "doorbells"),
        counted(facts.commands, "command", "commands"),
        counted(facts.interrupts, "interrupt", "interrupts"),
    );
    page.row("device", Tone::Plain, &text);
    let text = format!(
        "{} ({} read, {} written): {} refused",
        counted(facts.accesses, "access", "accesses"),
        bytes(facts.bytes_read),
        bytes(facts.bytes_written),
        facts.refused,
    );
    page.row("checked", Tone::Plain, &text);
    let text = format!(
        "{} of {}; {} not freed",
        counted(facts.allocations, "allocation", "allocations"),
        counted(facts.pages, "page", "pages"),
        facts.live_allocations,
    );
    page.row("memory", Tone::Plain, &text);
    if report.ending == Ending::Completed {
        for live in report.live.iter().take(MAX_LIVE) {
            let text = format!("not freed: {}", allocation_words(&live.allocation));
            page.row("", Tone::Warn, &text);
        }
    }
    if facts.unwatched_pages > 0 {
        let text = format!(
            "{} could not be watched: too many, or beyond 1 TiB",
            counted(facts.unwatched_pages, "page", "pages")
        );
        page.row("limits", Tone::Warn, &text);
    }
    if facts.faults_unrecorded > 0 {
        let text = format!(
            "{} of {} had no room in the IOMMU's records; this report has them all",
            facts.faults_unrecorded,
            counted(facts.faults, "fault", "faults")
        );
        page.row("faults", Tone::Plain, &text);
    }
    page.blank();
    // Whole, however long: it is what a log is searched for.
    page.lines.push(last_line(report));
}

/// What grep finds.
fn last_line(report: &Report) -> Line {
    let new = report.new_findings().next();
    let Some(found) = new.and_then(|index| report.findings.get(index)) else {
        let failed = report.failed_checks().count() as u64;
        return if failed > 0 {
            let text = counted(failed, "check", "checks");
            title(
                Tone::Bad,
                format!("SUMMARY: {text} of the scenario failed: see above"),
            )
        } else if report.is_clean() {
            title(Tone::Good, "no findings")
        } else if report.expected.is_some() && report.passes() {
            title(
                Tone::Good,
                "no findings but those that the scenario asks for",
            )
        } else if !report.findings.is_empty() || report.stops_known() > 0 {
            excused(report)
        } else {
            title(
                Tone::Warn,
                "no findings, but the run is not whole: see above",
            )
        };
    };
    let count = report.new_findings().count() as u64;
    let count = count.saturating_add(report.facts.findings_omitted);
    let mut text = format!("SUMMARY: {}", found.finding.kind.id());
    // The place that must change: the free, or else the submission.
    text.push_str(&stack::telling(&found.places(), &report.layers).unwrap_or_default());
    if count > 1 {
        text.push_str(&format!(" (and {} more)", count - 1));
    }
    title(Tone::Bad, text)
}

/// The last line where each finding is suppressed or known.
fn excused(report: &Report) -> Line {
    let suppressed = (0..report.findings.len())
        .filter(|index| matches!(report.standing(*index), Standing::Suppressed(_)))
        .count();
    let known = report.findings.len() - suppressed + report.stops_known();
    let mut text = format!("no new findings ({suppressed} suppressed, {known} known)");
    let whole = report.ending == Ending::Completed || report.ending == Ending::BugCheck;
    if report.passes() && whole && report.meta.tail == Tail::Clean {
        return title(Tone::Good, text);
    }
    text.push_str(", but the run is not whole: see above");
    title(Tone::Warn, text)
}
