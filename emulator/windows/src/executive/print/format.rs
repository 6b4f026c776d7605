//! printf, as the kernel's has it, over the driver's memory.
//!
//! Texts are 16-bit units throughout; a narrow text has units below 256.

use crate::executive::strings;
use crate::executive::{field, narrow};
use crate::{Call, Platform, PlatformError};
use memory::Gva;

/// The variable arguments of a call: one 8-byte slot each on x64.
pub(super) enum Arguments<'a> {
    /// Those of the call itself, from a position.
    Call(&'a Call, usize),
    /// A va_list.
    List(Gva),
}

impl Arguments<'_> {
    fn next(&mut self, p: &dyn Platform) -> Result<u64, PlatformError> {
        match self {
            Self::Call(call, index) => {
                let value = call.argument(p, *index)?;
                *index += 1;
                Ok(value)
            }
            Self::List(at) => {
                let value = p.read_u64(*at)?;
                *at = field(*at, 8)?;
                Ok(value)
            }
        }
    }
}

/// One conversion: `%[flags][width][.precision][size]letter`.
#[derive(Default)]
struct Conversion {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    size: Size,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Size {
    #[default]
    Plain,
    /// `hh`.
    Byte,
    /// `h`: 16 bits, or a narrow text.
    Short,
    /// `l` or `w`: 32 bits (long is 32 on Windows), or a wide text.
    Long,
    /// `ll`, `I64`, `I`, `z`, `t`, `j`.
    Quad,
}

/// The text that `format` and its arguments make, cut at `limit` units. With
/// `wide`, plain `%s` and `%c` are wide, as in `_vsnwprintf`.
pub(super) fn format(
    p: &dyn Platform,
    format: &[u16],
    wide: bool,
    arguments: &mut Arguments<'_>,
    limit: usize,
) -> Result<Vec<u16>, PlatformError> {
    let mut text = Vec::new();
    let mut rest = format.iter().copied().peekable();
    while text.len() < limit {
        let Some(unit) = rest.next() else {
            break;
        };
        if unit != u16::from(b'%') {
            text.push(unit);
            continue;
        }
        let Some((conversion, letter)) = parse(p, &mut rest, arguments, limit)? else {
            break; // a lone % at the end
        };
        let left = limit - text.len();
        let made = convert(p, &conversion, letter, wide, arguments, left)?;
        text.extend_from_slice(&made);
    }
    text.truncate(limit);
    Ok(text)
}

type Units<'a> = std::iter::Peekable<std::iter::Copied<std::slice::Iter<'a, u16>>>;

/// The next unit, if it is ASCII.
fn peek(rest: &mut Units<'_>) -> Option<u8> {
    rest.peek().and_then(|&unit| u8::try_from(unit).ok())
}

fn parse(
    p: &dyn Platform,
    rest: &mut Units<'_>,
    arguments: &mut Arguments<'_>,
    limit: usize,
) -> Result<Option<(Conversion, u8)>, PlatformError> {
    let mut c = Conversion::default();
    while let Some(flag) = peek(rest) {
        match flag {
            b'-' => c.left = true,
            b'+' => c.plus = true,
            b' ' => c.space = true,
            b'0' => c.zero = true,
            b'#' => c.alternate = true,
            _ => break,
        }
        rest.next();
    }
    if let Some(width) = number(p, rest, arguments)? {
        c.left |= width < 0;
        c.width = (width.unsigned_abs() as usize).min(limit);
    }
    if peek(rest) == Some(b'.') {
        rest.next();
        let precision = number(p, rest, arguments)?.unwrap_or(0);
        c.precision = usize::try_from(precision).ok().map(|n| n.min(limit));
    }
    c.size = size(rest);
    let letter = rest.next();
    // What is not ASCII is no conversion: it prints as a question mark.
    Ok(letter.map(|unit| (c, u8::try_from(unit).unwrap_or(b'?'))))
}

/// A number, or `*` for the next argument.
fn number(
    p: &dyn Platform,
    rest: &mut Units<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Option<i32>, PlatformError> {
    if peek(rest) == Some(b'*') {
        rest.next();
        return Ok(Some((arguments.next(p)? as u32).cast_signed()));
    }
    let mut value = None;
    while let Some(digit @ b'0'..=b'9') = peek(rest) {
        rest.next();
        let so_far: i32 = value.unwrap_or(0);
        value = Some(
            so_far
                .saturating_mul(10)
                .saturating_add(i32::from(digit - b'0')),
        );
    }
    Ok(value)
}

fn size(rest: &mut Units<'_>) -> Size {
    let mut size = Size::Plain;
    while let Some(letter) = peek(rest) {
        size = match (letter, size) {
            (b'h', Size::Short) => Size::Byte,
            (b'h', _) => Size::Short,
            (b'l', Size::Long) => Size::Quad,
            (b'l' | b'w', _) => Size::Long,
            (b'z' | b't' | b'j', _) => Size::Quad,
            (b'I', _) => {
                rest.next();
                // I64, I32, or I for the size of a pointer.
                size = match peek(rest) {
                    Some(b'6') => Size::Quad,
                    Some(b'3') => Size::Long,
                    _ => return Size::Quad,
                };
                rest.next();
                size
            }
            _ => return size,
        };
        rest.next();
    }
    size
}

fn convert(
    p: &dyn Platform,
    c: &Conversion,
    letter: u8,
    wide: bool,
    arguments: &mut Arguments<'_>,
    limit: usize,
) -> Result<Vec<u16>, PlatformError> {
    let is_wide = |by_default: bool| match c.size {
        Size::Short => false,
        Size::Long => true,
        _ => by_default,
    };
    let made = match letter {
        b'%' => return Ok(vec![u16::from(b'%')]),
        b'd' | b'i' => {
            let value = signed(arguments.next(p)?, c.size);
            let sign = match value {
                ..0 => "-",
                _ if c.plus => "+",
                _ if c.space => " ",
                _ => "",
            };
            integer(c, sign, &value.unsigned_abs().to_string())
        }
        b'u' => integer(c, "", &unsigned(arguments.next(p)?, c.size).to_string()),
        b'x' | b'X' | b'o' => {
            let value = unsigned(arguments.next(p)?, c.size);
            let (prefix, digits) = match letter {
                b'x' => ("0x", format!("{value:x}")),
                b'X' => ("0X", format!("{value:X}")),
                _ => ("0", format!("{value:o}")),
            };
            let prefix = if c.alternate && value != 0 {
                prefix
            } else {
                ""
            };
            integer(c, prefix, &digits)
        }
        b'p' => units(&format!("{:016X}", arguments.next(p)?)),
        b'c' => character(arguments.next(p)?, is_wide(wide)),
        b'C' => character(arguments.next(p)?, is_wide(!wide)),
        b's' => text(p, Gva(arguments.next(p)?), is_wide(wide), c, limit)?,
        b'S' => text(p, Gva(arguments.next(p)?), is_wide(!wide), c, limit)?,
        b'Z' => counted(p, Gva(arguments.next(p)?), is_wide(false), c, limit)?,
        b'f' | b'F' | b'e' | b'E' | b'g' | b'G' => {
            let value = f64::from_bits(arguments.next(p)?);
            // More digits than a double has say nothing, and the formatter
            // refuses more than 65,535.
            units(&format!("{value:.*}", c.precision.unwrap_or(6).min(512)))
        }
        // Never written through: it only takes its argument.
        b'n' => {
            arguments.next(p)?;
            Vec::new()
        }
        // An unknown letter prints itself, as the C library does.
        other => vec![u16::from(other)],
    };
    Ok(pad(made, c.width, c.left))
}

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn pad(text: Vec<u16>, width: usize, left: bool) -> Vec<u16> {
    let blanks = std::iter::repeat_n(u16::from(b' '), width.saturating_sub(text.len()));
    if left {
        text.into_iter().chain(blanks).collect()
    } else {
        blanks.chain(text).collect()
    }
}

/// Sign or prefix, zeros up to the precision or (with `0`) the width, digits.
fn integer(c: &Conversion, prefix: &str, digits: &str) -> Vec<u16> {
    let digits = match (c.precision, digits) {
        (Some(0), "0") => "",
        _ => digits,
    };
    let wanted = match c.precision {
        Some(precision) => precision,
        None if c.zero && !c.left => c.width.saturating_sub(prefix.len()),
        None => 0,
    };
    let zeros = wanted.saturating_sub(digits.len());
    let mut text = units(prefix);
    text.extend(std::iter::repeat_n(u16::from(b'0'), zeros));
    text.extend(digits.encode_utf16());
    text
}

fn signed(value: u64, size: Size) -> i64 {
    match size {
        Size::Byte => i64::from(narrow(value).cast_signed()),
        Size::Short => i64::from((value as u16).cast_signed()),
        Size::Plain | Size::Long => i64::from((value as u32).cast_signed()),
        Size::Quad => value.cast_signed(),
    }
}

fn unsigned(value: u64, size: Size) -> u64 {
    match size {
        Size::Byte => u64::from(narrow(value)),
        Size::Short => u64::from(value as u16),
        Size::Plain | Size::Long => u64::from(value as u32),
        Size::Quad => value,
    }
}

fn character(value: u64, wide: bool) -> Vec<u16> {
    vec![if wide {
        value as u16
    } else {
        u16::from(narrow(value))
    }]
}

/// A terminated text; no more is read than is printed.
fn text(
    p: &dyn Platform,
    at: Gva,
    wide: bool,
    c: &Conversion,
    limit: usize,
) -> Result<Vec<u16>, PlatformError> {
    if at.0 == 0 {
        return Ok(units("(null)"));
    }
    let limit = c.precision.unwrap_or(limit).min(limit);
    strings::terminated(p, at, if wide { 2 } else { 1 }, limit)
}

/// A UNICODE_STRING or ANSI_STRING.
fn counted(
    p: &dyn Platform,
    at: Gva,
    wide: bool,
    c: &Conversion,
    limit: usize,
) -> Result<Vec<u16>, PlatformError> {
    if at.0 == 0 || p.read_u64(field(at, 8)?)? == 0 {
        return Ok(units("(null)"));
    }
    let mut text = if wide {
        strings::units(p, at)?
    } else {
        strings::counted(p, at)?
            .into_iter()
            .map(u16::from)
            .collect()
    };
    text.truncate(c.precision.unwrap_or(limit).min(limit));
    Ok(text)
}
