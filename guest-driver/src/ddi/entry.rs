//! The real entry points: each checks what it was given and calls the
//! module that does the work.

use core::ffi::c_void;
use core::ptr;

use crate::adapter::Adapter;
use crate::gpu::HEADS;
use crate::nt::{Result, log, status_of};
use crate::spec::ddi::Argument;
use crate::spec::dxgk::{
    ADAPTER_HW_ID, CHILD_VIDEO_OUTPUT, ChildDescriptor, ChildStatus, DeviceDescriptor,
    EscapeArgument, HPD_ALWAYS_CONNECTED, Interface, OUTPUT_OTHER, POINTER_COLOR, POINTER_VISIBLE,
    POWER_D0, POWER_D3, STATUS_CONNECTION, SetPointerPosition, SetPointerShape,
};
use crate::spec::nt::{
    NtStatus, STATUS_GRAPHICS_CHILD_DESCRIPTOR_NOT_SUPPORTED, STATUS_INVALID_PARAMETER,
    STATUS_MONITOR_NO_MORE_DESCRIPTOR_DATA, STATUS_NOT_SUPPORTED, STATUS_SUCCESS,
};
use crate::spec::query::QueryAdapterInfo;
use crate::{caps, cursor, escape as escapes};

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
            let heads = adapter.start(interface)?;
            sources.write(heads);
            children.write(heads);
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

/// DxgkDdiQueryChildRelations: a video output for each scanout, with its
/// number.
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
    let room = bytes / size_of::<ChildDescriptor>();
    if descriptors.is_null() || room < 1 {
        return STATUS_INVALID_PARAMETER;
    }
    // The last element stays zero: it ends the list.
    for child in 0..room.saturating_sub(1).clamp(1, HEADS) {
        // SAFETY: below `room`.
        unsafe {
            descriptors
                .cast::<ChildDescriptor>()
                .add(child)
                .write(ChildDescriptor {
                    kind: CHILD_VIDEO_OUTPUT,
                    technology: OUTPUT_OTHER,
                    orientation: 0,
                    sdtv: 0,
                    hpd: HPD_ALWAYS_CONNECTED,
                    acpi_uid: 0,
                    child_uid: child as u32,
                });
        }
    }
    STATUS_SUCCESS
}

/// DxgkDdiQueryChildStatus: what the device last said of its displays.
///
/// # Safety
/// Called by dxgkrnl with a DXGK_CHILD_STATUS.
#[inline(never)]
pub unsafe extern "system" fn query_child_status(
    context: Argument,
    status: Argument,
    _non_destructive: Argument,
) -> NtStatus {
    // SAFETY: dxgkrnl's structure, or null.
    let Some(status) = (unsafe { status.cast::<ChildStatus>().as_mut() }) else {
        return STATUS_INVALID_PARAMETER;
    };
    if status.kind != STATUS_CONNECTION {
        return STATUS_INVALID_PARAMETER;
    }
    // SAFETY: our context.
    unsafe {
        with_adapter(context, |adapter| {
            let displays = adapter.state().displays;
            let display = displays.get(status.child_uid as usize);
            let display = display.ok_or(STATUS_INVALID_PARAMETER)?;
            status.connected = u8::from(display.is_some());
            Ok(())
        })
    }
}

/// DxgkDdiQueryDeviceDescriptor: the EDID.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL with a DXGK_DEVICE_DESCRIPTOR.
#[inline(never)]
pub unsafe extern "system" fn query_device_descriptor(
    context: Argument,
    child: Argument,
    descriptor: Argument,
) -> NtStatus {
    // SAFETY: dxgkrnl's structure, or null.
    let Some(descriptor) = (unsafe { descriptor.cast::<DeviceDescriptor>().as_mut() }) else {
        return STATUS_INVALID_PARAMETER;
    };
    let work = |adapter: &Adapter| {
        let edid = adapter.edid(child as usize as u32);
        let edid = edid.map_err(|_| STATUS_GRAPHICS_CHILD_DESCRIPTOR_NOT_SUPPORTED)?;
        let bytes = edid.from_byte(descriptor.offset as usize);
        let bytes = &bytes[..bytes.len().min(descriptor.length as usize)];
        if bytes.is_empty() || descriptor.buffer.is_null() {
            return Err(STATUS_MONITOR_NO_MORE_DESCRIPTOR_DATA);
        }
        // SAFETY: dxgkrnl's buffer of `length` bytes.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), descriptor.buffer.cast(), bytes.len());
        }
        descriptor.length = bytes.len() as u32;
        Ok(())
    };
    // SAFETY: our context.
    unsafe { with_adapter(context, work) }
}

/// DxgkDdiSetPowerState: the adapter's D0 and D3. Its outputs have no power
/// states of their own, and the states between cost the device nothing.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL.
#[inline(never)]
pub unsafe extern "system" fn set_power_state(
    context: Argument,
    hardware: Argument,
    state: Argument,
    _action: Argument,
) -> NtStatus {
    if hardware as usize as u32 != ADAPTER_HW_ID {
        return STATUS_SUCCESS;
    }
    // SAFETY: our context.
    unsafe {
        with_adapter(context, |adapter| match state as usize as u32 {
            POWER_D3 => {
                adapter.power_down();
                Ok(())
            }
            POWER_D0 => adapter.power_up(),
            _ => Ok(()),
        })
    }
}

/// DxgkDdiSetPointerPosition.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL with a DXGKARG_SETPOINTERPOSITION.
#[inline(never)]
pub unsafe extern "system" fn set_pointer_position(
    context: Argument,
    argument: Argument,
) -> NtStatus {
    // SAFETY: dxgkrnl's structure, or null.
    let Some(argument) = (unsafe { argument.cast::<SetPointerPosition>().as_ref() }) else {
        return STATUS_INVALID_PARAMETER;
    };
    // SAFETY: our context.
    unsafe {
        with_adapter(context, |adapter| {
            adapter.with_resources(|context, table| {
                if argument.flags & POINTER_VISIBLE == 0 {
                    return cursor::hide(context, table, argument.source);
                }
                cursor::to(context, table, argument.source, (argument.x, argument.y))
            })
        })
    }
}

/// DxgkDdiSetPointerShape.
///
/// # Safety
/// Called by dxgkrnl at PASSIVE_LEVEL with a DXGKARG_SETPOINTERSHAPE.
#[inline(never)]
pub unsafe extern "system" fn set_pointer_shape(context: Argument, argument: Argument) -> NtStatus {
    // SAFETY: dxgkrnl's structure, or null.
    let Some(shape) = (unsafe { argument.cast::<SetPointerShape>().as_ref() }) else {
        return STATUS_INVALID_PARAMETER;
    };
    let side = interface::CURSOR_SIDE;
    if shape.flags & POINTER_COLOR == 0 {
        return STATUS_NOT_SUPPORTED;
    }
    if shape.pixels.is_null()
        || shape.width > side
        || shape.height > side
        || shape.pitch < shape.width * 4
    {
        return STATUS_INVALID_PARAMETER;
    }
    let pixel = |x: u32, y: u32| {
        if x >= shape.width || y >= shape.height {
            return 0;
        }
        let at = y as usize * shape.pitch as usize + x as usize * 4;
        // SAFETY: inside `height` rows of `pitch` bytes.
        unsafe {
            shape
                .pixels
                .cast::<u8>()
                .add(at)
                .cast::<u32>()
                .read_unaligned()
        }
    };
    // SAFETY: our context.
    unsafe {
        with_adapter(context, |adapter| {
            adapter.with_resources(|context, table| {
                let at = table
                    .cursors
                    .get(shape.source as usize)
                    .map_or((0, 0), |cursor| cursor.at);
                let hot = (shape.hot_x, shape.hot_y);
                cursor::shape(context, table, shape.source, hot, at, pixel)
            })
        })
    }
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
