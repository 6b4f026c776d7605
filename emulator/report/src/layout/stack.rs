//! Stacks.

use super::{Line, Page, Tone};
use crate::model::Frame;

/// What a line of a stack is called: `module!function+0x1c`.
pub(crate) fn symbol(frame: &Frame) -> String {
    let module = frame.module.as_deref().unwrap_or_default();
    let stem = module.rsplit_once('.').map_or(module, |(stem, _)| stem);
    match &frame.function {
        Some(function) if frame.inlined => format!("{stem}!{function}"),
        Some(function) => format!("{stem}!{function}+{:#x}", frame.offset),
        None if frame.module.is_some() => format!("{module}+{:#x}", frame.offset),
        None => format!("{:#x}", frame.address),
    }
}

/// Where a line of a stack is: `file:line`.
pub(crate) fn source(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref()?;
    Some(match frame.line {
        Some(line) => format!("{file}:{line}"),
        None => file.to_owned(),
    })
}

/// A stack, a line for each function; a second where the source file does not
/// fit.
pub(crate) fn draw(page: &mut Page, frames: &[Frame], none: &str) {
    if frames.is_empty() {
        page.push(Line::new().with(Tone::Faint, format!("    ({none})")));
        return;
    }
    for (number, frame) in frames.iter().enumerate() {
        let place = format!("    #{number:<2} ");
        let indent = place.len();
        let name = symbol(frame);
        let tone = if frame.function.is_some() {
            Tone::Name
        } else {
            Tone::Plain
        };
        let mut tail = source(frame).unwrap_or_default();
        if frame.inlined {
            tail.push_str(" [inlined]");
        }
        let line = Line::new().with(Tone::Faint, place);
        if indent + name.chars().count() + 2 + tail.chars().count() <= page.width {
            let mut line = line.with(tone, name);
            if !tail.is_empty() {
                line = line.with(Tone::Plain, format!("  {tail}"));
            }
            page.push(line);
        } else {
            page.wrapped(line, indent, tone, &name);
            if !tail.is_empty() {
                let margin = Line::plain(" ".repeat(indent + 2));
                page.wrapped(margin, indent + 2, Tone::Plain, &tail);
            }
        }
    }
}
