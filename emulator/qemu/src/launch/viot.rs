//! The table that tells a guest of our virtio-iommu: VIOT (ACPI 6.5 §5.2.35,
//! revision 0 as in 6.4). One virtio-iommu, and one range of PCI functions
//! that it translates for: ours alone, because QEMU could not translate for
//! its own.

use memory::RequesterId;

const HEADER: usize = 36;
/// Where the first node is: behind node count, node offset and eight reserved
/// bytes.
const NODES: usize = 48;
const CHECKSUM: usize = 9;
/// Node type: a range of PCI functions.
const PCI_RANGE: u8 = 1;
const PCI_RANGE_SIZE: u16 = 24;
/// Node type: a virtio-iommu that is a PCI function.
const VIRTIO_IOMMU_PCI: u8 = 3;
const VIRTIO_IOMMU_PCI_SIZE: u16 = 16;
const SIZE: usize = NODES + VIRTIO_IOMMU_PCI_SIZE as usize + PCI_RANGE_SIZE as usize;

/// The table, for a virtio-iommu and the one function that it translates for,
/// whose endpoint number is its requester id.
pub(super) fn table(iommu: RequesterId, endpoint: RequesterId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE);
    bytes.extend_from_slice(b"VIOT");
    bytes.extend_from_slice(&(SIZE as u32).to_le_bytes());
    // Revision, and the checksum, which comes last.
    bytes.extend_from_slice(&[0, 0]);
    // OEM id and OEM table id, revision 1; creator id, revision 1.
    bytes.extend_from_slice(b"DMASANDMASAN  ");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(b"DMAS");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    debug_assert_eq!(bytes.len(), HEADER);
    bytes.extend_from_slice(&2u16.to_le_bytes());
    bytes.extend_from_slice(&(NODES as u16).to_le_bytes());
    bytes.resize(NODES, 0);

    // Segment 0 and the function.
    bytes.extend_from_slice(&[VIRTIO_IOMMU_PCI, 0]);
    bytes.extend_from_slice(&VIRTIO_IOMMU_PCI_SIZE.to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&iommu.0.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);

    bytes.extend_from_slice(&[PCI_RANGE, 0]);
    bytes.extend_from_slice(&PCI_RANGE_SIZE.to_le_bytes());
    // First endpoint number; segments, functions and node (first and last).
    bytes.extend_from_slice(&u32::from(endpoint.0).to_le_bytes());
    for word in [0, 0, endpoint.0, endpoint.0, NODES as u16] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.resize(SIZE, 0);

    let sum = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    if let Some(checksum) = bytes.get_mut(CHECKSUM) {
        *checksum = sum.wrapping_neg();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_acpi_says() {
        let (iommu, gpu) = (RequesterId::new(0, 30, 0), RequesterId::new(0, 1, 0));
        let table = table(iommu, gpu);
        let word = |at: usize| u16::from_le_bytes([table[at], table[at + 1]]);
        assert_eq!(
            (table.len(), &table[..5], table[8]),
            (88, &b"VIOT\x58"[..], 0)
        );
        let sum = table.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
        assert_eq!(sum, 0);
        assert_eq!((word(36), word(38)), (2, 48));
        assert_eq!([word(48), word(50), word(52), word(54)], [3, 16, 0, 0xf0]);
        assert_eq!([word(64), word(66), word(68), word(70)], [1, 24, 8, 0]);
        assert_eq!([word(72), word(74), word(76), word(78)], [0, 0, 8, 8]);
        assert_eq!(word(80), 0x30);
        assert_eq!(table[82..], [0; 6]);
    }
}
