//! How to mend each finding.

use ledger::spec::BUS_MASTER_DISABLED;
use ledger::{Finding, Kind, Outcome, Party};

/// What to change, in a sentence or two.
pub(crate) fn remedy(finding: &Finding) -> &'static str {
    let first = finding.blame.first().map(|blame| blame.party);
    let reason = finding.refusal.map(|refusal| refusal.reason);
    match (finding.kind, first) {
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
        (Kind::MappedAfterFree, Some(Party::Driver)) => {
            "unmap what was mapped (DxgkCbUnmapMdlFromIommu) before MmFreePagesFromMdl; the order \
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
        (Kind::DmaUnmapped, _) if finding.outcome == Outcome::Refused && finding.page.is_some() => {
            "keep the memory mapped until the device has answered the last command that uses it."
        }
        (Kind::DmaUnmapped, _) => {
            "give the device only memory that is mapped for it: allocated with \
             DxgkCbAllocatePagesForMdl, or mapped with DxgkCbMapMdlToIommu before its address is \
             queued; check addresses and lengths of what is queued."
        }
    }
}
