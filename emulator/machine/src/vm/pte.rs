//! Page-table entries: the bits, and what a page is mapped to.

use memory::{Gpa, Pfn};

// Page-table entry bits (Intel SDM vol. 3, 4.5).
pub(super) const PRESENT: u64 = 1;
pub(super) const WRITE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
/// A bit that hardware ignores: the entry is trapped, not absent.
pub(super) const TRAPPED: u64 = 1 << 9;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
pub(super) const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// What code at CPL 3 may do with a page. A mapped page is always readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protection {
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
    /// May be reached at CPL 3; otherwise only by our stubs at CPL 0.
    pub user: bool,
}

impl Protection {
    /// Driver data.
    pub const DATA: Self = Self::new(true, false);
    /// Driver constants.
    pub const READ_ONLY: Self = Self::new(false, false);
    /// Driver code.
    pub const CODE: Self = Self::new(false, true);
    /// Old drivers' writable code, and discardable sections.
    pub const ALL: Self = Self::new(true, true);

    const fn new(write: bool, execute: bool) -> Self {
        Self {
            write,
            execute,
            user: true,
        }
    }

    fn bits(self) -> u64 {
        let mut bits = 0;
        if self.write {
            bits |= WRITE;
        }
        if self.user {
            bits |= USER;
        }
        if !self.execute {
            bits |= NO_EXECUTE;
        }
        bits
    }

    fn from_bits(entry: u64) -> Self {
        Self {
            write: entry & WRITE != 0,
            execute: entry & NO_EXECUTE == 0,
            user: entry & USER != 0,
        }
    }
}

/// What a page of the address space is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// The frame.
    pub frame: Pfn,
    /// What the driver may do.
    pub protection: Protection,
    /// Accesses by the driver fault, so that the host sees them.
    pub trapped: bool,
}

impl Mapping {
    pub(super) fn decode(entry: u64) -> Option<Self> {
        if entry & (PRESENT | TRAPPED) == 0 {
            return None;
        }
        Some(Self {
            frame: Pfn::from(Gpa(entry & FRAME)),
            protection: Protection::from_bits(entry),
            trapped: entry & PRESENT == 0,
        })
    }

    pub(super) fn encode(self) -> u64 {
        // Accessed and dirty are set from the start: nobody reads them, and
        // KVM's walk then has nothing to write back.
        let state = if self.trapped { TRAPPED } else { PRESENT };
        self.frame.base().0 & FRAME | self.protection.bits() | state | ACCESSED | DIRTY
    }
}
