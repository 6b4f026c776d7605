//! What was found, and when two finds are one.

use crate::asked::Asked;
use journal::Record;
use journal::event::{End, Event, Point, StackId};
use ledger::{Finding, Ledger, Party, Place};
use scenario::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::Hash;
use std::ops::Range;
use xxhash_rust::xxh3::Xxh3;

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

/// The driver refused a step, or to start.
#[derive(Clone, Debug)]
struct Refusal {
    /// By what and with which status.
    key: String,
    finding: &'static str,
    summary: String,
    /// A defect came before it, or a failure that was asked for.
    explained: bool,
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
    ended: bool,
    refusals: Vec<Refusal>,
    /// What the driver needs and dmasan lacks.
    unsupported: Option<String>,
    asked: Asked,
}

impl Judge {
    pub fn new() -> Self {
        Self {
            ledger: Ledger::terse(),
            events: 0,
            stops: Vec::new(),
            timeout: false,
            ended: false,
            refusals: Vec::new(),
            unsupported: None,
            asked: Asked::default(),
        }
    }

    /// One that knows what the scenario asks.
    pub fn by(plan: &Plan) -> Self {
        Self {
            asked: Asked::of(plan),
            ..Self::new()
        }
    }

    /// Take in what comes next in the journal; places of driver code in it
    /// are added to `places`.
    pub fn take(&mut self, records: &[Record], places: &mut BTreeSet<u64>) {
        for record in records {
            self.ledger.push(record);
            self.events = self.events.saturating_add(1);
            self.asked.take(&record.event);
            self.ended |= matches!(record.event, Event::End(_));
            match &record.event {
                Event::BugCheck(stop) if stop.finding.is_none() => self.stops.push(Stopped {
                    event: self.events,
                    code: stop.code,
                    reason: stop.reason.clone(),
                    stack: stop.stack,
                }),
                Event::Stack { frames, .. } => places.extend(frames),
                Event::Refused { step, status } => {
                    // "1 (create)": another step of the kind is refused alike.
                    let kind = step.split_once(' ').map_or(step.as_str(), |(_, kind)| kind);
                    let why = format!("it refuses step {step} with {status:#010x}");
                    self.refuses("workload-refused", &format!("{kind} {status:#x}"), why);
                }
                Event::End(End::OutOfTime { .. }) => self.timeout = true,
                Event::End(End::StartFailed { routine, status }) => {
                    let why = format!("{routine} returns {status:#010x}");
                    self.refuses("start-failed", &format!("{routine} {status:#x}"), why);
                }
                Event::End(End::Unsupported { reason, .. }) => {
                    self.unsupported = Some(reason.clone());
                }
                _ => {}
            }
        }
    }

    fn refuses(&mut self, finding: &'static str, what: &str, summary: String) {
        let defects = self.ledger.findings().len() + self.stops.len();
        self.refusals.push(Refusal {
            key: format!("{finding} {what}"),
            finding,
            summary,
            explained: defects > 0 || self.asked.disturbed(),
        });
    }

    /// A digest of what of the past later defects depend on.
    pub fn digest(&self) -> u128 {
        let mut hasher = Xxh3::new();
        self.ledger.digest().hash(&mut hasher);
        self.asked.hash(&mut hasher);
        for refusal in &self.refusals {
            refusal.key.hash(&mut hasher);
        }
        hasher.digest128()
    }

    /// Did the host's clock end the run?
    pub fn timeout(&self) -> bool {
        self.timeout
    }

    /// Why the driver did not get through all that it was made to do, where
    /// no fault kept it from that.
    pub fn unfinished(&self) -> Option<&str> {
        let refusals = self.refusals.iter();
        let mut own = refusals.filter(|refusal| !refusal.explained);
        self.unsupported()
            .or_else(|| own.next().map(|refusal| &*refusal.summary))
    }

    /// What the driver needs and dmasan lacks.
    pub fn unsupported(&self) -> Option<&str> {
        self.unsupported.as_deref()
    }

    /// What the driver refused, by what stands for it.
    pub fn refused(&self) -> BTreeSet<String> {
        let keys = self.refusals.iter().map(|refusal| refusal.key.clone());
        keys.collect()
    }

    /// The scenario's faults that were injected.
    pub fn fired(&self) -> &BTreeSet<u32> {
        self.asked.fired()
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

    /// What is wrong so far, by identity. What the driver refuses is, unless
    /// something explains it: a finding, a failure that was asked for, or that
    /// it `refuses` that in the default order too.
    pub fn defects(
        &self,
        schedule: &[Deviation],
        refuses: &BTreeSet<String>,
    ) -> Vec<(String, Defect)> {
        let defect = |finding: &str, summary: &str| Defect {
            finding: finding.to_owned(),
            summary: summary.to_owned(),
            schedule: schedule.to_vec(),
        };
        let made = self.ledger.findings().iter();
        let findings = made.filter(|finding| !self.asked.expects(finding.kind.id()));
        let findings = findings.map(|finding| {
            let made = defect(finding.kind.id(), &finding.summary);
            (identity(finding), made)
        });
        let stops = self.own_stops().map(|stop| {
            let mut key = format!("bug-check {:#x}", stop.code);
            write_stack(&mut key, self.ledger.stack(stop.stack));
            (key, defect("bug-check", &stop.reason))
        });
        let mut defects: Vec<_> = findings.chain(stops).collect();
        for refusal in &self.refusals {
            let explained = refusal.explained || self.asked.lists_findings();
            if !explained && !refuses.contains(&refusal.key) {
                let made = defect(refusal.finding, &refusal.summary);
                defects.push((refusal.key.clone(), made));
            }
        }
        if self.ended && self.unsupported.is_none() {
            let broken = self.asked.broken(&self.ledger).into_iter();
            defects.extend(broken.map(|(key, why)| (key, defect("verify", &why))));
        }
        defects
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
