//! `dmasan audit` and the device that misbehaves by order, on whole Linux
//! guests: `scripts/test-qemu` runs them.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::guest::{Guest, OUR_VIRTIO_IOMMU, VTD};
use support::{dmasan, json, told};

/// Audit a guest; exit code, what is said, and the same as data.
fn audit(guest: &Guest, arguments: &[&str]) -> (Option<i32>, String, Value) {
    let file = guest.out.path().join("audit.json");
    let output = dmasan()
        .arg("audit")
        .arg(guest.out.path().join("control.sock"))
        .arg("--json")
        .arg(&file)
        .args(arguments)
        .output()
        .unwrap();
    let (code, stdout, stderr) = told(&output);
    let said = stdout + &stderr;
    let text = std::fs::read_to_string(file).unwrap_or_else(|_| panic!("{said}"));
    (code, said, serde_json::from_str(&text).unwrap())
}

fn sum(pieces: &Value) -> u64 {
    let pieces = pieces.as_array().unwrap();
    pieces.iter().map(|p| p["length"].as_u64().unwrap()).sum()
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn an_audit_says_what_is_reached_and_everything_else_is_refused() {
    let guest = Guest::ready(VTD);
    let picture = guest.out.path().join("reach.png");
    let (code, said, audit) = audit(&guest, &["--png", &picture.to_string_lossy()]);
    assert_eq!(code, Some(0), "{said}");
    let pages = |name: &str| audit[name].as_u64().unwrap();
    assert_eq!(pages("guest_pages"), (512 << 20) >> 12);
    // The picture on the screen alone is 768 pages.
    assert!((768..8192).contains(&pages("reached_pages")), "{said}");
    let uses = audit["uses"].to_string();
    for used in [
        "rings of queue 0",
        "rings of queue 1",
        "backing of resource",
    ] {
        assert!(uses.contains(used), "{uses}");
    }
    for used in audit["uses"].as_array().unwrap() {
        assert_eq!(used["pages"], used["mapped"], "{used}");
    }
    assert_eq!(sum(&audit["identity"]), 0, "{said}");
    let walked = &audit["tables"]["walked"];
    assert_eq!(walked["whole"], true, "{said}");
    assert_eq!(
        sum(&walked["cleared"]) + sum(&walked["changed"]),
        0,
        "{said}"
    );
    let probe = &audit["probe"];
    assert!(probe["tried"].as_u64().unwrap() >= 6, "{said}");
    assert_eq!(probe["tried"], probe["refused"], "{said}");
    let bytes = std::fs::read(picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG"));
    // The audit's own reads are nobody's defect.
    let (_, said, out) = guest.interrupt();
    assert!(
        json(out.path())["findings"].as_array().unwrap().is_empty(),
        "{said}"
    );
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn lazy_invalidation_leaves_pages_in_reach_for_a_while() {
    is_lazy(Guest::ready("linux-virtio-iommu-lazy"));
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn lazy_invalidation_shows_behind_our_virtio_iommu_too() {
    let lazy = [("iommu.strict=1\"", "iommu.strict=0\"")];
    is_lazy(Guest::changed(OUR_VIRTIO_IOMMU, &lazy));
}

fn is_lazy(mut guest: Guest) {
    // On a busy host both may miss each other: then once more.
    let watched = (0..5).map(|_| watched(&mut guest)).find(|watched| {
        watched["unmapped"].as_u64().unwrap() > 0 && watched["seen"].as_u64().unwrap() > 0
    });
    let watched = watched.expect("pages that were seen in reach after they were given up");
    let (_, said, out) = guest.interrupt();
    let seen = format!("{} of them were seen given up", watched["seen"]);
    let notes = json(out.path())["notes"].to_string();
    assert!(notes.contains(&seen), "{said}");
}

/// What a watch saw while the guest drew.
fn watched(guest: &mut Guest) -> Value {
    let watch = dmasan()
        .arg("audit")
        .arg(guest.out.path().join("control.sock"))
        .args(["--watch", "8", "--json", "-"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    guest.shell("for i in 1 2 3 4 5 6; do echo lazy > /dev/tty0; sleep 1; done");
    let (code, stdout, stderr) = told(&watch.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let watched: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(watched["why_not"], Value::Null, "{stdout}");
    watched
}

#[test]
fn nobody_to_audit_is_told() {
    let output = dmasan().args(["audit", "/nonexistent"]).output().unwrap();
    let (code, _, stderr) = told(&output);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("is the machine running?"), "{stderr}");
}
