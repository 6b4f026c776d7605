//! The guest memory that the executive's own objects lie in: one region that
//! stays mapped, handed out in 16-byte units.

use memory::Gva;
use std::collections::BTreeMap;

/// Guest memory that is mapped for data, and stays so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Region {
    /// Its first byte, page-aligned.
    pub base: Gva,
    /// Bytes.
    pub size: u64,
}

/// What of a region is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Arena {
    region: Region,
    /// Bytes from the start that were handed out at some time.
    top: u64,
    /// Live blocks and their sizes.
    live: BTreeMap<Gva, u64>,
    /// Freed blocks, oldest first: a stale pointer meets new data as late as
    /// can be.
    free: Vec<(Gva, u64)>,
}

impl Arena {
    pub fn new(region: Region) -> Self {
        Self {
            region,
            ..Self::default()
        }
    }

    /// A block of at least `bytes`, with whatever contents.
    pub fn take(&mut self, bytes: u64) -> Option<Gva> {
        let size = bytes.max(1).checked_next_multiple_of(16)?;
        let reused = self.free.iter().position(|&(_, free)| free == size);
        let left = self.region.size.saturating_sub(self.top);
        let at = if size <= left {
            let at = self.region.base.checked_add(self.top)?;
            self.top += size;
            at
        } else {
            self.free.remove(reused?).0
        };
        self.live.insert(at, size);
        Some(at)
    }

    /// Give a block back. False if it is none.
    pub fn give_back(&mut self, at: Gva) -> bool {
        match self.live.remove(&at) {
            Some(size) => {
                self.free.push((at, size));
                true
            }
            None => false,
        }
    }

    /// Is there a freed block, and no live one, at that address?
    pub fn was_ours(&self, at: Gva) -> bool {
        self.free.iter().any(|&(free, _)| free == at)
    }
}
