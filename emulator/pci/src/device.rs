//! What a device behind the transport must say and hear.

use crate::spec::virtio::{F_ACCESS_PLATFORM, F_VERSION_1};
use iommu::Dma;

/// A virtio device behind a [`crate::Function`]. No call may touch guest
/// memory: notifications are only noted, the work is done in steps that the
/// scenario chooses.
pub trait Device {
    /// Feature bits offered (virtio 1.2 §2.2), the transport's included.
    fn features(&self) -> u64;

    /// Feature bits without which FEATURES_OK is refused. A driver that does
    /// not take ACCESS_PLATFORM would put raw physical addresses into rings
    /// that are translated (§6.2 lets the device refuse it).
    fn required_features(&self) -> u64 {
        F_VERSION_1 | F_ACCESS_PLATFORM
    }

    /// Read the device configuration; any offset, 1 to 8 bytes.
    fn config_read(&self, offset: u64, size: u8) -> u64;

    /// Write the device configuration; any offset, 1 to 8 bytes.
    fn config_write(&mut self, offset: u64, size: u8, value: u64);

    /// The driver notified `queue`, which is one of the device's.
    fn notify(&mut self, queue: u16);

    /// The driver reset the device: give up what is under way (accesses in
    /// flight are cancelled by the transport) and forget everything the
    /// driver made.
    fn reset(&mut self, dma: Dma<'_>);
}
