//! Displays that come, go and change, their EDID, and UUIDs of resources.

use super::{Guest, RESPONSE, create, set_scanout, unref, words};
use crate::spec::{F_EDID, F_RESOURCE_UUID, command as code};
use crate::{GpuConfig, MAX_SCANOUT_SIDE, edid};
use pci::spec::virtio::common;
use proptest::prelude::*;
use scenario::Part;

fn guest(displays: &[(u32, u32)], features: u64) -> Guest {
    let config = GpuConfig {
        displays: displays.to_vec(),
        ..GpuConfig::default()
    };
    let mut guest = Guest::with(config, Part::None, false);
    guest.restart(features);
    guest
}

/// The answer to GET_DISPLAY_INFO: x, width, height and whether enabled.
fn info(guest: &mut Guest) -> Vec<[u32; 4]> {
    let code = guest.ask(&words(code::GET_DISPLAY_INFO, &[]));
    assert_eq!(code, code::OK_DISPLAY_INFO);
    let word = |at: usize| {
        let bytes = guest.peek(RESPONSE + 24 + 4 * at as u64, 4);
        u32::from_le_bytes(bytes.try_into().unwrap())
    };
    (0..16)
        .map(|n| [0, 2, 3, 4].map(|field| word(6 * n + field)))
        .collect()
}

fn get_edid(scanout: u32) -> Vec<u8> {
    words(code::GET_EDID, &[scanout, 0])
}

fn assign(resource: u32) -> Vec<u8> {
    words(code::RESOURCE_ASSIGN_UUID, &[resource, 0])
}

/// What a reader of an EDID block makes of its first detailed timing: size,
/// and frames in 100 seconds.
fn preferred(block: &[u8]) -> (u32, u32, u64) {
    let byte = |at: usize| u32::from(block[54 + at]);
    let width = byte(2) | (byte(4) & 0xf0) << 4;
    let h_blank = byte(3) | (byte(4) & 0xf) << 8;
    let height = byte(5) | (byte(7) & 0xf0) << 4;
    let v_blank = byte(6) | (byte(7) & 0xf) << 8;
    let clock = u64::from(byte(0) | byte(1) << 8) * 10_000;
    let total = u64::from(width + h_blank) * u64::from(height + v_blank);
    (width, height, clock * 100 / total)
}

fn assert_valid(block: &[u8]) {
    assert_eq!(block[..8], [0, 255, 255, 255, 255, 255, 255, 0]);
    assert_eq!(block[18..20], [1, 4]);
    assert_eq!(block[126], 0, "no extensions");
    let sum = block.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
    assert_eq!(sum, 0);
    let clock = u16::from_le_bytes([block[54], block[55]]);
    assert_ne!(clock, 0, "else it is no timing");
    // Porch and sync fit into the blanking.
    let (h_blank, v_blank) = (block[57], block[60]);
    assert!(u16::from(block[62]) + u16::from(block[63]) < u16::from(h_blank));
    assert!((block[64] >> 4) + (block[64] & 0xf) < v_blank || block[61] & 0xf != 0);
    for descriptor in [72, 90, 108] {
        assert_eq!(block[descriptor..descriptor + 3], [0; 3]);
    }
}

#[test]
fn an_edid_names_the_size_of_its_display() {
    let mut guest = guest(&[(1024, 768), (2560, 1440)], F_EDID);
    for (scanout, size) in [(0, (1024, 768)), (1, (2560, 1440))] {
        assert_eq!(guest.ask(&get_edid(scanout)), code::OK_EDID);

        assert_eq!(guest.used(0).2, 24 + 8 + 1024);
        assert_eq!(guest.peek(RESPONSE + 24, 8), 128u64.to_le_bytes());
        let block = guest.peek(RESPONSE + 32, 128);
        assert_valid(&block);
        let (width, height, rate) = preferred(&block);
        assert_eq!((width, height), size);
        assert!((5_990..=6_000).contains(&rate), "{rate}");
        assert_eq!(guest.peek(RESPONSE + 160, 896), vec![0; 896]);
    }
}

#[test]
fn the_clock_of_a_known_mode_is_that_of_cvt() {
    // 1920 x 1080 with reduced blanking, 60 Hz: 138.50 MHz, 2080 x 1111
    // (VESA CVT 1.2).
    let block = edid::block(0, (1920, 1080));

    let clock = u16::from_le_bytes([block[54], block[55]]);
    assert!(clock.abs_diff(13_850) < 30, "{clock}");
    assert_eq!((block[57], block[60]), (160, 31));
    assert_eq!(block[64], 3 << 4 | 5);
}

#[test]
fn established_timings_are_those_that_fit() {
    for (size, expected) in [
        ((639, 480), [0, 0]),
        ((640, 480), [0x20, 0]),
        ((800, 600), [0x21, 0]),
        ((1024, 768), [0x21, 0x08]),
    ] {
        assert_eq!(edid::block(0, size)[35..37], expected, "{size:?}");
    }
}

#[test]
fn displays_are_told_apart_by_their_serial_number() {
    let serial = |n| edid::block(n, (640, 480))[12..16].to_vec();

    assert_ne!(serial(0), serial(1));
}

proptest! {
    #[test]
    fn every_size_gives_a_valid_block(
        width in 1..=MAX_SCANOUT_SIDE, height in 1..=MAX_SCANOUT_SIDE, number in 0u32..16,
    ) {
        let block = edid::block(number, (width, height));

        assert_valid(&block);
        let (w, h, rate) = preferred(&block);
        prop_assert_eq!((w, h), (width.min(4095), height.min(4095)));
        prop_assert!(rate > 0);
    }
}

#[test]
fn an_edid_of_no_scanout_is_refused() {
    let mut guest = guest(&[(640, 480)], F_EDID);

    assert_eq!(guest.ask(&get_edid(1)), code::ERR_INVALID_SCANOUT_ID);
    assert_eq!(guest.ask(&get_edid(u32::MAX)), code::ERR_INVALID_SCANOUT_ID);
    assert_eq!(guest.ask(&get_edid(0)[..31]), code::ERR_INVALID_PARAMETER);
}

#[test]
fn without_the_feature_its_command_is_unknown() {
    for command in [get_edid(0), assign(7), get_edid(0)[..24].to_vec()] {
        let mut guest = guest(&[(640, 480)], 0);
        guest.ask(&create(7, 2, 16, 16));

        assert_eq!(guest.ask(&command), code::ERR_UNSPEC);
        assert_eq!(guest.used(0).2, 24);
    }
}

#[test]
fn a_display_that_is_off_takes_no_place() {
    let mut guest = guest(&[(800, 600), (0, 0), (640, 480)], F_EDID);

    let info = info(&mut guest);

    assert_eq!(info[0], [0, 800, 600, 1]);
    assert_eq!(info[1], [0; 4]);
    assert_eq!(info[2], [800, 640, 480, 1]);
    assert_eq!(guest.ask(&get_edid(1)), code::OK_EDID);
    assert_eq!(guest.peek(RESPONSE + 24, 136), vec![0; 136]);
}

#[test]
fn plugging_in_and_out_is_told() {
    let mut guest = guest(&[(800, 600), (0, 0)], F_EDID);
    for (size, expected) in [
        ((1280, 720), [800, 1280, 720, 1]),
        ((1920, 1080), [800, 1920, 1080, 1]),
        ((0, 0), [0; 4]),
    ] {
        guest.os.unit.take_messages();
        let dma = super::dma(&guest.os, &guest.gpu);

        assert!(guest.gpu.set_display(dma, 1, size.0, size.1));

        let data: Vec<u32> = guest
            .os
            .unit
            .take_messages()
            .iter()
            .map(|m| m.data)
            .collect();
        assert_eq!(data, [0x40]);
        assert_eq!(guest.gpu.bar_read(dma, 0, pci::layout::DEVICE, 4), 1);
        guest.gpu.bar_write(dma, 0, pci::layout::DEVICE + 4, 4, 1);
        assert_eq!(info(&mut guest)[1], expected);
    }
}

#[test]
fn a_display_greater_than_a_scanout_is_refused() {
    let mut guest = guest(&[(800, 600)], 0);
    let dma = super::dma(&guest.os, &guest.gpu);

    assert!(!guest.gpu.set_display(dma, 0, MAX_SCANOUT_SIDE + 1, 600));

    assert!(guest.os.unit.take_messages().is_empty());
    assert_eq!(info(&mut guest)[0], [0, 800, 600, 1]);
}

#[test]
fn before_driver_ok_a_change_is_noted_and_not_told() {
    let mut guest = guest(&[(800, 600)], 0);
    guest.set(common::DEVICE_STATUS, 0);
    guest.prepare();
    let dma = super::dma(&guest.os, &guest.gpu);

    assert!(guest.gpu.set_display(dma, 0, 640, 480));

    assert!(guest.os.unit.take_messages().is_empty());
    assert_eq!(guest.gpu.bar_read(dma, 0, pci::layout::DEVICE, 4), 1);
}

#[test]
fn a_scanout_goes_on_when_its_display_is_unplugged() {
    let mut guest = guest(&[(800, 600)], 0);
    guest.show(7, 16, 16);
    let dma = super::dma(&guest.os, &guest.gpu);
    guest.gpu.set_display(dma, 0, 0, 0);

    assert_eq!(guest.ask(&super::flush(7, (0, 0, 16, 16))), code::OK_NODATA);
    assert_eq!(guest.ask(&set_scanout(0, 7, (0, 0, 8, 8))), code::OK_NODATA);

    assert!(guest.gpu.frame(0).is_some());
}

#[test]
fn at_most_16_scanouts_are_there() {
    let mut guest = guest(&[(64, 64); 20], 0);

    assert_eq!(info(&mut guest)[15], [15 * 64, 64, 64, 1]);
    assert_eq!(
        guest.ask(&set_scanout(16, 0, (0, 0, 0, 0))),
        code::ERR_INVALID_SCANOUT_ID
    );
}

#[test]
fn a_uuid_stays_and_is_never_given_again() {
    let mut guest = guest(&[(64, 64)], F_RESOURCE_UUID);
    let mut seen = Vec::new();
    let uuid = |guest: &mut Guest, id| {
        assert_eq!(guest.ask(&assign(id)), code::OK_RESOURCE_UUID);
        assert_eq!(guest.used(0).2, 24 + 16);
        guest.peek(RESPONSE + 24, 16)
    };
    for id in [1, 2] {
        guest.ask(&create(id, 2, 16, 16));
        let first = uuid(&mut guest, id);
        assert_eq!(uuid(&mut guest, id), first);
        seen.push(first);
    }
    guest.ask(&unref(1));
    guest.ask(&create(1, 2, 16, 16));
    seen.push(uuid(&mut guest, 1));
    guest.restart(F_RESOURCE_UUID);
    guest.ask(&create(1, 2, 16, 16));
    seen.push(uuid(&mut guest, 1));

    for (at, uuid) in seen.iter().enumerate() {
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (8, 2), "RFC 9562, version 8");
        assert!(!seen[..at].contains(uuid));
    }
}

#[test]
fn a_uuid_of_no_resource_is_refused() {
    let mut guest = guest(&[(64, 64)], F_RESOURCE_UUID);

    for id in [0, 1] {
        assert_eq!(guest.ask(&assign(id)), code::ERR_INVALID_RESOURCE_ID);
    }
}
