//! `dmasan qemu`: whole Linux guests behind QEMU's IOMMU. They need QEMU 10.1
//! and the test guest, and some seconds each: `scripts/test-qemu` gets both
//! and runs them.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};
use support::{dmasan, finding_ids, json, told, top};
use tempfile::TempDir;

/// A guest under TCG on a busy machine.
const BOOT: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

fn config(name: &str) -> PathBuf {
    top().join(format!("qemu-configs/{name}.toml"))
}

/// A machine that runs.
struct Guest {
    out: TempDir,
    dmasan: Option<Child>,
    serial: Option<UnixStream>,
}

impl Guest {
    /// Boot it, and wait until it says that it is ready.
    fn ready(name: &str) -> Self {
        let out = tempfile::tempdir().unwrap();
        let child = dmasan()
            .args(["qemu", "--seconds", "600", "--out"])
            .arg(out.path())
            .arg(config(name))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut guest = Self {
            out,
            dmasan: Some(child),
            serial: None,
        };
        guest.said("guest: ready", BOOT);
        let serial = UnixStream::connect(guest.out.path().join("serial.sock")).unwrap();
        // Whoever connects must read, or the guest's writes wait for it.
        let mut drain = serial.try_clone().unwrap();
        std::thread::spawn(move || std::io::copy(&mut drain, &mut std::io::sink()));
        guest.serial = Some(serial);
        guest
    }

    fn log(&self) -> String {
        let bytes = std::fs::read(self.out.path().join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Wait until the guest has said something on its serial console.
    fn said(&mut self, text: &str, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.log().contains(text) {
            let over = self.dmasan.as_mut().unwrap().try_wait().unwrap();
            if over.is_some() || Instant::now() > until {
                let log = self.log();
                let output = self.kill();
                panic!(
                    "the guest did not say {text:?}:\n{log}\n{:?}",
                    told(&output)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Let the guest's shell do something, and wait until it has.
    fn shell(&mut self, command: &str) {
        let done = format!("done-{}", self.log().len());
        // Split, so that the echo of the command is not taken for its end.
        let (a, b) = done.split_at(3);
        let line = format!("{command}; echo {a}''{b}\n");
        self.serial
            .as_ref()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        self.said(&done, SOON);
    }

    /// Take the driver off the device: nothing stays mapped.
    fn unbind(&mut self) {
        self.shell("echo 0 > /sys/class/vtconsole/vtcon1/bind");
        self.shell("echo 0000:00:01.0 > /sys/bus/pci/drivers/virtio-pci/unbind");
        let (code, mapped) = self.ctl(&["mappings"]);
        assert_eq!((code, mapped.trim()), (Some(0), ""));
    }

    fn reboot(&mut self) {
        let begun = self.log().len();
        self.serial
            .as_ref()
            .unwrap()
            .write_all(b"reboot -f\n")
            .unwrap();
        let until = Instant::now() + BOOT;
        while !self.log().get(begun..).unwrap().contains("guest: ready") {
            assert!(Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ctl(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = dmasan()
            .arg("ctl")
            .arg(self.out.path().join("control.sock"))
            .args(words)
            .output()
            .unwrap();
        let (code, stdout, stderr) = told(&output);
        (code, stdout + &stderr)
    }

    /// Pixels of the screen as 0x00RRGGBB.
    fn screen(&self) -> (usize, Vec<u32>) {
        let file = self.out.path().join("now.png");
        let (code, said) = self.ctl(&["frame", "0", &file.to_string_lossy()]);
        assert_eq!(code, Some(0), "{said}");
        let file = std::fs::File::open(file).unwrap();
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        let pixels = bytes[..info.buffer_size()]
            .chunks_exact(3)
            .map(|p| u32::from(p[0]) << 16 | u32::from(p[1]) << 8 | u32::from(p[2]))
            .collect();
        (info.width as usize, pixels)
    }

    fn kill(&mut self) -> Output {
        let mut child = self.dmasan.take().unwrap();
        let _ = child.kill();
        child.wait_with_output().unwrap()
    }

    /// Power the guest off; what dmasan then says, and its results.
    fn power_off(self) -> (Option<i32>, String, TempDir) {
        let serial = self.serial.as_ref().unwrap();
        (&*serial).write_all(b"poweroff -f\n").unwrap();
        self.finish()
    }

    /// As Ctrl-C does.
    fn interrupt(self) -> (Option<i32>, String, TempDir) {
        let id = self.dmasan.as_ref().unwrap().id().to_string();
        let told = std::process::Command::new("kill")
            .args(["-INT", &id])
            .status();
        assert!(told.unwrap().success());
        self.finish()
    }

    fn finish(mut self) -> (Option<i32>, String, TempDir) {
        let output = self.dmasan.take().unwrap().wait_with_output().unwrap();
        let (code, stdout, stderr) = told(&output);
        let out = std::mem::replace(&mut self.out, tempfile::tempdir().unwrap());
        (code, stdout + &stderr, out)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(mut child) = self.dmasan.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The line that the guest draws: 18 characters of 8 x 16 pixels, grey on
/// blue, in the upper left corner.
fn assert_drawn(guest: &Guest) {
    let (width, pixels) = guest.screen();
    assert_eq!((width, pixels.len()), (1024, 1024 * 768));
    let line: Vec<u32> = (0..16)
        .flat_map(|y| (0..144).map(move |x| (x, y)))
        .map(|(x, y)| pixels[y * width + x])
        .collect();
    let count = |colour| line.iter().filter(|&&p| p == colour).count();
    let (blue, grey) = (count(0x0000aa), count(0xaaaaaa));
    assert_eq!(blue + grey, line.len(), "only the two colours of the line");
    assert!(grey > 200, "{grey} pixels of letters");
    let right: Vec<u32> = (0..16).map(|y| pixels[y * width + 160]).collect();
    assert_eq!(right, [0; 16], "black behind the line");
}

/// Boot and draw; nothing is found.
fn draws(name: &str) {
    let guest = Guest::ready(name);
    let log = guest.log();
    assert!(log.contains("guest: driver virtio-pci"), "{log}");
    assert!(log.contains("in iommu group"), "{log}");
    assert!(log.contains("guest: fb0 virtio_gpudrmfb 1024,768"), "{log}");
    assert_drawn(&guest);
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

/// When its device is unbound, the driver of Linux 6.12 unmaps the picture
/// that is on the screen some milliseconds before it resets the device, and
/// tells the device nothing. Whether a vsync falls between the two is chance;
/// if one does, it is found, and nothing else is.
#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_driver_is_unbound_and_bound_again_and_the_guest_reboots() {
    let mut guest = Guest::ready("linux-intel-iommu");
    guest.unbind();
    guest.shell("echo 0000:00:01.0 > /sys/bus/pci/drivers/virtio-pci/bind");
    guest.shell("echo 1 > /sys/class/vtconsole/vtcon1/bind");
    guest.shell(
        "printf '\\033[2J\\033[H\\033[44mdrawn by the guest\\033[0m\\n' > /dev/tty0; sleep 1",
    );
    assert_drawn(&guest);
    guest.unbind();
    guest.reboot();
    assert_drawn(&guest);
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
    let mut guest = Guest::ready("linux-intel-iommu");
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
    assert_eq!(found, ["dma-unmapped"], "{said}");
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

/// The QEMU that would be used.
fn program() -> String {
    let output = dmasan()
        .args(["qemu", "--dry-run"])
        .arg(config("linux-intel-iommu"))
        .output();
    let (code, stdout, stderr) = told(&output.unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    stdout.split(' ').next().unwrap().to_owned()
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
