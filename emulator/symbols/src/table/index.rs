//! The index: sorted vectors, and the searches in them.

use std::ops::Range;

/// A string of the table. Names repeat a lot; each is kept once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text(pub(super) u32);

impl Text {
    /// No string: the file of code that has none.
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// The order in which procedures were added; joins inline sites to theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner(pub(super) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) name: Text,
    pub(super) owner: Owner,
}

/// Code that came from one line of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) file: Text,
    /// Zero if the compiler gave none.
    pub(super) line: u32,
}

/// Code that came from one line of an inlined call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inlined {
    pub(super) owner: Owner,
    /// 0 for a call inlined into the procedure, 1 for one inlined into that.
    pub(super) depth: u16,
    pub(super) callee: Text,
    pub(super) line: Line,
}

/// What is known of one address, innermost first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) function: Function,
    pub(super) line: Option<Line>,
    pub(super) inlined: Vec<Inlined>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    pub(super) strings: Vec<Box<str>>,
    /// Sorted by start, one for each start.
    pub(super) functions: Vec<Function>,
    /// Sorted by start.
    pub(super) lines: Vec<Line>,
    /// Sorted by owner, depth and start.
    pub(super) inlined: Vec<Inlined>,
    /// Names and RVAs, sorted by name.
    pub(super) by_name: Vec<(Text, u32)>,
}

impl Index {
    pub(super) fn text(&self, text: Text) -> Option<&str> {
        let index = usize::try_from(text.0).ok()?;
        self.strings.get(index).map(AsRef::as_ref)
    }

    pub(super) fn function_count(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn address_of(&self, name: &str) -> Option<u32> {
        let first = self
            .by_name
            .partition_point(|(text, _)| self.text(*text) < Some(name));
        let (text, rva) = *self.by_name.get(first)?;
        (self.text(text) == Some(name)).then_some(rva)
    }

    pub(super) fn find(&self, rva: u32) -> Option<Found> {
        let function = *at_or_before(&self.functions, rva, |function| function.start)?;
        if rva >= function.end {
            return None;
        }
        let line = at_or_before(&self.lines, rva, |line| line.start)
            // A line before the function belongs to another one.
            .filter(|line| rva < line.end && line.start >= function.start)
            .copied();
        let owned = sub_range(&self.inlined, |inlined| inlined.owner.cmp(&function.owner));
        let mut inlined = Vec::new();
        let mut rest = self.inlined.get(owned).unwrap_or(&[]);
        while let Some(first) = rest.first() {
            let (level, deeper) =
                rest.split_at(rest.partition_point(|inlined| inlined.depth == first.depth));
            inlined.extend(
                at_or_before(level, rva, |inlined| inlined.line.start)
                    .filter(|inlined| rva < inlined.line.end),
            );
            rest = deeper;
        }
        inlined.reverse();
        Some(Found {
            function,
            line,
            inlined,
        })
    }
}

/// The last of `sorted` that starts at or before `rva`.
pub(super) fn at_or_before<T>(sorted: &[T], rva: u32, start: impl Fn(&T) -> u32) -> Option<&T> {
    let after = sorted.partition_point(|item| start(item) <= rva);
    sorted.get(after.checked_sub(1)?)
}

fn sub_range<T>(sorted: &[T], compare: impl Fn(&T) -> std::cmp::Ordering) -> Range<usize> {
    let start = sorted.partition_point(|item| compare(item).is_lt());
    let end = sorted.partition_point(|item| compare(item).is_le());
    start..end
}
