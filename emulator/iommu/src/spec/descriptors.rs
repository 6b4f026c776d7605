//! Invalidation descriptors, 128 bits (§6.5.2).

/// Bytes of a descriptor.
pub const SIZE: u64 = 16;

/// Type field, in bits 3:0 and 11:9 of the low half.
#[must_use]
pub const fn kind(low: u64) -> u64 {
    (low & 0xf) | ((low >> 9) & 0b111) << 4
}

/// Context-cache invalidate (§6.5.2.1).
pub const CONTEXT: u64 = 1;
/// IOTLB invalidate (§6.5.2.3).
pub const IOTLB: u64 = 2;
/// Interrupt entry cache invalidate (§6.5.2.7).
pub const INTERRUPT: u64 = 4;
/// Invalidation wait (§6.5.2.8).
pub const WAIT: u64 = 5;

/// Position of the granularity of [`CONTEXT`] and [`IOTLB`], 2 bits.
pub const GRANULARITY: u32 = 4;
/// Position of the domain id of [`CONTEXT`] and [`IOTLB`], 16 bits.
pub const DOMAIN: u32 = 16;
/// Position of the source id of [`CONTEXT`], 16 bits.
pub const CONTEXT_SOURCE: u32 = 32;
/// Position of the function mask of [`CONTEXT`], 2 bits.
pub const CONTEXT_FUNCTION_MASK: u32 = 48;
/// Drain writes, of [`IOTLB`].
pub const IOTLB_DRAIN_WRITES: u64 = 1 << 6;
/// Drain reads, of [`IOTLB`].
pub const IOTLB_DRAIN_READS: u64 = 1 << 7;
/// Address mask of [`IOTLB`], in the high half; bit 6 there is the
/// invalidation hint.
pub const IOTLB_ADDRESS_MASK: u64 = 0x3f;
/// Interrupt flag of [`WAIT`].
pub const WAIT_INTERRUPT: u64 = 1 << 4;
/// Status write of [`WAIT`].
pub const WAIT_STATUS: u64 = 1 << 5;
/// Position of the status data of [`WAIT`], 32 bits.
pub const WAIT_DATA: u32 = 32;

/// Reserved bits (low half, high half) of a type that this unit has.
/// [`WAIT`]'s bit 7 is reserved because ECAP.PDS is clear.
#[must_use]
pub const fn reserved(kind: u64) -> Option<[u64; 2]> {
    match kind {
        CONTEXT => Some([0xfffc_0000_0000_f1c0, u64::MAX]),
        IOTLB => Some([0xffff_ffff_0000_f100, 0xf80]),
        INTERRUPT => Some([0xffff_0000_07ff_f1e0, u64::MAX]),
        WAIT => Some([0xffff_f180, 0b11]),
        _ => None,
    }
}
