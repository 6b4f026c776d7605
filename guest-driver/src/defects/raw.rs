//! Kernel routines that only the planted bugs need. They are found at run
//! time: some may not be in the import table of a driver under isolation,
//! and a driver that hides them so has the same bugs.

use core::ffi::c_void;
use core::mem::transmute;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::callbacks::Callbacks;
use crate::nt::{Result, check, log, unicode, wide};
use crate::spec::dxgk::{FreeMemory, Interface, MemoryCallback};
use crate::spec::nt::{Handle, MM_CACHED, Mdl, STATUS_NOT_SUPPORTED, UnicodeString};

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "system" {
    fn MmGetSystemRoutineAddress(name: *const UnicodeString) -> *mut c_void;
}

/// MM_ALLOCATE_* bits: none.
const NO_FLAGS: u32 = 0;
/// LOCK_OPERATION IoReadAccess: the pages are read only.
pub const IO_READ_ACCESS: u32 = 0;
/// LOCK_OPERATION IoModifyAccess: the pages are read and written.
pub const IO_MODIFY_ACCESS: u32 = 2;

/// THREAD_ALL_ACCESS.
pub const THREAD_ALL_ACCESS: u32 = 0x001F_FFFF;
/// KSTART_ROUTINE.
pub type StartRoutine = extern "system" fn(*mut c_void);

/// A routine and its wrapper.
macro_rules! routines {
    ($($(#[$attribute:meta])* $name:ident = $routine:literal
        ($($argument:ident: $kind:ty),*) -> $result:ty;)+) => {
        #[allow(non_upper_case_globals, reason = "named after its wrapper")]
        mod place {
            use super::{AtomicPtr, c_void};
            $(pub static $name: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());)+
        }

        /// Finds all of them; PASSIVE_LEVEL.
        pub fn find() -> Result<()> {
            $(
                let name = unicode(wide!($routine));
                // SAFETY: a counted string.
                let address = unsafe { MmGetSystemRoutineAddress(&raw const name) };
                if address.is_null() {
                    log!("a kernel routine of a planted defect is not there");
                    return Err(STATUS_NOT_SUPPORTED);
                }
                place::$name.store(address, Ordering::Relaxed);
            )+
            Ok(())
        }

        $(
            $(#[$attribute])*
            #[inline(never)]
            pub(crate) fn $name($($argument: $kind),*) -> $result {
                type Routine = unsafe extern "system" fn($($kind),*) -> $result;
                let address = place::$name.load(Ordering::Relaxed);
                // SAFETY: `find` stored the address of a routine of this type.
                let routine = unsafe { transmute::<*mut c_void, Routine>(address) };
                // SAFETY: what is asked for is a planted bug, or its twin.
                unsafe { routine($($argument),*) }
            }
        )+
    };
}

routines! {
    /// `PMDL (Low, High, Skip, Bytes, CacheType, Flags)`.
    allocate_pages_ex = "MmAllocatePagesForMdlEx"(
        low: u64, high: u64, skip: u64, bytes: usize, cache: u32, flags: u32
    ) -> *mut Mdl;
    /// Frees the pages of an MDL, not the MDL.
    free_pages = "MmFreePagesFromMdl"(mdl: *mut Mdl) -> ();
    /// Frees pool; the MDL of [`allocate_pages`] is pool.
    free_pool = "ExFreePool"(memory: *mut c_void) -> ();
    /// `PVOID (Bytes, HighestAcceptableAddress)`.
    allocate_contiguous = "MmAllocateContiguousMemory"(bytes: usize, highest: u64) -> *mut c_void;
    /// Undoes [`allocate_contiguous`].
    free_contiguous = "MmFreeContiguousMemory"(memory: *mut c_void) -> ();
    /// `PMDL (Address, Bytes, Secondary, ChargeQuota, Irp)`.
    allocate_mdl = "IoAllocateMdl"(
        address: *mut c_void, bytes: u32, secondary: u8, charge: u8, irp: *mut c_void
    ) -> *mut Mdl;
    /// Undoes [`allocate_mdl`].
    free_mdl = "IoFreeMdl"(mdl: *mut Mdl) -> ();
    /// Fills in the pages of nonpaged pool.
    build_for_pool = "MmBuildMdlForNonPagedPool"(mdl: *mut Mdl) -> ();
    /// `VOID (Mdl, Mode, Operation)`.
    lock_pages = "MmProbeAndLockPages"(mdl: *mut Mdl, mode: u8, operation: u32) -> ();
    /// Undoes [`lock_pages`].
    unlock_pages = "MmUnlockPages"(mdl: *mut Mdl) -> ();
    /// `NTSTATUS (Handle *, Access, Attributes, Process, ClientId, Start, Context)`.
    create_thread = "PsCreateSystemThread"(
        handle: *mut Handle, access: u32, attributes: *mut c_void, process: Handle,
        client: *mut c_void, start: StartRoutine, context: *mut c_void
    ) -> i32;
    /// `NTSTATUS (Handle, Access, Type, Mode, Object *, Information)`.
    reference_by_handle = "ObReferenceObjectByHandle"(
        handle: Handle, access: u32, kind: *mut c_void, mode: u8,
        object: *mut *mut c_void, information: *mut c_void
    ) -> i32;
}

/// Pages of `low..=high`, perhaps fewer than asked for; null for none.
pub fn allocate_pages(low: u64, high: u64, bytes: usize) -> *mut Mdl {
    allocate_pages_ex(low, high, 0, bytes, MM_CACHED, NO_FLAGS)
}

/// DXGKARGCB_MAPMDLTOIOMMU.
#[repr(C)]
struct MapMdl {
    mdl: *mut Mdl,
    handle: Handle,
}
/// Offset of DxgkCbMapMdlToIoMmu in DXGKRNL_INTERFACE.
const MAP_MDL: usize = 0x1B0;
/// Offset of DxgkCbUnmapMdlFromIoMmu.
const UNMAP_MDL: usize = 0x1B8;

/// The callback in the slot at `offset`.
fn slot<T>(callbacks: &Callbacks, offset: usize) -> Result<MemoryCallback<T>> {
    const { assert!(UNMAP_MDL + 8 <= size_of::<Interface>()) }
    let interface: *const Interface = callbacks.interface();
    // SAFETY: within the interface; a slot is null or the callback.
    let slot: Option<MemoryCallback<T>> = unsafe {
        interface
            .wrapping_byte_add(offset)
            .cast::<Option<_>>()
            .read()
    };
    slot.ok_or(STATUS_NOT_SUPPORTED)
}

/// DxgkCbMapMdlToIoMmu: the mapping's handle.
#[inline(never)]
pub(crate) fn map_mdl_to_iommu(callbacks: &Callbacks, mdl: *mut Mdl) -> Result<Handle> {
    let call = slot::<MapMdl>(callbacks, MAP_MDL)?;
    let mut argument = MapMdl {
        mdl,
        handle: core::ptr::null_mut(),
    };
    // SAFETY: the argument structure of this callback.
    check(unsafe { call(callbacks.interface().device_handle, &raw mut argument) })?;
    Ok(argument.handle)
}

/// DxgkCbUnmapMdlFromIoMmu; it returns nothing.
#[inline(never)]
pub(crate) fn unmap_mdl_from_iommu(callbacks: &Callbacks, handle: Handle) {
    if let Ok(call) = slot::<FreeMemory>(callbacks, UNMAP_MDL) {
        let mut argument = FreeMemory { handle };
        // SAFETY: the argument structure of this callback. What is in RAX
        // after a routine that returns nothing is not looked at.
        let _ = unsafe { call(callbacks.interface().device_handle, &raw mut argument) };
    }
}
