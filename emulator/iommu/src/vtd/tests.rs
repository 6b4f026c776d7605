//! Tests of what is private to the unit.

use super::iotlb::{Hit, Iotlb};
use memory::{Gpa, Iova};
use proptest::prelude::*;

proptest! {
    #[test]
    fn an_entry_gives_back_all_that_was_put_in(
        domain: u16,
        page in 0u64..1 << 36,
        frame in 0u64..1 << 36,
        generation: u32,
        rights in prop::sample::select(vec![(true, false), (false, true), (true, true)]),
    ) {
        let mut iotlb = Iotlb::default();
        let iova = Iova(page << 12 | 0x123);
        iotlb.insert(domain, iova, 12, Gpa(frame << 12), rights, generation);
        let hit = Some(Hit { gpa: Gpa(frame << 12 | 0x123), generation });
        prop_assert_eq!(iotlb.find_small(domain, iova, false), hit.filter(|_| rights.0));
        prop_assert_eq!(iotlb.find_small(domain, iova, true), hit.filter(|_| rights.1));
        prop_assert_eq!(iotlb.find_small(domain ^ 1, iova, !rights.0), None);
        prop_assert_eq!(iotlb.find_small(domain, Iova(iova.0 ^ 1 << 47), !rights.0), None);
        let mut copy = Iotlb::default();
        copy.restore(&iotlb.save());
        prop_assert_eq!(copy.find_small(domain, iova, rights.1), hit);
        prop_assert_eq!(copy.drop_domain(domain ^ 1), 0);
        prop_assert_eq!(copy.drop_domain(domain), 1);
        prop_assert_eq!(iotlb.drop_range(domain, Iova(page << 12), 4096), 1);
        prop_assert_eq!(iotlb.drop_all(), 0);
    }
}
