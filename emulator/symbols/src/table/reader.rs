//! Reading a PDB with pdb2.
//!
//! Defects of pdb2 0.11 that this file works around, all with damaged files:
//! - it panics: `LineProgram` splits and subtracts unchecked sizes, stream and
//!   symbol offsets are indexed unchecked. Hence `catch_unwind`; pdb2 is given
//!   no state that could be left half changed. The default panic hook still
//!   prints the panic.
//! - it allocates what a 32-bit count says before looking at the bytes, in
//!   `Symbol::parse` (S_CALLERS), `IdData` (LF_SUBSTR_LIST), `TypeData`
//!   (LF_ARGLIST) and `ItemInformation::finder`; a failed allocation cannot be
//!   caught. Hence only the record kinds of `spec` are parsed, and identifiers
//!   are found by walking them in order.
//! - its own `Source` allocates streams of any size: see `source`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pdb2::{
    AddressMap, FallibleIterator, FileIndex, IdData, IdIndex, InlineSiteSymbol, Inlinee, LineInfo,
    LineProgram, ModuleInfo, PDB, PdbInternalSectionOffset, StringTable, SymbolData, SymbolIter,
};

use super::build::Builder;
use super::index::{Index, Line, Owner, Text};
use super::source::BoundedSource;
use super::spec;
use crate::SymbolError;

/// Scopes open at once in a module: blocks and inlined calls within each other.
const MAX_SCOPES: usize = 4096;

type Pdb<'s> = PDB<'s, BoundedSource<'s>>;

/// What is read of a PDB.
pub(super) struct Contents {
    pub(super) index: Index,
    pub(super) guid: [u8; 16],
    pub(super) age: u32,
}

/// Reads a whole PDB.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, SymbolError> {
    // Unwind safety: the bytes are not changed and all else is dropped.
    catch_unwind(AssertUnwindSafe(|| read_unguarded(bytes))).unwrap_or_else(|_| {
        Err(SymbolError::Malformed {
            reason: "its records contradict each other".into(),
        })
    })
}

fn during(part: &'static str) -> impl Fn(pdb2::Error) -> SymbolError {
    move |error| SymbolError::Malformed {
        reason: format!("{part}: {error}"),
    }
}

fn read_unguarded(bytes: &[u8]) -> Result<Contents, SymbolError> {
    let mut pdb = PDB::open(BoundedSource::new(bytes)).map_err(during("its header"))?;
    let information = pdb
        .pdb_information()
        .map_err(during("its information stream"))?;
    let debug = pdb
        .debug_information()
        .map_err(during("its debug information stream"))?;
    let map = pdb.address_map().map_err(during("its section headers"))?;
    let mut builder = Builder::default();

    let sections = pdb.sections().map_err(during("its section headers"))?;
    for section in sections.ok_or(SymbolError::NoSections)? {
        if section.characteristics.executable() {
            let end = section.virtual_address.saturating_add(section.virtual_size);
            builder.code(section.virtual_address..end);
        }
    }

    read_publics(&mut pdb, &map, &mut builder).map_err(during("its public symbols"))?;
    // A PDB without private symbols may have no string table.
    let strings = pdb.string_table().ok();
    let in_module = during("the symbols of a module");
    let mut modules = debug.modules().map_err(during("its list of modules"))?;
    while let Some(module) = modules.next().map_err(during("its list of modules"))? {
        if let Some(module) = pdb.module_info(&module).map_err(&in_module)? {
            read_module(&module, strings.as_ref(), &map, &mut builder).map_err(&in_module)?;
        }
    }

    let callees = read_callees(&mut pdb, &mut builder).map_err(during("its identifiers"))?;
    Ok(Contents {
        index: builder.build(&callees),
        guid: information.guid.to_bytes_le(),
        // The image repeats this age; the one of the information stream grows
        // whenever a tool touches the PDB.
        age: debug.age().unwrap_or(information.age),
    })
}

/// The symbols of kinds that are wanted, parsed. Others are skipped unread.
fn next_symbol<'t>(symbols: &mut SymbolIter<'t>) -> pdb2::Result<Option<Event<'t>>> {
    while let Some(symbol) = symbols.next()? {
        if spec::SYMBOL_KINDS.contains(&symbol.raw_kind()) {
            return Ok(Some(Event::Data(symbol.parse()?, symbol.starts_scope())));
        }
        if symbol.starts_scope() {
            return Ok(Some(Event::Opens));
        }
        if symbol.ends_scope() {
            return Ok(Some(Event::Closes));
        }
    }
    Ok(None)
}

enum Event<'t> {
    /// A symbol, and whether it opens a scope.
    Data(SymbolData<'t>, bool),
    /// A scope of no interest.
    Opens,
    Closes,
}

fn read_publics(
    pdb: &mut Pdb<'_>,
    map: &AddressMap<'_>,
    builder: &mut Builder,
) -> pdb2::Result<()> {
    let globals = pdb.global_symbols()?;
    let mut symbols = globals.iter();
    while let Some(event) = next_symbol(&mut symbols)? {
        if let Event::Data(SymbolData::Public(public), _) = event
            && (public.function || public.code)
            && let Some(rva) = public.offset.to_rva(map)
        {
            builder.public(rva.0, &public.name.to_string());
        }
    }
    Ok(())
}

/// What the lines of one module need.
struct Lines<'a, 's> {
    program: LineProgram<'a>,
    strings: &'a StringTable<'s>,
    map: &'a AddressMap<'s>,
    files: BTreeMap<FileIndex, Text>,
}

impl Lines<'_, '_> {
    fn file(&mut self, index: FileIndex, builder: &mut Builder) -> Text {
        if let Some(&known) = self.files.get(&index) {
            return known;
        }
        // A file that cannot be named leaves the function's name still useful.
        let name = self
            .program
            .get_file_info(index)
            .and_then(|file| self.strings.get(file.name));
        let text = name.map_or(Text::NONE, |name| builder.text(&name.to_string()));
        self.files.insert(index, text);
        text
    }

    fn line(&mut self, line: &LineInfo, until: u32, builder: &mut Builder) -> Option<Line> {
        let start = line.offset.to_rva(self.map)?.0;
        let end = line
            .length
            .map_or(until, |length| start.saturating_add(length));
        let file = self.file(line.file_index, builder);
        Some(Line {
            start,
            end,
            file,
            line: line.line_start,
        })
    }
}

/// A scope that is open while the symbols of a module are walked.
#[derive(Clone, Copy)]
enum Scope {
    Procedure(Procedure),
    /// An inlined call, with its depth.
    Inlined(Procedure, u16),
    Other,
}

#[derive(Clone, Copy)]
struct Procedure {
    owner: Owner,
    offset: PdbInternalSectionOffset,
    end: u32,
}

fn read_module<'a, 's>(
    module: &'a ModuleInfo<'s>,
    strings: Option<&'a StringTable<'s>>,
    map: &'a AddressMap<'s>,
    builder: &mut Builder,
) -> pdb2::Result<()> {
    let mut lines = match (module.line_program(), strings) {
        (Ok(program), Some(strings)) => Some(Lines {
            program,
            strings,
            map,
            files: BTreeMap::new(),
        }),
        // Old compilers' line format: names without lines are better than nothing.
        (Err(pdb2::Error::UnimplementedFeature(_)), _) | (Ok(_), None) => None,
        (Err(error), _) => return Err(error),
    };
    let mut inlinees: BTreeMap<IdIndex, Inlinee<'_>> = BTreeMap::new();
    if lines.is_some() {
        let mut all = module.inlinees()?;
        while let Some(inlinee) = all.next()? {
            inlinees.insert(inlinee.index(), inlinee);
        }
    }

    let mut scopes: Vec<Scope> = Vec::new();
    let mut symbols = module.symbols()?;
    while let Some(event) = next_symbol(&mut symbols)? {
        let (data, opens) = match event {
            Event::Data(data, opens) => (Some(data), opens),
            Event::Opens => (None, true),
            Event::Closes => {
                scopes.pop();
                continue;
            }
        };
        let scope = match data {
            Some(SymbolData::Procedure(procedure)) => procedure
                .offset
                .to_rva(map)
                .map(|rva| {
                    let name = builder.text(&crate::demangle(&procedure.name.to_string()));
                    let owner = builder.function(rva.0, procedure.len, name);
                    let end = rva.0.saturating_add(procedure.len);
                    Scope::Procedure(Procedure {
                        owner,
                        offset: procedure.offset,
                        end,
                    })
                })
                .unwrap_or(Scope::Other),
            Some(SymbolData::Thunk(thunk)) => {
                if let Some(rva) = thunk.offset.to_rva(map) {
                    let name = builder.text(&crate::demangle(&thunk.name.to_string()));
                    builder.function(rva.0, thunk.len.into(), name);
                }
                Scope::Other
            }
            Some(SymbolData::SeparatedCode(code)) => {
                let parent = code.parent_offset.to_rva(map);
                if let (Some(rva), Some(parent)) = (code.offset.to_rva(map), parent) {
                    builder.separated(rva.0, code.len, parent.0);
                }
                Scope::Other
            }
            Some(SymbolData::InlineSite(site)) => {
                read_inline_site(&site, &scopes, &inlinees, lines.as_mut(), builder)?
            }
            _ => Scope::Other,
        };
        if opens {
            if scopes.len() >= MAX_SCOPES {
                return Err(pdb2::Error::UnimplementedFeature(
                    "more than 4096 nested scopes",
                ));
            }
            scopes.push(scope);
        }
    }

    if let Some(lines) = &mut lines {
        read_lines(lines, builder)?;
    }
    Ok(())
}

fn read_lines(lines: &mut Lines<'_, '_>, builder: &mut Builder) -> pdb2::Result<()> {
    let mut rows = Vec::new();
    let mut all = lines.program.lines();
    while let Some(row) = all.next()? {
        rows.push(row);
    }
    for row in rows {
        if let Some(line) = lines.line(&row, 0, builder) {
            builder.line(line);
        }
    }
    Ok(())
}

fn read_inline_site(
    site: &InlineSiteSymbol<'_>,
    scopes: &[Scope],
    inlinees: &BTreeMap<IdIndex, Inlinee<'_>>,
    lines: Option<&mut Lines<'_, '_>>,
    builder: &mut Builder,
) -> pdb2::Result<Scope> {
    // Blocks may lie between an inlined call and what it is inlined into.
    let parent = scopes.iter().rev().find_map(|scope| match *scope {
        Scope::Procedure(procedure) => Some((procedure, 0)),
        Scope::Inlined(procedure, depth) => Some((procedure, depth.saturating_add(1))),
        Scope::Other => None,
    });
    let Some((procedure, depth)) = parent else {
        return Ok(Scope::Other);
    };
    if let (Some(lines), Some(inlinee)) = (lines, inlinees.get(&site.inlinee)) {
        let mut rows = inlinee.lines(procedure.offset, site);
        while let Some(row) = rows.next()? {
            // The last row may have no length: it ends with the procedure.
            if let Some(line) = lines.line(&row, procedure.end, builder) {
                builder.inlined(procedure.owner, depth, site.inlinee.0, line);
            }
        }
    }
    Ok(Scope::Inlined(procedure, depth))
}

/// Where the first half of a function's name comes from.
enum Qualifier {
    /// A string, by its identifier.
    Namespace(u32),
    Type(u32),
    None,
}

/// The names of the inlined functions that `builder` refers to.
fn read_callees(pdb: &mut Pdb<'_>, builder: &mut Builder) -> pdb2::Result<BTreeMap<u32, Text>> {
    let wanted = builder.callees();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids = pdb.id_information()?;
    let mut functions: BTreeMap<u32, (Qualifier, String)> = BTreeMap::new();
    let mut items = ids.iter();
    while let Some(item) = items.next()? {
        let index = item.index().0;
        if !wanted.contains(&index)
            || ![spec::LF_FUNC_ID, spec::LF_MFUNC_ID].contains(&item.raw_kind())
        {
            continue;
        }
        let function = match item.parse()? {
            IdData::Function(id) => (
                id.scope
                    .map_or(Qualifier::None, |scope| Qualifier::Namespace(scope.0)),
                id.name.to_string().into_owned(),
            ),
            IdData::MemberFunction(id) => (
                Qualifier::Type(id.parent.0),
                id.name.to_string().into_owned(),
            ),
            _ => continue,
        };
        functions.insert(index, function);
    }

    let namespaces = functions
        .values()
        .filter_map(|(qualifier, _)| match qualifier {
            Qualifier::Namespace(id) => Some(*id),
            _ => None,
        });
    let namespaces: BTreeSet<u32> = namespaces.collect();
    let mut namespace_names: BTreeMap<u32, String> = BTreeMap::new();
    let mut items = ids.iter();
    while let Some(item) = items.next()? {
        if item.raw_kind() == spec::LF_STRING_ID
            && namespaces.contains(&item.index().0)
            && let IdData::String(string) = item.parse()?
        {
            namespace_names.insert(item.index().0, string.name.to_string().into_owned());
        }
    }
    let types = functions
        .values()
        .filter_map(|(qualifier, _)| match qualifier {
            Qualifier::Type(id) => Some(*id),
            _ => None,
        });
    let type_names = read_type_names(pdb, &types.collect())?;

    let mut callees = BTreeMap::new();
    for (index, (qualifier, name)) in functions {
        let qualifier = match qualifier {
            Qualifier::Namespace(id) => namespace_names.get(&id),
            Qualifier::Type(id) => type_names.get(&id),
            Qualifier::None => None,
        };
        let name = match qualifier {
            Some(qualifier) if !qualifier.is_empty() => format!("{qualifier}::{name}"),
            _ => crate::demangle(&name),
        };
        callees.insert(index, builder.text(&name));
    }
    Ok(callees)
}

fn read_type_names(
    pdb: &mut Pdb<'_>,
    wanted: &BTreeSet<u32>,
) -> pdb2::Result<BTreeMap<u32, String>> {
    let mut names = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(names);
    }
    let types = pdb.type_information()?;
    let mut items = types.iter();
    while let Some(item) = items.next()? {
        if wanted.contains(&item.index().0)
            && spec::NAMED_TYPES.contains(&item.raw_kind())
            && let Some(name) = item.parse()?.name()
        {
            names.insert(item.index().0, name.to_string().into_owned());
        }
    }
    Ok(names)
}
