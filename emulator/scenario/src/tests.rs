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
            "workload = [\n{ do = \"display\" },\n{ do = \"dance\" },\n]",
            "line 3",
        ),
        (
            "workload = [{do=\"power\",to=\"off\"},{do=\"edid\"}]",
            "step 2: the adapter is off",
        ),
        (
            "workload = [{do=\"power\",to=\"on\"}]",
            "step 1: the adapter is on already",
        ),
        (
            "workload = [{do=\"cursor\",hot-x=64}]",
            "hot-x = 64: give 0 to 63",
        ),
        (
            "workload = [{do=\"scanout-off\",scanout=16}]",
            "scanout = 16: give 0 to 15",
        ),
        ("displays = [[4097, 1]]", "display 0 is 4097 x 1"),
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
fn every_step_is_read_and_told_by_its_name() {
    let plan = Plan::parse(
        r#"
        displays = [[1024, 768], [800, 600]]
        workload = [
          { do = "display", scanout = 1 },
          { do = "edid" },
          { do = "create-blob", width = 64, height = 64, scanout = 1 },
          { do = "resize", width = 32, height = 32 },
          { do = "scanout", scanout = 0 },
          { do = "scanout-off", scanout = 1 },
          { do = "cursor", x = -3, y = 7, hot-x = 63, hot-y = 1 },
          { do = "cursor-move", x = 1, y = 1 },
          { do = "cursor-hide" },
          { do = "power", to = "off" },
          { do = "power", to = "on" },
        ]
        "#,
    )
    .unwrap();
    let names: Vec<_> = plan.workload.iter().map(Step::name).collect();
    assert_eq!(
        names,
        [
            "display",
            "edid",
            "create-blob",
            "resize",
            "scanout",
            "scanout-off",
            "cursor",
            "cursor-move",
            "cursor-hide",
            "power",
            "power",
        ]
    );
    assert_eq!(plan.displays, [(1024, 768), (800, 600)]);
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

#[test]
fn a_plan_written_is_the_plan_read() {
    let plan = Plan {
        name: "a \"name\"".to_owned(),
        seed: 9,
        part: Part::Reads,
        order: Order::Lazy,
        displays: vec![(1024, 768), (0, 0)],
        ..Plan::default()
    }
    .with_choice(7, 2)
    .with_choice(3, 1);
    assert_eq!(Plan::parse(&plan.to_toml()).unwrap(), plan);
    assert_eq!(
        Plan::parse(&Plan::default().to_toml()).unwrap(),
        Plan::default()
    );
}

/// The page that documents scenario files.
const PAGE: &str = include_str!("../../../docs/scenarios.md");

/// The TOML in a page of documentation.
fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split("```toml\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

#[test]
fn every_documented_example_is_a_scenario() {
    let readme = include_str!("../../../README.md");
    let found = [examples(PAGE), examples(readme)];
    assert!(found.iter().all(|examples| !examples.is_empty()));
    for text in found.concat() {
        let plan = Plan::parse(text);
        assert!(plan.is_ok(), "{plan:?} of {text}");
    }
}

#[test]
fn every_step_and_key_is_documented_and_shown() {
    let rows: Vec<(&str, &str)> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .collect();
    let shown: Vec<Step> = examples(PAGE)
        .into_iter()
        .flat_map(|text| Plan::parse(text).unwrap().workload)
        .collect();
    // serde's own lists: what it says is to be expected instead.
    let steps = expected("workload = [{ do = \"\" }]");
    assert!(steps.len() > 10, "{steps:?}");
    for step in &steps {
        let row = rows.iter().find(|(name, _)| name == step);
        let (_, row) = row.unwrap_or_else(|| panic!("the step {step} has no row"));
        assert!(
            shown.iter().any(|shown| shown.name() == step),
            "no example shows {step}"
        );
        if row.contains("the same |") {
            continue;
        }
        for key in expected(&format!("workload = [{{ do = \"{step}\", none = 1 }}]")) {
            let key = format!("`{key}`");
            assert!(row.contains(&key), "{key} is not in the row of {step}");
        }
    }
    for key in expected("none = 1") {
        assert!(
            rows.iter().any(|(name, _)| *name == key),
            "the key {key} has no row"
        );
    }
}

/// The names that the parser would take where `text` has another.
fn expected(text: &str) -> Vec<String> {
    let error = Plan::parse(text).unwrap_err().to_string();
    let (_, names) = error.split_once("expected").unwrap();
    let names = names.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

#[test]
fn an_answer_is_written_over_once_and_told() {
    let plan = Plan::parse(
        "answer = [{ of = \"used\", number = 1, at = 1, data = \"aaBB\" }]\n\
         workload = [{ do = \"escape\", data = \"00ff\" }]",
    )
    .unwrap();
    assert_eq!(Plan::parse(&plan.to_toml()).unwrap(), plan);
    let scenario = Scenario::new(plan, Journal::in_memory());
    let mut given = [[0u8; 2]; 3];

    let altered = given
        .each_mut()
        .map(|bytes| scenario.answer(AnswerOf::Used, bytes));

    assert_eq!(altered, [false, true, false]);
    assert_eq!(given, [[0, 0], [0, 0xaa], [0, 0]]);
    assert_eq!(scenario.answers(AnswerOf::Used), 3);
    assert_eq!(scenario.answers(AnswerOf::Response), 0);
}

#[test]
fn answers_and_bytes_that_cannot_be_are_refused() {
    for (text, word) in [
        (
            "workload = [{ do = \"escape\", data = \"0\" }]",
            "hexadecimal",
        ),
        (
            "workload = [{ do = \"escape\", data = \"xx\" }]",
            "hexadecimal",
        ),
        (
            "answer = [{ of = \"used\", number = 1, data = \"\" }, \
             { of = \"used\", number = 1, data = \"00\" }]",
            "twice",
        ),
        (
            "answer = [{ of = \"nobody\", number = 1, data = \"\" }]",
            "nobody",
        ),
    ] {
        let error = Plan::parse(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
