//! The IOMMU device of virtio 1.2 (§5.13): domains that a guest's driver
//! programs by requests, and fault reports to it. Requests and reports are
//! bytes here; queues and the PCI function are whoever's that has them.
//!
//! There is no IOTLB: the device is told of every change, so that what was
//! requested is what an endpoint may reach, at once and exactly. Accesses in
//! flight land before the request that takes their mapping away is answered.

mod injected;
mod remapper;
mod request;
mod space;
#[cfg(test)]
mod tests;

use crate::bus::{Bus, BusState, Message};
use crate::dma::{Dma, Remapping};
use crate::mirror::Mapping;
use crate::spec::virtio::{self as spec, Status, fault, request as code};
use crate::translate::Env;
use memory::{PAGE_SIZE, RequesterId};
pub(crate) use remapper::Remapper;
use request::Request;
use std::cell::RefCell;

/// Last input address: 48 bits, as four levels of VT-d have.
pub const INPUT_LAST: u64 = (1 << 48) - 1;
/// Last number of a domain.
pub const DOMAIN_LAST: u32 = 0xffff;
/// Bytes of an endpoint's properties.
pub const PROPERTIES: usize = 64;
/// Bytes of a request that are worth reading: the longest has no more.
pub const MAX_REQUEST: usize = code::PROBE_SIZE;

/// State of a [`VirtioIommu`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtioIommuState {
    remapper: Remapper,
    bus: BusState,
}

/// A virtio-iommu: domains, faults that wait to be reported, accesses in
/// flight, messages sent. An endpoint's number is its requester id.
#[derive(Debug)]
pub struct VirtioIommu {
    remapper: RefCell<Remapper>,
    bus: Bus,
}

impl VirtioIommu {
    /// A unit after power-on, which translates for `endpoints`: none is in a
    /// domain, and none reaches anything.
    #[must_use]
    pub fn new(endpoints: &[RequesterId]) -> Self {
        Self {
            remapper: RefCell::new(Remapper::new(endpoints)),
            bus: Bus::default(),
        }
    }

    /// The device configuration (§5.13.4).
    #[must_use]
    pub fn config(&self) -> [u8; spec::CONFIG_SIZE] {
        let mut config = [0; spec::CONFIG_SIZE];
        let fields = [
            &(!(PAGE_SIZE - 1)).to_le_bytes()[..],
            &0u64.to_le_bytes(),
            &INPUT_LAST.to_le_bytes(),
            &0u32.to_le_bytes(),
            &DOMAIN_LAST.to_le_bytes(),
            &(PROPERTIES as u32).to_le_bytes(),
            &[u8::from(self.remapper.borrow().bypass())],
        ];
        for (to, from) in config.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        config
    }

    /// Do endpoints that are in no domain reach everything? False after
    /// power-on; a reset of the device does not change it (§5.13.4.2).
    #[must_use]
    pub fn bypass(&self) -> bool {
        self.remapper.borrow().bypass()
    }

    /// Let endpoints that are in no domain reach everything, or nothing.
    pub fn set_bypass(&self, env: Env<'_>, bypass: bool) {
        self.remapper
            .borrow_mut()
            .set_bypass(env, &self.bus, bypass);
    }

    /// Do a request whose device-readable bytes are `readable`, with room for
    /// `room` device-writable ones. `features` are those that the driver
    /// took. Gives the bytes to write; none: the buffer is given back as it
    /// came (§5.13.6).
    #[must_use]
    pub fn request(&self, env: Env<'_>, features: u64, readable: &[u8], room: usize) -> Vec<u8> {
        let Some(request) = Request::parse(readable, features) else {
            return Vec::new();
        };
        // Without room for a tail there is nowhere to say anything.
        if room < code::TAIL {
            return Vec::new();
        }
        let mut remapper = self.remapper.borrow_mut();
        if let Request::Probe { endpoint } = request {
            let (properties, status) = remapper.probe(endpoint, room - code::TAIL);
            return [properties, tail(status).to_vec()].concat();
        }
        let done = remapper.request(env, &self.bus, features, request);
        tail(done.err().unwrap_or(Status::Ok)).to_vec()
    }

    /// The driver reset the device: no endpoint is in a domain, and no fault
    /// waits. What is in flight lands first.
    pub fn reset(&self, env: Env<'_>) {
        self.remapper.borrow_mut().reset(env, &self.bus);
    }

    /// The oldest fault that was not reported, as its report.
    #[must_use]
    pub fn next_fault(&self) -> Option<[u8; fault::SIZE]> {
        self.remapper.borrow().next_fault()
    }

    /// That one was reported.
    pub fn fault_reported(&self) {
        self.remapper.borrow_mut().fault_reported();
    }

    /// Faults so far, reported or not.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.remapper.borrow().faults()
    }

    /// A device's way to memory. `bus_master`: is Bus Master Enable set?
    pub fn dma<'a>(&'a self, env: Env<'a>, device: RequesterId, bus_master: bool) -> Dma<'a> {
        let remapping = Remapping::Virtio(&self.remapper);
        Dma::new(env, remapping, &self.bus, device, bus_master)
    }

    /// The interrupts that endpoints sent since the last call.
    pub fn take_messages(&self) -> Vec<Message> {
        std::mem::take(&mut *self.bus.messages.borrow_mut())
    }

    /// Did they send any?
    #[must_use]
    pub fn has_messages(&self) -> bool {
        !self.bus.messages.borrow().is_empty()
    }

    /// What an endpoint may reach, ascending by address. In bypass mode that
    /// is all of RAM.
    #[must_use]
    pub fn mappings(&self, env: Env<'_>, device: RequesterId) -> Vec<Mapping> {
        self.remapper.borrow().mappings(env, device)
    }

    /// Accesses that were issued and have not landed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.bus.in_flight.borrow().pending()
    }

    /// A point to come back to.
    #[must_use]
    pub fn save(&self) -> VirtioIommuState {
        VirtioIommuState {
            remapper: self.remapper.borrow().clone(),
            bus: self.bus.save(),
        }
    }

    /// Go back to a point.
    pub fn restore(&self, state: &VirtioIommuState) {
        self.remapper.borrow_mut().clone_from(&state.remapper);
        self.bus.restore(&state.bus);
    }
}

fn tail(status: Status) -> [u8; code::TAIL] {
    [status as u8, 0, 0, 0]
}
