use super::machine::Machine;
use crate::executive::{REG_DWORD, REG_SZ, Value};
use crate::status::{
    BUFFER_OVERFLOW, BUFFER_TOO_SMALL, INVALID_HANDLE, INVALID_PARAMETER, OBJECT_NAME_NOT_FOUND,
    SUCCESS,
};

const SERVICE: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Services\\probe";

fn attributes(m: &mut Machine, root: u64, name: &str) -> u64 {
    let name = m.unicode(name);
    let fields: Vec<u8> = [0x30, root, name, 0x240, 0, 0]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    m.bytes(&fields)
}

fn open(m: &mut Machine, root: u64, name: &str) -> (u32, u64) {
    let handle = m.space(8);
    let attributes = attributes(m, root, name);
    let status = m.value("ZwOpenKey", &[handle, 0x2_0019, attributes]);
    (status as u32, m.u64(handle))
}

/// Query a value: status, bytes written, length needed.
fn query(m: &mut Machine, key: u64, name: &str, class: u64, length: usize) -> (u32, Vec<u8>, u32) {
    let name = m.unicode(name);
    let (buffer, needed) = (m.space(length.max(1)), m.space(4));
    let status = m.value(
        "ZwQueryValueKey",
        &[key, name, class, buffer, length as u64, needed],
    );
    let mut bytes = vec![0; length];
    crate::Platform::read(&m.p, memory::Gva(buffer), &mut bytes).unwrap();
    (status as u32, bytes, m.u32(needed))
}

#[test]
fn settings_become_values() {
    for (text, kind, data) in [
        ("7", REG_DWORD, vec![7, 0, 0, 0]),
        ("0x10", REG_DWORD, vec![16, 0, 0, 0]),
        ("4294967295", REG_DWORD, vec![255; 4]),
        ("4294967296", REG_SZ, Value::text("", "4294967296").data),
        ("-1", REG_SZ, vec![b'-', 0, b'1', 0, 0, 0]),
        ("+1", REG_SZ, vec![b'+', 0, b'1', 0, 0, 0]),
        ("0x", REG_SZ, vec![b'0', 0, b'x', 0, 0, 0]),
        ("", REG_SZ, vec![0, 0]),
    ] {
        let value = Value::setting("Name", text);
        assert_eq!((value.kind, value.data), (kind, data), "{text:?}");
    }
}

#[test]
fn setting_is_found_in_the_parameters_key() {
    let mut m = Machine::with_settings(&[("UsePhysicalMemory", "1")]);
    let (status, service) = open(&mut m, 0, &SERVICE.to_uppercase());
    assert_eq!(status, SUCCESS);
    let (status, key) = open(&mut m, service, "Parameters");
    assert_eq!(status, SUCCESS);

    let (status, bytes, needed) = query(&mut m, key, "usephysicalmemory", 2, 16);

    assert_eq!((status, needed), (SUCCESS, 16));
    assert_eq!(bytes, [0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn setting_is_found_in_the_devices_software_key() {
    let mut m = Machine::with_settings(&[("Mode", "fast")]);
    let handle = m.space(8);

    let status = m.value("IoOpenDeviceRegistryKey", &[0, 2, 0x2_0019, handle]);

    assert_eq!(status as u32, SUCCESS);
    let key = m.u64(handle);
    let (status, bytes, _) = query(&mut m, key, "Mode", 2, 22);
    assert_eq!((status, bytes[12]), (SUCCESS, b'f'));
}

#[test]
fn query_says_how_much_it_needs() {
    for (class, length, expected) in [
        (2, 0, BUFFER_TOO_SMALL),
        (2, 11, BUFFER_TOO_SMALL),
        (2, 12, BUFFER_OVERFLOW),
        (2, 15, BUFFER_OVERFLOW),
        (2, 16, SUCCESS),
        (0, 11, BUFFER_TOO_SMALL),
        (0, 12, BUFFER_OVERFLOW),
        (0, 14, SUCCESS),
        (1, 19, BUFFER_TOO_SMALL),
        (1, 20, BUFFER_OVERFLOW),
        (1, 28, SUCCESS),
        (4, 8, BUFFER_OVERFLOW),
        (4, 12, SUCCESS),
    ] {
        let mut m = Machine::with_settings(&[("N", "5")]);
        let (_, key) = open(&mut m, 0, &format!("{SERVICE}\\Parameters"));

        let (status, _, needed) = query(&mut m, key, "N", class, length);

        assert_eq!(status, expected, "class {class}, {length} bytes");
        let whole = [14, 28, 16, 0, 12][class as usize];
        assert_eq!(needed, whole, "class {class}");
    }
}

#[test]
fn full_information_aligns_its_data() {
    let mut m = Machine::with_settings(&[("N", "5")]);
    let (_, key) = open(&mut m, 0, &format!("{SERVICE}\\Parameters"));

    let (_, bytes, _) = query(&mut m, key, "N", 1, 28);

    assert_eq!(bytes[8..20], [24, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(bytes[20..28], [b'N', 0, 0, 0, 5, 0, 0, 0]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut m = Machine::new();
    let (status, _) = open(&mut m, 0, "\\Registry\\Machine\\Nowhere");
    assert_eq!(status, OBJECT_NAME_NOT_FOUND);
    let (_, key) = open(&mut m, 0, SERVICE);

    let (value, ..) = query(&mut m, key, "Nothing", 2, 16);
    let (class, ..) = query(&mut m, key, "Type", 9, 16);
    let (handle, ..) = query(&mut m, 0x44, "Type", 2, 16);

    assert_eq!(
        (value, class, handle),
        (OBJECT_NAME_NOT_FOUND, 0xc000_0003, INVALID_HANDLE)
    );
}

#[test]
fn malformed_names_are_refused() {
    let mut m = Machine::new();
    let (relative, _) = open(&mut m, 0, "probe");
    let (root, _) = open(&mut m, 0x1234, "probe");
    let handle = m.space(8);
    let short = attributes(&mut m, 0, SERVICE);
    m.p_write_u32(short, 0x28);
    let length = m.value("ZwOpenKey", &[handle, 0, short]) as u32;
    let odd = attributes(&mut m, 0, SERVICE);
    let name = m.u64(odd + 0x10);
    let maximum = m.u32(name) >> 16;
    m.p_write_u32(name, maximum << 16 | 7);
    let odd = m.value("ZwOpenKey", &[handle, 0, odd]) as u32;

    assert_eq!(relative, 0xc000_003b);
    assert_eq!(root, INVALID_HANDLE);
    assert_eq!(length, INVALID_PARAMETER);
    assert_eq!(odd, 0xc000_0033);
}

#[test]
fn value_that_was_set_is_read_back() {
    let mut m = Machine::new();
    let (_, key) = open(&mut m, 0, SERVICE);
    let name = m.unicode("Blob");
    let data = m.bytes(&[9, 8, 7]);

    let set = m.value("ZwSetValueKey", &[key, name, 0, 3, data, 3]);
    let (status, bytes, _) = query(&mut m, key, "BLOB", 2, 15);
    let removed = m.value("ZwDeleteValueKey", &[key, name]);
    let (gone, ..) = query(&mut m, key, "Blob", 2, 15);

    assert_eq!(
        (set as u32, status, removed as u32),
        (SUCCESS, SUCCESS, SUCCESS)
    );
    assert_eq!(bytes[12..], [9, 8, 7]);
    assert_eq!(gone, OBJECT_NAME_NOT_FOUND);
}

#[test]
fn huge_value_is_refused() {
    let mut m = Machine::new();
    let (_, key) = open(&mut m, 0, SERVICE);
    let name = m.unicode("Blob");

    let status = m.value("ZwSetValueKey", &[key, name, 0, 3, 0, u64::from(u32::MAX)]);

    assert_eq!(status as u32, 0xc000_009a);
}

#[test]
fn key_is_made_below_an_existing_one_only() {
    let mut m = Machine::new();
    let (handle, disposition) = (m.space(8), m.space(4));
    let mut create = |name: &str| {
        let attributes = attributes(&mut m, 0, name);
        let status = m.value(
            "ZwCreateKey",
            &[handle, 0, attributes, 0, 0, 0, disposition],
        );
        (status as u32, m.u32(disposition))
    };

    assert_eq!(create(&format!("{SERVICE}\\New")), (SUCCESS, 1));
    assert_eq!(create(&format!("{SERVICE}\\new")), (SUCCESS, 2));
    assert_eq!(create(&format!("{SERVICE}\\A\\B")).0, OBJECT_NAME_NOT_FOUND);
}

#[test]
fn registry_above_passive_level_stops() {
    for name in [
        "ZwOpenKey",
        "ZwCreateKey",
        "ZwFlushKey",
        "ZwQueryValueKey",
        "ZwSetValueKey",
    ] {
        let mut m = Machine::new();
        let attributes = attributes(&mut m, 0, SERVICE);
        let arguments = match name {
            "ZwOpenKey" | "ZwCreateKey" => [attributes, 0, attributes, 0, 0, 0, 0],
            _ => [0, attributes + 0x100, 0, 0, 0, 0, 0],
        };
        m.state.set_irql(&mut m.p, 1).unwrap();

        let (code, parameters, _) = m.stop(name, &arguments);

        assert_eq!((code, parameters[0]), (0xc4, 0x2_001f), "{name}");
    }
}
