//! PCI Local Bus 3.0 §6: the configuration space of a type 0 function.

/// Vendor id, u16.
pub const VENDOR_ID: u16 = 0x00;
/// Device id, u16.
pub const DEVICE_ID: u16 = 0x02;
/// Command register, u16 (§6.2.2).
pub const COMMAND: u16 = 0x04;
/// Status register, u16 (§6.2.3).
pub const STATUS: u16 = 0x06;
/// Revision id, u8.
pub const REVISION_ID: u16 = 0x08;
/// Class code, three bytes: interface, subclass, base class.
pub const CLASS_CODE: u16 = 0x09;
/// Cache line size, u8; read-write without effect.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Header type, u8; 0 is an ordinary function.
pub const HEADER_TYPE: u16 = 0x0e;
/// First of the six base address registers, u32 each (§6.2.5.1).
pub const BAR0: u16 = 0x10;
/// Base address registers of a type 0 header.
pub const BARS: usize = 6;
/// Subsystem vendor id, u16.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem id, u16.
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Offset of the first capability, u8 (§6.7).
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line, u8: the firmware's note to the OS.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, u8; 1 is INTA#.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// Bytes of the space of a function that is no PCI Express device.
pub const SIZE: usize = 256;

/// Command: the function answers memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: the function may start DMA and send message interrupts.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: answer to a parity error; read-write without effect here.
pub const COMMAND_PARITY: u16 = 1 << 6;
/// Command: SERR# enable; read-write without effect here.
pub const COMMAND_SERR: u16 = 1 << 8;
/// Command: do not assert INTx#.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// Status: INTx# is asserted (before [`COMMAND_INTX_DISABLE`] is applied).
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// Status: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Base address register: the bits of a memory register that are no address.
pub const BAR_FLAGS: u32 = 0xf;

/// Capability id: vendor-specific (§6.7, appendix H).
pub const CAPABILITY_VENDOR: u8 = 0x09;
/// Capability id: MSI-X.
pub const CAPABILITY_MSIX: u8 = 0x11;

/// Class code: display controller that is no VGA and no 3D controller.
pub const CLASS_DISPLAY_OTHER: u32 = 0x03_80_00;
