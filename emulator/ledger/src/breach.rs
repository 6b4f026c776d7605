//! Rules that were broken: findings without an access of the device.

use crate::finding::{BreachFacts, Clue, Finding, Kind};
use crate::history;
use crate::record::MAX_REASON;
use crate::text::short;
use crate::{Key, Ledger, verdict};
use journal::event::{self, Certainty, NameId, StackId, Subject};

/// Routines that run at a time.
const MAX_OPEN: usize = 256;
/// Characters of a rule's name.
const MAX_RULE: usize = 80;

/// The routines that are running, innermost last: of the driver (true) or of
/// Windows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Vec<(bool, NameId)>);

impl Open {
    pub(crate) fn enter(&mut self, driver: bool, name: NameId) {
        if self.0.len() < MAX_OPEN {
            self.0.push((driver, name));
        }
    }

    /// The innermost one of that name is over, and all within it; threads may
    /// end them in another order than they began.
    pub(crate) fn leave(&mut self, driver: bool, name: NameId) {
        if let Some(at) = self.0.iter().rposition(|open| *open == (driver, name)) {
            self.0.truncate(at);
        }
    }

    fn innermost(&self) -> Option<NameId> {
        self.0.last().map(|(_, name)| *name)
    }
}

/// A breach, however it was told.
struct Told<'a> {
    kind: Kind,
    rule: Option<&'a str>,
    reason: &'a str,
    certainty: Certainty,
    status: Option<u32>,
    subject: Subject,
    stack: StackId,
}

impl Ledger {
    /// A rule was broken, and Windows goes on.
    pub(crate) fn breached(&mut self, breach: &event::Breach) {
        let Some(kind) = self.kind_of(&breach.finding) else {
            return;
        };
        self.broken(&Told {
            kind,
            rule: Some(&breach.rule),
            reason: &breach.reason,
            certainty: breach.certainty,
            status: breach.status,
            subject: breach.subject,
            stack: breach.stack,
        });
    }

    /// The same, and Windows stops.
    pub(crate) fn stopped_by_rule(&mut self, stop: &event::BugCheck) -> Option<usize> {
        let kind = self.kind_of(stop.finding.as_deref()?)?;
        self.broken(&Told {
            kind,
            rule: stop.rule.as_deref(),
            reason: &stop.reason,
            certainty: stop.certainty,
            status: None,
            subject: stop.subject,
            stack: stop.stack,
        })
    }

    /// The run ended because the driver did not come to an end.
    pub(crate) fn hung(&mut self, reason: &str, stack: StackId) {
        self.broken(&Told {
            kind: Kind::Hang,
            rule: None,
            reason,
            certainty: Certainty::Inferred,
            status: None,
            subject: Subject::default(),
            stack,
        });
    }

    fn kind_of(&mut self, id: &str) -> Option<Kind> {
        let kind = Kind::find(id);
        if kind.is_none() {
            self.facts.unknown_findings += 1;
        }
        kind
    }

    fn broken(&mut self, told: &Told<'_>) -> Option<usize> {
        let allocation = told.subject.allocation.map(|id| id.0);
        let distinct = allocation.is_none() && told.stack == StackId(0);
        let key = Key {
            kind: told.kind,
            used: Some(told.stack),
            allocated: self.made(allocation),
            freed: None,
            address: if distinct { told.subject.address } else { 0 },
            claim: None,
        };
        if let Some(index) = self.again(&key, allocation, self.time) {
            return Some(index);
        }
        let routine = self.open.innermost();
        let routine = routine.and_then(|name| self.names.get(&name.0)).cloned();
        let record = allocation.and_then(|id| Some((id, self.record(id)?)));
        let first = record
            .and_then(|(_, record)| record.runs.first())
            .map(|run| run.first.0);
        let mut finding = Finding {
            kind: told.kind,
            summary: String::new(),
            count: 1,
            time: self.time,
            last_time: self.time,
            access: None,
            breach: None,
            allocations: u64::from(record.is_some()),
            claim: None,
            clues: self.clues_to(told),
            allocation: record.map(|(id, record)| self.describe(id, record, None)),
            blame: Vec::new(),
            stop: None,
            history: first
                .and_then(|pfn| self.histories.get(&pfn))
                .map_or_else(history::Told::default, |history| {
                    history.told(&self.invalidations)
                }),
            related: Vec::new(),
        };
        let breach = BreachFacts {
            rule: told.rule.map(|rule| short(rule, MAX_RULE)),
            routine,
            address: told.subject.address,
            status: told.status,
            place: self.place((self.time, told.stack)),
            certainty: told.certainty,
            reason: short(told.reason, MAX_REASON),
        };
        finding.summary = summary(told.kind, &breach);
        finding.blame = vec![verdict::driver(blame(told.kind).into())];
        finding.breach = Some(breach);
        self.keep(key, finding)
    }

    /// What the driver did earlier that led to the breach.
    fn clues_to(&self, told: &Told<'_>) -> Vec<Clue> {
        let place = |at| self.place(at);
        let name = |id| self.named(id);
        let subject = told.subject;
        let freed = subject
            .allocation
            .and_then(|id| self.record(id.0))
            .is_some_and(|record| record.freed.is_some());
        let clue = match told.kind {
            Kind::WrongIrql => self.clues.raised(name, place),
            Kind::MdlUseAfterFree => self.clues.released(subject.address, name, place),
            // The allocation tells it already.
            Kind::DoubleFree | Kind::CpuUseAfterFree if freed => None,
            Kind::DoubleFree | Kind::CpuUseAfterFree => {
                self.clues.released(subject.address, name, place)
            }
            Kind::MappedAfterFree => self.clues.user_mapped(subject.address, place),
            _ => None,
        };
        clue.into_iter().collect()
    }
}

/// What happened where a rule was broken, in a sentence.
fn summary(kind: Kind, breach: &BreachFacts) -> String {
    let routine = breach.routine.as_deref().unwrap_or("a routine");
    match kind {
        Kind::DoubleFree => format!("{routine}: what it is to free was freed before"),
        Kind::ForeignMdl => {
            format!("{routine} was given an MDL or a handle that is not of its kind")
        }
        Kind::MdlNotReleased => "an MDL was never released with ExFreePool".to_owned(),
        Kind::MemoryLeak => "memory was left when the driver was unloaded".to_owned(),
        Kind::MdlUseAfterFree => {
            format!("{routine}: an MDL was used after it was freed, or freed while in use")
        }
        Kind::PartialAllocationIgnored => {
            "Windows gave fewer pages than were asked for, and the driver used those that it did \
             not get"
                .to_owned()
        }
        Kind::WrongIrql => format!("{routine} was called at an IRQL at which it may not be"),
        Kind::HandleLeak => {
            "a handle of dxgkrnl's was still open when the adapter was stopped".to_owned()
        }
        Kind::ImportForbidden => {
            "the driver declares that it supports IOMMU isolation, and imports a routine that \
             such a driver may not"
                .to_owned()
        }
        Kind::CpuUseAfterFree => {
            "the CPU used memory that the driver had freed or unmapped".to_owned()
        }
        Kind::MappedAfterFree => {
            format!("{routine}: the pages were freed while a mapping still led to them")
        }
        Kind::Hang => "the driver went on for longer than it may".to_owned(),
        _ => format!("{routine}: a rule was broken"),
    }
}

/// Why a broken rule is the driver's defect.
fn blame(kind: Kind) -> &'static str {
    match kind {
        Kind::DoubleFree => "it frees the same memory in two places, or twice in one",
        Kind::ForeignMdl => {
            "it frees with a routine of another family, or passes a copy or an address inside of \
             what the allocation returned"
        }
        Kind::MdlNotReleased => {
            "pages and MDL are two things: MmFreePagesFromMdl frees the pages, and the MDL itself \
             is pool that the driver must free"
        }
        Kind::MemoryLeak => "it unloads without a free of all that it allocated",
        Kind::MdlUseAfterFree => "it frees the MDL before whoever still needs it is done with it",
        Kind::PartialAllocationIgnored => {
            "it takes the size that it asked for; the MDL's byte count says what it got"
        }
        Kind::WrongIrql => "it calls the routine from a place where the IRQL is not the right one",
        Kind::HandleLeak => "its DxgkDdiStopDevice does not give back all that it was given",
        Kind::ImportForbidden => {
            "memory that such routines give or map is not in the device's domain"
        }
        Kind::CpuUseAfterFree => "it keeps a pointer to memory that it has freed or unmapped",
        Kind::MappedAfterFree => "it frees the pages before it takes the user mapping away",
        Kind::Hang => "it waits or loops without a limit",
        _ => "it broke the rule",
    }
}
