//! Structures and constants of the NT kernel, x64.

use core::ffi::c_void;

use super::layout;

/// A handle or an opaque kernel pointer.
pub type Handle = *mut c_void;
/// NTSTATUS; negative is failure.
pub type NtStatus = i32;

/// Turns the documented hexadecimal form of a status into [`NtStatus`].
const fn status(value: u32) -> NtStatus {
    value.cast_signed()
}

/// The operation completed.
pub const STATUS_SUCCESS: NtStatus = 0;
/// The operation will complete later.
pub const STATUS_PENDING: NtStatus = status(0x0000_0103);
/// A wait ended by its timeout; a success code.
pub const STATUS_TIMEOUT: NtStatus = status(0x0000_0102);
/// Not implemented by this driver.
pub const STATUS_NOT_IMPLEMENTED: NtStatus = status(0xC000_0002);
/// An argument breaks its contract.
pub const STATUS_INVALID_PARAMETER: NtStatus = status(0xC000_000D);
/// A buffer cannot hold the answer.
pub const STATUS_BUFFER_TOO_SMALL: NtStatus = status(0xC000_0023);
/// The registry has no such key or value.
pub const STATUS_OBJECT_NAME_NOT_FOUND: NtStatus = status(0xC000_0034);
/// Memory, slots or handles ran out.
pub const STATUS_INSUFFICIENT_RESOURCES: NtStatus = status(0xC000_009A);
/// The device may not be used now.
pub const STATUS_DEVICE_NOT_READY: NtStatus = status(0xC000_00A3);
/// The device did not answer in time.
pub const STATUS_IO_TIMEOUT: NtStatus = status(0xC000_00B5);
/// The request is not supported.
pub const STATUS_NOT_SUPPORTED: NtStatus = status(0xC000_00BB);
/// The driver's image is loaded already.
pub const STATUS_IMAGE_ALREADY_LOADED: NtStatus = status(0xC000_010E);
/// The device's resources or capabilities are not what they must be.
pub const STATUS_DEVICE_CONFIGURATION_ERROR: NtStatus = status(0xC000_0182);
/// The device answered with an error.
pub const STATUS_IO_DEVICE_ERROR: NtStatus = status(0xC000_0185);
/// The device is not there any more.
pub const STATUS_DEVICE_REMOVED: NtStatus = status(0xC000_02B6);
/// The device broke its protocol and was given up.
pub const STATUS_DEVICE_HARDWARE_ERROR: NtStatus = status(0xC000_0483);
/// The EDID's checksum or form is wrong.
pub const STATUS_MONITOR_INVALID_DESCRIPTOR_CHECKSUM: NtStatus = status(0xC01D_0003);
/// Nothing of the descriptor is left to read.
pub const STATUS_MONITOR_NO_MORE_DESCRIPTOR_DATA: NtStatus = status(0xC01D_0009);
/// The child device has no descriptor (EDID).
pub const STATUS_GRAPHICS_CHILD_DESCRIPTOR_NOT_SUPPORTED: NtStatus = status(0xC01E_0401);

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// UNICODE_STRING: UTF-16, counted, lengths in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UnicodeString {
    /// Bytes in use.
    pub length: u16,
    /// Bytes of the buffer.
    pub maximum_length: u16,
    /// The characters; not necessarily terminated.
    pub buffer: *mut u16,
}
layout!(UnicodeString, 0x10, length: 0, maximum_length: 2, buffer: 8);

/// OBJECT_ATTRIBUTES.
#[repr(C)]
pub struct ObjectAttributes {
    /// Size of this structure.
    pub length: u32,
    /// Directory that the name is relative to.
    pub root_directory: Handle,
    /// Full name.
    pub object_name: *const UnicodeString,
    /// OBJ_* bits.
    pub attributes: u32,
    /// Not used here.
    pub security_descriptor: *mut c_void,
    /// Not used here.
    pub security_quality_of_service: *mut c_void,
}
layout!(
    ObjectAttributes, 0x30, length: 0, root_directory: 8, object_name: 0x10,
    attributes: 0x18, security_descriptor: 0x20, security_quality_of_service: 0x28,
);

/// OBJ_CASE_INSENSITIVE.
pub const OBJ_CASE_INSENSITIVE: u32 = 0x40;
/// OBJ_KERNEL_HANDLE: a handle no user process can use.
pub const OBJ_KERNEL_HANDLE: u32 = 0x200;
/// KEY_READ.
pub const KEY_READ: u32 = 0x0002_0019;
/// FILE_ALL_ACCESS.
pub const FILE_ALL_ACCESS: u32 = 0x001F_01FF;

/// KeyValuePartialInformation of KEY_VALUE_INFORMATION_CLASS.
pub const KEY_VALUE_PARTIAL: u32 = 2;
/// REG_SZ.
pub const REG_SZ: u32 = 1;
/// REG_DWORD.
pub const REG_DWORD: u32 = 4;

/// Bytes of a value that [`KeyValuePartial`] has room for.
pub const VALUE_CAPACITY: usize = 128;

/// KEY_VALUE_PARTIAL_INFORMATION with room for a short value.
#[repr(C)]
pub struct KeyValuePartial {
    /// Not used.
    pub title_index: u32,
    /// REG_*.
    pub kind: u32,
    /// Bytes of `data` in use.
    pub data_length: u32,
    /// The value.
    pub data: [u8; VALUE_CAPACITY],
}
layout!(KeyValuePartial, 12 + VALUE_CAPACITY, title_index: 0, kind: 4, data_length: 8, data: 12);

/// KEVENT: opaque here (a DISPATCHER_HEADER, 0x18 bytes).
#[repr(C)]
pub struct KEvent {
    header: [u64; 3],
}
layout!(KEvent, 0x18);

impl KEvent {
    /// Memory for an event; KeInitializeEvent makes it one.
    #[must_use]
    pub const fn new() -> Self {
        Self { header: [0; 3] }
    }
}

impl Default for KEvent {
    fn default() -> Self {
        Self::new()
    }
}

/// NotificationEvent: stays signaled until cleared.
pub const NOTIFICATION_EVENT: u32 = 0;
/// SynchronizationEvent: lets one waiter through.
pub const SYNCHRONIZATION_EVENT: u32 = 1;

/// IO_STATUS_BLOCK.
#[repr(C)]
pub struct IoStatusBlock {
    /// Status (the union's low half; the rest is padding).
    pub status: NtStatus,
    /// Request-dependent.
    pub information: usize,
}
layout!(IoStatusBlock, 0x10, status: 0, information: 8);

/// The fixed part of an MDL; the PFN array follows it.
#[repr(C)]
pub struct Mdl {
    /// Next MDL of a chain.
    pub next: *mut Mdl,
    /// Bytes of header and PFN array, wrapped to 16 bits: never rely on it.
    pub size: i16,
    /// MDL_* bits.
    pub flags: i16,
    /// Processor that allocated it.
    pub allocation_processor: u16,
    /// Reserved.
    pub reserved: u16,
    /// Owning process.
    pub process: *mut c_void,
    /// System mapping, when there is one.
    pub mapped_system_va: *mut c_void,
    /// Page-aligned start.
    pub start_va: *mut c_void,
    /// Bytes described.
    pub byte_count: u32,
    /// Offset into the first page.
    pub byte_offset: u32,
}
layout!(
    Mdl, 0x30, next: 0, size: 8, flags: 0xA, process: 0x10, mapped_system_va: 0x18,
    start_va: 0x20, byte_count: 0x28, byte_offset: 0x2C,
);

/// KPROCESSOR_MODE KernelMode.
pub const KERNEL_MODE: u8 = 0;
/// MEMORY_CACHING_TYPE MmNonCached.
pub const MM_NON_CACHED: u32 = 0;
/// MEMORY_CACHING_TYPE MmCached.
pub const MM_CACHED: u32 = 1;
/// MM_PAGE_PRIORITY NormalPagePriority.
pub const NORMAL_PAGE_PRIORITY: u32 = 16;
/// MdlMappingNoExecute.
pub const MDL_MAPPING_NO_EXECUTE: u32 = 0x4000_0000;
/// POOL_TYPE NonPagedPoolNx.
pub const NON_PAGED_POOL_NX: u32 = 512;

/// CM_PARTIAL_RESOURCE_DESCRIPTOR, packed to 4 bytes as in the header.
#[repr(C, packed(4))]
#[derive(Clone, Copy)]
pub struct PartialDescriptor {
    /// CmResourceType*.
    pub kind: u8,
    /// CM_SHARE_DISPOSITION.
    pub share: u8,
    /// Depends on `kind`.
    pub flags: u16,
    /// For memory: start address.
    pub start: u64,
    /// For memory: length.
    pub length: u32,
    /// Rest of the union.
    pub rest: u32,
}
layout!(PartialDescriptor, 0x14, kind: 0, flags: 2, start: 4, length: 12);

/// CM_RESOURCE_LIST with one CM_FULL_RESOURCE_DESCRIPTOR; the partial
/// descriptors follow.
#[repr(C)]
pub struct ResourceList {
    /// Full descriptors; one for a PCI function.
    pub count: u32,
    /// INTERFACE_TYPE.
    pub interface: u32,
    /// Bus.
    pub bus: u32,
    /// Version of the partial list.
    pub version: u16,
    /// Revision of the partial list.
    pub revision: u16,
    /// Partial descriptors that follow.
    pub partial_count: u32,
}
layout!(ResourceList, 0x14, count: 0, version: 0xC, partial_count: 0x10);

/// CmResourceTypeInterrupt.
pub const RESOURCE_INTERRUPT: u8 = 2;
/// CmResourceTypeMemory.
pub const RESOURCE_MEMORY: u8 = 3;
/// CmResourceTypeMemoryLarge; its length is scaled by its flags.
pub const RESOURCE_MEMORY_LARGE: u8 = 7;
/// CM_RESOURCE_INTERRUPT_MESSAGE: MSI or MSI-X.
pub const INTERRUPT_MESSAGE: u16 = 0x0002;
