//! dxgkrnl's rules.

use super::Irql::AtMost;
use super::Parameter::{Irql, Is};
use super::{Rule, rules};
use crate::mm::spec::APC_LEVEL;
use crate::status;

const REFUSED: u64 = status::INVALID_PARAMETER as u64;
const ALLOCATES: &[&str] = &[
    "DxgkCbAllocatePagesForMdl",
    "DxgkCbAllocateContiguousMemory",
];
const FREES: &[&str] = &["DxgkCbFreePagesFromMdl", "DxgkCbFreeContiguousMemory"];

rules! {
    CALLBACK_IRQL "memory-callback-irql" = Rule::at(
        &[
            "DxgkCbAllocatePagesForMdl",
            "DxgkCbFreePagesFromMdl",
            "DxgkCbAllocateContiguousMemory",
            "DxgkCbFreeContiguousMemory",
        ],
        AtMost(APC_LEVEL),
        "The memory callbacks are called at APC_LEVEL or below",
    )
    .stops(0x0A, [Is(0), Irql, Is(0), Is(0)])
    .ours("Windows stops from WDDM 3.2 on, by a code that is not documented; see \
           callback-irql-pages");
    ADAPTER "adapter-handle" = Rule::new(
        ALLOCATES,
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
    .documented("DXGKCB_ALLOCATEPAGESFORMDL's page: MM_ALLOCATE_FULLY_REQUIRED");
    HANDLE "memory-handle" = Rule::new(
        FREES,
        "hMemoryHandle is one that the matching callback gave for this adapter",
    )
    .finding("foreign-mdl")
    .returns(status::INVALID_HANDLE as u64)
    .ours("not documented: a status is what these routines have to tell it with");
    HANDLE_TWICE "memory-handle-twice" = Rule::new(
        FREES,
        "hMemoryHandle is given back once",
    )
    .finding("double-free")
    .returns(status::INVALID_HANDLE as u64)
    .ours("not documented: see memory-handle; handles are not used anew, so that it shows");
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
