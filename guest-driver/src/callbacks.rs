//! dxgkrnl's callbacks, as this driver uses them. Each status is checked
//! here and nowhere else.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};
use core::ptr;

use crate::nt::{Result, check};
use crate::spec::dxgk::{
    AllocateContiguousMemory, AllocatePagesForMdl, CACHED, DeviceInfo, FreeMemory, Interface,
    MapFramebuffer, PinFramebuffer, UnmapFramebuffer, UnpinFramebuffer, WHICHSPACE_CONFIG,
};
use crate::spec::nt::{
    Handle, MM_NON_CACHED, Mdl, STATUS_DEVICE_CONFIGURATION_ERROR, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_NOT_SUPPORTED,
};
use crate::telling::Telling;

/// A copy of DXGKRNL_INTERFACE, valid from StartDevice to StopDevice.
#[derive(Clone, Copy)]
pub struct Callbacks {
    interface: Interface,
    /// Who is told whose memory is whose, if anybody is.
    pub telling: Option<Telling>,
}

// SAFETY: the handle and the functions in it may be used from any thread.
unsafe impl Send for Callbacks {}

impl Callbacks {
    /// Copies what `source` has of the interface that this driver knows.
    ///
    /// # Safety
    /// `source` must point to a DXGKRNL_INTERFACE of `source.size` bytes.
    pub unsafe fn copy(source: *const Interface) -> Result<Self> {
        let mut interface = Interface::empty();
        // SAFETY: `size` is the first field of every version.
        let size = unsafe { ptr::addr_of!((*source).size).read() } as usize;
        // SAFETY: at most as many bytes as either side has.
        unsafe {
            ptr::copy_nonoverlapping(
                source.cast::<u8>(),
                ptr::from_mut(&mut interface).cast(),
                size.min(size_of::<Interface>()),
            );
        }
        // Without the WDDM 2.4 callbacks there is no isolation to keep to,
        // and this driver has no other way to memory.
        if interface.allocate_contiguous_memory.is_none()
            || interface.free_contiguous_memory.is_none()
            || interface.allocate_pages_for_mdl.is_none()
            || interface.free_pages_from_mdl.is_none()
        {
            return Err(STATUS_NOT_SUPPORTED);
        }
        Ok(Self {
            interface,
            telling: None,
        })
    }

    /// The interface, for what only a planted bug calls.
    #[cfg(feature = "defects")]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Device handle and DxgkCbQueueDpc, for the interrupt routine.
    pub fn queue_dpc(&self) -> (Handle, Option<crate::spec::dxgk::QueueDpc>) {
        (self.interface.device_handle, self.interface.queue_dpc)
    }

    /// DxgkCbGetDeviceInformation.
    pub fn device_information(&self) -> Result<DeviceInfo> {
        let call = self
            .interface
            .get_device_information
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut information = MaybeUninit::<DeviceInfo>::zeroed();
        // SAFETY: a structure of the size the callback fills.
        check(unsafe { call(self.interface.device_handle, information.as_mut_ptr()) })?;
        // SAFETY: zero is a value of every field, and the call succeeded.
        Ok(unsafe { information.assume_init() })
    }

    /// Reads configuration space; fails unless every byte was read.
    pub fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        let call = self
            .interface
            .read_device_space
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut read = 0;
        // SAFETY: the buffer is as long as it says.
        check(unsafe {
            call(
                self.interface.device_handle,
                WHICHSPACE_CONFIG,
                bytes.as_mut_ptr().cast(),
                offset,
                bytes.len() as u32,
                &raw mut read,
            )
        })?;
        if read as usize == bytes.len() {
            Ok(())
        } else {
            Err(STATUS_DEVICE_CONFIGURATION_ERROR)
        }
    }

    /// Writes configuration space; fails unless every byte was written.
    pub fn write_config(&self, offset: u32, bytes: &[u8]) -> Result<()> {
        let call = self
            .interface
            .write_device_space
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut written = 0;
        // SAFETY: the callback only reads the buffer.
        check(unsafe {
            call(
                self.interface.device_handle,
                WHICHSPACE_CONFIG,
                bytes.as_ptr().cast_mut().cast(),
                offset,
                bytes.len() as u32,
                &raw mut written,
            )
        })?;
        if written as usize == bytes.len() {
            Ok(())
        } else {
            Err(STATUS_DEVICE_CONFIGURATION_ERROR)
        }
    }

    /// Maps device registers, uncached, into kernel space.
    #[inline(never)]
    pub fn map_registers(&self, address: u64, bytes: u32) -> Result<*mut u8> {
        let call = self.interface.map_memory.ok_or(STATUS_NOT_SUPPORTED)?;
        let mut mapped: *mut c_void = ptr::null_mut();
        // SAFETY: memory space, kernel mode, and a place for the answer.
        check(unsafe {
            call(
                self.interface.device_handle,
                address,
                bytes,
                0,
                0,
                MM_NON_CACHED,
                &raw mut mapped,
            )
        })?;
        if mapped.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        Ok(mapped.cast())
    }

    /// Undoes [`map_registers`](Self::map_registers).
    pub fn unmap_registers(&self, mapped: *mut u8) {
        if let Some(call) = self.interface.unmap_memory {
            // SAFETY: `mapped` came from DxgkCbMapMemory, once.
            let _ = unsafe { call(self.interface.device_handle, mapped.cast()) };
        }
    }

    /// Physically contiguous memory that the device reaches, its contents
    /// undefined: handle and address.
    #[inline(never)]
    pub fn allocate_contiguous(&self, bytes: usize) -> Result<(Handle, *mut u8)> {
        let call = self
            .interface
            .allocate_contiguous_memory
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = AllocateContiguousMemory {
            number_of_bytes: bytes,
            lowest_address: 0,
            highest_address: u64::MAX,
            boundary: 0,
            cache_type: CACHED,
            handle: ptr::null_mut(),
            memory: ptr::null_mut(),
        };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })?;
        if argument.memory.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        Ok((argument.handle, argument.memory.cast()))
    }

    /// Undoes [`allocate_contiguous`](Self::allocate_contiguous). The device
    /// must be done with the memory.
    #[inline(never)]
    pub fn free_contiguous(&self, handle: Handle) -> Result<()> {
        let call = self
            .interface
            .free_contiguous_memory
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = FreeMemory { handle };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })
    }

    /// Zeroed pages that the device reaches: handle and MDL. dxgkrnl asks
    /// for the whole size or fails; it owns the MDL.
    #[inline(never)]
    pub fn allocate_pages(&self, bytes: usize) -> Result<(Handle, *mut Mdl)> {
        let call = self
            .interface
            .allocate_pages_for_mdl
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = AllocatePagesForMdl {
            low_address: 0,
            high_address: u64::MAX,
            skip_bytes: 0,
            total_bytes: bytes,
            cache_type: CACHED,
            flags: 0,
            handle: ptr::null_mut(),
            mdl: ptr::null_mut(),
        };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })?;
        if argument.mdl.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        Ok((argument.handle, argument.mdl))
    }

    /// Undoes [`allocate_pages`](Self::allocate_pages). The device must be
    /// done with the pages; the MDL is dead afterwards.
    #[inline(never)]
    pub fn free_pages(&self, handle: Handle) -> Result<()> {
        let call = self
            .interface
            .free_pages_from_mdl
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = FreeMemory { handle };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })
    }

    /// Pins `bytes` of the frame buffer's save area: an MDL of pages that
    /// the device reaches until [`unpin_framebuffer`](Self::unpin_framebuffer).
    #[inline(never)]
    pub fn pin_framebuffer(&self, bytes: usize) -> Result<*mut Mdl> {
        let call = self.interface.pin_framebuffer.ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = PinFramebuffer {
            adapter: 0,
            commit_size: bytes,
            mdl: ptr::null_mut(),
        };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })?;
        if argument.mdl.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        Ok(argument.mdl)
    }

    /// Undoes [`pin_framebuffer`](Self::pin_framebuffer); the contents stay.
    #[inline(never)]
    pub fn unpin_framebuffer(&self) -> Result<()> {
        let call = self
            .interface
            .unpin_framebuffer
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = UnpinFramebuffer { adapter: 0 };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })
    }

    /// Maps `size` bytes at `offset` of the save area, both whole pages, for
    /// the CPU: the mapping, and the address of that offset in it.
    #[inline(never)]
    pub fn map_framebuffer(&self, offset: usize, size: usize) -> Result<(*mut c_void, *mut u8)> {
        let call = self.interface.map_framebuffer.ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = MapFramebuffer {
            adapter: 0,
            size,
            offset,
            base: ptr::null_mut(),
        };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })?;
        if argument.base.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        let start = argument.base.cast::<u8>().wrapping_add(argument.offset);
        Ok((argument.base, start))
    }

    /// Undoes [`map_framebuffer`](Self::map_framebuffer).
    #[inline(never)]
    pub fn unmap_framebuffer(&self, base: *mut c_void) -> Result<()> {
        let call = self
            .interface
            .unmap_framebuffer
            .ok_or(STATUS_NOT_SUPPORTED)?;
        let mut argument = UnmapFramebuffer { adapter: 0, base };
        // SAFETY: the argument structure of this callback.
        check(unsafe { call(self.interface.device_handle, &raw mut argument) })
    }
}
