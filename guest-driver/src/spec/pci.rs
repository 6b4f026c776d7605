//! PCI configuration space: what this driver reads and writes of it
//! (PCI Local Bus 3.0 §6).

/// Vendor id of virtio devices.
pub const VENDOR_VIRTIO: u16 = 0x1AF4;
/// virtio-gpu: 0x1040 + device type 16 (virtio 1.2 §4.1.2).
pub const DEVICE_GPU: u16 = 0x1050;

/// Vendor id, u16.
pub const VENDOR_ID: u32 = 0x00;
/// Device id, u16.
pub const DEVICE_ID: u32 = 0x02;
/// Command register, u16.
pub const COMMAND: u32 = 0x04;
/// Status register, u16.
pub const STATUS: u32 = 0x06;
/// First of the six base address registers, u32 each.
pub const BAR0: u32 = 0x10;
/// Base address registers of a type 0 header.
pub const BARS: usize = 6;
/// Offset of the first capability, u8.
pub const CAPABILITIES: u32 = 0x34;

/// Command: the function answers memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: the function may start DMA and send message interrupts.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Status: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Base address register: I/O space.
pub const BAR_IO: u32 = 1 << 0;
/// Base address register: mask of the type field.
pub const BAR_TYPE: u32 = 3 << 1;
/// Base address register: 64 bits wide, takes the next register too.
pub const BAR_TYPE_64: u32 = 2 << 1;
/// Base address register: mask of the address in a memory register.
pub const BAR_ADDRESS: u32 = !0xF;

/// Capability id: vendor-specific.
pub const CAPABILITY_VENDOR: u8 = 0x09;
/// More capabilities than fit in 192 bytes: a bound for the list walk.
pub const CAPABILITIES_MAX: usize = 48;
