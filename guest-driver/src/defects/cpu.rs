//! Bugs that the processor shows: memory used after it went back.

use super::{Defect, is_fixed, shows};

/// Overwrites the start of a block, a word at a time.
#[inline(never)]
pub(crate) fn wipe(address: *mut u8, bytes: usize) {
    for offset in (0..bytes / 8 * 8).step_by(8) {
        // SAFETY: the caller's memory, or a planted bug.
        unsafe { address.add(offset).cast::<u64>().write_volatile(0) }
    }
}

/// Before the adapter's block is freed.
pub(crate) fn freeing(block: *mut u8, bytes: usize) {
    if is_fixed(Defect::CpuFreedPool) {
        wipe(block, bytes);
    }
}

/// After the adapter's block was freed.
pub(crate) fn freed(block: *mut u8, bytes: usize) {
    if shows(Defect::CpuFreedPool) {
        wipe_freed(block, bytes);
    }
}

/// The planted bug: the block is not ours any more.
#[inline(never)]
fn wipe_freed(block: *mut u8, bytes: usize) {
    wipe(block, bytes);
}
