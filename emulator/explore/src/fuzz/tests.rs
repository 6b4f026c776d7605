#![allow(clippy::unwrap_used)]

use super::program::{Base, Program};
use proptest::prelude::*;
use scenario::{Answer, AnswerOf, Hex, Plan};

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
    assert_eq!(Program::of_plan(&read, base), sample());
}

proptest! {
    #[test]
    fn any_bytes_are_a_program(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let program = Program::decode(&bytes);

        prop_assert!(!program.escapes.is_empty());
        prop_assert_eq!(Program::decode(&program.encode()), program);
    }
}
