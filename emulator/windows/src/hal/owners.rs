//! Who a page is mapped for in a domain.

use iommu::spec::tables as spec;

/// A page can be mapped for several owners at once (two handles over one
/// page): its leaf allows what any of them may, and stays until the last
/// unmap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Owners {
    /// Owners whose device only reads.
    readers: u32,
    /// Owners whose device writes too.
    writers: u32,
}

impl Owners {
    /// How many there are of a kind.
    pub const fn of(&mut self, write: bool) -> &mut u32 {
        if write {
            &mut self.writers
        } else {
            &mut self.readers
        }
    }

    /// The access bits of the leaf (VT-d 9.8).
    pub const fn rights(self) -> u64 {
        match (self.readers, self.writers) {
            (0, 0) => 0,
            (_, 0) => spec::ENTRY_READ,
            _ => spec::ENTRY_READ | spec::ENTRY_WRITE,
        }
    }
}
