//! The machine: `dmasan qemu` with our GPU, QEMU's own beside it, and one
//! VT-d in front of both, which is programmed here as a driver's IOMMU
//! support would.

use crate::qtest::{LONG, Qtest, halting_firmware};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where q35 has the register file of its remapping unit.
const UNIT: u64 = 0xfed9_0000;
// VT-d registers (Intel's specification, §11.4).
const CAP: u64 = 0x08;
const GCMD: u64 = 0x18;
const RTADDR: u64 = 0x20;
const FSTS: u64 = 0x34;
const IQT: u64 = 0x88;
const IQA: u64 = 0x90;
const TE: u64 = 1 << 31;
const SRTP: u64 = 1 << 30;
const QIE: u64 = 1 << 26;
/// Fault overflow, and "a primary fault is pending".
const PFO_PPF: u64 = 3;
const READ_WRITE: u64 = 3;

/// Tables of the unit, and what lies behind them.
const ROOT: u64 = 0x400_0000;
const CONTEXTS: u64 = ROOT + 0x1000;
const STATUS: u64 = ROOT + 0x2000;
const QUEUE: u64 = ROOT + 0x3000;
const TABLES: u64 = ROOT + 0x1_0000;
const PAGE: u64 = 4096;

/// The two devices: 00:04.0 is QEMU's, 00:05.0 is ours.
pub const THEIRS: u16 = 4 << 3;
pub const OURS: u16 = 5 << 3;
/// Size of the display, pixels.
pub const SIZE: (u32, u32) = (320, 200);

pub struct Machine {
    process: Child,
    program: PathBuf,
    out: PathBuf,
    pub qtest: Qtest,
    /// The next free page for a table.
    next: u64,
    tail: u64,
    waits: u64,
}

impl Machine {
    /// Start `program`, a dmasan; its files go to `out`.
    pub fn start(program: &Path, out: &Path) -> io::Result<Self> {
        fs::create_dir_all(out)?;
        let firmware = out.join("halt.bin");
        fs::write(&firmware, halting_firmware())?;
        let socket = out.join("qtest.sock");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let description = out.join("stale-read.toml");
        fs::write(&description, describe(&firmware, &socket))?;
        let words = File::create(out.join("dmasan.txt"))?;
        let mut process = Command::new(program)
            .arg("qemu")
            .arg(&description)
            .arg("--out")
            .arg(out)
            .stdin(Stdio::null())
            .stdout(words.try_clone()?)
            .stderr(words)
            .spawn()?;
        let qtest = Qtest::accept(&listener, &mut process).inspect_err(|_| {
            let _ = process.kill();
            let _ = process.wait();
        })?;
        Ok(Self {
            process,
            program: program.to_owned(),
            out: out.to_owned(),
            qtest,
            next: TABLES,
            tail: 0,
            waits: 0,
        })
    }

    /// Ask the running machine; what it answers.
    fn ask(&self, words: &[&str]) -> io::Result<String> {
        let socket = self.out.join("control.sock");
        let output = Command::new(&self.program)
            .arg("ctl")
            .arg(socket)
            .args(words)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(io::Error::other(format!("{words:?}: {text}{said}")))
        }
    }

    /// What a device shows, as a PNG file.
    pub fn shot(&self, device: u16, file: &Path) -> io::Result<()> {
        let name = file.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        if device == OURS {
            self.ask(&["frame", "0", name])?;
        } else {
            let order = format!(
                r#"{{"execute": "screendump", "arguments": {{"filename": {name:?}, "device": "theirs", "head": 0, "format": "png"}}}}"#
            );
            let answer = self.ask(&["qmp", &order])?;
            if answer.contains("\"error\"") {
                return Err(io::Error::other(answer));
            }
        }
        Ok(())
    }

    /// QEMU's version; the first that is asked, so it waits until somebody
    /// answers.
    pub fn version(&self) -> io::Result<String> {
        let start = Instant::now();
        let answer = loop {
            match self.ask(&["qmp", r#"{"execute": "query-version"}"#]) {
                Ok(answer) => break answer,
                Err(why) if start.elapsed() > LONG => return Err(why),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let number = |name: &str| {
            let at = answer.find(&format!("\"{name}\""))?;
            let digits = answer[at..].split(|c: char| !c.is_ascii_digit());
            digits.into_iter().find(|word| !word.is_empty())
        };
        let parts = ["major", "minor", "micro"].map(number);
        match parts {
            [Some(major), Some(minor), Some(micro)] => Ok(format!("{major}.{minor}.{micro}")),
            _ => Err(io::Error::other(format!("no version: {answer}"))),
        }
    }

    /// End QEMU; dmasan's exit code, and what it said.
    pub fn end(mut self) -> io::Result<(Option<i32>, String)> {
        // The connection ends with QEMU, perhaps before the answer.
        let _ = self.ask(&["qmp", r#"{"execute": "quit"}"#]);
        let status = self.process.wait()?;
        Ok((
            status.code(),
            fs::read_to_string(self.out.join("dmasan.txt"))?,
        ))
    }

    /// Translation on, with a domain of its own for each device; the top
    /// tables of the domains.
    pub fn isolate(&mut self, devices: &[u16]) -> Vec<u64> {
        self.qtest.clear(ROOT, 0x10_0000);
        self.qtest.set(ROOT, 8, CONTEXTS | 1);
        let mut tops = Vec::new();
        for (index, &device) in devices.iter().enumerate() {
            let top = self.table();
            let entry = CONTEXTS + 16 * u64::from(device);
            // Four levels; domain 0 is not for use in caching mode (§6.1).
            let domain = index as u64 + 1;
            self.qtest.set(entry + 8, 8, 2 | domain << 8);
            self.qtest.set(entry, 8, top | 1);
            tops.push(top);
        }
        self.qtest.set(UNIT + RTADDR, 8, ROOT);
        self.qtest.set(UNIT + GCMD, 4, SRTP);
        self.qtest.set(UNIT + IQA, 8, QUEUE);
        self.qtest.set(UNIT + GCMD, 4, QIE);
        // The context cache, all of it.
        self.submit([1 | 1 << 4, 0]);
        self.invalidate();
        self.qtest.set(UNIT + GCMD, 4, QIE | TE);
        tops
    }

    fn table(&mut self) -> u64 {
        let page = self.next;
        self.next += PAGE;
        page
    }

    /// Map pages that lie one after the other, and tell the unit (it is in
    /// caching mode). Gives where the leaf entries are.
    pub fn map(&mut self, top: u64, iova: u64, physical: u64, pages: u64) -> Vec<u64> {
        let mut leaves = Vec::new();
        for page in 0..pages {
            let entry = self.leaf(top, iova + page * PAGE);
            self.qtest
                .set(entry, 8, (physical + page * PAGE) | READ_WRITE);
            leaves.push(entry);
        }
        self.invalidate();
        leaves
    }

    /// Where the leaf entry for `iova` is; tables on the way are made.
    fn leaf(&mut self, top: u64, iova: u64) -> u64 {
        let mut table = top;
        for level in (1..=3).rev() {
            let entry = table + 8 * ((iova >> (12 + 9 * level)) & 0x1ff);
            if self.qtest.get(entry, 8) == 0 {
                let below = self.table();
                self.qtest.set(entry, 8, below | READ_WRITE);
            }
            table = self.qtest.get(entry, 8) & !(PAGE - 1);
        }
        table + 8 * ((iova >> 12) & 0x1ff)
    }

    /// Clear leaf entries, have the unit forget them, wait until it has.
    pub fn unmap(&mut self, leaves: &[u64]) {
        for &entry in leaves {
            self.qtest.set(entry, 8, 0);
        }
        self.invalidate();
    }

    /// A global IOTLB invalidation that drains reads and writes (§6.5.2.3),
    /// and a wait.
    fn invalidate(&mut self) {
        self.submit([2 | 1 << 4 | 3 << 6, 0]);
        self.waits += 1;
        self.submit([5 | 1 << 5 | self.waits << 32, STATUS]);
        assert_eq!(self.qtest.get(STATUS, 4), self.waits, "the unit is done");
    }

    fn submit(&mut self, [low, high]: [u64; 2]) {
        self.qtest.set(QUEUE + self.tail, 8, low);
        self.qtest.set(QUEUE + self.tail + 8, 8, high);
        self.tail = (self.tail + 16) % PAGE;
        self.qtest.set(UNIT + IQT, 8, self.tail);
    }

    /// [`Machine::faults`], once there are some.
    pub fn faults_soon(&mut self) -> Vec<String> {
        let start = Instant::now();
        loop {
            let faults = self.faults();
            if !faults.is_empty() || start.elapsed() > LONG {
                return faults;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The faults that the unit recorded, in words, and forget them.
    pub fn faults(&mut self) -> Vec<String> {
        let cap = self.qtest.get(UNIT + CAP, 8);
        let first = UNIT + 16 * ((cap >> 24) & 0x3ff);
        let mut said = Vec::new();
        for index in 0..=(cap >> 40) & 0xff {
            let at = first + 16 * index;
            let (low, high) = (self.qtest.get(at, 8), self.qtest.get(at + 8, 8));
            if high >> 63 == 0 {
                continue;
            }
            let way = if high >> 62 & 1 == 1 { "read" } else { "write" };
            let (reason, device) = ((high >> 32) & 0xff, high as u16);
            said.push(format!(
                "{way} of {low:#x}, reason {reason}, by 00:{:02x}.{}",
                device >> 3,
                device & 7
            ));
            self.qtest.set(at + 12, 4, 1 << 31);
        }
        self.qtest.set(UNIT + FSTS, 4, PFO_PPF);
        said
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // QEMU ends with the dmasan that started it.
        if let Ok(None) = self.process.try_wait() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The machine description.
fn describe(firmware: &Path, qtest: &Path) -> String {
    let (width, height) = SIZE;
    let extra = [
        "-bios".to_owned(),
        firmware.display().to_string(),
        "-qtest".to_owned(),
        format!("unix:{}", qtest.display()),
        "-qtest-log".to_owned(),
        "none".to_owned(),
        "-device".to_owned(),
        format!(
            "virtio-gpu-pci,id=theirs,addr={:#x},iommu_platform=on,xres={width},yres={height}",
            THEIRS >> 3
        ),
    ];
    format!(
        "name = \"stale-read\"\niommu = \"intel\"\nextra = {extra:?}\n\n\
         [machine]\nmemory = 128\naccelerator = \"tcg\"\n\n\
         [gpu]\nslot = {}\ndisplays = [[{width}, {height}]]\n",
        OURS >> 3
    )
}
