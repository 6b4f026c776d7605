//! QEMU's intel-iommu and two of its `edu` devices, driven through qtest.

use crate::qtest::{LONG, Qtest, halting_firmware};
use crate::target::{DEVICES, Direction, RAM, Target};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where q35 has the register file.
const UNIT: u64 = 0xfed9_0000;
/// Where the devices' registers are put, 1 MiB each.
const BARS: u64 = 0xfe00_0000;
/// The device's buffer, in its own address space.
const BUFFER: u64 = 0x4_0000;
/// Registers of `edu` (QEMU's documentation, specs/edu).
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const DMA_RUN: u64 = 1;
const DMA_TO_MEMORY: u64 = 2;

pub struct Qemu {
    process: Child,
    scratch: PathBuf,
    qtest: Qtest,
}

impl Qemu {
    pub fn start(program: &str) -> io::Result<Self> {
        let scratch = std::env::temp_dir().join(format!("dmasan-oracle-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        std::fs::write(scratch.join("halt.bin"), halting_firmware())?;
        let socket = scratch.join("qtest");
        let listener = UnixListener::bind(&socket)?;
        let mut command = Command::new(program);
        command
            .args([
                "-accel",
                "tcg",
                "-machine",
                "q35",
                "-nodefaults",
                "-no-user-config",
            ])
            .args(["-display", "none", "-vga", "none", "-m"])
            .arg(format!("{}M", RAM >> 20))
            .arg("-bios")
            .arg(scratch.join("halt.bin"))
            .args(["-device", "intel-iommu,aw-bits=48,intremap=off"])
            .arg("-qtest")
            .arg(format!("unix:{}", socket.display()))
            .args(["-qtest-log", "none"])
            .stdin(Stdio::null());
        for id in DEVICES {
            // Without the mask, addresses are cut to 28 bits.
            let slot = id >> 3;
            command
                .arg("-device")
                .arg(format!("edu,addr={slot:#x},dma_mask={:#x}", u64::MAX));
        }
        let mut process = command.spawn()?;
        let qtest = match Qtest::accept(&listener, &mut process) {
            Ok(qtest) => qtest,
            Err(why) => {
                let _ = process.kill();
                let _ = process.wait();
                let _ = std::fs::remove_dir_all(&scratch);
                return Err(why);
            }
        };
        let mut qemu = Self {
            process,
            scratch,
            qtest,
        };
        for (index, device) in DEVICES.into_iter().enumerate() {
            let bar = BARS as u32 + ((index as u32) << 20);
            qemu.qtest.configure(device, 0x10, bar);
            // Memory space and bus mastering.
            qemu.qtest.configure(device, 0x04, 6);
        }
        Ok(qemu)
    }
}

impl Target for Qemu {
    fn poke(&mut self, at: u64, value: u64) {
        self.qtest.set(at, 8, value);
    }

    fn look(&mut self, at: u64) -> u64 {
        self.qtest.get(at, 8)
    }

    fn clear(&mut self, at: u64, length: u64) {
        self.qtest.clear(at, length);
    }

    fn get(&mut self, offset: u64, size: u8) -> u64 {
        self.qtest.get(UNIT + offset, size)
    }

    fn set(&mut self, offset: u64, size: u8, value: u64) {
        self.qtest.set(UNIT + offset, size, value);
    }

    fn dma(&mut self, device: usize, direction: Direction, iova: u64, offset: u64, length: u64) {
        let bar = BARS + ((device as u64) << 20);
        let (source, destination, command) = match direction {
            Direction::Read => (iova, BUFFER + offset, DMA_RUN),
            Direction::Write => (BUFFER + offset, iova, DMA_RUN | DMA_TO_MEMORY),
        };
        for (register, value) in [
            (DMA_SOURCE, source),
            (DMA_DESTINATION, destination),
            (DMA_COUNT, length),
            (DMA_COMMAND, command),
        ] {
            self.qtest.set(bar + register, 8, value);
        }
        // The device takes 100 ms.
        let start = Instant::now();
        while self.qtest.get(bar + DMA_COMMAND, 8) & DMA_RUN != 0 {
            assert!(start.elapsed() < LONG, "edu hangs");
            std::thread::sleep(Duration::from_millis(4));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}
