//! What a person, or a program, reads about a run: computed from its journal.
//!
//! [`Report::build`] runs the ledger over the events and describes stacks;
//! [`text`], [`json`] and [`svg`] draw the result. Everything that a driver
//! can make up (names, printed lines, paths in its PDB) is cleaned of control
//! characters once, in `build`, so that no way of drawing can forget it.
#![forbid(unsafe_code)]

mod build;
mod clean;
pub mod json;
mod layout;
mod model;
mod remedy;
mod spec;
pub mod svg;
#[cfg(test)]
mod tests;
pub mod text;

pub use clean::clean;
pub use model::{Ending, Found, Frame, Live, Meta, Printed, Report, Stopped};
pub use spec::{bug_check_name, status_name};
