//! Rebuilding.

use crate::compare::{Comparison, Difference};
use iommu::{Env, FaultReason, Request, Unit};
use journal::Journal;
use journal::event::{Event, Outcome, Record, Table};
use ledger::Ledger;
use memory::{Gpa, GuestMemory};
use scenario::{Plan, Scenario};
use std::collections::BTreeSet;
use thiserror::Error;

/// Most guest memory that a journal may ask for, bytes. It is sparse: only
/// what the tables use is ever touched.
const MAX_MEMORY: u64 = 1 << 40;

/// Words of the rebuilt IOMMU beyond the number of records. An honest journal
/// has them all; a forged one may make a write of the queue's tail say
/// thousands, again and again.
const MAX_EXCESS: usize = 1 << 16;
/// Pages of guest memory that are written: 1 GiB, tables for 256 GiB mapped.
const MAX_PAGES: usize = 1 << 18;

/// Why a journal cannot be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// It does not begin with its settings.
    #[error("the journal does not begin with a run's settings: nothing to rebuild")]
    NoBegin,
    /// It wants impossible memory.
    #[error("the journal is of a machine with {0} bytes of memory: that cannot be")]
    Memory(u64),
    /// It makes the IOMMU do more than any run does.
    #[error("record {record}: {what}: the journal is damaged or forged")]
    Runaway {
        /// Index of the record.
        record: usize,
        /// What there is too much of.
        what: &'static str,
    },
    /// Its scenario made the IOMMU err.
    #[error(
        "record {record}: the run's scenario made the IOMMU err ({site}): there is nothing to \
         compare it with; dmasan report shows the journal"
    )]
    Injected {
        /// Index of the record.
        record: usize,
        /// Where.
        site: String,
    },
    /// The host gave no memory.
    #[error(transparent)]
    Host(#[from] memory::MemoryError),
}

/// What a replay found.
#[derive(Debug)]
pub struct Replayed {
    /// The journal's records with everything that the IOMMU says recomputed.
    pub records: Vec<Record>,
    /// Findings of the ledger over them.
    pub ledger: Ledger,
    /// Accesses translated anew.
    pub accesses: u64,
    /// Words of the IOMMU that were compared.
    pub compared: u64,
    /// How many differ.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Table entries that were not what the OS had last written: somebody
    /// else changed them.
    pub edited: u64,
}

/// Is the event something that the IOMMU itself says?
fn is_word_of_the_iommu(event: &Event) -> bool {
    matches!(
        event,
        Event::Descriptor { .. }
            | Event::Invalidate { .. }
            | Event::WaitDone { .. }
            | Event::Fill { .. }
            | Event::Fault { .. }
    )
}

/// Is it a refusal that the IOMMU has no part in?
fn not_by_the_iommu(event: &Event) -> bool {
    matches!(event, Event::Fault { reason, .. }
        if *reason == FaultReason::BusMasterDisabled.code()
            || *reason == FaultReason::NotMemory.code())
}

/// Rebuild the run of `records`.
///
/// # Errors
/// [`ReplayError`]. A journal that contradicts itself is no error: the
/// contradictions are what is told.
pub fn replay(records: &[Record]) -> Result<Replayed, ReplayError> {
    let Some(Record {
        event: Event::Begin(begin),
        ..
    }) = records.first()
    else {
        return Err(ReplayError::NoBegin);
    };
    if begin.memory > MAX_MEMORY {
        return Err(ReplayError::Memory(begin.memory));
    }
    if let Some((record, site)) = bent(records) {
        return Err(ReplayError::Injected { record, site });
    }
    let mut rebuild = Rebuild {
        memory: GuestMemory::new(begin.memory)?,
        scenario: Scenario::new(Plan::default(), Journal::in_memory()),
        unit: Unit::new(),
        comparison: Comparison::default(),
        ledger: Ledger::new(),
        accesses: 0,
        edited: 0,
        held: None,
        words: 0,
        pages: BTreeSet::new(),
        out: Vec::with_capacity(records.len()),
    };
    for (index, record) in records.iter().enumerate() {
        rebuild.record(index, record);
        rebuild.check(index, records.len())?;
    }
    rebuild.let_go();
    rebuild.comparison.settle(records.len());
    Ok(Replayed {
        records: rebuild.out,
        ledger: rebuild.ledger,
        accesses: rebuild.accesses,
        compared: rebuild.comparison.compared,
        differing: rebuild.comparison.differing,
        differences: rebuild.comparison.kept,
        edited: rebuild.edited,
    })
}

/// The first fault that was injected into the IOMMU itself.
fn bent(records: &[Record]) -> Option<(usize, String)> {
    const SITES: [&str; 5] = ["entry", "fill", "evict", "descriptor", "fault-record"];
    records
        .iter()
        .enumerate()
        .find_map(|(record, r)| match &r.event {
            Event::Injected { site, .. } => {
                let kind = site.split(' ').next().unwrap_or_default();
                SITES.contains(&kind).then(|| (record, site.clone()))
            }
            _ => None,
        })
}

struct Rebuild {
    memory: GuestMemory,
    /// Only for the journal inside it, and for a plan that parts nothing.
    scenario: Scenario,
    unit: Unit,
    comparison: Comparison,
    ledger: Ledger,
    accesses: u64,
    edited: u64,
    /// A refusal that the IOMMU has no part in, until its access is told: what
    /// the IOMMU said of the same access comes first.
    held: Option<Record>,
    /// Words of the rebuilt IOMMU so far.
    words: usize,
    /// Pages that were written.
    pages: BTreeSet<u64>,
    out: Vec<Record>,
}

impl Rebuild {
    fn record(&mut self, index: usize, record: &Record) {
        let mut again = record.clone();
        if !matches!(record.event, Event::Access { .. }) {
            self.let_go();
        }
        match &record.event {
            Event::TableWrite {
                address,
                old,
                new,
                table,
            } => {
                self.expect(*address, *old, *table);
                self.write(*address, *new);
            }
            Event::RegisterWrite {
                offset,
                size,
                value,
            } => {
                self.comparison.settle(index);
                // The write comes first, what it brings about follows.
                self.push(again);
                self.scenario.journal().set_time(record.time);
                let env = Env {
                    memory: &self.memory,
                    scenario: &self.scenario,
                };
                self.unit.mmio_write(env, u64::from(*offset), *size, *value);
                self.listen(record.time, index);
                return;
            }
            Event::Fill { entry, value, .. } => {
                // The leaf as the walk read it. If memory here has another,
                // somebody wrote it whose writes are not in the journal.
                if self.memory.read_u64(*entry).ok() != Some(*value) {
                    self.edited += 1;
                    self.write(*entry, *value);
                }
                self.comparison.recorded(index, record.event.clone());
                return;
            }
            Event::Access {
                context,
                device,
                iova,
                length,
                write,
                outcome,
            } => {
                let request = Request {
                    device: *device,
                    context: *context,
                    iova: *iova,
                    length: *length,
                    write: *write,
                };
                self.access(index, record, request, *outcome, &mut again);
            }
            event if not_by_the_iommu(event) => {
                self.held = Some(again);
                return;
            }
            event if is_word_of_the_iommu(event) => {
                self.comparison.recorded(index, event.clone());
                return;
            }
            _ => {}
        }
        self.push(again);
    }

    fn check(&self, record: usize, records: usize) -> Result<(), ReplayError> {
        let what = if self.words > records.saturating_add(MAX_EXCESS) {
            "the rebuilt IOMMU says far more than the journal holds"
        } else if self.pages.len() > MAX_PAGES {
            "tables in more pages than any machine has"
        } else {
            return Ok(());
        };
        Err(ReplayError::Runaway { record, what })
    }

    fn write(&mut self, address: Gpa, value: u64) {
        self.pages.insert(address.page());
        // Outside RAM the original write went nowhere too.
        let _ = self.memory.write_u64(address, value);
    }

    fn let_go(&mut self) {
        if let Some(record) = self.held.take() {
            self.push(record);
        }
    }

    fn push(&mut self, record: Record) {
        self.ledger.push(&record);
        self.out.push(record);
    }

    /// An entry should hold what its writer says it held; a device or a test
    /// may have written it in between.
    fn expect(&mut self, address: Gpa, old: u64, table: Table) {
        // The status of a wait is written by the IOMMU itself.
        if !matches!(table, Table::Status) && self.memory.read_u64(address).ok() != Some(old) {
            self.edited += 1;
        }
    }

    fn access(
        &mut self,
        index: usize,
        record: &Record,
        request: Request,
        recorded: Outcome,
        again: &mut Record,
    ) {
        self.accesses += 1;
        let stopped = match self.held.as_ref().map(|held| &held.event) {
            Some(Event::Fault { reason, .. }) if recorded == Outcome::Refused => Some(*reason),
            _ => None,
        };
        // Without bus mastering the request never reached the IOMMU.
        if stopped == Some(FaultReason::BusMasterDisabled.code()) {
            self.let_go();
            return;
        }
        self.scenario.journal().set_time(record.time);
        let env = Env {
            memory: &self.memory,
            scenario: &self.scenario,
        };
        let translated = self.unit.translate(env, request);
        let outcome = match (translated, recorded) {
            (Err(_), _) => Outcome::Refused,
            // Translated, to where there is no RAM.
            (Ok(_), _) if stopped == Some(FaultReason::NotMemory.code()) => Outcome::Refused,
            (Ok(t), Outcome::InFlight { token, .. }) => Outcome::InFlight {
                token,
                gpa: t.gpa,
                generation: t.generation,
                cached: t.cached,
            },
            (Ok(t), _) => Outcome::Done {
                gpa: t.gpa,
                generation: t.generation,
                cached: t.cached,
            },
        };
        self.listen(record.time, index);
        self.let_go();
        if let Event::Access { outcome: place, .. } = &mut again.event {
            *place = outcome;
        }
        self.comparison.recorded(index, record.event.clone());
        self.comparison.rebuilt(again.event.clone());
        self.comparison.settle(index);
    }

    /// Take what the rebuilt IOMMU has said since the last time.
    fn listen(&mut self, time: u64, index: usize) {
        let journal = self.scenario.journal();
        let said = match journal::read(&journal.bytes()[..]) {
            Ok((records, _)) => records,
            Err(error) => {
                log::error!("record {index}: the rebuilt IOMMU's words are lost: {error}");
                Vec::new()
            }
        };
        journal.clear();
        for record in said {
            if is_word_of_the_iommu(&record.event) {
                self.words += 1;
                self.comparison.rebuilt(record.event.clone());
                self.push(Record {
                    time,
                    event: record.event,
                });
            }
        }
    }
}
