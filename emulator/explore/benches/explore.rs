//! What exploring the healthy driver costs: schedules a second beside fresh
//! starts, over one worker and all, with and without cutting off equivalent
//! ones, and what a snapshot and a step back cost on the way. `scripts/bench
//! explore` runs it.

use bench::{Goal, Peer, Row, lower_quartile};
use explore::{Bounds, Explored, Header, Progress, Results, explore};
use journal::Journal;
use machine::vm::{self, RunLimit};
use machine::{Machine, Options};
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

const NAME: &str = "dmasan-gpu.sys";
const ROUNDS: usize = 5;
/// Goal on a core of bare metal, runs a second.
const EXPLORED: f64 = 1000.0;

/// Explore all schedules of a bound; what it gave, and seconds.
fn all(driver: &[u8], deviations: u32, reduce: bool, workers: usize) -> (Explored, f64) {
    let bounds = Bounds {
        deviations,
        reduce,
        ..Bounds::default()
    };
    let mut results = Results::in_memory(Header {
        version: String::new(),
        driver: NAME.to_owned(),
        digest: String::new(),
        arguments: Vec::new(),
        scenario: String::new(),
        bounds,
    });
    let start = Instant::now();
    let whole = explore(
        (driver, NAME),
        &Options::default(),
        bounds,
        workers,
        (None, &AtomicBool::new(false)),
        &mut results,
        &Progress::default(),
    );
    let seconds = start.elapsed().as_secs_f64();
    assert!(whole.expect("the host can run it"), "all is explored");
    let total = results.total().clone();
    assert!(total.defects.is_empty(), "the healthy driver has no defect");
    (total, seconds)
}

/// Runs of the default order from fresh machines, a second.
fn fresh(driver: &[u8]) -> f64 {
    let start = Instant::now();
    let options = Options::default();
    let journal = Journal::in_memory();
    let mut machine = Machine::new(driver, NAME, &options, journal).expect("a machine");
    let limit = RunLimit::default();
    while machine.step(&limit).expect("KVM runs the driver").is_none() {}
    black_box(machine.journal().since(8));
    1.0 / start.elapsed().as_secs_f64()
}

/// Save, digest and go back at every step of the default run.
fn steps(rows: &mut Vec<Row>, driver: &[u8]) {
    let options = Options::default();
    let journal = Journal::in_memory();
    let mut machine = Machine::new(driver, NAME, &options, journal).expect("a machine");
    let limit = RunLimit::default();
    let (mut saves, mut digests, mut backs, mut bytes) = (vec![], vec![], vec![], vec![]);
    machine.save().expect("between two steps");
    loop {
        let micros = |at: Instant| at.elapsed().as_secs_f64() * 1e6;
        let mut before = None;
        if machine.may_choose() {
            let at = Instant::now();
            let snapshot = machine.save().expect("between two steps");
            saves.push(micros(at));
            let at = Instant::now();
            black_box(machine.digest().expect("between two steps"));
            digests.push(micros(at));
            before = Some(snapshot);
        }
        let end = machine.step(&limit).expect("KVM runs the driver");
        if let Some(before) = before {
            let at = Instant::now();
            machine.restore(&before).expect("its own snapshot");
            backs.push(micros(at));
            bytes.push(before.memory_bytes() as f64);
            let again = machine.step(&limit).expect("KVM runs the driver");
            assert_eq!(again, end);
        }
        if end.is_some() {
            break;
        }
    }
    let exit = Peer {
        name: "an empty exit",
        value: vm::probe().expect("KVM works").exit_us,
    };
    let mut row = |name: &str, values: &mut Vec<f64>| {
        rows.push(Row::new(name, "us", lower_quartile(values)).beside(exit));
    };
    row("explore: a snapshot after a step", &mut saves);
    row("explore: a digest of the machine", &mut digests);
    row("explore: a step back", &mut backs);
    let memory = bytes.iter().sum::<f64>() / bytes.len().max(1) as f64;
    rows.push(Row::new("explore: memory in a snapshot", "bytes", memory));
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("out/driver/plain").join(NAME);
    let driver = std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run scripts/build-driver first", path.display()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let nested = vm::probe().expect("KVM works").nested;
    let mut rows = Vec::new();

    let (mut ours, mut starts, mut every) = (vec![], vec![], vec![]);
    let mut counts = (0, 0);
    for _ in 0..ROUNDS {
        let (reduced, seconds) = all(&driver, 1, true, 1);
        ours.push(seconds);
        let (unreduced, seconds) = all(&driver, 1, false, 1);
        every.push(seconds);
        counts = (reduced.runs, unreduced.runs);
        starts.push(1.0 / fresh(&driver));
    }
    let start = Peer {
        name: "fresh starts",
        value: 1.0 / lower_quartile(&mut starts),
    };
    let rate = |runs: u64, seconds: &mut [f64]| runs as f64 / lower_quartile(seconds);
    let row = Row::new(
        "explore: schedules, one worker",
        "1/s",
        rate(counts.0, &mut ours),
    );
    let row = row.beside(start);
    rows.push(if nested {
        row
    } else {
        row.goal(Goal::AtLeast(EXPLORED))
    });
    let row = Row::new(
        "explore: each to its end",
        "1/s",
        rate(counts.1, &mut every),
    );
    rows.push(row.beside(start));

    // The whole space of two deviations, as the command explores it.
    let (one, alone) = all(&driver, 2, true, 1);
    let (_, together) = all(&driver, 2, true, cores);
    let peer = Peer {
        name: "one worker",
        value: alone,
    };
    let name = format!("explore: bound 2, {cores} workers");
    rows.push(Row::new(name, "s", together).beside(peer));
    let (every, _) = all(&driver, 2, false, cores);
    let peer = Peer {
        name: "no reduction",
        value: every.runs as f64,
    };
    rows.push(Row::new("explore: bound 2, schedules", "runs", one.runs as f64).beside(peer));
    let peer = Peer {
        name: "no reduction",
        value: every.steps as f64,
    };
    rows.push(Row::new("explore: bound 2, steps", "steps", one.steps as f64).beside(peer));
    steps(&mut rows, &driver);
    bench::print(&rows);
}
