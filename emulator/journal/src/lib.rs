//! The journal: everything that happened in a run, in order.
//!
//! All that a person reads is computed from it, so a finding made anywhere
//! looks the same everywhere and can be analysed again later. The file is
//! append-only and framed, so that it survives the end of the process at any
//! byte; it holds no time of day, pid, path or hash order, so that equal runs
//! give equal files.
#![forbid(unsafe_code)]

pub mod event;
mod file;
mod run;
mod status;
mod writer;

pub use event::{Event, Record};
pub use file::{MAX_RECORD, ReadError, Reader, Tail, read};
pub use status::{status_name, status_value};
pub use writer::{Journal, JournalError, State};

#[cfg(test)]
mod tests;
