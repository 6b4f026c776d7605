//! The whole function: configuration space, MSI-X and the transport in its
//! BARs.

use crate::capabilities;
use crate::config::{ConfigSpace, Identity};
use crate::device::Device;
use crate::msix::{Message, Msix, read_bytes};
use crate::spec::{config, msix, virtio};
use crate::transport::{Chain, Effect, RingError, Transport};
use iommu::Dma;
use journal::event::{ContextId, Event};
use memory::{Gpa, RequesterId};

/// Where things are in the BARs: each structure of the transport in a page
/// of its own, so that a hypervisor could map them apart.
pub mod layout {
    /// BAR of the transport.
    pub const TRANSPORT_BAR: u8 = 0;
    /// Its bytes.
    pub const TRANSPORT_SIZE: u32 = 0x4000;
    /// Common configuration.
    pub const COMMON: u64 = 0x0000;
    /// Interrupt status, one byte.
    pub const ISR: u64 = 0x1000;
    /// Device configuration.
    pub const DEVICE: u64 = 0x2000;
    /// Notifications: [`NOTIFY_MULTIPLIER`] bytes a queue.
    pub const NOTIFY: u64 = 0x3000;
    /// Bytes between the doorbells of two queues.
    pub const NOTIFY_MULTIPLIER: u32 = 4;
    /// BAR of MSI-X.
    pub const MSIX_BAR: u8 = 1;
    /// Its bytes.
    pub const MSIX_SIZE: u32 = 0x1000;
    /// The table, in the MSI-X BAR.
    pub const MSIX_TABLE: u64 = 0x000;
    /// The pending bit array, in the MSI-X BAR.
    pub const MSIX_PBA: u64 = 0x800;
    /// Bytes of each structure of the transport.
    pub const PAGE: u64 = 0x1000;
}

pub use journal::event::NO_QUEUE;

/// What to make a function of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its requester id.
    pub requester: RequesterId,
    /// virtio device type (virtio 1.2 §5); the PCI device id follows from it.
    pub device_type: u16,
    /// Subsystem id.
    pub subsystem: u16,
    /// Class code, 24 bits.
    pub class: u32,
    /// Maximum sizes of the queues, powers of two.
    pub queues: Vec<u16>,
    /// Bytes of the device configuration.
    pub config_size: u32,
    /// A BAR of the vendor's own, if the function has one.
    pub vendor: Option<VendorRegion>,
}

/// A BAR whose contents are no business of the transport's, and the vendor
/// data capability (virtio 1.2 §4.1.4.8) that a driver finds it by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VendorRegion {
    /// Index of the BAR.
    pub bar: u8,
    /// Its bytes.
    pub size: u32,
    /// Id of the format.
    pub vendor: u16,
    /// What stands behind that id in the capability.
    pub data: Vec<u8>,
}

/// A PCI function with the virtio transport. Plain data; to save it is to
/// clone it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    requester: RequesterId,
    config: ConfigSpace,
    /// Where the MSI-X capability is.
    msix_capability: u16,
    /// Where the PCI access capability is.
    access_capability: u16,
    msix: Msix,
    transport: Transport,
}

impl Function {
    /// A function in its state after power-on. One vector for configuration
    /// changes and one for each queue.
    #[must_use]
    pub fn new(setup: &Setup, device: &dyn Device) -> Self {
        let vectors = setup.queues.len() as u16 + 1;
        let mut config = ConfigSpace::new(Identity {
            vendor: virtio::VENDOR,
            device: virtio::DEVICE_BASE + setup.device_type,
            subsystem_vendor: virtio::VENDOR,
            subsystem: setup.subsystem,
            class: setup.class,
            revision: virtio::REVISION,
        })
        .with_bar(layout::TRANSPORT_BAR.into(), layout::TRANSPORT_SIZE)
        .with_bar(layout::MSIX_BAR.into(), layout::MSIX_SIZE);
        if let Some(region) = &setup.vendor {
            config = config.with_bar(region.bar.into(), region.size);
        }
        let (msix_capability, access_capability) = capabilities::add(&mut config, setup, vectors);
        Self {
            requester: setup.requester,
            config,
            msix_capability,
            access_capability,
            msix: Msix::new(vectors),
            transport: Transport::new(device.features(), device.required_features(), &setup.queues),
        }
    }

    /// Its requester id.
    #[must_use]
    pub fn requester(&self) -> RequesterId {
        self.requester
    }

    /// Is Bus Master Enable set? Without it the function may neither reach
    /// memory nor send messages.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.config.command() & config::COMMAND_BUS_MASTER != 0
    }

    /// Is INTx# asserted? Only ever with MSI-X off.
    #[must_use]
    pub fn intx(&self) -> bool {
        self.transport.isr != 0
            && !self.msix.enabled()
            && self.config.command() & config::COMMAND_INTX_DISABLE == 0
    }

    /// The transport's state.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Where BAR `index` was placed, if it was.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<Gpa> {
        self.config.bar(index.into()).map(|b| Gpa(b.into()))
    }

    /// Bytes of BAR `index`; 0 if there is none.
    #[must_use]
    pub fn bar_size(&self, index: u8) -> u32 {
        self.config.bar_size(index.into())
    }

    /// Which BAR answers at `address`, and at which offset.
    #[must_use]
    pub fn decode(&self, address: Gpa) -> Option<(u8, u64)> {
        self.config.decode(address)
    }

    /// Read configuration space: 1, 2 or 4 bytes. Reading the window of the
    /// PCI access capability reads a BAR (virtio 1.2 §4.1.4.9).
    pub fn config_read(&mut self, device: &dyn Device, offset: u16, size: u8) -> u32 {
        if self.touches_window(offset, size)
            && let Some((bar, at, length)) = self.window()
        {
            let value = self.bar_read(device, bar, at, length);
            let window = self.access_capability + virtio::CAP_WINDOW as u16;
            self.config.write(window, 4, value as u32);
        }
        self.config.read(offset, size)
    }

    /// Write configuration space: 1, 2 or 4 bytes.
    pub fn config_write(
        &mut self,
        dma: Dma<'_>,
        device: &mut dyn Device,
        offset: u16,
        size: u8,
        value: u32,
    ) {
        self.config.write(offset, size.min(4), value);
        let control = self
            .config
            .u16(self.msix_capability.saturating_add(msix::CONTROL));
        let free = self.msix.set_control(control);
        self.send(dma, &free);
        if self.touches_window(offset, size)
            && let Some((bar, at, length)) = self.window()
        {
            let window = self.access_capability + virtio::CAP_WINDOW as u16;
            let value = self.config.read(window, length);
            self.bar_write(dma, device, bar, at, length, value.into());
        }
    }

    /// Read BAR `bar`; any offset, 1 to 8 bytes. What is not there reads as
    /// zero.
    pub fn bar_read(&mut self, device: &dyn Device, bar: u8, offset: u64, size: u8) -> u64 {
        let size = size.min(8);
        if bar == layout::MSIX_BAR {
            return if offset >= layout::MSIX_PBA {
                self.msix.pba_read(offset - layout::MSIX_PBA, size)
            } else {
                self.msix.table_read(offset, size)
            };
        }
        if bar != layout::TRANSPORT_BAR {
            return 0;
        }
        let at = offset % layout::PAGE;
        match offset - at {
            layout::COMMON => self.transport.common_read(at, size),
            layout::ISR if at == 0 => {
                // Reading acknowledges (§4.1.4.5).
                let isr = std::mem::take(&mut self.transport.isr);
                self.config.set_interrupt_status(false);
                read_bytes(size, |i| (i == 0).then_some(isr))
            }
            layout::DEVICE => device.config_read(at, size),
            _ => 0,
        }
    }

    /// Is the device's own configuration there?
    #[must_use]
    pub fn is_device_configuration(bar: u8, offset: u64) -> bool {
        bar == layout::TRANSPORT_BAR && offset - offset % layout::PAGE == layout::DEVICE
    }

    /// Write BAR `bar`; any offset, 1 to 8 bytes.
    pub fn bar_write(
        &mut self,
        dma: Dma<'_>,
        device: &mut dyn Device,
        bar: u8,
        offset: u64,
        size: u8,
        value: u64,
    ) {
        if bar == layout::MSIX_BAR {
            if offset < layout::MSIX_PBA {
                let free = self.msix.table_write(offset, size, value);
                self.send(dma, &free);
            }
            return;
        }
        if bar != layout::TRANSPORT_BAR {
            return;
        }
        let at = offset % layout::PAGE;
        match offset - at {
            layout::COMMON => {
                let vectors = self.msix.vectors();
                match self.transport.common_write(at, size, value, vectors) {
                    Effect::None => {}
                    Effect::Enabled(queue, areas) => {
                        dma.env().scenario.journal().emit(Event::Queue {
                            device: self.requester,
                            queue,
                            areas,
                        });
                    }
                    Effect::Reset => self.reset(dma, device),
                    Effect::Broken(error) => self.fail(dma, error),
                }
            }
            layout::DEVICE => device.config_write(at, size, value),
            layout::NOTIFY => self.notify(dma, device, at),
            _ => {}
        }
    }

    /// A doorbell: only noted; the device works when it is stepped.
    fn notify(&mut self, dma: Dma<'_>, device: &mut dyn Device, at: u64) {
        let multiplier = u64::from(layout::NOTIFY_MULTIPLIER);
        let queue = at / multiplier;
        if !at.is_multiple_of(multiplier) || queue >= u64::from(self.transport.queue_count()) {
            return;
        }
        let queue = queue as u16;
        dma.env().scenario.journal().emit(Event::Notify {
            device: self.requester,
            queue,
            available: self.transport.peek_available(dma, queue),
        });
        device.notify(queue);
    }

    fn reset(&mut self, dma: Dma<'_>, device: &mut dyn Device) {
        dma.cancel_all();
        self.transport.reset();
        self.msix.clear_pending();
        self.config.set_interrupt_status(false);
        device.reset(dma);
        self.tell_state(dma, "RESET");
    }

    /// Mint a context for what the device does of its own accord, told as of
    /// [`NO_QUEUE`]: `number` counts such works, `part` says which of several
    /// it is.
    pub fn mint(&mut self, dma: Dma<'_>, number: u16, part: u16) -> ContextId {
        let context = self.transport.mint_own();
        dma.env().scenario.journal().emit(Event::Context {
            context,
            device: self.requester,
            queue: NO_QUEUE,
            position: number,
            head: part,
        });
        context
    }

    /// Take the next available buffer of `queue` (a ring operation).
    ///
    /// # Errors
    /// [`RingError`]; the device then needs a reset, and the driver was told.
    pub fn pop(&mut self, dma: Dma<'_>, queue: u16) -> Result<Option<Chain>, RingError> {
        let result = self.transport.pop(dma, self.requester, queue);
        self.or_fail(dma, result)
    }

    /// Give a buffer back with `length` bytes written (a ring operation).
    ///
    /// # Errors
    /// As [`Function::pop`].
    pub fn add_used(
        &mut self,
        dma: Dma<'_>,
        queue: u16,
        head: u16,
        length: u32,
    ) -> Result<(), RingError> {
        let result = self.transport.add_used(dma, queue, head, length);
        self.or_fail(dma, result)
    }

    /// Does the driver want an interrupt for used buffers of `queue` (a ring
    /// operation)?
    ///
    /// # Errors
    /// As [`Function::pop`].
    pub fn wants_interrupt(&mut self, dma: Dma<'_>, queue: u16) -> Result<bool, RingError> {
        let result = self.transport.wants_interrupt(dma, queue);
        self.or_fail(dma, result)
    }

    /// Interrupt for used buffers of `queue`.
    pub fn interrupt(&mut self, dma: Dma<'_>, queue: u16) {
        let vector = self.transport.queue_vector(queue);
        self.signal(dma, vector, virtio::ISR_QUEUE);
    }

    /// The device configuration changed: another generation (§4.1.4.3.1), and
    /// an interrupt once DRIVER_OK is set.
    pub fn config_changed(&mut self, dma: Dma<'_>) {
        self.transport.next_generation();
        self.interrupt_config(dma);
    }

    /// A driver hears of nothing before DRIVER_OK (§2.1.2).
    fn interrupt_config(&mut self, dma: Dma<'_>) {
        if self.transport.status() & virtio::STATUS_DRIVER_OK == 0 {
            return;
        }
        let vector = self.transport.config_vector();
        self.signal(dma, vector, virtio::ISR_CONFIG);
    }

    /// Stop until the driver resets the device: DEVICE_NEEDS_RESET, with the
    /// interrupt that §2.1.2 asks for once DRIVER_OK is set. Accesses in
    /// flight are given up.
    pub fn fail(&mut self, dma: Dma<'_>, error: RingError) {
        if !self.transport.fail(error) {
            return;
        }
        dma.cancel_all();
        self.tell_state(dma, &format!("DEVICE_NEEDS_RESET: {error}"));
        self.interrupt_config(dma);
    }

    fn or_fail<T>(&mut self, dma: Dma<'_>, result: Result<T, RingError>) -> Result<T, RingError> {
        if let Err(error) = &result {
            self.fail(dma, *error);
        }
        result
    }

    /// §4.1.5.1: a message with MSI-X on, the status byte and INTx# with it
    /// off.
    fn signal(&mut self, dma: Dma<'_>, vector: u16, cause: u8) {
        if self.msix.enabled() {
            let message = self.msix.signal(vector);
            self.send(dma, message.as_slice());
        } else {
            self.transport.isr |= cause;
            self.config.set_interrupt_status(true);
        }
    }

    fn send(&self, dma: Dma<'_>, messages: &[Message]) {
        for &(address, data) in messages {
            // A refusal is recorded by the bus; a device hears nothing of it.
            let _ = dma.message(address, data);
        }
    }

    fn tell_state(&self, dma: Dma<'_>, state: &str) {
        let journal = dma.env().scenario.journal();
        let state = journal.name(state);
        journal.emit(Event::DeviceState {
            device: self.requester,
            state,
        });
    }

    fn touches_window(&self, offset: u16, size: u8) -> bool {
        let window = u32::from(self.access_capability) + virtio::CAP_WINDOW as u32;
        let (start, end) = (u32::from(offset), u32::from(offset) + u32::from(size));
        self.access_capability != 0 && start < window + 4 && window < end
    }

    /// Where the PCI access capability points: BAR, offset, bytes. The driver
    /// may write anything there; only what §4.1.4.9 allows is done.
    fn window(&self) -> Option<(u8, u64, u8)> {
        let field = |at: usize, size| self.config.read(self.access_capability + at as u16, size);
        let bar = field(virtio::CAP_BAR, 1) as u8;
        let offset = field(virtio::CAP_OFFSET, 4);
        let length = field(virtio::CAP_LENGTH, 4);
        let fits = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        let inside = offset < self.bar_size(bar);
        (fits && inside).then_some((bar, offset.into(), length as u8))
    }
}
