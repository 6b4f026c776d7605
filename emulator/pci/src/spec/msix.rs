//! PCI Local Bus 3.0 §6.8.2: MSI-X.

/// Bytes of the capability.
pub const CAPABILITY_SIZE: u8 = 12;
/// Message control, u16, from the start of the capability.
pub const CONTROL: u16 = 2;
/// Table offset and BAR indicator, u32.
pub const TABLE: u16 = 4;
/// Pending bit array offset and BAR indicator, u32.
pub const PBA: u16 = 8;

/// Message control: every vector is masked.
pub const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// Message control: MSI-X is on, and INTx# is off.
pub const CONTROL_ENABLE: u16 = 1 << 15;

/// Bytes of a table entry (§6.8.2.6): address low and high, data, control.
pub const ENTRY_SIZE: u64 = 16;
/// Vector control: masked.
pub const VECTOR_MASKED: u32 = 1;
