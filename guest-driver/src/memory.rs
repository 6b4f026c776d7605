//! The two kinds of memory the device reaches: contiguous blocks (rings,
//! commands) and page lists (backing). Neither frees itself when dropped:
//! when it may go back is the device's word, not the scope's end.

use core::ptr;

use crate::callbacks::Callbacks;
use crate::mutations::undo;
use crate::nt::{
    MmMapLockedPagesSpecifyCache, MmUnmapLockedPages, Result, device_address, whole_pages,
};
use crate::spec::gpu::MemEntry;
use crate::spec::nt::{
    Handle, KERNEL_MODE, MDL_MAPPING_NO_EXECUTE, MM_CACHED, Mdl, NORMAL_PAGE_PRIORITY, PAGE_SIZE,
    STATUS_INSUFFICIENT_RESOURCES,
};

/// The two kinds, where it is told whose memory is whose.
const TAG_CONTIGUOUS: u32 = u32::from_le_bytes(*b"cont");
const TAG_PAGES: u32 = u32::from_le_bytes(*b"page");

/// Frees memory that is called `cookie`, and tells so before and after.
#[inline(always)]
fn told(callbacks: &Callbacks, cookie: u64, free: impl FnOnce() -> Result<()>) -> Result<()> {
    if let Some(telling) = callbacks.telling {
        telling.retired(cookie);
    }
    free()?;
    if let Some(telling) = callbacks.telling {
        telling.freed(cookie);
    }
    Ok(())
}

/// A contiguous block from DxgkCbAllocateContiguousMemory.
#[derive(Clone, Copy)]
pub struct Contiguous {
    handle: Handle,
    /// Kernel address, page-aligned.
    pub base: *mut u8,
    /// The device's address of it.
    pub device_address: u64,
    /// Bytes, whole pages.
    pub bytes: usize,
}

impl Contiguous {
    /// Allocates and zeroes at least `bytes`.
    #[inline(never)]
    pub fn allocate(callbacks: &Callbacks, bytes: usize) -> Result<Self> {
        let bytes = whole_pages(bytes);
        #[cfg(feature = "defects")]
        let _held = crate::defects::irql::table_lock(crate::defects::Defect::IrqlContiguous);
        #[cfg(feature = "defects")]
        let allocated = crate::defects::buffers::allocate(callbacks, bytes)
            .unwrap_or_else(|| callbacks.allocate_contiguous(bytes));
        #[cfg(not(feature = "defects"))]
        let allocated = callbacks.allocate_contiguous(bytes);
        let (handle, base) = allocated?;
        let block = Self {
            handle,
            base,
            device_address: device_address(base),
            bytes,
        };
        // Its contents are undefined, and the device must not see what was
        // there before.
        block.clear();
        if let Some(telling) = callbacks.telling {
            let entry = MemEntry::from(&block);
            telling.allocated(base as u64, TAG_CONTIGUOUS, core::iter::once(entry));
        }
        Ok(block)
    }

    /// Zeroes it; nobody else may be using it.
    pub fn clear(&self) {
        // SAFETY: memory of that size, ours until `release`.
        unsafe { ptr::write_bytes(self.base, 0, self.bytes) }
    }

    /// Gives it back; the device must be done with it.
    #[inline(never)]
    pub fn release(self, callbacks: &Callbacks) -> Result<()> {
        #[cfg(feature = "defects")]
        if crate::defects::buffers::release(callbacks, self.handle, self.bytes) {
            return Ok(());
        }
        told(callbacks, self.base as u64, || {
            callbacks.free_contiguous(self.handle)
        })
    }
}

/// A page list from DxgkCbAllocatePagesForMdl.
#[derive(Clone, Copy)]
pub struct Pages {
    handle: Handle,
    mdl: *mut Mdl,
}

impl Pages {
    /// Allocates `bytes`, whole pages.
    #[inline(never)]
    pub fn allocate(callbacks: &Callbacks, bytes: usize) -> Result<Self> {
        #[cfg(feature = "defects")]
        if let Some(own) = crate::defects::pages::allocate(callbacks, bytes) {
            return own.map(|(handle, mdl)| Self { handle, mdl });
        }
        #[cfg(feature = "defects")]
        let _held = crate::defects::irql::table_lock(crate::defects::Defect::IrqlAllocate);
        let (handle, mdl) = callbacks.allocate_pages(bytes)?;
        let pages = Self { handle, mdl };
        // SAFETY: dxgkrnl returned a live MDL.
        let (count, offset) = unsafe { ((*mdl).byte_count, (*mdl).byte_offset) };
        // dxgkrnl never allocates part of what was asked for, but a short
        // list would put the device where it must not be.
        if count as usize != bytes || offset != 0 {
            let _ = undo!("short-list-free", pages.release(callbacks));
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        if let Some(telling) = callbacks.telling {
            telling.allocated(mdl as u64, TAG_PAGES, pages.entries());
        }
        Ok(pages)
    }

    /// The pinned pages of the frame buffer's save area, at least `bytes` of
    /// them; they are unpinned, never released.
    #[inline(never)]
    pub fn pinned(callbacks: &Callbacks, bytes: usize) -> Result<Self> {
        let mdl = callbacks.pin_framebuffer(bytes)?;
        let pages = Self {
            handle: ptr::null_mut(),
            mdl,
        };
        // SAFETY: dxgkrnl returned a live MDL.
        let (count, offset) = unsafe { ((*mdl).byte_count, (*mdl).byte_offset) };
        if (count as usize) < bytes || offset != 0 {
            let _ = undo!("short-pin-unpin", callbacks.unpin_framebuffer());
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        Ok(pages)
    }

    /// Pages in the list, from the byte count: `Mdl::size` wraps.
    pub fn count(&self) -> usize {
        #[cfg(feature = "defects")]
        if let Some(count) = crate::defects::pages::believed() {
            return count;
        }
        // SAFETY: live until `release`.
        let (bytes, offset) = unsafe { ((*self.mdl).byte_count, (*self.mdl).byte_offset) };
        (bytes as usize + offset as usize).div_ceil(PAGE_SIZE)
    }

    /// Page frame number of page `index`, which must be below `count`.
    fn frame(&self, index: usize) -> u64 {
        // SAFETY: the PFN array follows the header and has `count` entries.
        unsafe { self.mdl.add(1).cast::<u64>().add(index).read() }
    }

    /// The list as device addresses, neighbours merged (the domain is 1:1:
    /// the frame's number is the device's page number).
    pub fn entries(&self) -> Entries<'_> {
        Entries {
            pages: self,
            next: 0,
            count: self.count(),
        }
    }

    /// Maps the pages into kernel space.
    #[inline(never)]
    pub fn map(&self) -> Result<*mut u8> {
        #[cfg(feature = "defects")]
        if let Some(address) = crate::defects::pages::address(self.mdl) {
            return Ok(address);
        }
        // SAFETY: the MDL's pages are locked; one mapping at a time is made.
        let address = unsafe {
            MmMapLockedPagesSpecifyCache(
                self.mdl,
                KERNEL_MODE,
                MM_CACHED,
                ptr::null_mut(),
                0,
                NORMAL_PAGE_PRIORITY | MDL_MAPPING_NO_EXECUTE,
            )
        };
        if address.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        Ok(address.cast())
    }

    /// Undoes [`map`](Self::map).
    #[inline(never)]
    pub fn unmap(&self, address: *mut u8) {
        #[cfg(feature = "defects")]
        if crate::defects::pages::unmap(address, self.mdl) {
            return;
        }
        // SAFETY: `address` came from `map` and is unmapped once.
        unsafe { MmUnmapLockedPages(address.cast(), self.mdl) }
    }

    /// Gives the pages back; unmapped, and the device done with them.
    #[inline(never)]
    pub fn release(self, callbacks: &Callbacks) -> Result<()> {
        #[cfg(feature = "defects")]
        if let Some(result) = crate::defects::pages::release(callbacks, self.handle, self.mdl) {
            return result;
        }
        #[cfg(feature = "defects")]
        let _held = crate::defects::irql::table_lock(crate::defects::Defect::IrqlFree);
        told(callbacks, self.mdl as u64, || {
            callbacks.free_pages(self.handle)
        })
    }
}

/// A contiguous block as the one entry of a backing.
impl From<&Contiguous> for MemEntry {
    fn from(block: &Contiguous) -> Self {
        Self {
            address: block.device_address,
            length: block.bytes as u32,
            padding: 0,
        }
    }
}

/// Runs of contiguous pages of a [`Pages`].
pub struct Entries<'a> {
    pages: &'a Pages,
    next: usize,
    count: usize,
}

impl Iterator for Entries<'_> {
    type Item = MemEntry;

    fn next(&mut self) -> Option<MemEntry> {
        if self.next >= self.count {
            return None;
        }
        let first = self.pages.frame(self.next);
        let mut run = 1;
        while self.next + run < self.count
            && self.pages.frame(self.next + run) == first + run as u64
        {
            run += 1;
        }
        self.next += run;
        Some(MemEntry {
            address: first * PAGE_SIZE as u64,
            // A resource is at most 64 MiB.
            length: (run * PAGE_SIZE) as u32,
            padding: 0,
        })
    }
}
