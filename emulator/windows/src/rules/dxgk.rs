//! dxgkrnl's rules.

use super::Irql::AtMost;
use super::Parameter::{Irql, Is, Of};
use super::{Rule, rules};
use crate::mm::spec::APC_LEVEL;
use crate::status;

const REFUSED: u64 = status::INVALID_PARAMETER as u64;
/// The memory callbacks of WDDM 2.4.
pub(super) const CALLBACKS: &[&str] = &[
    "DxgkCbAllocatePagesForMdl",
    "DxgkCbFreePagesFromMdl",
    "DxgkCbAllocateContiguousMemory",
    "DxgkCbFreeContiguousMemory",
    "DxgkCbPinFrameBufferForSave",
    "DxgkCbUnpinFrameBufferForSave",
    "DxgkCbMapFrameBufferPointer",
    "DxgkCbUnmapFrameBufferPointer",
    "DxgkCbMapMdlToIoMmu",
    "DxgkCbUnmapMdlFromIoMmu",
];
const MAP: &[&str] = &["DxgkCbMapMdlToIoMmu"];
const UNMAP: &[&str] = &["DxgkCbUnmapMdlFromIoMmu"];
const SAVES: &[&str] = &[
    "DxgkCbPinFrameBufferForSave",
    "DxgkCbUnpinFrameBufferForSave",
    "DxgkCbMapFrameBufferPointer",
    "DxgkCbUnmapFrameBufferPointer",
];
const SAVE_BEGINS: &[&str] = &["DxgkCbPinFrameBufferForSave", "DxgkCbMapFrameBufferPointer"];
const QUERY: &[&str] = &["DxgkDdiQueryAdapterInfo"];
const ALLOCATES: &[&str] = &[
    "DxgkCbAllocatePagesForMdl",
    "DxgkCbAllocateContiguousMemory",
];
const EXCLUSIVE: &[&str] = &["DxgkDdiBeginExclusiveAccess", "DxgkDdiEndExclusiveAccess"];
const FREES: &[&str] = &["DxgkCbFreePagesFromMdl", "DxgkCbFreeContiguousMemory"];

rules! {
    CALLBACK_IRQL "memory-callback-irql" = Rule::at(
        CALLBACKS,
        AtMost(APC_LEVEL),
        "The memory callbacks are called at APC_LEVEL or below",
    )
    .stops(0x0A, [Is(0), Irql, Is(0), Is(0)])
    .ours("Windows stops from WDDM 3.2 on, by a code that is not documented; see \
           callback-irql-pages");
    ADAPTER "adapter-handle" = Rule::new(
        &[
            "DxgkCbAllocatePagesForMdl",
            "DxgkCbAllocateContiguousMemory",
            "DxgkCbMapMdlToIoMmu",
            "DxgkCbPinFrameBufferForSave",
            "DxgkCbUnpinFrameBufferForSave",
            "DxgkCbMapFrameBufferPointer",
            "DxgkCbUnmapFrameBufferPointer",
        ],
        "hAdapter is the handle that StartDevice got",
    )
    .returns(REFUSED)
    .ours("what another handle gives is not documented");
    ALLOCATION_SIZE "callback-size" = Rule::new(
        ALLOCATES,
        "One allocation is 1 byte to 4 GiB less a page",
    )
    .returns(REFUSED)
    .inferred("DXGKCB_ALLOCATEPAGESFORMDL's page; the status is inferred");
    BOUNDARY "callback-boundary" = Rule::new(
        &["DxgkCbAllocateContiguousMemory"],
        "BoundaryAddressMultiple is 0 or a power of two, and no less than a page",
    )
    .returns(REFUSED)
    .inferred("MmAllocateContiguousMemorySpecifyCache's page");
    WHOLE "callback-no-partial" = Rule::new(
        ALLOCATES,
        "An allocation is whole or fails: dxgkrnl requires every page",
    )
    .returns(status::NO_MEMORY as u64)
    .documented("DXGKCB_ALLOCATEPAGESFORMDL's page: MM_ALLOCATE_FULLY_REQUIRED; the status is ours");
    HANDLE "memory-handle" = Rule::new(
        FREES,
        "hMemoryHandle is one that the matching callback gave for this adapter",
    )
    .finding("foreign-mdl")
    .returns(status::INVALID_HANDLE as u64)
    .ours("not documented: a status is what these routines have to tell it with");
    HANDLE_ADAPTER "memory-handle-adapter" = Rule::new(
        FREES,
        "A memory handle goes back through the adapter that it was got for",
    )
    .finding("foreign-mdl")
    .returns(status::INVALID_HANDLE as u64)
    .ours("not documented: the handle is refused, and stays good");
    HANDLE_TWICE "memory-handle-twice" = Rule::new(
        FREES,
        "hMemoryHandle is given back once",
    )
    .finding("double-free")
    .returns(status::INVALID_HANDLE as u64)
    .ours("not documented: see memory-handle; handles are not used anew, so that it shows");
    FREED_LOCKED "handle-freed-while-locked" = Rule::new(
        &[
            "DxgkCbFreePagesFromMdl",
            "DxgkCbFreeContiguousMemory",
            "DxgkCbUnpinFrameBufferForSave",
        ],
        "What dxgkrnl gave is not given back while a page of it is locked for I/O",
    )
    .finding("mdl-use-after-free")
    .stops(0x4E, [Is(0x9A), Of("the page"), Is(0), Of("how often it is locked")])
    .inferred("bug check 0x4E, 0x9A; that dxgkrnl hands the pages to Mm as they are is inferred");
    MDL_POPULATED "mdl-populated" = Rule::new(
        MAP,
        "The MDL is populated with pages of RAM that are locked, nonpaged pool, or \
         MmAllocatePagesForMdl's",
    )
    .returns(REFUSED)
    .inferred("DXGKCB_MAPMDLTOIOMMU's page: populated with valid pages; the status is ours");
    MDL_PAGES "mdl-pages-owned" = Rule::new(
        MAP,
        "The pages of the MDL belong to somebody when they are mapped",
    )
    .finding("mdl-use-after-free")
    .returns(REFUSED)
    .inferred("DXGKCB_MAPMDLTOIOMMU's page: populated with valid pages; the status is ours");
    MDL_ACCESS "mdl-access" = Rule::new(
        MAP,
        "An MDL that MmProbeAndLockPages locked for IoReadAccess is mapped for the device to \
         read only",
    )
    .ours("not documented: such a lock promises that the device does not write, and Windows may \
           share the page");
    MDL_TABLES "mdl-tables" = Rule::new(
        MAP,
        "Without memory for the domain's tables nothing is mapped",
    )
    .returns(status::INSUFFICIENT_RESOURCES as u64)
    .ours("the status is not documented");
    UNMAP_HANDLE "unmap-handle" = Rule::new(
        UNMAP,
        "hMemoryHandle is one that DxgkCbMapMdlToIoMmu gave for this adapter, and live",
    )
    .finding("foreign-mdl")
    .ours("the routine returns nothing: it does nothing");
    UNMAP_TWICE "unmap-handle-twice" = Rule::new(
        UNMAP,
        "An MDL is unmapped once",
    )
    .finding("double-free")
    .ours("the routine returns nothing: it does nothing");
    LEAK "handle-at-stop" = Rule::new(
        &["DxgkDdiStopDevice"],
        "When DxgkDdiStopDevice returns, every handle, mapping and pinned page is given back",
    )
    .finding("handle-leak")
    .ours("the isolation article asks that there be no leaks and not what comes of one: dxgkrnl \
           takes back what is left");
    HLK_IMPORT "hlk-imports" = Rule::new(
        &[],
        "A driver that reports IoMmuSecureModeSupported does not import Mm's routines for pages, \
         contiguous memory and locking",
    )
    .finding("import-forbidden")
    .documented("the isolation article: the HLK scans the import table");
    SAVE_ADAPTER "save-adapter" = Rule::new(
        SAVES,
        "PhysicalAdapterIndex is that of an adapter that reported memory to save",
    )
    .returns(REFUSED)
    .inferred("the isolation article: one section for each adapter with a size; the status is \
               ours");
    SAVE_SIZE "save-size" = Rule::new(
        SAVE_BEGINS,
        "CommitSize, Size and Offset are multiples of a page, not empty, and within MaximumSize",
    )
    .returns(REFUSED)
    .inferred("the callbacks' pages; the status is ours");
    SAVE_IN_USE "save-in-use" = Rule::new(
        SAVE_BEGINS,
        "The save area is pinned, or mapped, once at a time",
    )
    .returns(status::SHARING_VIOLATION as u64)
    .ours("the release names no handle, so that two would not be told apart");
    SAVE_PIN "save-pin" = Rule::new(
        &["DxgkCbPinFrameBufferForSave"],
        "Pinning the whole save area may fail: the driver then maps it piece by piece",
    )
    .returns(status::NO_MEMORY as u64)
    .documented("the isolation article; the status is ours");
    SAVE_MAP "save-map" = Rule::new(
        &["DxgkCbMapFrameBufferPointer"],
        "Mapping a piece of the save area may fail: the driver then tries a smaller one",
    )
    .returns(status::NO_MEMORY as u64)
    .documented("the isolation article; the status is ours");
    SAVE_NO_PAGE "save-no-page" = Rule::new(
        &["DxgkCbMapFrameBufferPointer"],
        "Not even one page of the save area could be mapped",
    )
    // VIDEO_MEMORY_MANAGEMENT_INTERNAL.
    .stops(0x10E, [Is(0x43), Is(0), Is(0), Is(0)])
    .documented("bug check 0x10E, 0x43; its other parameters are ours");
    SAVE_OFFSET "save-offset" = Rule::new(
        &["DxgkCbMapFrameBufferPointer"],
        "The asked bytes lie at pBaseAddress plus the Offset that comes back: views begin at \
         multiples of 64 KiB",
    )
    .inferred("Offset is in and out; 64 KiB is the allocation granularity");
    SAVE_RELEASE "save-release" = Rule::new(
        &["DxgkCbUnpinFrameBufferForSave", "DxgkCbUnmapFrameBufferPointer"],
        "What was pinned, or mapped, is released once, by what it was got with",
    )
    .finding("double-free")
    .returns(REFUSED)
    .ours("not documented");
    SAVE_MAXIMUM "save-maximum" = Rule::new(
        QUERY,
        "MaximumSize is a multiple of a page, and Windows can commit it; else the adapter does \
         not start",
    )
    .inferred("DXGK_FRAMEBUFFERSAVEAREA's page; what comes of another size is ours");
    RESERVED_RANGE "reserved-range" = Rule::new(
        QUERY,
        "Ranges reserved by the hardware are whole pages that hold no RAM of Windows'; else the \
         adapter does not start",
    )
    .inferred("the isolation article: VidMm validates them, so that no driver opens RAM to its \
               device; what comes of it is ours");
    RESERVED_FIRST "reserved-before-attach" = Rule::new(
        QUERY,
        "Ranges reserved by the hardware are asked for twice, count and content, and mapped \
         before the device is attached",
    )
    .documented("the isolation article");
    FLAG_ENABLED "iommu-flags-enabled" = Rule::new(
        &[],
        "IOMMUFlags 0x01 makes the adapter's domain",
    )
    .documented("the isolation article, IOMMUFlags");
    FLAG_MAPPINGS "iommu-flags-mappings" = Rule::new(
        &[],
        "IOMMUFlags 0x02 maps all of RAM in the domain; without 0x01 it does nothing",
    )
    .documented("the isolation article, IOMMUFlags");
    FLAG_ATTACH "iommu-flags-attach" = Rule::new(
        &[],
        "IOMMUFlags 0x04 attaches the device to the domain; without 0x02 it does nothing",
    )
    .documented("the isolation article, IOMMUFlags");
    FLAG_BYPASS "iommu-flags-bypass" = Rule::new(
        &[],
        "IOMMUFlags 0x08 goes on although the driver does not report the cap; if it has no \
         exclusive-access routines either, the device is switched without them",
    )
    .inferred("the isolation article, IOMMUFlags; how the device is switched then is ours");
    FLAG_FAILURE "iommu-flags-failure" = Rule::new(
        &[],
        "IOMMUFlags 0x10 lets the adapter work although enabling failed, where isolation is \
         forced at start; a secure VM's isolation may not fail",
    )
    .documented("the isolation article, IOMMUFlags");
    ATTACH_TIME "attach-at-start" = Rule::new(
        &[],
        "--domain isolation attaches right after the start, as if a secure VM ran from then on",
    )
    .ours("Windows attaches when the first secure VM is made; a driver cannot tell when");
    EXCLUSIVE_QUIET "exclusive-access-quiet" = Rule::new(
        &["DxgkDdiBeginExclusiveAccess"],
        "Between DxgkDdiBeginExclusiveAccess and DxgkDdiEndExclusiveAccess the device touches no \
         system memory",
    )
    .documented("the isolation article, and DXGKDDI_BEGINEXCLUSIVEACCESS's page");
    EXCLUSIVE_SPAN "exclusive-access-span" = Rule::new(
        EXCLUSIVE,
        "That is from the return of the one to the call of the other; the device does all that \
         it can meanwhile, and its interrupts wait",
    )
    .ours("the page says that no other routine of the driver is called, and that the driver may \
           hold interrupts back, not when they come; work that was left queued is to show");
    EXCLUSIVE_PAIR "exclusive-access-pair" = Rule::new(
        &["DxgkDdiEndExclusiveAccess"],
        "DxgkDdiEndExclusiveAccess follows DxgkDdiBeginExclusiveAccess, also where the device \
         could not be switched",
    )
    .inferred("DXGKDDI_ENDEXCLUSIVEACCESS's page: the two are called as a pair");
    EXCLUSIVE_HELD "exclusive-access-held" = Rule::new(
        EXCLUSIVE,
        "A mutex that DxgkDdiBeginExclusiveAccess takes, or a region that it enters, may last \
         until DxgkDdiEndExclusiveAccess returns: apcs-disabled-at-return looks then",
    )
    .ours("bug check 0x01 is for the end of a system call; dxgkrnl has the switch to do between \
           the two, and that it leaves the thread or the system call for it is not documented: \
           no correct driver is to be accused");
    EXCLUSIVE_REFUSED "exclusive-access-refused" = Rule::new(
        &["DxgkDdiBeginExclusiveAccess"],
        "A driver that refuses exclusive access does not start",
    )
    .ours("not documented");
    UNMAP_FAILED "unmap-failed" = Rule::new(
        &[],
        "The tables of an isolation domain hold what dxgkrnl mapped",
    )
    // HAL_IOMMU_INTERNAL_ERROR.
    .stops(0x1D9, [Is(1), Is(0), Is(0), Is(0)])
    .documented("bug check 0x1D9, 1: an unmap failed");
    DEVICE_RANGE "device-range" = Rule::new(
        &["DxgkCbMapMemory"],
        "Only the device's own memory is mapped, to system addresses",
    )
    .returns(REFUSED)
    .ours("what another range gives is not documented");
    DEVICE_MAPPING "device-mapping" = Rule::new(
        &["DxgkCbUnmapMemory"],
        "Device memory is unmapped once, at the address that was given",
    )
    .returns(REFUSED)
    .ours("what another address gives is not documented");
    DEVICE_SPACE "device-space" = Rule::new(
        &["DxgkCbReadDeviceSpace", "DxgkCbWriteDeviceSpace"],
        "Only configuration space is read and written, and no more than there is",
    )
    .returns(REFUSED)
    .ours("the device has no ROM and no bridge");
    TABLE "initialization-table" = Rule::new(
        &["DxgkInitialize", "DxgkInitializeDisplayOnlyDriver"],
        "A miniport has AddDevice, StartDevice, StopDevice, RemoveDevice and QueryAdapterInfo",
    )
    .returns(REFUSED)
    .inferred("DRIVER_INITIALIZATION_DATA's page: these are mandatory");
    NOT_ISOLATED "isolation-needs-cap" = Rule::new(
        &["DxgkDdiQueryAdapterInfo"],
        "A driver is isolated that reports IoMmuSecureModeSupported and has both \
         exclusive-access routines",
    )
    .documented("the isolation article: without BypassDriverCap the enable bits are ignored");
}
