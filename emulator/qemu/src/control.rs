//! The control socket of a running machine: a line asks, the answer is lines
//! up to an empty one. For people with `dmasan ctl`, and for tests.
//!
//! `read IOVA LENGTH`, `write IOVA HEX`: the device accesses memory, whether
//! it may or not. `peer-read`, `peer-write`: QEMU does it for the device.
//! `mappings`: what the device may reach. `frame SCANOUT FILE`: a picture.

use crate::handle::{Handle, HandleError};
use memory::Iova;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// Longest line, bytes.
const MAX_LINE: u64 = 1 << 16;
/// Bytes of one access.
const MAX_LENGTH: u32 = 4096;
const USAGE: &str = "read IOVA LENGTH | write IOVA HEX | peer-read IOVA LENGTH | \
                     peer-write IOVA HEX | mappings | frame SCANOUT FILE";

/// Answer at `path` until the process ends.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(path: &Path, handle: Handle) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            // One client at a time: each waits for the device anyway.
            for stream in listener.incoming().flatten() {
                let _ = converse(&stream, &handle);
            }
        })?;
    Ok(())
}

/// Ask a running machine; its answer.
///
/// # Errors
/// Nobody answers there.
pub fn ask(path: &Path, words: &[String]) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "{}", words.join(" "))?;
    let mut answer = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            return Ok(answer);
        }
        answer.push_str(&line);
        answer.push('\n');
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn converse(stream: &UnixStream, handle: &Handle) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.by_ref().take(MAX_LINE).read_line(&mut line)? != 0 {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let answer = answer(&words, handle).unwrap_or_else(|error| format!("error: {error}"));
        writeln!(&*stream, "{answer}\n")?;
        line.clear();
    }
    Ok(())
}

/// What to answer to a line.
pub(crate) fn answer(words: &[&str], handle: &Handle) -> Result<String, HandleError> {
    let usage = || HandleError::Refused(format!("usage: {USAGE}"));
    match *words {
        [verb @ ("read" | "peer-read"), at, length] => {
            let at = number(at).ok_or_else(usage)?;
            let length = number(length)
                .filter(|&n| n <= u64::from(MAX_LENGTH))
                .ok_or_else(usage)? as u32;
            let bytes = if verb == "read" {
                handle.device_read(Iova(at), length)?
            } else {
                handle.peer_read(Iova(at), length)?
            };
            Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        [verb @ ("write" | "peer-write"), at, data] => {
            let at = number(at).ok_or_else(usage)?;
            let data = bytes(data).ok_or_else(usage)?;
            if verb == "write" {
                handle.device_write(Iova(at), data)?;
            } else {
                handle.peer_write(Iova(at), data)?;
            }
            Ok("done".to_owned())
        }
        ["mappings"] => {
            let lines = handle.mappings()?.into_iter().map(|mapping| {
                let target = mapping
                    .target
                    .map_or_else(|| "no RAM".to_owned(), |gpa| gpa.to_string());
                let right = |have, letter| if have { letter } else { '-' };
                let read = right(mapping.read, 'r');
                let write = right(mapping.write, 'w');
                let (iova, length) = (mapping.iova, mapping.length);
                format!("{iova} +{length:#x} -> {target} {read}{write}")
            });
            Ok(lines.collect::<Vec<_>>().join("\n"))
        }
        ["frame", scanout, file] => {
            let scanout = number(scanout).ok_or_else(usage)? as u32;
            let frame = handle
                .frame(scanout)?
                .ok_or_else(|| HandleError::Refused("that scanout shows nothing".to_owned()))?;
            let refused = |error: String| HandleError::Refused(error);
            let png = frame.png().map_err(|error| refused(error.to_string()))?;
            fs::write(file, png).map_err(|error| refused(error.to_string()))?;
            Ok(format!("{}x{}", frame.width, frame.height))
        }
        _ => Err(usage()),
    }
}

/// Decimal, or hexadecimal behind 0x.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Hexadecimal digits, two a byte.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty()
        || !digits.len().is_multiple_of(2)
        || digits.len() > 2 * MAX_LENGTH as usize
    {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}
