//! The function's list of capabilities: MSI-X, and where the parts of the
//! virtio transport are.

use crate::config::ConfigSpace;
use crate::function::{Setup, layout};
use crate::spec::{config, msix, virtio};

/// The capability list; answers where MSI-X and PCI access are.
pub(crate) fn add(config: &mut ConfigSpace, setup: &Setup, vectors: u16) -> (u16, u16) {
    let bar = u32::from(layout::MSIX_BAR);
    let mut body = Vec::new();
    body.extend_from_slice(&(vectors - 1).to_le_bytes());
    body.extend_from_slice(&(layout::MSIX_TABLE as u32 | bar).to_le_bytes());
    body.extend_from_slice(&(layout::MSIX_PBA as u32 | bar).to_le_bytes());
    let writable = (msix::CONTROL_ENABLE | msix::CONTROL_FUNCTION_MASK).to_le_bytes();
    let msix_at = config.add_capability(config::CAPABILITY_MSIX, &body, &writable);

    let queues = setup.queues.len() as u32;
    for (kind, offset, length) in [
        (
            virtio::CFG_COMMON,
            layout::COMMON,
            virtio::common::SIZE as u32,
        ),
        (
            virtio::CFG_NOTIFY,
            layout::NOTIFY,
            queues * layout::NOTIFY_MULTIPLIER,
        ),
        (virtio::CFG_ISR, layout::ISR, 1),
        (virtio::CFG_DEVICE, layout::DEVICE, setup.config_size),
    ] {
        let mut body = structure(kind, layout::TRANSPORT_BAR, offset as u32, length);
        if kind == virtio::CFG_NOTIFY {
            body.extend_from_slice(&layout::NOTIFY_MULTIPLIER.to_le_bytes());
            set_length(&mut body);
        }
        config.add_capability(config::CAPABILITY_VENDOR, &body, &[]);
    }

    let mut body = structure(virtio::CFG_PCI, 0, 0, 0);
    body.extend_from_slice(&[0; 4]);
    set_length(&mut body);
    // BAR, offset, length and window are the driver's to write.
    let mut writable = vec![0; body.len()];
    for (at, byte) in writable.iter_mut().enumerate() {
        let at = at + 2;
        if at == virtio::CAP_BAR || at >= virtio::CAP_OFFSET {
            *byte = 0xff;
        }
    }
    let access_at = config.add_capability(config::CAPABILITY_VENDOR, &body, &writable);
    if let Some(region) = &setup.vendor {
        let mut body = vec![0, virtio::CFG_VENDOR];
        body.extend_from_slice(&region.vendor.to_le_bytes());
        body.extend_from_slice(&region.data);
        set_length(&mut body);
        config.add_capability(config::CAPABILITY_VENDOR, &body, &[]);
    }
    (msix_at.unwrap_or(0), access_at.unwrap_or(0))
}

/// A virtio capability from its third byte on (§4.1.4).
fn structure(kind: u8, bar: u8, offset: u32, length: u32) -> Vec<u8> {
    let mut body = vec![virtio::CAP_SIZE as u8, kind, bar, 0, 0, 0];
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body
}

/// The capability's own length byte, once its type's part is there.
fn set_length(body: &mut [u8]) {
    let length = body.len() as u8 + 2;
    if let Some(first) = body.first_mut() {
        *first = length;
    }
}
