//! How a machine ends, and what it does with what it cannot use, behind each
//! remapping unit: killed, joined by a second of its kind, with memory that
//! cannot be shared, with a guest that does not isolate. `scripts/test-qemu`
//! runs them.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod support;

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use support::guest::{Guest, VIRTIO_IOMMU, VTD, config, program};
use support::{dmasan, json, told};

behind_each! {
    a_killed_dmasan_leaves_no_qemu_and_a_journal_that_can_be_read
    others_are_turned_away_and_a_killed_qemu_is_a_clear_end
    guest_memory_that_is_private_is_refused
    guest_memory_that_can_be_cut_short_is_refused
    a_guest_without_a_driver_for_its_iommu_is_told
}

fn a_killed_dmasan_leaves_no_qemu_and_a_journal_that_can_be_read(machine: &str) {
    let mut guest = Guest::ready(machine);
    let process = PathBuf::from(format!("/proc/{}", guest.qemu()));
    assert!(process.exists());
    guest.kill();
    for _ in 0..600 {
        if !process.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(!process.exists(), "QEMU goes on: {}", process.display());
    let journal = guest.out.path().join("journal");
    let (code, stdout, stderr) = told(&dmasan().arg("report").arg(journal).output().unwrap());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

fn others_are_turned_away_and_a_killed_qemu_is_a_clear_end(machine: &str) {
    let mut guest = Guest::ready(machine);
    for name in ["gpu.sock", "iommu.sock"] {
        let socket = guest.out.path().join(name);
        // Only ours is served.
        if socket.exists() {
            second_qemu(&socket.to_string_lossy());
        }
    }
    let second = dmasan()
        .args(["qemu", "--out"])
        .arg(guest.out.path())
        .arg(config(machine))
        .output()
        .unwrap();
    let (code, _, stderr) = told(&second);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("in use by another dmasan"), "{stderr}");
    // The first goes on.
    guest.shell("echo goes on");
    assert!(guest.mapping("").is_some());
    let killed = Command::new("kill").args(["-9", &guest.qemu()]).status();
    assert!(killed.unwrap().success());
    let (code, said, out) = guest.finish();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("QEMU ended (signal: 9"), "{said}");
    assert_eq!(json(out.path())["findings"], Value::Array(Vec::new()));
    // Whole, from its first record on.
    let journal = out.path().join("journal");
    let (code, stdout, stderr) = told(&dmasan().arg("report").arg(journal).output().unwrap());
    assert_eq!(code, Some(0), "{said}{stdout}{stderr}");
}

/// Give a device that has its QEMU to another one, which must give up.
fn second_qemu(socket: &str) {
    let device = serde_json::json!({
        "driver": "vfio-user-pci",
        "socket": { "type": "unix", "path": socket },
    });
    let machine = ["-machine", "q35,memory-backend=ram", "-accel", "tcg"];
    let memory = "memory-backend-memfd,id=ram,size=64M,share=on";
    let output = Command::new(program())
        .args(machine)
        .args(["-m", "64M", "-object", memory, "-nodefaults"])
        .args(["-display", "none", "-vga", "none", "-device"])
        .arg(device.to_string())
        .output()
        .unwrap();
    let (code, _, stderr) = told(&output);
    assert_eq!(code, Some(1), "{socket}: {stderr}");
    assert!(stderr.contains("onnect"), "{socket}: {stderr}");
}

/// Run a machine by a QEMU whose arguments are changed: `from` becomes `to`.
fn run_changed(machine: &str, from: &str, to: &str) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;
    let out = tempfile::tempdir().unwrap();
    let wrapper = out.path().join("changed-qemu");
    let program = program();
    let script = format!("#!/bin/bash\nexec {program} \"${{@//{from}/{to}}}\"\n");
    std::fs::write(&wrapper, script).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&wrapper, mode).unwrap();
    let output = dmasan()
        .args(["qemu", "--seconds", "300", "--out"])
        .arg(out.path())
        .arg("--qemu")
        .arg(&wrapper)
        .arg(config(machine))
        .output();
    let (code, stdout, stderr) = told(&output.unwrap());
    (code, stdout + &stderr)
}

fn guest_memory_that_is_private_is_refused(machine: &str) {
    let (code, said) = run_changed(machine, "share=on", "share=off");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("share=on"), "{said}");
}

fn guest_memory_that_can_be_cut_short_is_refused(machine: &str) {
    let (code, said) = run_changed(machine, "seal=on", "seal=off");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("seal=on"), "{said}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_qemu_that_does_not_start_says_why() {
    let (code, said) = run_changed(VTD, "intel-iommu", "no-such-iommu");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no-such-iommu"), "{said}");
}

/// Linux goes on without VT-d, and the GPU reaches everything. Without its
/// virtio-iommu's driver it waits with the GPU's: QEMU's unit lets everything
/// through until then, ours nothing.
fn a_guest_without_a_driver_for_its_iommu_is_told(machine: &str) {
    let (drives, without) = match machine {
        VTD => (true, "intel_iommu=off"),
        _ => (false, "module_blacklist=virtio_iommu fb_wait=5"),
    };
    let with = match machine {
        VTD => "intel_iommu=on iommu.strict=1",
        _ => "iommu.strict=1",
    };
    // That of the kernel's command line, which a quote ends.
    let changes = [(format!("{with}\""), format!("{without}\""))];
    let changes = changes.each_ref().map(|(from, to)| (&from[..], &to[..]));
    let guest = Guest::changed(machine, &changes);
    let log = guest.log();
    assert_eq!(log.contains("guest: driver virtio-pci"), drives, "{log}");
    assert!(!log.contains("in iommu group"), "{log}");
    let open = matches!(machine, VTD | VIRTIO_IOMMU);
    let file = guest.out.path().join("audit.json");
    let output = dmasan()
        .arg("audit")
        .arg(guest.out.path().join("control.sock"))
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    let (code, said, stderr) = told(&output);
    assert_eq!(code, Some(0), "{said}{stderr}");
    assert_eq!(said.contains("is not isolated"), open, "{said}");
    let audit: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let all = &audit["guest_pages"];
    let none = Value::from(0);
    let reached = if open { all } else { &none };
    assert_eq!(&audit["reached_pages"], reached, "{said}");
    // A device that nobody started may do nothing, whatever is mapped.
    let (code, answer) = guest.ctl(&["read", "0x100000", "4"]);
    assert_eq!(code, Some(if drives { 0 } else { 1 }), "{answer}");
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    let notes = json(out.path())["notes"].to_string();
    let note = if drives {
        "the GPU is not isolated"
    } else {
        "the guest never started the GPU, so nothing was checked"
    };
    assert!(notes.contains(note), "{notes}");
    assert!(said.contains(note), "{said}");
}
