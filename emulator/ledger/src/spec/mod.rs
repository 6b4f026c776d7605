//! What Intel's VT-d specification and Microsoft's documents say.

/// Reason of a refusal that is not the IOMMU's: Bus Master Enable is clear.
pub const BUS_MASTER_DISABLED: u8 = 0xf0;
/// Another: the translated address is no RAM.
pub const NOT_MEMORY: u8 = 0xf1;

/// Is the reason one that the IOMMU reports, so that Windows hears of it?
#[must_use]
pub const fn is_iommu_fault(reason: u8) -> bool {
    reason < BUS_MASTER_DISABLED
}

/// What a fault reason means (VT-d 7.1.3, legacy mode).
#[must_use]
pub const fn fault_reason(reason: u8) -> &'static str {
    match reason {
        0x01 => "the root entry is not present",
        0x02 => "the context entry is not present",
        0x03 => "the context entry is invalid",
        0x04 => "the address is beyond the domain's width",
        0x05 => "no write permission: the leaf or an entry above it is not present or read-only",
        0x06 => "no read permission: the leaf or an entry above it is not present or write-only",
        0x07 => "a second-level table could not be read",
        0x08 => "the root table could not be read",
        0x09 => "the context table could not be read",
        0x0a => "a reserved bit is set in the root entry",
        0x0b => "a reserved bit is set in the context entry",
        0x0c => "a reserved bit is set in a second-level entry",
        0x0d => "the context entry's translation type forbids the request",
        0x0e => "the tables lead into the interrupt address range",
        0x20 => "interrupt request with a reserved field set",
        0x21 => "interrupt index beyond the remapping table",
        0x22 => "the interrupt remapping entry is not present",
        0x23 => "the interrupt remapping table could not be read",
        0x24 => "a reserved bit is set in the interrupt remapping entry",
        0x25 => "compatibility-format interrupt blocked",
        0x26 => "interrupt request from another source than its entry allows",
        BUS_MASTER_DISABLED => "bus mastering is disabled: the request never left the device",
        NOT_MEMORY => "there is no memory at the address that it led to",
        _ => "a reason that VT-d does not define",
    }
}

/// `DXGK_VIDMMCAPS.IoMmuSecureModeSupported`: the driver uses no memory but
/// what is mapped for its device.
pub(crate) const SECURE_MODE: u32 = 1 << 11;

/// `DRIVER_VERIFIER_DMA_VIOLATION`; Windows raises it with parameter 1 =
/// [`IOMMU_VIOLATION`] without Driver Verifier too.
pub const BUG_CHECK_DMA_VIOLATION: u32 = 0xe6;
/// Its parameter 1 for a violation that the IOMMU detected.
pub const IOMMU_VIOLATION: u64 = 0x26;

/// Name of the state of a device that was reset (virtio 1.2 §2.4).
pub(crate) const RESET: &str = "RESET";

/// Interrupt requests, never memory (VT-d 3.14).
pub const INTERRUPT_RANGE: std::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// A context entry (VT-d 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ContextEntry {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl ContextEntry {
    /// Is it present?
    pub(crate) const fn present(self) -> bool {
        self.low & 1 != 0
    }

    /// Are requests passed through untranslated (translation type 10b)?
    pub(crate) const fn passthrough(self) -> bool {
        self.low >> 2 & 3 == 2
    }

    /// The domain id.
    pub(crate) const fn domain(self) -> u16 {
        (self.high >> 8) as u16
    }
}
