//! UNICODE_STRING and ANSI_STRING: {Length, MaximumLength, Buffer}, lengths
//! in bytes.

use super::spec::status::OBJECT_NAME_INVALID;
use super::{Answer, State, field, narrow, pointer, success};
use crate::rules::executive as rule;
use crate::status::{BUFFER_OVERFLOW, BUFFER_TOO_SMALL, INVALID_PARAMETER, NO_MEMORY, SUCCESS};
use crate::{Call, Outcome, Platform, PlatformError};
use journal::event::{StackId, Subject};
use memory::{Gva, PAGE_SIZE};

/// Offset of Buffer.
const BUFFER: u64 = 8;

/// The UNICODE_STRING at `at`; unpaired surrogates become U+FFFD. At most
/// 64 KiB by its layout.
///
/// # Errors
/// [`PlatformError::NotMapped`].
pub fn read_unicode_string(p: &dyn Platform, at: Gva) -> Result<String, PlatformError> {
    Ok(String::from_utf16_lossy(&units(p, at)?))
}

/// The 16-bit units of the UNICODE_STRING at `at`.
pub(super) fn units(p: &dyn Platform, at: Gva) -> Result<Vec<u16>, PlatformError> {
    let bytes = counted(p, at)?;
    Ok(bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect())
}

/// The bytes of the counted string at `at`.
pub(super) fn counted(p: &dyn Platform, at: Gva) -> Result<Vec<u8>, PlatformError> {
    let length = p.read_u16(at)?;
    let buffer = Gva(p.read_u64(field(at, BUFFER)?)?);
    let mut bytes = vec![0; usize::from(length)];
    p.read(buffer, &mut bytes)?;
    Ok(bytes)
}

/// The units before the terminating zero, `limit` at most; each is `width`
/// bytes, 1 or 2. Reads no page that the text does not reach.
pub(super) fn terminated(
    p: &dyn Platform,
    at: Gva,
    width: usize,
    limit: usize,
) -> Result<Vec<u16>, PlatformError> {
    let mut text = Vec::new();
    let mut at = at;
    while text.len() < limit {
        let page_left = (PAGE_SIZE - at.offset()) as usize;
        // A unit may straddle two pages: then it is read alone.
        let bytes = (page_left - page_left % width).max(width);
        let mut chunk = vec![0; bytes.min((limit - text.len()) * width)];
        p.read(at, &mut chunk)?;
        for unit in chunk.chunks_exact(width) {
            let unit = unit
                .iter()
                .rev()
                .fold(0u16, |value, &byte| value << 8 | u16::from(byte));
            if unit == 0 {
                return Ok(text);
            }
            text.push(unit);
        }
        at = field(at, chunk.len() as u64)?;
    }
    Ok(text)
}

/// Write the three fields.
fn write_string(
    p: &mut dyn Platform,
    at: Gva,
    length: u16,
    maximum: u16,
    buffer: Gva,
) -> Result<(), PlatformError> {
    p.write(at, &length.to_le_bytes())?;
    p.write(field(at, 2)?, &maximum.to_le_bytes())?;
    p.write_u64(field(at, BUFFER)?, buffer.0)
}

/// VOID RtlInitUnicodeString(PUNICODE_STRING, PCWSTR).
pub(super) fn init_unicode(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    init(p, call, 2)
}

/// VOID RtlInitAnsiString(PANSI_STRING, PCSZ).
pub(super) fn init_ansi(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    init(p, call, 1)
}

fn init(p: &mut dyn Platform, call: &Call, width: u16) -> Answer {
    let (string, source) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    if source.0 == 0 {
        write_string(p, string, 0, 0, Gva(0))?;
        return Ok(Outcome::Return(0));
    }
    // A longer text is cut at what the fields can say.
    let limit = (u16::MAX / width - 1) as usize;
    let count = terminated(p, source, usize::from(width), limit)?.len() as u16;
    let length = count * width;
    write_string(p, string, length, length + width, source)?;
    Ok(Outcome::Return(0))
}

/// NTSTATUS RtlAnsiStringToUnicodeString(PUNICODE_STRING, PCANSI_STRING,
/// BOOLEAN Allocate). Bytes are taken as Latin-1. Windows allocates from
/// paged pool; here it is the executive's own region, so the pool's checks
/// do not see it.
pub(super) fn ansi_to_unicode(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (target, source) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let allocate = narrow(call.argument(p, 2)?) != 0;
    let text = counted(p, source)?;
    let bytes: Vec<u8> = text.iter().flat_map(|&byte| [byte, 0]).collect();
    let Ok(length) = u16::try_from(bytes.len()) else {
        return Ok(Outcome::Return(u64::from(INVALID_PARAMETER)));
    };
    let (buffer, maximum) = if allocate {
        let Some(maximum) = length.checked_add(2) else {
            return Ok(Outcome::Return(u64::from(INVALID_PARAMETER)));
        };
        let Some(buffer) = state.arena.take(u64::from(maximum)) else {
            return Ok(Outcome::Return(u64::from(NO_MEMORY)));
        };
        state.strings.insert(buffer);
        (buffer, maximum)
    } else {
        let maximum = p.read_u16(field(target, 2)?)?;
        (Gva(p.read_u64(field(target, BUFFER)?)?), maximum)
    };
    if length > maximum {
        return Ok(Outcome::Return(u64::from(BUFFER_OVERFLOW)));
    }
    p.write(buffer, &bytes)?;
    if maximum - length >= 2 {
        p.write(field(buffer, u64::from(length))?, &[0, 0])?;
    }
    write_string(p, target, length, maximum, buffer)?;
    success()
}

impl State {
    /// The driver was unloaded: tell of each string that it left.
    pub fn report_strings_left(&self, p: &dyn Platform) {
        for &address in &self.strings {
            let subject = Subject {
                allocation: None,
                address: address.0,
            };
            let what = format!("the string that was allocated at {address} was not freed");
            // None of the driver's code is running.
            rule::STRING_LEFT.report_from(p, StackId::default(), subject, None, what);
        }
    }
}

/// VOID RtlFreeUnicodeString(PUNICODE_STRING): only strings that an Rtl
/// routine allocated.
pub(super) fn free_unicode(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let string = pointer(call, p, 0)?;
    let buffer = Gva(p.read_u64(field(string, BUFFER)?)?);
    if state.strings.remove(&buffer) {
        state.arena.give_back(buffer);
    } else if buffer.0 != 0 {
        log::warn!("RtlFreeUnicodeString: no Rtl routine allocated {buffer}; it is kept");
    }
    write_string(p, string, 0, 0, Gva(0))?;
    Ok(Outcome::Return(0))
}

/// NTSTATUS RtlIntegerToUnicodeString(ULONG Value, ULONG Base,
/// PUNICODE_STRING).
pub(super) fn integer_to_unicode(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let value = call.argument(p, 0)? as u32;
    let base = call.argument(p, 1)? as u32;
    let string = pointer(call, p, 2)?;
    let text = match base {
        0 | 10 => format!("{value}"),
        2 => format!("{value:b}"),
        8 => format!("{value:o}"),
        16 => format!("{value:X}"),
        _ => return Ok(Outcome::Return(u64::from(INVALID_PARAMETER))),
    };
    let maximum = p.read_u16(field(string, 2)?)?;
    let buffer = Gva(p.read_u64(field(string, BUFFER)?)?);
    let length = 2 * text.len() as u16;
    if length > maximum {
        return Ok(Outcome::Return(u64::from(BUFFER_OVERFLOW)));
    }
    let bytes: Vec<u8> = text.bytes().flat_map(|byte| [byte, 0]).collect();
    p.write(buffer, &bytes)?;
    if maximum - length >= 2 {
        p.write(field(buffer, u64::from(length))?, &[0, 0])?;
    }
    p.write(string, &length.to_le_bytes())?;
    success()
}

/// VOID RtlCopyUnicodeString(Destination, Source): as much as there is room
/// for.
pub(super) fn copy_unicode(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (target, source) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    if source.0 == 0 {
        p.write(target, &[0, 0])?;
        return Ok(Outcome::Return(0));
    }
    let mut bytes = counted(p, source)?;
    let maximum = p.read_u16(field(target, 2)?)?;
    let buffer = Gva(p.read_u64(field(target, BUFFER)?)?);
    bytes.truncate(usize::from(maximum & !1));
    p.write(buffer, &bytes)?;
    let length = bytes.len() as u16;
    if maximum - length >= 2 {
        p.write(field(buffer, u64::from(length))?, &[0, 0])?;
    }
    p.write(target, &length.to_le_bytes())?;
    Ok(Outcome::Return(0))
}

/// NTSTATUS RtlAppendUnicodeToString(PUNICODE_STRING, PCWSTR).
pub(super) fn append_unicode(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (target, source) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    if source.0 == 0 {
        return success();
    }
    let added = terminated(p, source, 2, usize::from(u16::MAX / 2))?;
    let length = p.read_u16(target)?;
    let maximum = p.read_u16(field(target, 2)?)?;
    let total = usize::from(length) + 2 * added.len();
    if total > usize::from(maximum) {
        return Ok(Outcome::Return(u64::from(BUFFER_TOO_SMALL)));
    }
    let mut bytes: Vec<u8> = added.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    if usize::from(maximum) - total >= 2 {
        bytes.extend_from_slice(&[0, 0]);
    }
    let buffer = Gva(p.read_u64(field(target, BUFFER)?)?);
    p.write(field(buffer, u64::from(length))?, &bytes)?;
    p.write(target, &(total as u16).to_le_bytes())?;
    Ok(Outcome::Return(u64::from(SUCCESS)))
}

/// BOOLEAN RtlEqualUnicodeString(a, b, BOOLEAN IgnoreCase).
pub(super) fn equal_unicode(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let left = read_unicode_string(p, pointer(call, p, 0)?)?;
    let right = read_unicode_string(p, pointer(call, p, 1)?)?;
    let equal = if narrow(call.argument(p, 2)?) != 0 {
        left.to_lowercase() == right.to_lowercase()
    } else {
        left == right
    };
    Ok(Outcome::Return(u64::from(equal)))
}

/// The name that a UNICODE_STRING gives an object, or the status that refuses
/// it: an odd length is no name.
pub(super) fn object_name(p: &dyn Platform, at: Gva) -> Result<Result<String, u32>, PlatformError> {
    if at.0 == 0 {
        return Ok(Ok(String::new()));
    }
    if !p.read_u16(at)?.is_multiple_of(2) {
        return Ok(Err(OBJECT_NAME_INVALID));
    }
    Ok(Ok(read_unicode_string(p, at)?))
}
