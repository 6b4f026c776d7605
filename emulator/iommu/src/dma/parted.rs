//! Accesses whose issue and landing a scenario may part.

use super::Dma;
use crate::fault::{Fault, FaultReason};
use crate::in_flight::Token;
use crate::translate::{Translation, is_interrupt_address};
use journal::event::{Event, Outcome, Point, TokenId};
use memory::{Iova, PAGE_SIZE};

/// What became of the issue of a parted access.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Issued {
    /// It landed at once: the bytes of a read, nothing for a write.
    Done(Vec<u8>),
    /// It is in flight: ask with [`Dma::land`].
    InFlight(TokenId),
}

/// What became of an access in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Landing {
    /// It still is in flight.
    Pending,
    /// It landed, now or when an invalidation drained it: the bytes of a
    /// read, nothing for a write.
    Landed(Vec<u8>),
    /// There is no such access of this device: cancelled, or landed before.
    Gone,
}

impl Dma<'_> {
    /// Issue a read of `length` bytes that do not leave their page (what
    /// would leave it is cut off). It lands at once unless the scenario parts
    /// it.
    ///
    /// # Errors
    /// The [`Fault`].
    pub fn issue_read(&self, iova: Iova, length: u32) -> Result<Issued, Fault> {
        let length = u64::from(length).min(PAGE_SIZE - iova.offset()) as usize;
        let mut bytes = vec![0; length];
        if !self.parts(false) {
            self.read(iova, &mut bytes)?;
            return Ok(Issued::Done(bytes));
        }
        self.part(iova, bytes, false).map(Issued::InFlight)
    }

    /// Issue a write of bytes that do not leave their page (what would leave
    /// it is cut off). It lands at once unless the scenario parts it.
    ///
    /// # Errors
    /// The [`Fault`].
    pub fn issue_write(&self, iova: Iova, bytes: &[u8]) -> Result<Issued, Fault> {
        let length = bytes.len().min((PAGE_SIZE - iova.offset()) as usize);
        let bytes = bytes.get(..length).unwrap_or(bytes);
        if is_interrupt_address(iova.0) || !self.parts(true) {
            self.write(iova, bytes)?;
            return Ok(Issued::Done(Vec::new()));
        }
        self.part(iova, bytes.to_vec(), true).map(Issued::InFlight)
    }

    /// Ask for an access in flight: it lands if `force` is set, or if the
    /// scenario says now.
    #[must_use]
    pub fn land(&self, token: TokenId, force: bool) -> Landing {
        let landed = match self.bus.in_flight.borrow().get(token) {
            Some(found) if found.device == self.device => found.landed,
            _ => return Landing::Gone,
        };
        if !landed && !force && self.env.scenario.choose(Point::InFlight, 2) != 0 {
            return Landing::Pending;
        }
        let Some(mut found) = self.bus.in_flight.borrow_mut().remove(token) else {
            return Landing::Gone;
        };
        if !found.landed {
            self.env.journal().emit(Event::Landed {
                token,
                drained: false,
            });
            found.copy(self.env);
        }
        Landing::Landed(if found.write { Vec::new() } else { found.bytes })
    }

    /// The device was reset: it gives up all it has in flight.
    pub fn cancel_all(&self) {
        self.bus
            .in_flight
            .borrow_mut()
            .cancel(self.env, self.device);
    }

    /// Is this access to be parted?
    fn parts(&self, write: bool) -> bool {
        self.env.scenario.parts_accesses(write)
            && self.bus.in_flight.borrow().has_room()
            && self.env.scenario.choose(Point::Landing, 2) == 1
    }

    /// Issue without landing.
    fn part(&self, iova: Iova, bytes: Vec<u8>, write: bool) -> Result<TokenId, Fault> {
        let length = bytes.len();
        let translation = self.issue(iova, length, write)?;
        if !self.env.memory.contains(translation.gpa, length as u64) {
            return Err(self.refuse(iova, length, write, FaultReason::NotMemory));
        }
        let token = self.bus.in_flight.borrow_mut().insert(Token {
            device: self.device,
            context: self.context,
            gpa: translation.gpa,
            write,
            bytes,
            landed: false,
        });
        let Translation {
            gpa,
            generation,
            cached,
        } = translation;
        self.access(
            iova,
            length,
            write,
            Outcome::InFlight {
                token,
                gpa,
                generation,
                cached,
            },
        );
        Ok(token)
    }
}
