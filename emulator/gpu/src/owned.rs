//! What memory the device has any business with: its rings, the buffers that
//! lie in them, and what backs its resources. Whoever asks what it may reach
//! compares that with this.

use crate::{CONTROL_QUEUE_SIZE, VirtioGpu, spec};
use iommu::Dma;
use journal::event::{self, ContextId, Event};
use memory::Iova;
use std::fmt;

/// Descriptors looked at in each queue.
const LOOK: usize = 4 * CONTROL_QUEUE_SIZE as usize;

/// What a piece of memory is to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// The rings of a queue.
    Ring(u16),
    /// Buffers in a queue, or the one that the device works on.
    Buffer(u16),
    /// Backing of a resource.
    Backing(u32),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(queue) => write!(f, "rings of queue {queue}"),
            Self::Buffer(queue) => write!(f, "buffers in queue {queue}"),
            Self::Backing(resource) => write!(f, "backing of resource {resource}"),
        }
    }
}

/// A piece of memory, in device addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owned {
    /// What it is.
    pub what: Use,
    /// First byte.
    pub iova: Iova,
    /// Bytes.
    pub length: u32,
}

/// A resource, for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceFacts {
    /// Its id.
    pub id: u32,
    /// Sides in pixels; 0 of a blob.
    pub size: (u32, u32),
    /// Bytes of a blob.
    pub blob: Option<u64>,
    /// Bytes and entries of its backing, if it has one.
    pub backing: Option<(u64, usize)>,
    /// Scanouts that show it.
    pub scanouts: Vec<u32>,
}

impl VirtioGpu {
    /// Descriptor table, available ring and used ring of a queue that the
    /// driver enabled.
    #[must_use]
    pub fn rings(&self, queue: u16) -> Option<[event::Segment; 3]> {
        self.function.transport().areas(queue)
    }

    /// What backs each resource, in device addresses; resources ascending.
    pub fn backings(&self) -> impl Iterator<Item = (u32, impl Iterator<Item = (Iova, u32)> + '_)> {
        let resources = self.gpu.resources.iter();
        resources.filter_map(|(&id, resource)| Some((id, resource.backing.as_ref()?.entries())))
    }

    /// Every piece of memory that the device has any business with now. Only
    /// looks: nothing is traced.
    #[must_use]
    pub fn owned(&self, dma: Dma<'_>) -> Vec<Owned> {
        let mut all = Vec::new();
        for queue in [spec::CONTROL_QUEUE, spec::CURSOR_QUEUE] {
            let what = Use::Ring(queue);
            for area in self.rings(queue).into_iter().flatten() {
                let (iova, length) = (area.iova, area.length);
                all.push(Owned { what, iova, length });
            }
            let waiting = self
                .function
                .transport()
                .foresee_buffers(dma, queue, LOOK)
                .into_iter();
            let job = self.gpu.job.iter().filter(|job| job.queue() == queue);
            let what = Use::Buffer(queue);
            all.extend(waiting.chain(job.flat_map(|job| job.buffer())).map(|s| {
                let (iova, length) = (s.iova, s.length);
                Owned { what, iova, length }
            }));
        }
        for (id, entries) in self.backings() {
            let what = Use::Backing(id);
            all.extend(entries.map(|(iova, length)| Owned { what, iova, length }));
        }
        all
    }

    /// Its resources, by id.
    #[must_use]
    pub fn resources(&self) -> Vec<ResourceFacts> {
        let shown = |id: u32| {
            let scanouts = self.gpu.scanouts.iter().enumerate();
            scanouts
                .filter(|(_, scanout)| scanout.resource == id)
                .map(|(number, _)| number as u32)
                .collect()
        };
        let resources = self.gpu.resources.iter();
        resources
            .map(|(&id, resource)| ResourceFacts {
                id,
                size: (resource.width, resource.height),
                blob: resource.blob,
                backing: resource
                    .backing
                    .as_ref()
                    .map(|backing| (backing.length(), backing.entry_count())),
                scanouts: shown(id),
            })
            .collect()
    }

    /// Somebody orders the device to do what no command of the driver's asks
    /// for. Its accesses are made in the context that this gives, which the
    /// journal says is an order.
    pub fn order(&mut self, dma: Dma<'_>, detail: String) -> ContextId {
        let context = self.function.mint(dma, 0, 0);
        let journal = dma.env().journal();
        let name = journal.name(event::ORDERED);
        journal.emit(Event::Command {
            context,
            name,
            detail,
            resource: None,
        });
        context
    }
}
