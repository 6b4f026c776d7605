//! Accesses whose issue and landing a scenario may part.

mod injected;

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
        if let Some(injection) = self.injection(iova, length, false) {
            return self.bent(iova, bytes, false, injection);
        }
        if !self.parts(false) {
            self.read(iova, &mut bytes)?;
            return Ok(Issued::Done(bytes));
        }
        self.part(iova, bytes, false, 0, Vec::new())
            .map(Issued::InFlight)
    }

    /// Issue a write of bytes that do not leave their page (what would leave
    /// it is cut off). It lands at once unless the scenario parts it.
    ///
    /// # Errors
    /// The [`Fault`].
    pub fn issue_write(&self, iova: Iova, bytes: &[u8]) -> Result<Issued, Fault> {
        let length = bytes.len().min((PAGE_SIZE - iova.offset()) as usize);
        let bytes = bytes.get(..length).unwrap_or(bytes);
        if let Some(injection) = self.injection(iova, length, true) {
            return self.bent(iova, bytes.to_vec(), true, injection);
        }
        if is_interrupt_address(iova.0) || !self.parts(true) {
            self.write(iova, bytes)?;
            return Ok(Issued::Done(Vec::new()));
        }
        self.part(iova, bytes.to_vec(), true, 0, Vec::new())
            .map(Issued::InFlight)
    }

    /// Ask for an access in flight: it lands if `force` is set, or if the
    /// scenario says now.
    #[must_use]
    pub fn land(&self, token: TokenId, force: bool) -> Landing {
        let (landed, due) = match self.bus.in_flight.borrow().get(token) {
            Some(found) if found.device == self.device => (found.landed, found.due),
            _ => return Landing::Gone,
        };
        let now = self.env.scenario.now();
        let waits = || match due {
            0 => self.env.scenario.choose(Point::InFlight, 2) != 0,
            due => due > now,
        };
        if !landed && !force && waits() {
            return Landing::Pending;
        }
        if !landed && due > now {
            // Nothing else is left to happen: time passes until it lands.
            self.env.scenario.advance(due - now);
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
        if found.write {
            return Landing::Landed(Vec::new());
        }
        let mut bytes = found.prefix;
        bytes.append(&mut found.bytes);
        Landing::Landed(bytes)
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

    /// Issue without landing; see [`Token`] for `due` and `prefix`.
    fn part(
        &self,
        iova: Iova,
        bytes: Vec<u8>,
        write: bool,
        due: u64,
        prefix: Vec<u8>,
    ) -> Result<TokenId, Fault> {
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
            due,
            prefix,
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
