//! A guest that means harm.

use crate::fuzzing::fuzz_registers;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_bytes_make_the_unit_panic_or_hang(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        fuzz_registers(&data);
    }
}

#[test]
fn a_full_queue_of_the_worst_descriptors_is_bounded() {
    // 128 pages of page-selective invalidations of 1 GiB each.
    use crate::spec::registers as reg;
    use crate::testing::{Os, pages};
    use memory::{Gpa, Iova};
    let os = Os::new(
        2 << 20,
        scenario::Scenario::new(scenario::Plan::default(), journal::Journal::disabled()),
    );
    let [low, high] = pages(1, Iova(0), 18, true);
    let base = Gpa(1 << 20);
    for i in 0..1 << 15 {
        os.poke(Gpa(base.0 + 16 * i), low);
        os.poke(Gpa(base.0 + 16 * i + 8), high);
    }
    os.set(reg::IQA, 8, base.0 | 7);
    os.set(reg::IQT, 8, (1 << 19) - 16);
    os.set(reg::GCMD, 4, u64::from(reg::QUEUE_ENABLE));
    assert_eq!(os.get(reg::IQH, 8), (1 << 19) - 16);
}
