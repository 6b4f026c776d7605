//! The control socket of a running machine: a line asks, the answer is lines
//! up to an empty one. For people with `dmasan ctl`, and for tests.
//!
//! `read IOVA LENGTH`, `write IOVA HEX`: the device accesses memory, whether
//! it may or not. `peer-read`, `peer-write`: QEMU does it for the device.
//! `replay`, `former-rings`, `hold`, `late-read`, `late-write`: it uses what
//! the driver took back. `stall`, `resume`: it does nothing, and works again. `domains`, `mappings`, `resources`: what there is.
//! `frame SCANOUT FILE`: a picture. `qmp JSON`: a command for QEMU. `audit`
//! and `watch` answer with JSON, for `dmasan audit`.

use crate::audit::{self, Place};
use crate::handle::{Handle, HandleError};
use crate::qmp;
use memory::{Iova, PAGE_SIZE};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Longest line, bytes.
const MAX_LINE: u64 = 1 << 16;
/// Bytes of one access.
const MAX_LENGTH: u32 = 4096;
/// Clients at a time.
const MAX_CLIENTS: usize = 16;
/// Seconds that a watch may take.
const MAX_WATCH: u64 = 3600;
/// Reads that a probe may make.
const MAX_TRIES: u64 = 1 << 16;
const USAGE: &str = "read IOVA LENGTH | write IOVA HEX | peer-read IOVA LENGTH | \
                     peer-write IOVA HEX | replay RESOURCE | former-rings QUEUE | \
                     hold IOVA LENGTH | late-read IOVA LENGTH | late-write IOVA HEX | stall | resume | domains | \
                     mappings | resources | frame SCANOUT FILE | qmp JSON | audit TRIES | \
                     watch SECONDS";

/// Answer at `path` until the process ends.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(path: &Path, handle: Handle, place: Place) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let clients = Arc::new(());
            for stream in listener.incoming().flatten() {
                // Too many: who comes is not answered.
                if Arc::strong_count(&clients) > MAX_CLIENTS {
                    continue;
                }
                let (handle, place, one) = (handle.clone(), place.clone(), clients.clone());
                let name = thread::Builder::new().name("client".to_owned());
                let _ = name.spawn(move || {
                    let _ = converse(&stream, &handle, &place);
                    drop(one);
                });
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

fn converse(stream: &UnixStream, handle: &Handle, place: &Place) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.by_ref().take(MAX_LINE).read_line(&mut line)? != 0 {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let answer =
            answer(&words, handle, place).unwrap_or_else(|error| format!("error: {error}"));
        writeln!(&*stream, "{answer}\n")?;
        line.clear();
    }
    Ok(())
}

/// What to answer to a line.
pub(crate) fn answer(
    words: &[&str],
    handle: &Handle,
    place: &Place,
) -> Result<String, HandleError> {
    let usage = || HandleError::Refused(format!("usage: {USAGE}"));
    match *words {
        [verb @ ("read" | "peer-read" | "late-read"), at, length] => {
            let at = number(at).ok_or_else(usage)?;
            let length = number(length)
                .filter(|&n| n <= u64::from(MAX_LENGTH))
                .ok_or_else(usage)? as u32;
            let bytes = match verb {
                "read" => handle.device_read(Iova(at), length)?,
                "late-read" => handle.late_read(Iova(at), length)?,
                _ => handle.peer_read(Iova(at), length)?,
            };
            Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        [verb @ ("write" | "peer-write" | "late-write"), at, data] => {
            let at = number(at).ok_or_else(usage)?;
            let data = bytes(data).ok_or_else(usage)?;
            match verb {
                "write" => handle.device_write(Iova(at), data)?,
                "late-write" => handle.late_write(Iova(at), data)?,
                _ => handle.peer_write(Iova(at), data)?,
            }
            Ok("done".to_owned())
        }
        ["replay", resource] => handle.replay(
            number(resource)
                .ok_or_else(usage)?
                .try_into()
                .map_err(|_| usage())?,
        ),
        ["former-rings", queue] => handle.use_former_rings(
            number(queue)
                .ok_or_else(usage)?
                .try_into()
                .map_err(|_| usage())?,
        ),
        ["hold", at, length] => {
            let at = number(at).ok_or_else(usage)?;
            let pages = handle.hold(Iova(at), number(length).ok_or_else(usage)?)?;
            Ok(format!("{pages} pages"))
        }
        [verb @ ("stall" | "resume")] => {
            handle.stall(verb == "stall")?;
            Ok("done".to_owned())
        }
        ["domains"] => {
            let look = handle.look()?;
            let pages: u64 = look.mappings.iter().map(|m| m.length / PAGE_SIZE).sum();
            Ok(format!(
                "{} bus master {}, {} mappings, {pages} pages, IOMMU {}",
                look.device,
                if look.bus_master { "on" } else { "off" },
                look.mappings.len(),
                place.iommu.words()
            ))
        }
        ["resources"] => {
            let lines = handle.resources()?.into_iter().map(|resource| {
                let (width, height) = resource.size;
                let what = resource.blob.map_or_else(
                    || format!("{width}x{height}"),
                    |bytes| format!("blob of {bytes} bytes"),
                );
                let backing = resource.backing.map_or_else(
                    || "no backing".to_owned(),
                    |(bytes, entries)| format!("backing of {bytes} bytes in {entries} pieces"),
                );
                let shown: String = resource
                    .scanouts
                    .iter()
                    .map(|scanout| format!(", on scanout {scanout}"))
                    .collect();
                format!("{} {what}, {backing}{shown}", resource.id)
            });
            Ok(lines.collect::<Vec<_>>().join("\n"))
        }
        ["qmp", ..] => {
            let text = words.get(1..).unwrap_or_default().join(" ");
            let refused = |error: String| HandleError::Refused(error);
            let command =
                serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
            let said = qmp::ask(&place.monitor, &command);
            said.map(|value| value.to_string())
                .map_err(|error| refused(format!("QEMU: {error}")))
        }
        ["audit", tries] => {
            let tries = number(tries)
                .filter(|&n| n <= MAX_TRIES)
                .ok_or_else(usage)?;
            json(&audit::audit(handle, place, tries as usize)?)
        }
        ["watch", seconds] => {
            let seconds = number(seconds)
                .filter(|&n| n <= MAX_WATCH)
                .ok_or_else(usage)?;
            json(&audit::watch(handle, place, Duration::from_secs(seconds))?)
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

fn json(value: &impl serde::Serialize) -> Result<String, HandleError> {
    serde_json::to_string(value).map_err(|error| HandleError::Refused(error.to_string()))
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
