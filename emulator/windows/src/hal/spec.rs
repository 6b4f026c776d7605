//! What the HAL and the PCI bus driver program besides the remapping unit
//! (PCI Local Bus 3.0; Intel SDM vol. 3 for messages).

use memory::Gpa;

/// Vector of the remapping unit's fault event.
pub const FAULT_VECTOR: u8 = 0xd0;
/// First vector for devices.
pub const FIRST_DEVICE_VECTOR: u8 = 0x60;
/// Last vector for devices.
pub const LAST_DEVICE_VECTOR: u8 = 0xcf;
/// Address of a message to processor 0: physical destination, no redirection
/// (SDM vol. 3, 11.11.1).
pub const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
/// Bits of a message's address that say it is one.
pub const MESSAGE_RANGE: u64 = !0xf_ffff;

/// Where BARs are placed, below the I/O APIC.
pub const BAR_WINDOW: std::ops::Range<u64> = 0xe000_0000..0xfec0_0000;
/// Where 64-bit BARs go that do not fit there: above any RAM.
pub const HIGH_BAR_WINDOW: std::ops::Range<u64> = 0x80_0000_0000..0x100_0000_0000;

/// Command register, 2 bytes (PCI 6.2.2).
pub const COMMAND: u16 = 0x04;
/// The function answers memory accesses.
pub const COMMAND_MEMORY: u32 = 1 << 1;
/// The function may start DMA and send messages.
pub const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// No INTx#.
pub const COMMAND_INTX_DISABLE: u32 = 1 << 10;
/// Status register, 2 bytes (PCI 6.2.3).
pub const STATUS: u16 = 0x06;
/// There is a list of capabilities.
pub const STATUS_CAPABILITIES: u32 = 1 << 4;
/// The first base address register (PCI 6.2.5.1).
pub const BAR0: u16 = 0x10;
/// How many there are.
pub const BARS: u8 = 6;
/// I/O space, in a base address register.
pub const BAR_IO: u32 = 1;
/// The kind of memory, in a base address register.
pub const BAR_TYPE: u32 = 0b110;
/// It is 64 bits wide.
pub const BAR_TYPE_64: u32 = 0b100;
/// It is prefetchable.
pub const BAR_PREFETCHABLE: u32 = 1 << 3;
/// Bits of a memory register that are no address.
pub const BAR_FLAGS: u32 = 0xf;
/// Offset of the first capability, 1 byte (PCI 6.7).
pub const CAPABILITIES: u16 = 0x34;
/// Most capabilities that fit into configuration space.
pub const MAX_CAPABILITIES: usize = 48;

/// Capability id of MSI-X (PCI 6.8.2).
pub const MSIX: u32 = 0x11;
/// Message control, from the start of the capability, 2 bytes.
pub const MSIX_CONTROL: u16 = 2;
/// Table offset and BAR number, 4 bytes.
pub const MSIX_TABLE: u16 = 4;
/// Entries of the table, less one.
pub const MSIX_SIZE: u32 = 0x7ff;
/// All vectors are masked.
pub const MSIX_FUNCTION_MASK: u32 = 1 << 14;
/// MSI-X is on.
pub const MSIX_ENABLE: u32 = 1 << 15;
/// BAR number, in the table's offset.
pub const MSIX_BAR: u32 = 0b111;
/// Bytes of a table entry: address low and high, data, control.
pub const MSIX_ENTRY: u64 = 16;

/// Bits of CAP and ECAP that are looked at (VT-d 11.4.2, 11.4.3).
pub mod capability {
    /// CAP.CM: what is not present may be cached.
    pub const CACHING_MODE: u64 = 1 << 7;
    /// CAP.SAGAW, bit 2: tables of four levels.
    pub const FOUR_LEVELS: u64 = 1 << 10;
    /// CAP.SLLPS, bit 0: leaves of 2 MiB.
    pub const LEAVES_2M: u64 = 1 << 34;
    /// CAP.SLLPS, bit 1: leaves of 1 GiB.
    pub const LEAVES_1G: u64 = 1 << 35;
    /// CAP.PSI: page-selective invalidation.
    pub const PAGE_SELECTIVE: u64 = 1 << 39;
    /// Position of CAP.MAMV, 6 bits.
    pub const MAX_ADDRESS_MASK: u32 = 48;
    /// Position of CAP.FRO, 10 bits, in units of 16 bytes.
    pub const FAULT_OFFSET: u32 = 24;
    /// Position of CAP.NFR, 8 bits, less one.
    pub const FAULT_RECORDS: u32 = 40;
    /// ECAP.QI: queued invalidation.
    pub const QUEUED: u64 = 1 << 1;
    /// ECAP.PT: pass-through.
    pub const PASS_THROUGH: u64 = 1 << 6;
}

/// The remapping unit's registers.
pub const UNIT: Gpa = Gpa(iommu::REGISTER_BASE);
