//! IRQL rules, and what Windows does on a breach.

use super::State;
use super::spec::stop;
use crate::{Outcome, Stop};
use journal::event::Certainty;

/// Where a rule comes from, and so what a breach leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// A row of bug check 0xC4 (Driver Verifier): parameter 1.
    Verifier(u64),
    /// The routine's page alone: the code then is our inference.
    Page,
}

/// What a routine called above `limit` leads to.
pub(super) fn above(
    state: &State,
    name: &str,
    limit: u8,
    source: Source,
    subject: u64,
) -> Option<Stop> {
    let irql = state.irql();
    (irql > limit).then(|| breach(irql, name, "at most", limit, source, subject))
}

/// What a routine called below `limit` leads to.
pub(super) fn below(
    state: &State,
    name: &str,
    limit: u8,
    source: Source,
    subject: u64,
) -> Option<Stop> {
    let irql = state.irql();
    (irql < limit).then(|| breach(irql, name, "at least", limit, source, subject))
}

fn breach(irql: u8, name: &str, bound: &str, limit: u8, source: Source, subject: u64) -> Stop {
    let irql64 = u64::from(irql);
    let (code, parameters, certainty, who) = match source {
        Source::Verifier(row) => (
            stop::VERIFIER,
            [row, irql64, subject, 0],
            Certainty::Documented,
            format!("Driver Verifier, bug check 0xC4 row {row:#x}"),
        ),
        Source::Page => (
            stop::IRQL_NOT_LESS_OR_EQUAL,
            [subject, irql64, 0, 0],
            Certainty::Inferred,
            "the routine's page; Windows may go on for a while".to_owned(),
        ),
    };
    Stop {
        code,
        parameters,
        certainty,
        reason: format!("{name} called at IRQL {irql}, it must be {bound} {limit} ({who})"),
        go_on: None,
    }
}

/// Return `value`; or stop on a breach and, where the run goes on all the
/// same, return it then.
pub(super) fn unless(breach: Option<Stop>, value: impl Into<u64>) -> Outcome {
    let value = value.into();
    match breach {
        None => Outcome::Return(value),
        Some(stop) => Outcome::Stop(Stop {
            go_on: Some(value),
            ..stop
        }),
    }
}
