//! Planted bugs, for showing what a tool says of them. Compiled only with
//! the feature `defects`; the registry value `Defect` chooses one.

use crate::nt::{Result, log};
use crate::registry::Text;
use crate::spec::nt::STATUS_INVALID_PARAMETER;

/// Which bug the driver shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defect {
    /// None.
    #[default]
    None,
    /// `free-before-detach`: freeing a resource gives its pages back while
    /// presented frames may be outstanding and the backing is attached, and
    /// only then waits, detaches and unreferences.
    FreeBeforeDetach,
}

/// The bug that the registry names. A name that is none stops the driver
/// from starting: a slip must not look like a clean run.
pub fn chosen(value: Option<Text>) -> Result<Defect> {
    let Some(value) = value else {
        return Ok(Defect::None);
    };
    let defect = match value.as_bytes() {
        b"" | b"none" => return Ok(Defect::None),
        b"free-before-detach" => Defect::FreeBeforeDetach,
        _ => {
            log!("the registry value Defect names no defect");
            return Err(STATUS_INVALID_PARAMETER);
        }
    };
    log!("planted defect: free-before-detach");
    Ok(defect)
}
