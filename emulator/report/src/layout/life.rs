//! The life of a page as a timeline in virtual time.

use super::{Line, Page, Tone, stack};
use crate::model::Found;
use journal::event::{ContextId, Scope};
use ledger::{Kind, Moment, Step, span};
use std::collections::BTreeSet;

/// Columns of the time.
const TIME: usize = 12;

/// A moment in words: what, and what is to be said of it.
pub(crate) fn words(found: &Found, moment: &Moment) -> (String, String, Tone) {
    let verb = |write: bool| if write { "written" } else { "read" };
    let command = |context: ContextId| match (context.0, found.commands.get(&context.0)) {
        (0, _) => "by the device itself, for its rings".to_owned(),
        (id, Some(name)) => format!("by {name} (command {id})"),
        (id, None) => format!("by command {id}"),
    };
    let (what, more, tone) = match &moment.step {
        Step::Allocated { allocation } => (
            "allocated",
            format!("as part of allocation {}", allocation.0),
            Tone::Good,
        ),
        Step::Mapped {
            domain,
            iova,
            read,
            write,
        } => {
            let rights = match (read, write) {
                (true, true) => "read and write",
                (true, false) => "read only",
                _ => "write only",
            };
            let more = format!("at IOVA {iova} in domain {domain}, {rights}");
            ("mapped", more, Tone::Good)
        }
        Step::Unmapped { domain, iova } => (
            "unmapped",
            format!("leaf entry for IOVA {iova} in domain {domain} cleared or changed"),
            Tone::Warn,
        ),
        Step::Invalidated {
            scope,
            drain_reads,
            drain_writes,
        } => {
            let drained = match (drain_reads, drain_writes) {
                (true, true) => "reads and writes drained",
                (true, false) => "reads drained, writes not",
                (false, true) => "writes drained, reads not",
                (false, false) => "nothing drained",
            };
            let more = format!("IOTLB: {}, {drained}", scope_words(*scope));
            ("invalidated", more, Tone::Plain)
        }
        Step::Filled {
            domain,
            iova,
            generation,
        } => (
            "cached",
            format!("in the IOTLB for IOVA {iova}, domain {domain}, generation {generation}"),
            Tone::Faint,
        ),
        Step::Accessed {
            context,
            write,
            count,
            last,
        } => {
            // Several commands may have had a part in it.
            let more = match count {
                0 | 1 => command(*context),
                _ => format!(
                    "{count} times until {}, first {}",
                    span(*last),
                    command(*context)
                ),
            };
            (verb(*write), more, Tone::Plain)
        }
        Step::Issued {
            context,
            write,
            token,
        } => {
            let what = if *write {
                "write issued"
            } else {
                "read issued"
            };
            let more = format!("{}, in flight as {}", command(*context), token.0);
            (what, more, Tone::Warn)
        }
        Step::Landed { token, drained } => {
            let why = if *drained {
                ", drained by an invalidation"
            } else {
                ""
            };
            ("landed", format!("access {}{why}", token.0), Tone::Plain)
        }
        Step::Refused { context, write } => {
            let what = if *write {
                "write refused"
            } else {
                "read refused"
            };
            (what, command(*context), Tone::Bad)
        }
        Step::MdlMapped { handle, stack } => (
            "MDL mapped",
            format!("with handle {handle:#x}{}", by(found, stack.0)),
            Tone::Good,
        ),
        Step::MdlUnmapped { handle, stack } => (
            "MDL unmapped",
            format!("handle {handle:#x}{}", by(found, stack.0)),
            Tone::Warn,
        ),
        Step::Freed { allocation } => (
            "freed",
            format!("with allocation {}", allocation.0),
            Tone::Warn,
        ),
        Step::Recycled => ("recycled", "out of the quarantine".to_owned(), Tone::Faint),
    };
    (what.to_owned(), more, tone)
}

/// Who did it: the innermost function of a stack that the history names.
fn by(found: &Found, stack: u32) -> String {
    let frames = found.callers.get(&stack).map(Vec::as_slice);
    let place = stack::telling(&[frames.unwrap_or_default()], &BTreeSet::new());
    place.map_or_else(String::new, |place| {
        format!(" by{}", place.trim_start_matches(" in"))
    })
}

fn scope_words(scope: Scope) -> String {
    match scope {
        Scope::Global => "all domains".to_owned(),
        Scope::Domain(domain) => format!("domain {domain}"),
        Scope::Pages {
            domain,
            iova,
            count: 1,
        } => format!("1 page at {iova} of domain {domain}"),
        Scope::Pages {
            domain,
            iova,
            count,
        } => format!("{count} pages from {iova} of domain {domain}"),
        Scope::ContextGlobal | Scope::ContextDomain(_) | Scope::ContextDevice(..) => {
            "context entries".to_owned()
        }
    }
}

/// Index of the moment that the finding is about.
fn culprit(found: &Found) -> Option<usize> {
    let finding = &found.finding;
    let moments = &finding.history.moments;
    let of_kind = |moment: &Moment| match finding.kind {
        Kind::FreeInFlight => matches!(moment.step, Step::Landed { .. }),
        Kind::MappedAfterFree | Kind::MissingInvalidation => {
            matches!(moment.step, Step::Freed { .. })
        }
        // The page is told for its owners, not for an access.
        _ if finding.access.is_none() => false,
        _ => matches!(
            moment.step,
            Step::Accessed { .. } | Step::Issued { .. } | Step::Refused { .. }
        ),
    };
    moments.iter().rposition(of_kind)
}

/// Was the address never invalidated between its unmapping and the finding?
fn lacks_invalidation(found: &Found) -> bool {
    let moments = &found.finding.history.moments;
    let unmapped = moments
        .iter()
        .rposition(|m| matches!(m.step, Step::Unmapped { .. }));
    unmapped.is_some_and(|at| {
        !moments
            .iter()
            .skip(at)
            .any(|m| matches!(m.step, Step::Invalidated { .. }))
    })
}

pub(crate) fn draw(page: &mut Page, found: &Found) {
    let told = &found.finding.history;
    if told.moments.is_empty() {
        return;
    }
    page.blank();
    let title = if found.finding.access.is_some() {
        "  life of the page (virtual time)"
    } else {
        "  life of the memory's first page (virtual time)"
    };
    page.push(Line::new().with(Tone::Bold, title));
    let culprit = culprit(found);
    let lacking = lacks_invalidation(found);
    let mut warned = false;
    for (index, moment) in told.moments.iter().enumerate() {
        if told.gap == Some(index) {
            let text = format!("{:>TIME$}   ({} moments left out)", "...", told.omitted);
            page.push(Line::new().with(Tone::Faint, format!("    {text}")));
        }
        let is_culprit = culprit == Some(index);
        if is_culprit && lacking && !warned {
            warned = true;
            let nothing = format!(
                "    {:>TIME$}   not invalidated: the IOTLB was left as it was",
                ""
            );
            page.push(Line::new().with(Tone::Bad, nothing));
        }
        let (what, more, tone) = words(found, moment);
        let mark = if is_culprit { " => " } else { "    " };
        let time = format!("{:>TIME$}", span(moment.time));
        let line = Line::new()
            .with(Tone::Bad, mark)
            .with(Tone::Faint, time)
            .with(
                if is_culprit { Tone::Bad } else { tone },
                format!("   {what:<14}"),
            )
            .with(Tone::Plain, more);
        page.push(line);
    }
}
