//! What translating means, whoever does it.

use crate::bus::{Bus, Message};
use crate::fault::Fault;
use journal::Journal;
use journal::event::ContextId;
use memory::{Gpa, GuestMemory, Iova, RequesterId};
use scenario::Scenario;

/// What every room below needs to do anything.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// Guest RAM.
    pub memory: &'a GuestMemory,
    /// Choices, virtual time and the journal.
    pub scenario: &'a Scenario,
}

impl<'a> Env<'a> {
    /// The journal.
    #[inline]
    #[must_use]
    pub fn journal(&self) -> &'a Journal {
        self.scenario.journal()
    }
}

/// One access of a device; it does not cross a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who.
    pub device: RequesterId,
    /// For which command.
    pub context: ContextId,
    /// Where.
    pub iova: Iova,
    /// Bytes.
    pub length: u32,
    /// To memory?
    pub write: bool,
}

/// Where an access leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// The guest-physical address of its first byte.
    pub gpa: Gpa,
    /// Which filling of the IOTLB it used: no two share a number. 0 where
    /// nothing was remapped.
    pub generation: u32,
    /// Did the translation come from the IOTLB?
    pub cached: bool,
}

/// Something that remaps the accesses of devices. Object-safe.
pub trait Translate {
    /// Translate one access that does not cross a page. Records what hardware
    /// records: cached entries, fault registers; and the events
    /// [`journal::Event::Fill`] and [`journal::Event::Fault`].
    ///
    /// # Errors
    /// The [`Fault`], which is in the journal then.
    fn translate(&mut self, env: Env<'_>, request: Request) -> Result<Translation, Fault>;

    /// The same with no trace: nothing recorded, nothing cached.
    fn peek(&self, env: Env<'_>, request: Request) -> Option<Gpa>;

    /// Interrupts that translating raised (a fault event), oldest first.
    fn take_messages(&mut self) -> Vec<Message> {
        Vec::new()
    }

    /// The last borrowed view of memory is gone: do what had to wait for it.
    fn accesses_done(&mut self, _env: Env<'_>, _bus: &Bus) {}
}

/// Is this address in the range whose writes are interrupt requests and never
/// reach memory (VT-d 3.15)?
#[inline]
#[must_use]
pub const fn is_interrupt_address(address: u64) -> bool {
    address >> 20 == 0xfee
}
