use super::{BAR0, BAR1, Bench};
use crate::layout;
use memory::Gpa;
use proptest::prelude::*;

#[test]
fn identity_is_that_of_a_modern_virtio_gpu() {
    let mut bench = Bench::cold();

    assert_eq!(bench.config_of(0x00, 4), 0x1050_1af4);
    assert_eq!(bench.config_of(0x2c, 4), 0xd3a5_1af4);
    assert_eq!(bench.config_of(0x08, 4), 0x0380_0001);
    assert_eq!(bench.config_of(0x0e, 1), 0);
}

#[test]
fn sizing_a_bar_shows_its_size_and_keeps_low_bits() {
    for (register, size) in [
        (0x10, layout::TRANSPORT_SIZE),
        (0x14, layout::MSIX_SIZE),
        (0x18, 0),
        (0x24, 0),
    ] {
        let mut bench = Bench::cold();

        bench.config(register, 4, 0xffff_ffff);

        let value = bench.config_of(register, 4);
        assert_eq!(value, if size == 0 { 0 } else { !(size - 1) });
    }
}

#[test]
fn a_bar_answers_only_with_memory_enabled() {
    let mut bench = Bench::new();
    let inside = Gpa(BAR0 + 0x3fff);
    assert_eq!(bench.function.decode(inside), Some((0, 0x3fff)));
    assert_eq!(bench.function.decode(Gpa(BAR1)), Some((1, 0)));
    assert_eq!(bench.function.decode(Gpa(BAR0 + 0x4000)), None);

    bench.config(0x04, 2, 0x4);

    assert_eq!(bench.function.decode(inside), None);
}

#[test]
fn a_bar_that_nobody_placed_does_not_answer_at_zero() {
    let mut bench = Bench::cold();

    bench.config(0x04, 2, 0x2);

    assert_eq!(bench.function.decode(Gpa(0)), None);
}

#[test]
fn read_only_bytes_stay() {
    let mut bench = Bench::cold();
    let header: Vec<u32> = (0..16).map(|i| bench.config_of(4 * i, 4)).collect();

    for offset in [0x00, 0x08, 0x2c, 0x34] {
        bench.config(offset, 4, 0xffff_ffff);
    }

    let after: Vec<u32> = (0..16).map(|i| bench.config_of(4 * i, 4)).collect();
    assert_eq!(after, header);
}

#[test]
fn bus_master_follows_the_command_register() {
    let mut bench = Bench::cold();
    assert!(!bench.function.bus_master());

    bench.config(0x04, 2, 0x4);

    assert!(bench.function.bus_master());
}

#[test]
fn capability_list_is_msix_and_the_five_structures() {
    let mut bench = Bench::cold();
    let mut at = bench.config_of(0x34, 1) as u16;
    let mut found = Vec::new();
    while at != 0 {
        let id = bench.config_of(at, 1);
        let kind = bench.config_of(at + 3, 1);
        found.push((at, id, if id == 9 { kind } else { 0 }));
        at = bench.config_of(at + 1, 1) as u16;
    }

    assert_eq!(
        found,
        [
            (0x40, 0x11, 0),
            (0x4c, 9, 1),
            (0x5c, 9, 2),
            (0x70, 9, 3),
            (0x80, 9, 4),
            (0x90, 9, 5),
        ]
    );
    // Bar, offset, length of each structure of the transport.
    for (at, offset, length) in [
        (0x4c, 0x0000, 0x3c),
        (0x5c, 0x3000, 8),
        (0x70, 0x1000, 1),
        (0x80, 0x2000, 16),
    ] {
        let fields = (
            bench.config_of(at + 4, 1),
            bench.config_of(at + 8, 4),
            bench.config_of(at + 12, 4),
        );
        assert_eq!(fields, (0, offset, length));
    }
    assert_eq!(bench.config_of(0x5c + 16, 4), 4);
}

#[test]
fn beyond_the_space_reads_as_ones() {
    let mut bench = Bench::cold();

    assert_eq!(bench.config_of(0x100, 4), 0xffff_ffff);
    assert_eq!(bench.config_of(0xfffe, 4), 0xffff_ffff);
}

#[test]
fn the_window_reads_and_writes_a_bar() {
    let mut bench = Bench::new();
    // Device status, one byte.
    bench.config(0x94, 1, 0);
    bench.config(0x98, 4, 0x14);
    bench.config(0x9c, 4, 1);

    bench.config(0xa0, 4, 1);

    assert_eq!(bench.config_of(0xa0, 1), 1);
    assert_eq!(bench.function.transport().status(), 1);
}

#[test]
fn a_window_outside_the_bar_does_nothing() {
    for (bar, offset, length) in [
        (0, 0x4000, 4),
        (0, 0x15, 2),
        (2, 0, 4),
        (0, 0, 3),
        (0, 0, 0),
    ] {
        let mut bench = Bench::new();
        bench.config(0x94, 1, bar);
        bench.config(0x98, 4, offset);
        bench.config(0x9c, 4, length);

        bench.config(0xa0, 4, 0xffff_ffff);

        assert_eq!(bench.function.transport().status(), 0);
        assert_eq!(bench.device.resets, 0);
    }
}

proptest! {
    #[test]
    fn any_access_is_harmless(
        accesses in prop::collection::vec((any::<u16>(), 0u8..9, any::<u32>()), 0..200),
    ) {
        let mut bench = Bench::new();
        for (offset, size, value) in accesses {
            bench.config(offset % 0x120, size, value);
            let _ = bench.config_of(offset % 0x120, size);
        }
        prop_assert_eq!(bench.config_of(0, 4), 0x1050_1af4);
    }
}
