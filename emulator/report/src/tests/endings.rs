//! How runs end, told plainly.

use super::*;
use crate::{Ending, json};
use journal::event::{End, StackId};

#[test]
fn clean_run_is_one_short_block() {
    let report = report(&Sample::healthy());
    let text = plain(&report);

    assert!(report.is_clean());
    assert!(text.lines().count() <= 9, "{text}");
    for part in [
        "dmasan-gpu.sys, isolation domain",
        "1 frame shown",
        "2 accesses (8192 bytes read, 0 bytes written): 0 refused",
        "1 allocation of 12 pages; 0 not freed",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert!(text.ends_with("==dmasan== no findings\n"), "{text}");
}

#[test]
fn memory_not_freed_is_told_but_no_finding() {
    let report = report(&Sample::new().used().end(End::Completed));
    let text = plain(&report);

    assert!(report.is_clean());
    assert!(text.contains("1 not freed"));
    assert!(text.contains("not freed: allocation 1: 12 pages, DxgkCbAllocatePagesForMdl"));
}

#[test]
fn each_ending_says_what_happened_and_where() {
    let rows = [
        (
            End::StartFailed {
                routine: "DxgkDdiStartDevice".into(),
                status: 0xc000_009a,
            },
            "DxgkDdiStartDevice returned 0xc000009a (STATUS_INSUFFICIENT_RESOURCES)",
            "start-failed",
        ),
        (
            End::StartFailed {
                routine: "DriverEntry".into(),
                status: 0xdead_beef,
            },
            "DriverEntry returned 0xdeadbeef (an NTSTATUS without a common name)",
            "start-failed",
        ),
        (
            End::Hang {
                reason: "it polls the used ring".into(),
                stack: StackId(2),
            },
            "#0  dmasan-gpu.sys+0x2230",
            "hang",
        ),
        (
            End::Unsupported {
                reason: "import ntoskrnl.exe!KeFrobnicate is not implemented".into(),
                stack: StackId(1),
            },
            "import ntoskrnl.exe!KeFrobnicate is not implemented",
            "unsupported",
        ),
        (
            End::Interrupted,
            "interrupted: the run was stopped",
            "interrupted",
        ),
    ];
    for (end, part, state) in rows {
        let report = report(&Sample::new().end(end));
        let text = plain(&report);

        assert!(!report.is_clean());
        assert!(text.contains(part), "{part} is not in:\n{text}");
        let last = match state {
            "hang" => "SUMMARY: hang in dmasan-gpu.sys+0x2230",
            _ => "no findings, but the run is not whole",
        };
        assert!(text.contains(last), "{last} is not in:\n{text}");
        let value: serde_json::Value = serde_json::from_str(&json::render(&report)).unwrap();
        assert_eq!(value["end"]["state"], state);
    }
}

#[test]
fn journal_without_an_end_says_so() {
    let records = Sample::new().used().0;
    let report = Report::build(
        &records,
        &symbolizer(),
        Meta {
            reproduce: None,
            tail: Tail::Torn {
                at: 4711,
                lost: 12,
                why: "a record is cut off",
            },
        },
    );
    let text = plain(&report);

    assert_eq!(report.ending, Ending::Unknown);
    assert!(text.contains("the journal ends before the run does"));
    assert!(text.contains("torn at byte 4711 (a record is cut off)"));
}

#[test]
fn bug_check_of_no_finding_is_an_error_of_its_own() {
    let records = Sample::new()
        .bug_check(
            0xc4,
            [0x7e, 3, 2, 0],
            "MmFreePagesFromMdl above DISPATCH_LEVEL",
        )
        .end(End::BugCheck);
    let text = plain(&report(&records));

    assert!(text.contains(
        "ERROR: bug check 0xC4 DRIVER_VERIFIER_DETECTED_VIOLATION (0x7e, 0x3, 0x2, 0x0)"
    ));
    assert!(text.contains("MmFreePagesFromMdl above DISPATCH_LEVEL"));
    assert!(text.contains("#0  dmasan-gpu.sys+0x2230"));
}
