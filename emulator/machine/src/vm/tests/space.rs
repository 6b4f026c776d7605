//! The page-table builder against a map, and what it says on bad requests.
use super::harness;
use crate::vm::{AddressSpace, FrameRange, Mapping, Protection, SYSTEM_BASE, SpaceError};
use memory::{Gpa, GuestMemory, Gva, Pfn};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Map(u64, u64, Protection),
    Unmap(u64),
    Protect(u64, Protection),
    Trap(u64, u64, bool),
}

fn page() -> impl Strategy<Value = u64> {
    // Few enough to meet again, spread over all levels of the tables.
    let spread = prop_oneof![
        Just(0u64),
        Just(0x20_0000),
        Just(0x4000_0000),
        Just(0x80_0000_0000)
    ];
    (0u64..4, spread, any::<bool>()).prop_map(|(index, base, high)| {
        let half = if high { 0xffff_f800_0000_0000 } else { 0 };
        half + base + index * 0x1000
    })
}

fn protection() -> impl Strategy<Value = Protection> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(write, execute, user)| Protection {
        write,
        execute,
        user,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (page(), 0u64..0x10_0000, protection()).prop_map(|(p, f, r)| Step::Map(p, f, r)),
        page().prop_map(Step::Unmap),
        (page(), protection()).prop_map(|(p, r)| Step::Protect(p, r)),
        (page(), 1u64..4, any::<bool>()).prop_map(|(p, n, t)| Step::Trap(p, n, t)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn tables_agree_with_a_map(steps in prop::collection::vec(step(), 1..80)) {
        let mut space = harness::space();
        let mut model: BTreeMap<u64, Mapping> = BTreeMap::new();
        for step in &steps {
            match *step {
                Step::Map(page, frame, protection) => {
                    let free = !model.contains_key(&page);
                    prop_assert_eq!(space.map(Gva(page + 5), Pfn(frame), protection).is_ok(), free);
                    if free {
                        let mapping = Mapping { frame: Pfn(frame), protection, trapped: false };
                        model.insert(page, mapping);
                    }
                }
                Step::Unmap(page) => {
                    prop_assert_eq!(space.unmap(Gva(page)).ok(), model.remove(&page));
                }
                Step::Protect(page, protection) => {
                    let done = space.protect(Gva(page), protection).is_ok();
                    prop_assert_eq!(done, model.contains_key(&page));
                    model.entry(page).and_modify(|m| m.protection = protection);
                }
                Step::Trap(page, count, trapped) => {
                    let changed = space.trap_range(Gva(page), count, trapped).unwrap();
                    let mut expected = 0;
                    for (_, mapping) in model.range_mut(page..page + count * 0x1000) {
                        expected += u64::from(mapping.trapped != trapped);
                        mapping.trapped = trapped;
                    }
                    prop_assert_eq!(changed, expected);
                }
            }
            let (Step::Map(page, ..)
            | Step::Unmap(page)
            | Step::Protect(page, _)
            | Step::Trap(page, ..)) = *step;
            prop_assert_eq!(space.mapping(Gva(page)), model.get(&page).copied());
        }
        for (page, mapping) in &model {
            let expected = (Gpa(mapping.frame.base().0 + 0x123), mapping.protection);
            prop_assert_eq!(space.translate(Gva(page + 0x123)), Some(expected));
        }
    }
}

#[test]
fn host_reads_and_writes_cross_pages_and_traps() {
    let mut space = harness::space();
    let base = Gva(0xffff_f800_1234_5000);
    space.map(base, Pfn(0x300), Protection::DATA).unwrap();
    let second = Gva(base.0 + 0x1000);
    space
        .map(second, Pfn(0x2ff), Protection::READ_ONLY)
        .unwrap();
    space.trap_accesses(second).unwrap();

    space.write(Gva(base.0 + 0xffc), b"12345678").unwrap();

    let mut bytes = [0; 8];
    space.read(Gva(base.0 + 0xffc), &mut bytes).unwrap();
    assert_eq!(&bytes, b"12345678");
    let mut at_frame = [0; 4];
    space.memory().read(Gpa(0x2ff_000), &mut at_frame).unwrap();
    assert_eq!(&at_frame, b"5678");
}

#[test]
fn write_that_runs_into_nothing_writes_nothing() {
    let mut space = harness::space();
    let base = Gva(0x1_0000);
    space.map(base, Pfn(0x300), Protection::DATA).unwrap();
    let result = space.write(Gva(base.0 + 0xffc), b"12345678");
    assert!(matches!(result, Err(SpaceError::NotMapped(Gva(0x1_1000)))));
    let mut bytes = [0; 4];
    space.read(Gva(base.0 + 0xffc), &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4]);
}

#[test]
fn address_that_is_not_canonical_is_refused() {
    let mut space = harness::space();
    let result = space.map(Gva(1 << 47), Pfn(1), Protection::DATA);
    assert!(matches!(result, Err(SpaceError::NotCanonical(_))));
    assert_eq!(space.mapping(Gva(1 << 47)), None);
}

#[test]
fn tables_stop_at_the_end_of_their_frames() {
    let memory = Arc::new(GuestMemory::new(1 << 20).unwrap());
    let frames = FrameRange {
        first: Pfn(0),
        count: 13,
    };
    let mut space = AddressSpace::new(memory, frames).unwrap();
    let mut mapped = 0;
    let error = loop {
        match space.map(Gva(mapped << 39), Pfn(50), Protection::DATA) {
            Ok(()) => mapped += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SpaceError::OutOfFrames(13)));
    assert!(space.mapping(SYSTEM_BASE).is_some());
}
