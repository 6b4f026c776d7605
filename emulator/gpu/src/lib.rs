//! virtio-gpu, 2D (virtio 1.2 §5.7), as a PCI function and a step machine.
//!
//! [`VirtioGpu`] works only when it is stepped, and a step is one guest
//! access, one ring operation or one interrupt: so a scenario can put
//! anything of the driver's between any two of them. Backing is kept as
//! device addresses and translated at each access; the device holds no
//! pointer into guest memory.
//!
//! Pictures in blob resources are read at each vsync of virtual time, without
//! any command ([`VirtioGpu::next_vsync`]): memory that the driver gives up
//! while it is on a scanout is found by that.
#![forbid(unsafe_code)]

mod blob;
mod command;
mod cursor;
mod device;
mod edid;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod owned;
mod resource;
mod scanout;
pub mod spec;
mod step;
mod tell;
#[cfg(test)]
mod tests;
mod vsync;

pub use command::MAX_ENTRIES;
pub use frame::{Frame, PngError};
pub use owned::{Owned, ResourceFacts, Use};
pub use resource::{MAX_SIDE, Rect};
pub use tell::commands;
pub use vsync::VSYNC_PERIOD;

use device::Gpu;
use iommu::Dma;
use journal::event::Event;
use memory::{Gpa, RequesterId};
pub use pci::VendorRegion;
use pci::spec::config::CLASS_DISPLAY_OTHER;
use pci::{Function, Segment, Setup};
use scenario::AnswerOf;
use step::Job;

/// Most resources at once; a further one is refused with OUT_OF_MEMORY.
pub const MAX_RESOURCES: usize = 4096;
/// Most backing entries of all resources together.
pub const MAX_BACKING_ENTRIES: usize = 1 << 20;
/// Largest side of what a scanout shows, pixels.
pub const MAX_SCANOUT_SIDE: u32 = scenario::MAX_FRAME_SIDE;
/// Entries of the control queue. A command takes at least two descriptors.
pub const CONTROL_QUEUE_SIZE: u16 = 256;
/// Entries of the cursor queue.
pub const CURSOR_QUEUE_SIZE: u16 = 16;
/// Subsystem id of dmasan's GPU.
pub const SUBSYSTEM: u16 = 0xd3a5;

/// What to make a GPU of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuConfig {
    /// Its requester id.
    pub device: RequesterId,
    /// Preferred sizes of its displays in pixels, at most 16, and at most
    /// [`MAX_SCANOUT_SIDE`] a side; with none it has one of 1024 x 768. A
    /// side of 0: no display is plugged in there.
    pub displays: Vec<(u32, u32)>,
    /// Most bytes of pixels of all resources together.
    pub max_pixel_bytes: u64,
    /// Refuse FEATURES_OK to a driver that does not take ACCESS_PLATFORM?
    pub require_access_platform: bool,
    /// A BAR that is none of the GPU's, for whoever serves the device.
    pub vendor: Option<VendorRegion>,
    /// Offer blob resources, whose pictures the device reads by itself?
    pub blobs: bool,
}

impl Default for GpuConfig {
    /// Device 00:02.0 with one display of 1024 x 768, 256 MiB of pixels.
    fn default() -> Self {
        Self {
            device: RequesterId::new(0, 2, 0),
            displays: vec![(1024, 768)],
            max_pixel_bytes: 256 << 20,
            require_access_platform: true,
            vendor: None,
            blobs: true,
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stepped {
    /// Nothing: there is no work.
    Idle,
    /// One access, ring operation or interrupt.
    Progress,
    /// It asked for an access in flight, and that did not land. Only a later
    /// step, [`VirtioGpu::step_landing`] or a draining invalidation goes on.
    Waiting,
}

/// The whole device. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtioGpu {
    function: Function,
    gpu: Gpu,
    /// Is it gone from the bus?
    unplugged: bool,
}

/// A point that a [`VirtioGpu`] can come back to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State(VirtioGpu);

impl VirtioGpu {
    /// A GPU after power-on: BARs not placed, bus mastering off.
    #[must_use]
    pub fn new(config: &GpuConfig) -> Self {
        let gpu = Gpu::new(config);
        let setup = Setup {
            requester: config.device,
            device_type: spec::DEVICE_TYPE,
            subsystem: SUBSYSTEM,
            // Not VGA: there are no VGA registers or memory here, and an OS
            // would bind its VGA driver to the class.
            class: CLASS_DISPLAY_OTHER,
            queues: vec![CONTROL_QUEUE_SIZE, CURSOR_QUEUE_SIZE],
            config_size: spec::CONFIG_SIZE,
            vendor: config.vendor.clone(),
        };
        Self {
            function: Function::new(&setup, &gpu),
            gpu,
            unplugged: false,
        }
    }

    /// The PCI function: BARs, device status, INTx#.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Its requester id.
    #[must_use]
    pub fn requester(&self) -> RequesterId {
        self.function.requester()
    }

    /// Is Bus Master Enable set? Make each [`Dma`] with this.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        !self.unplugged && self.function.bus_master()
    }

    /// Read configuration space: 1, 2 or 4 bytes. No read of the function
    /// reaches memory; reads take a [`Dma`] as writes do.
    pub fn config_read(&mut self, _dma: Dma<'_>, offset: u16, size: u8) -> u32 {
        if self.unplugged {
            return u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)));
        }
        self.function.config_read(&self.gpu, offset, size)
    }

    /// Write configuration space: 1, 2 or 4 bytes.
    pub fn config_write(&mut self, dma: Dma<'_>, offset: u16, size: u8, value: u32) {
        if self.unplugged {
            return;
        }
        self.function
            .config_write(dma, &mut self.gpu, offset, size, value);
    }

    /// Which BAR answers at `address`, and at which offset.
    #[must_use]
    pub fn decode(&self, address: Gpa) -> Option<(u8, u64)> {
        self.function.decode(address)
    }

    /// The CPU reads 1 to 8 bytes; `None` if no BAR is there.
    pub fn mmio_read(&mut self, dma: Dma<'_>, address: Gpa, size: u8) -> Option<u64> {
        let (bar, offset) = self.decode(address)?;
        Some(self.bar_read(dma, bar, offset, size))
    }

    /// The CPU writes 1 to 8 bytes; false if no BAR is there. A doorbell is
    /// only noted: the device works when it is stepped.
    pub fn mmio_write(&mut self, dma: Dma<'_>, address: Gpa, size: u8, value: u64) -> bool {
        let Some((bar, offset)) = self.decode(address) else {
            return false;
        };
        self.bar_write(dma, bar, offset, size, value);
        true
    }

    /// As [`VirtioGpu::mmio_read`], by BAR and offset.
    pub fn bar_read(&mut self, dma: Dma<'_>, bar: u8, offset: u64, size: u8) -> u64 {
        if self.unplugged {
            return u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)));
        }
        let value = self.function.bar_read(&self.gpu, bar, offset, size);
        if !Function::is_device_configuration(bar, offset) {
            return value;
        }
        let mut bytes = value.to_le_bytes();
        let read = bytes.get_mut(..usize::from(size.min(8)));
        let scenario = dma.env().scenario;
        scenario.answer(AnswerOf::Configuration, read.unwrap_or_default());
        u64::from_le_bytes(bytes)
    }

    /// As [`VirtioGpu::mmio_write`], by BAR and offset.
    pub fn bar_write(&mut self, dma: Dma<'_>, bar: u8, offset: u64, size: u8, value: u64) {
        if self.unplugged {
            return;
        }
        self.function
            .bar_write(dma, &mut self.gpu, bar, offset, size, value);
    }

    /// The display of a scanout has another preferred size, is plugged in, or
    /// (a side of 0) is gone: tells the driver (§5.7.4.2). False if there is
    /// no such scanout, or a side is greater than [`MAX_SCANOUT_SIDE`]. What
    /// the scanout shows is the driver's affair.
    pub fn set_display(&mut self, dma: Dma<'_>, scanout: u32, width: u32, height: u32) -> bool {
        if !self.gpu.set_display(scanout, (width, height)) {
            return false;
        }
        self.function.config_changed(dma);
        true
    }

    /// Would a step do something, whatever the time?
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.is_live() && (self.has_command() || self.gpu.vsync.is_busy())
    }

    /// Would a step do something at this virtual time, nanoseconds? As
    /// [`VirtioGpu::has_work`], and true once a vsync is due.
    #[must_use]
    pub fn has_work_at(&self, now: u64) -> bool {
        self.has_work() || self.next_vsync().is_some_and(|due| due <= now)
    }

    /// When the scanouts next read their pictures from blobs in guest memory,
    /// in virtual nanoseconds; `None` while none shows one. A vsync that has
    /// begun is [`VirtioGpu::has_work`].
    #[must_use]
    pub fn next_vsync(&self) -> Option<u64> {
        let live = self.is_live() && self.gpu.is_scanned_out();
        live.then(|| self.gpu.vsync.next())
    }

    /// What the device may write before it is idle, in device addresses: the
    /// used rings, and the writable buffers that it has or can see.
    #[must_use]
    pub fn may_write(&self, dma: Dma<'_>) -> Vec<Segment> {
        /// Descriptors looked at in each queue.
        const LOOK: usize = 2 * CONTROL_QUEUE_SIZE as usize;
        let transport = self.function.transport();
        let mut found = self.gpu.job.as_ref().map_or_else(Vec::new, Job::writes);
        for queue in [spec::CONTROL_QUEUE, spec::CURSOR_QUEUE] {
            found.extend(transport.foresee_writes(dma, queue, LOOK));
        }
        found
    }

    /// Take one step. Whether an access in flight lands is the scenario's
    /// choice.
    pub fn step(&mut self, dma: Dma<'_>) -> Stepped {
        self.advance(dma, false)
    }

    /// Take one step; an access in flight lands. For when nothing else is
    /// left to happen. Never [`Stepped::Waiting`].
    pub fn step_landing(&mut self, dma: Dma<'_>) -> Stepped {
        self.advance(dma, true)
    }

    /// What was last flushed to a scanout, or read at a vsync. It stays when the scanout goes off
    /// or the device is reset.
    #[must_use]
    pub fn frame(&self, scanout: u32) -> Option<&Frame> {
        self.gpu.frame(scanout)
    }

    /// The same with the cursor over it: what a person sees.
    #[must_use]
    pub fn frame_with_cursor(&self, scanout: u32) -> Option<Frame> {
        self.gpu.frame_with_cursor(scanout)
    }

    /// The device is pulled out of its slot: accesses in flight are gone,
    /// reads give all ones, and it does nothing any more.
    pub fn unplug(&mut self, dma: Dma<'_>) {
        self.unplugged = true;
        self.gpu.job = None;
        self.gpu.notified = [false; 2];
        self.gpu.vsync.reset();
        dma.cancel_all();
        let journal = dma.env().journal();
        let state = journal.name("unplugged");
        journal.emit(Event::DeviceState {
            device: self.requester(),
            state,
        });
    }

    fn is_live(&self) -> bool {
        !self.unplugged && self.function.transport().is_live()
    }

    /// A point to come back to.
    #[must_use]
    pub fn save(&self) -> State {
        State(self.clone())
    }

    /// Go back to a point.
    pub fn restore(&mut self, state: &State) {
        self.clone_from(&state.0);
    }
}
