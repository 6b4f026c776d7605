//! Bugs of a driver that brings the pages of its pictures itself, by MDLs
//! of its own, instead of asking dxgkrnl for them.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::irql;
use super::raw;
use super::{Defect, is_chosen, is_fixed, shows};
use crate::callbacks::Callbacks;
use crate::nt::{
    ExAllocatePoolWithTag, ExFreePoolWithTag, MmMapLockedPagesSpecifyCache, MmUnmapLockedPages,
    Result, TAG, device_address,
};
use crate::spec::nt::{
    Handle, MDL_MAPPING_NO_EXECUTE, MM_CACHED, Mdl, NON_PAGED_POOL_NX, NORMAL_PAGE_PRIORITY,
    PAGE_SIZE, STATUS_INSUFFICIENT_RESOURCES,
};

/// KPROCESSOR_MODE UserMode.
const USER_MODE: u8 = 1;
/// The window of `partial-as-whole`: 128 KiB, from 16 MiB on.
const WINDOW: (u64, u64) = (0x0100_0000, 0x0101_ffff);

/// The user mapping of `free-user-mapped`.
static USER_MAPPING: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// Pages asked for last, and bytes that came.
static ASKED: AtomicUsize = AtomicUsize::new(0);
static GOT: AtomicUsize = AtomicUsize::new(0);

/// The pages of a picture, if the chosen defect brings them: the handle of
/// their mapping to the IOMMU, and their MDL.
pub(crate) fn allocate(callbacks: &Callbacks, bytes: usize) -> Option<Result<(Handle, *mut Mdl)>> {
    if is_chosen(Defect::PhysicalAddress) {
        return Some(allocate_from_pool(callbacks, bytes));
    }
    if is_chosen(Defect::PartialAsWhole) {
        return Some(allocate_in_window(callbacks, bytes));
    }
    let own = [
        Defect::FreeCopiedPfns,
        Defect::MdlDiesMapped,
        Defect::NoExFreePool,
        Defect::ExFreePoolFirst,
        Defect::FreeUserMapped,
        Defect::IrqlMap,
    ];
    own.into_iter()
        .any(is_chosen)
        .then(|| allocate_own(callbacks, bytes))
}

#[inline(never)]
fn allocate_own(callbacks: &Callbacks, bytes: usize) -> Result<(Handle, *mut Mdl)> {
    let mdl = whole((0, u64::MAX), bytes)?;
    let handle = map_to_device(callbacks, mdl)?;
    if is_chosen(Defect::FreeUserMapped) {
        map_to_user(mdl);
    }
    Ok((handle, mdl))
}

/// All pages that are asked for, between two addresses, or none.
fn whole(window: (u64, u64), bytes: usize) -> Result<*mut Mdl> {
    let mdl = raw::allocate_pages(window.0, window.1, bytes);
    if mdl.is_null() {
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    // SAFETY: a live MDL.
    if unsafe { (*mdl).byte_count } as usize != bytes {
        raw::free_pages(mdl);
        raw::free_pool(mdl.cast());
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    Ok(mdl)
}

#[inline(never)]
fn map_to_device(callbacks: &Callbacks, mdl: *mut Mdl) -> Result<Handle> {
    let _held = irql::table_lock(Defect::IrqlMap);
    raw::map_mdl_to_iommu(callbacks, mdl).inspect_err(|_| {
        raw::free_pages(mdl);
        raw::free_pool(mdl.cast());
    })
}

/// Lets the program that owns the picture draw into it.
#[inline(never)]
fn map_to_user(mdl: *mut Mdl) {
    // SAFETY: the MDL's pages are locked; below DISPATCH_LEVEL, in the
    // context of the program.
    let address = unsafe {
        MmMapLockedPagesSpecifyCache(
            mdl,
            USER_MODE,
            MM_CACHED,
            ptr::null_mut(),
            0,
            NORMAL_PAGE_PRIORITY | MDL_MAPPING_NO_EXECUTE,
        )
    };
    USER_MAPPING.store(address, Ordering::Relaxed);
}

/// A device that reaches little memory: the pages come from a window, and
/// the window has fewer than a picture needs.
#[inline(never)]
fn allocate_in_window(callbacks: &Callbacks, bytes: usize) -> Result<(Handle, *mut Mdl)> {
    let mdl = if is_fixed(Defect::PartialAsWhole) {
        whole(WINDOW, bytes).or_else(|_| whole((0, u64::MAX), bytes))?
    } else {
        raw::allocate_pages(WINDOW.0, WINDOW.1, bytes)
    };
    if mdl.is_null() {
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    ASKED.store(bytes.div_ceil(PAGE_SIZE), Ordering::Relaxed);
    // SAFETY: a live MDL.
    GOT.store(unsafe { (*mdl).byte_count } as usize, Ordering::Relaxed);
    Ok((map_to_device(callbacks, mdl)?, mdl))
}

/// The number of pages that the driver believes to have, if that is not
/// what the MDL says.
pub(crate) fn believed() -> Option<usize> {
    shows(Defect::PartialAsWhole).then(|| ASKED.load(Ordering::Relaxed))
}

/// How many of a picture's pixels are drawn: those that are mapped.
pub(crate) fn drawn(pixels: usize) -> usize {
    if shows(Defect::PartialAsWhole) {
        pixels.min(GOT.load(Ordering::Relaxed) / 4)
    } else {
        pixels
    }
}

/// Pixels in pool, as drivers had them before isolation.
#[inline(never)]
fn allocate_from_pool(callbacks: &Callbacks, bytes: usize) -> Result<(Handle, *mut Mdl)> {
    // SAFETY: any size; null is looked for.
    let pool = unsafe { ExAllocatePoolWithTag(NON_PAGED_POOL_NX, bytes, TAG) };
    if pool.is_null() {
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    let mdl = raw::allocate_mdl(pool, bytes as u32, 0, 0, ptr::null_mut());
    let handle = if mdl.is_null() {
        Err(STATUS_INSUFFICIENT_RESOURCES)
    } else if is_fixed(Defect::PhysicalAddress) {
        raw::build_for_pool(mdl);
        raw::map_mdl_to_iommu(callbacks, mdl)
    } else {
        list_physical_pages(pool.cast(), bytes, mdl);
        Ok(ptr::null_mut())
    };
    handle.map(|handle| (handle, mdl)).inspect_err(|_| {
        if !mdl.is_null() {
            raw::free_mdl(mdl);
        }
        // SAFETY: allocated above.
        unsafe { ExFreePoolWithTag(pool, TAG) }
    })
}

/// The planted bug: physical addresses for the device, where only dxgkrnl's
/// callbacks make memory reachable.
#[inline(never)]
fn list_physical_pages(pool: *mut u8, bytes: usize, mdl: *mut Mdl) {
    for page in 0..bytes.div_ceil(PAGE_SIZE) {
        let address = device_address(pool.wrapping_add(page * PAGE_SIZE));
        // SAFETY: the MDL has a slot for each page of the block.
        unsafe {
            mdl.add(1)
                .cast::<u64>()
                .add(page)
                .write(address / PAGE_SIZE as u64);
        }
    }
}

/// Where a picture in pool is already, which no mapping is made for.
pub(crate) fn address(mdl: *mut Mdl) -> Option<*mut u8> {
    // SAFETY: a live MDL; pool of a page or more begins with a page.
    is_chosen(Defect::PhysicalAddress).then(|| unsafe { (*mdl).start_va.cast() })
}

/// Unmaps a picture; true if that is all.
pub(crate) fn unmap(address: *mut u8, mdl: *mut Mdl) -> bool {
    if is_chosen(Defect::PhysicalAddress) {
        return true;
    }
    if is_fixed(Defect::CpuUnmappedAddress) {
        super::cpu::wipe(address, PAGE_SIZE);
    }
    if shows(Defect::CpuUnmappedAddress) {
        unmap_and_wipe(address, mdl);
        return true;
    }
    false
}

/// The planted bug: the picture of one program must not reach the next, but
/// its address is gone.
#[inline(never)]
fn unmap_and_wipe(address: *mut u8, mdl: *mut Mdl) {
    // SAFETY: mapped, and unmapped once.
    unsafe { MmUnmapLockedPages(address.cast(), mdl) }
    super::cpu::wipe(address, PAGE_SIZE);
}

/// Gives back what [`allocate`] gave, or in its planted way what dxgkrnl
/// gave.
pub(crate) fn release(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) -> Option<Result<()>> {
    if is_chosen(Defect::PhysicalAddress) {
        release_pool(callbacks, handle, mdl);
    } else if shows(Defect::FreeForeignMdl) {
        free_foreign_mdl(mdl);
    } else if shows(Defect::FreeCopiedPfns) {
        free_copied_pfns(callbacks, handle, mdl);
    } else if shows(Defect::MdlDiesMapped) {
        mdl_dies_mapped(callbacks, handle, mdl);
    } else if shows(Defect::NoExFreePool) {
        no_ex_free_pool(callbacks, handle, mdl);
    } else if shows(Defect::ExFreePoolFirst) {
        ex_free_pool_first(callbacks, handle, mdl);
    } else if shows(Defect::FreeUserMapped) {
        free_user_mapped(callbacks, handle, mdl);
    } else if [
        Defect::FreeCopiedPfns,
        Defect::MdlDiesMapped,
        Defect::NoExFreePool,
        Defect::ExFreePoolFirst,
        Defect::FreeUserMapped,
        Defect::PartialAsWhole,
        Defect::IrqlMap,
    ]
    .into_iter()
    .any(is_chosen)
    {
        release_own(callbacks, handle, mdl);
    } else {
        return None;
    }
    Some(Ok(()))
}

/// As it should be: from the device, from the program, the pages, the MDL.
#[inline(never)]
fn release_own(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) {
    raw::unmap_mdl_from_iommu(callbacks, handle);
    let user = USER_MAPPING.swap(ptr::null_mut(), Ordering::Relaxed);
    if !user.is_null() {
        // SAFETY: mapped by `map_to_user`, in this process.
        unsafe { MmUnmapLockedPages(user, mdl) }
    }
    raw::free_pages(mdl);
    raw::free_pool(mdl.cast());
}

#[inline(never)]
fn release_pool(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) {
    if !handle.is_null() {
        raw::unmap_mdl_from_iommu(callbacks, handle);
    }
    // SAFETY: a live MDL.
    let pool = unsafe { (*mdl).start_va };
    raw::free_mdl(mdl);
    // SAFETY: allocated by `allocate_from_pool`, freed once.
    unsafe { ExFreePoolWithTag(pool, TAG) }
}

/// The planted bug: two lines left over from MmAllocatePagesForMdl.
#[inline(never)]
fn free_foreign_mdl(mdl: *mut Mdl) {
    raw::free_pages(mdl);
    raw::free_pool(mdl.cast());
}

/// The planted bug: a list of pages is not the allocation.
#[inline(never)]
fn free_copied_pfns(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) {
    raw::unmap_mdl_from_iommu(callbacks, handle);
    // SAFETY: a live MDL, and a copy with as many slots.
    unsafe {
        let bytes = (*mdl).byte_count;
        let copy = raw::allocate_mdl(ptr::null_mut(), bytes, 0, 0, ptr::null_mut());
        if !copy.is_null() {
            (*copy).flags |= (*mdl).flags;
            ptr::copy_nonoverlapping(
                mdl.add(1).cast::<u64>(),
                copy.add(1).cast::<u64>(),
                (bytes as usize).div_ceil(PAGE_SIZE),
            );
            raw::free_pages(copy);
            raw::free_mdl(copy);
        }
    }
    raw::free_pool(mdl.cast());
}

/// The planted bug: the pages are somebody else's before the device lost
/// them.
#[inline(never)]
fn mdl_dies_mapped(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) {
    raw::free_pages(mdl);
    raw::free_pool(mdl.cast());
    raw::unmap_mdl_from_iommu(callbacks, handle);
}

/// The planted bug: MmFreePagesFromMdl does not free the MDL.
#[inline(never)]
fn no_ex_free_pool(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) {
    raw::unmap_mdl_from_iommu(callbacks, handle);
    raw::free_pages(mdl);
}

/// The planted bug: MmFreePagesFromMdl reads what was freed.
#[inline(never)]
fn ex_free_pool_first(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) {
    raw::unmap_mdl_from_iommu(callbacks, handle);
    raw::free_pool(mdl.cast());
    raw::free_pages(mdl);
}

/// The planted bug: the program still has the pages.
#[inline(never)]
fn free_user_mapped(callbacks: &Callbacks, handle: Handle, mdl: *mut Mdl) {
    raw::unmap_mdl_from_iommu(callbacks, handle);
    raw::free_pages(mdl);
    raw::free_pool(mdl.cast());
}
