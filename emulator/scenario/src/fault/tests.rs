#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Plan, Scenario};
use journal::Journal;
use journal::event::Event;
use proptest::prelude::*;

fn scenario(text: &str) -> Scenario {
    Scenario::new(Plan::parse(text).unwrap(), Journal::in_memory())
}

fn fired(scenario: &Scenario, site: &Site<'_>, times: usize) -> Vec<usize> {
    (1..=times)
        .filter(|_| scenario.inject(site).is_some())
        .collect()
}

#[test]
fn every_outcome_is_read_at_its_site_and_refused_at_others() {
    for at in SiteKind::ALL {
        for other in SiteKind::ALL {
            for outcome in other.outcomes() {
                let more = match outcome {
                    What::Partial => "pages = 1",
                    What::Redirect => "to = 4096",
                    _ => "",
                };
                let text = format!(
                    "[[fault]]\nat = \"{}\"\ndo = \"{}\"\n{more}\n",
                    at.name(),
                    outcome.name()
                );
                let parsed = Plan::parse(&text);
                if at.outcomes().contains(outcome) {
                    let plan = parsed.unwrap();
                    assert_eq!((plan.faults[0].at, plan.faults[0].outcome), (at, *outcome));
                } else {
                    let error = parsed.unwrap_err().to_string();
                    assert!(error.contains("line 1: fault 1: do ="), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_bad_fault_is_refused_with_its_line() {
    for (text, says) in [
        (
            "seed = 1\n\n[[fault]]\nat = \"map\"\ndo = \"fail\"\ncommand = \"X\"",
            "line 3: fault 1: command",
        ),
        ("[[fault]]\nat = \"nowhere\"\ndo = \"fail\"", "line 2"),
        ("[[fault]]\nat = \"call\"\ndo = \"explode\"", "line 3"),
        ("[[fault]]\nat = \"call\"\ndo = \"fail\"\nwen = 1", "line 4"),
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\nstatus = \"STATUS_X\"",
            "STATUS_X",
        ),
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\nnth = 0",
            "counted from 1",
        ),
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\nnth = 1\nevery = 2",
            "keep one",
        ),
        ("[[fault]]\nat = \"call\"\ndo = \"partial\"", "needs pages"),
        (
            "[[fault]]\nat = \"call\"\ndo = \"partial\"\npages = 0",
            "do = \"fail\"",
        ),
        ("[[fault]]\nat = \"access\"\ndo = \"redirect\"", "needs to"),
        (
            "[[fault]]\nat = \"access\"\ndo = \"drop\"\nns = 1",
            "ns says nothing",
        ),
        (
            "[[fault]]\nat = \"map\"\ndo = \"fail\"\nstatus = 1",
            "no routine",
        ),
        (
            "[[fault]]\nat = \"access\"\ndo = \"drop\"\niova = [2, 1]",
            "is empty",
        ),
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\nprobability = 1.5",
            "probability",
        ),
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\ncaller = \"f\"",
            "module!function",
        ),
        ("[verify]\nfinding = []", "unknown field `finding`"),
        ("[verify]\nframe = \"nice\"", "line 2"),
    ] {
        let error = Plan::parse(text).unwrap_err().to_string();
        assert!(error.contains(says), "{text:?} gave {error:?}");
    }
}

#[test]
fn a_plan_with_faults_written_is_the_plan_read() {
    let text = r#"
        may-fail = true
        [[fault]]
        name = "third allocation"
        at = "call"
        do = "fail"
        function = "Dxgk*"
        caller = "driver!f*"
        nth = 3
        after = "DxgkDdiStopDevice"
        status = "STATUS_NO_MEMORY"
        [[fault]]
        at = "descriptor"
        do = "delay"
        descriptor = "iotlb"
        iova = [4096, 8191]
        window = [0, 1000]
        probability = 0.25
        ns = 7
        [[fault]]
        at = "access"
        do = "redirect"
        to = 65536
        every = 2
        direction = "write"
        command = "RESOURCE_*"
        [verify]
        findings = ["stale-iotlb"]
        status = [{ function = "DxgkCb*", returns = "STATUS_NO_MEMORY" }, { function = "f", returns = 7 }]
        released = true
        frame = "unchanged"
    "#;
    let plan = Plan::parse(text).unwrap();
    assert_eq!(Plan::parse(&plan.to_toml()).unwrap(), plan);
    assert_eq!(plan.faults[1].line.0, 12);
}

#[test]
fn each_trigger_fires_when_it_says() {
    let site = Site {
        function: Some("ExAllocatePool2"),
        ..Site::new(SiteKind::Call)
    };
    for (trigger, want) in [
        ("", [true; 6]),
        ("nth = 3", [false, false, true, false, false, false]),
        ("every = 2", [false, true, false, true, false, true]),
        (
            "window = [3000, 4000]",
            [false, false, true, true, false, false],
        ),
        (
            "window = [2000, 9000]\nnth = 2",
            [false, false, true, false, false, false],
        ),
        ("after = \"Ddi*\"", [false, false, false, true, true, true]),
        (
            "after = \"Ddi*\"\nnth = 1",
            [false, false, false, true, false, false],
        ),
        ("function = \"Mm*\"", [false; 6]),
        ("function = \"Ex?llocate*\"", [true; 6]),
        ("probability = 1.0", [true; 6]),
    ] {
        let scenario = scenario(&format!("[[fault]]\nat=\"call\"\ndo=\"fail\"\n{trigger}"));
        let mut seen = [false; 6];
        for (n, seen) in seen.iter_mut().enumerate() {
            scenario.advance(1_000);
            if n == 3 {
                scenario.entered("DdiStop");
            }
            *seen = scenario.inject(&site).is_some();
        }
        assert_eq!(seen, want, "{trigger}");
    }
}

#[test]
fn each_filter_lets_its_own_through() {
    let access = Site::of_access(SiteKind::Access, 7, 0x1ff0, 0x20, true);
    let cases = [
        ("access", "drop", "iova = [8192, 8192]", access, true),
        ("access", "drop", "iova = [0, 4096]", access, false),
        ("access", "drop", "direction = \"write\"", access, true),
        ("access", "drop", "direction = \"read\"", access, false),
        ("access", "drop", "command = \"TRANSFER*\"", access, true),
        ("access", "drop", "command = \"FLUSH\"", access, false),
        (
            "queue",
            "unplug",
            "queue = 1",
            Site {
                queue: Some(1),
                ..Site::new(SiteKind::Queue)
            },
            true,
        ),
        (
            "queue",
            "unplug",
            "queue = 0",
            Site::new(SiteKind::Queue),
            false,
        ),
        (
            "descriptor",
            "drop",
            "descriptor = \"wait\"",
            Site {
                descriptor: Some(Descriptor::Wait),
                ..Site::new(SiteKind::Descriptor)
            },
            true,
        ),
        // One page can be invalidated no less than whole.
        (
            "descriptor",
            "wrong-granularity",
            "",
            Site {
                descriptor: Some(Descriptor::Iotlb),
                iova: Some((4096, 8191)),
                ..Site::new(SiteKind::Descriptor)
            },
            false,
        ),
    ];
    for (at, outcome, filter, site, want) in cases {
        let scenario = scenario(&format!(
            "[[fault]]\nat = \"{at}\"\ndo = \"{outcome}\"\n{filter}"
        ));
        scenario.learnt(7, "TRANSFER_TO_HOST_2D");
        assert_eq!(scenario.inject(&site).is_some(), want, "{at} {filter}");
    }
}

#[test]
fn a_caller_is_looked_for_on_the_whole_stack() {
    let mut plan = Plan::parse("[[fault]]\nat=\"call\"\ndo=\"fail\"\ncaller=\"d!f\"").unwrap();
    let unknown = plan.resolve_callers(|_| Vec::new()).unwrap_err();
    assert!(unknown.to_string().contains("line 1"), "{unknown}");
    let function = 0x100..0x200;
    plan.resolve_callers(|_| vec![function.clone()]).unwrap();
    let scenario = Scenario::new(plan, Journal::in_memory());
    let site = Site::new(SiteKind::Call);
    scenario.begin_call("f", &[0x10, 0x20]);
    assert!(scenario.inject(&site).is_none());
    scenario.begin_call("f", &[0x10, 0x1ff]);
    assert!(scenario.inject(&site).is_some());
}

#[test]
fn what_is_injected_stands_in_the_journal_and_is_counted() {
    let scenario = scenario("[[fault]]\nat=\"access\"\ndo=\"drop\"\nnth=2");
    let site = Site::of_access(SiteKind::Access, 0, 0x1000, 4, false);
    assert_eq!(fired(&scenario, &site, 3).len(), 1);
    let tally = scenario.tallies()[0];
    assert_eq!((tally.met, tally.fired), (3, 1));
    let (records, _) = journal::read(&scenario.journal().bytes()[..]).unwrap();
    let told: Vec<_> = records
        .iter()
        .filter_map(|record| match &record.event {
            Event::Injected {
                fault,
                name,
                site,
                outcome,
            } => Some((*fault, name.as_str(), site.as_str(), outcome.as_str())),
            _ => None,
        })
        .collect();
    let want = (0, "drop at access", "access read 0x1000-0x1003", "drop");
    assert_eq!(told, [want]);
}

#[test]
fn memory_is_refused_in_the_call_only_and_low_memory_stays() {
    let scenario = scenario("may-fail = true");
    scenario.begin_call("a", &[]);
    scenario.refuse_memory();
    assert!(scenario.refuses_memory());
    scenario.end_call();
    assert!(!scenario.refuses_memory());
    scenario.exhaust_memory();
    // Windows' own needs are met.
    assert!(!scenario.refuses_memory());
    scenario.begin_call("b", &[]);
    assert!(scenario.refuses_memory());
}

#[test]
fn a_run_without_faults_has_none_at_any_site() {
    let scenario = Scenario::for_test();
    assert!(SiteKind::ALL.iter().all(|&kind| !scenario.has_faults(kind)));
    assert!(!scenario.is_faulty());
}

fn naive(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            naive(&pattern[1..], text) || (!text.is_empty() && naive(pattern, &text[1..]))
        }
        (Some(&p), Some(&t)) => (p == b'?' || p == t) && naive(&pattern[1..], &text[1..]),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_as_its_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        prop_assert_eq!(matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn a_restored_scenario_injects_the_same(
        every in 1u64..5,
        probability in 0.01f64..1.0,
        before in 0usize..20,
    ) {
        let scenario = scenario(&format!(
            "[[fault]]\nat=\"interrupt\"\ndo=\"lost\"\nevery={every}\nprobability={probability}"
        ));
        let site = Site::new(SiteKind::Interrupt);
        for _ in 0..before {
            let _ = scenario.inject(&site);
        }
        let saved = scenario.save();
        let run = || -> Vec<bool> { (0..20).map(|_| scenario.inject(&site).is_some()).collect() };
        let first = run();
        scenario.restore(&saved);
        prop_assert_eq!(first, run());
    }
}
