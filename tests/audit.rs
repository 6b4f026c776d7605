//! `dmasan audit` and the device that misbehaves by order, on whole Linux
//! guests: `scripts/test-qemu` runs them.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use support::guest::{Guest, SOON, config, program};
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

/// The first mapping with these rights.
fn mapping(guest: &Guest, rights: &str) -> Option<String> {
    let (_, mappings) = guest.ctl(&["mappings"]);
    let line = mappings.lines().find(|line| line.ends_with(rights))?;
    Some(line.split(' ').next()?.to_owned())
}

fn sum(pieces: &Value) -> u64 {
    let pieces = pieces.as_array().unwrap();
    pieces.iter().map(|p| p["length"].as_u64().unwrap()).sum()
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn an_audit_says_what_is_reached_and_everything_else_is_refused() {
    let guest = Guest::ready("linux-intel-iommu");
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
fn what_a_rogue_device_does_is_found_and_blamed_on_the_order() {
    let mut guest = Guest::ready("linux-intel-iommu");
    // Outside, which the guest's own IOMMU hears of too.
    let (code, said) = guest.ctl(&["read", "0x20000000", "4"]);
    assert_eq!(code, Some(1), "{said}");
    guest.said(
        "[DMA Read NO_PASID] Request device [00:01.0] fault addr 0x20000000",
        SOON,
    );
    // A command that waits keeps its request mapped, to be read only.
    guest.ctl(&["stall"]);
    guest.shell("echo waits > /dev/tty0");
    let tries = 0..50;
    let request = tries.into_iter().find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        mapping(&guest, " r-")
    });
    let request = request.expect("a mapping that may only be read");
    let (code, said) = guest.ctl(&["write", &request, "00"]);
    assert_eq!(code, Some(1), "{said}");
    guest.ctl(&["resume"]);
    // What the driver takes back.
    let (_, resources) = guest.ctl(&["resources"]);
    let shown = resources
        .lines()
        .find(|line| line.contains("on scanout 0"))
        .unwrap();
    let resource = shown.split(' ').next().unwrap().to_owned();
    let (_, held) = guest.ctl(&["domains"]);
    assert!(held.contains("bus master on"), "{held}");
    // Commands come and go, and their mappings with them.
    let kept = (0..50).find_map(|_| {
        let at = mapping(&guest, " rw")?;
        let (_, said) = guest.ctl(&["hold", &at, "4096"]);
        (said == "1 pages\n").then_some(at)
    });
    let kept = kept.expect("a mapping that can be kept");
    guest.unbind();
    let (_, said) = guest.ctl(&["replay", &resource]);
    assert!(said.starts_with("0 pages reached, 256 refused"), "{said}");
    let (_, said) = guest.ctl(&["former-rings", "0"]);
    assert_eq!(said.matches("refused").count(), 3, "{said}");
    let (code, said) = guest.ctl(&["late-read", &kept, "16"]);
    assert_eq!((code, said.trim().len()), (Some(0), 32), "{said}");
    let (_, said) = guest.ctl(&["findings"]);
    assert!(said.contains("stale-iotlb"), "{said}");
    let (code, said, out) = guest.power_off();
    assert_eq!(code, Some(1), "{said}");
    let report = json(out.path());
    let findings = report["findings"].as_array().unwrap();
    // A picture on the screen may be read between unmap and reset, by no
    // order: see tests/qemu.rs.
    let ordered: Vec<(&str, String)> = findings
        .iter()
        .filter(|finding| !finding.to_string().contains("SCANOUT (vsync)"))
        .map(|finding| {
            assert_eq!(finding["blame"][0]["party"], "injected", "{finding}");
            let why = finding["blame"][0]["reason"].as_str().unwrap();
            (finding["id"].as_str().unwrap(), why.to_owned())
        })
        .collect();
    let expected = [
        ("dma-unmapped", "read 4 bytes at 0x20000000"),
        ("dma-permission", "write 1 bytes at"),
        ("dma-unmapped", "read the former backing"),
        ("dma-unmapped", "use the rings that queue 0 had"),
        ("stale-iotlb", "by a translation that was kept"),
    ];
    assert_eq!(ordered.len(), expected.len(), "{ordered:?}");
    for (id, words) in expected {
        let found = ordered
            .iter()
            .any(|(of, why)| *of == id && why.contains(words));
        assert!(found, "{id} {words}: {ordered:?}");
    }
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_second_qemu_and_a_second_dmasan_are_turned_away_and_the_first_goes_on() {
    let mut guest = Guest::ready("linux-intel-iommu");
    let socket = guest.out.path().join("gpu.sock");
    let device = serde_json::json!({
        "driver": "vfio-user-pci",
        "socket": { "type": "unix", "path": socket },
    });
    let second = Command::new(program())
        .args([
            "-machine",
            "q35,memory-backend=ram",
            "-accel",
            "tcg",
            "-m",
            "64M",
        ])
        .args(["-object", "memory-backend-memfd,id=ram,size=64M,share=on"])
        .args(["-display", "none", "-vga", "none", "-nodefaults", "-device"])
        .arg(device.to_string())
        .output()
        .unwrap();
    let (code, _, stderr) = told(&second);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("onnect"), "{stderr}");
    let second = dmasan()
        .args(["qemu", "--out"])
        .arg(guest.out.path())
        .arg(config("linux-intel-iommu"))
        .output()
        .unwrap();
    let (code, _, stderr) = told(&second);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("in use by another dmasan"), "{stderr}");
    guest.shell("echo goes on");
    assert!(mapping(&guest, "").is_some());
    let (_, said, out) = guest.interrupt();
    // Whole, from its first record on.
    let journal = out.path().join("journal");
    let (code, stdout, stderr) = told(&dmasan().arg("report").arg(journal).output().unwrap());
    assert_eq!(code, Some(0), "{said}{stdout}{stderr}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_guest_that_leaves_its_iommu_off_works_and_is_said_not_to_be_isolated() {
    let off = [("intel_iommu=on iommu.strict=1", "intel_iommu=off")];
    let guest = Guest::changed("linux-intel-iommu", &off);
    assert!(
        guest.log().contains("guest: driver virtio-pci"),
        "{}",
        guest.log()
    );
    let (code, said, audit) = audit(&guest, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(audit["reached_pages"], audit["guest_pages"], "{said}");
    assert!(said.contains("is not isolated"), "{said}");
    assert_eq!(audit["probe"]["tried"], 0, "{said}");
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
    is_lazy(Guest::changed("linux-our-virtio-iommu", &lazy));
}

fn is_lazy(mut guest: Guest) {
    let socket = guest.out.path().join("control.sock");
    let watch = dmasan()
        .arg("audit")
        .arg(socket)
        .args(["--watch", "8", "--json", "-"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    guest.shell("for i in 1 2 3 4 5 6; do echo lazy > /dev/tty0; sleep 1; done");
    let (code, stdout, stderr) = told(&watch.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let watched: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(watched["why_not"], Value::Null, "{stdout}");
    assert!(watched["unmapped"].as_u64().unwrap() > 0, "{stdout}");
    assert!(watched["seen"].as_u64().unwrap() > 0, "{stdout}");
    let (_, said, out) = guest.interrupt();
    let seen = format!("{} of them were seen given up", watched["seen"]);
    let notes = json(out.path())["notes"].to_string();
    assert!(notes.contains(&seen), "{said}");
}

#[test]
fn nobody_to_audit_is_told() {
    let output = dmasan().args(["audit", "/nonexistent"]).output().unwrap();
    let (code, _, stderr) = told(&output);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("is the machine running?"), "{stderr}");
}
