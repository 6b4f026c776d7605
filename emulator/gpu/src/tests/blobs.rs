//! Commands of blob resources.

use super::{
    BACKING, Guest, RESPONSE, attach, blob, create, create_blob, detach, flush, set_scanout,
    set_scanout_blob, transfer, unref, words,
};
use crate::spec::{F_RESOURCE_BLOB, F_RESOURCE_UUID, command as code};
use crate::{MAX_BACKING_ENTRIES, MAX_ENTRIES, MAX_RESOURCES};
use iommu::testing::global;
use journal::event::Event;
use memory::{Gpa, Iova};
use scenario::Part;

/// Blob 1 of 4096 bytes with backing, blob 2 of 4096 without, 2D resource 3.
fn guest() -> Guest {
    let mut guest = Guest::new();
    guest.restart(F_RESOURCE_BLOB | F_RESOURCE_UUID);
    guest.ask(&create_blob(1, 4096));
    guest.ask(&blob(2, (1, 0), 4096, &[]));
    guest.ask(&create(3, 2, 16, 16));
    guest
}

#[test]
fn refused_blob_commands_say_why() {
    let whole = (0, 0, 32, 32);
    let picture = (32, 32, 2, 128, 0);
    let backing = BACKING as u32;
    let entry = [backing, 0, 4096, 0];
    let invalid = code::ERR_INVALID_PARAMETER;
    let scanout = |rect, picture| set_scanout_blob((0, 1), rect, picture);
    let rows: Vec<(&str, Vec<u8>, u32)> = vec![
        (
            "id 0",
            blob(0, (1, 0), 4096, &entry),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "id taken",
            blob(1, (1, 0), 4096, &entry),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "id of 2D",
            blob(3, (1, 0), 4096, &entry),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        ("no memory", blob(4, (0, 0), 4096, &entry), invalid),
        ("host memory", blob(4, (2, 0), 4096, &[]), invalid),
        ("both", blob(4, (3, 0), 4096, &entry), invalid),
        ("flags", blob(4, (1, 8), 4096, &entry), invalid),
        ("all flags", blob(4, (1, 7), 4096, &entry), code::OK_NODATA),
        ("size 0", blob(4, (1, 0), 0, &entry), invalid),
        ("short backing", blob(4, (1, 0), 4097, &entry), invalid),
        ("huge", blob(4, (1, 0), u64::MAX, &entry), invalid),
        (
            "empty entries",
            blob(4, (1, 0), 1, &[backing, 0, 0, 0]),
            invalid,
        ),
        (
            "wraps",
            blob(4, (1, 0), 1, &[u32::MAX, u32::MAX, 2, 0]),
            invalid,
        ),
        (
            "many entries",
            words(code::RESOURCE_CREATE_BLOB, &[4, 1, 0, MAX_ENTRIES + 1]),
            code::ERR_OUT_OF_MEMORY,
        ),
        (
            "cut short",
            blob(4, (1, 0), 4096, &entry)[..71].to_vec(),
            invalid,
        ),
        ("attach short", attach(2, &[(BACKING, 4095)]), invalid),
        (
            "attach",
            attach(2, &[(BACKING, 4095), (BACKING, 1)]),
            code::OK_NODATA,
        ),
        (
            "attach twice",
            attach(1, &[(BACKING, 4096)]),
            code::ERR_UNSPEC,
        ),
        ("detach", detach(1), code::OK_NODATA),
        ("detach unbacked", detach(2), code::ERR_UNSPEC),
        ("2D scanout", set_scanout(0, 1, (0, 0, 1, 1)), invalid),
        ("transfer", transfer(1, (0, 0, 1, 1), 0), code::OK_NODATA),
        ("flush", flush(1, (0, 0, 9, 9)), code::OK_NODATA),
        ("unref", unref(1), code::OK_NODATA),
        ("scanout", scanout(whole, picture), code::OK_NODATA),
        (
            "scanout unbacked",
            set_scanout_blob((0, 2), whole, picture),
            code::OK_NODATA,
        ),
        (
            "scanout off",
            set_scanout_blob((0, 0), (0, 0, 0, 0), (0, 0, 0, 0, 0)),
            code::OK_NODATA,
        ),
        (
            "no scanout",
            set_scanout_blob((1, 1), whole, picture),
            code::ERR_INVALID_SCANOUT_ID,
        ),
        (
            "no resource",
            set_scanout_blob((0, 9), whole, picture),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "scanout of 2D",
            set_scanout_blob((0, 3), whole, picture),
            invalid,
        ),
        ("format", scanout(whole, (32, 32, 5, 128, 0)), invalid),
        ("stride", scanout(whole, (32, 32, 2, 127, 0)), invalid),
        (
            "a byte too far",
            scanout(whole, (32, 32, 2, 128, 1)),
            invalid,
        ),
        (
            "a row too far",
            scanout(whole, (32, 32, 2, 132, 0)),
            invalid,
        ),
        (
            "beyond the picture",
            scanout((1, 0, 32, 32), picture),
            invalid,
        ),
        ("empty", scanout((0, 0, 0, 32), picture), invalid),
        (
            "wide",
            scanout((0, 0, 4097, 1), (4097, 1, 2, 16388, 0)),
            invalid,
        ),
        (
            "overflow",
            scanout(
                (0, u32::MAX - 1, 1, 1),
                (1, u32::MAX, 2, u32::MAX, u32::MAX),
            ),
            invalid,
        ),
        (
            "scanout cut short",
            scanout(whole, picture)[..95].to_vec(),
            invalid,
        ),
        (
            "map",
            words(code::RESOURCE_MAP_BLOB, &[1, 0, 0, 0]),
            code::ERR_UNSPEC,
        ),
        (
            "map nothing",
            words(code::RESOURCE_MAP_BLOB, &[9, 0, 0, 0]),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "map cut short",
            words(code::RESOURCE_MAP_BLOB, &[1, 0]),
            invalid,
        ),
        (
            "unmap",
            words(code::RESOURCE_UNMAP_BLOB, &[1, 0]),
            code::ERR_UNSPEC,
        ),
        (
            "unmap nothing",
            words(code::RESOURCE_UNMAP_BLOB, &[0, 0]),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "uuid",
            words(code::RESOURCE_ASSIGN_UUID, &[1, 0]),
            code::OK_RESOURCE_UUID,
        ),
    ];
    for (name, command, expected) in rows {
        let mut guest = guest();

        let code = guest.ask(&command);

        assert_eq!(code, expected, "{name}");
        assert_eq!(guest.used(0).0, 4, "{name}");
    }
}

#[test]
fn blobs_count_against_the_limits() {
    let mut guest = guest();
    for id in 4..=MAX_RESOURCES as u32 {
        assert_eq!(guest.ask(&blob(id, (1, 0), 1, &[])), code::OK_NODATA);
    }

    let refused = [
        guest.ask(&blob(9999, (1, 0), 1, &[])),
        guest.ask(&create(9999, 2, 1, 1)),
    ];

    assert_eq!(refused, [code::ERR_OUT_OF_MEMORY; 2]);
}

#[test]
fn entries_of_blobs_count_with_all_backing() {
    let mut guest = guest();
    let entry = [BACKING as u32, 0, 16, 0];
    let entries = entry.repeat(MAX_ENTRIES as usize);
    let full = MAX_BACKING_ENTRIES as u32 / MAX_ENTRIES;
    // One entry is taken already.
    for id in 10..9 + full {
        assert_eq!(guest.ask(&blob(id, (1, 0), 16, &entries)), code::OK_NODATA);
    }

    let last = guest.ask(&blob(9999, (1, 0), 16, &entries));

    assert_eq!(last, code::ERR_OUT_OF_MEMORY);
    let fewer = guest.ask(&blob(9999, (1, 0), 16, &entries[4..]));
    assert_eq!(fewer, code::OK_NODATA);
}

#[test]
fn without_the_feature_blob_commands_are_unknown() {
    for command in [
        create_blob(1, 4096),
        set_scanout_blob((0, 0), (0, 0, 0, 0), (0, 0, 0, 0, 0)),
        words(code::RESOURCE_MAP_BLOB, &[1, 0, 0, 0]),
        words(code::RESOURCE_UNMAP_BLOB, &[1, 0]),
        words(code::RESOURCE_CREATE_BLOB, &[]),
    ] {
        let mut guest = Guest::new();

        assert_eq!(guest.ask(&command), code::ERR_UNSPEC);
    }
}

#[test]
fn the_image_of_a_cursor_is_read_from_a_blob() {
    let mut guest = Guest::new();
    guest.restart(F_RESOURCE_BLOB);
    guest.show(7, 16, 16);
    guest.ask(&flush(7, (0, 0, 16, 16)));
    guest.poke(BACKING, &[0x56, 0x34, 0x12, 0xff].repeat(64 * 64));
    guest.ask(&create_blob(9, 64 * 64 * 4));
    let before = guest.events().len();

    guest.queue(
        1,
        &words(code::UPDATE_CURSOR, &[0, 4, 5, 0, 9, 0, 0, 0]),
        24,
    );
    guest.run();

    assert_eq!(guest.code(), code::OK_NODATA);
    let seen = guest.gpu.frame_with_cursor(0).unwrap();
    assert_eq!(seen.pixel(4, 5), Some(0x12_3456));
    assert_eq!(seen.pixel(3, 5), Some(0));
    let reads = guest.events()[before..]
        .iter()
        .filter(|e| matches!(e, Event::Access { iova, .. } if iova.0 >= BACKING))
        .count();
    assert_eq!(reads, 4);
    guest.ask(&unref(9));
    assert_eq!(guest.gpu.frame_with_cursor(0).unwrap(), seen);
}

#[test]
fn a_cursor_whose_blob_cannot_be_read_stays_as_it_was() {
    let mut guest = Guest::isolated(Part::None);
    guest.restart(F_RESOURCE_BLOB);
    guest.show(7, 16, 16);
    guest.ask(&flush(7, (0, 0, 16, 16)));
    guest.poke(BACKING, &[0xff; 64 * 64 * 4]);
    guest.ask(&create_blob(9, 64 * 64 * 4));
    let update = words(code::UPDATE_CURSOR, &[0, 4, 5, 0, 9, 0, 0, 0]);
    guest.queue(1, &update, 24);
    guest.run();
    let before = guest.gpu.frame_with_cursor(0).unwrap();
    let third = Iova(BACKING + 0x2000);
    guest.os.map(guest.top.unwrap(), third, Gpa(0), 0);
    assert!(guest.os.run(global(true)));
    guest.poke(BACKING, &[0x7f; 64 * 64 * 4]);

    guest.queue(1, &update, 24);
    guest.run();

    assert_eq!(guest.code(), code::ERR_UNSPEC);
    assert_eq!(guest.gpu.frame_with_cursor(0).unwrap(), before);
    let faulted = |e: &Event| matches!(e, Event::Fault { iova, .. } if *iova == third);
    assert_eq!(guest.events().iter().filter(|e| faulted(e)).count(), 1);
}

#[test]
fn a_cursor_wants_a_blob_that_is_large_enough_and_backed() {
    for (id, expected) in [(1, code::ERR_INVALID_PARAMETER), (5, code::ERR_UNSPEC)] {
        let mut guest = guest();
        guest.ask(&blob(5, (1, 0), 64 * 64 * 4, &[]));

        guest.queue(
            1,
            &words(code::UPDATE_CURSOR, &[0, 0, 0, 0, id, 0, 0, 0]),
            24,
        );
        guest.run();

        assert_eq!(guest.code(), expected);
        assert_eq!(guest.peek(RESPONSE + 24, 1), [0xee]);
    }
}
