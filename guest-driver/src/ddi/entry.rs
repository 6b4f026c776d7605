//! The real entry points: each checks what it was given and calls the
//! module that does the work.

use core::ffi::c_void;
use core::ptr;

use crate::adapter::Adapter;
use crate::nt::{Result, log, status_of};
use crate::spec::ddi::Argument;
use crate::spec::dxgk::{
    CHILD_VIDEO_OUTPUT, ChildDescriptor, ChildStatus, EscapeArgument, HPD_ALWAYS_CONNECTED,
    Interface, OUTPUT_OTHER, STATUS_CONNECTION,
};
use crate::spec::nt::{
    NtStatus, STATUS_GRAPHICS_CHILD_DESCRIPTOR_NOT_SUPPORTED, STATUS_INVALID_PARAMETER,
    STATUS_SUCCESS,
};
use crate::spec::query::QueryAdapterInfo;
use crate::{caps, escape as escapes};

/// The one child: the connector of scanout 0.
const CHILD: u32 = 0;

/// Runs `work` on the adapter behind `context`.
///
/// # Safety
/// `context` is what AddDevice handed out.
unsafe fn with_adapter(
    context: *mut c_void,
    work: impl FnOnce(&Adapter) -> Result<()>,
) -> NtStatus {
    // SAFETY: the caller's promise.
    status_of(unsafe { Adapter::from_context(context) }.and_then(work))
}

/// DxgkDdiAddDevice.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL.
#[inline(never)]
pub unsafe extern "system" fn add_device(
    _physical_device: *mut c_void,
    context: *mut *mut c_void,
) -> NtStatus {
    if context.is_null() {
        return STATUS_INVALID_PARAMETER;
    }
    status_of(Adapter::create().map(|adapter| {
        // SAFETY: dxgkrnl's place for the context.
        unsafe { context.write(adapter.cast()) }
    }))
}

/// DxgkDdiStartDevice.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL with its own structures.
#[inline(never)]
pub unsafe extern "system" fn start_device(
    context: *mut c_void,
    _start_info: *const c_void,
    interface: *const Interface,
    sources: *mut u32,
    children: *mut u32,
) -> NtStatus {
    if interface.is_null() || sources.is_null() || children.is_null() {
        return STATUS_INVALID_PARAMETER;
    }
    // SAFETY: dxgkrnl's pointers.
    unsafe {
        with_adapter(context, |adapter| {
            adapter.start(interface)?;
            sources.write(1);
            children.write(1);
            Ok(())
        })
    }
}

/// DxgkDdiStopDevice.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL.
#[inline(never)]
pub unsafe extern "system" fn stop_device(context: Argument) -> NtStatus {
    // SAFETY: our context.
    unsafe {
        with_adapter(context, |adapter| {
            adapter.stop();
            Ok(())
        })
    }
}

/// DxgkDdiRemoveDevice.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL, after everything else.
#[inline(never)]
pub unsafe extern "system" fn remove_device(context: Argument) -> NtStatus {
    // SAFETY: our context. A device that was never stopped is stopped here:
    // the device must not outlive the memory.
    unsafe {
        with_adapter(context, |adapter| {
            adapter.stop();
            Adapter::destroy(ptr::from_ref(adapter).cast_mut());
            Ok(())
        })
    }
}

/// DxgkDdiUnload.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL.
#[inline(never)]
pub unsafe extern "system" fn unload() {
    log!("unloaded");
}

/// DxgkDdiInterruptRoutine.
///
/// # Safety
/// Called by dxgkrnl at DIRQL.
#[inline(never)]
pub unsafe extern "system" fn interrupt_routine(context: *mut c_void, message: u32) -> u8 {
    // SAFETY: our context.
    match unsafe { Adapter::from_context(context) } {
        Ok(adapter) => u8::from(adapter.interrupt(message)),
        Err(_) => 0,
    }
}

/// DxgkDdiDpcRoutine.
///
/// # Safety
/// Called by dxgkrnl at DISPATCH_LEVEL.
#[inline(never)]
pub unsafe extern "system" fn dpc_routine(context: *mut c_void) {
    // SAFETY: our context.
    if let Ok(adapter) = unsafe { Adapter::from_context(context) } {
        adapter.deferred();
    }
}

/// DxgkDdiResetDevice.
///
/// # Safety
/// Called by dxgkrnl at any IRQL.
#[inline(never)]
pub unsafe extern "system" fn reset_device(context: *mut c_void) {
    // SAFETY: our context.
    if let Ok(adapter) = unsafe { Adapter::from_context(context) } {
        adapter.reset_hardware();
    }
}

/// DxgkDdiQueryChildRelations: one video output.
///
/// # Safety
/// Called by dxgkrnl with an array of `bytes` bytes, zeroed, one element
/// longer than StartDevice reported.
#[inline(never)]
pub unsafe extern "system" fn query_child_relations(
    _context: Argument,
    descriptors: Argument,
    bytes: Argument,
) -> NtStatus {
    // A ULONG in a register: the upper half is not defined.
    let bytes = bytes as usize & u32::MAX as usize;
    if descriptors.is_null() || bytes < size_of::<ChildDescriptor>() {
        return STATUS_INVALID_PARAMETER;
    }
    // SAFETY: room for one.
    unsafe {
        descriptors
            .cast::<ChildDescriptor>()
            .write(ChildDescriptor {
                kind: CHILD_VIDEO_OUTPUT,
                technology: OUTPUT_OTHER,
                orientation: 0,
                sdtv: 0,
                hpd: HPD_ALWAYS_CONNECTED,
                acpi_uid: 0,
                child_uid: CHILD,
            });
    }
    STATUS_SUCCESS
}

/// DxgkDdiQueryChildStatus: always connected.
///
/// # Safety
/// Called by dxgkrnl with a DXGK_CHILD_STATUS.
#[inline(never)]
pub unsafe extern "system" fn query_child_status(
    _context: Argument,
    status: Argument,
    _non_destructive: Argument,
) -> NtStatus {
    // SAFETY: dxgkrnl's structure, or null.
    let Some(status) = (unsafe { status.cast::<ChildStatus>().as_mut() }) else {
        return STATUS_INVALID_PARAMETER;
    };
    if status.child_uid != CHILD || status.kind != STATUS_CONNECTION {
        return STATUS_INVALID_PARAMETER;
    }
    status.connected = 1;
    STATUS_SUCCESS
}

/// DxgkDdiQueryDeviceDescriptor: the output has no EDID.
///
/// # Safety
/// Called by dxgkrnl.
#[inline(never)]
pub unsafe extern "system" fn query_device_descriptor(
    _context: Argument,
    _child: Argument,
    _descriptor: Argument,
) -> NtStatus {
    STATUS_GRAPHICS_CHILD_DESCRIPTOR_NOT_SUPPORTED
}

/// DxgkDdiQueryAdapterInfo.
///
/// # Safety
/// Called by dxgkrnl with a DXGKARG_QUERYADAPTERINFO.
#[inline(never)]
pub unsafe extern "system" fn query_adapter_info(
    _context: Argument,
    argument: Argument,
) -> NtStatus {
    // SAFETY: dxgkrnl's structure, or null.
    let argument = unsafe { argument.cast::<QueryAdapterInfo>().as_ref() };
    status_of(
        argument
            .ok_or(STATUS_INVALID_PARAMETER)
            .and_then(caps::query),
    )
}

/// DxgkDdiEscape.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL with a DXGKARG_ESCAPE.
#[inline(never)]
pub unsafe extern "system" fn escape(context: Argument, argument: Argument) -> NtStatus {
    // SAFETY: our context; dxgkrnl's structure, or null.
    unsafe {
        with_adapter(context, |adapter| {
            let argument = argument.cast::<EscapeArgument>().as_ref();
            escapes::handle(adapter, argument.ok_or(STATUS_INVALID_PARAMETER)?)
        })
    }
}

/// DxgkDdiBeginExclusiveAccess.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL.
#[inline(never)]
pub unsafe extern "system" fn begin_exclusive_access(
    context: Argument,
    _argument: Argument,
) -> NtStatus {
    // SAFETY: our context.
    unsafe { with_adapter(context, Adapter::begin_exclusive) }
}

/// DxgkDdiEndExclusiveAccess.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL.
#[inline(never)]
pub unsafe extern "system" fn end_exclusive_access(
    context: Argument,
    _argument: Argument,
) -> NtStatus {
    // SAFETY: our context.
    unsafe { with_adapter(context, Adapter::end_exclusive) }
}
