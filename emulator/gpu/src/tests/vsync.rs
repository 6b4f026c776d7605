//! Pictures in blobs, read at each vsync of virtual time.

use super::{
    BACKING, Guest, attach, blob, create, create_blob, detach, flush, pixel, set_scanout,
    set_scanout_blob, transfer, unref,
};
use crate::frame::Frame;
use crate::spec::format::FORMATS;
use crate::spec::{F_RESOURCE_BLOB, command as code};
use crate::{GpuConfig, Stepped, VSYNC_PERIOD};
use iommu::testing::{READ_WRITE, global};
use journal::event::{ContextId, Event};
use memory::{Gpa, Iova};
use pci::spec::virtio::common;
use scenario::Part;

const SIDE: u32 = 64;
const BYTES: u32 = SIDE * SIDE * 4;
const WHOLE: super::Xywh = (0, 0, SIDE, SIDE);
const PICTURE: (u32, u32, u32, u32, u32) = (SIDE, SIDE, 2, SIDE * 4, 0);

/// Blob 7 with four pages of picture 1, shown on scanout 0.
fn guest(part: Part) -> Guest {
    let mut guest = Guest::isolated(part);
    guest.restart(F_RESOURCE_BLOB);
    guest.draw(1, SIDE, SIDE);
    assert_eq!(guest.ask(&create_blob(7, BYTES)), code::OK_NODATA);
    let shown = set_scanout_blob((0, 7), WHOLE, PICTURE);
    assert_eq!(guest.ask(&shown), code::OK_NODATA);
    guest
}

fn vsync(guest: &mut Guest) {
    guest.os.scenario.advance(VSYNC_PERIOD);
    guest.run();
}

/// Steps until the read of the blob's page `page` was made or is in flight.
fn until_page(guest: &mut Guest, page: u64) {
    for _ in 0..100 {
        if reads(guest, 0).contains(&page) {
            return;
        }
        guest.step();
    }
    panic!("page {page} is never read");
}

/// Pages of the blob that were read, from event `from` on.
fn reads(guest: &Guest, from: usize) -> Vec<u64> {
    guest.events()[from..]
        .iter()
        .filter_map(|e| match e {
            Event::Access { iova, .. } if iova.0 >= BACKING => Some((iova.0 - BACKING) / 4096),
            _ => None,
        })
        .collect()
}

fn shows(guest: &Guest, seed: u64) -> bool {
    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!((frame.width, frame.height), (SIDE, SIDE));
    (0..SIDE).all(|y| (0..SIDE).all(|x| frame.pixel(x, y) == Some(pixel(seed, x, y))))
}

#[test]
fn nothing_is_read_before_the_vsync() {
    let mut guest = guest(Part::None);
    assert_eq!(guest.gpu.next_vsync(), Some(VSYNC_PERIOD));
    assert!(!guest.gpu.has_work() && !guest.gpu.has_work_at(VSYNC_PERIOD - 1));
    guest.os.scenario.advance(VSYNC_PERIOD - 1);

    assert_eq!(guest.step(), Stepped::Idle);

    assert!(guest.gpu.frame(0).is_none());
    assert!(guest.gpu.has_work_at(VSYNC_PERIOD));
}

#[test]
fn each_vsync_shows_what_is_in_memory() {
    let mut guest = guest(Part::None);
    for seed in [1, 2, 3] {
        guest.draw(seed, SIDE, SIDE);

        vsync(&mut guest);

        assert!(shows(&guest, seed));
        let crc = guest.gpu.frame(0).unwrap().crc();
        let flushed = |e: &Event| matches!(e, Event::Flush { crc: c, .. } if *c == crc);
        assert!(guest.events().iter().any(flushed));
    }
}

#[test]
fn a_flush_waits_for_the_vsync() {
    let mut guest = guest(Part::None);
    vsync(&mut guest);
    guest.draw(2, SIDE, SIDE);

    assert_eq!(guest.ask(&flush(7, WHOLE)), code::OK_NODATA);

    assert!(shows(&guest, 1));
}

#[test]
fn each_page_is_a_step_of_a_context_of_its_own() {
    let mut guest = guest(Part::None);
    guest.os.scenario.advance(VSYNC_PERIOD);
    let before = guest.events().len();

    let steps = guest.run();

    assert_eq!(steps, 1 + 4);
    assert_eq!(reads(&guest, before), [0, 1, 2, 3]);
    let events = guest.events().split_off(before);
    let minted: Vec<(ContextId, u16, u16)> = events
        .iter()
        .filter_map(|e| match e {
            Event::Context {
                context,
                queue,
                head,
                ..
            } => Some((*context, *queue, *head)),
            _ => None,
        })
        .collect();
    let [(context, pci::NO_QUEUE, 0)] = minted[..] else {
        panic!("{minted:?}");
    };
    for event in &events {
        if let Event::Access { context: whose, .. } = event {
            assert_eq!(*whose, context);
        }
    }
    assert!(
        guest
            .told()
            .ends_with(&["SCANOUT (vsync)", "OK_NODATA"].map(String::from))
    );
}

#[test]
fn missed_vsyncs_are_not_made_up_for() {
    let mut guest = guest(Part::None);
    guest.os.scenario.advance(10 * VSYNC_PERIOD + 5);
    let before = guest.events().len();

    guest.run();

    assert_eq!(reads(&guest, before).len(), 4);
    assert_eq!(guest.gpu.next_vsync(), Some(11 * VSYNC_PERIOD));
}

#[test]
fn the_first_vsync_comes_after_the_scanout_is_set() {
    let mut guest = guest(Part::None);
    guest.ask(&set_scanout(0, 0, (0, 0, 0, 0)));
    assert_eq!(guest.gpu.next_vsync(), None);
    guest.os.scenario.advance(5 * VSYNC_PERIOD + 7);

    guest.ask(&set_scanout_blob((0, 7), WHOLE, PICTURE));

    assert_eq!(guest.gpu.next_vsync(), Some(6 * VSYNC_PERIOD));
    assert!(guest.gpu.frame(0).is_none());
}

#[test]
fn a_page_that_is_gone_faults_and_the_frame_shows_what_was_read() {
    let mut guest = guest(Part::None);
    vsync(&mut guest);
    guest.draw(2, SIDE, SIDE);
    let third = BACKING + 0x2000;
    guest.os.map(guest.top.unwrap(), Iova(third), Gpa(0), 0);
    assert!(guest.os.run(global(true)));
    let before = guest.events().len();

    vsync(&mut guest);

    assert_eq!(reads(&guest, before), [0, 1, 2]);
    let faults: Vec<Iova> = guest
        .events()
        .iter()
        .filter_map(|e| match e {
            Event::Fault {
                iova, write: false, ..
            } => Some(*iova),
            _ => None,
        })
        .collect();
    assert_eq!(faults, [Iova(third)]);
    assert_eq!(guest.told().last().unwrap(), "ERR_UNSPEC");
    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!(frame.pixel(5, 31), Some(pixel(2, 5, 31)));
    assert_eq!(frame.pixel(5, 32), Some(pixel(1, 5, 32)));
    // The device goes on, and so does the display.
    let page = Gpa(third);
    guest
        .os
        .map(guest.top.unwrap(), Iova(third), page, READ_WRITE);
    vsync(&mut guest);
    assert!(shows(&guest, 2));
}

#[test]
fn a_picture_is_found_by_offset_stride_rectangle_and_format() {
    // R8G8B8A8, 40 x 20 in rows of 203 bytes from byte 4093: every pixel that
    // crosses a page is in two pieces.
    let (width, height, stride, offset) = (40u32, 20u32, 203u32, 4093u32);
    let mut guest = Guest::isolated(Part::None);
    guest.restart(F_RESOURCE_BLOB);
    for y in 0..height {
        for x in 0..width {
            let [b, g, r, _] = pixel(4, x, y).to_le_bytes();
            let at = offset + y * stride + x * 4;
            guest.poke(BACKING + u64::from(at), &[r, g, b, 0xaa]);
        }
    }
    guest.ask(&create_blob(7, 0x4000));
    let shown = (3, 2, 30, 15);
    let picture = (width, height, 67, stride, offset);
    assert_eq!(
        guest.ask(&set_scanout_blob((0, 7), shown, picture)),
        code::OK_NODATA
    );

    vsync(&mut guest);

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!((frame.width, frame.height), (30, 15));
    for (x, y) in (0..30).flat_map(|x| (0..15).map(move |y| (x, y))) {
        assert_eq!(frame.pixel(x, y), Some(pixel(4, x + 3, y + 2)), "{x},{y}");
    }
}

#[test]
fn backing_that_comes_later_is_read_then() {
    let mut guest = Guest::isolated(Part::None);
    guest.restart(F_RESOURCE_BLOB);
    guest.draw(1, SIDE, SIDE);
    guest.ask(&blob(7, (1, 0), BYTES.into(), &[]));
    guest.ask(&set_scanout_blob((0, 7), WHOLE, PICTURE));
    assert_eq!(guest.gpu.next_vsync(), None);
    guest.os.scenario.advance(3 * VSYNC_PERIOD);

    guest.ask(&attach(7, &[(BACKING, BYTES)]));

    assert_eq!(guest.gpu.next_vsync(), Some(4 * VSYNC_PERIOD));
    assert!(guest.gpu.frame(0).is_none());
    vsync(&mut guest);
    assert!(shows(&guest, 1));
}

#[test]
fn what_is_taken_away_in_mid_vsync_is_read_no_further() {
    for (name, command) in [
        ("unref", unref(7)),
        ("detach", detach(7)),
        (
            "off",
            set_scanout_blob((0, 0), (0, 0, 0, 0), (0, 0, 0, 0, 0)),
        ),
        ("2D", set_scanout(0, 9, (0, 0, 1, 1))),
    ] {
        for part in [Part::None, Part::All] {
            let mut guest = guest(part);
            guest.ask(&create(9, 2, 1, 1));
            guest.os.scenario.advance(VSYNC_PERIOD);
            guest.queue(0, &command, 24);
            until_page(&mut guest, 0);
            guest.run();

            assert_eq!(guest.code(), code::OK_NODATA, "{name}");
            let events = guest.events();
            let answered = events
                .iter()
                .rposition(|e| {
                    matches!(
                        e,
                        Event::Response {
                            code: code::OK_NODATA,
                            ..
                        }
                    )
                })
                .unwrap();
            assert!(reads(&guest, answered).is_empty(), "{name}");
            assert!(reads(&guest, 0).len() < 4, "{name}");
            assert!(!guest.told().contains(&"ERR_UNSPEC".to_owned()), "{name}");
            assert_eq!(guest.gpu.next_vsync(), None, "{name}");
            assert!(guest.gpu.frame(0).is_some(), "{name}");
        }
    }
}

#[test]
fn no_command_goes_on_while_a_read_of_the_vsync_is_in_flight() {
    let mut guest = guest(Part::Reads);
    guest.os.scenario.advance(VSYNC_PERIOD);
    until_page(&mut guest, 0);
    assert_eq!(guest.os.unit.in_flight(), 1);
    guest.queue(0, &unref(7), 24);

    for _ in 0..10 {
        assert_eq!(guest.step(), Stepped::Waiting);
    }

    assert_eq!(guest.used(0).0, 2);
    guest.run();
    assert_eq!((guest.used(0).0, guest.code()), (3, code::OK_NODATA));
}

#[test]
fn commands_and_the_vsync_take_turns() {
    let mut guest = guest(Part::None);
    guest.os.scenario.advance(VSYNC_PERIOD);
    guest.queue(0, &create(9, 2, 16, 16), 24);
    for _ in 0..6 {
        guest.step();
    }

    // Three each: the vsync began and read twice, the command was taken, read
    // and answered.
    assert_eq!(reads(&guest, 0), [0, 1]);
    assert_eq!((guest.used(0).0, guest.code()), (2, code::OK_NODATA));
    guest.run();
    assert_eq!(guest.used(0).0, 3);
    assert!(shows(&guest, 1));
}

#[test]
fn every_scanout_is_read_at_a_vsync() {
    let config = GpuConfig {
        displays: vec![(64, 64); 3],
        ..GpuConfig::default()
    };
    let mut guest = Guest::with(config, Part::None, false);
    guest.restart(F_RESOURCE_BLOB);
    guest.draw(1, SIDE, SIDE);
    guest.ask(&create_blob(7, BYTES));
    for scanout in [0, 2] {
        guest.ask(&set_scanout_blob((scanout, 7), WHOLE, PICTURE));
    }

    vsync(&mut guest);

    assert!(shows(&guest, 1));
    assert!(guest.gpu.frame(1).is_none());
    assert_eq!(guest.gpu.frame(2), guest.gpu.frame(0));
}

#[test]
fn a_2d_scanout_has_no_vsync() {
    let mut guest = Guest::isolated(Part::None);
    guest.show(7, 16, 16);
    guest.ask(&transfer(7, (0, 0, 16, 16), 0));
    let before = guest.events().len();

    vsync(&mut guest);

    assert_eq!(guest.gpu.next_vsync(), None);
    assert!(reads(&guest, before).is_empty());
}

#[test]
fn a_reset_ends_the_vsync_and_its_reads() {
    let mut guest = guest(Part::Reads);
    guest.os.scenario.advance(VSYNC_PERIOD);
    until_page(&mut guest, 0);

    guest.set(common::DEVICE_STATUS, 0);

    assert_eq!(guest.os.unit.in_flight(), 0);
    assert!(!guest.gpu.has_work());
    assert_eq!(guest.gpu.next_vsync(), None);
    guest.restart(F_RESOURCE_BLOB);
    assert_eq!(guest.ask(&create(7, 2, 16, 16)), code::OK_NODATA);
}

#[test]
fn without_bus_mastering_the_vsync_faults() {
    let mut guest = guest(Part::None);
    let dma = super::dma(&guest.os, &guest.gpu);
    guest.gpu.config_write(dma, 0x04, 2, 0x2);

    vsync(&mut guest);

    assert_eq!(guest.told().last().unwrap(), "ERR_UNSPEC");
}

#[test]
fn restored_at_any_step_of_a_vsync_the_journal_goes_on_the_same() {
    for part in [Part::None, Part::All] {
        let mut guest = guest(part);
        guest.os.scenario.advance(VSYNC_PERIOD);
        guest.queue(0, &create(9, 2, 16, 16), 24);
        let mut points = Vec::new();
        let step = |guest: &mut Guest| match guest.step() {
            Stepped::Waiting => {
                let dma = guest.os.dma(guest.gpu.requester());
                guest.gpu.step_landing(dma)
            }
            other => other,
        };
        loop {
            points.push((
                guest.gpu.save(),
                guest.os.unit.save(),
                guest.os.scenario.save(),
                guest.os.scenario.journal().save(),
                guest.os.memory.save().unwrap(),
            ));
            if step(&mut guest) == Stepped::Idle {
                break;
            }
        }
        let whole = guest.os.scenario.journal().bytes();
        assert!(points.len() > 10);

        for (gpu, unit, scenario, journal, memory) in points.iter().rev() {
            guest.gpu.restore(gpu);
            guest.os.unit.restore(unit);
            guest.os.scenario.restore(scenario);
            guest.os.scenario.journal().restore(journal).unwrap();
            guest.os.memory.restore(memory).unwrap();
            while step(&mut guest) != Stepped::Idle {}

            assert_eq!(guest.os.scenario.journal().bytes(), whole);
        }
    }
}

#[test]
fn whole_pixels_are_converted_as_their_single_bytes_are() {
    let bytes: Vec<u8> = (0..64).map(|n| n * 3 + 1).collect();
    for format in FORMATS {
        let (mut whole, mut single) = (Frame::black(4, 4), Frame::black(4, 4));
        let filled = whole.fill(0, 64, format, |to| {
            to.copy_from_slice(&bytes);
            Ok::<(), ()>(())
        });
        single.put(0, &bytes, format);
        assert_eq!(filled, Some(Ok(())));
        assert_eq!(whole, single, "{}", format.name);
    }
}

#[test]
fn what_is_no_whole_pixels_or_cannot_be_read_leaves_the_frame() {
    let mut frame = Frame::black(4, 4);
    let before = frame.clone();
    let format = &FORMATS[4];
    let all = |to: &mut [u8]| -> Result<(), ()> {
        to.fill(7);
        Ok(())
    };
    for (at, length) in [(2, 8), (4, 7), (60, 8), (u64::MAX, 4)] {
        assert_eq!(frame.fill(at, length, format, all), None);
    }
    assert_eq!(frame.fill(0, 8, format, |_| Err(())), Some(Err(())));
    assert_eq!(frame, before);
}
