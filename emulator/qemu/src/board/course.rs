//! Whether the guest ever used the device, and what its IOMMU then let the
//! device reach: what a run without findings is worth.

use super::Board;
use iommu::Mapping;
use journal::event::Event;

/// What came of it so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Course {
    /// The driver has started the device, and not reset it since.
    live: bool,
    /// It did so at least once.
    driven: bool,
    /// When it last did, the device could reach all of memory by its physical
    /// address.
    open: bool,
}

impl Board {
    /// The guest may have started the device, or reset it.
    pub(super) fn follow(&mut self) {
        let live = self.gpu.function().transport().is_live();
        if live && !self.course.live {
            self.course.driven = true;
            self.course.open = self.reaches_all();
        }
        self.course.live = live;
    }

    /// Is most of memory mapped at its own address? A guest that isolates maps
    /// what it hands out, and a few reserved ranges.
    fn reaches_all(&self) -> bool {
        let identity = |mapping: Mapping| {
            let same = mapping.target.is_some_and(|gpa| gpa.0 == mapping.iova.0);
            if same { mapping.length } else { 0 }
        };
        let reached = self.mappings().into_iter().map(identity);
        let reached = reached.fold(0u64, u64::saturating_add);
        reached >= self.memory.size() / 2
    }

    /// Say what somebody who reads that nothing was found must know.
    pub(super) fn tell_course(&self) {
        let text = if !self.course.driven {
            "the guest never started the GPU, so nothing was checked: it has no driver for it, \
             or that waits for a driver of the guest's IOMMU"
        } else if self.course.open {
            "the GPU is not isolated: when its driver last started it, the guest let it reach \
             all of memory at its physical addresses. Its IOMMU is off, or passes the GPU through"
        } else {
            return;
        };
        self.scenario.journal().emit(Event::Note {
            text: text.to_owned(),
        });
    }
}
