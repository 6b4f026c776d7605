//! A QEMU at its qtest socket: memory, ports and registers by lines of text.
//! No firmware and no guest: the processor halts at its first instruction, so
//! that nobody else touches memory, the IOMMU or the devices.
#![allow(dead_code)] // each tool uses some of it

use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long QEMU may take for anything.
pub const LONG: Duration = Duration::from_secs(120);

/// What QEMU gets as its firmware: cli; hlt; jump back, at the reset vector,
/// 16 bytes below the end.
pub fn halting_firmware() -> Vec<u8> {
    let mut image = vec![0xf4; 64 << 10];
    let reset = image.len() - 16;
    image[reset..reset + 4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfc]);
    image
}

/// A QEMU that was started with `-qtest unix:…`.
pub struct Qtest {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Qtest {
    /// Wait until QEMU connects, as long as `process` lives.
    pub fn accept(listener: &UnixListener, process: &mut Child) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let start = Instant::now();
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(LONG))?;
                    let input = BufReader::new(stream.try_clone()?);
                    return Ok(Self {
                        input,
                        output: stream,
                    });
                }
                Err(why) if why.kind() != io::ErrorKind::WouldBlock => return Err(why),
                Err(_) => {}
            }
            if let Some(status) = process.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
            if start.elapsed() > LONG {
                return Err(io::Error::other("it does not connect to its qtest socket"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One line, one answer; the answer's value, if it has one.
    pub fn ask(&mut self, line: &str) -> u64 {
        let word = self.answer(line);
        let digits = word.trim_start_matches("0x");
        match digits {
            "" => 0,
            _ => u64::from_str_radix(digits, 16).expect("a number"),
        }
    }

    /// The word behind the answer's OK.
    fn answer(&mut self, line: &str) -> String {
        writeln!(self.output, "{line}").expect("QEMU runs");
        loop {
            let mut answer = String::new();
            let read = self.input.read_line(&mut answer).expect("QEMU answers");
            assert!(read != 0, "QEMU ended at: {line}");
            let mut words = answer.split_whitespace();
            match words.next() {
                Some("OK") => return words.next().unwrap_or_default().to_owned(),
                // Interrupt lines, unasked.
                Some("IRQ") => {}
                _ => panic!("QEMU refuses {line}: {answer}"),
            }
        }
    }

    /// Read 1, 2, 4 or 8 bytes of memory or of a register.
    pub fn get(&mut self, at: u64, size: u8) -> u64 {
        self.ask(&format!("read{} {at:#x}", width(size)))
    }

    /// Write 1, 2, 4 or 8 bytes.
    pub fn set(&mut self, at: u64, size: u8, value: u64) {
        self.ask(&format!("write{} {at:#x} {value:#x}", width(size)));
    }

    /// Write bytes of memory.
    pub fn store(&mut self, at: u64, bytes: &[u8]) {
        const PIECE: usize = 4096;
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            let at = at + (index * PIECE) as u64;
            let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
            self.ask(&format!("write {at:#x} {:#x} 0x{hex}", piece.len()));
        }
    }

    /// Set memory to zero.
    pub fn clear(&mut self, at: u64, length: u64) {
        self.ask(&format!("memset {at:#x} {length:#x} 0x0"));
    }

    /// Read a doubleword of a device's configuration space.
    pub fn config(&mut self, device: u16, register: u8) -> u32 {
        self.select(device, register);
        self.ask("inl 0xcfc") as u32
    }

    /// Write one.
    pub fn configure(&mut self, device: u16, register: u8, value: u32) {
        self.select(device, register);
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    fn select(&mut self, device: u16, register: u8) {
        let address = 1 << 31 | u32::from(device) << 8 | u32::from(register & !3);
        self.ask(&format!("outl 0xcf8 {address:#x}"));
    }
}

/// qtest's letter for a size.
fn width(size: u8) -> char {
    match size {
        1 => 'b',
        2 => 'w',
        4 => 'l',
        _ => 'q',
    }
}
