//! virtio 1.2: the PCI transport (§4.1) and device status (§2.1).

/// Capability field: structure type, u8 (§4.1.4).
pub const CAP_CFG_TYPE: u32 = 3;
/// Capability field: base address register, u8.
pub const CAP_BAR: u32 = 4;
/// Capability field: offset into it, u32.
pub const CAP_OFFSET: u32 = 8;
/// Capability field: bytes, u32.
pub const CAP_LENGTH: u32 = 12;
/// Capability field of the notification structure: multiplier, u32.
pub const CAP_NOTIFY_MULTIPLIER: u32 = 16;

/// Structure type: common configuration.
pub const CFG_COMMON: u8 = 1;
/// Structure type: notifications.
pub const CFG_NOTIFY: u8 = 2;
/// Structure type: interrupt status.
pub const CFG_ISR: u8 = 3;
/// Structure type: device-specific configuration.
pub const CFG_DEVICE: u8 = 4;
/// Structure type: vendor data (§4.1.4.8).
pub const CFG_VENDOR: u8 = 9;

/// Common configuration registers (§4.1.4.3).
pub mod common {
    /// u32, selects which 32 feature bits `DEVICE_FEATURE` shows.
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    /// u32.
    pub const DEVICE_FEATURE: usize = 0x04;
    /// u32.
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    /// u32.
    pub const DRIVER_FEATURE: usize = 0x0C;
    /// u16, vector of configuration changes.
    pub const CONFIG_MSIX_VECTOR: usize = 0x10;
    /// u8.
    pub const DEVICE_STATUS: usize = 0x14;
    /// u16, selects the queue of the registers below.
    pub const QUEUE_SELECT: usize = 0x16;
    /// u16.
    pub const QUEUE_SIZE: usize = 0x18;
    /// u16.
    pub const QUEUE_MSIX_VECTOR: usize = 0x1A;
    /// u16.
    pub const QUEUE_ENABLE: usize = 0x1C;
    /// u16.
    pub const QUEUE_NOTIFY_OFF: usize = 0x1E;
    /// u64, written as two u32 (§4.1.3.1).
    pub const QUEUE_DESC: usize = 0x20;
    /// u64.
    pub const QUEUE_DRIVER: usize = 0x28;
    /// u64.
    pub const QUEUE_DEVICE: usize = 0x30;
    /// Bytes used here.
    pub const SIZE: usize = 0x38;
}

/// Status: the driver noticed the device (§2.1).
pub const STATUS_ACKNOWLEDGE: u8 = 1;
/// Status: the driver knows how to drive it.
pub const STATUS_DRIVER: u8 = 2;
/// Status: the driver may use it.
pub const STATUS_DRIVER_OK: u8 = 4;
/// Status: feature negotiation is complete.
pub const STATUS_FEATURES_OK: u8 = 8;
/// Status: the driver gave up.
pub const STATUS_FAILED: u8 = 128;

/// Feature: conforms to virtio 1.0 and later (§6).
pub const F_VERSION_1: u64 = 1 << 32;
/// Feature: device addresses are translated by the platform's IOMMU (§6).
pub const F_ACCESS_PLATFORM: u64 = 1 << 33;
/// "No vector" in the vector registers (§4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xFFFF;

/// Interrupt status: a queue was used (§4.1.4.5).
pub const ISR_QUEUE: u8 = 1;
/// Interrupt status: the configuration changed.
pub const ISR_CONFIG: u8 = 2;
