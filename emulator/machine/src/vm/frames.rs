//! The frames that hold page tables and descriptor tables.

use memory::Pfn;

/// Consecutive page frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRange {
    /// The first frame.
    pub first: Pfn,
    /// How many.
    pub count: u64,
}

/// Hands out the frames of a range in ascending order and takes none back:
/// page tables are kept for as long as their address space, because freeing
/// one would leave KVM's shadow of the upper levels pointing at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameAllocator {
    range: FrameRange,
    used: u64,
}

impl FrameAllocator {
    /// All of `range` is free.
    #[must_use]
    pub fn new(range: FrameRange) -> Self {
        Self { range, used: 0 }
    }

    /// The next frame, or `None` when all are used.
    pub fn take(&mut self) -> Option<Pfn> {
        if self.used >= self.range.count {
            return None;
        }
        let frame = Pfn(self.range.first.0.checked_add(self.used)?);
        self.used += 1;
        Some(frame)
    }

    /// The numbers of all its frames.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        self.range.first.0..self.range.first.0 + self.range.count
    }

    /// Frames handed out.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Frames left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.range.count - self.used
    }
}
