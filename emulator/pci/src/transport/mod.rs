//! State of the virtio-pci transport: features, device status, queues,
//! interrupt status (virtio 1.2 §2.1, §2.2, §4.1).

mod common;
mod foresee;
mod queue;

pub use queue::{Chain, MAX_CHAIN, RingError, Segment};

use crate::spec::virtio as spec;
use journal::event::{self, ContextId};
use queue::Virtqueue;

/// The transport's state. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transport {
    /// What the device offers; a copy, so that registers need no device.
    offered: u64,
    /// What FEATURES_OK needs.
    required: u64,
    /// What the driver takes.
    accepted: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: u8,
    config_vector: u16,
    config_generation: u8,
    queue_select: u16,
    queues: Vec<Virtqueue>,
    pub(crate) isr: u8,
    /// Contexts minted so far; survives a reset, so that no id comes twice.
    contexts: u32,
    /// Why the device needs a reset.
    failure: Option<RingError>,
}

/// What a register write asks of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    None,
    /// Status 0 was written.
    Reset,
    /// The driver enabled this queue, whose rings lie there.
    Enabled(u16, [event::Segment; 3]),
    /// The driver enabled a queue whose addresses cannot be.
    Broken(RingError),
}

impl Transport {
    /// Queues of these maximum sizes.
    pub(crate) fn new(offered: u64, required: u64, queues: &[u16]) -> Self {
        Self {
            offered,
            required,
            accepted: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            status: 0,
            config_vector: spec::NO_VECTOR,
            config_generation: 0,
            queue_select: 0,
            queues: queues.iter().map(|&size| Virtqueue::new(size)).collect(),
            isr: 0,
            contexts: 0,
            failure: None,
        }
    }

    /// Device status (§2.1).
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }

    /// May the device use its queues?
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.status & (spec::STATUS_DRIVER_OK | spec::STATUS_NEEDS_RESET) == spec::STATUS_DRIVER_OK
    }

    /// Features that the driver took; 0 until FEATURES_OK.
    #[must_use]
    pub fn features(&self) -> u64 {
        if self.status & spec::STATUS_FEATURES_OK == 0 {
            0
        } else {
            self.accepted
        }
    }

    /// Why the device needs a reset, if it does.
    #[must_use]
    pub fn failure(&self) -> Option<&RingError> {
        self.failure.as_ref()
    }

    /// Vector of configuration changes.
    pub(crate) fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// Vector of a queue.
    pub(crate) fn queue_vector(&self, queue: u16) -> u16 {
        self.queues
            .get(usize::from(queue))
            .map_or(spec::NO_VECTOR, |q| q.vector)
    }

    /// The device configuration is no longer what it was.
    pub(crate) fn next_generation(&mut self) {
        self.config_generation = self.config_generation.wrapping_add(1);
    }

    /// Note that the device cannot go on. False if that is known already.
    pub(crate) fn fail(&mut self, error: RingError) -> bool {
        let news = self.status & spec::STATUS_NEEDS_RESET == 0;
        self.status |= spec::STATUS_NEEDS_RESET;
        if news {
            self.failure = Some(error);
        }
        news
    }

    /// Back to the state after power-on (§2.4); context ids go on.
    pub(crate) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(Virtqueue::max_size).collect();
        let contexts = self.contexts;
        *self = Self::new(self.offered, self.required, &sizes);
        self.contexts = contexts;
    }

    /// A context id that was never used; [`Transport::mint`] uses it.
    fn next_context(&self) -> ContextId {
        // 0 is ring housekeeping; after 2^32 commands ids begin anew.
        ContextId(self.contexts.wrapping_add(1).max(1))
    }

    /// A context of the device's own, which no buffer brought.
    pub(crate) fn mint_own(&mut self) -> ContextId {
        let context = self.next_context();
        self.mint(context);
        context
    }

    fn mint(&mut self, context: ContextId) {
        self.contexts = context.0;
    }

    /// The driver writes the status register (§2.1.1: it sets bits, and
    /// clears them all by writing 0).
    fn set_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        let mut set =
            value & (spec::STATUS_ACKNOWLEDGE | spec::STATUS_DRIVER | spec::STATUS_FAILED);
        let acceptable =
            self.accepted & !self.offered == 0 && self.accepted & self.required == self.required;
        if value & spec::STATUS_FEATURES_OK != 0 && acceptable {
            set |= spec::STATUS_FEATURES_OK;
        }
        // Without agreed features there is no format to drive the rings by.
        if value & spec::STATUS_DRIVER_OK != 0
            && (self.status | set) & spec::STATUS_FEATURES_OK != 0
        {
            set |= spec::STATUS_DRIVER_OK;
        }
        self.status |= set;
        Effect::None
    }
}
