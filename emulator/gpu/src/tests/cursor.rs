//! The cursor over the frame.

use super::{BACKING, Guest, attach, create, flush, pixel, transfer, unref, words};
use crate::spec::command as code;
use crate::{Frame, GpuConfig};
use pci::spec::virtio::common;
use scenario::Part;

const RED: u32 = 0xffff_0000;

fn update(at: (i32, i32), image: u32, hot: (u32, u32)) -> Vec<u8> {
    let (x, y) = (at.0 as u32, at.1 as u32);
    words(code::UPDATE_CURSOR, &[0, x, y, 0, image, hot.0, hot.1, 0])
}

fn motion(at: (i32, i32)) -> Vec<u8> {
    let (x, y) = (at.0 as u32, at.1 as u32);
    words(code::MOVE_CURSOR, &[0, x, y, 0, 0, 0, 0, 0])
}

/// A frame of 100 x 80 on scanout 0, and a cursor image of one colour as
/// resource 9.
fn guest(format: u32, colour: u32) -> Guest {
    let mut guest = Guest::new();
    guest.show(7, 100, 80);
    guest.draw(1, 100, 80);
    guest.ask(&transfer(7, (0, 0, 100, 80), 0));
    guest.ask(&flush(7, (0, 0, 100, 80)));
    let at = BACKING + 0x10_0000;
    guest.poke(at, &colour.to_le_bytes().repeat(64 * 64));
    guest.ask(&create(9, format, 64, 64));
    guest.ask(&attach(9, &[(at, 64 * 64 * 4)]));
    guest.ask(&transfer(9, (0, 0, 64, 64), 0));
    guest
}

fn command(guest: &mut Guest, command: &[u8]) -> u32 {
    guest.queue(1, command, 24);
    guest.run();
    guest.code()
}

/// The rectangle (left, top, right, bottom) of pixels that are `colour`.
fn bounds(frame: &Frame, colour: u32) -> Option<(u32, u32, u32, u32)> {
    let all = (0..frame.height).flat_map(|y| (0..frame.width).map(move |x| (x, y)));
    all.filter(|&(x, y)| frame.pixel(x, y) == Some(colour))
        .fold(None, |found, (x, y)| match found {
            None => Some((x, y, x, y)),
            Some((l, t, r, b)) => Some((l.min(x), t.min(y), r.max(x), b.max(y))),
        })
}

#[test]
fn the_cursor_lies_over_the_frame_by_its_hot_spot() {
    for (at, hot, expected) in [
        ((10, 5), (0, 0), Some((10, 5, 73, 68))),
        ((10, 5), (4, 3), Some((6, 2, 69, 65))),
        ((0, 0), (16, 16), Some((0, 0, 47, 47))),
        ((-60, -61), (0, 0), Some((0, 0, 3, 2))),
        ((99, 79), (0, 0), Some((99, 79, 99, 79))),
        ((100, 0), (0, 0), None),
        ((-64, 0), (0, 0), None),
        ((i32::MIN, i32::MAX), (u32::MAX, u32::MAX), None),
    ] {
        let mut guest = guest(1, RED);

        assert_eq!(command(&mut guest, &update(at, 9, hot)), code::OK_NODATA);

        let seen = guest.gpu.frame_with_cursor(0).unwrap();
        assert_eq!(bounds(&seen, 0xff_0000), expected, "{at:?} {hot:?}");
    }
}

#[test]
fn the_flushed_frame_stays_without_the_cursor() {
    let mut guest = guest(1, RED);
    let before = guest.gpu.frame(0).unwrap().crc();

    command(&mut guest, &update((0, 0), 9, (0, 0)));

    assert_eq!(guest.gpu.frame(0).unwrap().crc(), before);
    assert_ne!(guest.gpu.frame_with_cursor(0).unwrap().crc(), before);
}

#[test]
fn a_move_keeps_image_and_hot_spot() {
    let mut guest = guest(1, RED);
    command(&mut guest, &update((50, 50), 9, (2, 1)));

    assert_eq!(command(&mut guest, &motion((12, 11))), code::OK_NODATA);

    let seen = guest.gpu.frame_with_cursor(0).unwrap();
    assert_eq!(bounds(&seen, 0xff_0000), Some((10, 10, 73, 73)));
}

#[test]
fn a_move_without_an_image_shows_nothing() {
    let mut guest = guest(1, RED);

    command(&mut guest, &motion((0, 0)));

    assert_eq!(guest.gpu.frame_with_cursor(0).as_ref(), guest.gpu.frame(0));
}

#[test]
fn alpha_mixes_and_a_format_without_it_is_opaque() {
    for (format, colour, expected) in [
        (1, 0x0000_00ff, None),
        (1, 0xff12_3456, Some(0x12_3456)),
        (2, 0x0012_3456, Some(0x12_3456)),
        (3, 0x5634_12ff, Some(0x12_3456)),
        (67, 0xff56_3412, Some(0x12_3456)),
    ] {
        let mut guest = guest(format, colour);

        command(&mut guest, &update((0, 0), 9, (0, 0)));

        let seen = guest.gpu.frame_with_cursor(0).unwrap().pixel(3, 4).unwrap();
        let expected = expected.unwrap_or_else(|| pixel(1, 3, 4));
        assert_eq!(seen, expected, "{format} {colour:#x}");
    }
}

#[test]
fn half_alpha_is_the_mean() {
    let mut guest = guest(1, 0x80ff_ff00);
    let under = guest.gpu.frame(0).unwrap().pixel(5, 5).unwrap();

    command(&mut guest, &update((0, 0), 9, (0, 0)));

    let seen = guest.gpu.frame_with_cursor(0).unwrap().pixel(5, 5).unwrap();
    for (shift, over) in [(0, 0), (8, 255), (16, 255u32)] {
        let (seen, under) = (seen >> shift & 0xff, under >> shift & 0xff);
        assert!(seen.abs_diff((over + under) / 2) <= 1, "{shift}");
    }
}

#[test]
fn the_image_is_loaded_once_and_outlives_its_resource() {
    let mut guest = guest(1, RED);
    command(&mut guest, &update((0, 0), 9, (0, 0)));

    guest.ask(&unref(9));

    let seen = guest.gpu.frame_with_cursor(0).unwrap();
    assert_eq!(seen.pixel(1, 1), Some(0xff_0000));
}

#[test]
fn resource_0_and_a_reset_hide_the_cursor() {
    for reset in [false, true] {
        let mut guest = guest(1, RED);
        command(&mut guest, &update((0, 0), 9, (0, 0)));

        if reset {
            guest.set(common::DEVICE_STATUS, 0);
        } else {
            command(&mut guest, &update((0, 0), 0, (0, 0)));
        }

        assert_eq!(guest.gpu.frame_with_cursor(0).as_ref(), guest.gpu.frame(0));
    }
}

#[test]
fn a_refused_update_leaves_the_cursor_as_it_was() {
    let mut guest = guest(1, RED);
    command(&mut guest, &update((10, 10), 9, (0, 0)));
    let before = guest.gpu.frame_with_cursor(0);

    for image in [7, 8] {
        assert_ne!(
            command(&mut guest, &update((0, 0), image, (0, 0))),
            code::OK_NODATA
        );
    }

    assert_eq!(guest.gpu.frame_with_cursor(0), before);
}

#[test]
fn each_scanout_has_its_cursor() {
    let config = GpuConfig {
        displays: vec![(64, 64), (64, 64)],
        ..GpuConfig::default()
    };
    let mut guest = Guest::with(config, Part::None, false);
    guest.show(7, 100, 80);
    guest.ask(&super::set_scanout(1, 7, (0, 0, 64, 64)));
    guest.ask(&flush(7, (0, 0, 100, 80)));
    guest.ask(&create(9, 2, 64, 64));
    guest.poke(BACKING, &[0xff; 64 * 64 * 4]);
    guest.ask(&attach(9, &[(BACKING, 64 * 64 * 4)]));
    guest.ask(&transfer(9, (0, 0, 64, 64), 0));
    let mut second = update((0, 0), 9, (0, 0));
    second[24] = 1;

    assert_eq!(command(&mut guest, &second), code::OK_NODATA);

    assert_eq!(guest.gpu.frame_with_cursor(0).as_ref(), guest.gpu.frame(0));
    let seen = guest.gpu.frame_with_cursor(1).unwrap();
    assert_eq!(seen.pixel(63, 63), Some(0xff_ffff));
}
