use std::path::PathBuf;

use thiserror::Error;

/// Why symbols could not be loaded. None of these stops a run: the caller
/// prints module and offset instead.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SymbolError {
    /// The file could not be read.
    #[error("cannot read the PDB {path}: {source}")]
    Read {
        /// The path as it was given.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is larger than any PDB this crate accepts.
    #[error("the PDB has {bytes} bytes, more than the {limit} that are accepted")]
    TooLarge {
        /// Size of the file, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The bytes are no PDB, or a damaged one.
    #[error("the PDB cannot be parsed ({reason}); build the driver again with /DEBUG")]
    Malformed {
        /// What the parser said, with the part it was reading.
        reason: String,
    },
    /// The PDB does not say where its sections are, so no address can be computed.
    #[error("the PDB has no section headers; link it with /DEBUG and without stripping it")]
    NoSections,
}
