#![allow(clippy::unwrap_used)]

use super::faults::{self, Clues, Excuse, begins_after};
use super::mutate::change;
use super::program::{Base, Program, Reader};
use libafl_bolts::rands::StdRand;
use proptest::prelude::*;
use scenario::{Answer, AnswerOf, Direction, Fault, Hex, Plan, SiteKind, What};
use std::collections::BTreeSet;

fn sample() -> Program {
    Program {
        escapes: vec![b"DMSN".to_vec(), Vec::new(), vec![7; 300]],
        answers: vec![Answer {
            of: AnswerOf::Used,
            number: 3,
            at: 0,
            data: Hex(vec![1, 0, 0, 0]),
        }],
        early: vec![Answer {
            of: AnswerOf::Response,
            number: 2,
            at: 32,
            data: Hex(vec![0xff; 4]),
        }],
        choices: [(9, 2)].into(),
        power: [1, 3].into(),
        faults: vec![Fault {
            nth: Some(2),
            after: Some("DxgkDdiEscape".to_owned()),
            command: Some("RESOURCE_FLUSH".to_owned()),
            direction: Some(Direction::Write),
            iova: Some((0x5000, 0x5fff)),
            ..Fault::new(SiteKind::Access, What::Drop)
        }],
    }
}

#[test]
fn a_program_survives_its_bytes() {
    assert_eq!(Program::decode(&sample().encode()), sample());
}

#[test]
fn a_program_survives_its_scenario_file() {
    let base = Base {
        choices: 100,
        answers: [5, 6, 7],
    };

    let plan = sample().plan(&Plan::default(), base);
    let read = Plan::parse(&plan.to_toml()).unwrap();

    assert_eq!(read, plan);
    assert_eq!(read.answers[0].number, 9);
    assert_eq!(read.answers[1].number, 2, "while the driver starts");
    assert_eq!(read.workload.len(), 3 + 2 * 2);
    assert_eq!(Program::of_plan(&read, &Plan::default(), base), sample());
}

#[test]
fn the_faults_of_the_scenario_stay_and_are_not_the_inputs() {
    let own = Fault::new(SiteKind::Fill, What::OneEntry);
    let of = Plan {
        faults: vec![own.clone()],
        ..Plan::default()
    };

    let plan = sample().plan(&of, Base::default());

    assert_eq!(plan.faults, [vec![own], sample().faults].concat());
    let again = Program::of_plan(&plan, &of, Base::default());
    assert_eq!(again.faults, sample().faults);
}

#[test]
fn every_site_and_outcome_comes_up() {
    let mut rand = StdRand::with_seed(1);
    let invented: BTreeSet<(SiteKind, What)> = (0..2000)
        .map(|_| faults::invent(&Clues::default(), &mut rand))
        .map(|fault| (fault.at, fault.outcome))
        .collect();

    let all = SiteKind::ALL.iter();
    let all = all.flat_map(|at| at.outcomes().iter().map(|outcome| (*at, *outcome)));
    assert_eq!(invented, all.collect());
}

#[test]
fn a_fault_excuses_what_it_does_and_no_more() {
    for (text, excuse) in [
        ("at = \"call\"\ndo = \"fail\"", Excuse::Nothing),
        ("at = \"interrupt\"\ndo = \"lost\"", Excuse::Nothing),
        ("at = \"queue\"\ndo = \"unplug\"", Excuse::Nothing),
        ("at = \"access\"\ndo = \"delay\"", Excuse::Nothing),
        ("at = \"access\"\ndo = \"drop\"", Excuse::Accesses),
        ("at = \"descriptor\"\ndo = \"drop\"", Excuse::Accesses),
        ("at = \"unmap\"\ndo = \"fail\"", Excuse::Accesses),
        (
            "at = \"access\"\ndo = \"redirect\"\nto = 0\ndirection = \"read\"",
            Excuse::Accesses,
        ),
        (
            "at = \"access\"\ndo = \"redirect\"\nto = 0",
            Excuse::Everything,
        ),
        (
            "at = \"call\"\ndo = \"fail\"\nstatus = 0\nfunction = \"ExFreePool*\"",
            Excuse::Everything,
        ),
        (
            "at = \"call\"\ndo = \"fail\"\nstatus = 0xC0000001\n\
             function = \"DxgkCbAllocatePagesForMdl\"",
            Excuse::Nothing,
        ),
    ] {
        let plan = Plan::parse(&format!("[[fault]]\n{text}")).unwrap();

        assert_eq!(Excuse::of(&plan.faults[0]), excuse, "{text}");
    }
}

#[test]
fn what_begins_before_the_snapshot_is_known() {
    let called = ["DxgkDdiStartDevice", "DxgkCbAllocateContiguousMemory"];
    for (trigger, later) in [
        ("", false),
        ("nth = 900", false),
        ("after = \"DxgkDdiEscape\"", true),
        ("after = \"DxgkDdiSt*Device\"", false),
        (
            "after = \"DxgkDdiStartDevice\"\nwindow = [1001, 2000]",
            true,
        ),
        ("window = [1000, 2000]", false),
    ] {
        let text = format!("[[fault]]\nat = \"interrupt\"\ndo = \"lost\"\n{trigger}");
        let plan = Plan::parse(&text).unwrap();

        let found = begins_after(&plan.faults[0], 1000, called.into_iter());

        assert_eq!(found, later, "{trigger}");
    }
}

fn written_and_read(program: &Program) -> Plan {
    let text = program.plan(&Plan::default(), Base::default()).to_toml();
    Plan::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

proptest! {
    #[test]
    fn any_bytes_are_a_program(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let program = Program::decode(&bytes);

        prop_assert!(!program.escapes.is_empty());
        prop_assert_eq!(Program::decode(&program.encode()), program);
    }

    /// Each is one that `dmasan run` takes, and reads as it was.
    #[test]
    fn any_bytes_are_a_fault_that_can_be(bytes in prop::collection::vec(any::<u8>(), 0..90)) {
        let fault = faults::read(&mut Reader::new(&bytes));
        let program = Program { faults: vec![fault.clone()], ..sample() };

        prop_assert_eq!(fault.check(), Ok(()));
        prop_assert_eq!(windows_knows(&fault), Ok(()));
        prop_assert!(faults::is_ours(&fault));
        prop_assert_eq!(&written_and_read(&program).faults, &program.faults);
    }

    #[test]
    fn what_mutations_make_can_be_and_is_read_as_it_was(
        seed in any::<u64>(),
        mutations in 1usize..60,
        started in 0u64..1 << 40,
    ) {
        let clues = Clues { edids: vec![2], pages: vec![0x1000, 0x10_0000], started };
        let mut rand = StdRand::with_seed(seed);
        let mut program = sample();
        for _ in 0..mutations {
            change(&mut program, &clues, &mut rand);
        }

        for fault in &program.faults {
            prop_assert_eq!(fault.check(), Ok(()));
            prop_assert_eq!(windows_knows(fault), Ok(()));
        }
        prop_assert_eq!(&written_and_read(&program).faults, &program.faults);
        prop_assert_eq!(&Program::decode(&program.encode()).faults, &program.faults);
    }

    #[test]
    fn what_is_simpler_can_be(bytes in prop::collection::vec(any::<u8>(), 90)) {
        let fault = faults::read(&mut Reader::new(&bytes));
        for way in 0..faults::SIMPLER {
            let less = faults::simpler(&fault, way);

            prop_assert_eq!(less.check(), Ok(()));
            prop_assert!(faults::is_ours(&less));
        }
    }
}

/// As `dmasan run` checks the names.
fn windows_knows(fault: &Fault) -> Result<(), String> {
    machine::check_fault(fault)
}
