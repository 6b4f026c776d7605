//! What can be asked of the device without touching anything.

use super::Board;
use gpu::{Owned, ResourceFacts};
use iommu::Mapping;
use memory::{GuestMemory, RequesterId, Slot};
use std::sync::mpsc::Sender;
use std::time::Instant;

/// What the device may reach at one moment, and what of it is its business.
#[derive(Debug)]
pub(crate) struct Look {
    pub device: RequesterId,
    pub bus_master: bool,
    pub mappings: Vec<Mapping>,
    pub owned: Vec<Owned>,
    /// Guest RAM, bytes, and where it lies.
    pub memory: u64,
    pub slots: Vec<Slot>,
}

/// A DMA_UNMAP, or an UNMAP request of our own unit, for who watches them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unmapped {
    pub at: Instant,
    pub address: u64,
    pub size: u64,
}

impl Board {
    /// What the device may reach, and what of it is its business.
    pub fn look(&mut self) -> Look {
        let (gpu, dma) = self.device();
        let owned = gpu.owned(dma);
        Look {
            device: self.gpu.requester(),
            bus_master: self.gpu.bus_master(),
            mappings: self.mappings(),
            owned,
            memory: self.memory.size(),
            slots: self.memory.slots(),
        }
    }

    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    pub fn resources(&self) -> Vec<ResourceFacts> {
        self.gpu.resources()
    }

    /// Tell `watcher` of each unmap from now on, and nobody else.
    pub fn watch(&mut self, watcher: Sender<Unmapped>) {
        self.watcher = Some(watcher);
    }

    /// The client unmaps something, or the guest by our unit.
    pub(super) fn tell_watcher(&mut self, address: u64, size: u64) {
        if let Some(watcher) = &self.watcher {
            let at = Instant::now();
            if watcher.send(Unmapped { at, address, size }).is_err() {
                self.watcher = None;
            }
        }
    }
}
