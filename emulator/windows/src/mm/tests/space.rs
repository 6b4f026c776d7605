use crate::mm::space::{Region, Space};
use memory::{Gva, PAGE_SIZE};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn a_freed_address_comes_again_only_after_a_round() {
    let mut space = Space::default();
    let first = space.allocate(Region::SystemPtes, 1).unwrap();
    space.release(first).unwrap();
    // A gigabyte of pages, two for each range.
    let mut before = 0u32;
    while space
        .allocate(Region::SystemPtes, 1)
        .is_some_and(|at| at != first)
    {
        before += 1;
    }
    assert_eq!(before, (1 << 30) / 4096 / 2 - 1);
}

#[test]
fn a_range_larger_than_a_round_still_finds_a_place() {
    let mut space = Space::default();
    let at = space.allocate(Region::SystemPtes, (4 << 30) / PAGE_SIZE);
    assert_eq!(at, Some(Region::SystemPtes.base()));
}

#[test]
fn only_the_start_of_a_range_releases_it() {
    let mut space = Space::default();
    let at = space.allocate(Region::Pool, 2).unwrap();
    assert_eq!(space.release(Gva(at.0 + PAGE_SIZE)), None);
    assert_eq!(space.release(Gva(at.0 + 8)), None);
    assert_eq!(space.release(Gva(0x1000)), None);
    assert_eq!(space.release(at), Some(2));
    assert_eq!(space.release(at), None);
}

proptest! {
    #[test]
    fn live_ranges_are_apart_by_a_page(
        steps in prop::collection::vec((1u64..60_000, any::<bool>(), any::<usize>()), 1..80),
    ) {
        let mut space = Space::default();
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        for (pages, free, which) in steps {
            if free && !live.is_empty() {
                let base = *live.keys().nth(which % live.len()).unwrap();
                prop_assert_eq!(space.release(Gva(base)), live.remove(&base));
            } else if let Some(at) = space.allocate(Region::Pool, pages) {
                live.insert(at.0, pages);
            }
            let ranges: Vec<(u64, u64)> = live.iter().map(|(&a, &n)| (a, n)).collect();
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].0 + (pair[0].1 + 1) * PAGE_SIZE <= pair[1].0);
            }
        }
    }
}
