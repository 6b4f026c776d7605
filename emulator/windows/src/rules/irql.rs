//! Rules about the IRQL of a call.

use super::{Parameter, Rule};
use crate::call::Stop;
use std::fmt;

/// At which IRQLs a routine may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Irql {
    /// At this or below.
    AtMost(u8),
    /// At this or above.
    AtLeast(u8),
    /// At this alone.
    Exactly(u8),
}

impl Irql {
    /// May it be called at `irql`?
    #[must_use]
    pub const fn allows(self, irql: u8) -> bool {
        match self {
            Self::AtMost(limit) => irql <= limit,
            Self::AtLeast(limit) => irql >= limit,
            Self::Exactly(level) => irql == level,
        }
    }
}

impl fmt::Display for Irql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "{limit} at most"),
            Self::AtLeast(limit) => write!(f, "{limit} at least"),
            Self::Exactly(level) => write!(f, "{level}"),
        }
    }
}

impl Rule {
    /// A rule about the IRQL of calls.
    pub(super) const fn at(
        routines: &'static [&'static str],
        irql: Irql,
        says: &'static str,
    ) -> Self {
        let mut rule = Self::new(routines, says).finding("wrong-irql");
        rule.irql = Some(irql);
        rule
    }

    /// The stop is a row of Driver Verifier's: 0xC4, the row, the IRQL, the
    /// object of the call.
    pub(super) const fn verifier(self, row: u64) -> Self {
        const SUBJECT: Parameter = Parameter::Of("the object of the call, or 0");
        self.stops(
            0xC4,
            [
                Parameter::Is(row),
                Parameter::Irql,
                SUBJECT,
                Parameter::Is(0),
            ],
        )
    }

    /// Only the routine's page speaks of the IRQL: that Windows stops with
    /// IRQL_NOT_LESS_OR_EQUAL is our inference, and it may go on for a while.
    pub(super) const fn page(self) -> Self {
        const SUBJECT: Parameter = Parameter::Of("the object of the call, or 0");
        self.stops(
            0x0A,
            [SUBJECT, Parameter::Irql, Parameter::Is(0), Parameter::Is(0)],
        )
        .inferred("the routine's page, IRQL; Windows may go on for a while")
    }

    /// The stop of a call of `routine` at `irql`, if that is a breach.
    #[must_use]
    pub(crate) fn breach(&self, routine: &str, irql: u8, values: &[u64]) -> Option<Stop> {
        let limit = self.irql?;
        (!limit.allows(irql)).then(|| {
            let what = format!("{routine} at IRQL {irql}, allowed at {limit}");
            self.stop_at(irql, values, what)
        })
    }
}
