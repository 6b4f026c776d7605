//! IRQL rules ([`crate::rules::executive`]), held.

use super::State;
use crate::rules::Rule;
use crate::{Outcome, Stop};

/// What a call of `name` at the IRQL of now leads to, if the rule forbids it.
/// `subject` is the object of the call, or 0.
pub(super) fn breach(state: &State, rule: &Rule, name: &str, subject: u64) -> Option<Stop> {
    rule.breach(name, state.irql(), &[subject])
}

/// Return `value`; or stop on a breach and, where the run goes on all the
/// same, return it then.
pub(super) fn unless(breach: Option<Stop>, value: impl Into<u64>) -> Outcome {
    match breach {
        None => Outcome::Return(value.into()),
        Some(stop) => Outcome::Stop(stop.or_return(value)),
    }
}
