//! What a guest tells of its memory, end to end: by `claim`
//! (tests/guests/claim.c), the small program in the test guest.
//! `scripts/test-qemu` runs them.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::path::Path;
use support::guest::{Guest, OUR_VIRTIO_IOMMU, VIRTIO_IOMMU, VTD};
use support::{dmasan, json, told};

/// The longest stretch of the device's addresses that is mapped, which is the
/// picture on the screen, as `claim` takes it.
fn picture(guest: &Guest) -> String {
    let (_, mappings) = guest.ctl(&["mappings"]);
    let number = |text: &str| u64::from_str_radix(&text[2..], 16).unwrap();
    let mut best = (0, 0);
    let mut now = (0, 0);
    for line in mappings.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (at, length) = (number(words[0]), number(&words[1][1..]));
        now = if now.0 + now.1 == at {
            (now.0, now.1 + length)
        } else {
            (at, length)
        };
        if now.1 > best.1 {
            best = now;
        }
    }
    assert!(best.1 >= 768 << 12, "{mappings}");
    format!("{:#x}+{}", best.0, best.1 >> 12)
}

/// Let the guest tell something; each step must be taken.
fn tell(guest: &mut Guest, steps: &str) {
    let said = guest.shell(&format!("claim {steps}"));
    let results = said.matches(": result ").count();
    assert!(results > 0, "{said}");
    assert_eq!(results, said.matches(": result 0").count(), "{said}");
}

fn findings(out: &Path) -> Vec<(String, Value)> {
    let report = json(out);
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|finding| {
            let id = finding["id"].as_str().unwrap().to_owned();
            (id, finding["claim"].clone())
        })
        .collect()
}

/// Claims of a healthy order say nothing that is not so.
fn healthy(name: &str) {
    let mut guest = Guest::without_blobs(name);
    tell(&mut guest, "own 1 600 retire 1 free 1");
    let picture = picture(&guest);
    tell(&mut guest, &format!("tag 0x53 device 7 {picture}"));
    guest.shell("echo drawn > /dev/tty0");
    // The console is taken off the picture before that is given up.
    guest.shell("echo 0 > /sys/class/vtconsole/vtcon1/bind");
    tell(&mut guest, "retire 7");
    guest.unbind();
    tell(&mut guest, "free 7");
    // The pages' next owners map them anew.
    guest.bind();
    guest.assert_drawn();
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(findings(out.path()), []);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn claims_of_a_healthy_order_are_silent_behind_vtd() {
    healthy(VTD);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn claims_of_a_healthy_order_are_silent_behind_our_virtio_iommu() {
    healthy(OUR_VIRTIO_IOMMU);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn memory_told_to_be_freed_while_it_is_mapped_and_used_is_found() {
    let mut guest = Guest::without_blobs(VIRTIO_IOMMU);
    let picture = picture(&guest);
    tell(&mut guest, &format!("tag 0x53 device 7 {picture} free 7"));
    guest.shell("echo drawn > /dev/tty0; sleep 1");
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    let found = findings(out.path());
    let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["mapped-after-free", "dma-use-after-free"], "{said}");
    for (_, claim) in &found {
        assert_eq!(claim["cookie"], "0x7");
        assert_eq!(claim["tag"], "0x53");
    }
    let text = std::fs::read_to_string(out.path().join("report.txt")).unwrap();
    assert_eq!(text.matches("as the guest told: 0x7, tag 0x53").count(), 2);
    // The journal says the same again.
    let again = out.path().join("again.json");
    let output = dmasan()
        .arg("report")
        .arg(out.path().join("journal"))
        .arg("--json")
        .arg(&again)
        .output()
        .unwrap();
    let (_, stdout, stderr) = told(&output);
    let again = std::fs::read_to_string(again).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["findings"], json(out.path())["findings"]);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn garbage_and_floods_are_borne_and_hide_nothing() {
    let mut guest = Guest::without_blobs(VTD);
    let said = guest.shell("claim garbage 4000 counts");
    assert!(said.contains("claim: taken "), "{said}");
    // Everything is the guest's, it says, and it freed all of it.
    tell(&mut guest, "forget tag 1 allocate 1 0x100000+130000");
    let (code, said) = guest.ctl(&["read", "0x20000000", "4"]);
    assert_eq!(code, Some(1), "{said}");
    let said = guest.shell("claim flood 20000 counts");
    let refused = said.rsplit("refused ").next().unwrap();
    let refused = refused.split_whitespace().next().unwrap();
    assert!(refused.parse::<u64>().unwrap() > 1000, "{said}");
    let (code, said) = guest.ctl(&["write", "0x21000000", "00"]);
    assert_eq!(code, Some(1), "{said}");
    guest.shell("echo goes on > /dev/tty0");
    let journal = std::fs::metadata(guest.out.path().join("journal")).unwrap();
    assert!(journal.len() < 64 << 20, "{} bytes", journal.len());
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    let report = json(out.path());
    let known: Vec<&Value> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["claim"].is_null())
        .collect();
    assert_eq!(known.len(), 2, "{said}");
    for (finding, at) in known.iter().zip(["0x20000000", "0x21000000"]) {
        assert_eq!(finding["id"], "dma-unmapped", "{said}");
        assert_eq!(finding["iova"], at, "{said}");
    }
}
