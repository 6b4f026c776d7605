//! What was found, and when two finds are one.

use journal::Record;
use journal::event::{End, Event, Point};
use ledger::{Finding, Ledger, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// One way that is not the default's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Deviation {
    /// Number of the choice in the run, from 0.
    pub number: u64,
    /// Which way was taken.
    pub take: u32,
    /// What was to choose.
    pub what: What,
    /// Virtual time of the choice, nanoseconds, once it is known.
    pub at: Option<u64>,
}

impl Deviation {
    /// What was done instead of the default.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match (self.what, self.take) {
            (What::Device, 1) => "the device waits for the next trap",
            (What::Device, 2) => "the device waits until the driver does",
            (What::Device, _) => "the device does all it can",
            (What::Interrupt, 1) => "the interrupt comes a trap later",
            (What::Interrupt, _) => "the interrupt comes when the driver waits",
            (What::Dpc, 1) => "the DPC runs a trap later",
            (What::Dpc, _) => "the DPC runs when the driver waits",
            (What::Thread, _) => "another thread gets the processor",
            (What::Access, _) => "the access lands another time",
            (What::Fail, _) => "there is no memory for what the driver asks for",
        }
    }
}

/// What was to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The device's turn.
    Device,
    /// An interrupt.
    Interrupt,
    /// A DPC.
    Dpc,
    /// Which thread runs.
    Thread,
    /// When an access lands.
    Access,
    /// Whether an allocation or a mapping fails.
    Fail,
}

impl What {
    /// What a schedule may deviate at; `None` for random bytes, which are the
    /// seed's.
    pub(crate) fn of(point: Point) -> Option<Self> {
        Some(match point {
            Point::Device => Self::Device,
            Point::Interrupt => Self::Interrupt,
            Point::Dpc => Self::Dpc,
            Point::Thread => Self::Thread,
            Point::Landing | Point::InFlight => Self::Access,
            Point::Fail => Self::Fail,
            Point::Random => return None,
        })
    }
}

/// A defect, and the shortest schedule that shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defect {
    /// Identifier of the finding, or `bug-check`.
    pub finding: String,
    /// What happened, in a sentence.
    pub summary: String,
    /// The schedule.
    pub schedule: Vec<Deviation>,
}

impl Defect {
    /// Shorter schedules come first, then earlier ones.
    #[must_use]
    pub fn order(&self) -> (usize, &[Deviation]) {
        (self.schedule.len(), &self.schedule)
    }
}

/// Everything that a run's journal says is wrong: identity and defect.
pub(crate) struct Judged {
    pub defects: Vec<(String, Defect)>,
    /// The host's clock ended the run.
    pub timeout: bool,
    /// Why the driver did not get through all that it was made to do, if it
    /// is no defect that kept it from that.
    pub unfinished: Option<String>,
    pub places: BTreeSet<u64>,
}

/// Did the host's clock end a run that ended so?
pub(crate) fn is_timeout(end: &End) -> bool {
    matches!(end, End::Hang { reason, .. } if reason.contains("time limit"))
}

/// Judge a run, or the part of one that was made before it was cut off.
pub(crate) fn judge(records: &[Record], schedule: &[Deviation]) -> Judged {
    let mut ledger = Ledger::new();
    let mut judged = Judged {
        defects: Vec::new(),
        timeout: false,
        unfinished: None,
        places: BTreeSet::new(),
    };
    // Bug checks that no finding explains are defects too.
    let mut stops = Vec::new();
    for (number, record) in records.iter().enumerate() {
        ledger.push(record);
        match &record.event {
            Event::BugCheck(stop) if stop.finding.is_none() => {
                stops.push((number as u32 + 1, stop));
            }
            Event::Stack { frames, .. } => judged.places.extend(frames),
            Event::Refused { step, status } => {
                judged.unfinished = Some(format!("it refuses step {step} with {status:#010x}"));
            }
            Event::End(end) if is_timeout(end) => judged.timeout = true,
            Event::End(End::StartFailed { routine, status }) => {
                judged.unfinished = Some(format!("{routine} returns {status:#010x}"));
            }
            Event::End(End::Unsupported { reason, .. }) => {
                judged.unfinished = Some(reason.clone());
            }
            _ => {}
        }
    }
    if judged.timeout {
        // A hang by the host's clock depends on the host: it says nothing.
        return judged;
    }
    let defect = |finding: &str, summary: &str| Defect {
        finding: finding.to_owned(),
        summary: summary.to_owned(),
        schedule: schedule.to_vec(),
    };
    for finding in ledger.findings() {
        let made = defect(finding.kind.id(), &finding.summary);
        judged.defects.push((identity(finding), made));
    }
    for (number, stop) in stops {
        if ledger.cause(number).is_none() {
            let frames = records.iter().find_map(|record| match &record.event {
                Event::Stack { id, frames } if *id == stop.stack => Some(frames.as_slice()),
                _ => None,
            });
            let mut key = format!("bug-check {:#x}", stop.code);
            write_stack(&mut key, frames.unwrap_or_default());
            judged
                .defects
                .push((key, defect("bug-check", &stop.reason)));
        }
    }
    judged
}

/// By finding, stacks and object; not by the addresses of data, which another
/// schedule changes.
fn identity(finding: &Finding) -> String {
    let mut key = finding.kind.id().to_owned();
    let mut place = |name: &str, place: Option<&Place>| {
        if let Some(place) = place {
            let _ = write!(key, " {name}");
            write_stack(&mut key, &place.stack);
        }
    };
    let object = finding.allocation.as_ref();
    place("allocated", object.map(|object| &object.allocated));
    place("freed", object.and_then(|object| object.freed.as_ref()));
    place("used", finding.used());
    let rule = finding
        .breach
        .as_ref()
        .and_then(|breach| breach.rule.as_ref());
    let command = finding.command().and_then(|command| command.name.as_ref());
    for name in rule.into_iter().chain(command) {
        let _ = write!(key, " {name}");
    }
    key
}

fn write_stack(key: &mut String, frames: &[u64]) {
    for frame in frames {
        let _ = write!(key, " {frame:x}");
    }
}
