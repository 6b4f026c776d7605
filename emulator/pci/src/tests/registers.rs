use super::{Bench, OFFERED};
use crate::layout;
use crate::spec::virtio::{F_ACCESS_PLATFORM, F_VERSION_1, STATUS_NEEDS_RESET, common};
use journal::event::Event;
use proptest::prelude::*;

#[test]
fn features_show_by_halves() {
    let mut bench = Bench::new();
    let mut halves = Vec::new();
    for select in [0, 1, 2] {
        bench.set(common::DEVICE_FEATURE_SELECT, select);
        halves.push(bench.get(common::DEVICE_FEATURE));
    }

    assert_eq!(halves, [OFFERED & 0xffff_ffff, OFFERED >> 32, 0]);
}

#[test]
fn features_ok_is_refused_for_what_cannot_work() {
    for (features, accepted) in [
        (OFFERED, true),
        (F_VERSION_1 | F_ACCESS_PLATFORM, true),
        (F_VERSION_1, false),
        (F_ACCESS_PLATFORM, false),
        (OFFERED | 1 << 29, false),
        (0, false),
    ] {
        let mut bench = Bench::new();

        bench.features(features);

        let status = bench.get(common::DEVICE_STATUS);
        assert_eq!(status & 8 != 0, accepted, "{features:#x}");
    }
}

#[test]
fn features_are_fixed_after_features_ok() {
    let mut bench = Bench::new();
    bench.features(OFFERED);

    bench.set(common::DRIVER_FEATURE_SELECT, 1);
    bench.set(common::DRIVER_FEATURE, 0);

    assert_eq!(bench.function.transport().features(), OFFERED);
}

#[test]
fn driver_ok_needs_features_ok() {
    let mut bench = Bench::new();

    bench.set(common::DEVICE_STATUS, 0x7);

    assert_eq!(bench.get(common::DEVICE_STATUS), 0x3);
    assert!(!bench.function.transport().is_live());
}

#[test]
fn queue_registers_keep_what_was_written() {
    let mut bench = Bench::new();
    bench.set(common::QUEUE_SELECT, 1);
    assert_eq!(bench.get(common::QUEUE_SIZE), 4);
    assert_eq!(bench.get(common::QUEUE_NOTIFY_OFF), 1);

    bench.set(common::QUEUE_SIZE, 2);
    bench.set(common::QUEUE_DESC, 0x1_2345_6780);
    bench.write(0, common::QUEUE_DRIVER.0, 4, 0x9abc_def0);
    bench.write(0, common::QUEUE_DRIVER.0 + 4, 4, 0x2);

    assert_eq!(bench.get(common::QUEUE_SIZE), 2);
    assert_eq!(bench.get(common::QUEUE_DESC), 0x1_2345_6780);
    assert_eq!(bench.get(common::QUEUE_DRIVER), 0x2_9abc_def0);
}

#[test]
fn an_impossible_size_is_not_taken() {
    for size in [0, 3, 32, 0x8000] {
        let mut bench = Bench::new();

        bench.set(common::QUEUE_SIZE, size);

        assert_eq!(bench.get(common::QUEUE_SIZE), 16);
    }
}

#[test]
fn a_queue_that_is_not_there_reads_as_zeros() {
    let mut bench = Bench::new();
    bench.set(common::QUEUE_SELECT, 2);

    bench.set(common::QUEUE_ENABLE, 1);

    assert_eq!(bench.get(common::QUEUE_SIZE), 0);
    assert_eq!(bench.get(common::QUEUE_ENABLE), 0);
    assert_eq!(bench.get(common::QUEUE_SELECT), 2);
}

#[test]
fn a_misaligned_ring_breaks_the_device() {
    for (register, value) in [
        (common::QUEUE_DESC, 0x10_0008),
        (common::QUEUE_DRIVER, 0x10_1001),
        (common::QUEUE_DEVICE, 0x10_2002),
        (common::QUEUE_DRIVER, 0),
    ] {
        let mut bench = Bench::new();
        bench.set(common::QUEUE_DRIVER, 0x10_1000);
        bench.set(register, value);

        bench.set(common::QUEUE_ENABLE, 1);

        let status = bench.get(common::DEVICE_STATUS) as u8;
        assert_eq!(status & STATUS_NEEDS_RESET, STATUS_NEEDS_RESET);
        assert_eq!(bench.get(common::QUEUE_ENABLE), 0);
    }
}

#[test]
fn an_enabled_queue_does_not_change() {
    let mut bench = Bench::live();

    bench.set(common::QUEUE_SIZE, 2);
    bench.set(common::QUEUE_DESC, 0x5000);

    assert_eq!(bench.get(common::QUEUE_SIZE), 16);
    assert_eq!(bench.get(common::QUEUE_DESC), super::DESC);
}

#[test]
fn reset_forgets_everything_but_the_configuration_space() {
    let mut bench = Bench::live();
    bench.messages();

    bench.set(common::DEVICE_STATUS, 0);

    assert_eq!(bench.get(common::DEVICE_STATUS), 0);
    assert_eq!(bench.get(common::QUEUE_ENABLE), 0);
    assert_eq!(bench.get(common::QUEUE_MSIX_VECTOR), 0xffff);
    assert_eq!(bench.get(common::CONFIG_MSIX_VECTOR), 0xffff);
    assert_eq!(bench.device.resets, 1);
    assert!(bench.function.bus_master());
    let named = |text: &str| {
        let wanted = text.to_owned();
        move |e: &Event| matches!(e, Event::Name { text, .. } if *text == wanted)
    };
    assert!(bench.events().iter().any(named("RESET")));
}

#[test]
fn a_doorbell_tells_the_queue_and_its_available_index() {
    let mut bench = Bench::live();
    bench.offer(&[0, 0, 0]);

    bench.write(0, layout::NOTIFY, 2, 0);
    bench.write(0, layout::NOTIFY + 4, 2, 1);
    bench.write(0, layout::NOTIFY + 8, 2, 2);
    bench.write(0, layout::NOTIFY + 2, 2, 0);

    assert_eq!(bench.device.notified, [0, 1]);
    let told: Vec<_> = bench
        .events()
        .into_iter()
        .filter_map(|e| match e {
            Event::Notify {
                queue, available, ..
            } => Some((queue, available)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(0, Some(3)), (1, None)]);
}

#[test]
fn device_configuration_goes_to_the_device() {
    let mut bench = Bench::new();

    bench.write(0, layout::DEVICE + 4, 4, 7);

    assert_eq!(bench.device.written, [(4, 4, 7)]);
    assert_eq!(bench.read(0, layout::DEVICE + 8, 4), 0x1084);
}

proptest! {
    #[test]
    fn an_odd_read_sees_the_bytes_that_are_there(offset in 0u64..0x40, size in 1u8..9) {
        let mut bench = Bench::live();
        let whole: Vec<u8> = (0..0x48).map(|at| bench.read(0, at, 1) as u8).collect();

        let value = bench.read(0, offset, size);

        let mut expected = [0; 8];
        let from = offset as usize;
        expected[..size.into()].copy_from_slice(&whole[from..from + usize::from(size)]);
        prop_assert_eq!(value, u64::from_le_bytes(expected));
    }

    #[test]
    fn any_write_is_harmless(
        writes in prop::collection::vec((0u8..3, 0u64..0x4100, 0u8..10, any::<u64>()), 0..300),
    ) {
        let mut bench = Bench::live();
        for (bar, offset, size, value) in writes {
            bench.write(bar, (offset % 0x1000) | (offset & 0x3000), size, value);
            let _ = bench.read(bar, offset, size);
        }
        prop_assert!(bench.get(common::NUM_QUEUES) == 2);
    }
}
