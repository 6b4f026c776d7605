//! What displib.lib does in a C driver: finds dxgkrnl and hands it the
//! table of entry points.
//!
//! The protocol is not documented by Microsoft; this follows what public
//! re-implementations agree on.

use core::ffi::c_void;
use core::ptr;

use crate::ddi;
use crate::mutations::undo;
use crate::nt::{
    IoBuildDeviceIoControlRequest, IoGetDeviceObjectPointer, IofCallDriver, ObfDereferenceObject,
    Result, ZwLoadDriver, ZwUnloadDriver, check, log, unicode, wide,
};
use crate::spec::ddi::InitializationData;
use crate::spec::nt::{
    FILE_ALL_ACCESS, IoStatusBlock, NtStatus, STATUS_IMAGE_ALREADY_LOADED,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_NOT_SUPPORTED, STATUS_PENDING, UnicodeString,
};
use crate::sync::Event;

/// CTL_CODE(FILE_DEVICE_VIDEO, 0xF, METHOD_NEITHER, FILE_ANY_ACCESS): asks
/// for the registration function of full WDDM drivers.
const IOCTL_REGISTER: u32 = 0x0023_003F;

/// The function that dxgkrnl answers with.
type Initialize =
    unsafe extern "system" fn(*mut c_void, *mut UnicodeString, *mut InitializationData) -> NtStatus;

/// Registers with dxgkrnl; PASSIVE_LEVEL, from DriverEntry.
#[inline(never)]
pub fn register(driver: *mut c_void, registry_path: *mut UnicodeString) -> NtStatus {
    let service = unicode(wide!(
        "\\Registry\\Machine\\System\\CurrentControlSet\\Services\\DXGKrnl"
    ));
    // SAFETY: a live string.
    let loaded = unsafe { ZwLoadDriver(&raw const service) };
    if loaded < 0 && loaded != STATUS_IMAGE_ALREADY_LOADED {
        log!("DXGKrnl is not available: 0x%x", loaded);
        return loaded;
    }
    match hand_over(driver, registry_path) {
        Ok(status) => status,
        Err(status) => {
            log!("DXGKrnl did not register us: 0x%x", status);
            if loaded >= 0 {
                // SAFETY: we loaded it, and nothing of it is in use.
                let _ = undo!("dxgkrnl-unload", unsafe {
                    ZwUnloadDriver(&raw const service)
                });
            }
            status
        }
    }
}

fn hand_over(driver: *mut c_void, registry_path: *mut UnicodeString) -> Result<NtStatus> {
    let name = unicode(wide!("\\Device\\DxgKrnl"));
    let mut file = ptr::null_mut();
    let mut device = ptr::null_mut();
    // SAFETY: places for the answers; the file object keeps the device.
    check(unsafe {
        IoGetDeviceObjectPointer(
            &raw const name,
            FILE_ALL_ACCESS,
            &raw mut file,
            &raw mut device,
        )
    })?;
    let result = ask(device).and_then(|initialize| {
        let mut table = ddi::TABLE;
        // SAFETY: the function that dxgkrnl answered with; it copies the
        // table.
        let status = unsafe { initialize(driver, registry_path, &raw mut table) };
        check(status).map(|()| status)
    });
    // SAFETY: referenced by IoGetDeviceObjectPointer. The driver object that
    // is now bound to dxgkrnl keeps it loaded.
    undo!("dxgkrnl-dereference", unsafe { ObfDereferenceObject(file) });
    result
}

/// Sends the IOCTL and waits for its answer.
#[inline(never)]
fn ask(device: *mut c_void) -> Result<Initialize> {
    let event = Event::new();
    event.init_notification(false);
    let mut status = IoStatusBlock {
        status: 0,
        information: 0,
    };
    let mut answer: *mut c_void = ptr::null_mut();
    // SAFETY: the event, the status block and the answer live until the
    // request is complete: we wait for it without a timeout.
    let irp = unsafe {
        IoBuildDeviceIoControlRequest(
            IOCTL_REGISTER,
            device,
            ptr::null_mut(),
            0,
            (&raw mut answer).cast(),
            size_of::<*mut c_void>() as u32,
            1,
            event.as_ptr(),
            &raw mut status,
        )
    };
    if irp.is_null() {
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    // SAFETY: a request built for this device.
    let mut result = unsafe { IofCallDriver(device, irp) };
    if result == STATUS_PENDING {
        undo!("registration-wait", event.wait(None));
        // SAFETY: the I/O manager wrote it before it set the event.
        result = unsafe { ptr::read_volatile(&raw const status.status) };
    }
    check(result)?;
    // SAFETY: written through the request.
    let answer = unsafe { ptr::read_volatile(&raw const answer) };
    if answer.is_null() {
        return Err(STATUS_NOT_SUPPORTED);
    }
    // SAFETY: dxgkrnl's registration function, of this type.
    Ok(unsafe { core::mem::transmute::<*mut c_void, Initialize>(answer) })
}
