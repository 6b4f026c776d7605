//! `dmasan qemu`: whole Linux guests behind QEMU's IOMMU or ours. They need
//! QEMU 10.1 and the test guest, and some seconds each: `scripts/test-qemu`
//! gets both and runs them.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::File;
use std::io::BufReader;
use support::guest::{Guest, OUR_VIRTIO_IOMMU, VIRTIO_IOMMU, VTD, config};
use support::{dmasan, finding_ids, json, told};

/// Boot and draw; nothing is found.
fn draws(name: &str) {
    draws_nothing_else(Guest::ready(name));
}

fn draws_nothing_else(mut guest: Guest) {
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
    draws(VTD);
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_guest_behind_virtio_iommu_draws_and_nothing_is_found() {
    draws(VIRTIO_IOMMU);
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
    let guest = Guest::ready(OUR_VIRTIO_IOMMU);
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

/// Found, sooner or later: see below.
#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_picture_that_is_unmapped_on_the_screen_is_found() {
    let mut guest = Guest::ready(VTD);
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
    let mut guest = Guest::ready(VTD);
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
