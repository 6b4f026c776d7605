//! QEMU's intel-iommu and two of its `edu` devices, driven through qtest.
//!
//! No firmware and no guest: the processor halts at its first instruction, so
//! that nobody else touches memory, the unit or the devices.

use crate::target::{DEVICES, Direction, RAM, Target};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
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
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Qemu {
    pub fn start(program: &str) -> io::Result<Self> {
        let scratch = std::env::temp_dir().join(format!("dmasan-oracle-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        // cli; hlt; jmp back: at the reset vector, 16 bytes below the end.
        let mut image = vec![0xf4; 64 << 10];
        let reset = image.len() - 16;
        image[reset..reset + 4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfc]);
        std::fs::write(scratch.join("halt.bin"), image)?;
        let socket = scratch.join("qtest");
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
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
        let stream = match accept(&listener, &mut process) {
            Ok(stream) => stream,
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
            input: BufReader::new(stream.try_clone()?),
            output: stream,
        };
        for device in 0..DEVICES.len() {
            qemu.configure(device, 0x10, BARS + ((device as u64) << 20));
            // Memory space and bus mastering.
            qemu.configure(device, 0x04, 6);
        }
        Ok(qemu)
    }

    /// One line, one answer; the answer's value, if it has one.
    fn ask(&mut self, line: &str) -> u64 {
        writeln!(self.output, "{line}").expect("QEMU runs");
        loop {
            let mut answer = String::new();
            let read = self.input.read_line(&mut answer).expect("QEMU answers");
            assert!(read != 0, "QEMU ended at: {line}");
            let mut words = answer.split_whitespace();
            match words.next() {
                Some("OK") => {
                    let value = words.next().map(|word| {
                        u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number")
                    });
                    return value.unwrap_or(0);
                }
                // Interrupt lines, unasked.
                Some("IRQ") => {}
                _ => panic!("QEMU refuses {line}: {answer}"),
            }
        }
    }

    /// Write a doubleword of configuration space.
    fn configure(&mut self, device: usize, register: u32, value: u64) {
        let address = 1 << 31 | u32::from(DEVICES[device]) << 8 | register;
        self.ask(&format!("outl 0xcf8 {address:#x}"));
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }
}

fn accept(listener: &UnixListener, process: &mut Child) -> io::Result<UnixStream> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(Duration::from_secs(20)))?;
                return Ok(stream);
            }
            Err(why) if why.kind() != io::ErrorKind::WouldBlock => return Err(why),
            Err(_) => {}
        }
        if let Some(status) = process.try_wait()? {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        if start.elapsed() > Duration::from_secs(20) {
            return Err(io::Error::other("it does not connect to its qtest socket"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Target for Qemu {
    fn poke(&mut self, at: u64, value: u64) {
        self.ask(&format!("writeq {at:#x} {value:#x}"));
    }

    fn look(&mut self, at: u64) -> u64 {
        self.ask(&format!("readq {at:#x}"))
    }

    fn clear(&mut self, at: u64, length: u64) {
        self.ask(&format!("memset {at:#x} {length:#x} 0x0"));
    }

    fn get(&mut self, offset: u64, size: u8) -> u64 {
        let width = if size == 8 { 'q' } else { 'l' };
        self.ask(&format!("read{width} {:#x}", UNIT + offset))
    }

    fn set(&mut self, offset: u64, size: u8, value: u64) {
        let width = if size == 8 { 'q' } else { 'l' };
        self.ask(&format!("write{width} {:#x} {value:#x}", UNIT + offset));
    }

    fn dma(&mut self, device: usize, direction: Direction, iova: u64, offset: u64, length: u64) {
        let bar = BARS + ((device as u64) << 20);
        let (source, destination, command) = match direction {
            Direction::Read => (iova, BUFFER + offset, DMA_RUN),
            Direction::Write => (BUFFER + offset, iova, DMA_RUN | DMA_TO_MEMORY),
        };
        let mut line = String::new();
        for (register, value) in [
            (DMA_SOURCE, source),
            (DMA_DESTINATION, destination),
            (DMA_COUNT, length),
            (DMA_COMMAND, command),
        ] {
            line.clear();
            let _ = write!(line, "writeq {:#x} {value:#x}", bar + register);
            self.ask(&line);
        }
        // The device takes 100 ms.
        let start = Instant::now();
        while self.ask(&format!("readq {:#x}", bar + DMA_COMMAND)) & DMA_RUN != 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "edu hangs");
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
