//! Where things lie in the driver's address space: Windows' own regions on
//! x64, with nothing below 0xFFFF800000000000, so that null and user
//! addresses fault.
//!
//! Windows randomises most of these; fixed ones make runs repeatable.

use memory::Gva;

/// KUSER_SHARED_DATA, as the kernel sees it (public, fixed).
pub const SHARED_DATA: Gva = Gva(0xFFFF_F780_0000_0000);
/// Where a routine returns to that Windows called.
pub const RETURN: Gva = Gva(0xFFFF_F800_000F_0000);
/// Import thunks: one entry of [`THUNK_SIZE`] bytes for each service.
pub const THUNKS: Gva = Gva(0xFFFF_F800_0010_0000);
/// Bytes of a thunk.
pub const THUNK_SIZE: u64 = 8;
/// Bytes reserved for thunks.
pub const THUNKS_SIZE: u64 = 0x1_0000;
/// Hot guest code: memcpy and its kind.
pub const HELPERS: Gva = Gva(0xFFFF_F800_0020_0000);
/// Data exports of ntoskrnl, one cell each.
pub const CELLS: Gva = Gva(0xFFFF_F800_0030_0000);
/// One page for each import that nobody implements; never mapped.
pub const MISSING: Gva = Gva(0xFFFF_F800_0100_0000);
/// Most imports of a driver that may be missing.
pub const MISSING_LIMIT: u64 = 4096;
/// Processor control region and other executive objects.
pub const SYSTEM_DATA: Gva = Gva(0xFFFF_F800_0300_0000);
/// Bytes of it.
pub const SYSTEM_DATA_SIZE: u64 = 0x2_0000;
/// Structures that dxgkrnl hands to the driver.
pub const DXGK_DATA: Gva = Gva(0xFFFF_F800_0400_0000);
/// Bytes of it.
pub const DXGK_DATA_SIZE: u64 = 0x1_0000;
/// Where drivers are loaded.
pub const IMAGES: Gva = Gva(0xFFFF_F800_1000_0000);
/// Most bytes of an image.
pub const IMAGE_LIMIT: u64 = 0x1000_0000;
/// Kernel stacks; an unmapped page lies below each.
pub const STACKS: Gva = Gva(0xFFFF_BE00_0000_0000);
/// Bytes from one stack to the next.
pub const STACK_STRIDE: u64 = 0x10_0000;
/// Bytes of a stack: 24 KiB, as Windows gives an x64 kernel thread.
pub const STACK_SIZE: u64 = 0x6000;

/// Top of the stack of thread `index`.
#[must_use]
pub const fn stack_top(index: u32) -> Gva {
    Gva(STACKS.0 + index as u64 * STACK_STRIDE + 0x1000 + STACK_SIZE)
}
