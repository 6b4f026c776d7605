//! Every error answer, by table.

use super::{BACKING, Guest, attach, create, detach, flush, set_scanout, transfer, unref, words};
use crate::spec::command as code;
use crate::{GpuConfig, MAX_BACKING_ENTRIES, MAX_ENTRIES, MAX_RESOURCES};
use scenario::Part;

/// Resource 1 is 16x16 with backing, 2 has none and is 64x64.
fn guest() -> Guest {
    let config = GpuConfig {
        max_pixel_bytes: 1 << 20,
        ..GpuConfig::default()
    };
    let mut guest = Guest::with(config, Part::None, false);
    guest.ask(&create(1, 2, 16, 16));
    guest.ask(&attach(1, &[(BACKING, 1024)]));
    guest.ask(&create(2, 1, 64, 64));
    guest
}

#[test]
fn refused_commands_say_why() {
    let rows: Vec<(&str, Vec<u8>, u32)> = vec![
        (
            "create 0",
            create(0, 2, 16, 16),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "create twice",
            create(1, 2, 16, 16),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "create format",
            create(3, 5, 16, 16),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "create width 0",
            create(3, 2, 0, 16),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "create height 0",
            create(3, 2, 16, 0),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "create wide",
            create(3, 2, u32::MAX, 1),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "create large",
            create(3, 2, 512, 513),
            code::ERR_OUT_OF_MEMORY,
        ),
        ("unref", unref(3), code::ERR_INVALID_RESOURCE_ID),
        ("unref 0", unref(0), code::ERR_INVALID_RESOURCE_ID),
        (
            "scanout",
            set_scanout(1, 1, (0, 0, 16, 16)),
            code::ERR_INVALID_SCANOUT_ID,
        ),
        (
            "scanout of none",
            set_scanout(0, 3, (0, 0, 16, 16)),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "scanout beyond",
            set_scanout(0, 1, (1, 0, 16, 16)),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "scanout wraps",
            set_scanout(0, 1, (u32::MAX, 0, 2, 2)),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "scanout empty",
            set_scanout(0, 1, (0, 0, 0, 16)),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "flush",
            flush(3, (0, 0, 16, 16)),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "flush beyond",
            flush(1, (0, 1, 16, 16)),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "transfer",
            transfer(3, (0, 0, 1, 1), 0),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "transfer unbacked",
            transfer(2, (0, 0, 1, 1), 0),
            code::ERR_UNSPEC,
        ),
        (
            "transfer beyond",
            transfer(1, (15, 0, 2, 1), 0),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "transfer short",
            transfer(1, (0, 0, 16, 16), 4),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "attach",
            attach(3, &[(BACKING, 16)]),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "attach twice",
            attach(1, &[(BACKING, 16)]),
            code::ERR_UNSPEC,
        ),
        (
            "attach nothing",
            attach(2, &[]),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "attach empty",
            attach(2, &[(BACKING, 0)]),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "attach wraps",
            attach(2, &[(u64::MAX, 2)]),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "attach many",
            words(code::RESOURCE_ATTACH_BACKING, &[2, MAX_ENTRIES + 1]),
            code::ERR_OUT_OF_MEMORY,
        ),
        (
            "attach cut short",
            words(code::RESOURCE_ATTACH_BACKING, &[2, 2, 0, 0, 16, 0]),
            code::ERR_INVALID_PARAMETER,
        ),
        ("detach", detach(3), code::ERR_INVALID_RESOURCE_ID),
        ("detach unbacked", detach(2), code::ERR_UNSPEC),
        (
            "cut short",
            create(3, 2, 16, 16)[..39].to_vec(),
            code::ERR_INVALID_PARAMETER,
        ),
        ("no header", vec![0; 23], code::ERR_UNSPEC),
        ("capsets", words(0x0108, &[0, 0]), code::ERR_UNSPEC),
        ("3D", words(0x0200, &[0; 20]), code::ERR_UNSPEC),
        ("unknown", words(0xdead_beef, &[]), code::ERR_UNSPEC),
        ("a response", words(code::OK_NODATA, &[]), code::ERR_UNSPEC),
        (
            "cursor on the control queue",
            words(code::MOVE_CURSOR, &[0; 8]),
            code::ERR_UNSPEC,
        ),
    ];
    for (name, command, expected) in rows {
        let mut guest = guest();

        let code = guest.ask(&command);

        assert_eq!(code, expected, "{name}");
        assert_eq!(guest.used(0), (4, 0, 24), "{name}");
    }
}

#[test]
fn refused_cursor_commands_say_why() {
    for (name, command, expected) in [
        (
            "scanout",
            words(code::MOVE_CURSOR, &[1, 0, 0, 0, 0, 0, 0, 0]),
            code::ERR_INVALID_SCANOUT_ID,
        ),
        (
            "image",
            words(code::UPDATE_CURSOR, &[0, 0, 0, 0, 3, 0, 0, 0]),
            code::ERR_INVALID_RESOURCE_ID,
        ),
        (
            "size",
            words(code::UPDATE_CURSOR, &[0, 0, 0, 0, 1, 0, 0, 0]),
            code::ERR_INVALID_PARAMETER,
        ),
        (
            "hidden",
            words(code::UPDATE_CURSOR, &[0, 0, 0, 0, 0, 0, 0, 0]),
            code::OK_NODATA,
        ),
        (
            "image of 64",
            words(code::UPDATE_CURSOR, &[0, 0, 0, 0, 2, 0, 0, 0]),
            code::OK_NODATA,
        ),
        ("control command", unref(1), code::ERR_UNSPEC),
    ] {
        let mut guest = guest();
        guest.queue(1, &command, 24);

        guest.run();

        assert_eq!(guest.code(), expected, "{name}");
        assert_eq!(guest.used(1), (1, 0, 24), "{name}");
    }
}

#[test]
fn a_second_resource_counts_against_the_limit() {
    let mut guest = guest();
    // 1 MiB, less 1 KiB and 16 KiB that are taken.
    assert_eq!(guest.ask(&create(3, 2, 512, 503)), code::OK_NODATA);

    assert_eq!(guest.ask(&create(4, 2, 512, 16)), code::ERR_OUT_OF_MEMORY);
    guest.ask(&unref(3));

    assert_eq!(guest.ask(&create(4, 2, 512, 16)), code::OK_NODATA);
}

#[test]
fn the_greatest_attach_is_taken() {
    let mut guest = guest();
    let entries = vec![(BACKING, 16); MAX_ENTRIES as usize];

    assert_eq!(guest.ask(&attach(2, &entries)), code::OK_NODATA);
    assert_eq!(guest.ask(&transfer(2, (0, 0, 64, 64), 0)), code::OK_NODATA);
}

#[test]
fn resources_are_limited_in_number() {
    let mut guest = Guest::new();
    for id in 1..=MAX_RESOURCES as u32 {
        assert_eq!(guest.ask(&create(id, 2, 1, 1)), code::OK_NODATA);
    }

    let code = guest.ask(&create(u32::MAX, 2, 1, 1));

    assert_eq!(code, code::ERR_OUT_OF_MEMORY);
}

#[test]
fn backing_is_limited_in_all() {
    let mut guest = Guest::new();
    let entries = vec![(BACKING, 16); MAX_ENTRIES as usize];
    let full = (MAX_BACKING_ENTRIES / entries.len()) as u32;
    for id in 1..=full + 1 {
        guest.ask(&create(id, 2, 1, 1));
    }
    for id in 1..=full {
        assert_eq!(guest.ask(&attach(id, &entries)), code::OK_NODATA);
    }

    assert_eq!(
        guest.ask(&attach(full + 1, &[(BACKING, 16)])),
        code::ERR_OUT_OF_MEMORY
    );
    guest.ask(&detach(1));

    assert_eq!(
        guest.ask(&attach(full + 1, &[(BACKING, 16)])),
        code::OK_NODATA
    );
}
