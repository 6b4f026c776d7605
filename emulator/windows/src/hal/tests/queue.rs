use crate::hal::{Block, blocks};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn an_aligned_run_is_one_block() {
    assert_eq!(blocks(&[8, 9, 10, 11], 18), [Block { page: 8, mask: 2 }]);
}

#[test]
fn an_unaligned_run_is_split_at_powers_of_two() {
    let expected = [(3, 0), (4, 2), (8, 0)].map(|(page, mask)| Block { page, mask });
    assert_eq!(blocks(&[3, 4, 5, 6, 7, 8], 18), expected);
}

#[test]
fn the_largest_mask_is_kept() {
    let pages: Vec<u64> = (0..16).collect();
    let expected = [0, 4, 8, 12].map(|page| Block { page, mask: 2 });
    assert_eq!(blocks(&pages, 2), expected);
}

proptest! {
    #[test]
    fn blocks_cover_exactly_the_pages(
        runs in prop::collection::vec((0u64..5000, 1u64..300), 0..8),
        max_mask in 0u8..19,
    ) {
        let pages: BTreeSet<u64> = runs.iter().flat_map(|&(at, n)| at..at + n).collect();
        let listed: Vec<u64> = pages.iter().copied().collect();
        let mut covered = BTreeSet::new();
        for block in blocks(&listed, max_mask) {
            prop_assert!(block.mask <= max_mask);
            prop_assert_eq!(block.page % (1 << block.mask), 0);
            for page in block.page..block.page + (1 << block.mask) {
                prop_assert!(covered.insert(page), "page {} twice", page);
            }
        }
        prop_assert_eq!(covered, pages);
    }
}
