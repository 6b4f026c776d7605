//! dmasan's region for what a guest tells of its memory, and the capability
//! that shows it (docs/qemu.md).

/// The capability's vendor id, u16.
pub const CAP_VENDOR: u32 = 4;
/// Version of the layout, u16.
pub const CAP_VERSION: u32 = 6;
/// [`MAGIC`], u32.
pub const CAP_MAGIC: u32 = 8;
/// Base address register, u8.
pub const CAP_BAR: u32 = 12;
/// Offset into it, u32.
pub const CAP_OFFSET: u32 = 16;
/// Bytes, u32.
pub const CAP_LENGTH: u32 = 20;
/// Vendor id of the format.
pub const VENDOR: u16 = 0xD3A5;
/// The version that this driver knows.
pub const VERSION: u16 = 1;
/// "dmsn".
pub const MAGIC: u32 = 0x6E73_6D64;

/// What came of the latest doorbell, u32.
pub const RESULT: usize = 0x14;
/// What the memory is called, u64.
pub const COOKIE: usize = 0x20;
/// What the place that allocates such memory is called, u32.
pub const TAG: usize = 0x28;
/// Operation, and entries of the window from bit 16 on, u32.
pub const DOORBELL: usize = 0x30;
/// Address of a page, with the pages from there on less one, u64 each.
pub const WINDOW: usize = 0x800;
/// Entries of the window.
pub const ENTRIES: usize = 256;
/// Pages of an entry.
pub const PAGES_MAX: u64 = 4096;

/// Operation: these pages were allocated.
pub const ALLOCATE: u32 = 1;
/// Operation: these belong to it too.
pub const EXTEND: u32 = 2;
/// Operation: it is about to be freed.
pub const RETIRE: u32 = 3;
/// Operation: it was freed.
pub const FREE: u32 = 4;
