//! A report, before it is drawn.

use crate::check::Check;
use crate::triage::Triage;
use journal::Tail;
use journal::event::{Begin, BugCheck};
use ledger::{AllocationFacts, ClueKind, Facts, Finding, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// What a report says that is not in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The command line that repeats the run, if there is one.
    pub reproduce: Option<String>,
    /// How the journal ends.
    pub tail: Tail,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            reproduce: None,
            tail: Tail::Clean,
        }
    }
}

/// One line of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The address.
    pub address: u64,
    /// The image it is in.
    pub module: Option<String>,
    /// The function, if symbols say it.
    pub function: Option<String>,
    /// Bytes from the start of the function, or without one of the image.
    pub offset: u64,
    /// Source file.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// Was it inlined into the next line's function?
    pub inlined: bool,
}

/// A finding, with its stacks described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the ledger found; its texts are cleaned.
    pub finding: Finding,
    /// Where the command was submitted, or the rule was broken.
    pub used: Vec<Frame>,
    /// Where the memory was freed.
    pub freed: Vec<Frame>,
    /// Where it was allocated.
    pub allocated: Vec<Frame>,
    /// Where the allocation was made that has the page now.
    pub reused: Vec<Frame>,
    /// Where the driver asked for the physical address.
    pub origin: Vec<Frame>,
    /// Where the MDL was mapped for the device.
    pub mapped: Vec<Frame>,
    /// Where it was unmapped.
    pub unmapped: Vec<Frame>,
    /// What led to it: the stack of each of the finding's clues.
    pub clues: Vec<Vec<Frame>>,
    /// Commands that its history names, by context id.
    pub commands: BTreeMap<u32, String>,
    /// Stacks that its history names, by stack id.
    pub callers: BTreeMap<u32, Vec<Frame>>,
}

impl Found {
    /// Its stacks, and what each is: the place to look at first comes first.
    pub(crate) fn stacks(&self) -> Vec<(&'static str, &[Frame])> {
        let freed = ("freed here", &self.freed[..]);
        let allocated = ("allocated here", &self.allocated[..]);
        if self.finding.breach.is_some() {
            return vec![("the driver was here", &self.used[..]), freed, allocated];
        }
        let used = ("the command was submitted here", &self.used[..]);
        let mut stacks = match self.finding.kind {
            // The address itself is what is wrong.
            Kind::DmaInterruptRange | Kind::DmaRawPhysicalAddress => vec![
                (
                    "the queue was enabled here",
                    self.clue(ClueKind::QueueEnabled),
                ),
                ("the address was asked for here", &self.origin[..]),
                (
                    "the device was told the address here",
                    self.clue(ClueKind::Attached),
                ),
            ],
            Kind::PartialAllocationIgnored => vec![(
                "the device was told the address here",
                self.clue(ClueKind::Attached),
            )],
            _ => Vec::new(),
        };
        stacks.retain(|(_, stack)| !stack.is_empty());
        stacks.extend([freed, used, allocated]);
        stacks
    }

    /// The same without words.
    pub(crate) fn places(&self) -> Vec<&[Frame]> {
        self.stacks().into_iter().map(|(_, stack)| stack).collect()
    }

    /// The stack of a clue; empty where there is none.
    pub(crate) fn clue(&self, kind: ClueKind) -> &[Frame] {
        let clues = self.finding.clues.iter().zip(&self.clues);
        clues
            .filter(|(clue, _)| clue.kind == kind)
            .map(|(_, stack)| &stack[..])
            .next()
            .unwrap_or_default()
    }
}

/// A bug check of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Virtual time, nanoseconds.
    pub time: u64,
    /// The bug check; its text is cleaned.
    pub bug_check: BugCheck,
    /// Where the driver was.
    pub stack: Vec<Frame>,
    /// Index of the finding that made Windows stop, if one did.
    pub finding: Option<usize>,
}

/// An allocation that was not freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The allocation.
    pub allocation: AllocationFacts,
    /// Where it was made.
    pub stack: Vec<Frame>,
}

/// A line that the driver printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Virtual time, nanoseconds.
    pub time: u64,
    /// The text, cleaned.
    pub text: String,
}

/// How the run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The journal does not say: it ends before the run does.
    #[default]
    Unknown,
    /// The driver was unloaded, and nothing was left to do.
    Completed,
    /// The driver refused to start.
    StartFailed {
        /// In which routine.
        routine: String,
        /// The NTSTATUS that it returned.
        status: u32,
    },
    /// Windows stopped.
    BugCheck,
    /// The driver went on for longer than it may.
    Hang {
        /// What it was doing.
        reason: String,
        /// Where.
        stack: Vec<Frame>,
    },
    /// The driver did what the machine cannot do.
    Unsupported {
        /// What.
        reason: String,
        /// Where.
        stack: Vec<Frame>,
    },
    /// The user stopped it.
    Interrupted,
}

/// All that a report says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is not in the journal.
    pub meta: Meta,
    /// What was run, if the journal begins with it.
    pub begin: Option<Begin>,
    /// How it ended.
    pub ending: Ending,
    /// What was found.
    pub findings: Vec<Found>,
    /// Source files that are layers: three or more functions of other files
    /// call into them. Where one of their functions is the innermost, it says
    /// little.
    pub layers: BTreeSet<String>,
    /// Bug checks, the first of them.
    pub stops: Vec<Stopped>,
    /// Findings that further bug checks answer; `None` for those of none.
    pub omitted_stops: BTreeSet<Option<usize>>,
    /// What happened, in numbers.
    pub facts: Facts,
    /// Allocations that were not freed, the first of them.
    pub live: Vec<Live>,
    /// The last lines that the driver printed.
    pub printed: Vec<Printed>,
    /// What a reader must know about the run, cleaned.
    pub notes: Vec<String>,
    /// Did the driver refuse a step of the workload, so that later ones were
    /// not run?
    pub refused: bool,
    /// What the scenario asked of the run, and whether it is so.
    pub checks: Vec<Check>,
    /// Identifiers of the findings that the scenario says are to be made, if
    /// it does.
    pub expected: Option<Vec<String>>,
    /// What suppressions and a baseline say of it.
    pub triage: Triage,
}

impl Report {
    /// Did the driver do all that it was made to, to its end, with nothing
    /// found, and is all so that the scenario asks?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
            && self.stops.is_empty()
            && self.failed_checks().next().is_none()
            && !self.refused
            && self.ending == Ending::Completed
            && self.meta.tail == Tail::Clean
    }
}
