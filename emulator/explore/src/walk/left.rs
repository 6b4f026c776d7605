//! Walks that do not come to their end.

use crate::{Deviation, Explored, Open};
use std::time::Duration;

/// No run takes longer by the host's clock, what others take in between left
/// out; one that does says nothing. A driver that hangs is found to by its
/// traps, long before that on most hosts.
pub(super) const RUN_TIME: Duration = Duration::from_secs(60);
/// Why a walk did not come to its end: it is no result.
#[derive(Debug)]
pub(crate) enum Left {
    /// It was stopped from outside.
    Stopped,
    /// The host's clock ended the run of this schedule.
    Late(Vec<Deviation>),
}

impl Left {
    /// As the results have it.
    pub fn open(schedule: &[Deviation]) -> (String, Open) {
        let why = format!(
            "it takes more than {} s of this host's time",
            RUN_TIME.as_secs()
        );
        let schedule = schedule.to_vec();
        (why, Open { runs: 1, schedule })
    }
}

/// What came of walking a unit.
pub(crate) struct Walk {
    /// What it gave; of one that was left what was found until then.
    pub explored: Explored,
    /// Why it was left, if it was.
    pub left: Option<Left>,
}

impl Left {
    /// The same, of the run of this schedule.
    pub(super) fn of(self, schedule: &[Deviation]) -> Self {
        match self {
            Self::Stopped => Self::Stopped,
            Self::Late(_) => Self::Late(schedule.to_vec()),
        }
    }
}
