//! A whole guest under QEMU, as `dmasan qemu` runs it.

use super::{dmasan, told, top};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a guest may say nothing while something is waited for. A busy host
/// is slow, and how slow nobody knows: only a guest that stands still fails.
const SILENCE: Duration = Duration::from_secs(180);
/// After this an order is given again that the guest was to hear of.
const AGAIN: Duration = Duration::from_secs(6);
/// Lines of the console that are shown of a guest that stands still.
const LINES: usize = 60;

/// The test guest behind QEMU's VT-d, QEMU's virtio-iommu and ours.
pub const VTD: &str = "linux-intel-iommu";
pub const VIRTIO_IOMMU: &str = "linux-virtio-iommu";
pub const OUR_VIRTIO_IOMMU: &str = "linux-our-virtio-iommu";

/// Tests of a function that takes a machine: one for each remapping unit.
#[allow(unused_macros)]
macro_rules! behind_each {
    ($($test:ident)*) => {$(
        mod $test {
            #[test]
            #[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
            fn behind_vtd() {
                super::$test(crate::support::guest::VTD);
            }

            #[test]
            #[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
            fn behind_virtio_iommu() {
                super::$test(crate::support::guest::VIRTIO_IOMMU);
            }

            #[test]
            #[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
            fn behind_our_virtio_iommu() {
                super::$test(crate::support::guest::OUR_VIRTIO_IOMMU);
            }
        }
    )*};
}

/// How the guest says on its console that an access of the GPU's was refused,
/// up to the address.
pub fn refusal(machine: &str, write: bool) -> (String, &'static str) {
    match machine {
        VTD => {
            let kind = if write { "Write" } else { "Read" };
            let said = format!("[DMA {kind} NO_PASID] Request device [00:01.0] fault addr 0x");
            (said, " [fault reason")
        }
        // QEMU tells no direction.
        VIRTIO_IOMMU => ("page fault from EP 8 at 0x".to_owned(), " ["),
        _ => {
            let kind = if write { " [W]" } else { " [R]" };
            ("page fault from EP 8 at 0x".to_owned(), kind)
        }
    }
}

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
            .args(["qemu", "--seconds", "3600", "--out"])
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
        guest.said(text);
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

    /// What the guest said after its first `begun` bytes.
    pub fn log_from(&self, begun: usize) -> String {
        self.log().get(begun..).unwrap_or_default().to_owned()
    }

    /// Wait until `look` sees something, for as long as the guest does
    /// something.
    pub fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let (mut said, mut since) = (0, Instant::now());
        loop {
            let over = self.dmasan.as_mut().unwrap().try_wait().unwrap().is_some();
            if let Some(seen) = look(self) {
                return seen;
            }
            let now = self.log().len();
            if now != said {
                (said, since) = (now, Instant::now());
            }
            if over || since.elapsed() > SILENCE {
                let why = if over {
                    "dmasan ended".to_owned()
                } else {
                    format!("the guest said nothing for {} s", SILENCE.as_secs())
                };
                let log = self.log();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
                let (code, stdout, stderr) = told(&self.kill());
                panic!(
                    "waiting for {what}: {why}. The end of its console:\n{last}\n\
                     dmasan (exit code {code:?}):\n{stdout}{stderr}"
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Wait until the guest has said something on its serial console.
    pub fn said(&mut self, text: &str) {
        let what = format!("the guest to say {text:?}");
        self.wait(&what, |guest| guest.log().contains(text).then_some(()));
    }

    /// Order the device to make an access until the guest says, in the words
    /// of [`refusal`], that it was refused: what the order's answer was, and
    /// at which address, says the guest. VT-d keeps one record of a device
    /// until the guest has read it, and Linux prints ten faults in five
    /// seconds, so an order may go unheard.
    pub fn refused(&mut self, order: &[&str], (before, after): (&str, &str)) -> (String, u64) {
        let begun = self.log().len();
        let answered = self.ctl(order).1;
        let mut last = Instant::now();
        let what = format!("the guest to hear of {order:?} ({answered:?}), as {before:?}");
        let address = self.wait(&what, |guest| {
            let log = guest.log_from(begun);
            let said = log.lines().find_map(|line| {
                let (_, rest) = line.split_once(before)?;
                let (address, _) = rest.split_once(after)?;
                u64::from_str_radix(address, 16).ok()
            });
            if said.is_none() && last.elapsed() > AGAIN {
                guest.ctl(order);
                last = Instant::now();
            }
            said
        });
        (answered, address)
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
        self.said(&done);
        self.log_from(begun)
    }

    /// Take the driver off the device: nothing stays mapped.
    pub fn unbind(&mut self) {
        self.shell("echo 0 > /sys/class/vtconsole/vtcon1/bind");
        self.shell("echo 0000:00:01.0 > /sys/bus/pci/drivers/virtio-pci/unbind");
        let (code, mapped) = self.ctl(&["mappings"]);
        assert_eq!((code, mapped.trim()), (Some(0), ""));
    }

    /// Let a device without a driver master the bus (command register, bits 1
    /// and 2), which Linux took from it with the driver.
    pub fn master_the_bus(&mut self) {
        let config = "/sys/bus/pci/devices/0000:00:01.0/config";
        self.shell(&format!(
            "printf '\\006' | dd of={config} bs=1 seek=4 conv=notrunc"
        ));
        let (_, said) = self.ctl(&["domains"]);
        assert!(said.contains("bus master on"), "{said}");
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
        self.wait("the guest to be ready again", |guest| {
            guest.log_from(begun).contains("guest: ready").then_some(())
        });
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

    /// Pixels of the screen as 0x00RRGGBB, or why there are none.
    pub fn screen(&self) -> Result<(usize, Vec<u32>), String> {
        let file = self.out.path().join("now.png");
        let (code, said) = self.ctl(&["frame", "0", &file.to_string_lossy()]);
        if code != Some(0) {
            return Err(said);
        }
        let file = std::fs::File::open(file).unwrap();
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        let pixels = bytes[..info.buffer_size()]
            .chunks_exact(3)
            .map(|p| u32::from(p[0]) << 16 | u32::from(p[1]) << 8 | u32::from(p[2]))
            .collect();
        Ok((info.width as usize, pixels))
    }

    /// Wait until the screen shows what `check` takes it for.
    pub fn shows(&mut self, check: impl Fn(usize, &[u32]) -> Result<(), String>) {
        let mut why = String::new();
        for _ in 0..100 {
            match self
                .screen()
                .and_then(|(width, pixels)| check(width, &pixels))
            {
                Ok(()) => return,
                Err(not) => why = not,
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        panic!("the screen shows something else: {why}\n{}", self.log());
    }

    /// The line that the guest draws: 18 characters of 8 x 16 pixels, grey on
    /// blue, in the upper left corner; black behind it.
    pub fn assert_drawn(&mut self) {
        self.shows(|width, pixels| {
            if (width, pixels.len()) != (1024, 1024 * 768) {
                return Err(format!("{} pixels, {width} a line", pixels.len()));
            }
            let line = (0..16).flat_map(|y| (0..144).map(move |x| pixels[y * width + x]));
            let count = |colour| line.clone().filter(|&p| p == colour).count();
            let (blue, grey) = (count(0x0000aa), count(0xaaaaaa));
            let black = (0..16).all(|y| pixels[y * width + 160] == 0);
            if blue + grey == 16 * 144 && grey > 200 && black {
                return Ok(());
            }
            Err(format!(
                "{blue} blue and {grey} grey pixels, black behind: {black}"
            ))
        });
    }

    /// The first mapping with these rights.
    pub fn mapping(&self, rights: &str) -> Option<String> {
        let (_, mappings) = self.ctl(&["mappings"]);
        let line = mappings.lines().find(|line| line.ends_with(rights))?;
        Some(line.split(' ').next()?.to_owned())
    }

    /// The resource on the screen.
    pub fn shown(&self) -> Option<String> {
        let (_, resources) = self.ctl(&["resources"]);
        let shown = resources
            .lines()
            .find(|line| line.contains("on scanout 0"))?;
        Some(shown.split(' ').next()?.to_owned())
    }

    /// Process id of the machine's QEMU.
    pub fn qemu(&self) -> String {
        let id = std::fs::read_to_string(self.out.path().join("qemu.pid")).unwrap();
        id.trim().to_owned()
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
