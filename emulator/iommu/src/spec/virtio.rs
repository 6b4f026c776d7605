//! The IOMMU device of virtio 1.2 (§5.13; section numbers are its): requests,
//! statuses, fault reports, configuration. All fields are little-endian.

/// virtio device type.
pub const DEVICE_TYPE: u16 = 23;
/// The queue of requests (§5.13.2).
pub const REQUEST_QUEUE: u16 = 0;
/// The queue of fault reports.
pub const EVENT_QUEUE: u16 = 1;

/// Features (§5.13.3).
pub mod feature {
    /// The input range is in the configuration.
    pub const INPUT_RANGE: u64 = 1 << 0;
    /// So is the range of domain numbers.
    pub const DOMAIN_RANGE: u64 = 1 << 1;
    /// MAP and UNMAP are there.
    pub const MAP_UNMAP: u64 = 1 << 2;
    /// PROBE is there.
    pub const PROBE: u64 = 1 << 4;
    /// The MMIO flag of a mapping is there.
    pub const MMIO: u64 = 1 << 5;
    /// The bypass field and the bypass flag of ATTACH are there. It supersedes
    /// BYPASS (bit 3), which new devices should not offer.
    pub const BYPASS_CONFIG: u64 = 1 << 6;
    /// What this device offers, the transport's features aside.
    pub const ALL: u64 = INPUT_RANGE | DOMAIN_RANGE | MAP_UNMAP | PROBE | MMIO | BYPASS_CONFIG;
}

/// Bytes of the configuration (§5.13.4): page_size_mask u64, input range
/// (first, last) u64, domain range (first, last) u32, probe_size u32, bypass
/// u8, three reserved.
pub const CONFIG_SIZE: usize = 40;
/// Where the bypass field is.
pub const CONFIG_BYPASS: u64 = 36;

/// Request types (§5.13.6).
pub mod request {
    /// Put an endpoint into a domain.
    pub const ATTACH: u8 = 1;
    /// Take it out.
    pub const DETACH: u8 = 2;
    /// Map a range.
    pub const MAP: u8 = 3;
    /// Unmap ranges.
    pub const UNMAP: u8 = 4;
    /// Ask for an endpoint's properties.
    pub const PROBE: u8 = 5;

    /// Bytes of type and padding, before every request.
    pub const HEAD: usize = 4;
    /// Bytes of status and padding, behind every request; device-writable.
    pub const TAIL: usize = 4;
    /// Bytes that the device reads, head included: domain u32, endpoint u32,
    /// flags u32, reserved u32.
    pub const ATTACH_SIZE: usize = 20;
    /// domain u32, endpoint u32, reserved u64.
    pub const DETACH_SIZE: usize = 20;
    /// domain u32, first u64, last u64, physical u64, flags u32.
    pub const MAP_SIZE: usize = 36;
    /// domain u32, first u64, last u64, reserved u32.
    pub const UNMAP_SIZE: usize = 28;
    /// endpoint u32, 64 reserved.
    pub const PROBE_SIZE: usize = 72;

    /// ATTACH flag: the domain lets everything through.
    pub const ATTACH_BYPASS: u32 = 1 << 0;
    /// MAP flag: reads are allowed.
    pub const MAP_READ: u32 = 1 << 0;
    /// MAP flag: writes are allowed.
    pub const MAP_WRITE: u32 = 1 << 1;
    /// MAP flag: to a device's registers.
    pub const MAP_MMIO: u32 = 1 << 2;
}

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Virtio communication error.
    IoErr = 1,
    /// Unsupported request.
    Unsupp = 2,
    /// Internal device error.
    DevErr = 3,
    /// Invalid parameters.
    Inval = 4,
    /// Parameters out of range.
    Range = 5,
    /// No such entry.
    NoEnt = 6,
    /// Bad address.
    Fault = 7,
    /// Insufficient resources.
    NoMem = 8,
}

/// Property of an endpoint: reserved memory (§5.13.6.6). Type u16, length u16
/// (of what follows), subtype u8, three reserved, first u64, last u64.
pub const PROPERTY_RESERVED_MEMORY: u16 = 1;
/// Bytes of that property behind type and length.
pub const RESERVED_MEMORY_LENGTH: u16 = 20;
/// Its subtype: where interrupt messages go.
pub const RESERVED_MEMORY_MSI: u8 = 1;

/// Fault reports (§5.13.6.7): reason u8, three reserved, flags u32, endpoint
/// u32, reserved u32, address u64.
pub mod fault {
    /// Bytes of a report.
    pub const SIZE: usize = 24;
    /// Reason: the endpoint is in no domain.
    pub const DOMAIN: u8 = 1;
    /// Reason: no mapping, or not for such an access.
    pub const MAPPING: u8 = 2;
    /// Flag: a read.
    pub const READ: u32 = 1 << 0;
    /// Flag: a write.
    pub const WRITE: u32 = 1 << 1;
    /// Flag: the address is valid.
    pub const ADDRESS: u32 = 1 << 8;
}
