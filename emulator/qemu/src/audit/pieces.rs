//! Ranges of device addresses, and comparing two lists of them.

use iommu::Mapping;
use memory::{PAGE_SHIFT, PAGE_SIZE};
use serde::{Deserialize, Serialize};

/// A range of whole pages that the device may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Piece {
    /// First address.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
    /// Where it leads; `None`: to no RAM.
    pub target: Option<u64>,
    /// May the device read?
    pub read: bool,
    /// May it write?
    pub write: bool,
}

impl Piece {
    /// Address of the byte behind it; of a range that ends the address space,
    /// the last page is left out.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.iova.saturating_add(self.length) & !(PAGE_SIZE - 1)
    }

    /// Whole pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.length >> PAGE_SHIFT
    }

    /// Does it lead to the memory of the same number?
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.target == Some(self.iova)
    }

    /// The part of it in `start..end`, which lies inside.
    fn part(&self, start: u64, end: u64) -> Self {
        Self {
            iova: start,
            length: end - start,
            target: self.target.map(|t| t.saturating_add(start - self.iova)),
            ..*self
        }
    }

    /// Is `next` what follows, as one range?
    fn goes_on_with(&self, next: &Self) -> bool {
        let target = match (self.target, next.target) {
            (Some(a), Some(b)) => a.checked_add(self.length) == Some(b),
            (None, None) => true,
            _ => false,
        };
        self.end() == next.iova && target && (self.read, self.write) == (next.read, next.write)
    }
}

impl From<Mapping> for Piece {
    fn from(mapping: Mapping) -> Self {
        Self {
            iova: mapping.iova.0,
            length: mapping.length,
            target: mapping.target.map(|gpa| gpa.0),
            read: mapping.read,
            write: mapping.write,
        }
    }
}

/// The same, with neighbours that go on joined. `pieces` is ascending.
#[must_use]
pub fn joined(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        match all.last_mut() {
            Some(last) if last.goes_on_with(&piece) => last.length += piece.length,
            _ => all.push(piece),
        }
    }
    all
}

/// Pages of all of them.
#[must_use]
pub fn pages(pieces: &[Piece]) -> u64 {
    pieces.iter().map(Piece::pages).sum()
}

/// What two lists say of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Both {
    pub first: Option<Piece>,
    pub second: Option<Piece>,
}

/// Walk two ascending lists at once, in ranges in which neither changes.
pub(super) fn beside(first: &[Piece], second: &[Piece], mut tell: impl FnMut(Both)) {
    let mut edges: Vec<u64> = first
        .iter()
        .chain(second)
        .flat_map(|piece| [piece.iova, piece.end()])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let (mut a, mut b) = (first.iter().peekable(), second.iter().peekable());
    for pair in edges.windows(2) {
        let &[start, end] = pair else { continue };
        while a.next_if(|piece| piece.end() <= start).is_some() {}
        while b.next_if(|piece| piece.end() <= start).is_some() {}
        let part = |piece: Option<&&Piece>| {
            piece
                .filter(|piece| piece.iova <= start)
                .map(|piece| piece.part(start, end))
        };
        let both = Both {
            first: part(a.peek()),
            second: part(b.peek()),
        };
        if both.first.is_some() || both.second.is_some() {
            tell(both);
        }
    }
}

/// What `first` has where `second` has nothing.
pub(super) fn without(first: &[Piece], second: &[Piece]) -> Vec<Piece> {
    let mut left = Vec::new();
    beside(first, second, |both| {
        if both.second.is_none() {
            left.extend(both.first);
        }
    });
    joined(left)
}

/// What `first` has where `second` has something too.
pub(super) fn within(first: &[Piece], second: &[Piece]) -> Vec<Piece> {
    let mut left = Vec::new();
    beside(first, second, |both| {
        if both.second.is_some() {
            left.extend(both.first);
        }
    });
    joined(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(iova: u64, pages: u64, target: u64) -> Piece {
        Piece {
            iova: iova << PAGE_SHIFT,
            length: pages << PAGE_SHIFT,
            target: Some(target << PAGE_SHIFT),
            read: true,
            write: true,
        }
    }

    #[test]
    fn neighbours_that_go_on_are_one_range() {
        let all = joined([piece(1, 1, 7), piece(2, 2, 8), piece(4, 1, 9)]);
        assert_eq!(all, [piece(1, 3, 7), piece(4, 1, 9)]);
    }

    #[test]
    fn a_hole_in_the_middle_is_what_is_left() {
        let left = without(&[piece(0, 10, 100)], &[piece(0, 4, 100), piece(6, 4, 106)]);
        assert_eq!(left, [piece(4, 2, 104)]);
    }

    #[test]
    fn what_both_have_leads_where_the_first_says() {
        let both = within(&[piece(0, 10, 100)], &[piece(8, 4, 0)]);
        assert_eq!(both, [piece(8, 2, 108)]);
    }
}
