//! The machine as a library: snapshots, and an operating system that does
//! its work badly behind the driver's back.
#![allow(clippy::unwrap_used)]

#[path = "machine/telling.rs"]
mod telling;

use journal::event::{AllocationKind, Event, Outcome, PageRun, Table};
use journal::{Journal, Record};
use ledger::Ledger;
use machine::vm::{RunLimit, VmError};
use machine::{Machine, MachineError, Options};
use memory::{Gpa, Gva, PAGE_SIZE, Pfn};
use scenario::{Part, Plan, Step};
use std::path::Path;
use windows::hal::{DomainId, Invalidation};

fn driver(variant: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../out/driver/{variant}/dmasan-gpu.sys"));
    std::fs::read(&path)
        .unwrap_or_else(|_| panic!("{}: run scripts/build-driver first", path.display()))
}

fn options(workload: Vec<Step>, part: Part) -> Options {
    Options {
        plan: Plan {
            workload,
            part,
            ..Plan::default()
        },
        memory: 64 << 20,
        ..Options::default()
    }
}

fn small() -> Vec<Step> {
    vec![
        Step::Create {
            width: 64,
            height: 40,
            scanout: 0,
        },
        Step::Present {
            resource: 0,
            frame: 0,
        },
        Step::Free { resource: 0 },
    ]
}

/// Create, draw a frame to its end, draw another, free.
fn two_frames() -> Vec<Step> {
    vec![
        Step::Create {
            width: 64,
            height: 64,
            scanout: 0,
        },
        Step::Present {
            resource: 0,
            frame: 0,
        },
        Step::Wait { resource: 0 },
        Step::Present {
            resource: 0,
            frame: 1,
        },
        Step::Free { resource: 0 },
    ]
}

fn machine(variant: &str, options: &Options) -> Machine {
    Machine::new(
        &driver(variant),
        "dmasan-gpu.sys",
        options,
        Journal::in_memory(),
    )
    .unwrap()
}

fn records(machine: &Machine) -> Vec<Record> {
    journal::read(&machine.journal().bytes()[..]).unwrap().0
}

fn findings(machine: &Machine) -> Vec<String> {
    let mut ledger = Ledger::new();
    for record in &records(machine) {
        ledger.push(record);
    }
    ledger
        .findings()
        .iter()
        .map(|f| f.kind.id().to_owned())
        .collect()
}

fn to_the_end(machine: &mut Machine) {
    let limit = RunLimit::default();
    while machine.step(&limit).unwrap().is_none() {}
}

/// Step until `done` says so of the records so far.
fn until(machine: &mut Machine, done: impl Fn(&[Record]) -> bool) {
    let limit = RunLimit::default();
    loop {
        if done(&records(machine)) {
            return;
        }
        assert!(
            machine.step(&limit).unwrap().is_none(),
            "the run ended early"
        );
    }
}

/// Frames of the resource's backing.
fn backing(records: &[Record]) -> Vec<PageRun> {
    records
        .iter()
        .find_map(|r| match &r.event {
            Event::Allocate(a) if a.kind == AllocationKind::DxgkMdl => Some(a.pages.clone()),
            _ => None,
        })
        .unwrap()
}

fn frames(runs: &[PageRun]) -> Vec<Pfn> {
    runs.iter()
        .flat_map(|run| (0..run.count).map(|n| Pfn(run.first.0 + n)))
        .collect()
}

/// Where the leaf entry of a page lies, and the domain, as the OS wrote it.
fn leaf(records: &[Record], page: Pfn) -> (Gpa, u16) {
    records
        .iter()
        .rev()
        .find_map(|r| match r.event {
            Event::TableWrite {
                address,
                table:
                    Table::SecondLevel {
                        domain,
                        level: 1,
                        iova,
                    },
                ..
            } if iova.page() == page.0 => Some((address, domain)),
            _ => None,
        })
        .unwrap()
}

fn accesses_of(records: &[Record], page: Pfn) -> Vec<Outcome> {
    records
        .iter()
        .filter_map(|r| match r.event {
            Event::Access { iova, outcome, .. } if iova.page() == page.0 => Some(outcome),
            _ => None,
        })
        .collect()
}

#[test]
fn a_run_restored_at_any_trap_goes_on_the_same() {
    let options = options(small(), Part::None);
    let mut reference = machine("plain", &options);
    to_the_end(&mut reference);
    let whole = reference.journal().bytes();

    let mut machine = machine("plain", &options);
    let limit = RunLimit::default();
    let mut restored = 0;
    let mut step = 0;
    loop {
        match machine.save() {
            Ok(snapshot) => {
                to_the_end(&mut machine);
                assert!(machine.journal().bytes() == whole, "step {step}, run on");
                machine.restore(&snapshot).unwrap();
                restored += 1;
            }
            // An instruction that makes several device accesses is under way:
            // the only moments that cannot be kept.
            Err(MachineError::Vm(VmError::UnansweredRead | VmError::MidInstruction)) => {}
            Err(error) => panic!("step {step}: {error}"),
        }
        step += 1;
        if machine.step(&limit).unwrap().is_some() {
            break;
        }
    }
    assert!(machine.journal().bytes() == whole);
    assert!(
        restored > 100,
        "only {restored} of {step} moments were saved"
    );
}

#[test]
fn an_entry_cleared_behind_everyones_back_faults_as_hardware_does() {
    let mut machine = machine("plain", &options(small(), Part::None));
    until(&mut machine, |r| {
        r.iter().any(|r| matches!(r.event, Event::Notify { .. }))
            && r.iter().any(
                |r| matches!(&r.event, Event::Allocate(a) if a.kind == AllocationKind::DxgkMdl),
            )
    });
    let all = records(&machine);
    let page = frames(&backing(&all))[1];
    let (entry, _) = leaf(&all, page);
    machine.memory().write_u64(entry, 0).unwrap();
    to_the_end(&mut machine);

    let all = records(&machine);
    assert!(accesses_of(&all, page).contains(&Outcome::Refused));
    let fault = all.iter().find_map(|r| match r.event {
        Event::Fault {
            iova,
            reason,
            write,
            ..
        } => Some((iova.page(), reason, write)),
        _ => None,
    });
    // VT-d reason 6: read permission is missing.
    assert_eq!(fault, Some((page.0, 6, false)));
    // The pages are the driver's still: no use after free.
    assert_eq!(findings(&machine), ["dma-unmapped"]);
}

#[test]
fn pages_given_back_while_they_are_mapped_are_reported() {
    let mut machine = machine("plain", &options(small(), Part::None));
    until(&mut machine, |r| {
        r.iter()
            .any(|r| matches!(&r.event, Event::Allocate(a) if a.kind == AllocationKind::DxgkMdl))
    });
    assert_eq!(findings(&machine), Vec::<String>::new());
    let id = records(&machine)
        .iter()
        .find_map(|r| match &r.event {
            Event::Allocate(a) if a.kind == AllocationKind::DxgkMdl => Some(a.id),
            _ => None,
        })
        .unwrap();
    let (windows, platform) = machine.parts();
    windows.mm.release_pages(platform, id);
    assert_eq!(findings(&machine), ["mapped-after-free"]);
}

/// Stop between the first frame and the second, and unmap the backing as
/// `how` says.
fn unmapped_between_frames(how: Invalidation) -> (Machine, Vec<Pfn>) {
    let mut machine = machine("plain", &options(two_frames(), Part::None));
    until(&mut machine, |r| {
        r.iter()
            .filter(|r| matches!(r.event, Event::Flush { .. }))
            .count()
            == 1
    });
    let all = records(&machine);
    let pages = frames(&backing(&all));
    let (_, domain) = leaf(&all, pages[0]);
    let (windows, platform) = machine.parts();
    windows
        .hal
        .unmap_with(platform, DomainId(domain), &pages, true, how)
        .unwrap();
    (machine, pages)
}

#[test]
fn without_an_invalidation_the_stale_access_succeeds_and_is_reported() {
    let (mut machine, pages) = unmapped_between_frames(Invalidation {
        skip: true,
        ..Invalidation::COMPLETE
    });
    until(&mut machine, |r| {
        r.iter()
            .filter(|r| matches!(r.event, Event::Flush { .. }))
            .count()
            == 2
    });
    let last = *accesses_of(&records(&machine), pages[0]).last().unwrap();
    assert!(
        matches!(last, Outcome::Done { cached: true, .. }),
        "{last:?}"
    );
    assert_eq!(findings(&machine), ["stale-iotlb"]);
}

#[test]
fn with_the_invalidation_the_same_access_is_refused() {
    let (mut machine, pages) = unmapped_between_frames(Invalidation::COMPLETE);
    to_the_end(&mut machine);
    let last = *accesses_of(&records(&machine), pages[0]).last().unwrap();
    assert_eq!(last, Outcome::Refused);
    assert!(!findings(&machine).contains(&"stale-iotlb".to_owned()));
}

/// Stop with a read of the backing in flight, unmap the backing as `how`
/// says, give its pages back, and let the device go on.
fn freed_with_a_read_in_flight(how: Invalidation) -> Machine {
    let mut machine = machine("plain", &options(small(), Part::Reads));
    let in_flight = |r: &[Record]| {
        let Some(pages) = r.iter().find_map(|r| match &r.event {
            Event::Allocate(a) if a.kind == AllocationKind::DxgkMdl => Some(frames(&a.pages)),
            _ => None,
        }) else {
            return false;
        };
        matches!(
            r.iter().rev().find_map(|r| match r.event {
                Event::Access { iova, outcome, .. } => Some((iova, outcome)),
                Event::Landed { .. } => Some((memory::Iova(0), Outcome::Refused)),
                _ => None,
            }),
            Some((iova, Outcome::InFlight { .. })) if pages.contains(&Pfn(iova.page()))
        )
    };
    until(&mut machine, in_flight);
    let all = records(&machine);
    let (id, pages) = all
        .iter()
        .find_map(|r| match &r.event {
            Event::Allocate(a) if a.kind == AllocationKind::DxgkMdl => {
                Some((a.id, frames(&a.pages)))
            }
            _ => None,
        })
        .unwrap();
    let (_, domain) = leaf(&all, pages[0]);
    let (windows, platform) = machine.parts();
    windows
        .hal
        .unmap_with(platform, DomainId(domain), &pages, true, how)
        .unwrap();
    windows.mm.release_pages(platform, id);
    to_the_end(&mut machine);
    machine
}

#[test]
fn without_a_drain_the_access_in_flight_lands_after_the_free() {
    let machine = freed_with_a_read_in_flight(Invalidation {
        drain: false,
        ..Invalidation::COMPLETE
    });
    assert!(
        findings(&machine).contains(&"free-in-flight".to_owned()),
        "{:?}",
        findings(&machine)
    );
}

#[test]
fn with_a_drain_the_access_in_flight_lands_before_the_free() {
    let machine = freed_with_a_read_in_flight(Invalidation::COMPLETE);
    let drained = records(&machine)
        .iter()
        .any(|r| matches!(r.event, Event::Landed { drained: true, .. }));
    assert!(drained);
    assert!(!findings(&machine).contains(&"free-in-flight".to_owned()));
}

#[test]
fn accesses_that_stay_in_flight_do_not_hurt_a_healthy_driver() {
    for part in [Part::Reads, Part::Writes, Part::All] {
        let mut machine = machine("plain", &options(small(), part));
        to_the_end(&mut machine);
        assert_eq!(findings(&machine), Vec::<String>::new(), "{part:?}");
        let end = records(&machine).pop().unwrap().event;
        assert!(
            matches!(end, Event::End(journal::event::End::Completed)),
            "{part:?}: {end:?}"
        );
    }
}

/// The processor's writes are known from KVM's log, the host's from memory
/// itself: at every step both together are all there are.
#[test]
fn a_snapshot_by_what_was_written_is_all_of_memory() {
    let mut machine = machine("plain", &Options::default());
    let limit = RunLimit::default();
    let mut steps = 0;
    while machine.step(&limit).unwrap().is_none() {
        if let Ok(snapshot) = machine.save() {
            assert_eq!(
                snapshot.memory(),
                &machine.memory().save().unwrap(),
                "after {steps} steps"
            );
        }
        steps += 1;
    }
    assert!(steps > 100);
}

/// Nothing that the CPU writes after a first snapshot, however late that is
/// taken, is left when it is put back.
#[test]
fn a_first_snapshot_at_any_time_puts_all_of_memory_back() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("../../tests/scenarios/all-features.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let features = Options {
        plan: Plan::parse(&text).unwrap(),
        ..Options::default()
    };
    for (options, every) in [(options(small(), Part::None), 13), (features, 300)] {
        let mut saved = 0;
        for first in (0..).step_by(every) {
            let mut machine = machine("plain", &options);
            let limit = RunLimit::default();
            if (0..first).any(|_| machine.step(&limit).unwrap().is_some()) {
                break;
            }
            let Ok(snapshot) = machine.save() else {
                continue;
            };
            let before = pages(&machine);
            let digest = machine.digest().unwrap();
            to_the_end(&mut machine);
            machine.restore(&snapshot).unwrap();
            assert_eq!(machine.digest().unwrap(), digest, "after {first} steps");
            let differ = before.iter().zip(pages(&machine)).map(|(a, b)| *a != b);
            let left: Vec<usize> = (0..).zip(differ).filter(|p| p.1).map(|p| p.0).collect();
            assert!(left.is_empty(), "after {first} steps: pages {left:x?}");
            saved += 1;
        }
        assert!(saved > 5, "{saved}");
    }
}

/// Orders that meet again are told by it: what an interrupt left on a stack
/// must not keep them apart, and all that the driver may read must.
#[test]
fn a_digest_is_of_what_can_be_read_again() {
    let mut machine = machine("plain", &options(small(), Part::None));
    let limit = RunLimit::default();
    while machine.is_between_calls() || machine.save().is_err() {
        assert_eq!(machine.step(&limit).unwrap(), None);
    }
    let top = windows::layout::stack_top(0).0;
    let mut changes = |address: u64| {
        let before = machine.digest().unwrap();
        let (_, platform) = machine.parts();
        let mut byte = [0];
        platform.read(Gva(address), &mut byte).unwrap();
        platform.write(Gva(address), &[!byte[0]]).unwrap();
        machine.digest().unwrap() != before
    };
    assert!(!changes(top - windows::layout::STACK_SIZE));
    // Below the stack of a routine there are its caller's arguments.
    assert!(changes(top - 1));
    assert!(changes(windows::layout::SYSTEM_DATA.0));
}

/// All of RAM, page by page.
fn pages(machine: &Machine) -> Vec<Vec<u8>> {
    let slots = machine.memory().slots().into_iter();
    let places = slots.flat_map(|s| (s.base.0..s.base.0 + s.size).step_by(PAGE_SIZE as usize));
    let read = |at| {
        let mut bytes = vec![0; PAGE_SIZE as usize];
        machine.memory().read(Gpa(at), &mut bytes).unwrap();
        bytes
    };
    places.map(read).collect()
}
