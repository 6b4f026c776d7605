use super::{
    BACKING, COMMAND, Guest, RESPONSE, attach, create, detach, flush, pixel, set_scanout, transfer,
    unref, words,
};
use crate::GpuConfig;
use crate::spec::command as code;
use journal::event::Event;
use pci::spec::virtio::{DESC_NEXT, DESC_WRITE};
use scenario::Part;

#[test]
fn a_frame_goes_from_backing_to_scanout() {
    let mut guest = Guest::new();
    let whole = (0, 0, 100, 60);
    guest.show(7, 100, 60);
    guest.draw(1, 100, 60);

    assert_eq!(guest.ask(&transfer(7, whole, 0)), code::OK_NODATA);
    assert!(guest.gpu.frame(0).is_none());
    assert_eq!(guest.ask(&flush(7, whole)), code::OK_NODATA);

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!((frame.width, frame.height), (100, 60));
    for (x, y) in [(0, 0), (99, 0), (0, 59), (99, 59), (37, 41)] {
        assert_eq!(frame.pixel(x, y), Some(pixel(1, x, y)));
    }
    assert_eq!(frame.pixel(100, 0), None);
    let crc = frame.crc();
    assert!(guest.events().contains(&Event::Flush {
        scanout: 0,
        width: 100,
        height: 60,
        crc
    }));
}

#[test]
fn a_life_of_a_resource_is_told_in_order() {
    let mut guest = Guest::new();
    guest.show(7, 16, 16);
    guest.ask(&transfer(7, (0, 0, 16, 16), 0));
    guest.ask(&flush(7, (0, 0, 16, 16)));
    guest.ask(&set_scanout(0, 0, (0, 0, 0, 0)));
    guest.ask(&detach(7));
    guest.ask(&unref(7));

    let commands: Vec<String> = guest.told().into_iter().step_by(2).collect();
    let responses: Vec<String> = guest.told().into_iter().skip(1).step_by(2).collect();
    assert_eq!(
        commands,
        [
            "RESOURCE_CREATE_2D",
            "RESOURCE_ATTACH_BACKING",
            "SET_SCANOUT",
            "TRANSFER_TO_HOST_2D",
            "RESOURCE_FLUSH",
            "SET_SCANOUT",
            "RESOURCE_DETACH_BACKING",
            "RESOURCE_UNREF",
        ]
    );
    assert!(responses.iter().all(|r| r == "OK_NODATA"));
    // One interrupt for each, on the control queue's vector.
    let messages = guest.os.unit.take_messages();
    assert_eq!(messages.iter().filter(|m| m.data == 0x41).count(), 8);
}

#[test]
fn the_last_frame_stays_when_the_scanout_goes_off() {
    let mut guest = Guest::new();
    guest.show(7, 16, 16);
    guest.draw(3, 16, 16);
    guest.ask(&transfer(7, (0, 0, 16, 16), 0));
    guest.ask(&flush(7, (0, 0, 16, 16)));
    let crc = guest.gpu.frame(0).unwrap().crc();

    guest.ask(&unref(7));
    guest.set(pci::spec::virtio::common::DEVICE_STATUS, 0);

    assert_eq!(guest.gpu.frame(0).unwrap().crc(), crc);
}

#[test]
fn a_part_is_transferred_by_rows() {
    let mut guest = Guest::new();
    guest.show(7, 64, 64);
    guest.draw(1, 64, 64);
    let part = (10, 20, 30, 5);
    let offset = (20 * 64 + 10) * 4;

    assert_eq!(guest.ask(&transfer(7, part, offset)), code::OK_NODATA);
    guest.ask(&flush(7, (0, 0, 64, 64)));

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!(frame.pixel(10, 20), Some(pixel(1, 10, 20)));
    assert_eq!(frame.pixel(39, 24), Some(pixel(1, 39, 24)));
    assert_eq!(frame.pixel(9, 20), Some(0));
    assert_eq!(frame.pixel(40, 24), Some(0));
    assert_eq!(frame.pixel(10, 25), Some(0));
}

#[test]
fn a_flush_changes_only_its_part() {
    let mut guest = Guest::new();
    let whole = (0, 0, 64, 64);
    guest.show(7, 64, 64);
    guest.draw(1, 64, 64);
    guest.ask(&transfer(7, whole, 0));
    guest.ask(&flush(7, whole));
    guest.draw(2, 64, 64);
    guest.ask(&transfer(7, whole, 0));

    guest.ask(&flush(7, (8, 8, 8, 8)));

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!(frame.pixel(7, 8), Some(pixel(1, 7, 8)));
    assert_eq!(frame.pixel(8, 8), Some(pixel(2, 8, 8)));
    assert_eq!(frame.pixel(15, 15), Some(pixel(2, 15, 15)));
    assert_eq!(frame.pixel(16, 15), Some(pixel(1, 16, 15)));
}

#[test]
fn a_scanout_shows_its_part_of_the_resource() {
    let mut guest = Guest::new();
    guest.show(7, 64, 64);
    guest.draw(1, 64, 64);
    guest.ask(&transfer(7, (0, 0, 64, 64), 0));
    guest.ask(&set_scanout(0, 7, (16, 8, 32, 24)));

    guest.ask(&flush(7, (0, 0, 64, 64)));

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!((frame.width, frame.height), (32, 24));
    assert_eq!(frame.pixel(0, 0), Some(pixel(1, 16, 8)));
    assert_eq!(frame.pixel(31, 23), Some(pixel(1, 47, 31)));
}

#[test]
fn backing_in_pieces_is_put_together() {
    let mut guest = Guest::new();
    guest.draw(1, 64, 32);
    let bytes = guest.peek(BACKING, 64 * 32 * 4);
    // Scattered, with odd sizes and an empty entry between them.
    let mut entries = Vec::new();
    let mut done = 0;
    for (n, length) in [5000u32, 0, 3, 3189].into_iter().enumerate() {
        let at = BACKING + 0x1_0000 + 0x4000 * n as u64 + 0xff1;
        guest.poke(at, &bytes[done..done + length as usize]);
        entries.push((at, length));
        done += length as usize;
    }
    assert_eq!(done, bytes.len());
    guest.ask(&create(7, 2, 64, 32));
    guest.ask(&attach(7, &entries));
    guest.ask(&set_scanout(0, 7, (0, 0, 64, 32)));

    guest.ask(&transfer(7, (0, 0, 64, 32), 0));
    guest.ask(&flush(7, (0, 0, 64, 32)));

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!(frame.pixels, bytes);
}

#[test]
fn every_format_shows_blue_green_and_red() {
    for (format, bytes) in [
        (1, [1, 2, 3, 9]),
        (2, [1, 2, 3, 9]),
        (3, [9, 3, 2, 1]),
        (4, [9, 3, 2, 1]),
        (67, [3, 2, 1, 9]),
        (68, [9, 1, 2, 3]),
        (121, [9, 1, 2, 3]),
        (134, [3, 2, 1, 9]),
    ] {
        let mut guest = Guest::new();
        guest.poke(BACKING, &bytes);
        guest.ask(&create(7, format, 1, 1));
        guest.ask(&attach(7, &[(BACKING, 4)]));
        guest.ask(&set_scanout(0, 7, (0, 0, 1, 1)));
        guest.ask(&transfer(7, (0, 0, 1, 1), 0));

        guest.ask(&flush(7, (0, 0, 1, 1)));

        let pixel = guest.gpu.frame(0).unwrap().pixel(0, 0);
        assert_eq!(pixel, Some(0x0003_0201), "format {format}");
    }
}

#[test]
fn display_information_lists_the_displays() {
    let config = GpuConfig {
        displays: vec![(800, 600), (640, 480)],
        ..GpuConfig::default()
    };
    let mut guest = Guest::with(config, Part::None, false);

    assert_eq!(
        guest.ask(&words(code::GET_DISPLAY_INFO, &[])),
        code::OK_DISPLAY_INFO
    );

    let words: Vec<u32> = guest
        .peek(RESPONSE + 24, 72)
        .chunks(4)
        .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
        .collect();
    assert_eq!(words[..6], [0, 0, 800, 600, 1, 0]);
    assert_eq!(words[6..12], [800, 0, 640, 480, 1, 0]);
    assert_eq!(words[12..], [0; 6]);
    assert_eq!(guest.used(0), (1, 0, 408));
    let dma = super::dma(&guest.os, &guest.gpu);
    assert_eq!(guest.gpu.bar_read(dma, 0, pci::layout::DEVICE + 8, 4), 2);
}

#[test]
fn a_fence_is_echoed() {
    let mut guest = Guest::new();
    let mut command = create(7, 2, 16, 16);
    command[4] = 1;
    command[8..16].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
    command[16..20].copy_from_slice(&5u32.to_le_bytes());

    guest.ask(&command);

    let response = guest.peek(RESPONSE, 24);
    assert_eq!(response[4..8], [1, 0, 0, 0]);
    assert_eq!(response[8..20], command[8..20]);
    assert_eq!(guest.used(0), (1, 0, 24));
}

#[test]
fn without_the_flag_no_fence_is_echoed() {
    let mut guest = Guest::new();
    let mut command = create(7, 2, 16, 16);
    command[8..16].copy_from_slice(&[0xff; 8]);

    guest.ask(&command);

    assert_eq!(guest.peek(RESPONSE + 4, 20), [0; 20]);
}

#[test]
fn command_and_response_may_be_scattered() {
    let mut guest = Guest::new();
    let mut command = create(7, 2, 16, 16);
    command[4] = 1;
    command[8..16].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    guest.poke(COMMAND + 0xff0, &command[..30]);
    guest.poke(COMMAND + 0x3000, &command[30..]);
    guest.descriptor(0, 0, (COMMAND + 0xff0, 30, DESC_NEXT, 1));
    guest.descriptor(0, 1, (COMMAND + 0x3000, 10, DESC_NEXT, 2));
    guest.descriptor(0, 2, (RESPONSE + 0xffc, 14, DESC_WRITE | DESC_NEXT, 3));
    guest.descriptor(0, 3, (RESPONSE, 100, DESC_WRITE, 0));
    guest.offer(0, 0);

    guest.run();

    assert_eq!(guest.used(0), (1, 0, 24));
    let mut response = guest.peek(RESPONSE + 0xffc, 14);
    response.extend(guest.peek(RESPONSE, 10));
    assert_eq!(response[..4], code::OK_NODATA.to_le_bytes());
    assert_eq!(response[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_short_response_buffer_gets_what_fits() {
    for room in [1, 4, 23] {
        let mut guest = Guest::new();
        guest.queue(0, &create(7, 2, 16, 16), room);

        guest.run();

        assert_eq!(guest.used(0), (1, 0, room));
        let end = RESPONSE + u64::from(room);
        assert_eq!(guest.peek(end, 1), [0xee]);
    }
}

#[test]
fn a_buffer_without_room_for_a_response_comes_back() {
    let mut guest = Guest::new();
    guest.poke(COMMAND, &create(7, 2, 16, 16));
    guest.descriptor(0, 5, (COMMAND, 40, 0, 0));
    guest.offer(0, 5);

    guest.run();

    assert_eq!(guest.used(0), (1, 5, 0));
    assert_eq!(guest.ask(&unref(7)), code::OK_NODATA);
}

#[test]
fn cursor_commands_are_consumed() {
    let mut guest = Guest::new();
    guest.ask(&create(9, 1, 64, 64));
    let update = words(code::UPDATE_CURSOR, &[0, 5, 6, 0, 9, 0, 0, 0]);
    let step = words(code::MOVE_CURSOR, &[0, 7, 8, 0, 0, 0, 0, 0]);

    guest.queue(1, &update, 24);
    guest.run();
    assert_eq!((guest.used(1), guest.code()), ((1, 0, 24), code::OK_NODATA));
    guest.queue(1, &step, 24);
    guest.run();

    assert_eq!((guest.used(1), guest.code()), ((2, 0, 24), code::OK_NODATA));
}

#[test]
fn no_interrupt_flag_keeps_the_device_silent() {
    let mut guest = Guest::new();
    guest.poke(super::RINGS + 0x1000, &1u16.to_le_bytes());

    guest.ask(&create(7, 2, 16, 16));

    assert!(guest.os.unit.take_messages().is_empty());
    assert_eq!(guest.used(0).0, 1);
}

#[test]
fn a_frame_survives_png() {
    let mut guest = Guest::new();
    guest.show(7, 20, 10);
    guest.draw(1, 20, 10);
    guest.ask(&transfer(7, (0, 0, 20, 10), 0));
    guest.ask(&flush(7, (0, 0, 20, 10)));
    let frame = guest.gpu.frame(0).unwrap();

    let file = frame.png().unwrap();

    let mut reader = png::Decoder::new(std::io::Cursor::new(file))
        .read_info()
        .unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut rgb).unwrap();
    let at = (3 * 20 + 4) * 3;
    let [_, r, g, b] = pixel(1, 4, 3).to_be_bytes();
    assert_eq!(rgb[at..at + 3], [r, g, b]);
}

#[test]
fn another_display_size_is_told() {
    let mut guest = Guest::new();
    let generation = pci::spec::virtio::common::CONFIG_GENERATION.0;
    let os = &guest.os;
    let dma = super::dma(os, &guest.gpu);
    let before = guest.gpu.bar_read(dma, 0, generation, 1);

    assert!(guest.gpu.set_display(dma, 0, 320, 200));
    assert!(!guest.gpu.set_display(dma, 1, 320, 200));

    assert_eq!(
        os.unit.take_messages().iter().map(|m| m.data).max(),
        Some(0x40)
    );
    assert_ne!(guest.gpu.bar_read(dma, 0, generation, 1), before);
    assert_eq!(guest.gpu.bar_read(dma, 0, pci::layout::DEVICE, 4), 1);
    guest.gpu.bar_write(dma, 0, pci::layout::DEVICE + 4, 4, 1);
    assert_eq!(guest.gpu.bar_read(dma, 0, pci::layout::DEVICE, 4), 0);
    guest.ask(&words(code::GET_DISPLAY_INFO, &[]));
    assert_eq!(guest.peek(RESPONSE + 32, 4), 320u32.to_le_bytes());
}

#[test]
fn a_new_resource_of_the_same_id_is_not_on_the_scanout() {
    let mut guest = Guest::new();
    guest.show(7, 16, 16);
    guest.ask(&unref(7));

    guest.ask(&create(7, 2, 16, 16));
    guest.ask(&flush(7, (0, 0, 16, 16)));

    assert!(guest.gpu.frame(0).is_none());
}
