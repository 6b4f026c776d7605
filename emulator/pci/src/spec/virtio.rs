//! virtio 1.2: the PCI transport (§4.1), device status (§2.1), reserved
//! feature bits (§6) and the parts of the split ring that the transport
//! itself reads (§2.7).

/// Vendor id of virtio devices (§4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// Device id of a modern device: this plus its virtio device type.
pub const DEVICE_BASE: u16 = 0x1040;
/// Revision id of a device that has no legacy interface is at least this.
pub const REVISION: u8 = 1;

/// Capability field: structure type, u8 (§4.1.4).
pub const CAP_CFG_TYPE: usize = 3;
/// Capability field: BAR, u8.
pub const CAP_BAR: usize = 4;
/// Capability field: offset into the BAR, u32.
pub const CAP_OFFSET: usize = 8;
/// Capability field: bytes, u32.
pub const CAP_LENGTH: usize = 12;
/// Bytes of the capability without what its type adds.
pub const CAP_SIZE: usize = 16;
/// Added to the notification capability: multiplier, u32 (§4.1.4.4).
pub const CAP_NOTIFY_MULTIPLIER: usize = 16;
/// Added to the PCI access capability: the window, four bytes (§4.1.4.9).
pub const CAP_WINDOW: usize = 16;

/// Structure type: common configuration.
pub const CFG_COMMON: u8 = 1;
/// Structure type: notifications.
pub const CFG_NOTIFY: u8 = 2;
/// Structure type: interrupt status.
pub const CFG_ISR: u8 = 3;
/// Structure type: device-specific configuration.
pub const CFG_DEVICE: u8 = 4;
/// Structure type: access to the BARs through configuration space.
pub const CFG_PCI: u8 = 5;
/// Vendor data (§4.1.4.8).
pub const CFG_VENDOR: u8 = 9;

/// Common configuration registers (§4.1.4.3).
pub mod common {
    /// A register: its offset and its bytes.
    pub type Register = (u64, u8);
    /// Selects which 32 bits [`DEVICE_FEATURE`] shows.
    pub const DEVICE_FEATURE_SELECT: Register = (0x00, 4);
    /// Feature bits offered; read-only.
    pub const DEVICE_FEATURE: Register = (0x04, 4);
    /// Selects which 32 bits [`DRIVER_FEATURE`] is.
    pub const DRIVER_FEATURE_SELECT: Register = (0x08, 4);
    /// Feature bits accepted.
    pub const DRIVER_FEATURE: Register = (0x0c, 4);
    /// Vector of configuration changes.
    pub const CONFIG_MSIX_VECTOR: Register = (0x10, 2);
    /// Queues of the device; read-only.
    pub const NUM_QUEUES: Register = (0x12, 2);
    /// Device status (§2.1).
    pub const DEVICE_STATUS: Register = (0x14, 1);
    /// Changes whenever the device configuration does; read-only.
    pub const CONFIG_GENERATION: Register = (0x15, 1);
    /// Selects the queue of the registers below.
    pub const QUEUE_SELECT: Register = (0x16, 2);
    /// Entries of the queue; the maximum until written.
    pub const QUEUE_SIZE: Register = (0x18, 2);
    /// Vector of the queue.
    pub const QUEUE_MSIX_VECTOR: Register = (0x1a, 2);
    /// 1 lets the device use the queue.
    pub const QUEUE_ENABLE: Register = (0x1c, 2);
    /// Where to notify, in units of the multiplier; read-only.
    pub const QUEUE_NOTIFY_OFF: Register = (0x1e, 2);
    /// Device address of the descriptor table.
    pub const QUEUE_DESC: Register = (0x20, 8);
    /// Device address of the available ring.
    pub const QUEUE_DRIVER: Register = (0x28, 8);
    /// Device address of the used ring.
    pub const QUEUE_DEVICE: Register = (0x30, 8);
    /// Bytes of the structure; the last four (queue_notify_data,
    /// queue_reset) belong to features that are not offered and read zero.
    pub const SIZE: u64 = 0x3c;
}

/// Status: the driver noticed the device.
pub const STATUS_ACKNOWLEDGE: u8 = 1;
/// Status: the driver knows how to drive it.
pub const STATUS_DRIVER: u8 = 2;
/// Status: the driver may use it.
pub const STATUS_DRIVER_OK: u8 = 4;
/// Status: feature negotiation is complete.
pub const STATUS_FEATURES_OK: u8 = 8;
/// Status: the device cannot go on; set by the device alone.
pub const STATUS_NEEDS_RESET: u8 = 64;
/// Status: the driver gave up.
pub const STATUS_FAILED: u8 = 128;

/// Feature: indirect descriptors (§2.7.5.3).
pub const F_RING_INDIRECT_DESC: u64 = 1 << 28;
/// Feature: conforms to virtio 1.0 and later.
pub const F_VERSION_1: u64 = 1 << 32;
/// Feature: device addresses are translated by the platform's IOMMU.
pub const F_ACCESS_PLATFORM: u64 = 1 << 33;

/// "No vector" in the vector registers (§4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;
/// Interrupt status: a queue was used (§4.1.4.5).
pub const ISR_QUEUE: u8 = 1;
/// Interrupt status: the configuration changed.
pub const ISR_CONFIG: u8 = 2;

/// Descriptor flag: `next` is valid (§2.7.5).
pub const DESC_NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const DESC_WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;
/// Offset of the index in the available ring (§2.7.6).
pub const AVAIL_INDEX: u64 = 2;
/// Available ring flag: do not interrupt (§2.7.7).
pub const AVAIL_NO_INTERRUPT: u16 = 1;
