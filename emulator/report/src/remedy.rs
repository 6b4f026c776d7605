//! How to mend each finding.

use ledger::spec::BUS_MASTER_DISABLED;
use ledger::{ClueKind, Finding, Kind, Outcome, Party};

/// What to change, in a sentence or two.
pub(crate) fn remedy(finding: &Finding) -> &'static str {
    let first = finding.blame.first().map(|blame| blame.party);
    let access = finding.access.as_ref();
    let refusal = access.and_then(|access| access.refusal);
    let reason = refusal.map(|refusal| refusal.reason);
    match (finding.kind, first) {
        (Kind::DmaUseAfterFree | Kind::DmaReusedMemory, _)
            if access.is_some_and(|access| access.area.is_some()) =>
        {
            "keep a queue's rings as long as the queue is enabled: before they are freed, reset the \
             device (write 0 to its status and wait until it reads 0) or that queue (queue_reset, \
             if VIRTIO_F_RING_RESET was negotiated); then enable it with the new rings."
        }
        (Kind::DmaUseAfterFree, _) => {
            "take the memory from the device before the free: detach it from every resource and \
             queue that refers to it (virtio-gpu: RESOURCE_DETACH_BACKING or RESOURCE_UNREF), wait \
             for the answer to that command and to those submitted before it, then free."
        }
        (Kind::FreeInFlight, Some(Party::OperatingSystem)) => {
            "invalidate with DR and DW set and wait for the invalidation's wait descriptor before \
             the pages go back; and let the driver wait for its commands before it frees."
        }
        (Kind::FreeInFlight, _) => {
            "wait for the device's answer to the commands that use the memory before it is freed; \
             a cancelled wait or a timeout must reset the device first."
        }
        (Kind::MappedAfterFree, _) if finding.breach.is_some() => {
            "take the user mapping away first: MmUnmapLockedPages with the address that the \
             mapping gave, in the process that has it (when its handle or the process closes, at \
             the latest); then MmFreePagesFromMdl, then ExFreePool."
        }
        (Kind::MappedAfterFree, _) if finding.claim.is_some() => {
            "unmap the memory for the device, and wait for the invalidation, before it is freed. \
             On Linux iommu.strict=1 does away with invalidation that is put off."
        }
        (Kind::MappedAfterFree, Some(Party::Driver)) => {
            "unmap what was mapped (DxgkCbUnmapMdlFromIoMmu) before MmFreePagesFromMdl; the order \
             is map, use, unmap, free."
        }
        (Kind::MappedAfterFree, _) => {
            "clear every leaf entry that leads to the pages, in every domain and at every address, \
             invalidate, and only then give the pages back."
        }
        (Kind::StaleIotlb, Some(Party::Device)) => {
            "the invalidation covered the address: look at how the IOMMU matches domain, address \
             mask and scope when it drops entries."
        }
        (Kind::StaleIotlb, _) => {
            "after the leaf entry is cleared, submit an IOTLB invalidation that covers the address \
             and wait for it before the routine returns."
        }
        (Kind::DmaPermission, _) if finding.clue(ClueKind::LockedForReading).is_some() => {
            "lock the MDL with IoWriteAccess or IoModifyAccess in MmProbeAndLockPages if the device \
             writes there: with IoReadAccess it is mapped for the device read-only."
        }
        (Kind::DmaPermission, _) => {
            "map the memory with the rights that the command needs: a device that reads needs R, \
             one that writes needs W."
        }
        (Kind::DmaUnmapped, _) if reason == Some(BUS_MASTER_DISABLED) => {
            "leave Bus Master Enable set until the device has answered its last command or has \
             been reset, and set it before the device is given work."
        }
        (Kind::DmaUnmapped, _) if matches!(reason, Some(1..=3)) => {
            "reset the device, or wait until it is idle, before its domain is detached; give it \
             work only once it is attached to one."
        }
        (Kind::DmaUnmapped, _)
            if access.is_some_and(|a| a.outcome == Outcome::Refused && a.page.is_some()) =>
        {
            "keep the memory mapped until the device has answered the last command that uses it."
        }
        (Kind::DmaUnmapped, _) => {
            "give the device only memory that is mapped for it: allocated with \
             DxgkCbAllocatePagesForMdl, or mapped with DxgkCbMapMdlToIoMmu before its address is \
             queued; check addresses and lengths of what is queued."
        }
        (Kind::DmaRawPhysicalAddress, _) => {
            "take the address from what is mapped for the device: allocate with \
             DxgkCbAllocatePagesForMdl, or map the MDL with DxgkCbMapMdlToIoMmu and use the \
             addresses that this gives; a result of MmGetPhysicalAddress is for the CPU alone."
        }
        (Kind::DmaReusedMemory, _) => {
            "detach the memory from the resource or the queue, and wait for the answer, before it \
             is freed; a resource that is to be used again gets its new backing first."
        }
        (Kind::DmaInterruptRange, _) => {
            "never give the device an address from 0xFEE00000 to 0xFEEFFFFF: what lies there is \
             interrupt requests; check how the address was computed."
        }
        (Kind::MissingInvalidation, _) => {
            "after the leaf entries are cleared, submit an IOTLB invalidation that covers the \
             address, with DR and DW, and wait for it before the pages go back."
        }
        (Kind::ExclusiveAccessViolation, _) => {
            "in DxgkDdiBeginExclusiveAccess stop all work of the device (scanouts and cursors that \
             it reads by itself too), wait for the answers, and only then return; submit nothing \
             until DxgkDdiEndExclusiveAccess."
        }
        (Kind::PartialAllocationIgnored, _) => {
            "compare MmGetMdlByteCount with what was asked for; if it is less, free the part and \
             fail, or use that part alone. Never read the PFN array past it."
        }
        (Kind::CpuUseAfterFree, _) => {
            "free or unmap the memory last: when no thread, DPC, timer or interrupt routine can \
             use the pointer any more, and clear the pointer with it."
        }
        (Kind::DoubleFree, _) => {
            "give the memory one owner that frees it, and clear the pointer or handle there; look \
             at the paths of errors and of the stop, which often free what another path freed."
        }
        (Kind::ForeignMdl, _) => {
            "free with the routine that belongs to the allocation, and with the very pointer or \
             handle that it returned: DxgkCbFreePagesFromMdl for DxgkCbAllocatePagesForMdl, \
             MmFreePagesFromMdl for MmAllocatePagesForMdl(Ex), IoFreeMdl for IoAllocateMdl."
        }
        (Kind::MdlNotReleased, _) => "call ExFreePool with the MDL after MmFreePagesFromMdl.",
        (Kind::MemoryLeak, _) => {
            "free it in the driver's unload routine, or where what it belongs to ends \
             (DxgkDdiRemoveDevice, DxgkDdiStopDevice), on the paths of errors too."
        }
        (Kind::MdlUseAfterFree, _) => {
            "keep the order: unmap (DxgkCbUnmapMdlFromIoMmu, MmUnmapLockedPages), then \
             MmFreePagesFromMdl or MmUnlockPages, and the MDL itself (ExFreePool, IoFreeMdl) last."
        }
        (Kind::WrongIrql, _) => {
            "call the routine where the IRQL allows it: out of the DPC, interrupt routine or spin \
             lock, in a work item or a thread at PASSIVE_LEVEL; or allocate ahead."
        }
        (Kind::HandleLeak, _) => {
            "free or unmap it in DxgkDdiStopDevice, on the path of errors of DxgkDdiStartDevice \
             too; keep a list of what was given."
        }
        (Kind::ImportForbidden, _) => {
            "replace the import by dxgkrnl's callback (DxgkCbAllocatePagesForMdl, \
             DxgkCbAllocateContiguousMemory, DxgkCbMapMdlToIoMmu and their kin), or do not report \
             IoMmuSecureModeSupported."
        }
        (Kind::Hang, _) => {
            "bound every wait and loop by a time, and on its end reset the device and fail the \
             call; look at what the stack waits for and who should have brought it about."
        }
    }
}
