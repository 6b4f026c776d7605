//! dispmprt.h: what dxgkrnl hands to a miniport, x64.

use core::ffi::c_void;

use super::layout;
use super::nt::{Handle, Mdl, NtStatus, UnicodeString};

/// DXGKDDI_INTERFACE_VERSION_WDDM2_4.
pub const INTERFACE_VERSION_WDDM2_4: u32 = 0x9006;
/// DXGK_WHICHSPACE_CONFIG: PCI configuration space.
pub const WHICHSPACE_CONFIG: u32 = 0;

/// DXGK_DEVICE_INFO.
#[repr(C)]
pub struct DeviceInfo {
    /// Our context.
    pub miniport_device_context: *mut c_void,
    /// Physical device object.
    pub physical_device_object: *mut c_void,
    /// The device's software key.
    pub device_registry_path: UnicodeString,
    /// CM_RESOURCE_LIST.
    pub translated_resource_list: *const super::nt::ResourceList,
    /// Bytes of RAM.
    pub system_memory_size: u64,
    /// Highest physical address of RAM.
    pub highest_physical_address: u64,
    /// AGP.
    pub agp_aperture_base: u64,
    /// AGP.
    pub agp_aperture_size: usize,
    /// DOCKING_STATE.
    pub docking_state: u32,
}
layout!(
    DeviceInfo, 0x50, physical_device_object: 8, device_registry_path: 0x10,
    translated_resource_list: 0x20, system_memory_size: 0x28,
    highest_physical_address: 0x30, docking_state: 0x48,
);

/// DXGKARGCB_ALLOCATEPAGESFORMDL.
#[repr(C)]
pub struct AllocatePagesForMdl {
    /// Start of the first range.
    pub low_address: u64,
    /// End of the first range.
    pub high_address: u64,
    /// Distance to the next range.
    pub skip_bytes: u64,
    /// Bytes wanted.
    pub total_bytes: usize,
    /// DXGK_MEMORY_CACHING_TYPE.
    pub cache_type: u32,
    /// MM_ALLOCATE_* bits.
    pub flags: u32,
    /// Out: what the free takes.
    pub handle: Handle,
    /// Out: the pages; the MDL stays dxgkrnl's.
    pub mdl: *mut Mdl,
}
layout!(
    AllocatePagesForMdl, 0x38, low_address: 0, high_address: 8, skip_bytes: 0x10,
    total_bytes: 0x18, cache_type: 0x20, flags: 0x24, handle: 0x28, mdl: 0x30,
);

/// DXGKARGCB_ALLOCATECONTIGUOUSMEMORY.
#[repr(C)]
pub struct AllocateContiguousMemory {
    /// Bytes wanted.
    pub number_of_bytes: usize,
    /// Lowest physical address that will do.
    pub lowest_address: u64,
    /// Highest physical address that will do.
    pub highest_address: u64,
    /// Boundary not to cross, or 0.
    pub boundary: u64,
    /// DXGK_MEMORY_CACHING_TYPE.
    pub cache_type: u32,
    /// Out: what the free takes.
    pub handle: Handle,
    /// Out: kernel address.
    pub memory: *mut c_void,
}
layout!(
    AllocateContiguousMemory, 0x38, number_of_bytes: 0, lowest_address: 8,
    highest_address: 0x10, boundary: 0x18, cache_type: 0x20, handle: 0x28, memory: 0x30,
);

/// DXGKARGCB_FREEPAGESFROMMDL and DXGKARGCB_FREECONTIGUOUSMEMORY.
#[repr(C)]
pub struct FreeMemory {
    /// The allocation's handle.
    pub handle: Handle,
}
layout!(FreeMemory, 8);

/// DXGKARGCB_PINFRAMEBUFFERFORSAVE.
#[repr(C)]
pub struct PinFramebuffer {
    /// Which physical adapter of a linked set.
    pub adapter: u32,
    /// Bytes, whole pages, at most what FRAMEBUFFERSAVESIZE told.
    pub commit_size: usize,
    /// Out: locked pages that the device reaches.
    pub mdl: *mut Mdl,
}
layout!(PinFramebuffer, 0x18, commit_size: 8, mdl: 0x10);

/// DXGKARGCB_UNPINFRAMEBUFFERFORSAVE.
#[repr(C)]
pub struct UnpinFramebuffer {
    /// Which physical adapter.
    pub adapter: u32,
}
layout!(UnpinFramebuffer, 4);

/// DXGKARGCB_MAPFRAMEBUFFERPOINTER.
#[repr(C)]
pub struct MapFramebuffer {
    /// Which physical adapter.
    pub adapter: u32,
    /// Bytes, whole pages.
    pub size: usize,
    /// In and out: where in the save area; the answer is where in the
    /// mapping that is.
    pub offset: usize,
    /// Out: kernel address of the mapping.
    pub base: *mut c_void,
}
layout!(MapFramebuffer, 0x20, size: 8, offset: 0x10, base: 0x18);

/// DXGKARGCB_UNMAPFRAMEBUFFERPOINTER.
#[repr(C)]
pub struct UnmapFramebuffer {
    /// Which physical adapter.
    pub adapter: u32,
    /// What the map answered.
    pub base: *mut c_void,
}
layout!(UnmapFramebuffer, 0x10, base: 8);

/// DXGK_MEMORY_CACHING_TYPE: cached.
pub const CACHED: u32 = 1;

/// DXGKCB_GET_DEVICE_INFORMATION.
pub type GetDeviceInformation = unsafe extern "system" fn(Handle, *mut DeviceInfo) -> NtStatus;
/// DXGKCB_MAP_MEMORY.
pub type MapMemory =
    unsafe extern "system" fn(Handle, u64, u32, u8, u8, u32, *mut *mut c_void) -> NtStatus;
/// DXGKCB_UNMAP_MEMORY.
pub type UnmapMemory = unsafe extern "system" fn(Handle, *mut c_void) -> NtStatus;
/// DXGKCB_QUEUE_DPC.
pub type QueueDpc = unsafe extern "system" fn(Handle) -> u8;
/// DXGKCB_READ_DEVICE_SPACE and DXGKCB_WRITE_DEVICE_SPACE.
pub type DeviceSpace =
    unsafe extern "system" fn(Handle, u32, *mut c_void, u32, u32, *mut u32) -> NtStatus;
/// The WDDM 2.4 callbacks: the adapter (the device handle) and an argument.
pub type MemoryCallback<T> = unsafe extern "system" fn(Handle, *mut T) -> NtStatus;

/// A callback that this driver does not use.
pub type Unused = Option<unsafe extern "system" fn()>;

/// DXGKRNL_INTERFACE up to WDDM 2.4. It is versioned by size: a host may
/// hand a shorter or a longer one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Interface {
    /// Bytes.
    pub size: u32,
    /// DXGKDDI_INTERFACE_VERSION_*.
    pub version: u32,
    /// First argument of every callback.
    pub device_handle: Handle,
    unused_010: Unused,
    /// DxgkCbGetDeviceInformation.
    pub get_device_information: Option<GetDeviceInformation>,
    unused_020: Unused,
    /// DxgkCbMapMemory.
    pub map_memory: Option<MapMemory>,
    /// DxgkCbQueueDpc; any IRQL.
    pub queue_dpc: Option<QueueDpc>,
    unused_038: Unused,
    /// DxgkCbReadDeviceSpace.
    pub read_device_space: Option<DeviceSpace>,
    unused_048: Unused,
    /// DxgkCbUnmapMemory.
    pub unmap_memory: Option<UnmapMemory>,
    /// DxgkCbWriteDeviceSpace.
    pub write_device_space: Option<DeviceSpace>,
    unused_060: [Unused; 34],
    /// DxgkCbAllocateContiguousMemory.
    pub allocate_contiguous_memory: Option<MemoryCallback<AllocateContiguousMemory>>,
    /// DxgkCbFreeContiguousMemory.
    pub free_contiguous_memory: Option<MemoryCallback<FreeMemory>>,
    /// DxgkCbAllocatePagesForMdl.
    pub allocate_pages_for_mdl: Option<MemoryCallback<AllocatePagesForMdl>>,
    /// DxgkCbFreePagesFromMdl.
    pub free_pages_from_mdl: Option<MemoryCallback<FreeMemory>>,
    /// DxgkCbPinFrameBufferForSave.
    pub pin_framebuffer: Option<MemoryCallback<PinFramebuffer>>,
    /// DxgkCbUnpinFrameBufferForSave.
    pub unpin_framebuffer: Option<MemoryCallback<UnpinFramebuffer>>,
    /// DxgkCbMapFrameBufferPointer.
    pub map_framebuffer: Option<MemoryCallback<MapFramebuffer>>,
    /// DxgkCbUnmapFrameBufferPointer.
    pub unmap_framebuffer: Option<MemoryCallback<UnmapFramebuffer>>,
    unused_1b0: [Unused; 3],
}
layout!(
    Interface, 0x1C8, device_handle: 8, get_device_information: 0x18, map_memory: 0x28,
    queue_dpc: 0x30, read_device_space: 0x40, unmap_memory: 0x50, write_device_space: 0x58,
    allocate_contiguous_memory: 0x170, free_contiguous_memory: 0x178,
    allocate_pages_for_mdl: 0x180, free_pages_from_mdl: 0x188, pin_framebuffer: 0x190,
    unpin_framebuffer: 0x198, map_framebuffer: 0x1A0, unmap_framebuffer: 0x1A8,
);

impl Interface {
    /// An interface without callbacks.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            size: 0,
            version: 0,
            device_handle: core::ptr::null_mut(),
            unused_010: None,
            get_device_information: None,
            unused_020: None,
            map_memory: None,
            queue_dpc: None,
            unused_038: None,
            read_device_space: None,
            unused_048: None,
            unmap_memory: None,
            write_device_space: None,
            unused_060: [None; 34],
            allocate_contiguous_memory: None,
            free_contiguous_memory: None,
            allocate_pages_for_mdl: None,
            free_pages_from_mdl: None,
            pin_framebuffer: None,
            unpin_framebuffer: None,
            map_framebuffer: None,
            unmap_framebuffer: None,
            unused_1b0: [None; 3],
        }
    }
}

/// DXGKARG_ESCAPE.
#[repr(C)]
pub struct EscapeArgument {
    /// Device, or null.
    pub device: Handle,
    /// D3DDDI_ESCAPEFLAGS.
    pub flags: u32,
    /// In and out: the private data.
    pub private_data: *mut c_void,
    /// Its bytes.
    pub private_data_size: u32,
    /// Context, or null.
    pub context: Handle,
    /// Process, or null.
    pub process: Handle,
}
layout!(
    EscapeArgument, 0x30, device: 0, flags: 8, private_data: 0x10,
    private_data_size: 0x18, context: 0x20, process: 0x28,
);

/// DXGK_CHILD_DESCRIPTOR. The fields inside the capabilities come from
/// public header knowledge.
#[repr(C)]
pub struct ChildDescriptor {
    /// DXGK_CHILD_DEVICE_TYPE.
    pub kind: u32,
    /// D3DKMDT_VIDEO_OUTPUT_TECHNOLOGY.
    pub technology: u32,
    /// D3DKMDT_MONITOR_ORIENTATION_AWARENESS.
    pub orientation: u32,
    /// BOOLEAN, padded.
    pub sdtv: u32,
    /// DXGK_CHILD_DEVICE_HPD_AWARENESS.
    pub hpd: u32,
    /// ACPI id, or 0.
    pub acpi_uid: u32,
    /// Our id of the child.
    pub child_uid: u32,
}
layout!(ChildDescriptor, 0x1C, kind: 0, technology: 4, hpd: 0x10, acpi_uid: 0x14, child_uid: 0x18);

/// TypeVideoOutput.
pub const CHILD_VIDEO_OUTPUT: u32 = 1;
/// D3DKMDT_VOT_OTHER.
pub const OUTPUT_OTHER: u32 = u32::MAX;
/// HpdAwarenessAlwaysConnected.
pub const HPD_ALWAYS_CONNECTED: u32 = 1;

/// DXGK_CHILD_STATUS.
#[repr(C)]
pub struct ChildStatus {
    /// StatusConnection is 1.
    pub kind: u32,
    /// Our id of the child.
    pub child_uid: u32,
    /// The union's first member: HotPlug.Connected.
    pub connected: u8,
    /// Rest of the union.
    pub rest: [u8; 7],
}
layout!(ChildStatus, 0x10, kind: 0, child_uid: 4, connected: 8);

/// StatusConnection of DXGK_CHILD_STATUS_TYPE.
pub const STATUS_CONNECTION: u32 = 1;

/// DXGK_DEVICE_DESCRIPTOR.
#[repr(C)]
pub struct DeviceDescriptor {
    /// First byte wanted.
    pub offset: u32,
    /// Bytes wanted.
    pub length: u32,
    /// Where they go.
    pub buffer: *mut c_void,
}
layout!(DeviceDescriptor, 0x10, length: 4, buffer: 8);

/// DISPLAY_ADAPTER_HW_ID: the adapter itself, not one of its children.
pub const ADAPTER_HW_ID: u32 = u32::MAX;
/// DEVICE_POWER_STATE: PowerDeviceD0.
pub const POWER_D0: u32 = 1;
/// DEVICE_POWER_STATE: PowerDeviceD3.
pub const POWER_D3: u32 = 4;

/// DXGKARG_SETPOINTERPOSITION. This and the next come from public header
/// knowledge.
#[repr(C)]
pub struct SetPointerPosition {
    /// Which source; here: which scanout.
    pub source: u32,
    /// From the left.
    pub x: i32,
    /// From the top.
    pub y: i32,
    /// POINTER_VISIBLE, and bits of others.
    pub flags: u32,
}
layout!(SetPointerPosition, 0x10, x: 4, y: 8, flags: 0xC);

/// DXGK_SETPOINTERPOSITIONFLAGS.Visible.
pub const POINTER_VISIBLE: u32 = 1 << 0;

/// DXGKARG_SETPOINTERSHAPE.
#[repr(C)]
pub struct SetPointerShape {
    /// POINTER_COLOR, or a kind that this driver does not report.
    pub flags: u32,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes a row.
    pub pitch: u32,
    /// Which source; here: which scanout.
    pub source: u32,
    /// The picture, A8R8G8B8.
    pub pixels: *const c_void,
    /// The hot spot, from the left.
    pub hot_x: u32,
    /// From the top.
    pub hot_y: u32,
}
layout!(SetPointerShape, 0x28, width: 4, pitch: 0xC, source: 0x10, pixels: 0x18, hot_x: 0x20);

/// DXGK_POINTERFLAGS.Color.
pub const POINTER_COLOR: u32 = 1 << 1;
