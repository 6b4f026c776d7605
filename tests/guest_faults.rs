//! Faults injected into whole Linux guests. They need QEMU 10.1 and the test
//! guest: `scripts/test-qemu` gets both.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use support::guest::{Guest, OUR_VIRTIO_IOMMU, VTD, config};
use support::{dmasan, finding_ids, json, told};

/// What a machine does under a scenario.
struct Seen {
    found: Vec<String>,
    /// What of the scenario is not so.
    failed: Vec<String>,
    /// What the guest said, and dmasan.
    said: String,
}

/// Boot a machine under a scenario, until the guest says `text`, and end it.
fn under(machine: &str, scenario: &str, text: &str) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("faults.toml");
    fs::write(&file, scenario).unwrap();
    let arguments = ["--scenario", file.to_str().unwrap()];
    let mut guest = Guest::with(&config(machine), &arguments, "guest: ready");
    guest.said(text);
    let log = guest.log();
    // No power-off: with that Linux turns VT-d off under a device that still
    // shows a picture.
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    let report = json(out.path());
    let checks = report["checks"].as_array().unwrap().iter();
    let failures = checks.filter_map(|check| check["failure"].as_str());
    Seen {
        found: finding_ids(&report),
        failed: failures.map(str::to_owned).collect(),
        said: format!("{log}\n{said}"),
    }
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn an_entry_that_our_virtio_iommu_does_not_see_is_found_and_the_guest_hears_of_it() {
    let scenario = "[[fault]]\n\
                    name = \"an entry is gone\"\nat = \"entry\"\ndo = \"not-present\"\ncommand = \"*\"\nnth = 5\n\
                    [verify]\nfindings = [\"dma-unmapped\"]\n";
    let heard = "page fault from EP 8";
    let seen = under(OUR_VIRTIO_IOMMU, scenario, heard);
    assert_eq!(seen.found, ["dma-unmapped"], "{}", seen.said);
    assert!(seen.failed.is_empty(), "{:?}", seen.failed);
    let blamed = seen.said.contains("an entry is gone") || seen.said.contains("injected");
    assert!(blamed, "the injection, not the driver: {}", seen.said);
    // The guest's code is not seen, its doorbell is.
    let rung = seen.said.contains("the doorbell of the command was rung");
    assert!(rung, "{}", seen.said);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn late_and_needless_interrupts_do_not_trouble_a_guest_behind_vtd() {
    let scenario = "[[fault]]\nat = \"interrupt\"\ndo = \"late\"\nns = 3_000_000\nevery = 3\n\
                    [[fault]]\nat = \"interrupt\"\ndo = \"spurious\"\nevery = 4\n\
                    [[fault]]\nat = \"access\"\ndo = \"delay\"\nns = 1_000_000\nevery = 50\n\
                    [verify]\nfindings = []\n";
    let seen = under(VTD, scenario, "guest: ready");
    assert!(seen.found.is_empty(), "{}", seen.said);
    assert!(seen.failed.is_empty(), "{:?}", seen.failed);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_fault_that_never_fires_fails_a_guests_run() {
    let scenario = "[[fault]]\nat = \"map\"\ndo = \"fail\"\nnth = 100_000_000\n";
    let seen = under(OUR_VIRTIO_IOMMU, scenario, "guest: ready");
    assert!(seen.found.is_empty(), "{}", seen.said);
    assert_eq!(seen.failed.len(), 1);
    assert!(seen.failed[0].contains("never fired"), "{:?}", seen.failed);
}

/// No guest is needed to be told that it makes no sense.
#[test]
fn a_fault_that_a_guest_cannot_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("faults.toml");
    for (text, why) in [
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\nfunction = \"MmAllocatePagesForMdl\"\n",
            "function",
        ),
        ("[[fault]]\nat = \"unmap\"\ndo = \"fail\"\n", "our-virtio"),
        ("order = \"lazy\"\n", "a guest decides itself"),
        ("[verify]\nreleased = true\n", "only findings"),
    ] {
        fs::write(&file, text).unwrap();
        let output = dmasan()
            .args(["qemu", "--dry-run", "--scenario"])
            .arg(&file)
            .arg(config(VTD))
            .output()
            .unwrap();
        let (code, _, said) = told(&output);
        // Where no QEMU serves, that is said first, and it is another code.
        if code != Some(3) {
            assert_eq!(code, Some(2), "{text}: {said}");
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
