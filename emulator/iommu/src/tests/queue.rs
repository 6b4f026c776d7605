//! Queued invalidation.

use super::*;
use crate::spec::descriptors as desc;
use crate::spec::registers::{self as reg, queue_error};
use crate::testing::global;
use scenario::Scenario;

const STATUS: Gpa = Gpa(0x3000);

fn wait(value: u32) -> [u64; 2] {
    [
        desc::WAIT | desc::WAIT_STATUS | u64::from(value) << desc::WAIT_DATA,
        STATUS.0,
    ]
}

fn fails_with(descriptor: [u64; 2]) -> u64 {
    let os = Os::started(RAM);
    os.submit(&[wait(1), descriptor, wait(2)]);
    assert_eq!(
        os.look(STATUS),
        1,
        "what was before is done, what is after is not"
    );
    assert_eq!(os.get(reg::FSTS, 4) as u32, reg::QUEUE_ERROR);
    assert_eq!(os.get(reg::IQH, 8), 16, "the head stays on the descriptor");
    os.get(reg::IQERCD, 8)
}

#[test]
fn a_bad_descriptor_stops_the_queue() {
    let rows = [
        ("type 0", [0, 0], queue_error::TYPE),
        ("device TLB without ECAP.DT", [3, 0], queue_error::TYPE),
        ("type 8 and up", [desc::WAIT | 1 << 9, 0], queue_error::TYPE),
        (
            "context, no granularity",
            [desc::CONTEXT, 0],
            queue_error::RESERVED,
        ),
        (
            "IOTLB, no granularity",
            [desc::IOTLB, 0],
            queue_error::RESERVED,
        ),
        (
            "IOTLB, mask of 19",
            [desc::IOTLB | 3 << 4, 19],
            queue_error::RESERVED,
        ),
        (
            "IOTLB, reserved",
            [desc::IOTLB | 1 << 4 | 1 << 8, 0],
            queue_error::RESERVED,
        ),
        (
            "context, high half",
            [desc::CONTEXT | 1 << 4, 1],
            queue_error::RESERVED,
        ),
        (
            "wait, PD without ECAP.PDS",
            [desc::WAIT | 1 << 7, 0],
            queue_error::RESERVED,
        ),
        (
            "wait, unaligned status",
            [desc::WAIT | desc::WAIT_STATUS, 2],
            queue_error::RESERVED,
        ),
    ];
    for (what, descriptor, why) in rows {
        assert_eq!(fails_with(descriptor), why, "{what}");
    }
}

#[test]
fn a_stopped_queue_goes_on_when_its_error_is_cleared() {
    let os = Os::started(RAM);
    os.submit(&[[0, 0], wait(5)]);
    os.submit(&[wait(6)]);
    assert_eq!(os.look(STATUS), 0);
    os.poke(os.queue, desc::IOTLB | 1 << 4);
    os.set(reg::FSTS, 4, u64::from(reg::QUEUE_ERROR));
    assert_eq!(os.look(STATUS), 6);
    assert_eq!((os.get(reg::FSTS, 4), os.get(reg::IQERCD, 8)), (0, 0));
    assert_eq!(os.get(reg::IQH, 8), os.get(reg::IQT, 8));
}

#[test]
fn an_error_not_mended_stops_the_queue_again() {
    let os = Os::started(RAM);
    os.submit(&[[0, 0]]);
    os.set(reg::FSTS, 4, u64::from(reg::QUEUE_ERROR));
    assert_eq!(os.get(reg::FSTS, 4) as u32, reg::QUEUE_ERROR);
}

#[test]
fn a_tail_set_before_the_queue_is_enabled_counts() {
    let os = Os::new(RAM, Scenario::for_test());
    os.set(reg::IQA, 8, os.queue.0);
    os.submit(&[global(true), wait(9)]);
    assert_eq!(os.look(STATUS), 0);
    os.set(reg::GCMD, 4, u64::from(reg::QUEUE_ENABLE));
    assert_eq!(os.look(STATUS), 9);
    assert_eq!(os.get(reg::IQH, 8), 32);
}

#[test]
fn disabling_the_queue_sets_its_head_back() {
    let os = Os::started(RAM);
    os.submit(&[global(true)]);
    os.set(reg::GCMD, 4, 0);
    assert_eq!((os.get(reg::IQH, 8), os.get(reg::IQT, 8)), (0, 16));
}

#[test]
fn the_queue_wraps_at_its_end() {
    let os = Os::started(RAM);
    for value in 1..=300 {
        os.submit(&[wait(value)]);
        assert_eq!(os.look(STATUS), u64::from(value));
    }
}

#[test]
fn a_tail_beyond_the_queue_and_a_queue_outside_ram_are_errors() {
    let os = Os::started(RAM);
    os.set(reg::IQT, 8, 4096);
    assert_eq!(os.get(reg::IQERCD, 8), queue_error::TAIL);
    let os = Os::new(RAM, Scenario::for_test());
    os.set(reg::IQA, 8, RAM);
    os.set(reg::IQT, 8, 16);
    os.set(reg::GCMD, 4, u64::from(reg::QUEUE_ENABLE));
    assert_eq!(os.get(reg::IQERCD, 8), queue_error::FETCH);
}

#[test]
fn a_queue_of_wide_descriptors_is_an_error() {
    let os = Os::new(RAM, Scenario::for_test());
    os.set(reg::IQA, 8, os.queue.0 | reg::QUEUE_WIDE);
    os.submit(&[wait(1)]);
    os.set(reg::GCMD, 4, u64::from(reg::QUEUE_ENABLE));
    assert_eq!(os.get(reg::FSTS, 4) as u32, reg::QUEUE_ERROR);
    assert_eq!(os.get(reg::IQERCD, 8), queue_error::WIDTH);
    assert_eq!(os.look(STATUS), 0);
}

#[test]
fn an_interrupt_flush_is_accepted() {
    let os = Os::started(RAM);
    assert!(os.run([desc::INTERRUPT, 0]));
}

#[test]
fn a_wait_with_its_flag_raises_one_event_until_it_is_cleared() {
    let os = Os::started(RAM);
    os.set(reg::IEDATA, 4, 0x51);
    os.set(reg::IEADDR, 4, 0xfee0_3000);
    os.set(reg::IECTL, 4, 0);
    let flagged = [desc::WAIT | desc::WAIT_INTERRUPT, 0];
    os.submit(&[flagged, flagged]);
    let messages = os.unit.take_messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        (messages[0].device, messages[0].address, messages[0].data),
        (None, 0xfee0_3000, 0x51)
    );
    assert_eq!(os.get(reg::ICS, 4) as u32, reg::WAIT_COMPLETE);
    os.set(reg::ICS, 4, 1);
    os.submit(&[flagged]);
    assert_eq!(os.unit.take_messages().len(), 1);
}

#[test]
fn a_stopped_queue_raises_the_fault_event() {
    let os = Os::started(RAM);
    os.set(reg::FECTL, 4, 0);
    os.submit(&[[0, 0]]);
    assert_eq!(os.unit.take_messages().len(), 1);
}
