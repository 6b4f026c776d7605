//! What the ledger costs: bytes for each page of the guest, and time for each
//! event. `scripts/bench ledger` runs it.

use bench::{Goal, Peer, Row, race};
use journal::event::{
    Allocation, AllocationId, AllocationKind, ContextId, Event, Outcome, PageRun, StackId, Table,
};
use journal::{Journal, Record};
use ledger::Ledger;
use machine::vm::RunLimit;
use machine::{DEVICE, Machine, Options};
use memory::{Gpa, Iova, PAGE_SIZE, Pfn};
use std::hint::black_box;
use std::path::Path;

/// A guest of 256 MiB, all of it the driver's, 16 pages an allocation.
const PAGES: u64 = 65_536;
const RUN: u64 = 16;
/// Goal for each page of the guest, bytes.
const BYTES: f64 = 16.0;
const DOMAIN: u16 = 1;
const IOVA: u64 = 0x10_0000_0000;

fn allocations() -> Vec<Event> {
    (0..PAGES / RUN)
        .map(|index| {
            Event::Allocate(Allocation {
                id: AllocationId(index as u32),
                kind: AllocationKind::DxgkMdl,
                handle: index,
                address: 0,
                pages: vec![PageRun {
                    first: Pfn(index * RUN),
                    count: RUN,
                }],
                requested: RUN,
                stack: StackId(0),
            })
        })
        .collect()
}

/// Every page mapped: the writes of the leaf entries.
fn mappings() -> Vec<Event> {
    (0..PAGES)
        .map(|page| {
            let iova = Iova(IOVA + page * PAGE_SIZE);
            Event::TableWrite {
                address: Gpa((PAGES + page / 512) * PAGE_SIZE + page % 512 * 8),
                old: 0,
                new: (page * PAGE_SIZE) | 3,
                table: Table::SecondLevel {
                    domain: DOMAIN,
                    level: 1,
                    iova,
                },
            }
        })
        .collect()
}

/// Reads of every page by the device.
fn accesses() -> Vec<Event> {
    (0..PAGES)
        .map(|page| Event::Access {
            context: ContextId(1),
            device: DEVICE,
            iova: Iova(IOVA + page * PAGE_SIZE),
            length: 64,
            write: false,
            outcome: Outcome::Done {
                gpa: Gpa(page * PAGE_SIZE),
                generation: page as u32 + 1,
                cached: true,
            },
        })
        .collect()
}

fn records(events: Vec<Event>) -> Vec<Record> {
    (0..)
        .zip(events)
        .map(|(time, event)| Record { time, event })
        .collect()
}

fn push_all(ledger: &mut Ledger, records: &[Record]) {
    for record in records {
        ledger.push(record);
    }
}

/// Bytes of this process in RAM.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|p| p.parse().ok());
    pages.unwrap_or(0.0) * PAGE_SIZE as f64
}

/// Bytes a page. The ledger that comes back has seen all events.
fn sizes(rows: &mut Vec<Row>) -> Ledger {
    let [owned, mapped, accessed] = [allocations(), mappings(), accesses()].map(records);
    let before = resident();
    let mut ledger = Ledger::new();
    let tables = |ledger: &Ledger| ledger.table_bytes() as f64 / PAGES as f64;
    push_all(&mut ledger, &owned);
    let page = tables(&ledger);
    rows.push(Row::new("ledger: a page of the guest", "bytes", page).goal(Goal::AtMost(BYTES)));
    push_all(&mut ledger, &mapped);
    let mapping = tables(&ledger) - page;
    rows.push(Row::new("ledger: a live mapping", "bytes", mapping));
    push_all(&mut ledger, &accessed);
    let all = (resident() - before) / PAGES as f64;
    rows.push(Row::new(
        "ledger: a live page with its history",
        "bytes",
        all,
    ));
    ledger
}

/// Nanoseconds an event, beside reading the event from a journal. `push`
/// gives all of them to a ledger.
fn event_time(
    rows: &mut Vec<Row>,
    name: &str,
    records: &[Record],
    push: &mut dyn FnMut(&[Record]),
) {
    let journal = Journal::in_memory();
    for record in records {
        journal.set_time(record.time);
        journal.emit(record.event.clone());
    }
    let bytes = journal.bytes();
    let mut ours = |_| push(records);
    let mut reading = |_| {
        black_box(journal::read(&bytes[..]).is_ok());
    };
    let [ours, reading] = race(records.len(), [&mut ours, &mut reading]);
    let peer = Peer {
        name: "reading it",
        value: reading,
    };
    rows.push(Row::new(format!("ledger: {name}"), "ns", ours).beside(peer));
}

fn run_of_the_driver() -> Vec<Record> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../out/driver/plain/dmasan-gpu.sys");
    let driver = std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run scripts/build-driver first", path.display()));
    let options = Options::default();
    let mut machine =
        Machine::new(&driver, "dmasan-gpu.sys", &options, Journal::in_memory()).expect("a machine");
    let limit = RunLimit::default();
    while machine.step(&limit).expect("KVM runs the driver").is_none() {}
    journal::read(&machine.journal().bytes()[..])
        .expect("a journal")
        .0
}

fn main() {
    let mut rows = Vec::new();
    let mut mapped = sizes(&mut rows);
    let reads = records(accesses());
    event_time(
        &mut rows,
        "an access, 65536 pages",
        &reads,
        &mut |records| {
            push_all(&mut mapped, records);
        },
    );
    let mut fresh = |records: &[Record]| {
        let mut ledger = Ledger::new();
        push_all(&mut ledger, records);
        black_box(&ledger);
    };
    let writes = records(mappings());
    event_time(&mut rows, "an entry written", &writes, &mut fresh);
    let run = run_of_the_driver();
    rows.push(Row::new(
        "ledger: events of a run",
        "events",
        run.len() as f64,
    ));
    event_time(&mut rows, "an event of a run", &run, &mut fresh);
    bench::print(&rows);
}
