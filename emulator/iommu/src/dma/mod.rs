//! A device's only way to memory.

mod guest_memory;
mod parted;

pub use guest_memory::Slices;
pub use parted::{Issued, Landing};

use crate::bus::{Bus, Message};
use crate::fault::{Fault, FaultReason};
use crate::mirror::Domain;
use crate::translate::{Env, Request, Translate, Translation, is_interrupt_address};
use crate::virtio::Remapper;
use crate::vtd::Vtd;
use journal::event::{ContextId, Event, Outcome};
use memory::{Gpa, Iova, PAGE_SIZE, RequesterId};
use std::cell::RefCell;
use std::fmt;

/// Who translates. Each by its own name, so that a hit costs no virtual call.
#[derive(Clone, Copy)]
pub(crate) enum Remapping<'a> {
    Vtd(&'a RefCell<Vtd>),
    Mirror(&'a RefCell<Domain>),
    Virtio(&'a RefCell<Remapper>),
}

impl<'a> Remapping<'a> {
    fn any(self) -> &'a RefCell<dyn Translate> {
        match self {
            Self::Vtd(vtd) => vtd,
            Self::Mirror(domain) => domain,
            Self::Virtio(remapper) => remapper,
        }
    }

    #[inline]
    fn hit(self, env: Env<'_>, request: &Request) -> Option<Translation> {
        match self {
            Self::Vtd(vtd) => vtd.borrow().hit(request),
            Self::Mirror(domain) => domain.borrow().hit(request),
            // Without an IOTLB there is no entry that is read once: a
            // scenario has a say in each translation.
            Self::Virtio(_) if env.scenario.is_faulty() => None,
            Self::Virtio(remapper) => remapper.borrow().hit(request),
        }
    }
}

/// A device's only way to memory: translates at each access, never hands out
/// a host pointer, and knows the command for which it works.
///
/// In the journal a refused access is an [`Event::Fault`] followed by an
/// [`Event::Access`] with [`Outcome::Refused`]; an allowed one stands before
/// its bytes move.
#[derive(Clone, Copy)]
pub struct Dma<'a> {
    env: Env<'a>,
    remapping: Remapping<'a>,
    bus: &'a Bus,
    device: RequesterId,
    context: ContextId,
    bus_master: bool,
}

impl fmt::Debug for Dma<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dma")
            .field("device", &self.device)
            .field("context", &self.context)
            .field("bus_master", &self.bus_master)
            .finish_non_exhaustive()
    }
}

impl<'a> Dma<'a> {
    pub(crate) fn new(
        env: Env<'a>,
        remapping: Remapping<'a>,
        bus: &'a Bus,
        device: RequesterId,
        bus_master: bool,
    ) -> Self {
        Self {
            env,
            remapping,
            bus,
            device,
            context: ContextId(0),
            bus_master,
        }
    }

    /// The same way, for another command.
    #[must_use]
    pub fn with_context(self, context: ContextId) -> Self {
        Self { context, ..self }
    }

    /// The command it works for.
    #[must_use]
    pub fn context(&self) -> ContextId {
        self.context
    }

    /// What it works in.
    #[must_use]
    pub fn env(&self) -> Env<'a> {
        self.env
    }

    /// Who accesses.
    #[must_use]
    pub fn device(&self) -> RequesterId {
        self.device
    }

    /// Read `bytes` from `iova`. Split at pages: each piece is issue and
    /// landing at once and one [`Event::Access`].
    ///
    /// # Errors
    /// The first [`Fault`]; the pieces before it were read.
    #[inline]
    pub fn read(&self, iova: Iova, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        let mut at = iova;
        while !rest.is_empty() {
            let room = (PAGE_SIZE - at.offset()) as usize;
            let (piece, later) = rest.split_at_mut(room.min(rest.len()));
            let translation = self.issue(at, piece.len(), false)?;
            let Ok(slice) = self.env.memory.slice(translation.gpa, piece.len()) else {
                return Err(self.refuse(at, piece.len(), false, FaultReason::NotMemory));
            };
            self.done(at, piece.len(), false, translation);
            slice.copy_to(piece);
            at = self.next(at, piece.len(), later.is_empty(), false)?;
            rest = later;
        }
        Ok(())
    }

    /// Write `bytes` to `iova`, split as [`Dma::read`] is. Four bytes into
    /// the interrupt address range are an interrupt request.
    ///
    /// # Errors
    /// The first [`Fault`]; the pieces before it were written.
    #[inline]
    pub fn write(&self, iova: Iova, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        let mut at = iova;
        while !rest.is_empty() {
            let room = (PAGE_SIZE - at.offset()) as usize;
            let (piece, later) = rest.split_at(room.min(rest.len()));
            if is_interrupt_address(at.0) {
                self.write_interrupt(at, piece)?;
            } else {
                let translation = self.issue(at, piece.len(), true)?;
                let Ok(slice) = self.env.memory.slice_mut(translation.gpa, piece.len()) else {
                    return Err(self.refuse(at, piece.len(), true, FaultReason::NotMemory));
                };
                self.done(at, piece.len(), true, translation);
                slice.copy_from(piece);
            }
            at = self.next(at, piece.len(), later.is_empty(), true)?;
            rest = later;
        }
        Ok(())
    }

    /// Read with no trace at all: no event, no fault, nothing cached. False,
    /// and `bytes` partly filled, where a read would fault.
    #[must_use]
    pub fn peek(&self, iova: Iova, bytes: &mut [u8]) -> bool {
        let mut rest = bytes;
        let mut at = iova;
        while !rest.is_empty() {
            let room = (PAGE_SIZE - at.offset()) as usize;
            let (piece, later) = rest.split_at_mut(room.min(rest.len()));
            let found = self
                .look(at, piece.len(), false)
                .is_some_and(|gpa| self.env.memory.read(gpa, piece).is_ok());
            let next = at.checked_add(piece.len() as u64);
            match next {
                Some(next) if found => at = next,
                _ => return found && later.is_empty(),
            }
            rest = later;
        }
        true
    }

    /// Where an access of one byte would lead, with no trace at all; `None`
    /// where it would fault.
    #[must_use]
    pub fn peek_address(&self, iova: Iova, write: bool) -> Option<Gpa> {
        self.look(iova, 1, write)
    }

    /// Send a message-signalled interrupt. The address should lie in
    /// 0xFEE00000–0xFEEFFFFF; elsewhere it is the ordinary write of four bytes
    /// that a device with a wrong MSI-X table makes.
    ///
    /// # Errors
    /// The [`Fault`]; without bus mastering a device sends no interrupt.
    pub fn message(&self, address: u64, data: u32) -> Result<(), Fault> {
        if !is_interrupt_address(address) {
            return self.write(Iova(address), &data.to_le_bytes());
        }
        if !self.bus_master {
            let refused = self.env.journal().name("bus mastering is disabled");
            self.message_event(address, data, Some(refused));
            return Err(self.refuse(Iova(address), 4, true, FaultReason::BusMasterDisabled));
        }
        self.send(address, data);
        Ok(())
    }

    /// The first fault that vm-memory's or virtio-queue's code swallowed since
    /// the last call: those make of it a short chain or an empty ring.
    #[must_use]
    pub fn latched_fault(&self) -> Option<Fault> {
        self.bus.latched.borrow_mut().remove(&self.device)
    }

    fn request(&self, iova: Iova, length: usize, write: bool) -> Request {
        Request {
            device: self.device,
            context: self.context,
            iova,
            length: length as u32,
            write,
        }
    }

    /// Translate a piece that does not cross a page.
    #[inline]
    fn issue(&self, iova: Iova, length: usize, write: bool) -> Result<Translation, Fault> {
        if !self.bus_master {
            return Err(self.refuse(iova, length, write, FaultReason::BusMasterDisabled));
        }
        let request = self.request(iova, length, write);
        match self.remapping.hit(self.env, &request) {
            Some(translation) => Ok(translation),
            None => self.translate(request),
        }
    }

    #[inline(never)]
    fn translate(&self, request: Request) -> Result<Translation, Fault> {
        let remapping = self.remapping.any();
        let result = remapping.borrow_mut().translate(self.env, request);
        result.map_err(|fault| self.refused(fault, request.length as usize))
    }

    /// As [`Dma::issue`], with no trace.
    fn look(&self, iova: Iova, length: usize, write: bool) -> Option<Gpa> {
        if !self.bus_master {
            return None;
        }
        let request = self.request(iova, length, write);
        self.remapping.any().borrow().peek(self.env, request)
    }

    /// The address after a piece; an access that goes on past the end of the
    /// address space is beyond every width.
    #[inline]
    fn next(&self, at: Iova, length: usize, last: bool, write: bool) -> Result<Iova, Fault> {
        match at.checked_add(length as u64) {
            Some(next) => Ok(next),
            None if last => Ok(Iova(0)),
            None => Err(self.refuse(at, 0, write, FaultReason::AddressBeyond)),
        }
    }

    /// A write into the interrupt address range: never memory.
    #[cold]
    fn write_interrupt(&self, iova: Iova, bytes: &[u8]) -> Result<(), Fault> {
        if !self.bus_master {
            return Err(self.refuse(iova, bytes.len(), true, FaultReason::BusMasterDisabled));
        }
        // An interrupt request is a write of one aligned doubleword.
        let data = match <[u8; 4]>::try_from(bytes) {
            Ok(data) if iova.0.is_multiple_of(4) => u32::from_le_bytes(data),
            _ => return Err(self.refuse(iova, bytes.len(), true, FaultReason::InterruptRange)),
        };
        let translation = Translation {
            gpa: Gpa(iova.0),
            generation: 0,
            cached: false,
        };
        self.done(iova, bytes.len(), true, translation);
        self.send(iova.0, data);
        Ok(())
    }

    fn send(&self, address: u64, data: u32) {
        let sent = self.bus.send(Message {
            device: Some(self.device),
            address,
            data,
        });
        let refused = (!sent).then(|| self.env.journal().name("nobody takes interrupts"));
        self.message_event(address, data, refused);
    }

    fn message_event(&self, address: u64, data: u32, refused: Option<journal::event::NameId>) {
        self.env.journal().emit(Event::Message {
            device: self.device,
            address,
            data,
            refused,
        });
    }

    #[inline]
    fn done(&self, iova: Iova, length: usize, write: bool, translation: Translation) {
        if self.env.journal().is_enabled() {
            let Translation {
                gpa,
                generation,
                cached,
            } = translation;
            self.access(
                iova,
                length,
                write,
                Outcome::Done {
                    gpa,
                    generation,
                    cached,
                },
            );
        }
    }

    fn access(&self, iova: Iova, length: usize, write: bool, outcome: Outcome) {
        self.env.journal().emit(Event::Access {
            context: self.context,
            device: self.device,
            iova,
            length: length as u32,
            write,
            outcome,
        });
    }

    /// Refuse an access for a reason that is not the remapping unit's.
    #[cold]
    fn refuse(&self, iova: Iova, length: usize, write: bool, reason: FaultReason) -> Fault {
        let fault = Fault {
            device: self.device,
            context: self.context,
            iova,
            write,
            reason,
        };
        self.env.journal().emit(Event::Fault {
            context: self.context,
            device: self.device,
            iova,
            write,
            reason: reason.code(),
            recorded: false,
        });
        self.access(iova, length, write, Outcome::Refused);
        fault
    }

    /// The remapping unit refused it, and has said so.
    #[cold]
    fn refused(&self, fault: Fault, length: usize) -> Fault {
        let messages = self.remapping.any().borrow_mut().take_messages();
        for message in messages {
            self.bus.send(message);
        }
        self.access(fault.iova, length, fault.write, Outcome::Refused);
        fault
    }
}
