//! Leaving out one call that gives something back.
//!
//! Every free, unmap, wait, detach and reset of this driver goes through
//! [`undo`]. In a build with the feature `mutations` the registry value
//! `Mutation` names one of them ([`interface::mutations::ALL`]), which is
//! then skipped; in any other build the macro is the call itself.

#[cfg(feature = "mutations")]
use core::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "mutations")]
use crate::{
    nt::{Result, log},
    registry::Text,
    spec::nt::STATUS_INVALID_PARAMETER,
};

/// A call that gives something back, under a name.
#[cfg(not(feature = "mutations"))]
macro_rules! undo {
    ($name:literal, $call:expr) => {
        $call
    };
}

/// A call that gives something back, under a name: left out when the
/// mutation of that name was chosen.
#[cfg(feature = "mutations")]
macro_rules! undo {
    ($name:literal, $call:expr) => {{
        const MUTATION: usize = $crate::mutations::number($name);
        if $crate::mutations::skips(MUTATION) {
            $crate::mutations::Skipped::skipped()
        } else {
            $call
        }
    }};
}
pub(crate) use undo;

/// What a call answers that was not made: that all is well.
#[cfg(feature = "mutations")]
pub trait Skipped {
    /// That answer.
    fn skipped() -> Self;
}

#[cfg(feature = "mutations")]
impl Skipped for () {
    fn skipped() -> Self {}
}

#[cfg(feature = "mutations")]
impl Skipped for Result<()> {
    fn skipped() -> Self {
        Ok(())
    }
}

#[cfg(feature = "mutations")]
impl Skipped for bool {
    fn skipped() -> Self {
        true
    }
}

/// An NTSTATUS.
#[cfg(feature = "mutations")]
impl Skipped for i32 {
    fn skipped() -> Self {
        0
    }
}

/// A reference count, which nobody looks at.
#[cfg(feature = "mutations")]
impl Skipped for isize {
    fn skipped() -> Self {
        0
    }
}

/// Chosen: 1 + place in the list; 0 for none. One for the whole image: there
/// is one adapter.
#[cfg(feature = "mutations")]
static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// Place of a mutation in the list. A name that is not in it does not
/// compile.
#[cfg(feature = "mutations")]
pub const fn number(name: &str) -> usize {
    let mut at = 0;
    while at < interface::mutations::ALL.len() {
        if same(
            interface::mutations::ALL[at].name.as_bytes(),
            name.as_bytes(),
        ) {
            return at;
        }
        at += 1;
    }
    panic!("the mutation is not in the list")
}

#[cfg(feature = "mutations")]
const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Whether mutation `number` was chosen.
#[cfg(feature = "mutations")]
pub fn skips(number: usize) -> bool {
    CHOSEN.load(Ordering::Relaxed) == number + 1
}

/// Takes the choice of the registry. A name that is none stops the driver
/// from starting: a slip must not look like a clean run.
#[cfg(feature = "mutations")]
pub fn choose(value: Option<Text>) -> Result<()> {
    let name = value.as_ref().map_or(&b""[..], Text::as_bytes);
    let chosen = match name {
        b"" | b"none" => 0,
        name => {
            let found = interface::mutations::ALL
                .iter()
                .position(|mutation| mutation.name.as_bytes() == name);
            let Some(at) = found else {
                log!("the registry value Mutation names no mutation");
                return Err(STATUS_INVALID_PARAMETER);
            };
            log!("mutation %u", at as u32);
            at + 1
        }
    };
    CHOSEN.store(chosen, Ordering::Relaxed);
    Ok(())
}
