//! d3dkmddi.h: DxgkDdiQueryAdapterInfo and the structures it answers with,
//! x64.
//!
//! `DriverCaps`, `QuerySegmentOut4` and `PhysicalAdapterCaps` follow public
//! symbol-derived dumps of the WDK's headers; the fields of
//! `SegmentDescriptor4` past `commit_limit` come from public header
//! knowledge only.

use super::layout;
use super::nt::Handle;

/// DXGKARG_QUERYADAPTERINFO.
#[repr(C)]
pub struct QueryAdapterInfo {
    /// DXGKQAITYPE_*.
    pub kind: u32,
    /// Depends on `kind`.
    pub input: *mut core::ffi::c_void,
    /// Its bytes.
    pub input_size: u32,
    /// Where the answer goes.
    pub output: *mut core::ffi::c_void,
    /// Its bytes.
    pub output_size: u32,
    /// Flags.
    pub flags: u32,
    /// Process, or null.
    pub process: Handle,
}
layout!(
    QueryAdapterInfo, 0x30, kind: 0, input: 8, input_size: 0x10, output: 0x18,
    output_size: 0x20, flags: 0x24, process: 0x28,
);

/// DXGKQAITYPE_DRIVERCAPS.
pub const DRIVERCAPS: u32 = 1;
/// DXGKQAITYPE_QUERYSEGMENT4.
pub const QUERYSEGMENT4: u32 = 11;
/// DXGKQAITYPE_PHYSICALADAPTERCAPS.
pub const PHYSICALADAPTERCAPS: u32 = 15;
/// DXGKQAITYPE_FRAMEBUFFERSAVESIZE.
pub const FRAMEBUFFERSAVESIZE: u32 = 21;
/// DXGKQAITYPE_HARDWARERESERVEDRANGES.
pub const HARDWARERESERVEDRANGES: u32 = 22;

/// DXGK_VIDMMCAPS.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct VidMmCaps {
    /// Capability bits.
    pub bits: u32,
    /// Node that pages.
    pub paging_node: u32,
}
layout!(VidMmCaps, 8, paging_node: 4);

/// DXGK_VIDMMCAPS.IoMmuSecureModeSupported: this driver keeps to isolation.
pub const IOMMU_SECURE_MODE_SUPPORTED: u32 = 1 << 11;
/// DXGK_VIDSCHCAPS.MultiEngineAware.
pub const MULTI_ENGINE_AWARE: u32 = 1 << 0;
/// DXGKDDI_WDDMv2_4.
pub const WDDM_2_4: u32 = 0x2400;

/// DXGK_DRIVERCAPS as of WDDM 2.4 to 2.7 (0x248 bytes).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DriverCaps {
    /// Highest physical address the device reaches.
    pub highest_acceptable_address: u64,
    /// Entries of an allocation list.
    pub max_allocation_list_slot_id: u32,
    /// Limit of aperture commitment, 0 for none.
    pub aperture_segment_commit_limit: usize,
    /// Hardware pointer width.
    pub max_pointer_width: u32,
    /// Hardware pointer height.
    pub max_pointer_height: u32,
    /// DXGK_POINTERFLAGS.
    pub pointer_caps: u32,
    /// Message of the adapter's interrupt.
    pub interrupt_message_number: u32,
    /// Swizzling ranges.
    pub number_of_swizzling_ranges: u32,
    /// Overlays.
    pub max_overlays: u32,
    /// Gamma or colour transform capabilities.
    pub gamma_ramp_caps: u32,
    /// DXGK_PRESENTATIONCAPS.
    pub presentation_caps: u32,
    /// Flips queued.
    pub max_queued_flip_on_vsync: u32,
    /// DXGK_FLIPCAPS.
    pub flip_caps: u32,
    /// DXGK_VIDSCHCAPS.
    pub scheduling_caps: u32,
    /// DXGK_VIDMMCAPS.
    pub memory_management_caps: VidMmCaps,
    /// DXGK_GPUENGINETOPOLOGY: number of nodes.
    pub engine_nodes: u32,
    /// Rest of it.
    pub engine_reserved: [u32; 64],
    /// DXGK_WDDMVERSION.
    pub wddm_version: u32,
    /// Virtual address and DMA buffer capabilities that are no longer read.
    pub deprecated: [u32; 47],
    /// D3DKMDT_PREEMPTION_CAPS.
    pub preemption_caps: [u32; 2],
    /// Can give the display to a basic driver.
    pub support_non_vga: u8,
    /// Eleven more BOOLEANs and MaxOverlayPlanes, all zero.
    pub rest: [u8; 15],
    /// Internal GPU virtual addresses: first and last.
    pub internal_range: [u64; 2],
    /// SupportSurpriseRemoval and three more, then the flip queue depth.
    pub surprise: [u32; 2],
    /// MiscCaps.
    pub misc_caps: u32,
}
layout!(
    DriverCaps, 0x248, max_allocation_list_slot_id: 8, aperture_segment_commit_limit: 0x10,
    pointer_caps: 0x20, interrupt_message_number: 0x24, gamma_ramp_caps: 0x30,
    presentation_caps: 0x34, flip_caps: 0x3C, scheduling_caps: 0x40,
    memory_management_caps: 0x44, engine_nodes: 0x4C, wddm_version: 0x150,
    preemption_caps: 0x210, support_non_vga: 0x218, internal_range: 0x228,
    surprise: 0x238, misc_caps: 0x240,
);

/// DXGK_QUERYSEGMENTOUT4.
#[repr(C)]
pub struct QuerySegmentOut4 {
    /// Segments.
    pub segments: u32,
    /// Null in the first of the two calls.
    pub descriptors: *mut u8,
    /// Segment of paging buffers.
    pub paging_buffer_segment: u32,
    /// Bytes of a paging buffer.
    pub paging_buffer_size: u32,
    /// Bytes of its private data.
    pub paging_buffer_private_size: u32,
    /// Bytes from one descriptor to the next.
    pub stride: usize,
}
layout!(
    QuerySegmentOut4, 0x28, descriptors: 8, paging_buffer_segment: 0x10,
    paging_buffer_size: 0x14, paging_buffer_private_size: 0x18, stride: 0x20,
);

/// DXGK_SEGMENTDESCRIPTOR4.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SegmentDescriptor4 {
    /// DXGK_SEGMENTFLAGS.
    pub flags: u32,
    /// GPU's base address.
    pub base_address: u64,
    /// Bytes.
    pub size: usize,
    /// Bytes that may be committed.
    pub commit_limit: usize,
    /// End of system memory behind it.
    pub system_memory_end: usize,
    /// CPU address or host aperture.
    pub cpu_address: [u64; 2],
    /// Bad ranges.
    pub invalid_ranges: u32,
    /// Video protected region: start and bytes.
    pub vpr_range: [usize; 2],
    /// Video protected region: alignment, number, reserve; then padding.
    pub vpr: [u32; 4],
}
layout!(
    SegmentDescriptor4, 0x60, base_address: 8, size: 0x10, commit_limit: 0x18,
    cpu_address: 0x28, invalid_ranges: 0x38, vpr_range: 0x40, vpr: 0x50,
);

/// DXGK_SEGMENTFLAGS.Aperture.
pub const SEGMENT_APERTURE: u32 = 1 << 0;
/// DXGK_SEGMENTFLAGS.CacheCoherent.
pub const SEGMENT_CACHE_COHERENT: u32 = 1 << 4;

/// DXGK_PHYSICALADAPTERCAPS.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PhysicalAdapterCaps {
    /// Engines that execute commands.
    pub execution_nodes: u16,
    /// Which of them pages.
    pub paging_node: u16,
    /// Filled by dxgkrnl.
    pub handle: Handle,
    /// DXGK_PHYSICALADAPTERFLAGS.
    pub flags: u32,
    /// Node that pages protected memory.
    pub vpr_paging_node: u32,
    /// Node that copies virtual addresses.
    pub virtual_copy_node: u32,
}
layout!(PhysicalAdapterCaps, 0x20, handle: 8, flags: 0x10, virtual_copy_node: 0x18);

/// DXGK_FRAMEBUFFERSAVEAREA.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FramebufferSaveArea {
    /// Bytes to keep through a power transition.
    pub maximum_size: usize,
}
layout!(FramebufferSaveArea, 8);

/// DXGK_HARDWARERESERVEDRANGES.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HardwareReservedRanges {
    /// Ranges.
    pub count: u32,
    /// Null in the first of the two calls.
    pub ranges: *mut core::ffi::c_void,
}
layout!(HardwareReservedRanges, 0x10, ranges: 8);
