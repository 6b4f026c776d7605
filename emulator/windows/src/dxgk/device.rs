//! Callbacks about the device itself: its resources, its configuration
//! space, its registers, its interrupt and DPC.

use super::spec::{device_info, resources};
use super::{DEVICE_IRQL, is_our_handle, place};
use crate::call::{Call, Outcome};
use crate::platform::{Platform, PlatformError};
use crate::rules::dxgk as rule;
use crate::{Windows, status};
use memory::{Gpa, Gva};

/// Most bytes that one call may read or write of configuration space.
const CONFIG_SIZE: u64 = 4096;

fn done(status: u32) -> Outcome {
    Outcome::Return(u64::from(status))
}

/// NTSTATUS DxgkCbGetDeviceInformation(hDevice, DXGK_DEVICE_INFO*).
pub(crate) fn get_device_information(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    if !is_our_handle(call.registers[0]) {
        return done(status::INVALID_PARAMETER);
    }
    match write_device_information(windows, p, Gva(call.registers[1])) {
        Ok(()) => done(status::SUCCESS),
        Err(e) => e.into(),
    }
}

fn write_device_information(
    windows: &Windows,
    p: &mut dyn Platform,
    at: Gva,
) -> Result<(), PlatformError> {
    let list = resource_list(windows);
    p.write(place::RESOURCES, &list)?;
    let text = utf16(&windows.executive.registry().device_key());
    p.write(place::DEVICE_PATH, &text)?;
    let mut info = [0u8; device_info::SIZE];
    let mut put = |offset: u64, value: u64| {
        if let Some(field) = info.get_mut(offset as usize..offset as usize + 8) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    };
    put(device_info::CONTEXT, windows.dxgk.context);
    put(device_info::PHYSICAL_DEVICE, place::PHYSICAL_DEVICE.0);
    let length = text.len() as u64 - 2; // without the terminator
    put(
        device_info::REGISTRY_PATH,
        length | (text.len() as u64) << 16,
    );
    put(device_info::REGISTRY_PATH + 8, place::DEVICE_PATH.0);
    put(device_info::RESOURCES, place::RESOURCES.0);
    put(device_info::MEMORY_SIZE, p.memory().size());
    put(device_info::HIGHEST_ADDRESS, p.memory().end().base().0 - 1);
    p.write(at, &info)
}

/// Little-endian UTF-16 with its terminator.
pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// `CM_RESOURCE_LIST` of the device: its memory BARs and its messages.
fn resource_list(windows: &Windows) -> Vec<u8> {
    let assigned = windows.hal.resources(windows.dxgk.device);
    let mut descriptors = Vec::new();
    for bar in &assigned.memory {
        let mut one = [0u8; resources::DESCRIPTOR_SIZE];
        one[0] = resources::MEMORY;
        one[1] = 1; // CmResourceShareDeviceExclusive
        one[4..12].copy_from_slice(&bar.address.0.to_le_bytes());
        one[12..16].copy_from_slice(&(bar.length as u32).to_le_bytes());
        descriptors.extend_from_slice(&one);
    }
    for message in &assigned.messages {
        let mut one = [0u8; resources::DESCRIPTOR_SIZE];
        one[0] = resources::INTERRUPT;
        one[1] = 3; // CmResourceShareShared, as message interrupts are
        one[2..4].copy_from_slice(&resources::MESSAGE_FLAGS.to_le_bytes());
        one[4..6].copy_from_slice(&u16::from(DEVICE_IRQL).to_le_bytes());
        one[8..12].copy_from_slice(&u32::from(message.vector).to_le_bytes());
        one[12..20].copy_from_slice(&1u64.to_le_bytes()); // processor 0
        descriptors.extend_from_slice(&one);
    }
    let count = (descriptors.len() / resources::DESCRIPTOR_SIZE) as u32;
    let mut list = Vec::with_capacity(resources::DESCRIPTORS + descriptors.len());
    list.extend_from_slice(&1u32.to_le_bytes()); // one full descriptor
    list.extend_from_slice(&resources::PCI_BUS.to_le_bytes());
    list.extend_from_slice(&u32::from(windows.dxgk.device.bus()).to_le_bytes());
    list.extend_from_slice(&0x0001_0001u32.to_le_bytes()); // version 1, revision 1
    list.extend_from_slice(&count.to_le_bytes());
    list.extend_from_slice(&descriptors);
    list
}

/// NTSTATUS DxgkCbReadDeviceSpace(hDevice, DataType, Buffer, Offset, Length,
/// BytesRead*).
pub(crate) fn read_device_space(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    match device_space(windows, p, call, false) {
        Ok(status) => done(status),
        Err(e) => e.into(),
    }
}

/// NTSTATUS DxgkCbWriteDeviceSpace(hDevice, DataType, Buffer, Offset, Length,
/// BytesWritten*).
pub(crate) fn write_device_space(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    match device_space(windows, p, call, true) {
        Ok(status) => done(status),
        Err(e) => e.into(),
    }
}

fn device_space(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
    write: bool,
) -> Result<u32, PlatformError> {
    let [handle, kind, buffer, offset] = call.registers;
    let length = call.argument(p, 4)? & 0xFFFF_FFFF;
    let counted = Gva(call.argument(p, 5)?);
    let (kind, offset) = (kind as u32, offset & 0xFFFF_FFFF);
    // DXGK_WHICHSPACE_CONFIG is 0; the device has no ROM and no bridge.
    if !is_our_handle(handle) || kind != 0 || offset + length > CONFIG_SIZE {
        return Ok(
            rule::DEVICE_SPACE.refuse(format_args!("space {kind}, offset {offset:#x}")) as u32,
        );
    }
    let device = windows.dxgk.device;
    let mut bytes = vec![0u8; length as usize];
    if write {
        p.read(Gva(buffer), &mut bytes)?;
    }
    // In the largest aligned pieces: a BAR is written as the double word it
    // is, not byte by byte.
    let mut at = 0u64;
    while at < length {
        let here = offset + at;
        let piece = [4u64, 2, 1]
            .into_iter()
            .find(|&size| here.is_multiple_of(size) && size <= length - at)
            .unwrap_or(1);
        let range = at as usize..(at + piece) as usize;
        if let Some(part) = bytes.get_mut(range) {
            let mut word = [0u8; 4];
            if write {
                word[..part.len()].copy_from_slice(part);
                p.config_write(device, here as u16, piece as u8, u32::from_le_bytes(word));
            } else {
                word = p
                    .config_read(device, here as u16, piece as u8)
                    .to_le_bytes();
                part.copy_from_slice(&word[..part.len()]);
            }
        }
        at += piece;
    }
    if !write {
        p.write(Gva(buffer), &bytes)?;
    }
    if counted.0 != 0 {
        p.write_u32(counted, length as u32)?;
    }
    Ok(status::SUCCESS)
}

/// NTSTATUS DxgkCbMapMemory(hDevice, TranslatedAddress, Length, InIoSpace,
/// MapToUserMode, CacheType, VirtualAddress*).
pub(crate) fn map_memory(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    match try_map_memory(windows, p, call) {
        Ok(status) => done(status),
        Err(e) => e.into(),
    }
}

fn try_map_memory(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Result<u32, PlatformError> {
    let [handle, address, length, io_space] = call.registers;
    let user_mode = call.argument(p, 4)? as u8;
    let result = Gva(call.argument(p, 6)?);
    let (address, length) = (Gpa(address), length & 0xFFFF_FFFF);
    let inside = windows
        .hal
        .resources(windows.dxgk.device)
        .memory
        .iter()
        .any(|bar| {
            address.0 >= bar.address.0
                && address.0 - bar.address.0 <= bar.length
                && length <= bar.length - (address.0 - bar.address.0)
        });
    // Only the device's own ranges: nothing else is the driver's to map.
    if !is_our_handle(handle) || io_space as u8 != 0 || user_mode != 0 || length == 0 || !inside {
        return Ok(rule::DEVICE_RANGE.refuse(format_args!("DxgkCbMapMemory of {address}")) as u32);
    }
    let Ok(given) = windows.mm.map_device_memory(p, address, length) else {
        return Ok(status::INSUFFICIENT_RESOURCES);
    };
    windows.dxgk.mappings.insert(given);
    p.write_u64(result, given.0)?;
    Ok(status::SUCCESS)
}

/// NTSTATUS DxgkCbUnmapMemory(hDevice, VirtualAddress).
pub(crate) fn unmap_memory(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    let [handle, address, ..] = call.registers;
    // Only what DxgkCbMapMemory gave: other mappings have their own routine.
    let ours = is_our_handle(handle) && windows.dxgk.mappings.remove(&Gva(address));
    if !ours {
        return rule::DEVICE_MAPPING.refusal(format_args!("DxgkCbUnmapMemory of {address:#x}"));
    }
    windows.mm.unmap_device_memory(p, Gva(address));
    done(status::SUCCESS)
}

/// BOOLEAN DxgkCbQueueDpc(hDevice): FALSE if it is queued already.
pub(crate) fn queue_dpc(windows: &mut Windows, _: &mut dyn Platform, call: &Call) -> Outcome {
    if !is_our_handle(call.registers[0]) {
        return Outcome::Return(0);
    }
    let was = std::mem::replace(&mut windows.dxgk.dpc_queued, true);
    Outcome::Return(u64::from(!was))
}

/// NTSTATUS DxgkCbSynchronizeExecution(hDevice, Routine, Context,
/// MessageNumber, ReturnValue*).
pub(crate) fn synchronize_execution(_: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    let [handle, routine, context, _message] = call.registers;
    if !is_our_handle(handle) || routine == 0 {
        return done(status::INVALID_PARAMETER);
    }
    match call.argument(p, 4) {
        Ok(result) => Outcome::Invoke {
            name: "DxgkCbSynchronizeExecution routine",
            routine: Gva(routine),
            arguments: [context, 0, 0, 0],
            irql: DEVICE_IRQL,
            value: Some(u64::from(status::SUCCESS)),
            store: (result != 0).then_some(Gva(result)),
        },
        Err(e) => e.into(),
    }
}

/// NTSTATUS DxgkCbAcquirePostDisplayOwnership(hDevice,
/// DXGK_DISPLAY_INFORMATION*): no firmware display, so Width is 0.
pub(crate) fn acquire_post_display(_: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    if !is_our_handle(call.registers[0]) {
        return done(status::INVALID_PARAMETER);
    }
    match p.write(Gva(call.registers[1]), &[0; 0x20]) {
        Ok(()) => done(status::SUCCESS),
        Err(e) => e.into(),
    }
}
