//! The vfio-user protocol, version 0.0: numbers and layouts, no behaviour.
//! Source: QEMU's `docs/interop/vfio-user.rst`. What it takes over from the
//! kernel's VFIO is in `vfio-bindings`, and re-exported here under one name.

pub mod guest;

pub use vfio_bindings::bindings::vfio as uapi;

/// Bytes of a message header: id u16, command u16, size of the whole message
/// u32, flags u32, error u32.
pub const HEADER: usize = 16;

/// Header flags: type, four bits.
pub const TYPE: u32 = 0xf;
/// Header flags: a command.
pub const TYPE_COMMAND: u32 = 0;
/// Header flags: a reply.
pub const TYPE_REPLY: u32 = 1;
/// Header flags: the sender wants no reply.
pub const NO_REPLY: u32 = 1 << 4;
/// Header flags of a reply: the command failed, the error field is an errno.
pub const ERROR: u32 = 1 << 5;

/// Version and capabilities; the first message. Major u16, minor u16, JSON
/// with a NUL at its end.
pub const VERSION: u16 = 1;
/// argsz u32, flags u32, offset in the file u64, address u64, size u64; with
/// the file, or without one.
pub const DMA_MAP: u16 = 2;
/// argsz u32, flags u32, address u64, size u64.
pub const DMA_UNMAP: u16 = 3;
/// As `vfio_device_info`, its first 16 bytes.
pub const DEVICE_GET_INFO: u16 = 4;
/// As `vfio_region_info`.
pub const DEVICE_GET_REGION_INFO: u16 = 5;
/// Files for direct access to a region; we have none.
pub const DEVICE_GET_REGION_IO_FDS: u16 = 6;
/// As `vfio_irq_info`.
pub const DEVICE_GET_IRQ_INFO: u16 = 7;
/// As `vfio_irq_set`, with the event files.
pub const DEVICE_SET_IRQS: u16 = 8;
/// offset u64, region u32, count u32; the reply has the bytes behind them.
pub const REGION_READ: u16 = 9;
/// The same, with the bytes.
pub const REGION_WRITE: u16 = 10;
/// Ours: address u64, count u64; the reply repeats them before the bytes.
pub const DMA_READ: u16 = 11;
/// The same, with the bytes.
pub const DMA_WRITE: u16 = 12;
/// No body.
pub const DEVICE_RESET: u16 = 13;

/// Bytes of the body of DMA_READ and DMA_WRITE before the data. (QEMU's patches
/// before 10.1 had a count of 32 bits and the data right behind it; 11.1.3 was
/// seen to follow the document.)
pub const DMA_BODY: usize = 16;

/// Most files with a message, as QEMU offers.
pub const MAX_FDS: usize = 16;
/// Most bytes of data in a message, as QEMU offers.
pub const MAX_TRANSFER: usize = 1 << 20;
/// Longest message that is read: data, the longest body before it, a header.
pub const MAX_MESSAGE: usize = MAX_TRANSFER + 64;
/// Longest capabilities text.
pub const MAX_CAPABILITIES: usize = 4096;
