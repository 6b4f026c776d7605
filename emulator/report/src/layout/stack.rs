//! Stacks.

use super::{Line, Page, Tone};
use crate::model::Frame;
use std::collections::BTreeSet;

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

/// The same in short: the function alone, if it is known.
pub(crate) fn name(frame: &Frame) -> String {
    frame.function.clone().unwrap_or_else(|| symbol(frame))
}

/// Where a line of a stack is: `file:line`.
pub(crate) fn source(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref()?;
    Some(match frame.line {
        Some(line) => format!("{file}:{line}"),
        None => file.to_owned(),
    })
}

/// Lines of a stack in a picture.
const MAX_SKETCHED: usize = 4;

/// Is it of the language's own library, inlined into the driver's code? Such
/// lines say how something is done, not who does it: only the JSON has them.
fn is_library(frame: &Frame) -> bool {
    let of = |function: &str| {
        ["core::", "alloc::", "std::"]
            .iter()
            .any(|library| function.starts_with(library))
    };
    frame.inlined && frame.function.as_deref().is_some_and(of)
}

/// The lines of a stack that a person reads.
pub(crate) fn shown(frames: &[Frame]) -> impl Iterator<Item = &Frame> {
    frames.iter().filter(|frame| !is_library(frame))
}

/// A stack, a line for each function; a second where the source file does not
/// fit.
pub(crate) fn draw(page: &mut Page, frames: &[Frame], none: &str) {
    if frames.is_empty() {
        page.push(Line::new().with(Tone::Faint, format!("    ({none})")));
        return;
    }
    for (number, frame) in shown(frames).enumerate() {
        let place = format!("    #{number:<2} ");
        let indent = place.len();
        let name = symbol(frame);
        let tone = tone(frame);
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

/// The first lines of a stack, each a function and its place in columns.
pub(crate) fn sketch(page: &mut Page, frames: &[Frame], none: &str) {
    if frames.is_empty() {
        return draw(page, frames, none);
    }
    let first: Vec<(String, &Frame)> = shown(frames)
        .take(MAX_SKETCHED)
        .map(|frame| (name(frame), frame))
        .collect();
    let column = first.iter().map(|(name, _)| name.chars().count()).max();
    let column = column.unwrap_or(0).min(page.width / 2);
    for (number, (name, frame)) in first.iter().enumerate() {
        page.push(
            Line::new()
                .with(Tone::Faint, format!("    #{number} "))
                .with(tone(frame), format!("{name:column$}"))
                .with(
                    Tone::Plain,
                    format!("  {}", source(frame).unwrap_or_default()),
                ),
        );
    }
}

fn tone(frame: &Frame) -> Tone {
    if frame.function.is_some() {
        Tone::Name
    } else {
        Tone::Plain
    }
}

/// Lines above the innermost that a place is looked for in.
const MAX_CLIMBED: usize = 4;

/// The place of the first stack that has names, to follow a finding's id:
/// ` file:line in function`; else the first place there is. Where the
/// innermost function is of a file that many call into (`layers`), it is the
/// nearest above it that is of none, or at least of another, and both are
/// named: ` file:line in outer > inner`.
pub(crate) fn telling(stacks: &[&[Frame]], layers: &BTreeSet<String>) -> Option<String> {
    let named = |stack: &&[Frame]| {
        let named = shown(stack).filter(|frame| frame.function.is_some());
        let frames: Vec<Frame> = named.take(1 + MAX_CLIMBED).cloned().collect();
        (!frames.is_empty()).then_some(frames)
    };
    let frames = stacks.iter().find_map(named).or_else(|| {
        let first = stacks.iter().find_map(|stack| stack.first().cloned())?;
        Some(vec![first])
    })?;
    let (inner, above) = frames.split_first()?;
    let is_layer = |frame: &Frame| frame.file.as_ref().is_some_and(|of| layers.contains(of));
    let outer = above
        .iter()
        .find(|frame| !is_layer(frame))
        .or_else(|| above.iter().find(|frame| frame.file != inner.file))
        .filter(|_| is_layer(inner));
    let place = source(outer.unwrap_or(inner)).map(|source| format!(" {source}"));
    let function = match outer {
        Some(outer) => format!("{} > {}", name(outer), short(&name(inner))),
        None => name(inner),
    };
    Some(format!("{} in {function}", place.unwrap_or_default()))
}

/// A function's name without its modules: its type stays.
fn short(function: &str) -> String {
    // Not within the arguments of a generic.
    let plain = function.split('<').next().unwrap_or_default();
    let mut parts = plain.rmatch_indices("::").skip(1);
    let from = parts.next().map_or(0, |(at, _)| at + 2);
    function.get(from..).unwrap_or(function).to_owned()
}
