//! `dmasan qemu`: whole Linux guests behind QEMU's IOMMU or ours. They need
//! QEMU 10.1 and the test guest, and some seconds each: `scripts/test-qemu`
//! gets both and runs them.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::guest::{Guest, SOON, config, program};
use support::{dmasan, finding_ids, json, told};

/// Boot and draw; nothing is found.
fn draws(name: &str) {
    draws_nothing_else(Guest::ready(name));
}

fn draws_nothing_else(guest: Guest) {
    let log = guest.log();
    assert!(log.contains("guest: driver virtio-pci"), "{log}");
    assert!(log.contains("in iommu group"), "{log}");
    assert!(log.contains("guest: fb0 virtio_gpudrmfb 1024,768"), "{log}");
    guest.assert_drawn();
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    let report = json(out.path());
    assert!(finding_ids(&report).is_empty(), "{said}");
    assert!(out.path().join("scanout-0.png").exists());
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_guest_behind_vtd_draws_and_nothing_is_found() {
    draws("linux-intel-iommu");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_guest_behind_virtio_iommu_draws_and_nothing_is_found() {
    draws("linux-virtio-iommu");
}

/// How many pages the guest's driver has had our IOMMU map so far.
fn maps(guest: &Guest) -> usize {
    let journal = File::open(guest.out.path().join("journal")).unwrap();
    let (records, _) = journal::read(BufReader::new(journal)).unwrap();
    let is_map = |record: &&journal::Record| matches!(record.event, journal::Event::Map { .. });
    records.iter().filter(is_map).count()
}

/// A wrong IOMMU address would leave the GPU untranslated in silence: that it
/// is in a group, and that mappings were asked for, shows that it is not.
#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_guest_behind_our_virtio_iommu_draws_and_nothing_is_found() {
    let guest = Guest::ready("linux-our-virtio-iommu");
    assert!(maps(&guest) > 100, "{} mappings", maps(&guest));
    let (code, mapped) = guest.ctl(&["mappings"]);
    assert_eq!(code, Some(0), "{mapped}");
    let identical = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[0] == words[3]
    };
    assert!(!mapped.lines().any(identical), "{mapped}");
    draws_nothing_else(guest);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn an_access_outside_is_refused_by_our_virtio_iommu_and_the_guest_hears_of_it() {
    let mut guest = Guest::without_blobs("linux-our-virtio-iommu");
    for (order, data, said) in [
        ("read", "4", "page fault from EP 8 at 0x20000000 [R]"),
        ("write", "aabb", "page fault from EP 8 at 0x20000000 [W]"),
    ] {
        let (code, told) = guest.ctl(&[order, "0x20000000", data]);
        assert_eq!(code, Some(1), "{told}");
        guest.said(said, SOON);
    }
    let (_, mappings) = guest.ctl(&["mappings"]);
    let first = mappings.split_whitespace().next().unwrap().to_owned();
    assert_eq!(guest.ctl(&["read", &first, "16"]).0, Some(0));
    let (code, said, out) = guest.power_off();
    assert_eq!(code, Some(1), "{said}");
    let found = finding_ids(&json(out.path()));
    assert_eq!(found, ["dma-unmapped", "dma-unmapped"], "{said}");
}

/// As [`a_driver_is_unbound_and_bound_again_and_the_guest_reboots`].
#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn behind_our_virtio_iommu_a_driver_is_unbound_and_the_guest_reboots() {
    let mut guest = Guest::without_blobs("linux-our-virtio-iommu");
    guest.unbind();
    let (code, said) = guest.ctl(&["read", "0x20000000", "4"]);
    assert_eq!(code, Some(1), "{said}");
    guest.shell("echo 0000:00:01.0 > /sys/bus/pci/drivers/virtio-pci/bind");
    guest.reboot();
    guest.assert_drawn();
    let (_, said, out) = guest.power_off();
    assert_eq!(finding_ids(&json(out.path())), ["dma-unmapped"], "{said}");
}

/// Found, sooner or later: see below.
#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_picture_that_is_unmapped_on_the_screen_is_found() {
    let mut guest = Guest::ready("linux-intel-iommu");
    let found = (0..40).any(|_| {
        guest.unbind();
        guest.bind();
        guest.ctl(&["findings"]).1.contains("dma-unmapped")
    });
    assert!(found, "no vsync fell between unmap and reset, 40 times");
    guest.unbind();
    let (code, said, out) = guest.power_off();
    assert_eq!(code, Some(1), "{said}");
    let report = json(out.path());
    let finding = &report["findings"][0];
    assert_eq!(finding["command"]["name"], "SCANOUT (vsync)", "{said}");
    assert_eq!(finding["blame"][0]["party"], "driver", "{said}");
}

/// When its device is unbound, the driver of Linux 6.12 unmaps the picture
/// that is on the screen some milliseconds before it resets the device, and
/// tells the device nothing. Whether a vsync falls between the two is chance;
/// if one does, it is found, and nothing else is.
#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_driver_is_unbound_and_bound_again_and_the_guest_reboots() {
    let mut guest = Guest::ready("linux-intel-iommu");
    guest.unbind();
    guest.bind();
    guest.assert_drawn();
    guest.unbind();
    guest.reboot();
    guest.assert_drawn();
    guest.unbind();
    let (_, said, out) = guest.power_off();
    for finding in json(out.path())["findings"].as_array().unwrap() {
        assert_eq!(finding["id"], "dma-unmapped", "{said}");
        assert!(finding.to_string().contains("SCANOUT (vsync)"), "{finding}");
    }
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_killed_dmasan_leaves_no_qemu_and_a_journal_that_can_be_read() {
    let mut guest = Guest::ready("linux-intel-iommu");
    let id = std::fs::read_to_string(guest.out.path().join("qemu.pid")).unwrap();
    guest.kill();
    let process = PathBuf::from(format!("/proc/{}", id.trim()));
    let until = Instant::now() + SOON;
    while process.exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!process.exists(), "QEMU {id} goes on");
    let journal = guest.out.path().join("journal");
    let (code, stdout, stderr) = told(&dmasan().arg("report").arg(journal).output().unwrap());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn an_access_outside_is_found_and_raises_the_guests_own_fault() {
    let mut guest = Guest::without_blobs("linux-intel-iommu");
    let (code, said) = guest.ctl(&["read", "0x20000000", "4"]);
    assert_eq!(code, Some(1), "{said}");
    guest.said(
        "[DMA Read NO_PASID] Request device [00:01.0] fault addr 0x20000000",
        SOON,
    );
    // VT-d keeps one record a device at a time: after the guest has read it.
    std::thread::sleep(Duration::from_secs(1));
    let (code, said) = guest.ctl(&["write", "0x21000000", "aabb"]);
    assert_eq!(code, Some(1), "{said}");
    guest.said(
        "[DMA Write NO_PASID] Request device [00:01.0] fault addr 0x21000000",
        SOON,
    );
    // What is mapped is reached by both ways alike.
    let (_, mappings) = guest.ctl(&["mappings"]);
    let first = mappings.split_whitespace().next().unwrap().to_owned();
    let direct = guest.ctl(&["read", &first, "16"]);
    assert_eq!(direct, guest.ctl(&["peer-read", &first, "16"]));
    let (code, said, out) = guest.power_off();
    assert_eq!(code, Some(1), "{said}");
    let found = finding_ids(&json(out.path()));
    assert_eq!(found, ["dma-unmapped", "dma-unmapped"], "{said}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_qemu_that_is_killed_is_a_clear_end() {
    let guest = Guest::ready("linux-intel-iommu");
    let id = std::fs::read_to_string(guest.out.path().join("qemu.pid")).unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-9", id.trim()])
        .status();
    assert!(killed.unwrap().success());
    let (code, said, out) = guest.finish();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("QEMU ended (signal: 9"), "{said}");
    assert!(json(out.path())["findings"].as_array().unwrap().is_empty());
}

/// Run a machine by a QEMU whose arguments are changed: `from` becomes `to`.
fn run_changed(from: &str, to: &str) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;
    let out = tempfile::tempdir().unwrap();
    let wrapper = out.path().join("changed-qemu");
    let program = program();
    let script = format!("#!/bin/bash\nexec {program} \"${{@//{from}/{to}}}\"\n");
    std::fs::write(&wrapper, script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&wrapper, mode).unwrap();
    let output = dmasan()
        .args(["qemu", "--seconds", "60", "--out"])
        .arg(out.path())
        .arg("--qemu")
        .arg(&wrapper)
        .arg(config("linux-intel-iommu"))
        .output();
    let (code, stdout, stderr) = told(&output.unwrap());
    (code, stdout + &stderr)
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn guest_memory_that_is_private_is_refused() {
    let (code, said) = run_changed("share=on", "share=off");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("share=on"), "{said}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn guest_memory_that_can_be_cut_short_is_refused() {
    let (code, said) = run_changed("seal=on", "seal=off");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("seal=on"), "{said}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_qemu_that_does_not_start_says_why() {
    let (code, said) = run_changed("intel-iommu", "no-such-iommu");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no-such-iommu"), "{said}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_dry_run_prints_the_command_line_and_starts_nothing() {
    let out = tempfile::tempdir().unwrap();
    let output = dmasan()
        .args(["qemu", "--dry-run", "--out"])
        .arg(out.path())
        .arg(config("linux-intel-iommu"))
        .output()
        .unwrap();
    let (code, stdout, stderr) = told(&output);
    assert_eq!(code, Some(0), "{stderr}");
    for part in ["share=on", "intel-iommu,caching-mode=on", "vfio-user-pci"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn a_description_that_is_none_says_where() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "name = \"x\"\niommu = \"amd\"\n").unwrap();
    let output = dmasan().arg("qemu").arg(file.path()).output().unwrap();
    let (code, _, stderr) = told(&output);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("amd"), "{stderr}");
}

#[test]
fn nobody_at_a_control_socket_is_told() {
    let output = dmasan().args(["ctl", "/nonexistent", "mappings"]).output();
    let (code, _, stderr) = told(&output.unwrap());
    assert_eq!(code, Some(3));
    assert!(stderr.contains("is the machine running?"), "{stderr}");
}
