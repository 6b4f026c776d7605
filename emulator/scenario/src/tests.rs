#![allow(clippy::unwrap_used)]

use super::*;
use journal::event::Record;
use proptest::prelude::*;

#[test]
fn a_file_may_leave_everything_out() {
    let plan = Plan::parse("").unwrap();
    assert_eq!(plan.workload, Plan::default().workload);
    assert_eq!(plan.seed, 1);
}

#[test]
fn a_full_file_is_read() {
    let plan = Plan::parse(
        r#"
        name = "late"
        seed = 7
        order = "lazy"
        part-accesses = "writes"
        choice = [{ number = 3, take = 1 }]
        workload = [
          { do = "create", width = 64, height = 16 },
          { do = "present", frame = 2 },
          { do = "wait", resource = 0 },
          { do = "free" },
        ]
        "#,
    )
    .unwrap();
    assert_eq!(
        (plan.seed, plan.order, plan.part),
        (7, Order::Lazy, Part::Writes)
    );
    assert_eq!(plan.workload.len(), 4);
    assert_eq!(plan.choices.get(&3), Some(&1));
}

#[test]
fn a_bad_file_is_refused_with_its_place() {
    for (text, says) in [
        ("sed = 1", "unknown field `sed`"),
        ("order = \"fast\"", "line 1"),
        (
            "workload = [{ do = \"free\" }]",
            "step 1: resource 0 was not created",
        ),
        (
            "workload = [{ do = \"create\", width = 0, height = 1 }]",
            "width = 0",
        ),
        (
            "workload = [{do=\"create\",width=1,height=1},{do=\"free\"},{do=\"wait\"}]",
            "step 3: resource 0 was freed",
        ),
        (
            "choice = [{number=1,take=0},{number=1,take=1}]",
            "choice 1 is listed twice",
        ),
    ] {
        let error = Plan::parse(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text:?} gave {error:?}");
    }
}

#[test]
fn one_way_is_no_choice() {
    let scenario = Scenario::for_test();
    assert_eq!(scenario.choose(Point::Device, 1), 0);
    assert_eq!(scenario.choices(), 0);
}

#[test]
fn a_listed_choice_overrides_the_order_and_stays_in_range() {
    let plan = Plan::default().with_choice(1, 9);
    let scenario = Scenario::new(plan, Journal::in_memory());
    let taken: Vec<u32> = (0..3).map(|_| scenario.choose(Point::Device, 2)).collect();
    assert_eq!(taken, [0, 1, 0]);
    let (records, _) = journal::read(&scenario.journal().bytes()[..]).unwrap();
    assert!(matches!(
        records[1],
        Record {
            event: Event::Choice {
                number: 1,
                options: 2,
                taken: 1,
                ..
            },
            ..
        }
    ));
}

#[test]
fn a_restored_scenario_draws_the_same_bytes() {
    let scenario = Scenario::for_test();
    scenario.random();
    let state = scenario.save();
    let first = (scenario.random(), scenario.now());
    scenario.advance(5);
    scenario.restore(&state);
    assert_eq!((scenario.random(), scenario.now()), first);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Plan::parse(&text);
    }
}
