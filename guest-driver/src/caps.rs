//! DxgkDdiQueryAdapterInfo: what the adapter says of itself.

use core::ptr;

use crate::nt::Result;
use crate::power::SAVE_BYTES;
use crate::spec::dxgk::POINTER_COLOR;
use crate::spec::nt::{STATUS_BUFFER_TOO_SMALL, STATUS_NOT_SUPPORTED};
use crate::spec::query::{
    DRIVERCAPS, DriverCaps, FRAMEBUFFERSAVESIZE, FramebufferSaveArea, HARDWARERESERVEDRANGES,
    HardwareReservedRanges, IOMMU_SECURE_MODE_SUPPORTED, MULTI_ENGINE_AWARE, PHYSICALADAPTERCAPS,
    PhysicalAdapterCaps, QUERYSEGMENT4, QueryAdapterInfo, QuerySegmentOut4, SEGMENT_APERTURE,
    SEGMENT_CACHE_COHERENT, SegmentDescriptor4, VidMmCaps, WDDM_2_4,
};

/// GPU address and bytes of the one segment: an aperture, since the device
/// has no memory of its own.
const SEGMENT_BASE: u64 = 0x1_0000_0000;
const SEGMENT_BYTES: usize = 256 << 20;
/// Bytes of a paging buffer. No paging happens: nothing is ever resident.
const PAGING_BUFFER_BYTES: u32 = 64 << 10;

/// Answers one query.
#[inline(never)]
pub fn query(query: &QueryAdapterInfo) -> Result<()> {
    match query.kind {
        DRIVERCAPS => driver_caps(query),
        QUERYSEGMENT4 => segments(query),
        PHYSICALADAPTERCAPS => answer(
            query,
            PhysicalAdapterCaps {
                execution_nodes: 1,
                paging_node: 0,
                handle: ptr::null_mut(),
                flags: 0,
                vpr_paging_node: 0,
                virtual_copy_node: 0,
            },
        ),
        FRAMEBUFFERSAVESIZE => answer(
            query,
            FramebufferSaveArea {
                maximum_size: SAVE_BYTES,
            },
        ),
        // Nothing but what was allocated through the callbacks.
        HARDWARERESERVEDRANGES => answer(
            query,
            HardwareReservedRanges {
                count: 0,
                ranges: ptr::null_mut(),
            },
        ),
        _ => Err(STATUS_NOT_SUPPORTED),
    }
}

fn answer<T>(query: &QueryAdapterInfo, value: T) -> Result<()> {
    if query.output.is_null() || (query.output_size as usize) < size_of::<T>() {
        return Err(STATUS_BUFFER_TOO_SMALL);
    }
    // SAFETY: dxgkrnl's buffer, at least that long.
    unsafe { query.output.cast::<T>().write_unaligned(value) };
    Ok(())
}

/// DXGK_DRIVERCAPS grows with the host's version: what fits is filled.
#[inline(never)]
fn driver_caps(query: &QueryAdapterInfo) -> Result<()> {
    // SAFETY: integers only: zero is a value of each.
    let mut caps: DriverCaps = unsafe { core::mem::zeroed() };
    caps.highest_acceptable_address = u64::MAX;
    caps.max_allocation_list_slot_id = 1;
    caps.max_pointer_width = interface::CURSOR_SIDE;
    caps.max_pointer_height = interface::CURSOR_SIDE;
    caps.pointer_caps = POINTER_COLOR;
    caps.scheduling_caps = MULTI_ENGINE_AWARE;
    caps.memory_management_caps = VidMmCaps {
        bits: IOMMU_SECURE_MODE_SUPPORTED,
        paging_node: 0,
    };
    caps.engine_nodes = 1;
    caps.wddm_version = WDDM_2_4;
    // The shortest structure that says what matters ends with the version.
    let least = core::mem::offset_of!(DriverCaps, wddm_version) + 4;
    let bytes = (query.output_size as usize).min(size_of::<DriverCaps>());
    if query.output.is_null() || bytes < least {
        return Err(STATUS_BUFFER_TOO_SMALL);
    }
    // SAFETY: as many bytes as both sides have; the rest is cleared.
    unsafe {
        ptr::write_bytes(query.output.cast::<u8>(), 0, query.output_size as usize);
        ptr::copy_nonoverlapping(
            ptr::from_ref(&caps).cast::<u8>(),
            query.output.cast(),
            bytes,
        );
    }
    Ok(())
}

/// Two calls: the number of segments, then their descriptors.
#[inline(never)]
fn segments(query: &QueryAdapterInfo) -> Result<()> {
    let out = query.output.cast::<QuerySegmentOut4>();
    if out.is_null() || (query.output_size as usize) < size_of::<QuerySegmentOut4>() {
        return Err(STATUS_BUFFER_TOO_SMALL);
    }
    // SAFETY: dxgkrnl's structure, aligned as it allocates it.
    let out = unsafe { &mut *out };
    if out.descriptors.is_null() {
        out.segments = 1;
        out.stride = size_of::<SegmentDescriptor4>();
        out.paging_buffer_segment = 0;
        out.paging_buffer_size = PAGING_BUFFER_BYTES;
        out.paging_buffer_private_size = 0;
        return Ok(());
    }
    let descriptor = SegmentDescriptor4 {
        flags: SEGMENT_APERTURE | SEGMENT_CACHE_COHERENT,
        base_address: SEGMENT_BASE,
        size: SEGMENT_BYTES,
        commit_limit: SEGMENT_BYTES,
        system_memory_end: 0,
        cpu_address: [0; 2],
        invalid_ranges: 0,
        vpr_range: [0; 2],
        vpr: [0; 4],
    };
    // SAFETY: room for the one segment of the stride that the first call
    // reported.
    unsafe {
        out.descriptors
            .cast::<SegmentDescriptor4>()
            .write_unaligned(descriptor)
    };
    Ok(())
}
