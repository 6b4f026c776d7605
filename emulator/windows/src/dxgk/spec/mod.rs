//! What public headers declare of the display port interface: offsets,
//! values, sizes on x64. No behaviour.
//!
//! Sources: d3dkmddi.h and dispmprt.h as published in Microsoft's DDI
//! reference; offsets as generated from public symbols by the MIT-licensed
//! SDK dumps, and as computed from public declarations.

/// `DXGKDDI_INTERFACE_VERSION` of WDDM 2.4.
pub const VERSION_WDDM_2_4: u32 = 0x9006;

/// Offsets in `DRIVER_INITIALIZATION_DATA`.
pub mod initialization {
    /// ULONG Version.
    pub const VERSION: u64 = 0x00;
    /// DxgkDdiAddDevice.
    pub const ADD_DEVICE: u64 = 0x08;
    /// DxgkDdiStartDevice.
    pub const START_DEVICE: u64 = 0x10;
    /// DxgkDdiStopDevice.
    pub const STOP_DEVICE: u64 = 0x18;
    /// DxgkDdiRemoveDevice.
    pub const REMOVE_DEVICE: u64 = 0x20;
    /// DxgkDdiInterruptRoutine.
    pub const INTERRUPT_ROUTINE: u64 = 0x30;
    /// DxgkDdiDpcRoutine.
    pub const DPC_ROUTINE: u64 = 0x38;
    /// DxgkDdiSetPowerState.
    pub const SET_POWER_STATE: u64 = 0x58;
    /// DxgkDdiUnload.
    pub const UNLOAD: u64 = 0x70;
    /// DxgkDdiQueryAdapterInfo.
    pub const QUERY_ADAPTER_INFO: u64 = 0x88;
    /// DxgkDdiEscape of a full miniport.
    pub const ESCAPE: u64 = 0x110;
    /// DxgkDdiBeginExclusiveAccess (WDDM 2.4).
    pub const BEGIN_EXCLUSIVE_ACCESS: u64 = 0x458;
    /// DxgkDdiEndExclusiveAccess (WDDM 2.4).
    pub const END_EXCLUSIVE_ACCESS: u64 = 0x460;
    /// DxgkDdiEscape in `KMDDOD_INITIALIZATION_DATA`.
    pub const DISPLAY_ONLY_ESCAPE: u64 = 0xA8;
}

/// Imports for which the HLK fails a driver that opts in to isolation
/// (display/iommu-based-gpu-isolation.md).
pub const HLK_FORBIDDEN: [&str; 7] = [
    "MmAllocateContiguousMemory",
    "MmAllocateContiguousMemorySpecifyCache",
    "MmFreeContiguousMemory",
    "MmAllocatePagesForMdl",
    "MmAllocatePagesForMdlEx",
    "MmFreePagesFromMdl",
    "MmProbeAndLockPages",
];

/// `DXGK_QUERYADAPTERINFOTYPE`.
pub mod query {
    /// DXGKQAITYPE_DRIVERCAPS.
    pub const DRIVER_CAPS: u32 = 1;
    /// DXGKQAITYPE_PHYSICALADAPTERCAPS.
    pub const PHYSICAL_ADAPTER_CAPS: u32 = 15;
    /// DXGKQAITYPE_FRAMEBUFFERSAVESIZE.
    pub const FRAMEBUFFER_SAVE_SIZE: u32 = 21;
    /// DXGKQAITYPE_HARDWARERESERVEDRANGES.
    pub const HARDWARE_RESERVED_RANGES: u32 = 22;
}

/// `DXGKARG_QUERYADAPTERINFO`.
pub mod query_adapter_info {
    /// Type.
    pub const TYPE: u64 = 0x00;
    /// pInputData.
    pub const INPUT: u64 = 0x08;
    /// InputDataSize.
    pub const INPUT_SIZE: u64 = 0x10;
    /// pOutputData.
    pub const OUTPUT: u64 = 0x18;
    /// OutputDataSize.
    pub const OUTPUT_SIZE: u64 = 0x20;
    /// Bytes of the structure.
    pub const SIZE: u64 = 0x30;
}

/// `DXGKARG_ESCAPE`.
pub mod escape {
    /// hDevice.
    pub const DEVICE: u64 = 0x00;
    /// Flags.
    pub const FLAGS: u64 = 0x08;
    /// pPrivateDriverData.
    pub const DATA: u64 = 0x10;
    /// PrivateDriverDataSize.
    pub const DATA_SIZE: u64 = 0x18;
    /// Bytes of the structure.
    pub const SIZE: u64 = 0x30;
}

/// `DXGK_VIDMMCAPS` bits.
pub mod vidmm_caps {
    /// IoMmuSecureModeSupported.
    pub const SECURE_MODE_SUPPORTED: u32 = 1 << 11;
}

/// `DXGK_DEVICE_INFO`.
pub mod device_info {
    /// MiniportDeviceContext.
    pub const CONTEXT: u64 = 0x00;
    /// PhysicalDeviceObject.
    pub const PHYSICAL_DEVICE: u64 = 0x08;
    /// DeviceRegistryPath (UNICODE_STRING).
    pub const REGISTRY_PATH: u64 = 0x10;
    /// TranslatedResourceList.
    pub const RESOURCES: u64 = 0x20;
    /// SystemMemorySize.
    pub const MEMORY_SIZE: u64 = 0x28;
    /// HighestPhysicalAddress.
    pub const HIGHEST_ADDRESS: u64 = 0x30;
    /// Bytes of the structure.
    pub const SIZE: usize = 0x50;
}

/// `DXGKARGCB_ALLOCATEPAGESFORMDL`.
pub mod allocate_pages {
    /// LowAddress.
    pub const LOW: u64 = 0x00;
    /// HighAddress.
    pub const HIGH: u64 = 0x08;
    /// SkipBytes.
    pub const SKIP: u64 = 0x10;
    /// TotalBytes.
    pub const BYTES: u64 = 0x18;
    /// CacheType.
    pub const CACHE: u64 = 0x20;
    /// Flags.
    pub const FLAGS: u64 = 0x24;
    /// hMemoryHandle, out.
    pub const HANDLE: u64 = 0x28;
    /// pMdl, out.
    pub const MDL: u64 = 0x30;
}

/// `DXGKARGCB_ALLOCATECONTIGUOUSMEMORY`.
pub mod allocate_contiguous {
    /// NumberOfBytes.
    pub const BYTES: u64 = 0x00;
    /// LowestAcceptableAddress.
    pub const LOWEST: u64 = 0x08;
    /// HighestAcceptableAddress.
    pub const HIGHEST: u64 = 0x10;
    /// BoundaryAddressMultiple.
    pub const BOUNDARY: u64 = 0x18;
    /// CacheType.
    pub const CACHE: u64 = 0x20;
    /// hMemoryHandle, out.
    pub const HANDLE: u64 = 0x28;
    /// pMemory, out.
    pub const MEMORY: u64 = 0x30;
}

/// `DXGKARGCB_MAPMDLTOIOMMU`.
pub mod map_mdl {
    /// pMdl.
    pub const MDL: u64 = 0x00;
    /// hMemoryHandle, out.
    pub const HANDLE: u64 = 0x08;
}

/// `DXGKARGCB_PINFRAMEBUFFERFORSAVE`.
pub mod pin_framebuffer {
    /// PhysicalAdapterIndex, also of the argument of the unpin.
    pub const ADAPTER: u64 = 0x00;
    /// CommitSize.
    pub const SIZE: u64 = 0x08;
    /// pMdl, out.
    pub const MDL: u64 = 0x10;
}

/// `DXGKARGCB_MAPFRAMEBUFFERPOINTER`.
pub mod map_framebuffer {
    /// PhysicalAdapterIndex.
    pub const ADAPTER: u64 = 0x00;
    /// Size.
    pub const SIZE: u64 = 0x08;
    /// Offset, in and out.
    pub const OFFSET: u64 = 0x10;
    /// pBaseAddress, out.
    pub const ADDRESS: u64 = 0x18;
}

/// `DXGKARGCB_UNMAPFRAMEBUFFERPOINTER`.
pub mod unmap_framebuffer {
    /// PhysicalAdapterIndex.
    pub const ADAPTER: u64 = 0x00;
    /// pBaseAddress.
    pub const ADDRESS: u64 = 0x08;
}

/// `DXGK_HARDWARERESERVEDRANGES`.
pub mod reserved_ranges {
    /// NumRanges.
    pub const COUNT: u64 = 0x00;
    /// pPhysicalRanges.
    pub const RANGES: u64 = 0x08;
    /// Bytes of the structure.
    pub const SIZE: u32 = 0x10;
    /// Bytes of a `DXGK_PHYSICAL_MEMORY_RANGE`: BaseAddress, NumberOfBytes.
    pub const RANGE_SIZE: u64 = 0x10;
}

/// Bytes of a `DXGK_FRAMEBUFFERSAVEAREA`: MaximumSize.
pub const FRAMEBUFFER_SAVE_AREA_SIZE: u32 = 8;

/// What DxgkDdiSetPowerState is given.
pub mod power {
    /// DISPLAY_ADAPTER_HW_ID: the adapter, not one of its children.
    pub const ADAPTER: u64 = 0xFFFF_FFFF;
    /// PowerDeviceD0.
    pub const D0: u64 = 1;
    /// PowerDeviceD3.
    pub const D3: u64 = 4;
    /// PowerActionNone.
    pub const ACTION_NONE: u64 = 0;
    /// PowerActionSleep.
    pub const ACTION_SLEEP: u64 = 2;
}

/// Largest allocation of either callback: 4 GiB less a page.
pub const ALLOCATION_LIMIT: u64 = (4 << 30) - 4096;

/// `DXGKRNL_INTERFACE` to WDDM 2.4: the callbacks from 0x10 on, 8 bytes
/// apart, in their order. Size, Version and DeviceHandle come before.
pub const INTERFACE: [&str; 55] = [
    "DxgkCbEvalAcpiMethod",
    "DxgkCbGetDeviceInformation",
    "DxgkCbIndicateChildStatus",
    "DxgkCbMapMemory",
    "DxgkCbQueueDpc",
    "DxgkCbQueryServices",
    "DxgkCbReadDeviceSpace",
    "DxgkCbSynchronizeExecution",
    "DxgkCbUnmapMemory",
    "DxgkCbWriteDeviceSpace",
    "DxgkCbIsDevicePresent",
    "DxgkCbGetHandleData",
    "DxgkCbGetHandleParent",
    "DxgkCbEnumHandleChildren",
    "DxgkCbNotifyInterrupt",
    "DxgkCbNotifyDpc",
    "DxgkCbQueryVidPnInterface",
    "DxgkCbQueryMonitorInterface",
    "DxgkCbGetCaptureAddress",
    "DxgkCbLogEtwEvent",
    "DxgkCbExcludeAdapterAccess",
    "DxgkCbCreateContextAllocation",
    "DxgkCbDestroyContextAllocation",
    "DxgkCbSetPowerComponentActive",
    "DxgkCbSetPowerComponentIdle",
    "DxgkCbAcquirePostDisplayOwnership",
    "DxgkCbPowerRuntimeControlRequest",
    "DxgkCbSetPowerComponentLatency",
    "DxgkCbSetPowerComponentResidency",
    "DxgkCbCompleteFStateTransition",
    "DxgkCbCompletePStateTransition",
    "DxgkCbMapContextAllocation",
    "DxgkCbUpdateContextAllocation",
    "DxgkCbReserveGpuVirtualAddressRange",
    "DxgkCbAcquireHandleData",
    "DxgkCbReleaseHandleData",
    "DxgkCbHardwareContentProtectionTeardown",
    "DxgkCbMultiPlaneOverlayDisabled",
    "DxgkCbMitigatedRangeUpdate",
    "DxgkCbInvalidateHwContext",
    "DxgkCbIndicateConnectorChange",
    "DxgkCbUnblockUEFIFrameBufferRanges",
    "DxgkCbAcquirePostDisplayOwnership2",
    "DxgkCbSetProtectedSessionStatus",
    "DxgkCbAllocateContiguousMemory",
    "DxgkCbFreeContiguousMemory",
    "DxgkCbAllocatePagesForMdl",
    "DxgkCbFreePagesFromMdl",
    "DxgkCbPinFrameBufferForSave",
    "DxgkCbUnpinFrameBufferForSave",
    "DxgkCbMapFrameBufferPointer",
    "DxgkCbUnmapFrameBufferPointer",
    "DxgkCbMapMdlToIoMmu",
    "DxgkCbUnmapMdlFromIoMmu",
    "DxgkCbReportDiagnostic",
];

/// Offset of the first callback in `DXGKRNL_INTERFACE`.
pub const INTERFACE_CALLBACKS: u64 = 0x10;
/// Bytes of `DXGKRNL_INTERFACE` at WDDM 2.4.
pub const INTERFACE_SIZE: u64 = INTERFACE_CALLBACKS + 8 * INTERFACE.len() as u64;

/// `CM_RESOURCE_LIST` with one full descriptor (wdm.h; packed to 4 bytes).
pub mod resources {
    /// Offset of the first partial descriptor.
    pub const DESCRIPTORS: usize = 0x14;
    /// Bytes of a partial descriptor.
    pub const DESCRIPTOR_SIZE: usize = 20;
    /// InterfaceType PCIBus.
    pub const PCI_BUS: u32 = 5;
    /// CmResourceTypeInterrupt.
    pub const INTERRUPT: u8 = 2;
    /// CmResourceTypeMemory.
    pub const MEMORY: u8 = 3;
    /// CM_RESOURCE_INTERRUPT_LATCHED | CM_RESOURCE_INTERRUPT_MESSAGE.
    pub const MESSAGE_FLAGS: u16 = 1 | 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets from the published table, at both ends and around every
    /// version step.
    #[test]
    fn callbacks_lie_where_the_headers_say() {
        let offset = |name: &str| {
            INTERFACE
                .iter()
                .position(|n| n.strip_prefix("DxgkCb") == Some(name))
                .map(|i| INTERFACE_CALLBACKS + 8 * i as u64)
        };
        for (name, at) in [
            ("EvalAcpiMethod", 0x10),
            ("GetDeviceInformation", 0x18),
            ("MapMemory", 0x28),
            ("QueueDpc", 0x30),
            ("ReadDeviceSpace", 0x40),
            ("SynchronizeExecution", 0x48),
            ("WriteDeviceSpace", 0x58),
            ("NotifyInterrupt", 0x80),
            ("NotifyDpc", 0x88),
            ("ExcludeAdapterAccess", 0xB0),
            ("CreateContextAllocation", 0xB8),
            ("AcquirePostDisplayOwnership", 0xD8),
            ("CompleteFStateTransition", 0xF8),
            ("CompletePStateTransition", 0x100),
            ("HardwareContentProtectionTeardown", 0x130),
            ("MitigatedRangeUpdate", 0x140),
            ("InvalidateHwContext", 0x148),
            ("AcquirePostDisplayOwnership2", 0x160),
            ("SetProtectedSessionStatus", 0x168),
            ("AllocateContiguousMemory", 0x170),
            ("FreeContiguousMemory", 0x178),
            ("AllocatePagesForMdl", 0x180),
            ("FreePagesFromMdl", 0x188),
            ("UnmapFrameBufferPointer", 0x1A8),
            ("MapMdlToIoMmu", 0x1B0),
            ("UnmapMdlFromIoMmu", 0x1B8),
            ("ReportDiagnostic", 0x1C0),
        ] {
            assert_eq!(offset(name), Some(at), "{name}");
        }
        assert_eq!(INTERFACE_SIZE, 0x1C8);
    }
}
