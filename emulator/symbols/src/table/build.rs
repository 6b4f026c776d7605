//! Making the index of what a PDB says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::index::{Function, Index, Inlined, Line, Owner, Text, at_or_before};
use crate::names;

#[derive(Clone, Copy, Debug)]
struct Public {
    start: u32,
    /// True if the linker name is a mangled Rust name.
    rust: bool,
    name: Text,
}

/// Collects what a PDB says, in any order, and makes an [`Index`] of it.
#[derive(Debug, Default)]
pub(super) struct Builder {
    texts: BTreeMap<Box<str>, Text>,
    owners: u32,
    functions: Vec<Function>,
    lines: Vec<Line>,
    /// The callee is an identifier, a name only once all of them are read.
    inlined: Vec<(Inlined, u32)>,
    /// Names that the linker exports to other objects, without sizes.
    publics: Vec<Public>,
    /// Start and end of code that was moved away from its function, and the
    /// function's start.
    separated: Vec<(Range<u32>, u32)>,
    /// RVA ranges that hold code, from the section headers.
    code: Vec<Range<u32>>,
}

impl Builder {
    pub(super) fn text(&mut self, text: &str) -> Text {
        if let Some(&known) = self.texts.get(text) {
            return known;
        }
        // More strings than this do not fit in a file that is accepted.
        let new = Text(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        self.texts.insert(text.into(), new);
        new
    }

    pub(super) fn code(&mut self, range: Range<u32>) {
        self.code.push(range);
    }

    /// A function of known size. What is inlined into it is added with the
    /// owner that this returns.
    pub(super) fn function(&mut self, start: u32, len: u32, name: Text) -> Owner {
        let owner = Owner(self.owners);
        self.owners = self.owners.saturating_add(1);
        self.functions.push(Function {
            start,
            end: start.saturating_add(len),
            name,
            owner,
        });
        owner
    }

    pub(super) fn separated(&mut self, start: u32, len: u32, function: u32) {
        self.separated
            .push((start..start.saturating_add(len), function));
    }

    /// A function of unknown size, by its linker name.
    pub(super) fn public(&mut self, start: u32, linker_name: &str) {
        let name = self.text(&names::demangle(linker_name));
        let rust = names::is_rust_mangled(linker_name);
        self.publics.push(Public { start, rust, name });
    }

    pub(super) fn line(&mut self, line: Line) {
        if line.start < line.end {
            self.lines.push(line);
        }
    }

    /// A line of the call of `callee`, an identifier that [`Self::build`] names.
    pub(super) fn inlined(&mut self, owner: Owner, depth: u16, callee: u32, line: Line) {
        if line.start < line.end {
            self.inlined.push((
                Inlined {
                    owner,
                    depth,
                    callee: Text::NONE,
                    line,
                },
                callee,
            ));
        }
    }

    /// The identifiers that [`Self::build`] needs the names of.
    pub(super) fn callees(&self) -> BTreeSet<u32> {
        self.inlined.iter().map(|&(_, callee)| callee).collect()
    }

    /// The index. `callees` has the names of inlined functions by identifier.
    pub(super) fn build(mut self, callees: &BTreeMap<u32, Text>) -> Index {
        let mut strings = vec![Box::<str>::default(); self.texts.len()];
        for (string, text) in std::mem::take(&mut self.texts) {
            if let Some(place) = usize::try_from(text.0)
                .ok()
                .and_then(|at| strings.get_mut(at))
            {
                *place = string;
            }
        }
        let string = |text: Text| {
            usize::try_from(text.0)
                .ok()
                .and_then(|at| strings.get(at))
                .map_or("", AsRef::as_ref)
        };

        self.publics
            .sort_by_key(|public| (public.start, !public.rust));
        self.publics
            .dedup_by_key(|public| (public.start, public.name));
        let mut functions = self.sized_functions();
        for function in &mut functions {
            if names::is_made_up(string(function.name))
                && let Some(name) = self.only_rust_name(function.start)
            {
                function.name = name;
            }
        }

        let mut by_name: Vec<(Text, u32)> = functions
            .iter()
            .map(|function| (function.name, function.start))
            .chain(
                self.publics
                    .iter()
                    .map(|public| (public.name, public.start)),
            )
            .collect();
        by_name.sort_by(|a, b| string(a.0).cmp(string(b.0)).then(a.1.cmp(&b.1)));
        by_name.dedup_by_key(|&mut (text, _)| text);

        self.add_separated(&mut functions);
        self.add_publics(&mut functions);

        let owners: BTreeSet<Owner> = functions.iter().map(|function| function.owner).collect();
        let mut inlined: Vec<Inlined> = std::mem::take(&mut self.inlined)
            .into_iter()
            .filter(|(inlined, _)| owners.contains(&inlined.owner))
            .map(|(inlined, callee)| Inlined {
                callee: callees.get(&callee).copied().unwrap_or(Text::NONE),
                ..inlined
            })
            .collect();
        inlined.sort_by_key(|inlined| (inlined.owner, inlined.depth, inlined.line.start));

        let mut lines = self.lines;
        // Of functions that were folded into one, the first keeps its lines.
        lines.sort_by_key(|line| line.start);
        lines.dedup_by_key(|line| line.start);
        Index {
            strings,
            functions,
            lines,
            inlined,
            by_name,
        }
    }

    /// The Rust name that the linker gives the code at `start`. None if there
    /// are several, of functions that were folded into one: any may be wrong.
    fn only_rust_name(&self, start: u32) -> Option<Text> {
        // Sorted by start, Rust names first.
        let first = self.publics.partition_point(|public| public.start < start);
        let is_one = |public: &&Public| public.start == start && public.rust;
        let public = self.publics.get(first).filter(is_one)?;
        let next = first.checked_add(1).and_then(|next| self.publics.get(next));
        next.filter(is_one).is_none().then_some(public.name)
    }

    /// The functions whose size is known, one for each address.
    fn sized_functions(&mut self) -> Vec<Function> {
        let mut functions = std::mem::take(&mut self.functions);
        functions.retain(|function| function.start < function.end);
        functions.sort_by_key(|function| function.start);
        functions.dedup_by_key(|function| function.start);
        functions
    }

    /// Adds code that was moved away from its function, under the same name.
    fn add_separated(&mut self, functions: &mut Vec<Function>) {
        for (range, function) in std::mem::take(&mut self.separated) {
            let parent = at_or_before(functions, function, |f| f.start);
            if let Some(name) = parent.filter(|f| f.start == function).map(|f| f.name) {
                let owner = Owner(self.owners);
                self.owners = self.owners.saturating_add(1);
                self.functions.push(Function {
                    start: range.start,
                    end: range.end,
                    name,
                    owner,
                });
            }
        }
        functions.append(&mut self.functions);
        functions.retain(|function| function.start < function.end);
        functions.sort_by_key(|function| function.start);
        functions.dedup_by_key(|function| function.start);
    }

    /// Adds public names of code that no function covers. Each ends where the
    /// next function or its section does.
    fn add_publics(&mut self, functions: &mut Vec<Function>) {
        let covered = |start: u32| {
            at_or_before(functions, start, |function| function.start)
                .is_some_and(|function| start < function.end)
        };
        let mut new: Vec<Function> = Vec::new();
        for public in &self.publics {
            let section = self
                .code
                .iter()
                .find(|section| section.contains(&public.start));
            if let Some(section) = section
                && !covered(public.start)
                && new.last().is_none_or(|last| last.start < public.start)
            {
                let owner = Owner(self.owners);
                self.owners = self.owners.saturating_add(1);
                let (start, end) = (public.start, section.end);
                new.push(Function {
                    start,
                    end,
                    name: public.name,
                    owner,
                });
            }
        }
        let starts: BTreeSet<u32> = functions
            .iter()
            .chain(&new)
            .map(|function| function.start)
            .collect();
        for function in &mut new {
            let next = starts.range(function.start.saturating_add(1)..).next();
            function.end = next.map_or(function.end, |&next| function.end.min(next));
        }
        functions.append(&mut new);
        functions.sort_by_key(|function| function.start);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn line(builder: &mut Builder, range: Range<u32>, line: u32) -> Line {
        let file = builder.text("a.rs");
        Line {
            start: range.start,
            end: range.end,
            file,
            line,
        }
    }

    fn function(builder: &mut Builder, start: u32, len: u32, name: &str) -> Owner {
        let name = builder.text(name);
        builder.function(start, len, name)
    }

    fn name_at(index: &Index, rva: u32) -> Option<String> {
        Some(index.text(index.find(rva)?.function.name)?.to_owned())
    }

    #[test]
    fn function_is_found_by_any_of_its_addresses() {
        let mut builder = Builder::default();
        function(&mut builder, 0x30, 0x10, "second");
        function(&mut builder, 0x10, 0x10, "first");
        function(&mut builder, 0x50, 0, "empty");
        let index = builder.build(&BTreeMap::new());

        let rows = [
            (0x0f, None),
            (0x10, Some("first")),
            (0x1f, Some("first")),
            (0x20, None),
            (0x30, Some("second")),
            (0x40, None),
            (0x50, None),
            (u32::MAX, None),
        ];
        for (rva, name) in rows {
            assert_eq!(name_at(&index, rva).as_deref(), name, "{rva:#x}");
        }
        assert_eq!(index.function_count(), 2);
    }

    #[test]
    fn folded_functions_keep_name_and_inlined_calls_of_first() {
        let mut builder = Builder::default();
        let first = function(&mut builder, 0x10, 0x10, "first");
        let second = function(&mut builder, 0x10, 0x10, "second");
        let row = line(&mut builder, 0x10..0x20, 1);
        builder.inlined(second, 0, 7, row);
        builder.inlined(first, 0, 8, row);
        let (seven, eight) = (builder.text("seven"), builder.text("eight"));
        let index = builder.build(&BTreeMap::from([(7, seven), (8, eight)]));

        let found = index.find(0x18).unwrap();

        assert_eq!(index.text(found.function.name), Some("first"));
        assert_eq!(found.inlined.len(), 1);
        assert_eq!(index.text(found.inlined[0].callee), Some("eight"));
    }

    #[test]
    fn line_is_that_of_last_row_at_or_before_the_address() {
        let mut builder = Builder::default();
        function(&mut builder, 0x10, 0x20, "f");
        function(&mut builder, 0x40, 0x10, "without_lines");
        for (range, number) in [
            (0x10..0x14, 1),
            (0x14..0x14, 2),
            (0x14..0x20, 3),
            (0x28..0x30, 4),
        ] {
            let row = line(&mut builder, range, number);
            builder.line(row);
        }
        // A row that overruns its function says nothing about the next.
        let row = line(&mut builder, 0x30..0x48, 5);
        builder.line(row);
        let index = builder.build(&BTreeMap::new());

        let number = |rva| index.find(rva).unwrap().line.map(|line| line.line);
        assert_eq!(number(0x10), Some(1));
        assert_eq!(number(0x13), Some(1));
        assert_eq!(number(0x14), Some(3));
        assert_eq!(number(0x20), None);
        assert_eq!(number(0x2f), Some(4));
        assert_eq!(number(0x44), None);
    }

    #[test]
    fn inlined_calls_nest_innermost_first() {
        let mut builder = Builder::default();
        let owner = function(&mut builder, 0x100, 0x40, "f");
        let other = function(&mut builder, 0x200, 0x40, "g");
        let rows = [
            (owner, 0, 1, 0x100..0x120, 10),
            (owner, 1, 2, 0x108..0x110, 20),
            (owner, 2, 3, 0x10c..0x110, 30),
            // The same callee twice in one caller.
            (owner, 1, 2, 0x118..0x11c, 21),
            (owner, 0, 4, 0x130..0x140, 40),
            (other, 0, 1, 0x208..0x210, 11),
        ];
        for (owner, depth, callee, range, number) in rows {
            let row = line(&mut builder, range, number);
            builder.inlined(owner, depth, callee, row);
        }
        let index = builder.build(&BTreeMap::new());

        let numbers = |rva| -> Vec<u32> {
            index
                .find(rva)
                .unwrap()
                .inlined
                .iter()
                .map(|inlined| inlined.line.line)
                .collect()
        };
        let rows: [(u32, &[u32]); 9] = [
            (0x100, &[10]),
            (0x108, &[20, 10]),
            (0x10f, &[30, 20, 10]),
            (0x110, &[10]),
            (0x118, &[21, 10]),
            (0x120, &[]),
            (0x130, &[40]),
            (0x200, &[]),
            (0x20f, &[11]),
        ];
        for (rva, lines) in rows {
            assert_eq!(numbers(rva), lines, "{rva:#x}");
        }
    }

    #[test]
    fn public_name_fills_the_gap_between_functions() {
        let mut builder = Builder::default();
        builder.code(0x10..0x100);
        function(&mut builder, 0x20, 0x10, "sized");
        function(&mut builder, 0x60, 0x10, "last");
        for (start, name) in [
            (0x20, "alias"),
            (0x28, "inside"),
            (0x30, "memcpy"),
            (0x30, "memmove"),
            (0x50, "_RNvCs1234_1a1b"),
            (0x70, "tail"),
            (0x200, "data"),
        ] {
            builder.public(start, name);
        }
        let index = builder.build(&BTreeMap::new());

        let rows = [
            (0x18, None),
            (0x20, Some("sized")),
            (0x28, Some("sized")),
            (0x30, Some("memcpy")),
            (0x4f, Some("memcpy")),
            (0x50, Some("a::b")),
            (0x60, Some("last")),
            (0xff, Some("tail")),
            (0x100, None),
            (0x200, None),
        ];
        for (rva, name) in rows {
            assert_eq!(name_at(&index, rva).as_deref(), name, "{rva:#x}");
        }
    }

    #[test]
    fn made_up_name_gives_way_to_linker_name() {
        let mut builder = Builder::default();
        function(&mut builder, 0x20, 0x10, "a::impl$0::drop");
        function(&mut builder, 0x40, 0x10, "a::impl$1::next");
        function(&mut builder, 0x60, 0x10, "a::plain");
        function(&mut builder, 0x80, 0x10, "a::closure$0");
        builder.public(0x20, "aaa");
        builder.public(
            0x20,
            "_ZN32_$LT$a..T$u20$as$u20$a..Drop$GT$4drop17h0123456789abcdefE",
        );
        builder.public(0x40, "next");
        builder.public(0x60, "_ZN1a5other17h0123456789abcdefE");
        builder.public(0x80, "_ZN1a5other17h0123456789abcdefE");
        builder.public(0x80, "_ZN1a6folded17h0123456789abcdefE");
        let index = builder.build(&BTreeMap::new());

        assert_eq!(
            name_at(&index, 0x20).as_deref(),
            Some("<a::T as a::Drop>::drop")
        );
        assert_eq!(name_at(&index, 0x40).as_deref(), Some("a::impl$1::next"));
        assert_eq!(name_at(&index, 0x60).as_deref(), Some("a::plain"));
        assert_eq!(name_at(&index, 0x80).as_deref(), Some("a::closure$0"));
    }

    #[test]
    fn separated_code_has_the_name_of_its_function() {
        let mut builder = Builder::default();
        function(&mut builder, 0x20, 0x10, "hot");
        builder.separated(0x80, 0x10, 0x20);
        builder.separated(0xa0, 0x10, 0x24);
        let index = builder.build(&BTreeMap::new());

        assert_eq!(name_at(&index, 0x88).as_deref(), Some("hot"));
        assert_eq!(name_at(&index, 0xa8), None);
        assert_eq!(index.address_of("hot"), Some(0x20));
    }

    #[test]
    fn address_is_found_by_either_name() {
        let mut builder = Builder::default();
        function(&mut builder, 0x20, 0x10, "driver::DriverEntry");
        function(&mut builder, 0x40, 0x10, "twice");
        function(&mut builder, 0x60, 0x10, "twice");
        builder.public(0x20, "DriverEntry");
        let index = builder.build(&BTreeMap::new());

        assert_eq!(index.address_of("driver::DriverEntry"), Some(0x20));
        assert_eq!(index.address_of("DriverEntry"), Some(0x20));
        assert_eq!(index.address_of("twice"), Some(0x40));
        assert_eq!(index.address_of("absent"), None);
        assert_eq!(index.address_of(""), None);
    }
}
