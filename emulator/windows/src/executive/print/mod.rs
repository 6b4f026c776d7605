//! What the driver prints, to the debugger or to a buffer.

mod format;

use super::{Answer, State, pointer, strings, success};
use crate::{Call, Outcome, Platform, PlatformError};
use format::Arguments;
use journal::event::Event;
use memory::Gva;

/// Longest text of one DbgPrint, bytes, as its page says.
const MAX_TEXT: usize = 512;
/// Longest format, characters.
const MAX_FORMAT: usize = 4096;
/// Longest text that is formatted into a buffer, characters.
const MAX_BUFFER: usize = 0x1_0000;

fn print(p: &dyn Platform, prefix: Gva, format_at: Gva, mut arguments: Arguments<'_>) -> Answer {
    let mut text = match prefix.0 {
        0 => Vec::new(),
        _ => strings::terminated(p, prefix, 1, MAX_TEXT)?,
    };
    let format = strings::terminated(p, format_at, 1, MAX_FORMAT)?;
    let limit = MAX_TEXT - text.len();
    text.extend(format::format(p, &format, false, &mut arguments, limit)?);
    let text = if text.iter().all(|&unit| unit < 0x100) {
        // Narrow throughout: most likely UTF-8.
        let bytes: Vec<u8> = text.iter().map(|&unit| unit as u8).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        String::from_utf16_lossy(&text)
    };
    p.scenario().journal().emit(Event::DebugPrint { text });
    success()
}

/// ULONG DbgPrint(PCSTR Format, ...).
pub(super) fn dbg_print(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let format = pointer(call, p, 0)?;
    print(p, Gva(0), format, Arguments::Call(call, 1))
}

/// ULONG DbgPrintEx(ULONG Component, ULONG Level, PCSTR Format, ...). No
/// filter: a person who runs a driver here wants to see what it says.
pub(super) fn dbg_print_ex(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let format = pointer(call, p, 2)?;
    print(p, Gva(0), format, Arguments::Call(call, 3))
}

/// ULONG vDbgPrintEx(ULONG, ULONG, PCCH Format, va_list).
pub(super) fn v_dbg_print_ex(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (format, list) = (pointer(call, p, 2)?, pointer(call, p, 3)?);
    print(p, Gva(0), format, Arguments::List(list))
}

/// ULONG vDbgPrintExWithPrefix(PCCH Prefix, ULONG, ULONG, PCCH, va_list).
pub(super) fn v_dbg_print_ex_with_prefix(
    _: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let prefix = pointer(call, p, 0)?;
    let (format, list) = (pointer(call, p, 3)?, pointer(call, p, 4)?);
    print(p, prefix, format, Arguments::List(list))
}

/// Format into `buffer` of `count` characters of `width` bytes. Returns the
/// characters written, or -1 if the text was cut; it is terminated only if
/// there is room (the C library's `_snprintf`).
fn to_buffer(
    p: &mut dyn Platform,
    call: &Call,
    width: usize,
    mut arguments: Arguments<'_>,
) -> Answer {
    let (buffer, format_at) = (pointer(call, p, 0)?, pointer(call, p, 2)?);
    let count = usize::try_from(call.argument(p, 1)?).unwrap_or(usize::MAX);
    let format = strings::terminated(p, format_at, width, MAX_FORMAT)?;
    let mut text = format::format(p, &format, width == 2, &mut arguments, MAX_BUFFER)?;
    let length = text.len();
    if length > count {
        text.truncate(count);
    } else if length < count {
        text.push(0);
    }
    write_units(p, buffer, &text, width)?;
    let result = if length > count {
        u64::from(u32::MAX) // -1
    } else {
        length as u64
    };
    Ok(Outcome::Return(result))
}

fn write_units(
    p: &mut dyn Platform,
    buffer: Gva,
    text: &[u16],
    width: usize,
) -> Result<(), PlatformError> {
    let bytes: Vec<u8> = if width == 2 {
        text.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    } else {
        text.iter()
            .map(|&unit| if unit < 0x100 { unit as u8 } else { b'?' })
            .collect()
    };
    p.write(buffer, &bytes)
}

/// int _snprintf(char *, size_t, const char *, ...).
pub(super) fn snprintf(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    to_buffer(p, call, 1, Arguments::Call(call, 3))
}

/// int _vsnprintf(char *, size_t, const char *, va_list).
pub(super) fn vsnprintf(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let list = pointer(call, p, 3)?;
    to_buffer(p, call, 1, Arguments::List(list))
}

/// int _snwprintf(wchar_t *, size_t, const wchar_t *, ...).
pub(super) fn snwprintf(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    to_buffer(p, call, 2, Arguments::Call(call, 3))
}

/// int _vsnwprintf(wchar_t *, size_t, const wchar_t *, va_list).
pub(super) fn vsnwprintf(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let list = pointer(call, p, 3)?;
    to_buffer(p, call, 2, Arguments::List(list))
}
