//! What devices and remapping unit share: accesses in flight, messages, the
//! faults that a library swallowed.

use crate::fault::Fault;
use crate::in_flight::InFlight;
use memory::RequesterId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Messages kept for a machine that does not take them; further ones are
/// refused.
pub(crate) const MAX_MESSAGES: usize = 1 << 16;

/// An interrupt request: a write into 0xFEE00000–0xFEEFFFFF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who sent it; `None`: the remapping unit itself.
    pub device: Option<RequesterId>,
    /// Address of the write.
    pub address: u64,
    /// Data of the write.
    pub data: u32,
}

/// State of the shared part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BusState {
    pub(crate) in_flight: InFlight,
    pub(crate) messages: Vec<Message>,
    pub(crate) latched: BTreeMap<RequesterId, Fault>,
}

/// The shared part.
#[derive(Debug, Default)]
pub struct Bus {
    pub(crate) in_flight: RefCell<InFlight>,
    pub(crate) messages: RefCell<Vec<Message>>,
    /// The first fault of each device that vm-memory's traits swallowed.
    pub(crate) latched: RefCell<BTreeMap<RequesterId, Fault>>,
    /// Views of memory that somebody holds at this moment
    /// ([`crate::Slices`]); an invalidation waits for them.
    pub(crate) views: Cell<u32>,
    /// The queue was told to run while a view was held. Like the views, gone
    /// between two calls of a device: no part of the state.
    pub(crate) deferred: Cell<bool>,
}

impl Bus {
    /// Queue a message; false if the machine has stopped taking them.
    pub(crate) fn send(&self, message: Message) -> bool {
        let mut messages = self.messages.borrow_mut();
        let room = messages.len() < MAX_MESSAGES;
        if room {
            messages.push(message);
        }
        room
    }

    pub(crate) fn save(&self) -> BusState {
        BusState {
            in_flight: self.in_flight.borrow().clone(),
            messages: self.messages.borrow().clone(),
            latched: self.latched.borrow().clone(),
        }
    }

    pub(crate) fn restore(&self, state: &BusState) {
        self.in_flight.borrow_mut().clone_from(&state.in_flight);
        self.messages.borrow_mut().clone_from(&state.messages);
        self.latched.borrow_mut().clone_from(&state.latched);
    }
}
