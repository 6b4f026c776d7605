//! What a run of the healthy driver costs, beside the exits of the virtual
//! machine that it cannot do without, and what snapshots cost.
//! `scripts/bench run` runs it.

use bench::{Goal, Peer, Row, lower_quartile, race_rounds};
use journal::event::{AllocationKind, End, Event};
use journal::{Journal, Tail};
use machine::vm::{self, KvmFacts, RunLimit};
use machine::{Machine, Options};
use report::{Meta, Report};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use symbols::{Module, SymbolTable, Symbolizer};

const ROUNDS: usize = 24;
/// Goals of a whole run, milliseconds: on bare metal and in a virtual machine.
const BARE: f64 = 50.0;
const NESTED: f64 = 200.0;
/// Goal of an exploration: runs a second on a core of bare metal.
const EXPLORED: f64 = 1000.0;

fn driver_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../out/driver/plain/dmasan-gpu.sys")
}

/// The command beside this benchmark: `target/release/dmasan`.
fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a path of our own");
    own.ancestors().nth(2).expect("in target").join("dmasan")
}

fn new_machine(driver: &[u8]) -> Machine {
    let options = Options::default();
    Machine::new(driver, "dmasan-gpu.sys", &options, Journal::in_memory()).expect("a machine")
}

fn to_the_end(machine: &mut Machine) {
    let limit = RunLimit::default();
    let end = loop {
        if let Some(end) = machine.step(&limit).expect("KVM runs the driver") {
            break end;
        }
    };
    assert_eq!(end, End::Completed, "the healthy driver runs to its end");
}

/// What `dmasan run` does with a journal, but for the files.
fn judge(journal: &[u8]) -> String {
    let (records, tail) = journal::read(journal).expect("a journal");
    assert_eq!(tail, Tail::Clean);
    let mut symbolizer = Symbolizer::new();
    for record in &records {
        if let Event::Module(module) = &record.event {
            symbolizer.add_module(Module {
                name: module.name.clone(),
                base: module.base,
                size: u64::from(module.size),
                symbols: SymbolTable::from_pdb_file(&driver_path().with_extension("pdb")).ok(),
            });
        }
    }
    let meta = Meta {
        reproduce: None,
        tail,
    };
    let report = Report::build(&records, &symbolizer, meta);
    assert!(
        report.findings.is_empty(),
        "the healthy driver has no finding"
    );
    report::json::render(&report)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn process(out: &Path) {
    let status = Command::new(binary())
        .arg("run")
        .arg(driver_path())
        .arg("--out")
        .arg(out)
        .stdout(Stdio::null())
        .status()
        .expect("dmasan is built: scripts/bench does it");
    assert!(
        status.success(),
        "the healthy driver runs without a finding"
    );
}

/// Times of the parts of a run, milliseconds, a value a round.
#[derive(Default)]
struct Times {
    making: Vec<f64>,
    running: Vec<f64>,
    judging: Vec<f64>,
    ending: Vec<f64>,
    whole: Vec<f64>,
    process: Vec<f64>,
    /// Of the empty machine: an exit, and making it.
    exit: Vec<f64>,
    create: Vec<f64>,
}

/// Whole runs; the last facts of the host.
fn runs(rows: &mut Vec<Row>, driver: &[u8]) -> KvmFacts {
    let mut times = Times::default();
    let (mut exits, mut traps, mut bytes) = (0, 0, 0);
    let mut facts = vm::probe().expect("KVM works");
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut machine = new_machine(driver);
        times.making.push(milliseconds(start));
        let at = Instant::now();
        to_the_end(&mut machine);
        times.running.push(milliseconds(at));
        let at = Instant::now();
        let journal = machine.journal().bytes();
        black_box(judge(&journal));
        times.judging.push(milliseconds(at));
        (exits, traps, bytes) = (machine.exits(), machine.traps(), journal.len());
        let at = Instant::now();
        drop(machine);
        times.ending.push(milliseconds(at));
        times.whole.push(milliseconds(start));

        // A new one each time: some file systems are slow to replace files.
        let out = tempfile::tempdir().expect("a folder");
        let at = Instant::now();
        process(out.path());
        times.process.push(milliseconds(at));

        facts = vm::probe().expect("KVM works");
        times.exit.push(facts.exit_us / 1e3);
        times.create.push(facts.create_us / 1e3);
    }
    let exit = lower_quartile(&mut times.exit);
    let create = lower_quartile(&mut times.create);
    let nothing = exits as f64 * exit;
    let peer = Peer {
        name: "as many empty exits",
        value: nothing,
    };
    let goal = Goal::AtMost(if facts.nested { NESTED } else { BARE });
    let row = |name: &str, values: &mut Vec<f64>| Row::new(name, "ms", lower_quartile(values));
    rows.push(
        row("run, the whole process", &mut times.process)
            .beside(peer)
            .goal(goal),
    );
    rows.push(row("run, in a process", &mut times.whole).beside(peer));
    let empty = Peer {
        name: "an empty machine",
        value: create,
    };
    rows.push(row("run: making the machine", &mut times.making).beside(empty));
    rows.push(row("run: the driver", &mut times.running).beside(peer));
    rows.push(row("run: the report", &mut times.judging));
    rows.push(row("run: giving the machine back", &mut times.ending));
    rows.push(Row::new("run: exits", "exits", exits as f64));
    rows.push(Row::new("run: traps", "traps", traps as f64));
    rows.push(Row::new("run: journal", "bytes", bytes as f64));
    rows.push(Row::new("an exit", "us", exit * 1e3));
    facts
}

/// Save and restore where the driver has just got the pages of its first
/// resource, and what an exploration would do from there.
fn snapshots(rows: &mut Vec<Row>, driver: &[u8], nested: bool) {
    let mut machine = new_machine(driver);
    let limit = RunLimit::default();
    loop {
        let journal = machine.journal().bytes();
        let (records, _) = journal::read(&journal[..]).expect("a journal");
        let allocated = records.iter().any(|record| {
            matches!(&record.event, Event::Allocate(a) if a.kind == AllocationKind::DxgkMdl)
        });
        if allocated {
            break;
        }
        let end = machine.step(&limit).expect("KVM runs the driver");
        assert_eq!(end, None, "the driver allocates pages");
    }
    let snapshot = machine.save().expect("between two steps");
    let size = snapshot.memory_bytes();
    rows.push(Row::new("snapshot: memory in it", "bytes", size as f64));

    let exits_before = machine.exits();
    to_the_end(&mut machine);
    let exits = machine.exits() - exits_before;
    machine.restore(&snapshot).expect("its own snapshot");

    let bytes = vec![1u8; size as usize];
    let mut copy = |_| {
        black_box(bytes.clone());
    };
    let mut save = |_| {
        black_box(machine.save().expect("between two steps"));
    };
    let [save, copied] = race_rounds(ROUNDS, 1, [&mut save, &mut copy]);
    // A restore after a whole run: most pages of the workload differ.
    let (mut restores, mut reruns, mut exit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        to_the_end(&mut machine);
        let start = Instant::now();
        machine.restore(&snapshot).expect("its own snapshot");
        restores.push(start.elapsed().as_nanos() as f64);
        to_the_end(&mut machine);
        reruns.push(start.elapsed().as_secs_f64());
        exit.push(vm::probe().expect("KVM works").exit_us);
    }
    let restore = lower_quartile(&mut restores);
    let peer = Peer {
        name: "copying the bytes",
        value: copied / 1e3,
    };
    rows.push(Row::new("snapshot: save", "us", save / 1e3).beside(peer));
    rows.push(Row::new("snapshot: restore after a run", "us", restore / 1e3).beside(peer));
    rows.push(Row::new(
        "from a snapshot to the end: exits",
        "exits",
        exits as f64,
    ));
    let empty = Peer {
        name: "as many empty exits",
        value: 1e6 / (exits as f64 * lower_quartile(&mut exit)),
    };
    let rate = 1.0 / lower_quartile(&mut reruns);
    let row = Row::new("from a snapshot to the end", "1/s", rate).beside(empty);
    rows.push(if nested {
        row
    } else {
        row.goal(Goal::AtLeast(EXPLORED))
    });
}

fn main() {
    let path = driver_path();
    let driver = std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run scripts/build-driver first", path.display()));
    let mut rows = Vec::new();
    let facts = runs(&mut rows, &driver);
    snapshots(&mut rows, &driver, facts.nested);
    bench::print(&rows);
}
