//! The region by which a guest tells of its memory: dmasan's own, described
//! for writers of drivers in `docs/qemu.md`. Numbers and layout, no behaviour.

/// BAR that it is in.
pub const BAR: u8 = 2;
/// Its bytes.
pub const SIZE: u32 = 0x1000;
/// Vendor id of the capability (virtio 1.2 §4.1.4.8): dmasan's, which no
/// vendor of the PCI-SIG's has.
pub const VENDOR: u16 = 0xd3a5;
/// "dmsn", in the capability and the first register.
pub const MAGIC: u32 = 0x6e73_6d64;
/// Version of the layout.
pub const VERSION: u16 = 1;

/// What stands in the capability behind the vendor id: version u16, magic
/// u32, BAR u8, three bytes of nothing, offset u32, length u32.
pub fn capability() -> Vec<u8> {
    let mut data = VERSION.to_le_bytes().to_vec();
    data.extend_from_slice(&MAGIC.to_le_bytes());
    data.extend_from_slice(&[BAR, 0, 0, 0]);
    data.extend_from_slice(&0u32.to_le_bytes());
    data.extend_from_slice(&SIZE.to_le_bytes());
    data
}

/// u32: [`MAGIC`].
pub const REG_MAGIC: u64 = 0x00;
/// u32: [`VERSION`].
pub const REG_VERSION: u64 = 0x04;
/// u32: [`ENTRIES`].
pub const REG_ENTRIES: u64 = 0x08;
/// u32: doorbells that were taken; wraps.
pub const REG_TAKEN: u64 = 0x0c;
/// u32: doorbells that were refused; wraps.
pub const REG_REFUSED: u64 = 0x10;
/// u32: what came of the latest doorbell, a [`Result`](result).
pub const REG_RESULT: u64 = 0x14;
/// u64, writable: what the guest calls the memory.
pub const REG_COOKIE: u64 = 0x20;
/// u32, writable: what it calls the place that allocates such memory.
pub const REG_TAG: u64 = 0x28;
/// u32, to be written at once: operation in bits 7:0, [`DEVICE_ADDRESSES`],
/// entries of the window that count in bits 31:16.
pub const REG_DOORBELL: u64 = 0x30;
/// The first byte of cookie and tag, and the one behind them.
pub const NAMES: std::ops::Range<u64> = REG_COOKIE..REG_TAG + 4;
/// The window: [`ENTRIES`] of u64, writable, each with the address of a page
/// in bits 63:12 and the pages from there on, less one, in bits 11:0.
pub const WINDOW: std::ops::Range<u64> = 0x800..0x1000;
/// Entries of the window.
pub const ENTRIES: u32 = 256;

/// Doorbell: the window has addresses of the device's, not of the CPU's.
pub const DEVICE_ADDRESSES: u32 = 1 << 8;

/// Operations.
pub mod op {
    /// The pages were allocated.
    pub const ALLOCATE: u32 = 1;
    /// They belong to it too.
    pub const EXTEND: u32 = 2;
    /// It is about to be freed.
    pub const RETIRE: u32 = 3;
    /// It was freed.
    pub const FREE: u32 = 4;
    /// Everything told so far is void.
    pub const FORGET: u32 = 5;
}

/// What came of a doorbell.
pub mod result {
    /// It was taken.
    pub const TAKEN: u32 = 0;
    /// There is no such operation.
    pub const NO_OPERATION: u32 = 1;
    /// No entries, too many, pages that are no memory, or not mapped.
    pub const BAD_LIST: u32 = 2;
    /// Nothing live has that cookie.
    pub const NO_COOKIE: u32 = 3;
    /// Too much is live.
    pub const NO_ROOM: u32 = 4;
    /// Too many in too short a time.
    pub const TOO_FAST: u32 = 5;
}
