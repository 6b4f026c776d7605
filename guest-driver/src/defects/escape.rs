//! Bugs in taking what a program sends.

use super::{Defect, shows};

/// Is the private data of an Escape too short for a command?
///
/// The planted bug: only what it says is looked at, not its size.
#[inline(never)]
pub fn is_short(size: usize, command: usize) -> bool {
    !shows(Defect::EscapeSizeUnchecked) && size < command
}
