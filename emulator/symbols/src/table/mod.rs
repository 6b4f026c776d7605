//! Symbols of one image, from its PDB.

mod build;
mod index;
mod reader;
mod source;
mod spec;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use crate::{PdbId, SymbolError};
use index::{Index, Line, Text};

/// The largest PDB that is accepted. A large driver's has some 200 MiB.
const MAX_PDB_BYTES: u64 = 1 << 30;

/// One function at an address: the code itself, or a call inlined into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function's name, demangled, with its module path or class.
    pub function: String,
    /// Bytes from the start of the function that was compiled. All frames of
    /// an address have the same: an inlined call has no start of its own.
    pub offset: u32,
    /// The source file, as the compiler recorded it.
    pub file: Option<String>,
    /// The line in that file; in a caller, that of the call.
    pub line: Option<u32>,
    /// True if this call was inlined into the next frame.
    pub inlined: bool,
}

impl fmt::Display for Frame {
    /// `function+0x4c (file:line)`, or `function (file:line) [inlined]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        if !self.inlined {
            write!(f, "+{:#x}", self.offset)?;
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({file}:{line})")?,
            (Some(file), None) => write!(f, " ({file})")?,
            _ => {}
        }
        if self.inlined {
            f.write_str(" [inlined]")
        } else {
            Ok(())
        }
    }
}

/// The functions, lines and inlined calls of one image, by RVA.
///
/// The index is built once and then only read; a lookup is a few binary
/// searches. It takes some 20 bytes for each line and inlined line of the
/// program, and each name once.
#[derive(Clone)]
pub struct SymbolTable {
    index: Index,
    guid: [u8; 16],
    age: u32,
}

impl fmt::Debug for SymbolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SymbolTable")
            .field("functions", &self.index.function_count())
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}

impl SymbolTable {
    /// Reads a PDB from memory.
    ///
    /// # Errors
    /// The bytes are no PDB, a damaged one, or one without section headers. A
    /// damaged file never panics, though a panic that was caught inside the
    /// parser may have been printed by the process's panic hook.
    pub fn from_pdb(pdb: &[u8]) -> Result<Self, SymbolError> {
        check_size(pdb.len() as u64)?;
        let reader::Contents { index, guid, age } = reader::read(pdb)?;
        Ok(Self { index, guid, age })
    }

    /// Reads a PDB from a file.
    ///
    /// # Errors
    /// As [`Self::from_pdb`], or the file cannot be read.
    pub fn from_pdb_file(path: &Path) -> Result<Self, SymbolError> {
        let failed = |source| SymbolError::Read {
            path: path.to_owned(),
            source,
        };
        check_size(std::fs::metadata(path).map_err(failed)?.len())?;
        Self::from_pdb(&std::fs::read(path).map_err(failed)?)
    }

    /// GUID (in file order) and age, by which an image names its PDB.
    #[must_use]
    pub fn pdb_id(&self) -> ([u8; 16], u32) {
        (self.guid, self.age)
    }

    /// True if this is the PDB that an image names. Names are not compared:
    /// files are renamed, identities are not.
    #[must_use]
    pub fn matches(&self, id: &PdbId) -> bool {
        self.guid == id.guid && self.age == id.age
    }

    /// The number of functions that are known.
    #[must_use]
    pub fn function_count(&self) -> usize {
        self.index.function_count()
    }

    /// The RVA of a function by its full name, as [`Frame::function`] has it
    /// or as the linker exports it. The lowest, if several have this name.
    #[must_use]
    pub fn address_of(&self, function: &str) -> Option<u32> {
        self.index.address_of(function)
    }

    /// The function at `rva`, and before it the calls that were inlined into
    /// it there, innermost first. Empty if nothing is known.
    #[must_use]
    pub fn lookup(&self, rva: u32) -> Vec<Frame> {
        self.frames(rva, rva)
    }

    /// The same for a return address: the frames of the call before it, with
    /// the offset of the return address itself.
    #[must_use]
    pub fn lookup_return(&self, rva: u32) -> Vec<Frame> {
        self.frames(rva.saturating_sub(1), rva)
    }

    fn frames(&self, rva: u32, shown: u32) -> Vec<Frame> {
        let Some(found) = self.index.find(rva) else {
            return Vec::new();
        };
        let offset = shown.saturating_sub(found.function.start);
        let frame = |name: Text, line: Option<Line>, inlined| Frame {
            function: self.index.text(name).unwrap_or("<unknown>").to_owned(),
            offset,
            file: line
                .and_then(|line| self.index.text(line.file))
                .map(str::to_owned),
            line: line.map(|line| line.line).filter(|&line| line != 0),
            inlined,
        };
        let mut frames: Vec<Frame> = found
            .inlined
            .iter()
            .map(|inlined| frame(inlined.callee, Some(inlined.line), true))
            .collect();
        frames.push(frame(found.function.name, found.line, false));
        frames
    }
}

fn check_size(bytes: u64) -> Result<(), SymbolError> {
    if bytes > MAX_PDB_BYTES {
        return Err(SymbolError::TooLarge {
            bytes,
            limit: MAX_PDB_BYTES,
        });
    }
    Ok(())
}
