//! Broken rules.

use super::*;
use crate::Party;
use journal::event::{Breach, BugCheck, Certainty, Subject};

fn breach(finding: &str, stack: u32, subject: Subject) -> Event {
    Event::Breach(Breach {
        rule: "a-rule".into(),
        finding: finding.into(),
        reason: "it happened. The rule says so (source)".into(),
        certainty: Certainty::Inferred,
        status: Some(0xc000_0008),
        subject,
        stack: StackId(stack),
    })
}

fn stop(finding: Option<&str>, code: u32) -> Event {
    Event::BugCheck(BugCheck {
        code,
        parameters: [0x26, 0, ADDRESS, 6],
        certainty: Certainty::Documented,
        reason: "reason".into(),
        stack: StackId(4),
        continued: true,
        rule: Some("a-rule".into()),
        finding: finding.map(str::to_owned),
        subject: of(1),
    })
}

fn of(id: u32) -> Subject {
    Subject {
        allocation: Some(AllocationId(id)),
        address: 0x41,
    }
}

fn at_address(address: u64) -> Subject {
    Subject {
        allocation: None,
        address,
    }
}

#[test]
fn every_breach_is_a_finding_of_its_kind_with_its_stacks() {
    for kind in Kind::ALL {
        let findings = Run::isolated()
            .allocate(1, PAGE, 1)
            .free(1)
            .then(Event::Call {
                function: NameId(2),
                arguments: vec![],
                irql: 0,
                thread: 0,
                stack: StackId(5),
            })
            .then(breach(kind.id(), 5, of(1)))
            .findings();

        assert_eq!(findings.len(), 1);
        let found = &findings[0];
        assert_eq!(found.kind, kind);
        assert_eq!(found.access, None);
        assert_eq!(found.blame[0].party, Party::Driver);
        let facts = found.breach.as_ref().unwrap();
        assert_eq!(facts.rule.as_deref(), Some("a-rule"));
        assert_eq!(facts.routine.as_deref(), Some("Free"));
        assert_eq!((facts.status, facts.address), (Some(0xc000_0008), 0x41));
        assert_eq!(facts.place.stack[0], 0xffff_f800_0000_0005);
        let allocation = found.allocation.as_ref().unwrap();
        assert_eq!(allocation.allocated.stack[0], 0xffff_f800_0000_0001);
        assert!(allocation.freed.is_some());
    }
}

#[test]
fn routine_is_the_innermost_that_is_running() {
    let routine = |run: Run| {
        let findings = run.then(breach("handle-leak", 0, at_address(1))).findings();
        findings[0].breach.clone().unwrap().routine
    };
    let entered = || {
        Run::isolated().then(Event::Enter {
            routine: NameId(1),
            address: 0,
            arguments: vec![],
            irql: 0,
            thread: 0,
        })
    };

    assert_eq!(routine(entered()).as_deref(), Some("OK_NODATA"));
    let left = entered().then(Event::Leave {
        routine: NameId(1),
        value: 0,
    });
    assert_eq!(routine(left), None);
}

#[test]
fn equal_breaches_are_one_finding() {
    let counts = |events: Vec<Event>| -> Vec<u64> {
        let run = events.into_iter().fold(Run::isolated(), Run::then);
        run.findings().iter().map(|found| found.count).collect()
    };
    let id = "wrong-irql";

    let same = vec![breach(id, 5, at_address(1)), breach(id, 5, at_address(2))];
    assert_eq!(counts(same), [2]);
    let elsewhere = vec![breach(id, 5, at_address(1)), breach(id, 6, at_address(1))];
    assert_eq!(counts(elsewhere), [1, 1]);
    // Where no code of the driver's ran, the thing itself tells them apart.
    let leaks = vec![breach(id, 0, at_address(1)), breach(id, 0, at_address(2))];
    assert_eq!(counts(leaks), [1, 1]);
}

#[test]
fn unknown_findings_are_counted_and_left_aside() {
    let ledger = Run::isolated()
        .then(breach("dma-gremlins", 5, of(1)))
        .then(stop(Some("dma-gremlins"), 0xc4))
        .end();

    assert_eq!(ledger.findings(), []);
    assert_eq!(ledger.facts().unknown_findings, 2);
}

#[test]
fn bug_check_of_a_rule_is_its_finding() {
    let run = Run::isolated()
        .allocate(1, PAGE, 1)
        .then(stop(Some("double-free"), 0x4e));
    let number = run.records.len() as u32;
    let ledger = run.end();

    assert_eq!(ledger.findings().len(), 1);
    let found = &ledger.findings()[0];
    assert_eq!(found.kind, Kind::DoubleFree);
    let stop = found.stop.as_ref().unwrap();
    assert!(stop.seen && stop.continued && stop.code == 0x4e);
    assert_eq!(ledger.cause(number), Some(0));
}

#[test]
fn bug_check_without_a_finding_is_none() {
    assert_eq!(Run::isolated().then(stop(None, 0xc4)).kinds(), []);
}

#[test]
fn bug_check_of_a_fault_is_told_by_its_access_alone() {
    let run = Run::isolated()
        .used()
        .refused(1, 0x9000)
        .then(stop(Some("dma-unmapped"), 0xe6));

    assert_eq!(run.kinds(), [Kind::DmaUnmapped]);
}

#[test]
fn hang_is_a_finding_and_a_completed_run_is_none() {
    let hang = Run::isolated().then(Event::End(End::Hang {
        reason: "it polls".into(),
        stack: StackId(3),
    }));
    let findings = hang.ledger().findings().to_vec();

    assert_eq!(findings[0].kind, Kind::Hang);
    let facts = findings[0].breach.as_ref().unwrap();
    assert_eq!(facts.reason, "it polls");
    assert_eq!(facts.place.stack[0], 0xffff_f800_0000_0003);
    assert_eq!(Run::isolated().kinds(), []);
}
