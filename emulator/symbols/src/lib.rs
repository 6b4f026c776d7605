//! Addresses to names and stacks.
//!
//! Three parts, each usable alone:
//! - [`SymbolTable`]: an index built once from a PDB, answering "which
//!   function, inlined calls, file and line is at this RVA".
//! - [`Unwinder`]: walks an x64 stack with the `.pdata` of the loaded images.
//! - [`Symbolizer`]: the modules of a run and their symbol tables; turns
//!   absolute addresses into text.
//!
//! Everything here is derived from files: it can be dropped and built again,
//! and holds nothing that changes as a machine runs.
#![forbid(unsafe_code)]

mod error;
mod image;
mod names;
mod symbolizer;
mod table;
mod unwind;

pub use error::SymbolError;
pub use image::{PdbId, pdb_reference};
pub use names::demangle;
pub use symbolizer::{Described, Module, Symbolizer};
pub use table::{Frame, SymbolTable};
pub use unwind::{Registers, UnwindError, Unwinder};
