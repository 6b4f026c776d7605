//! Bugs of a driver that brings its command buffer itself.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::raw;
use super::{Defect, is_chosen, is_fixed};
use crate::callbacks::Callbacks;
use crate::nt::{Result, whole_pages};
use crate::queue::COMMAND_BYTES;
use crate::spec::nt::{Handle, KERNEL_MODE, Mdl, STATUS_INSUFFICIENT_RESOURCES};

/// The MDL of the command buffer.
static BUFFER: AtomicPtr<Mdl> = AtomicPtr::new(ptr::null_mut());

/// The command buffer, if the chosen defect brings it: the handle of its
/// mapping to the IOMMU, and its address.
pub fn allocate(callbacks: &Callbacks, bytes: usize) -> Option<Result<(Handle, *mut u8)>> {
    let ours = is_chosen(Defect::ReadOnlyMapping) && bytes == whole_pages(COMMAND_BYTES);
    ours.then(|| allocate_locked(callbacks, bytes))
}

#[inline(never)]
fn allocate_locked(callbacks: &Callbacks, bytes: usize) -> Result<(Handle, *mut u8)> {
    let memory = raw::allocate_contiguous(bytes, u64::MAX);
    if memory.is_null() {
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    let mdl = raw::allocate_mdl(memory, bytes as u32, 0, 0, ptr::null_mut());
    if mdl.is_null() {
        raw::free_contiguous(memory);
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    lock_for_device(mdl);
    match raw::map_mdl_to_iommu(callbacks, mdl) {
        Ok(handle) => {
            BUFFER.store(mdl, Ordering::Relaxed);
            Ok((handle, memory.cast()))
        }
        Err(status) => {
            raw::unlock_pages(mdl);
            raw::free_mdl(mdl);
            raw::free_contiguous(memory);
            Err(status)
        }
    }
}

/// The planted bug: the device reads commands there, and writes its answers
/// after them.
#[inline(never)]
fn lock_for_device(mdl: *mut Mdl) {
    let operation = if is_fixed(Defect::ReadOnlyMapping) {
        raw::IO_MODIFY_ACCESS
    } else {
        raw::IO_READ_ACCESS
    };
    raw::lock_pages(mdl, KERNEL_MODE, operation);
}

/// Gives back what [`allocate`] gave; false if it was not that.
#[inline(never)]
pub fn release(callbacks: &Callbacks, handle: Handle, bytes: usize) -> bool {
    if !is_chosen(Defect::ReadOnlyMapping) || bytes != whole_pages(COMMAND_BYTES) {
        return false;
    }
    let mdl = BUFFER.swap(ptr::null_mut(), Ordering::Relaxed);
    if mdl.is_null() {
        return false;
    }
    raw::unmap_mdl_from_iommu(callbacks, handle);
    // SAFETY: a live MDL.
    let memory = unsafe { (*mdl).start_va };
    raw::unlock_pages(mdl);
    raw::free_mdl(mdl);
    raw::free_contiguous(memory);
    true
}
