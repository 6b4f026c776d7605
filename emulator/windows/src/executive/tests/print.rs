use super::machine::{Machine, NOWHERE};
use crate::Platform;
use memory::Gva;
use proptest::prelude::*;

/// What DbgPrint prints.
fn printed(format: &str, arguments: &[u64]) -> String {
    let mut m = Machine::new();
    let format = m.narrow(format);
    let mut all = vec![format];
    all.extend_from_slice(arguments);
    assert_eq!(m.value("DbgPrint", &all), 0);
    m.printed().concat()
}

#[test]
fn numbers_are_printed() {
    let minus = (-5i64).cast_unsigned();
    for (format, value, expected) in [
        ("%d", minus, "-5"),
        ("%i", 0xdead_0000_0000_0007, "7"),
        ("%u", minus, "4294967291"),
        ("%lu", 1 << 32, "0"),
        ("%lld", minus, "-5"),
        ("%I64d", minus, "-5"),
        ("%I32u", 1 << 32 | 3, "3"),
        ("%Iu", 1 << 32, "4294967296"),
        ("%zu", 1 << 32, "4294967296"),
        ("%hd", 0x1_ffff, "-1"),
        ("%hhu", 0x1ff, "255"),
        ("%x", 0xabc, "abc"),
        ("%X", 0xabc, "ABC"),
        ("%#x", 0xabc, "0xabc"),
        ("%#x", 0, "0"),
        ("%o", 8, "10"),
        ("%llx", 0x1234_5678_9abc, "123456789abc"),
        ("%I64x", u64::MAX, "ffffffffffffffff"),
        ("%p", 0xffff_8000, "00000000FFFF8000"),
        ("%08x", 0xabc, "00000abc"),
        ("%8x|", 0xabc, "     abc|"),
        ("%-8x|", 0xabc, "abc     |"),
        ("%+d", 5, "+5"),
        ("% d", 5, " 5"),
        ("%05d", minus, "-0005"),
        ("%.4d", 7, "0007"),
        ("%.0d", 0, ""),
        ("%c", 0x41, "A"),
        ("%f", 1.5f64.to_bits(), "1.500000"),
        ("%.1f", 2.25f64.to_bits(), "2.2"),
        ("100%%", 0, "100%"),
        ("%", 0, ""),
        ("%q", 0, "q"),
        ("%n!", NOWHERE, "!"),
    ] {
        assert_eq!(printed(format, &[value]), expected, "{format:?}");
    }
}

#[test]
fn width_and_precision_can_be_arguments() {
    assert_eq!(
        printed("%*d|%-*d|%.*x", &[4, 7, 3, 8, 5, 9]),
        "   7|8  |00009"
    );
    assert_eq!(printed("%*d|", &[(-4i64).cast_unsigned(), 7]), "7   |");
}

#[test]
fn huge_width_is_bounded() {
    assert_eq!(printed("%2147483647d", &[1]).len(), 512);
    assert_eq!(printed("%.2147483647d", &[1]).len(), 512);
}

#[test]
fn texts_are_printed() {
    let mut m = Machine::new();
    let (narrow, wide) = (m.narrow("narrow"), m.wide("wide"));
    let unicode = m.unicode("unicode");
    let ansi = m.space(16);
    m.value("RtlInitAnsiString", &[ansi, narrow]);
    let format = m.narrow("%s %S %ws %ls %hs %wZ %Z %.3s %s");

    m.value(
        "DbgPrint",
        &[
            format, narrow, wide, wide, wide, narrow, unicode, ansi, narrow, 0,
        ],
    );

    assert_eq!(
        m.printed(),
        ["narrow wide wide wide narrow unicode narrow nar (null)"]
    );
}

#[test]
fn precision_bounds_what_is_read() {
    let mut m = Machine::new();
    let end = super::machine::DATA.0 + 16 * 0x1000;
    m.p.write(Gva(end - 3), b"abc").unwrap();
    let format = m.narrow("%.3s");

    m.value("DbgPrint", &[format, end - 3]);

    assert_eq!(m.printed(), ["abc"]);
}

#[test]
fn long_text_is_cut() {
    let mut m = Machine::new();
    let long = m.narrow(&"x".repeat(2000));
    let format = m.narrow("<%s>");

    m.value("DbgPrint", &[format, long]);

    assert_eq!(m.printed()[0].len(), 512);
}

#[test]
fn bad_text_is_a_page_fault() {
    let mut m = Machine::new();
    let format = m.narrow("%s");

    let (code, parameters, _) = m.stop("DbgPrint", &[format, NOWHERE]);

    assert_eq!((code, parameters[0]), (0x50, NOWHERE));
}

#[test]
fn every_variant_prints() {
    let mut m = Machine::new();
    let format = m.narrow("%d %d");
    let list: Vec<u8> = [1u64, 2].into_iter().flat_map(u64::to_le_bytes).collect();
    let list = m.bytes(&list);
    let prefix = m.narrow("gpu: ");

    m.value("DbgPrintEx", &[77, 3, format, 1, 2]);
    m.value("vDbgPrintEx", &[77, 3, format, list]);
    m.value("vDbgPrintExWithPrefix", &[prefix, 77, 3, format, list]);

    assert_eq!(m.printed(), ["1 2", "1 2", "gpu: 1 2"]);
}

#[test]
fn buffers_are_filled_and_cut() {
    for (count, result, expected) in [
        (8u64, 5u32, *b"12345\0##"),
        (5, 5, *b"12345###"),
        (3, u32::MAX, *b"123#####"),
        (0, u32::MAX, *b"########"),
    ] {
        let mut m = Machine::new();
        let (buffer, format) = (m.bytes(b"########"), m.narrow("%d"));

        let length = m.value("_snprintf", &[buffer, count, format, 12345]);

        assert_eq!(length as u32, result, "{count}");
        assert_eq!(m.u64(buffer).to_le_bytes(), expected, "{count}");
    }
}

#[test]
fn wide_formatting_takes_wide_texts() {
    let mut m = Machine::new();
    let (buffer, format) = (m.space(64), m.wide("%s-%S"));
    let (wide, narrow) = (m.wide("wide"), m.narrow("narrow"));
    let list: Vec<u8> = [wide, narrow]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    let list = m.bytes(&list);

    let length = m.value("_vsnwprintf", &[buffer, 32, format, list]);

    assert_eq!(length, 11);
    let string = m.space(16);
    m.value("RtlInitUnicodeString", &[string, buffer]);
    assert_eq!(
        crate::executive::read_unicode_string(&m.p, Gva(string)).unwrap(),
        "wide-narrow"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_format_is_bounded(
        format in "(%[-+ 0#*.hlwIzt0-9]{0,8}[a-zA-Z%]|[ -~]){0,12}",
        arguments in prop::collection::vec(any::<u64>(), 6),
    ) {
        let mut m = Machine::new();
        let (at, buffer) = (m.narrow(&format), m.space(0x1000));
        let mut all = vec![buffer, 0x1000, at];
        all.extend_from_slice(&arguments);
        let _ = m.call("_snprintf", &all);
        let _ = m.call("DbgPrint", &all[2..]);
        prop_assert!(m.printed().iter().all(|text| text.len() <= 512 * 3));
    }
}

#[test]
fn huge_precision_of_a_float_is_bounded() {
    let mut m = Machine::new();
    let (at, buffer) = (m.narrow("%.99999f"), m.space(0x1000));

    let length = m.value("_snprintf", &[buffer, 0x1000, at, 1.5f64.to_bits()]);

    assert_eq!(length, 514);
}
