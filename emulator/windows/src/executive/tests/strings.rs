use super::machine::{DATA, Machine};
use crate::Platform;
use crate::executive::read_unicode_string;
use memory::Gva;

fn read(m: &Machine, string: u64) -> String {
    read_unicode_string(&m.p, Gva(string)).unwrap()
}

#[test]
fn string_is_initialised_with_its_lengths() {
    let mut m = Machine::new();

    let string = m.unicode("Grüße");

    assert_eq!(m.u32(string), 12 << 16 | 10);
    assert_eq!(read(&m, string), "Grüße");
}

#[test]
fn null_source_gives_an_empty_string() {
    let mut m = Machine::new();
    let string = m.bytes(&[0xff; 16]);

    m.value("RtlInitAnsiString", &[string, 0]);

    assert_eq!((m.u32(string), m.u64(string + 8)), (0, 0));
}

#[test]
fn text_is_read_to_the_end_of_its_page_only() {
    let mut m = Machine::new();
    let end = DATA.0 + 16 * 0x1000;
    m.p.write(Gva(end - 4), b"abc\0").unwrap();
    let string = m.space(16);

    m.value("RtlInitAnsiString", &[string, end - 4]);

    assert_eq!(m.u32(string), 4 << 16 | 3);
}

#[test]
fn wide_text_may_straddle_pages() {
    let mut m = Machine::new();
    let at = DATA.0 + 0x2fff;
    m.p.write(Gva(at), &[b'h', 0, b'i', 0, 0, 0]).unwrap();
    let string = m.space(16);

    m.value("RtlInitUnicodeString", &[string, at]);

    assert_eq!(read(&m, string), "hi");
}

#[test]
fn unterminated_text_is_a_fault() {
    let mut m = Machine::new();
    let end = DATA.0 + 16 * 0x1000;
    m.p.write(Gva(end - 4), b"abcd").unwrap();
    let string = m.space(16);

    let (code, parameters, _) = m.stop("RtlInitAnsiString", &[string, end - 4]);

    assert_eq!((code, parameters[0]), (0x50, end));
}

#[test]
fn allocated_string_is_freed_once() {
    let mut m = Machine::new();
    let source = m.narrow("hello");
    let (ansi, unicode) = (m.space(16), m.space(16));
    m.value("RtlInitAnsiString", &[ansi, source]);

    let status = m.value("RtlAnsiStringToUnicodeString", &[unicode, ansi, 1]);

    assert_eq!((status, read(&m, unicode)), (0, "hello".to_owned()));
    m.value("RtlFreeUnicodeString", &[unicode]);
    assert_eq!(m.u64(unicode + 8), 0);
    m.value("RtlFreeUnicodeString", &[unicode]);
}

#[test]
fn conversion_needs_room() {
    let mut m = Machine::new();
    let source = m.narrow("hello");
    let ansi = m.space(16);
    m.value("RtlInitAnsiString", &[ansi, source]);
    let (small, exact) = (m.room(9), m.room(10));

    let fails = m.value("RtlAnsiStringToUnicodeString", &[small, ansi, 0]);
    let fits = m.value("RtlAnsiStringToUnicodeString", &[exact, ansi, 0]);

    assert_eq!((fails as u32, fits), (0x8000_0005, 0));
    assert_eq!(read(&m, exact), "hello");
}

#[test]
fn integers_are_written_in_every_base() {
    for (value, base, expected) in [
        (255u64, 0, "255"),
        (255, 10, "255"),
        (255, 16, "FF"),
        (5, 2, "101"),
        (8, 8, "10"),
        (0x1_0000_0001, 10, "1"),
    ] {
        let mut m = Machine::new();
        let string = m.room(64);

        let status = m.value("RtlIntegerToUnicodeString", &[value, base, string]);

        assert_eq!((status, read(&m, string)), (0, expected.to_owned()));
    }
}

#[test]
fn integer_in_a_bad_base_or_without_room_is_refused() {
    let mut m = Machine::new();
    let (large, small) = (m.room(64), m.room(4));

    let base = m.value("RtlIntegerToUnicodeString", &[1, 7, large]);
    let room = m.value("RtlIntegerToUnicodeString", &[1234, 10, small]);

    assert_eq!((base as u32, room as u32), (0xc000_000d, 0x8000_0005));
}

#[test]
fn strings_are_copied_appended_and_compared() {
    let mut m = Machine::new();
    let (source, target) = (m.unicode("Abc"), m.room(10));
    let (more, lower) = (m.wide("De"), m.unicode("abcde"));

    m.value("RtlCopyUnicodeString", &[target, source]);
    let appended = m.value("RtlAppendUnicodeToString", &[target, more]);
    let full = m.value("RtlAppendUnicodeToString", &[target, more]);
    let equal = m.value("RtlEqualUnicodeString", &[target, lower, 1]);
    let exact = m.value("RtlEqualUnicodeString", &[target, lower, 0]);

    assert_eq!(read(&m, target), "AbcDe");
    assert_eq!((appended, full as u32), (0, 0xc000_0023));
    assert_eq!((equal, exact), (1, 0));
}
