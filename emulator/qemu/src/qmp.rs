//! QEMU's own control socket: one question a connection.

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long QEMU may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, bytes.
const MAX_ANSWER: u64 = 16 << 20;
/// Events that may come before an answer.
const MAX_EVENTS: usize = 1 << 12;

/// Let QEMU do a command, `{"execute": …}`; what it returns.
///
/// # Errors
/// Nobody answers there, or QEMU refuses.
pub fn ask(path: &Path, command: &Value) -> io::Result<Value> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?).take(MAX_ANSWER);
    // QEMU's greeting comes first.
    let _ = line(&mut reader)?;
    say(&stream, &json!({ "execute": "qmp_capabilities" }))?;
    answer(&mut reader)?;
    say(&stream, command)?;
    answer(&mut reader)
}

/// What a line of the human monitor prints.
///
/// # Errors
/// As [`ask`].
pub fn monitor(path: &Path, line: &str) -> io::Result<String> {
    let command = json!({
        "execute": "human-monitor-command",
        "arguments": { "command-line": line },
    });
    match ask(path, &command)? {
        Value::String(text) => Ok(text),
        other => Err(io::Error::other(format!("QEMU's monitor said {other}"))),
    }
}

/// `count` words of 4 or 8 bytes at a guest-physical address, devices'
/// registers among them: the monitor's `xp`.
///
/// # Errors
/// As [`ask`], or nothing can be read there.
pub fn physical(path: &Path, at: u64, wide: bool) -> io::Result<u64> {
    let size = if wide { 'g' } else { 'w' };
    let text = monitor(path, &format!("xp /1{size}x {at:#x}"))?;
    let value = text.split_ascii_whitespace().nth(1);
    value
        .and_then(|word| word.strip_prefix("0x"))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| io::Error::other(format!("QEMU cannot read {at:#x}: {}", text.trim())))
}

fn say(mut stream: &UnixStream, what: &Value) -> io::Result<()> {
    stream.write_all(format!("{what}\n").as_bytes())
}

fn line(reader: &mut impl BufRead) -> io::Result<Value> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// The answer to the last command; events before it are of no interest.
fn answer(reader: &mut impl BufRead) -> io::Result<Value> {
    for _ in 0..MAX_EVENTS {
        let mut said = line(reader)?;
        if let Some(error) = said.get("error") {
            let why = error.get("desc").and_then(Value::as_str);
            return Err(io::Error::other(why.unwrap_or("QEMU refuses").to_owned()));
        }
        if let Some(value) = said.get_mut("return") {
            return Ok(value.take());
        }
    }
    Err(io::Error::other("QEMU sends events and no answer"))
}
