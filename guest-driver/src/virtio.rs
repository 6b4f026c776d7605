//! The virtio PCI transport (virtio 1.2 §4.1): registers, reset, feature
//! negotiation, queue configuration.

use core::ptr;

use crate::callbacks::Callbacks;
use crate::mutations::undo;
use crate::nt::{Result, delay_a_millisecond, log};
use crate::pci::{Assigned, Function, Location};
use crate::ring::Layout;
use crate::spec::gpu::{F_EDID, F_RESOURCE_BLOB};
use crate::spec::nt::{
    STATUS_DEVICE_CONFIGURATION_ERROR, STATUS_DEVICE_REMOVED, STATUS_IO_TIMEOUT,
    STATUS_NOT_SUPPORTED,
};
use crate::spec::pci::BARS;
use crate::spec::virtio::{
    F_ACCESS_PLATFORM, F_VERSION_1, NO_VECTOR, STATUS_ACKNOWLEDGE, STATUS_DRIVER, STATUS_DRIVER_OK,
    STATUS_FAILED, STATUS_FEATURES_OK, common,
};
use crate::telling::Telling;

/// Reads of the status register before a reset counts as slow.
const RESET_READS: u32 = 100;
/// Waits, of a millisecond each, until a slow reset must have finished.
const RESET_WAITS: u32 = 1000;
/// What every register of a function reads as that is not there any more.
const GONE: u8 = u8::MAX;

/// A mapped virtio structure.
#[derive(Clone, Copy)]
pub struct Window {
    base: *mut u8,
    bytes: usize,
}

impl Window {
    const EMPTY: Self = Self {
        base: ptr::null_mut(),
        bytes: 0,
    };

    /// Address of a register of `T`, or `None` when it lies outside.
    pub fn register<T>(&self, offset: usize) -> Option<*mut T> {
        let end = offset.checked_add(size_of::<T>())?;
        (end <= self.bytes).then(|| self.base.wrapping_add(offset).cast())
    }

    /// Reads a register; all ones when it lies outside, as a bus would.
    pub fn read8(&self, offset: usize) -> u8 {
        self.register(offset)
            // SAFETY: within a mapped window.
            .map_or(u8::MAX, |r| unsafe { ptr::read_volatile(r) })
    }

    fn read16(&self, offset: usize) -> u16 {
        self.register(offset)
            // SAFETY: within a mapped window; virtio structures are aligned.
            .map_or(u16::MAX, |r| unsafe { ptr::read_volatile(r) })
    }

    /// Reads a register; all ones when it lies outside.
    pub fn read32(&self, offset: usize) -> u32 {
        self.register(offset)
            // SAFETY: within a mapped window; virtio structures are aligned.
            .map_or(u32::MAX, |r| unsafe { ptr::read_volatile(r) })
    }

    /// Writes a register; nothing happens when it lies outside.
    pub fn write<T>(&self, offset: usize, value: T) {
        if let Some(register) = self.register(offset) {
            // SAFETY: within a mapped window; virtio structures are aligned.
            unsafe { ptr::write_volatile(register, value) }
        }
    }
}

/// The transport of one function, its registers mapped.
pub struct Transport {
    /// Mapped base address registers, by number; null for none.
    mapped: [*mut u8; BARS],
    common: Window,
    notify: Window,
    notify_multiplier: u32,
    /// Interrupt status.
    pub isr: Window,
    /// Device-specific configuration.
    pub device: Window,
    /// dmasan's region, if there is one.
    pub telling: Option<Telling>,
}

impl Transport {
    /// Maps the registers that the capabilities name.
    #[inline(never)]
    pub fn map(callbacks: &Callbacks, function: &Function, assigned: &Assigned) -> Result<Self> {
        let mut transport = Self {
            mapped: [ptr::null_mut(); BARS],
            common: Window::EMPTY,
            notify: Window::EMPTY,
            notify_multiplier: function.notify_multiplier,
            isr: Window::EMPTY,
            device: Window::EMPTY,
            telling: None,
        };
        let result = transport.map_windows(callbacks, function, assigned);
        if let Err(status) = result {
            undo!("registers-undo-unmap", transport.unmap(callbacks));
            return Err(status);
        }
        Ok(transport)
    }

    fn map_windows(
        &mut self,
        callbacks: &Callbacks,
        function: &Function,
        assigned: &Assigned,
    ) -> Result<()> {
        self.common = self.window(callbacks, function, assigned, &function.common)?;
        self.notify = self.window(callbacks, function, assigned, &function.notify)?;
        self.isr = self.window(callbacks, function, assigned, &function.isr)?;
        self.device = self.window(callbacks, function, assigned, &function.device)?;
        if self.common.bytes < common::SIZE {
            return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
        }
        // The device works without it.
        if function.telling.length != 0
            && let Ok(window) = self.window(callbacks, function, assigned, &function.telling)
        {
            self.telling = Telling::new(window);
        }
        Ok(())
    }

    fn window(
        &mut self,
        callbacks: &Callbacks,
        function: &Function,
        assigned: &Assigned,
        location: &Location,
    ) -> Result<Window> {
        let bar = usize::from(location.bar);
        let (Some(&address), Some(&bytes)) = (function.bars.get(bar), assigned.bar_bytes.get(bar))
        else {
            return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
        };
        // A structure that reaches out of its register is the device's
        // mistake, and mapping less would be ours.
        let fits = location.offset.checked_add(location.length);
        if address == 0 || fits.is_none_or(|end| end > bytes) {
            return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
        }
        if self.mapped[bar].is_null() {
            self.mapped[bar] = callbacks.map_registers(address, bytes)?;
        }
        Ok(Window {
            base: self.mapped[bar].wrapping_add(location.offset as usize),
            bytes: location.length as usize,
        })
    }

    /// Unmaps the registers; nothing may use the windows afterwards.
    #[inline(never)]
    pub fn unmap(&mut self, callbacks: &Callbacks) {
        for mapped in &mut self.mapped {
            if !mapped.is_null() {
                callbacks.unmap_registers(*mapped);
                *mapped = ptr::null_mut();
            }
        }
        self.common = Window::EMPTY;
        self.notify = Window::EMPTY;
        self.isr = Window::EMPTY;
        self.device = Window::EMPTY;
        self.telling = None;
    }

    /// Address of the device status register.
    pub fn status_register(&self) -> *mut u8 {
        self.common
            .register(common::DEVICE_STATUS)
            .unwrap_or(ptr::null_mut())
    }

    fn status(&self) -> u8 {
        self.common.read8(common::DEVICE_STATUS)
    }

    fn add_status(&self, bits: u8) {
        let status = self.status();
        self.common.write(common::DEVICE_STATUS, status | bits);
    }

    /// Resets the device and waits until it says so (§4.1.4.3.2): from then
    /// on it touches no memory of ours. Below DISPATCH_LEVEL.
    ///
    /// A device that was unplugged never says so; two bits of its status are
    /// reserved (§2.1), so all ones is no status.
    #[inline(never)]
    pub fn reset(&self) -> Result<()> {
        self.common.write(common::DEVICE_STATUS, 0u8);
        for read in 0..RESET_READS + RESET_WAITS {
            match self.status() {
                0 => return Ok(()),
                GONE => return Err(STATUS_DEVICE_REMOVED),
                _ if read < RESET_READS => core::hint::spin_loop(),
                _ => delay_a_millisecond(),
            }
        }
        Err(STATUS_IO_TIMEOUT)
    }

    /// ACKNOWLEDGE, DRIVER and the features (§3.1.1 steps 2 to 6): those
    /// that were taken.
    #[inline(never)]
    pub fn negotiate(&self) -> Result<u64> {
        self.add_status(STATUS_ACKNOWLEDGE);
        self.add_status(STATUS_DRIVER);
        let offered = self.offered_features();
        // Without VERSION_1 this is a legacy device with other registers.
        if offered & F_VERSION_1 == 0 {
            return Err(STATUS_NOT_SUPPORTED);
        }
        // ACCESS_PLATFORM says that addresses go through the IOMMU. Ours are
        // right in an isolation domain either way, so it is taken when
        // offered and not demanded.
        let wanted = F_VERSION_1 | (offered & (F_ACCESS_PLATFORM | F_EDID | F_RESOURCE_BLOB));
        self.common.write(common::DRIVER_FEATURE_SELECT, 0u32);
        self.common.write(common::DRIVER_FEATURE, wanted as u32);
        self.common.write(common::DRIVER_FEATURE_SELECT, 1u32);
        self.common
            .write(common::DRIVER_FEATURE, (wanted >> 32) as u32);
        self.add_status(STATUS_FEATURES_OK);
        if self.status() & STATUS_FEATURES_OK == 0 {
            return Err(STATUS_NOT_SUPPORTED);
        }
        Ok(wanted)
    }

    fn offered_features(&self) -> u64 {
        self.common.write(common::DEVICE_FEATURE_SELECT, 0u32);
        let low = self.common.read32(common::DEVICE_FEATURE);
        self.common.write(common::DEVICE_FEATURE_SELECT, 1u32);
        let high = self.common.read32(common::DEVICE_FEATURE);
        u64::from(high) << 32 | u64::from(low)
    }

    /// Entries that `queue` may have at most; 0 when there is none.
    pub fn queue_size(&self, queue: u16) -> u16 {
        self.common.write(common::QUEUE_SELECT, queue);
        self.common.read16(common::QUEUE_SIZE)
    }

    /// Tells the device which vector configuration changes use; the device
    /// answers NO_VECTOR when it cannot (§4.1.5.1.2.1).
    pub fn set_config_vector(&self, vector: u16) -> Result<()> {
        self.common.write(common::CONFIG_MSIX_VECTOR, vector);
        if self.common.read16(common::CONFIG_MSIX_VECTOR) != vector {
            return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
        }
        Ok(())
    }

    /// Configures and enables `queue` (§4.1.5.1.3); answers the address of
    /// its doorbell.
    #[inline(never)]
    pub fn enable_queue(
        &self,
        queue: u16,
        layout: &Layout,
        device_address: u64,
        vector: Option<u16>,
    ) -> Result<*mut u16> {
        self.common.write(common::QUEUE_SELECT, queue);
        self.common.write(common::QUEUE_SIZE, layout.size);
        let vector_or_none = vector.unwrap_or(NO_VECTOR);
        self.common.write(common::QUEUE_MSIX_VECTOR, vector_or_none);
        if self.common.read16(common::QUEUE_MSIX_VECTOR) != vector_or_none {
            return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
        }
        self.write64(common::QUEUE_DESC, device_address);
        self.write64(common::QUEUE_DRIVER, device_address + layout.avail as u64);
        let used = device_address + layout.used as u64;
        #[cfg(feature = "defects")]
        let used = crate::defects::ring::used(used);
        self.write64(common::QUEUE_DEVICE, used);
        let offset = usize::from(self.common.read16(common::QUEUE_NOTIFY_OFF))
            .checked_mul(self.notify_multiplier as usize);
        let Some(doorbell) = offset.and_then(|offset| self.notify.register::<u16>(offset)) else {
            return Err(STATUS_DEVICE_CONFIGURATION_ERROR);
        };
        self.common.write(common::QUEUE_ENABLE, 1u16);
        Ok(doorbell)
    }

    fn write64(&self, offset: usize, value: u64) {
        // Two 32-bit halves, which every device must accept (§4.1.3.1).
        self.common.write(offset, value as u32);
        self.common.write(offset + 4, (value >> 32) as u32);
    }

    /// DRIVER_OK: the device may run (§3.1.1 step 8).
    pub fn start(&self) {
        self.add_status(STATUS_DRIVER_OK);
    }

    /// FAILED: the driver gave up on the device (§2.1).
    pub fn fail(&self) {
        self.add_status(STATUS_FAILED);
        log!("initialisation failed");
    }
}
