//! A whole guest under QEMU, as `dmasan qemu` runs it.

use super::{dmasan, told, top};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A guest under TCG on a busy machine.
const BOOT: Duration = Duration::from_secs(180);
pub const SOON: Duration = Duration::from_secs(60);

pub fn config(name: &str) -> PathBuf {
    top().join(format!("qemu-configs/{name}.toml"))
}

/// A machine that runs.
pub struct Guest {
    pub out: TempDir,
    dmasan: Option<Child>,
    serial: Option<UnixStream>,
}

impl Guest {
    /// Boot it, and wait until it says that it is ready.
    pub fn ready(name: &str) -> Self {
        Self::of(&config(name))
    }

    /// The same, with something of the description changed: what stands first
    /// becomes what stands second.
    pub fn changed(name: &str, changes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(config(name)).unwrap();
        let out = format!("\"{}/", top().join("out").display());
        let mut text = text.replace("\"../out/", &out);
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in {name}");
            text = text.replace(from, to);
        }
        let file = folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        Self::of(&file)
    }

    /// The same, without blob resources: the device then reads memory for
    /// commands only, and nothing on the screen is read while the driver of
    /// Linux 6.12 takes it away.
    pub fn without_blobs(name: &str) -> Self {
        let displays = "displays = [[1024, 768]]";
        Self::changed(name, &[(displays, &format!("{displays}\nblobs = false"))])
    }

    /// The same, of a description that lies anywhere.
    pub fn of(description: &Path) -> Self {
        Self::until(description, "guest: ready")
    }

    /// Boot whatever a description has, until it says `text`.
    pub fn until(description: &Path, text: &str) -> Self {
        Self::with(description, &[], text)
    }

    /// The same with further arguments of `dmasan qemu`.
    pub fn with(description: &Path, arguments: &[&str], text: &str) -> Self {
        let out = tempfile::tempdir().unwrap();
        let child = dmasan()
            .args(["qemu", "--seconds", "600", "--out"])
            .arg(out.path())
            .args(arguments)
            .arg(description)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut guest = Self {
            out,
            dmasan: Some(child),
            serial: None,
        };
        guest.said(text, BOOT);
        let serial = UnixStream::connect(guest.out.path().join("serial.sock")).unwrap();
        // Whoever connects must read, or the guest's writes wait for it.
        let mut drain = serial.try_clone().unwrap();
        std::thread::spawn(move || std::io::copy(&mut drain, &mut std::io::sink()));
        guest.serial = Some(serial);
        guest
    }

    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.out.path().join("serial.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Wait until the guest has said something on its serial console.
    pub fn said(&mut self, text: &str, limit: Duration) {
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

    /// Let the guest's shell do something, and wait until it has. What the
    /// console said meanwhile.
    pub fn shell(&mut self, command: &str) -> String {
        let begun = self.log().len();
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
        self.log().get(begun..).unwrap_or_default().to_owned()
    }

    /// Take the driver off the device: nothing stays mapped.
    pub fn unbind(&mut self) {
        self.shell("echo 0 > /sys/class/vtconsole/vtcon1/bind");
        self.shell("echo 0000:00:01.0 > /sys/bus/pci/drivers/virtio-pci/unbind");
        let (code, mapped) = self.ctl(&["mappings"]);
        assert_eq!((code, mapped.trim()), (Some(0), ""));
    }

    /// Give the device its driver again, which draws.
    pub fn bind(&mut self) {
        self.shell("echo 0000:00:01.0 > /sys/bus/pci/drivers/virtio-pci/bind");
        self.shell("echo 1 > /sys/class/vtconsole/vtcon1/bind");
        self.shell(
            "printf '\\033[2J\\033[H\\033[44mdrawn by the guest\\033[0m\\n' > /dev/tty0; sleep 1",
        );
    }

    pub fn reboot(&mut self) {
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

    pub fn ctl(&self, words: &[&str]) -> (Option<i32>, String) {
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
    pub fn screen(&self) -> (usize, Vec<u32>) {
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

    /// The line that the guest draws: 18 characters of 8 x 16 pixels, grey on
    /// blue, in the upper left corner.
    pub fn assert_drawn(&self) {
        let (width, pixels) = self.screen();
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

    pub fn kill(&mut self) -> Output {
        let mut child = self.dmasan.take().unwrap();
        let _ = child.kill();
        child.wait_with_output().unwrap()
    }

    /// Power the guest off; what dmasan then says, and its results.
    pub fn power_off(self) -> (Option<i32>, String, TempDir) {
        let serial = self.serial.as_ref().unwrap();
        (&*serial).write_all(b"poweroff -f\n").unwrap();
        self.finish()
    }

    /// As Ctrl-C does.
    pub fn interrupt(self) -> (Option<i32>, String, TempDir) {
        let id = self.dmasan.as_ref().unwrap().id().to_string();
        let told = std::process::Command::new("kill")
            .args(["-INT", &id])
            .status();
        assert!(told.unwrap().success());
        self.finish()
    }

    pub fn finish(mut self) -> (Option<i32>, String, TempDir) {
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

/// The QEMU that would be used.
pub fn program() -> String {
    let output = dmasan()
        .args(["qemu", "--dry-run"])
        .arg(config("linux-intel-iommu"))
        .output();
    let (code, stdout, stderr) = told(&output.unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    stdout.split(' ').next().unwrap().to_owned()
}
