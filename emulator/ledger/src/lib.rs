//! The ledger: joins the lifetimes of pages with the state of the IOMMU and
//! says what differences mean.
//!
//! Its only input is events ([`Ledger::push`]), so it finds the same in a run
//! that goes on, in a journal read again and in one from another machine.
//! Events may come from a damaged or forged journal: every table has a limit,
//! and what contradicts is counted and left aside.
//!
//! Decisions that the specification of the findings leaves open:
//! - An access through a stale translation to a freed page is two findings,
//!   for mending one of the two defects leaves the other. `stale-iotlb` comes
//!   first and is the operating system's: without it nothing would have
//!   happened to memory. `dma-use-after-free` is the driver's: with the
//!   invalidation in place the access would have been refused, and Windows
//!   would have stopped.
//! - Between the clearing of an entry and the end of the routine that clears
//!   it the old translation may be used: the invalidation is still to come.
//!   Such an access is judged when the routine is over.
//! - A page that was given out again is its new owner's. An access meant for
//!   the old owner is told from one meant for the new by what the device keeps:
//!   the backing of the command's resource, or the areas of a queue, and whose
//!   each page was when the device was told of it.
//! - During exclusive access a refused access is that finding alone: that it
//!   was refused too is what exclusive access is for.
//! - What a guest tells of its memory ([`journal::event::Claim`]) is hostile
//!   input: it adds findings that say so, and changes none.
//! - Where nothing is isolated, memory that was never the driver's, or that
//!   no mapping covers, is only a finding if the driver reported that it
//!   supports isolation: then it promised to use mapped memory alone.
#![forbid(unsafe_code)]

mod apply;
mod backings;
mod breach;
mod claims;
mod clues;
mod commands;
mod digest;
mod facts;
mod finding;
mod history;
mod injected;
mod iotlb;
mod judge;
mod lives;
mod mappings;
mod mdls;
mod mirror;
mod pages;
mod record;
pub mod spec;
mod surroundings;
#[cfg(test)]
mod tests;
mod text;
mod verdict;
mod watch;

pub use facts::Facts;
pub use finding::{
    AccessFacts, AllocationFacts, Blame, BreachFacts, ClaimFacts, Clue, ClueKind, Command, Finding,
    Kind, MdlFacts, Neighbour, Outcome, Ownership, Party, Place, QueueArea, QueuePart, Reach,
    Refusal, Stop, Surroundings,
};
pub use history::{Moment, Step, Told};
pub use text::span;

use backings::Backings;
use breach::Open;
use claims::Claims;
use clues::Clues;
use commands::Commands;
use digest::Stack;
use history::{History, Invalidations};
use injected::Injections;
use iotlb::Iotlb;
use journal::Record;
use journal::event::{AllocationKind, ContextId, Event, PageRun, StackId};
use mappings::Mappings;
use mdls::Mdls;
use memory::{Gpa, Iova, RequesterId};
use mirror::Mirror;
use pages::Pages;
use spec::ContextEntry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One allocation, as long as a page of it has no other owner.
#[derive(Clone, Debug)]
struct Allocation {
    kind: AllocationKind,
    handle: u64,
    address: u64,
    runs: Vec<PageRun>,
    /// Pages that were asked for.
    requested: u64,
    allocated: (u64, StackId),
    freed: Option<(u64, StackId)>,
    /// Pages whose last owner it is.
    remaining: u64,
}

/// An access as its event tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    event: u32,
    time: u64,
    context: ContextId,
    device: RequesterId,
    iova: Iova,
    length: u32,
    write: bool,
}

/// How an access was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    gpa: Gpa,
    generation: u32,
    cached: bool,
}

/// An access in flight.
#[derive(Clone, Copy, Debug)]
struct Flight {
    access: Access,
    route: Route,
    /// Owner of the page at the issue.
    owner: Option<u32>,
    /// Event at which that allocation was freed.
    freed: Option<u32>,
}

/// An access by an old translation whose invalidation may be still to come.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    access: Access,
    route: Route,
    domain: u16,
    changed: u32,
}

/// What makes findings one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    /// Where the command was submitted, or the rule was broken.
    used: Option<StackId>,
    /// Where the allocation was made; its id where that is not known. What
    /// happens to several that were made in one place has one cause.
    allocated: Option<(StackId, u32)>,
    freed: Option<StackId>,
    /// What it is about, where nothing else tells breaches or accesses apart;
    /// else 0.
    address: u64,
    /// The tag of the guest's claim that it rests on.
    claim: Option<u32>,
}

/// See the crate's documentation.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// It keeps no history of pages.
    terse: bool,
    facts: Facts,
    /// Number of the latest event, from 1; stays at its maximum.
    event: u32,
    time: u64,
    names: BTreeMap<u32, String>,
    stacks: BTreeMap<u32, Stack>,
    /// The run's default for devices whose context entry is not known.
    passthrough: bool,
    /// Every page is mapped at its physical address, whatever is freed.
    forced: bool,
    /// The run isolates nothing.
    unisolated: bool,
    /// The driver reported `IoMmuSecureModeSupported`.
    secure: bool,
    /// Exclusive access has begun.
    exclusive: bool,
    default_device: RequesterId,
    contexts: BTreeMap<RequesterId, ContextEntry>,
    domains: BTreeSet<u16>,
    pages: Pages,
    mappings: Mappings,
    mirror: Mirror,
    invalidations: Invalidations,
    iotlb: Iotlb,
    mdls: Mdls,
    /// What the guest told.
    claims: Claims,
    backings: Backings,
    histories: BTreeMap<u64, History>,
    /// The latest pages that left the quarantine, oldest first.
    recycled: VecDeque<u64>,
    commands: Commands,
    /// The routines that are running.
    open: Open,
    clues: Clues,
    allocations: BTreeMap<u32, Allocation>,
    /// The latest freed allocations all of whose pages have other owners.
    displaced: BTreeMap<u32, Allocation>,
    /// Live allocations that are smaller than was asked for.
    partials: BTreeSet<u32>,
    flights: BTreeMap<u32, Flight>,
    injections: Injections,
    suspects: Vec<Suspect>,
    /// The latest event that ended a routine of Windows.
    settled: u32,
    /// A fault whose access is still to be told.
    fault: Option<(ContextId, RequesterId, Iova, bool, Refusal)>,
    /// The finding of a refused access whose fault is still to be told.
    unexplained: Option<(Access, usize)>,
    findings: Vec<Finding>,
    keys: BTreeMap<Key, usize>,
    /// The allocations of each finding, as many as are counted.
    members: Vec<BTreeSet<u32>>,
    /// The latest access that neither stack nor allocation tells apart from
    /// others: its command, and the page that does.
    nameless: Option<(ContextId, u64)>,
    /// The finding of this exclusive access that no command is known for.
    quiet: Option<(Key, usize)>,
    /// Finding of the latest refused access; and the same for each page.
    refused: Option<usize>,
    refusals: BTreeMap<u64, usize>,
    /// Finding that a bug check answers, by the bug check's event.
    causes: BTreeMap<u32, usize>,
    /// Units of work that the events so far have paid for.
    budget: u64,
}

/// A point to come back to: see [`Ledger::save`].
#[derive(Clone, Debug)]
pub struct State(Ledger);

/// Work that each event pays for: a journal of n events costs O(n), however
/// many pages its events name.
const WORK_PER_EVENT: u64 = 4_096;
/// Work that may be saved up, and that a run begins with.
const MAX_WORK: u64 = 1 << 20;

impl Ledger {
    /// A ledger that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            budget: MAX_WORK,
            ..Self::default()
        }
    }

    /// The same, for who wants to know what is found and not how it came to
    /// that: findings have no history, and a copy of the ledger is cheap.
    #[must_use]
    pub fn terse() -> Self {
        Self {
            terse: true,
            ..Self::new()
        }
    }

    /// Take the next event.
    pub fn push(&mut self, record: &Record) {
        self.event = self.event.saturating_add(1);
        self.time = record.time;
        self.facts.time = self.facts.time.max(record.time);
        self.facts.events = self.facts.events.saturating_add(1);
        // A claim has work of its own.
        if !matches!(record.event, Event::Claim(_)) {
            self.budget = self.budget.saturating_add(WORK_PER_EVENT).min(MAX_WORK);
        }
        self.apply(&record.event);
    }

    /// What was found so far, in the order of its first access.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Index of the finding that the bug check told by event number `event`
    /// (from 1) answers.
    #[must_use]
    pub fn cause(&self, event: u32) -> Option<usize> {
        self.causes.get(&event).copied()
    }

    /// What happened so far, in numbers.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The allocations that are not freed yet, oldest first, at most `limit`.
    #[must_use]
    pub fn live(&self, limit: usize) -> Vec<AllocationFacts> {
        self.allocations
            .iter()
            .filter(|(_, allocation)| allocation.freed.is_none())
            .take(limit)
            .map(|(&id, allocation)| self.describe(id, allocation, None))
            .collect()
    }

    /// Bytes of the tables that grow with guest memory: pages and mappings.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.pages.bytes() + self.mappings.bytes()
    }

    /// A point to come back to.
    #[must_use]
    pub fn save(&self) -> State {
        State(self.clone())
    }

    /// Go back to a point.
    pub fn restore(&mut self, state: &State) {
        self.clone_from(&state.0);
    }

    /// The frames of a stack that was told, innermost first.
    #[must_use]
    pub fn stack(&self, id: StackId) -> &[u64] {
        self.stacks
            .get(&id.0)
            .map_or(&[], |stack| stack.frames.as_slice())
    }

    /// The domain that a device's requests are translated in.
    fn domain_of(&self, device: RequesterId) -> Option<u16> {
        match self.contexts.get(&device) {
            Some(entry) if entry.present() => Some(entry.domain()),
            // Where there is one domain only, it is that one.
            _ if self.domains.len() == 1 => self.domains.first().copied(),
            _ => None,
        }
    }

    /// Do a device's requests bypass the tables?
    fn passes_through(&self, device: RequesterId) -> bool {
        match self.contexts.get(&device) {
            Some(entry) => entry.present() && entry.passthrough(),
            None => self.passthrough,
        }
    }

    fn place(&self, (time, stack): (u64, StackId)) -> Place {
        let stack = self.stack(stack).to_vec();
        Place { time, stack }
    }

    /// What is known of an allocation, freed or not.
    fn record(&self, id: u32) -> Option<&Allocation> {
        self.allocations
            .get(&id)
            .or_else(|| self.displaced.get(&id))
    }

    /// An allocation as a finding about the frame `pfn` shows it.
    fn describe(&self, id: u32, allocation: &Allocation, pfn: Option<u64>) -> AllocationFacts {
        AllocationFacts {
            id: journal::event::AllocationId(id),
            kind: allocation.kind,
            handle: allocation.handle,
            address: allocation.address,
            pages: pages::count(&allocation.runs),
            page_index: pfn.and_then(|pfn| page_index(&allocation.runs, pfn)),
            allocated: self.place(allocation.allocated),
            freed: allocation.freed.map(|freed| self.place(freed)),
        }
    }
}

/// Index of a frame in an MDL.
fn page_index(runs: &[PageRun], pfn: u64) -> Option<u64> {
    let mut before = 0u64;
    for run in runs {
        if let Some(offset) = pfn.checked_sub(run.first.0)
            && offset < run.count
        {
            return before.checked_add(offset);
        }
        before = before.saturating_add(run.count);
    }
    None
}
