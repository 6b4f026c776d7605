//! What led to a finding, as the report shows it, and how briefly it says the
//! rest.

use super::*;
use crate::json;
use journal::event::{
    Breach, Certainty, ContextId, End, Event, NO_QUEUE, NameId, ORDERED, Outcome, Segment, StackId,
    Subject, TrapKind,
};
use ledger::ClueKind;
use memory::{Iova, RequesterId};
use serde_json::Value;

const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
const ADDRESS: u64 = 0x4000_0000;

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A queue whose rings begin at `first`.
fn queue(sample: Sample, first: u64) -> Sample {
    let area = |index: u64| Segment {
        iova: Iova(first + index * 0x100),
        length: 0x100,
    };
    sample
        .then(Event::Trap {
            kind: TrapKind::MmioWrite,
            address: 0xffff_f900_0000_0000,
            value: 1,
            size: 2,
            stack: StackId(2),
        })
        .then(Event::Queue {
            device: DEVICE,
            queue: 0,
            areas: [area(0), area(1), area(2)],
        })
}

fn access(sample: Sample, context: u32, iova: u64, write: bool) -> Vec<Record> {
    sample
        .then(Event::Access {
            context: ContextId(context),
            device: DEVICE,
            iova: Iova(iova),
            length: 2,
            write,
            outcome: Outcome::Refused,
        })
        .end(End::Completed)
}

/// A rule broken in a routine that is called at IRQL 2, after `raise` was
/// called at 0; by two allocations.
fn wrong_irql(finding: &str) -> Vec<Record> {
    let call = |sample: Sample, id: u32, name: &str, irql| {
        sample
            .then(Event::Name {
                id: NameId(id),
                text: name.into(),
            })
            .then(Event::Call {
                function: NameId(id),
                arguments: vec![0x41],
                irql,
                thread: 0,
                stack: StackId(irql.into()),
            })
    };
    let sample = call(Sample::new().used(), 8, "KeAcquireSpinLockRaiseToDpc", 1);
    call(sample, 9, "KeWaitForSingleObject", 2)
        .then(Event::Breach(Breach {
            rule: "a-rule".into(),
            finding: finding.into(),
            reason: "so".into(),
            certainty: Certainty::Inferred,
            status: None,
            subject: Subject::default(),
            stack: StackId(3),
        }))
        .end(End::Completed)
}

#[test]
fn wrong_irql_shows_where_it_was_raised() {
    let report = report(&wrong_irql("wrong-irql"));
    let text = words(&plain(&report));

    let title = "the IRQL was raised from 1 to 2 here, by KeAcquireSpinLockRaiseToDpc at";
    assert!(text.contains(title), "{text}");
    let value: Value = serde_json::from_str(&json::render(&report)).unwrap();
    let clue = &value["findings"][0]["clues"][0];
    assert_eq!(clue["kind"], "irql-raised");
    assert_eq!(clue["place"]["stack"][0]["offset"], "0x1120");
}

#[test]
fn ring_in_the_interrupt_range_names_the_queue_and_who_enabled_it() {
    let report = report(&access(
        queue(Sample::new().used(), 0xfee0_0000),
        1,
        0xfee0_0204,
        true,
    ));
    let text = words(&plain(&report));

    for part in [
        "in queue 0's used ring, at an address of the interrupt range",
        "queue 0 was enabled here, with its rings' addresses",
        "it gave queue 0 a used ring in the interrupt range",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The line that a log is searched for names that place too.
    let last = text.split("SUMMARY:").nth(1).unwrap();
    assert!(last.contains("dmasan-gpu.sys+0x2230"), "{last}");
    let value: Value = serde_json::from_str(&json::render(&report)).unwrap();
    assert_eq!(value["findings"][0]["queue_area"]["part"], "used-ring");
}

#[test]
fn freed_ring_speaks_of_the_queue_alone() {
    let sample = queue(Sample::new().used(), ADDRESS + 0x1000).freed(true);
    let text = words(&plain(&report(&access(sample, 0, ADDRESS + 0x1102, false))));

    for part in [
        "the device's own access to queue 0's available ring",
        "queue 0 was still enabled, with its available ring in the memory that was freed",
        "reset the device",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["no doorbell was seen", "RESOURCE_DETACH_BACKING"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

#[test]
fn map_of_pages_that_says_nothing_is_left_out() {
    let title = "pages around the address";
    let far = access(Sample::new().used(), 1, 0xffff_ffff_0000_0000, false);
    let near = access(
        Sample::new().used(),
        1,
        ADDRESS + 0x10_0000 - 0xf_0000,
        false,
    );

    assert!(!plain(&report(&far)).contains(title));
    assert!(plain(&report(&near)).contains(title));
}

#[test]
fn remedy_of_pages_mapped_for_user_mode_is_their_unmapping() {
    let text = words(&plain(&report(&wrong_irql("mapped-after-free"))));

    assert!(text.contains("MmUnmapLockedPages"), "{text}");
    assert!(!text.contains("IoMmu"), "{text}");
}

#[test]
fn last_line_names_who_called_into_a_layer() {
    let records = Sample::use_after_free();
    let mut report = named(&records);
    let line = |report: &Report| plain(report).lines().last().unwrap().to_owned();
    let inner = "dmasan_gpu::resource::Resource::free_backing";

    assert!(line(&report).ends_with(&format!("resource.rs:214 in {inner}")));
    let file = |name: &str| format!("guest-driver/driver/src/{name}");
    report.layers.insert(file("resource.rs"));
    let outer = "dmasan_gpu::present::stop_device_and_release_post_display_ownership";
    let expected = format!("present.rs:77 in {outer} > Resource::free_backing");
    assert!(line(&report).ends_with(&expected), "{}", line(&report));
    report.layers.insert(file("present.rs"));
    let expected = "entry.rs:41 in dmasan_gpu::entry::dispatch > Resource::free_backing";
    assert!(line(&report).ends_with(expected), "{}", line(&report));
    // Where all are layers, the nearest of another file.
    report.layers.insert(file("entry.rs"));
    assert!(line(&report).contains("present.rs:77"), "{}", line(&report));
}

#[test]
fn further_allocations_are_counted_beside_the_first() {
    let mut report = report(&Sample::use_after_free());
    report.findings[0].finding.allocations = 3;

    let text = words(&plain(&report));

    assert!(
        text.contains("; and 2 more allocations, made in the same place"),
        "{text}"
    );
}

#[test]
fn run_of_the_json_has_the_flags_that_repeat_it() {
    let mut records = Sample::healthy();
    if let Some(Event::Begin(begin)) = records.first_mut().map(|record| &mut record.event) {
        begin.iommu_flags = 7;
        begin.framebuffer_pin_fails = true;
    }

    let value: Value = serde_json::from_str(&json::render(&report(&records))).unwrap();

    assert_eq!(value["run"]["iommu_flags"], 7);
    assert_eq!(value["run"]["framebuffer_pin_fails"], true);
}

#[test]
fn stacks_of_clues_follow_their_kind() {
    let report = report(&wrong_irql("wrong-irql"));
    let found = &report.findings[0];

    assert_eq!(found.clue(ClueKind::Raised).len(), 3);
    assert_eq!(found.clue(ClueKind::Attached), []);
}

#[test]
fn loop_that_the_compiler_unrolled_is_one_place() {
    // Without symbols two return addresses are two places.
    let breach = |stack: u32| {
        Event::Breach(Breach {
            rule: "a-rule".into(),
            finding: "handle-leak".into(),
            reason: "so".into(),
            certainty: Certainty::Inferred,
            status: None,
            subject: Subject::default(),
            stack: StackId(stack),
        })
    };
    let records = Sample::new().then(breach(2)).then(breach(3));
    let mut both = report(&records.end(End::Completed)).findings;
    assert_eq!(both.len(), 2);
    let line = Frame {
        function: Some("free_all".into()),
        line: Some(7),
        ..Frame::default()
    };
    for (offset, found) in (0..).zip(&mut both) {
        found.used = vec![Frame {
            offset,
            ..line.clone()
        }];
    }

    let moved = crate::build::fold(&mut both);

    assert_eq!(moved, [0, 0]);
    assert_eq!((both.len(), both[0].finding.count), (1, 2));
}

/// Without the trap that rang the doorbell: a guest under QEMU shows its
/// doorbells, and none of its code.
#[test]
fn doorbell_without_a_stack_is_told() {
    let mut records = Sample::use_after_free();
    let trap = |event: &Event| {
        matches!(
            event,
            Event::Trap {
                kind: TrapKind::MmioWrite,
                ..
            }
        )
    };
    records.retain(|record| !trap(&record.event));
    let text = words(&plain(&report(&records)));

    let told = "used: the doorbell of the command was rung at";
    assert!(text.contains(told), "{text}");
    assert!(!text.contains("no doorbell was seen"), "{text}");
}

/// The same of a command that the device took by itself.
#[test]
fn command_whose_doorbell_was_not_seen_says_so() {
    let mut records = Sample::use_after_free();
    records.retain(|record| !matches!(record.event, Event::Notify { .. }));
    let text = words(&plain(&report(&records)));

    let told = "used: the command was submitted here (no doorbell was seen for it)";
    assert!(text.contains(told), "{text}");
}

/// A vertical blank, or an order.
#[test]
fn work_by_no_queue_has_no_doorbell() {
    let context = ContextId(9);
    let sample = Sample::new()
        .then(Event::Context {
            context,
            device: DEVICE,
            queue: NO_QUEUE,
            position: 0,
            head: 0,
        })
        .then(Event::Name {
            id: NameId(9),
            text: ORDERED.into(),
        })
        .then(Event::Command {
            context,
            name: NameId(9),
            detail: "read 2 bytes".into(),
            resource: None,
        });
    let text = words(&plain(&report(&access(sample, 9, ADDRESS, false))));

    assert!(text.contains("ORDERED read 2 bytes"), "{text}");
    for part in ["doorbell was", "submitted here"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}
