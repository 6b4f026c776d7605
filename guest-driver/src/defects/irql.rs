//! Bugs of a driver that does at a raised IRQL what needs a low one.

use core::ptr;

use super::raw;
use super::{Defect, is_fixed, shows};
use crate::nt::{ExAllocatePoolWithTag, ExFreePoolWithTag, TAG};
use crate::spec::nt::{NON_PAGED_POOL_NX, PAGE_SIZE};
use crate::sync::{SpinGuard, SpinLock};

/// Stands for the lock of a table that another processor may look at.
static TABLE: SpinLock<()> = SpinLock::new(());

/// Takes a lock for what follows if that is the chosen defect; its twin lets
/// it go at once.
#[inline(never)]
pub fn table_lock(defect: Defect) -> Option<SpinGuard<'static, ()>> {
    if is_fixed(defect) {
        drop(TABLE.lock());
    }
    shows(defect).then(|| TABLE.lock())
}

/// What the interrupt routine does of it: at DIRQL.
#[inline(never)]
pub fn interrupt() {
    if shows(Defect::IrqlPool) {
        note_in_pool();
    } else if shows(Defect::IrqlMm) {
        note_in_pages();
    }
}

/// What the DPC does of it: at DISPATCH_LEVEL.
#[inline(never)]
pub fn deferred() {
    if is_fixed(Defect::IrqlPool) {
        note_in_pool();
    } else if is_fixed(Defect::IrqlMm) {
        note_in_pages();
    }
}

/// Notes an interrupt in a block of pool.
#[inline(never)]
fn note_in_pool() {
    // SAFETY: any size; what is null is not freed.
    unsafe {
        let note = ExAllocatePoolWithTag(NON_PAGED_POOL_NX, 64, TAG);
        if !note.is_null() {
            ptr::write_volatile(note.cast::<u32>(), 1);
            ExFreePoolWithTag(note, TAG);
        }
    }
}

/// Notes an interrupt in a page of its own.
#[inline(never)]
fn note_in_pages() {
    let mdl = raw::allocate_pages(0, u64::MAX, PAGE_SIZE);
    if !mdl.is_null() {
        raw::free_pages(mdl);
        raw::free_pool(mdl.cast());
    }
}
