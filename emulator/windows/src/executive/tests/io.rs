use super::machine::Machine;
use crate::executive::spec::io::{
    IRP_CURRENT, IRP_USER_BUFFER, REGISTER_DISPLAY_ONLY, REGISTER_FULL,
};
use crate::status::{IMAGE_ALREADY_LOADED, NOT_SUPPORTED, OBJECT_NAME_NOT_FOUND, SUCCESS};
use memory::Gva;

const FULL: u64 = 0xffff_f800_0010_0000;
const DISPLAY_ONLY: u64 = 0xffff_f800_0010_0010;

/// What the display port library has: device, event, status block, buffer.
struct Library {
    file: u64,
    device: u64,
    event: u64,
    status_block: u64,
    buffer: u64,
}

fn library(m: &mut Machine) -> Library {
    let (file, device) = (m.space(8), m.space(8));
    let name = m.unicode("\\Device\\DxgKrnl");
    let status = m.value("IoGetDeviceObjectPointer", &[name, 0x1f_01ff, file, device]);
    assert_eq!(status as u32, SUCCESS);
    let event = m.space(0x18);
    m.value("KeInitializeEvent", &[event, 0, 0]);
    Library {
        file: m.u64(file),
        device: m.u64(device),
        event,
        status_block: m.bytes(&[0xff; 16]),
        buffer: m.space(8),
    }
}

fn build(m: &mut Machine, l: &Library, code: u32, length: u64, internal: u64) -> u64 {
    m.value(
        "IoBuildDeviceIoControlRequest",
        &[
            u64::from(code),
            l.device,
            0,
            0,
            l.buffer,
            length,
            internal,
            l.event,
            l.status_block,
        ],
    )
}

fn send(m: &mut Machine, l: &Library, code: u32, length: u64, internal: u64) -> u32 {
    let irp = build(m, l, code, length, internal);
    m.value("IofCallDriver", &[l.device, irp]) as u32
}

#[test]
fn dxgkrnl_is_loaded_already() {
    let mut m = Machine::new();
    let name = m.unicode("\\Registry\\Machine\\System\\CurrentControlSet\\Services\\DXGKrnl");
    let other = m.unicode("\\Registry\\Machine\\System\\CurrentControlSet\\Services\\Other");

    let load = m.value("ZwLoadDriver", &[name]) as u32;
    let unload = m.value("ZwUnloadDriver", &[name]) as u32;
    let missing = m.value("ZwLoadDriver", &[other]) as u32;

    assert_eq!(
        (load, unload, missing),
        (IMAGE_ALREADY_LOADED, SUCCESS, OBJECT_NAME_NOT_FOUND)
    );
}

#[test]
fn registration_routines_are_given() {
    for (code, expected) in [(REGISTER_FULL, FULL), (REGISTER_DISPLAY_ONLY, DISPLAY_ONLY)] {
        let mut m = Machine::new();
        m.state.set_registration(Gva(FULL), Gva(DISPLAY_ONLY));
        let l = library(&mut m);

        let status = send(&mut m, &l, code, 8, 1);

        assert_eq!(status, SUCCESS);
        assert_eq!(m.u64(l.buffer), expected);
        assert_eq!((m.u64(l.status_block), m.u64(l.status_block + 8)), (0, 0));
        assert_eq!(m.value("KeReadStateEvent", &[l.event]), 1);
        assert_eq!(m.value("ObfDereferenceObject", &[l.file]), 0);
    }
}

#[test]
fn bad_requests_are_refused_and_completed() {
    for (code, length, internal, expected) in [
        (REGISTER_FULL, 8, 0, 0xc000_0010),
        (REGISTER_FULL, 4, 1, 0xc000_000d),
        (0x0023_e05b, 8, 1, 0xc000_0010),
    ] {
        let mut m = Machine::new();
        m.state.set_registration(Gva(FULL), Gva(DISPLAY_ONLY));
        let l = library(&mut m);

        let status = send(&mut m, &l, code, length, internal);

        assert_eq!(status, expected, "{code:#x}");
        assert_eq!(m.u64(l.status_block), u64::from(expected));
        assert_eq!(m.u64(l.buffer), 0);
    }
}

#[test]
fn nothing_is_registered_before_it_is_known() {
    let mut m = Machine::new();
    let l = library(&mut m);

    assert_eq!(send(&mut m, &l, REGISTER_FULL, 8, 1), NOT_SUPPORTED);
}

#[test]
fn request_has_its_fields() {
    let mut m = Machine::new();
    let l = library(&mut m);

    let irp = build(&mut m, &l, REGISTER_FULL, 8, 1);

    assert_eq!(m.u64(irp + IRP_USER_BUFFER), l.buffer);
    let stack = m.u64(irp + IRP_CURRENT) - 0x48;
    assert_eq!(m.u32(stack + 0x18), REGISTER_FULL);
    assert_eq!(m.u64(stack) & 0xff, 0x0f);
}

#[test]
fn buffered_request_is_not_built() {
    let mut m = Machine::new();
    let l = library(&mut m);

    assert_eq!(build(&mut m, &l, 0x0023_0000, 8, 1), 0);
}

#[test]
fn request_is_sent_once() {
    let mut m = Machine::new();
    let l = library(&mut m);
    let irp = build(&mut m, &l, REGISTER_FULL, 8, 1);
    m.value("IofCallDriver", &[l.device, irp]);

    let (code, parameters, _) = m.stop("IofCallDriver", &[l.device, irp]);

    assert_eq!((code, parameters[0]), (0x44, irp));
}

#[test]
fn request_without_a_stack_location_stops() {
    let mut m = Machine::new();
    let l = library(&mut m);
    let irp = build(&mut m, &l, REGISTER_FULL, 8, 1);
    m.p_write_u64(irp + IRP_CURRENT, 0);

    let (code, ..) = m.stop("IofCallDriver", &[l.device, irp]);

    assert_eq!(code, 0x35);
}

#[test]
fn unknown_device_is_not_found() {
    let mut m = Machine::new();
    let name = m.unicode("\\Device\\Beep");
    let (file, device) = (m.space(8), m.space(8));

    let status = m.value("IoGetDeviceObjectPointer", &[name, 0, file, device]);

    assert_eq!(status as u32, OBJECT_NAME_NOT_FOUND);
}
