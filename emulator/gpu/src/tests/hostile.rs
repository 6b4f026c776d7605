//! Rings and commands that nobody sane writes.

use super::{BACKING, COMMAND, Guest, RINGS, words};
use crate::spec::{F_EDID, F_RESOURCE_BLOB, F_RESOURCE_UUID, command as code};
use crate::{GpuConfig, fuzzing};
use pci::spec::virtio::DESC_NEXT;
use proptest::prelude::*;
use scenario::Part;

fn small(part: Part) -> Guest {
    let config = GpuConfig {
        max_pixel_bytes: 1 << 18,
        ..GpuConfig::default()
    };
    Guest::with(config, part, false)
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0u32..4,
        2 => Just(64u32),
        1 => Just(BACKING as u32),
        1 => any::<u32>(),
    ]
}

fn kind() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => code::GET_DISPLAY_INFO..=code::RESOURCE_DETACH_BACKING,
        4 => code::GET_EDID..=code::SET_SCANOUT_BLOB,
        1 => code::RESOURCE_MAP_BLOB..=code::RESOURCE_UNMAP_BLOB,
        1 => code::UPDATE_CURSOR..=code::MOVE_CURSOR,
        1 => any::<u32>(),
    ]
}

proptest! {
    #[test]
    fn any_input_of_the_fuzzer_comes_to_rest(
        data in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        fuzzing::fuzz(&data);
    }

    #[test]
    fn any_ring_comes_to_rest(
        ring in prop::collection::vec(any::<u8>(), 0x1100),
        flags in prop::collection::vec(0u16..8, 64),
        index in any::<u16>(),
    ) {
        let mut guest = small(Part::None);
        guest.poke(RINGS, &ring);
        // Some descriptors that are nearly sane.
        for (at, flags) in flags.iter().enumerate() {
            let next = (at as u16 * 7 + 1) % 64;
            guest.descriptor(0, at as u64, (COMMAND, 64, *flags, next));
        }
        guest.offer(0, index % 300);
        guest.poke(RINGS + 0x1002, &(index % 300).to_le_bytes());

        guest.run();

        prop_assert!(!guest.gpu.has_work());
    }

    #[test]
    fn any_commands_are_answered(
        commands in prop::collection::vec(
            (kind(), prop::collection::vec(number(), 0..20)),
            1..12,
        ),
    ) {
        let mut guest = small(Part::None);
        guest.restart(F_EDID | F_RESOURCE_UUID | F_RESOURCE_BLOB);
        for (kind, rest) in &commands {
            guest.os.scenario.advance(crate::VSYNC_PERIOD);
            let code = guest.ask(&words(*kind, rest));
            prop_assert!((0x1100..=0x1205).contains(&code));
        }
        let count = commands.len() as u16;
        prop_assert_eq!(guest.used(0).0, count);
    }
}

#[test]
fn a_huge_buffer_is_read_only_as_far_as_needed() {
    let mut guest = small(Part::None);
    guest.poke(COMMAND, &words(code::GET_DISPLAY_INFO, &[]));
    guest.descriptor(0, 0, (COMMAND, u32::MAX, 0, 0));
    guest.offer(0, 0);

    let steps = guest.run();

    assert_eq!(steps, 6);
}

#[test]
fn a_full_ring_of_long_chains_is_worked_off() {
    let mut guest = small(Part::None);
    for at in 0..255 {
        guest.descriptor(0, at, (COMMAND + at, 1, DESC_NEXT, at as u16 + 1));
    }
    guest.descriptor(0, 255, (COMMAND + 255, 1, 0, 0));
    for _ in 0..256 {
        guest.offer(0, 0);
    }

    guest.run();

    assert_eq!(guest.used(0).0, 256);
}

#[test]
fn the_fuzzer_reaches_commands() {
    // Flags; then: offer on queue 0 a GET_DISPLAY_INFO without words.
    for (flags, name) in [
        (0u8, "plain"),
        (1, "parted"),
        (2, "translated"),
        (3, "both"),
    ] {
        let steps = fuzzing::fuzz(&[flags, 1, 0, 0, 0]);

        assert!(steps > 6, "{name}: {steps}");
    }
}
