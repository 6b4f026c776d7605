#![allow(clippy::unwrap_used)]

mod builder;

use super::*;
use crate::Protection;
use builder::{Builder, patch};
use memory::Gva;
use proptest::prelude::*;

const BASE: Gva = Gva(0xffff_f800_1000_0000);

fn load(builder: Builder) -> LoadedImage {
    let image = Image::parse(&builder.build()).unwrap();
    image.load("test.sys", BASE).unwrap()
}

fn field(image: &LoadedImage, rva: u32) -> u64 {
    let start = rva as usize;
    u64::from_le_bytes(image.bytes[start..start + 8].try_into().unwrap())
}

#[test]
fn driver_is_read() {
    let image = load(Builder::default());

    assert_eq!(image.entry, Gva(BASE.0 + 0x1010));
    assert_eq!(image.time_stamp, 0x6543_2100);
    assert_eq!(image.size(), 0x4000);
    assert_eq!(image.functions, [(0x1000, 0x1010), (0x1010, 0x1020)]);
    assert_eq!(image.code_ranges(), [(0x1000, 0x1100)]);
}

#[test]
fn imports_by_name_and_ordinal_are_listed() {
    let image = load(Builder::default());

    let imports: Vec<_> = image
        .imports
        .iter()
        .map(|import| {
            (
                import.dll.as_str(),
                import.symbol.to_string(),
                import.iat_rva,
            )
        })
        .collect();
    assert_eq!(
        imports,
        [
            ("ntoskrnl.exe", "DbgPrint".to_owned(), builder::IAT),
            ("ntoskrnl.exe", "#7".to_owned(), builder::IAT + 8),
            (
                "hal.dll",
                "KeStallExecutionProcessor".to_owned(),
                builder::IAT + 24
            ),
        ]
    );
}

#[test]
fn binding_fills_every_slot() {
    let mut image = load(Builder::default());

    image.bind(|import| 0x1000 + u64::from(import.iat_rva));

    for rva in [builder::IAT, builder::IAT + 8, builder::IAT + 24] {
        assert_eq!(field(&image, rva), 0x1000 + u64::from(rva));
    }
}

#[test]
fn relocated_field_moves_with_the_image() {
    let image = load(Builder::default());

    assert_eq!(field(&image, builder::POINTER), BASE.0 + 0x1000);
}

#[test]
fn image_at_its_preferred_base_needs_no_relocations() {
    let mut builder = Builder::default();
    builder.characteristics |= 1;
    let image = Image::parse(&builder.build()).unwrap();
    let preferred = image.preferred_base();

    let loaded = image.load("fixed.sys", Gva(preferred)).unwrap();

    assert_eq!(field(&loaded, builder::POINTER), preferred + 0x1000);
}

#[test]
fn image_without_relocations_cannot_move() {
    let mut builder = Builder::default();
    builder.characteristics |= 1;
    let image = Image::parse(&builder.build()).unwrap();

    let error = image.load("fixed.sys", BASE).unwrap_err();

    assert!(error.to_string().contains("/DYNAMICBASE"), "{error}");
}

#[test]
fn base_off_page_is_refused() {
    let image = Image::parse(&Builder::default().build()).unwrap();

    let error = image.load("test.sys", Gva(BASE.0 + 8)).unwrap_err();

    assert!(matches!(error, LoadError::BadBase { .. }), "{error}");
}

#[test]
fn pages_have_their_sections_protection() {
    let image = load(Builder::default());

    let pages: Vec<_> = image.pages().collect();

    assert_eq!(
        pages,
        [
            (0, Protection::READ),
            (0x1000, Protection::EXECUTE),
            (0x2000, Protection::READ),
            (0x3000, Protection::WRITE),
        ]
    );
}

#[test]
fn guard_slots_and_cookie_are_set() {
    let mut image = load(Builder::default());

    image.set_guard(0x1111, 0x2222);
    image.set_cookie(0xffff_0000_0000_0000);

    assert_eq!(field(&image, image.guard.check.unwrap()), 0x1111);
    assert_eq!(field(&image, image.guard.dispatch.unwrap()), 0x2222);
    assert_eq!(field(&image, image.guard.cookie.unwrap()), 1);
}

#[test]
fn exports_are_symbols() {
    let image = load(Builder::default());

    let expected = Export {
        name: "Probe".to_owned(),
        rva: 0x1020,
    };
    assert_eq!(image.exports, [expected]);
}

#[test]
fn broken_exports_are_left_out() {
    let bytes = Builder::default().build();
    let broken = patch(bytes, builder::EXPORTS_FILE + 32, &u32::MAX.to_le_bytes());

    let image = Image::parse(&broken)
        .unwrap()
        .load("test.sys", BASE)
        .unwrap();

    assert_eq!(image.exports, []);
}

#[test]
fn malformed_file_is_named() {
    let whole = Builder::default().build();
    let with = |offset: usize, bytes: &[u8]| patch(whole.clone(), offset, bytes);
    let nt = builder::NT;
    let table: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the file is empty"),
        (b"\x7fELF\x02\x01\x01".to_vec(), "an ELF file"),
        (
            b"[Version]\r\nSignature=\"$WINDOWS NT$\"\r\n".to_vec(),
            "a text",
        ),
        (b"PK\x03\x04....".to_vec(), "a ZIP archive"),
        (vec![0; 4096], "a file of zeros"),
        (vec![0x90; 64], "no PE image"),
        (b"MZ".to_vec(), "ends inside the DOS header"),
        (
            with(0x3c, &0xffff_fff0u32.to_le_bytes()),
            "ends inside the PE signature",
        ),
        (with(nt, b"NE\0\0"), "without a PE header"),
        (
            with(nt + 4, &0x14cu16.to_le_bytes()),
            "32-bit x86 (machine 0x014c)",
        ),
        (with(nt + 4, &0xaa64u16.to_le_bytes()), "ARM64"),
        (with(nt + 4, &0x1234u16.to_le_bytes()), "an unknown machine"),
        (with(nt + 6, &0u16.to_le_bytes()), "NumberOfSections is 0x0"),
        (
            with(nt + 6, &97u16.to_le_bytes()),
            "NumberOfSections is 0x61",
        ),
        (with(nt + 20, &1u16.to_le_bytes()), "size is 0x1"),
        (with(nt + 20, &64u16.to_le_bytes()), "size is 0x40"),
        (with(nt + 20, &112u16.to_le_bytes()), "NumberOfRvaAndSizes"),
        (with(nt + 22, &0u16.to_le_bytes()), "not marked executable"),
        (with(nt + 24, &0x10bu16.to_le_bytes()), "32-bit (PE32)"),
        (with(nt + 24, &0x107u16.to_le_bytes()), "magic is 0x107"),
        (with(nt + 24 + 16, &0u32.to_le_bytes()), "no entry point"),
        (
            with(nt + 24 + 16, &0x4000u32.to_le_bytes()),
            "the entry point at RVA 0x4000",
        ),
        (with(nt + 24 + 24, &1u64.to_le_bytes()), "ImageBase is 0x1"),
        (
            with(nt + 24 + 32, &0x200u32.to_le_bytes()),
            "SectionAlignment is 0x200",
        ),
        (
            with(nt + 24 + 56, &0u32.to_le_bytes()),
            "SizeOfImage is 0x0",
        ),
        (
            with(nt + 24 + 56, &0x2000_0000u32.to_le_bytes()),
            "SizeOfImage is 0x20000000",
        ),
        (
            with(nt + 24 + 60, &0u32.to_le_bytes()),
            "SizeOfHeaders is 0x0",
        ),
        (
            with(nt + 24 + 68, &3u16.to_le_bytes()),
            "a user-mode program (subsystem 3)",
        ),
        (with(nt + 24 + 68, &10u16.to_le_bytes()), "an EFI image"),
        (
            with(builder::SECTIONS + 12, &0x1004u32.to_le_bytes()),
            "does not start at a page",
        ),
        (
            with(builder::SECTIONS + 12, &0u32.to_le_bytes()),
            "overlaps the headers",
        ),
        (
            with(builder::SECTIONS + 52, &0x1000u32.to_le_bytes()),
            "section 2 (.rdata)",
        ),
        (
            with(builder::SECTIONS + 8, &0xffff_0000u32.to_le_bytes()),
            "not inside SizeOfImage",
        ),
        (
            with(builder::SECTIONS + 20, &0x9000u32.to_le_bytes()),
            "the data of section 1 (.text)",
        ),
        (
            with(builder::IMPORTS_FILE + 12, &0x1000u32.to_le_bytes()),
            "the name of DLL 1 at RVA 0x1000 is too long",
        ),
        (
            with(builder::IMPORTS_FILE + 12, &0x9000u32.to_le_bytes()),
            "outside the image",
        ),
        (
            with(builder::DLL_NAME_FILE, b"\0"),
            "the name of DLL 1 at RVA 0x2180 is empty",
        ),
        (with(builder::DLL_NAME_FILE, b"\x01"), "is not printable"),
        (
            with(builder::IMPORTS_FILE, &0x7fff_0000u32.to_le_bytes()),
            "lookup table of ntoskrnl.exe",
        ),
        (
            with(builder::IMPORTS_FILE + 16, &0x3ffcu32.to_le_bytes()),
            "slot 0 of the import address table",
        ),
        (
            with(builder::RELOCATIONS_FILE + 4, &3u32.to_le_bytes()),
            "SizeOfBlock is 0x3",
        ),
        (
            with(builder::RELOCATIONS_FILE + 8, &0x3000u16.to_le_bytes()),
            "type 3",
        ),
        (
            with(builder::RELOCATIONS_FILE, &0x9000u32.to_le_bytes()),
            "the target of a relocation",
        ),
        (
            with(builder::PDATA_FILE, &0x1030u32.to_le_bytes()),
            "a function of .pdata",
        ),
        (
            with(builder::CONFIG_FILE + 0x58, &8u64.to_le_bytes()),
            "the security cookie",
        ),
    ];
    for (bytes, expected) in table {
        let error = Image::parse(&bytes)
            .map(drop)
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn user_mode_dll_is_refused() {
    let mut builder = Builder::default();
    builder.characteristics |= 0x2000;
    builder.subsystem = 3;

    let error = Image::parse(&builder.build()).unwrap_err();

    assert!(error.to_string().contains("a user-mode DLL"), "{error}");
}

#[test]
fn file_over_the_limit_is_refused() {
    let bytes = vec![0; MAX_FILE as usize + 1];

    let error = Image::parse(&bytes).unwrap_err();

    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
}

#[test]
fn every_truncation_is_an_error() {
    let whole = Builder::default().build();

    for length in 0..whole.len() {
        assert!(Image::parse(&whole[..length]).is_err(), "{length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((0usize..0x1000, 0u8..8), 1..12)) {
        let mut bytes = Builder::default().build();
        for (offset, bit) in flips {
            let offset = offset % bytes.len();
            bytes[offset] ^= 1 << bit;
        }
        fuzzing::loader(&bytes);
    }

    #[test]
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1024)) {
        fuzzing::loader(&bytes);
        if let Some(start) = bytes.get_mut(..2) {
            start.copy_from_slice(b"MZ");
        }
        fuzzing::loader(&bytes);
    }
}
