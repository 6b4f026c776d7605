//! Split virtqueues (virtio 1.2 §2.7), by virtio-queue, over [`Dma`].
//!
//! What virtio-queue 0.18 does not do for us, and what is done here instead:
//! - `DescriptorChain::next` and the available iterator turn a fault or a
//!   malformed chain into a shorter chain or an empty queue: after each
//!   operation the fault latched in `Dma` is asked for, and a chain whose
//!   last descriptor says that more follow is malformed.
//! - `needs_notification` knows no VIRTQ_AVAIL_F_NO_INTERRUPT, and
//!   `QueueState` loses its `num_added`: [`Transport::wants_interrupt`].
//! - A head or an element that is out of bounds is logged as an error at
//!   every try: the device stops at the first.
//! - An available ring at device address 0, where an IOMMU may well put it,
//!   counts as "not ready": such a queue cannot be enabled.

use super::Transport;
use crate::spec::virtio as spec;
use iommu::Dma;
use journal::event::{self, ContextId, Event};
use memory::{Iova, RequesterId};
use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use thiserror::Error;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};

/// Most descriptors taken from one chain, direct or indirect. Linux may go
/// past the queue size with indirect tables, never past this.
pub const MAX_CHAIN: usize = 1024;

/// Why a queue cannot go on. No address in it: the journal's fault event has
/// that.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum RingError {
    /// The IOMMU refused an access to a ring.
    #[error("queue {0}: a ring access faulted")]
    Fault(u16),
    /// The available index ran ahead by more than the queue holds.
    #[error("queue {0}: the available index is out of bounds")]
    Index(u16),
    /// No valid chain: it loops, leaves its table, nests indirect tables, has
    /// readable after writable descriptors, no descriptor, or too many.
    #[error("queue {0}: a descriptor chain is malformed")]
    Chain(u16),
    /// Enabled with addresses that are not aligned, or an available ring at 0.
    #[error("queue {0}: enabled with an impossible address")]
    Address(u16),
    /// The scenario stops the device.
    #[error("queue {0}: the device stopped in the middle of its work")]
    Stopped(u16),
}

impl RingError {
    /// Which queue.
    #[must_use]
    pub fn queue(&self) -> u16 {
        match *self {
            Self::Fault(q)
            | Self::Index(q)
            | Self::Chain(q)
            | Self::Address(q)
            | Self::Stopped(q) => q,
        }
    }
}

/// A contiguous piece of a buffer, in device addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// First byte.
    pub iova: Iova,
    /// Bytes; not 0.
    pub length: u32,
}

/// One buffer that the driver made available.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its queue.
    pub queue: u16,
    /// Its head descriptor, for the used ring.
    pub head: u16,
    /// The context minted for it.
    pub context: ContextId,
    /// What the device reads, in order.
    pub readable: Vec<Segment>,
    /// What the device writes, in order.
    pub writable: Vec<Segment>,
}

/// One queue. Plain data: virtio-queue's `Queue` is made anew for each
/// operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Virtqueue {
    pub(super) state: QueueState,
    pub(super) vector: u16,
}

impl Hash for Virtqueue {
    /// virtio-queue's `QueueState` has no `Hash` of its own.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { state, vector } = self;
        (vector, state.max_size, state.size, state.ready).hash(hasher);
        (state.next_avail, state.next_used, state.event_idx_enabled).hash(hasher);
        (state.desc_table, state.avail_ring, state.used_ring).hash(hasher);
    }
}

impl Virtqueue {
    pub(super) fn new(max_size: u16) -> Self {
        Self {
            state: QueueState {
                max_size,
                size: max_size,
                ..QueueState::default()
            },
            vector: spec::NO_VECTOR,
        }
    }

    pub(super) fn max_size(&self) -> u16 {
        self.state.max_size
    }

    pub(super) fn enable(&mut self, index: u16) -> Result<(), RingError> {
        let ready = QueueState {
            ready: true,
            ..self.state
        };
        if ready.avail_ring == 0 || Queue::try_from(ready).is_err() {
            return Err(RingError::Address(index));
        }
        self.state = ready;
        Ok(())
    }

    /// Descriptor table, available ring, used ring (§2.7): where and how
    /// many bytes, event words aside.
    pub(super) fn areas(&self) -> [event::Segment; 3] {
        let state = &self.state;
        let size = u32::from(state.size);
        [
            (state.desc_table, 16 * size),
            (state.avail_ring, 4 + 2 * size),
            (state.used_ring, 4 + 8 * size),
        ]
        .map(|(address, length)| event::Segment {
            iova: Iova(address),
            length,
        })
    }
}

impl Transport {
    /// Descriptor table, available ring and used ring of a queue that is
    /// enabled.
    #[must_use]
    pub fn areas(&self, queue: u16) -> Option<[event::Segment; 3]> {
        let queue = self.queues.get(usize::from(queue))?;
        queue.state.ready.then(|| queue.areas())
    }

    /// May the device use `queue`?
    #[must_use]
    pub fn queue_ready(&self, queue: u16) -> bool {
        self.queues
            .get(usize::from(queue))
            .is_some_and(|q| q.state.ready)
    }

    pub(crate) fn queue_count(&self) -> u16 {
        self.queues.len() as u16
    }

    /// The available index of `queue`, looked at without a trace.
    pub(crate) fn peek_available(&self, dma: Dma<'_>, queue: u16) -> Option<u16> {
        let state = self.queues.get(usize::from(queue))?.state;
        let address = state.avail_ring.checked_add(spec::AVAIL_INDEX)?;
        let mut index = [0; 2];
        (state.ready && dma.peek(Iova(address), &mut index)).then(|| u16::from_le_bytes(index))
    }

    /// Take the next available buffer of `queue`, and mint its context.
    pub(crate) fn pop(
        &mut self,
        dma: Dma<'_>,
        device: RequesterId,
        index: u16,
    ) -> Result<Option<Chain>, RingError> {
        let Some(mut queue) = self.rebuild(index)? else {
            return Ok(None);
        };
        // Only faults of this operation count.
        let _ = dma.latched_fault();
        let position = queue.next_avail();
        let context = self.next_context();
        let own = dma.with_context(context);
        let minted = Cell::new(false);
        let memory = Provenance {
            ring: &dma,
            own: &own,
            minted: &minted,
        };
        let chain = match queue.iter(memory) {
            Ok(mut heads) => Ok(heads.next()),
            Err(_) => Err(RingError::Index(index)),
        };
        let Some(chain) = checked(dma, index, chain)? else {
            return Ok(None);
        };
        self.mint(context);
        minted.set(true);
        let head = chain.head_index();
        dma.env().scenario.journal().emit(Event::Context {
            context,
            device,
            queue: index,
            position,
            head,
        });
        let parts = split(chain, index);
        let (readable, writable) = checked(own, index, parts)?;
        self.keep(index, &queue);
        Ok(Some(Chain {
            queue: index,
            head,
            context,
            readable,
            writable,
        }))
    }

    /// Give a buffer back, with `length` bytes written into it.
    pub(crate) fn add_used(
        &mut self,
        dma: Dma<'_>,
        index: u16,
        head: u16,
        length: u32,
    ) -> Result<(), RingError> {
        let Some(mut queue) = self.rebuild(index)? else {
            return Ok(());
        };
        let _ = dma.latched_fault();
        let added = queue.add_used(&dma, head, length);
        checked(dma, index, added.map_err(|_| RingError::Chain(index)))?;
        self.keep(index, &queue);
        Ok(())
    }

    /// Does the driver want to be interrupted for used buffers (§2.7.7.2)?
    pub(crate) fn wants_interrupt(&self, dma: Dma<'_>, index: u16) -> Result<bool, RingError> {
        let Some(queue) = self.queues.get(usize::from(index)) else {
            return Ok(false);
        };
        let mut flags = [0; 2];
        dma.read(Iova(queue.state.avail_ring), &mut flags)
            .map_err(|_| RingError::Fault(index))?;
        Ok(u16::from_le_bytes(flags) & spec::AVAIL_NO_INTERRUPT == 0)
    }

    /// The queue as virtio-queue knows it, if it is enabled.
    fn rebuild(&self, index: u16) -> Result<Option<Queue>, RingError> {
        match self.queues.get(usize::from(index)) {
            Some(queue) if queue.state.ready => Queue::try_from(queue.state)
                .map(Some)
                .map_err(|_| RingError::Address(index)),
            _ => Ok(None),
        }
    }

    fn keep(&mut self, index: u16, queue: &Queue) {
        if let Some(kept) = self.queues.get_mut(usize::from(index)) {
            kept.state = queue.state();
        }
    }
}

/// Memory as virtio-queue sees it while a buffer is taken: the available ring
/// is read by the device itself, the descriptors already for the command.
/// virtio-queue hands the same memory on from the one to the other.
#[derive(Clone)]
struct Provenance<'d, 'a> {
    ring: &'d Dma<'a>,
    own: &'d Dma<'a>,
    minted: &'d Cell<bool>,
}

impl<'a> Deref for Provenance<'_, 'a> {
    type Target = Dma<'a>;

    fn deref(&self) -> &Dma<'a> {
        if self.minted.get() {
            self.own
        } else {
            self.ring
        }
    }
}

/// A fault that virtio-queue swallowed comes before what it made of it.
fn checked<T>(dma: Dma<'_>, queue: u16, result: Result<T, RingError>) -> Result<T, RingError> {
    match dma.latched_fault() {
        Some(_) => Err(RingError::Fault(queue)),
        None => result,
    }
}

type Parts = (Vec<Segment>, Vec<Segment>);

/// Read a chain to its end, and part what the device reads from what it
/// writes (§2.7.4.2: the readable come first).
fn split<M>(chain: virtio_queue::DescriptorChain<M>, queue: u16) -> Result<Parts, RingError>
where
    M: Deref,
    M::Target: vm_memory::GuestMemory,
{
    let malformed = RingError::Chain(queue);
    let (mut readable, mut writable) = (Vec::new(), Vec::new());
    let mut more = true;
    for (count, descriptor) in chain.enumerate() {
        if count >= MAX_CHAIN {
            return Err(malformed);
        }
        more = descriptor.has_next();
        let segment = Segment {
            iova: Iova(descriptor.addr().0),
            length: descriptor.len(),
        };
        let part = match (descriptor.is_write_only(), writable.is_empty()) {
            (true, _) => &mut writable,
            (false, true) => &mut readable,
            (false, false) => return Err(malformed),
        };
        if segment.length != 0 {
            part.push(segment);
        }
    }
    // Still true for a chain without any descriptor.
    if more {
        Err(malformed)
    } else {
        Ok((readable, writable))
    }
}
