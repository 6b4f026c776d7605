//! What was found, and when two finds are one.

use journal::Record;
use journal::event::{End, Event, Point, StackId};
use ledger::{Finding, Ledger, Party, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

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
            (What::Device, 0) => "the device takes a step",
            (What::Device, 1) => "the device waits for the next trap",
            (What::Device, 2) => "the device waits until the driver does",
            (What::Device, _) => "the device does all it can",
            (What::Interrupt, 0) => "the interrupt comes at once",
            (What::Interrupt, 1) => "the interrupt comes a trap later",
            (What::Interrupt, _) => "the interrupt comes when the driver waits",
            (What::Dpc, 0) => "the DPC runs at once",
            (What::Dpc, 1) => "the DPC runs a trap later",
            (What::Dpc, _) => "the DPC runs when the driver waits",
            (What::Thread, 0) => "the thread goes on",
            (What::Thread, _) => "another thread gets the processor",
            (What::Access, 0) => "the access lands at once",
            (What::Access, _) => "the access lands late",
            (What::Fail, 0) => "there is memory for what the driver asks for",
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

/// Did the host's clock end a run that ended so?
pub(crate) fn is_timeout(end: &End) -> bool {
    matches!(end, End::OutOfTime { .. })
}

/// A bug check that no breach of a rule explains.
#[derive(Clone, Debug)]
struct Stopped {
    /// Number of its event, from 1.
    event: u32,
    code: u32,
    reason: String,
    stack: StackId,
}

/// A defect as the fuzzer tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// What stands for it.
    pub key: String,
    /// Identifier of the finding, or `bug-check`.
    pub finding: String,
    /// What happened, in a sentence.
    pub summary: String,
    /// Where the function of the driver begins that it is in.
    pub function: Option<u64>,
    /// The driver did it, by a call or an instruction: it is not about what
    /// the device reaches.
    pub own_act: bool,
    /// The scenario is to blame, as the ledger says.
    pub injected: bool,
}

/// Bug checks that are about a device's access, or about the IOMMU:
/// DRIVER_VERIFIER_DMA_VIOLATION, HAL_IOMMU_INTERNAL_ERROR.
const OF_THE_IOMMU: [u32; 2] = [0xE6, 0x1D9];

/// The innermost function of the driver on a stack: where it begins.
fn function_of(stack: &[u64], functions: &[Range<u64>]) -> Option<u64> {
    let within = |address: u64| {
        let after = functions.partition_point(|function| function.start <= address);
        let function = functions.get(after.checked_sub(1)?)?;
        function.contains(&address).then_some(function.start)
    };
    // All but the innermost are where a call returns to, which may be behind
    // the end of the function.
    let (innermost, callers) = stack.split_first()?;
    within(*innermost).or_else(|| callers.iter().find_map(|at| within(at.saturating_sub(1))))
}

/// Judges a run as it goes on: what its journal says is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    ledger: Ledger,
    events: u32,
    stops: Vec<Stopped>,
    timeout: bool,
    unfinished: Option<String>,
}

impl Judge {
    pub fn new() -> Self {
        Self {
            ledger: Ledger::terse(),
            events: 0,
            stops: Vec::new(),
            timeout: false,
            unfinished: None,
        }
    }

    /// Take in what comes next in the journal; places of driver code in it
    /// are added to `places`.
    pub fn take(&mut self, records: &[Record], places: &mut BTreeSet<u64>) {
        for record in records {
            self.ledger.push(record);
            self.events = self.events.saturating_add(1);
            match &record.event {
                Event::BugCheck(stop) if stop.finding.is_none() => self.stops.push(Stopped {
                    event: self.events,
                    code: stop.code,
                    reason: stop.reason.clone(),
                    stack: stop.stack,
                }),
                Event::Stack { frames, .. } => places.extend(frames),
                Event::Refused { step, status } => {
                    self.unfinished = Some(format!("it refuses step {step} with {status:#010x}"));
                }
                Event::End(End::OutOfTime { .. }) => self.timeout = true,
                Event::End(End::StartFailed { routine, status }) => {
                    self.unfinished = Some(format!("{routine} returns {status:#010x}"));
                }
                Event::End(End::Unsupported { reason, .. }) => {
                    self.unfinished = Some(reason.clone());
                }
                _ => {}
            }
        }
    }

    /// A digest of what of the past later defects depend on.
    pub fn digest(&self) -> u128 {
        self.ledger.digest()
    }

    /// Did the host's clock end the run?
    pub fn timeout(&self) -> bool {
        self.timeout
    }

    /// Why the driver did not get through all that it was made to do, if it
    /// is no defect that kept it from that.
    pub fn unfinished(&self) -> Option<&str> {
        self.unfinished.as_deref()
    }

    /// What is wrong so far, by finding and function of the driver: what two
    /// inputs, or two calls in one function, have in common.
    pub fn groups(&self, functions: &[Range<u64>]) -> Vec<Group> {
        if self.timeout {
            return Vec::new();
        }
        let group = |finding: &str, what: Option<&str>, summary: &str, stacks: &[&[u64]]| {
            let mut at = stacks.iter();
            let function = at.find_map(|stack| function_of(stack, functions));
            let mut key = finding.to_owned();
            if let Some(name) = what {
                let _ = write!(key, " {name}");
            }
            if let Some(function) = function {
                let _ = write!(key, " in {function:x}");
            }
            Group {
                key,
                finding: finding.to_owned(),
                summary: summary.to_owned(),
                function,
                own_act: true,
                injected: false,
            }
        };
        let findings = self.ledger.findings().iter().map(|of| {
            let stack = |place: Option<&Place>| place.map_or(Vec::new(), |at| at.stack.clone());
            let object = of.allocation.as_ref();
            let freed = stack(object.and_then(|object| object.freed.as_ref()));
            let used = stack(of.used());
            let allocated = stack(object.map(|object| &object.allocated));
            // Where a rule was broken; of an access what must change first.
            let stacks = match of.breach.is_some() {
                true => [used, freed, allocated],
                false => [freed, used, allocated],
            };
            let rule = of.breach.as_ref().and_then(|breach| breach.rule.as_deref());
            let command = of.command().and_then(|command| command.name.as_deref());
            let stacks: Vec<&[u64]> = stacks.iter().map(Vec::as_slice).collect();
            let blamed = of.blame.first().map(|blame| blame.party);
            Group {
                own_act: of.breach.is_some(),
                injected: blamed == Some(Party::Injected),
                ..group(of.kind.id(), rule.or(command), &of.summary, &stacks)
            }
        });
        let stops = self.own_stops().map(|stop| {
            let code = format!("{:#x}", stop.code);
            let stack = self.ledger.stack(stop.stack);
            Group {
                own_act: !OF_THE_IOMMU.contains(&stop.code),
                ..group("bug-check", Some(&code), &stop.reason, &[stack])
            }
        });
        findings.chain(stops).collect()
    }

    /// Bug checks that no finding explains are defects too.
    fn own_stops(&self) -> impl Iterator<Item = &Stopped> {
        let own = |stop: &&Stopped| self.ledger.cause(stop.event).is_none();
        self.stops.iter().filter(own)
    }

    /// What is wrong so far, by identity.
    pub fn defects(&self, schedule: &[Deviation]) -> Vec<(String, Defect)> {
        if self.timeout {
            // A hang by the host's clock depends on the host: it says nothing.
            return Vec::new();
        }
        let defect = |finding: &str, summary: &str| Defect {
            finding: finding.to_owned(),
            summary: summary.to_owned(),
            schedule: schedule.to_vec(),
        };
        let findings = self.ledger.findings().iter();
        let findings = findings.map(|finding| {
            let made = defect(finding.kind.id(), &finding.summary);
            (identity(finding), made)
        });
        let stops = self.own_stops().map(|stop| {
            let mut key = format!("bug-check {:#x}", stop.code);
            write_stack(&mut key, self.ledger.stack(stop.stack));
            (key, defect("bug-check", &stop.reason))
        });
        findings.chain(stops).collect()
    }
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
