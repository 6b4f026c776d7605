//! Root, context and second-level entries in legacy mode (§9.1, §9.3, §9.8).

use super::registers::GUEST_ADDRESS_BITS;

/// Bits of a physical address: the DMAR table's host address width.
pub const HOST_ADDRESS_BITS: u32 = 48;
/// The address field of every entry.
pub const ADDRESS: u64 = ((1 << HOST_ADDRESS_BITS) - 1) & !0xfff;
/// Address bits that the hardware does not have.
const BEYOND_HOST: u64 = !((1 << HOST_ADDRESS_BITS) - 1);

/// Root entry, low half: present. The context table's address is in
/// [`ADDRESS`].
pub const ROOT_PRESENT: u64 = 1;
/// Root entry, low half: reserved bits. The high half is reserved whole.
pub const ROOT_RESERVED: u64 = 0xffe | BEYOND_HOST;

/// Context entry, low half: present.
pub const CONTEXT_PRESENT: u64 = 1;
/// Context entry, low half: fault processing disabled (FPD); also looked at
/// where the entry is not present.
pub const CONTEXT_FAULT_DISABLE: u64 = 1 << 1;
/// Context entry, low half: position of the translation type (TT), 2 bits.
pub const CONTEXT_TYPE: u32 = 2;
/// TT 00: requests without a PASID go through second-level tables.
pub const TYPE_TRANSLATE: u64 = 0b00;
/// TT 10: pass-through.
pub const TYPE_PASS_THROUGH: u64 = 0b10;
/// Context entry, low half: reserved bits, by translation type. Pass-through
/// ignores the table's address, also the bits that the hardware has not.
#[must_use]
pub const fn context_reserved_low(kind: u64) -> u64 {
    match kind {
        TYPE_PASS_THROUGH => 0xff0,
        _ => 0xff0 | BEYOND_HOST,
    }
}
/// Context entry, high half: address width (AW), 3 bits.
pub const CONTEXT_WIDTH: u64 = 0b111;
/// Context entry, high half: position of the domain id, 16 bits.
pub const CONTEXT_DOMAIN: u32 = 8;
/// Context entry, high half: reserved bits.
pub const CONTEXT_RESERVED_HIGH: u64 = 0xffff_ffff_ff00_0080;

/// Levels of tables for an address width (AW) that CAP.SAGAW offers.
#[must_use]
pub const fn levels(width: u64) -> Option<u8> {
    match width {
        0b001 => Some(3),
        0b010 => Some(4),
        _ => None,
    }
}

/// Bits of input address that `levels` of tables translate, at most what
/// CAP.MGAW offers.
#[must_use]
pub const fn input_bits(levels: u8) -> u32 {
    let bits = 12 + 9 * levels as u32;
    if bits < GUEST_ADDRESS_BITS {
        bits
    } else {
        GUEST_ADDRESS_BITS
    }
}

/// Second-level entry: readable.
pub const ENTRY_READ: u64 = 1;
/// Second-level entry: writable. With both clear it is not present.
pub const ENTRY_WRITE: u64 = 1 << 1;
/// Second-level entry above the lowest level: a leaf (2 MiB, 1 GiB).
pub const ENTRY_LARGE: u64 = 1 << 7;

/// Reserved bits of a second-level entry. `level` is 1 where entries map
/// 4 KiB. Bit 11 (SNP) and bit 62 (TM) are reserved because ECAP.SC and
/// ECAP.DT are clear; bits 52–61 and 63 are ignored.
#[must_use]
pub const fn entry_reserved(level: u8, leaf: bool) -> u64 {
    let always = 1 << 11 | 1 << 62 | (BEYOND_HOST & ((1 << 52) - 1));
    match (level, leaf) {
        // The low address bits of a large leaf.
        (2, true) => always | 0x1f_f000,
        (3, true) => always | 0x3fff_f000,
        // Nothing maps 512 GiB.
        (4, _) => always | ENTRY_LARGE,
        _ => always,
    }
}
