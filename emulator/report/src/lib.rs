//! What a person, or a program, reads about a run: computed from its journal.
//!
//! [`Report::build`] runs the ledger over the events and describes stacks;
//! [`text`], [`json`], [`svg`], [`junit`] and [`sarif`] draw the result, and
//! [`trace`] the journal itself; [`Report::triage`] takes out what is known.
//! Everything that a driver can make up (names, printed lines, paths in its
//! PDB) is cleaned of control characters once, in `build`, so that no way of
//! drawing can forget it.
#![forbid(unsafe_code)]

mod baseline;
mod build;
mod check;
mod clean;
mod fingerprint;
pub mod json;
pub mod junit;
mod layout;
mod model;
mod pages;
mod remedy;
pub mod sarif;
mod spec;
mod suppress;
pub mod svg;
#[cfg(test)]
mod tests;
pub mod text;
pub mod trace;
mod triage;

pub use baseline::{Baseline, BaselineError};
pub use check::Check;
pub use clean::clean;
pub use model::{Ending, Found, Frame, Live, Meta, Printed, Report, Stopped};
pub use pages::PAGES;
pub use spec::bug_check_name;
pub use suppress::{Suppression, SuppressionsError, parse as parse_suppressions};
pub use triage::{Standing, Triage};
