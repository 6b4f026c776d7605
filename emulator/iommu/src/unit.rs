//! The remapping unit as one room.

use crate::bus::{Bus, BusState, Message};
use crate::dma::{Dma, Remapping};
use crate::fault::Fault;
use crate::translate::{Env, Request, Translate, Translation};
use crate::vtd::{Vtd, VtdState};
use memory::RequesterId;
use scenario::SiteKind;
use std::cell::RefCell;

/// Guest-physical address of the register file, as on q35.
pub const REGISTER_BASE: u64 = 0xfed9_0000;
/// Bytes of the register file.
pub const REGISTER_SIZE: u64 = 0x1000;

/// State of a [`Unit`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnitState {
    vtd: VtdState,
    bus: BusState,
}

/// A VT-d remapping unit: register file, caches, accesses in flight, messages
/// sent.
#[derive(Debug)]
pub struct Unit {
    vtd: RefCell<Vtd>,
    bus: Bus,
}

impl Default for Unit {
    fn default() -> Self {
        Self::new()
    }
}

impl Unit {
    /// A unit after reset: translation off, nothing cached.
    #[must_use]
    pub fn new() -> Self {
        Self {
            vtd: RefCell::new(Vtd::default()),
            bus: Bus::default(),
        }
    }

    /// The CPU reads `size` bytes at `offset` of the register file.
    #[must_use]
    pub fn mmio_read(&self, _env: Env<'_>, offset: u64, size: u8) -> u64 {
        self.vtd.borrow().mmio_read(offset, size)
    }

    /// The CPU writes `size` (4 or 8) bytes at `offset`. The invalidation
    /// queue is processed before this returns.
    pub fn mmio_write(&self, env: Env<'_>, offset: u64, size: u8, value: u64) {
        self.vtd
            .borrow_mut()
            .mmio_write(env, &self.bus, offset, size, value);
    }

    /// A device's way to memory. `bus_master`: is Bus Master Enable set?
    pub fn dma<'a>(&'a self, env: Env<'a>, device: RequesterId, bus_master: bool) -> Dma<'a> {
        if env.scenario.has_faults(SiteKind::Descriptor) {
            self.vtd.borrow_mut().catch_up(env, &self.bus);
        }
        Dma::new(
            env,
            Remapping::Vtd(&self.vtd),
            &self.bus,
            device,
            bus_master,
        )
    }

    /// Translate one access and do nothing with it: for a replay, which has
    /// the accesses but not their bytes. Caches and fault records change as
    /// they do with a real one.
    ///
    /// # Errors
    /// The [`Fault`].
    pub fn translate(&self, env: Env<'_>, request: Request) -> Result<Translation, Fault> {
        let mut vtd = self.vtd.borrow_mut();
        let result = vtd.translate(env, request);
        for message in vtd.take_messages() {
            self.bus.send(message);
        }
        result
    }

    /// The interrupts sent since the last call, of devices and of the unit
    /// itself, oldest first.
    pub fn take_messages(&self) -> Vec<Message> {
        std::mem::take(&mut *self.bus.messages.borrow_mut())
    }

    /// Accesses that were issued and have not landed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.bus.in_flight.borrow().pending()
    }

    /// A point to come back to.
    #[must_use]
    pub fn save(&self) -> UnitState {
        UnitState {
            vtd: self.vtd.borrow().save(),
            bus: self.bus.save(),
        }
    }

    /// Go back to a point.
    pub fn restore(&self, state: &UnitState) {
        self.vtd.borrow_mut().restore(&state.vtd);
        self.bus.restore(&state.bus);
    }
}
