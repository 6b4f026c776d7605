//! The journal as a trace.

use super::sample::Sample;
use super::*;
use crate::trace;
use journal::event::{Event, NameId};

fn traced(records: &[Record]) -> Vec<String> {
    trace::lines(records, &symbolizer()).collect()
}

fn call(function: u32, arguments: Vec<u64>) -> Event {
    Event::Call {
        function: NameId(function),
        arguments,
        irql: 2,
        thread: 0,
        stack: journal::event::StackId(1),
    }
}

fn named_sample() -> Sample {
    let mut sample = Sample::new();
    for (id, text) in [
        (7, "DxgkDdiStartDevice"),
        (8, "KeGetCurrentIrql"),
        (9, "DxgkCbMapMemory"),
    ] {
        sample = sample.then(Event::Name {
            id: NameId(id),
            text: text.into(),
        });
    }
    sample
}

#[test]
fn calls_nest_by_enter_and_leave_and_join_their_results() {
    let records = named_sample()
        .then(Event::Enter {
            routine: NameId(7),
            address: 0,
            arguments: vec![0x10],
            irql: 0,
            thread: 0,
        })
        .then(call(8, vec![]))
        .then(Event::Return {
            function: NameId(8),
            value: 2,
        })
        .then(call(9, vec![1, 2]))
        .print("one\ntwo\n")
        .then(Event::Return {
            function: NameId(9),
            value: 0xc000_009a,
        })
        .then(Event::Leave {
            routine: NameId(7),
            value: 0,
        })
        .0;
    let lines = traced(&records);
    let text = |line: &String| line.chars().skip(14).collect::<String>();
    let lines: Vec<String> = lines.iter().map(text).collect();

    let at = lines.iter().position(|line| line.contains("->")).unwrap();
    assert_eq!(
        lines[at..],
        [
            "-> DxgkDdiStartDevice(0x10)",
            "  KeGetCurrentIrql()  irql 2 = 0x2",
            "  DxgkCbMapMemory(0x1, 0x2)  irql 2",
            "    | one",
            "    | two",
            "  DxgkCbMapMemory = 0xc000009a STATUS_INSUFFICIENT_RESOURCES",
            "<- DxgkDdiStartDevice = 0x0",
        ],
        "{lines:#?}"
    );
}

#[test]
fn device_and_memory_are_told() {
    let text = traced(&Sample::use_after_free()).join("\n");
    for part in [
        "+ allocation 1: 12 pages, MDL 0xffff800000012000",
        "- allocation 1 freed",
        "doorbell: queue 0, available index 2",
        "gpu #2: TRANSFER_TO_HOST_2D resource 1, 64x192 at 0,0",
        "FAULT 00:02.0 gpu #2: read of",
        "BUG CHECK 0xe6 DRIVER_VERIFIER_DMA_VIOLATION",
        "iommu: invalidate domain 1, reads drained, writes drained, 12 entries dropped",
        "end: bug check",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn call_that_the_journal_ends_in_is_told() {
    let lines = traced(&named_sample().then(call(8, vec![])).0);
    assert!(lines.last().unwrap().contains("KeGetCurrentIrql()"));
}

#[test]
fn lines_are_short_and_harmless() {
    let mut sample = Sample::new()
        .then(Event::Name {
            id: NameId(7),
            text: "\x1b[2J".repeat(1 << 16),
        })
        .print(&"\x1b]0;x\x07\u{202e}".repeat(1 << 16))
        .print(&"line\n".repeat(1000));
    for _ in 0..1000 {
        sample = sample.then(call(7, vec![u64::MAX; 1000]));
    }
    let lines = traced(&sample.0);

    assert!(lines.len() < 1100);
    for line in lines {
        assert!(line.chars().count() <= trace::MAX_WIDTH, "{line}");
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'));
    }
}
