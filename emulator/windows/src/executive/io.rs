//! The I/O manager, as far as the display port library needs it: it loads
//! DXGKrnl, opens its device, and asks it by an IOCTL for the routine that
//! registers a driver.

use super::rules::{breach, unless};
use super::spec::{
    io as layout,
    status::{INVALID_DEVICE_REQUEST, OBJECT_NAME_INVALID},
};
use super::{Answer, State, dispatcher, field, narrow, pointer, strings};
use crate::rules::executive as rule;
use crate::status::{
    IMAGE_ALREADY_LOADED, INSUFFICIENT_RESOURCES, INVALID_PARAMETER, NOT_SUPPORTED,
    OBJECT_NAME_NOT_FOUND, SUCCESS,
};
use crate::{Call, Outcome, Platform, PlatformError};
use memory::Gva;
use std::collections::BTreeSet;

/// The service of dxgkrnl, in lower case.
const DXGKRNL_SERVICE: &str = "\\registry\\machine\\system\\currentcontrolset\\services\\dxgkrnl";
/// Its device, in lower case.
const DXGKRNL_DEVICE: &str = "\\device\\dxgkrnl";
/// Most IRPs that may be built and not sent.
const MAX_IRPS: usize = 256;

/// The I/O manager's records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Io {
    /// Where full WDDM drivers register; null until it is known.
    full: Gva,
    /// Where display-only drivers register.
    display_only: Gva,
    /// DEVICE_OBJECT of dxgkrnl, once it was opened.
    device: Option<Gva>,
    /// IRPs that were built and are not complete.
    irps: BTreeSet<Gva>,
}

impl State {
    /// The routines that dxgkrnl's two IOCTLs answer with.
    pub fn set_registration(&mut self, full: Gva, display_only: Gva) {
        self.io.full = full;
        self.io.display_only = display_only;
    }

    /// dxgkrnl's device object.
    fn dxgkrnl_device(&mut self, p: &mut dyn Platform) -> Result<Option<Gva>, PlatformError> {
        if let Some(device) = self.io.device {
            return Ok(Some(device));
        }
        let Some(device) = self.arena.take(layout::DEVICE_SIZE) else {
            return Ok(None);
        };
        header(p, device, layout::DEVICE_TYPE, layout::DEVICE_SIZE)?;
        p.write_u32(field(device, layout::DEVICE_REFERENCES)?, 1)?;
        p.write_u32(
            field(device, layout::DEVICE_KIND)?,
            layout::FILE_DEVICE_VIDEO,
        )?;
        p.write(field(device, layout::DEVICE_STACK_SIZE)?, &[1])?;
        self.io.device = Some(device);
        Ok(Some(device))
    }
}

/// Zero an object and write its Type and Size.
fn header(p: &mut dyn Platform, at: Gva, kind: u16, size: u64) -> Result<(), PlatformError> {
    p.write(at, &vec![0; size as usize])?;
    p.write(at, &kind.to_le_bytes())?;
    p.write(field(at, 2)?, &(size as u16).to_le_bytes())
}

/// NTSTATUS ZwLoadDriver(PUNICODE_STRING). dxgkrnl is loaded on every Windows
/// that shows a picture, before any driver of a device.
pub(super) fn load_driver(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    driver_service(state, p, call, "ZwLoadDriver", IMAGE_ALREADY_LOADED)
}

/// NTSTATUS ZwUnloadDriver(PUNICODE_STRING): others use it still, so nothing
/// happens.
pub(super) fn unload_driver(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    driver_service(state, p, call, "ZwUnloadDriver", SUCCESS)
}

fn driver_service(state: &State, p: &dyn Platform, call: &Call, name: &str, answer: u32) -> Answer {
    let breach = breach(state, &rule::LOAD_DRIVER_IRQL, name, 0);
    let status = match strings::object_name(p, pointer(call, p, 0)?)? {
        Ok(path) if path.to_lowercase() == DXGKRNL_SERVICE => answer,
        Ok(_) => OBJECT_NAME_NOT_FOUND,
        Err(status) => status,
    };
    Ok(unless(breach, status))
}

/// NTSTATUS IoGetDeviceObjectPointer(PUNICODE_STRING, ACCESS_MASK,
/// PFILE_OBJECT*, PDEVICE_OBJECT*). The caller owns a reference of the file
/// object only.
pub(super) fn get_device(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = strings::object_name(p, pointer(call, p, 0)?)?;
    let (file_at, device_at) = (pointer(call, p, 2)?, pointer(call, p, 3)?);
    let breach = breach(
        state,
        &rule::DEVICE_POINTER_IRQL,
        "IoGetDeviceObjectPointer",
        0,
    );
    let status = match name {
        Ok(name) if name.to_lowercase() == DXGKRNL_DEVICE => SUCCESS,
        Ok(name) if name.starts_with('\\') => OBJECT_NAME_NOT_FOUND,
        Ok(_) => OBJECT_NAME_INVALID,
        Err(status) => status,
    };
    if status != SUCCESS {
        return Ok(unless(breach, status));
    }
    let device = state.dxgkrnl_device(p)?;
    let file = state.arena.take(layout::FILE_SIZE);
    let (Some(device), Some(file)) = (device, file) else {
        return Ok(unless(breach, INSUFFICIENT_RESOURCES));
    };
    header(p, file, layout::FILE_TYPE, layout::FILE_SIZE)?;
    p.write_u64(field(file, layout::FILE_DEVICE)?, device.0)?;
    state.track(file);
    p.write_u64(file_at, file.0)?;
    p.write_u64(device_at, device.0)?;
    Ok(unless(breach, SUCCESS))
}

/// PIRP IoBuildDeviceIoControlRequest(Code, PDEVICE_OBJECT, Input, InputLength,
/// Output, OutputLength, BOOLEAN Internal, PKEVENT, PIO_STATUS_BLOCK). Only
/// METHOD_NEITHER: the other methods give NULL, as a lack of memory would.
pub(super) fn build_request(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "IoBuildDeviceIoControlRequest";
    let code = call.argument(p, 0)? as u32;
    let (input, input_length) = (call.argument(p, 2)?, call.argument(p, 3)? as u32);
    let (output, output_length) = (call.argument(p, 4)?, call.argument(p, 5)? as u32);
    let internal = narrow(call.argument(p, 6)?) != 0;
    let (event, status_block) = (call.argument(p, 7)?, call.argument(p, 8)?);
    let breach = breach(state, &rule::BUILD_REQUEST_IRQL, name, 0);
    if code & 3 != layout::METHOD_NEITHER {
        log::warn!("{name}: control code {code:#010x} is not METHOD_NEITHER; it returns NULL");
        return Ok(unless(breach, rule::REQUEST_METHOD.refuse(name)));
    }
    let size = layout::IRP_SIZE + layout::STACK_SIZE;
    if state.io.irps.len() >= MAX_IRPS {
        return Ok(unless(breach, 0u64));
    }
    let Some(irp) = state.arena.take(size) else {
        return Ok(unless(breach, 0u64));
    };
    header(p, irp, layout::IRP_TYPE, size)?;
    // One stack location; the current one lies past it until it is sent.
    p.write(field(irp, layout::IRP_STACK_COUNT)?, &[1, 2])?;
    let thread = state.thread(state.current).map_or(0, |t| t.object.0);
    let stack = field(irp, layout::IRP_SIZE)?;
    let fields = [
        (layout::IRP_USER_IOSB, status_block),
        (layout::IRP_USER_EVENT, event),
        (layout::IRP_USER_BUFFER, output),
        (layout::IRP_THREAD, thread),
        (layout::IRP_CURRENT, field(stack, layout::STACK_SIZE)?.0),
    ];
    for (offset, value) in fields {
        p.write_u64(field(irp, offset)?, value)?;
    }
    let major = if internal {
        layout::INTERNAL_DEVICE_CONTROL
    } else {
        layout::DEVICE_CONTROL
    };
    p.write(field(stack, layout::STACK_MAJOR)?, &[major])?;
    p.write_u32(field(stack, layout::STACK_OUTPUT_LENGTH)?, output_length)?;
    p.write_u32(field(stack, layout::STACK_INPUT_LENGTH)?, input_length)?;
    p.write_u32(field(stack, layout::STACK_CODE)?, code)?;
    p.write_u64(field(stack, layout::STACK_INPUT)?, input)?;
    state.io.irps.insert(irp);
    Ok(unless(breach, irp.0))
}

/// NTSTATUS IofCallDriver(PDEVICE_OBJECT, PIRP): dxgkrnl answers at once.
pub(super) fn call_driver(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "IofCallDriver";
    let (device, irp) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let breach = breach(state, &rule::CALL_DRIVER_IRQL, name, irp.0);
    if !state.io.irps.contains(&irp) {
        let what = format!("{name}: {irp} is no IRP, or one that is complete");
        let stop = rule::IRP_COMPLETE.stop(&[irp.0], what);
        return Ok(Outcome::Stop(stop.or_return(INVALID_PARAMETER)));
    }
    let mut location = [0];
    p.read(field(irp, layout::IRP_LOCATION)?, &mut location)?;
    let current = Gva(p.read_u64(field(irp, layout::IRP_CURRENT)?)?);
    // One location was made: any other count or place is the driver's doing.
    let stack = field(irp, layout::IRP_SIZE)?;
    if location[0] != 2 || current != field(stack, layout::STACK_SIZE)? {
        let what = format!("{name}: the IRP at {irp} has no stack location left");
        let stop = rule::IRP_LOCATION.stop(&[irp.0], what);
        return Ok(Outcome::Stop(stop.or_return(INVALID_PARAMETER)));
    }
    p.write(field(irp, layout::IRP_LOCATION)?, &[1])?;
    p.write_u64(field(irp, layout::IRP_CURRENT)?, stack.0)?;
    p.write_u64(field(stack, layout::STACK_DEVICE)?, device.0)?;
    let status = if state.io.device == Some(device) {
        answer(state, p, irp, stack)?
    } else {
        INVALID_DEVICE_REQUEST
    };
    complete(state, p, irp, status)?;
    Ok(unless(breach, status))
}

/// What dxgkrnl makes of a request.
fn answer(state: &State, p: &mut dyn Platform, irp: Gva, stack: Gva) -> Result<u32, PlatformError> {
    let mut major = [0];
    p.read(field(stack, layout::STACK_MAJOR)?, &mut major)?;
    let length = p.read_u32(field(stack, layout::STACK_OUTPUT_LENGTH)?)?;
    let routine = match p.read_u32(field(stack, layout::STACK_CODE)?)? {
        layout::REGISTER_FULL => state.io.full,
        layout::REGISTER_DISPLAY_ONLY => state.io.display_only,
        _ => return Ok(INVALID_DEVICE_REQUEST),
    };
    if major[0] != layout::INTERNAL_DEVICE_CONTROL {
        return Ok(INVALID_DEVICE_REQUEST);
    }
    if length < 8 {
        return Ok(INVALID_PARAMETER);
    }
    if routine.0 == 0 {
        return Ok(NOT_SUPPORTED);
    }
    let buffer = Gva(p.read_u64(field(irp, layout::IRP_USER_BUFFER)?)?);
    p.write_u64(buffer, routine.0)?;
    Ok(SUCCESS)
}

/// Complete an IRP: status block, event, and the IRP is gone.
fn complete(state: &mut State, p: &mut dyn Platform, irp: Gva, status: u32) -> Result<(), Outcome> {
    let status_block = Gva(p.read_u64(field(irp, layout::IRP_USER_IOSB)?)?);
    let event = Gva(p.read_u64(field(irp, layout::IRP_USER_EVENT)?)?);
    for block in [field(irp, layout::IRP_STATUS)?, status_block] {
        if block.0 != 0 {
            p.write_u64(block, u64::from(status))?;
            p.write_u64(field(block, 8)?, 0)?; // Information
        }
    }
    if event.0 != 0 {
        dispatcher::check(p, "IofCallDriver", event)?;
        dispatcher::set_signal(p, event, 1)?;
    }
    state.io.irps.remove(&irp);
    state.arena.give_back(irp);
    Ok(())
}
