//! What a display driver sees of Windows.
//!
//! It works over a memory and a CPU that it is given ([`Platform`]) and
//! knows nothing of KVM.
#![forbid(unsafe_code)]

pub mod call;
pub mod dxgk;
pub mod executive;
pub mod hal;
pub mod injected;
pub mod layout;
pub mod loader;
mod lookaside;
pub mod mm;
pub mod platform;
pub mod processor;
pub mod rules;
pub mod services;
pub mod status;

pub use call::{Call, Outcome, Stop, Wait};
pub use platform::{Platform, PlatformError, Protection};

use ::memory::Gva;
use std::collections::BTreeMap;

/// Windows, as far as one display driver sees it. Plain data: cloning it is
/// a snapshot.
#[derive(Clone, Debug, Hash)]
pub struct Windows {
    /// IRQL, threads, events, DPCs, registry, the I/O manager.
    pub executive: executive::State,
    /// Page frames, MDLs, pool, contiguous memory.
    pub mm: mm::State,
    /// The programming of the IOMMU and of PCI.
    pub hal: hal::State,
    /// The adapter.
    pub dxgk: dxgk::State,
    /// Where the driver was loaded.
    pub(crate) image_base: Gva,
    pub(crate) image_size: u32,
    pub(crate) entry: Gva,
    /// Names of the routines that the driver imports.
    pub(crate) imports: Vec<String>,
    /// Offsets of the guest-code helpers from [`layout::HELPERS`].
    helpers: BTreeMap<String, u64>,
    /// Name of each thunk, by its index.
    thunks: Vec<String>,
    /// First thunk that guest memory does not have yet.
    thunks_written: usize,
    /// `module!name` of each missing import, by its page.
    missing: Vec<String>,
    /// Addresses given out so far.
    resolved: BTreeMap<String, Gva>,
}

impl Windows {
    /// Windows before any driver. `helpers` are names and offsets of guest
    /// code at [`layout::HELPERS`].
    #[must_use]
    pub fn new(
        executive: executive::State,
        mm: mm::State,
        hal: hal::State,
        dxgk: dxgk::State,
        helpers: impl IntoIterator<Item = (String, u64)>,
    ) -> Self {
        Self {
            executive,
            mm,
            hal,
            dxgk,
            image_base: Gva(0),
            image_size: 0,
            entry: Gva(0),
            imports: Vec::new(),
            helpers: helpers.into_iter().collect(),
            thunks: Vec::new(),
            thunks_written: 0,
            missing: Vec::new(),
            resolved: BTreeMap::new(),
        }
    }

    /// The driver is loaded there.
    pub fn set_image(&mut self, base: Gva, size: u32, entry: Gva) {
        self.image_base = base;
        self.image_size = size;
        self.entry = entry;
    }

    /// The driver imports these routines.
    pub fn set_imports(&mut self, names: Vec<String>) {
        self.imports = names;
    }

    /// Where the driver was loaded, and its size in bytes.
    #[must_use]
    pub fn image(&self) -> (Gva, u32) {
        (self.image_base, self.image_size)
    }

    /// Thunks that guest memory does not have yet (first index, count); from
    /// now on it has them.
    pub fn take_new_thunks(&mut self) -> (usize, usize) {
        let first = std::mem::replace(&mut self.thunks_written, self.thunks.len());
        (first, self.thunks.len() - first)
    }
}
