//! virtio 1.2 §5.7: what the standard says of the GPU device. No behaviour.

pub mod command;
pub mod format;

/// virtio device type (§5).
pub const DEVICE_TYPE: u16 = 16;
/// The control queue (§5.7.2).
pub const CONTROL_QUEUE: u16 = 0;
/// The cursor queue.
pub const CURSOR_QUEUE: u16 = 1;
/// Scanouts that a display information response has room for (§5.7.6.8).
pub const MAX_SCANOUTS: usize = 16;

/// Feature (§5.7.3): GET_EDID.
pub const F_EDID: u64 = 1 << 1;
/// Feature: RESOURCE_ASSIGN_UUID.
pub const F_RESOURCE_UUID: u64 = 1 << 2;
/// Feature: blob resources.
pub const F_RESOURCE_BLOB: u64 = 1 << 3;

/// Device configuration (§5.7.4): pending events, u32, read-only.
pub const CONFIG_EVENTS_READ: u64 = 0;
/// Device configuration: events to clear, u32.
pub const CONFIG_EVENTS_CLEAR: u64 = 4;
/// Device configuration: scanouts, u32, read-only.
pub const CONFIG_NUM_SCANOUTS: u64 = 8;
/// Device configuration: capability sets, u32, read-only.
pub const CONFIG_NUM_CAPSETS: u64 = 12;
/// Bytes of the device configuration.
pub const CONFIG_SIZE: u32 = 16;
/// Pending event: the displays changed (§5.7.4.2).
pub const EVENT_DISPLAY: u32 = 1;

/// VIRTIO_GPU_BLOB_MEM_GUEST: a blob in guest memory (§5.7.6.8).
pub const BLOB_MEM_GUEST: u32 = 1;
/// VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE, _SHAREABLE and _CROSS_DEVICE.
pub const BLOB_FLAGS: u32 = 7;

/// Pixels a side of a cursor image (§5.7.6.10).
pub const CURSOR_SIDE: u32 = 64;
