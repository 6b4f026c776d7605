//! What a run is made of.

use gpu::VendorRegion;
use journal::event;
use memory::RequesterId;
use scenario::Plan;
use windows::dxgk::{DomainMode, IommuFlags};

/// Guest RAM unless told otherwise, bytes.
pub const DEFAULT_MEMORY: u64 = 256 << 20;
/// Frames held back after a free unless told otherwise.
pub const DEFAULT_QUARANTINE: u64 = 4096;
/// The device behind the IOMMU.
pub const DEVICE: RequesterId = RequesterId::new(0, 2, 0);

/// Everything that shapes a run but the driver itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the device may reach.
    pub domain: DomainMode,
    /// The registry value IOMMUFlags, besides what `domain` stands for.
    pub iommu_flags: IommuFlags,
    /// Does DxgkCbPinFrameBufferForSave find the memory? Else the driver has
    /// to save its frame buffer piece by piece.
    pub framebuffer_pin: bool,
    /// Registry values for the driver.
    pub settings: Vec<(String, String)>,
    /// Choices, seed and workload.
    pub plan: Plan,
    /// Go on after a bug check where that makes sense?
    pub keep_going: bool,
    /// Frames held back after a free.
    pub quarantine: u64,
    /// Guest RAM, bytes.
    pub memory: u64,
    /// Displays of the device, in pixels.
    pub displays: Vec<(u32, u32)>,
    /// A BAR that is nobody's here: what the driver writes there is kept for
    /// [`Machine::vendor_writes`](crate::Machine::vendor_writes), and it reads as zero.
    pub vendor: Option<VendorRegion>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            domain: DomainMode::default(),
            iommu_flags: IommuFlags::default(),
            framebuffer_pin: true,
            settings: Vec::new(),
            plan: Plan::default(),
            keep_going: false,
            quarantine: DEFAULT_QUARANTINE,
            memory: DEFAULT_MEMORY,
            displays: vec![(1024, 768)],
            vendor: None,
        }
    }
}

impl Options {
    /// What a journal says at its beginning, of a driver of this name.
    #[must_use]
    pub fn begin(&self, name: &str) -> event::Begin {
        event::Begin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: name.to_owned(),
            domain: self.domain.name().to_owned(),
            iommu_flags: self.iommu_flags.0,
            framebuffer_pin_fails: !self.framebuffer_pin,
            seed: self.plan.seed,
            scenario: self.plan.name.clone(),
            quarantine: self.quarantine,
            keep_going: self.keep_going,
            settings: self.settings.clone(),
            memory: self.memory,
            device: DEVICE,
        }
    }
}
