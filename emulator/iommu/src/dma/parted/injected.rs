//! Accesses that a scenario spoils.

use super::{Dma, Issued};
use crate::fault::Fault;
use crate::translate::is_interrupt_address;
use memory::Iova;
use scenario::{Injection, Site, SiteKind, What};

impl Dma<'_> {
    /// What the scenario does to this access.
    #[inline]
    pub(super) fn injection(&self, iova: Iova, length: usize, write: bool) -> Option<Injection> {
        if !self.env.scenario.has_faults(SiteKind::Access) || is_interrupt_address(iova.0) {
            return None;
        }
        let context = self.context.0;
        let site = Site::of_access(SiteKind::Access, context, iova.0, length as u64, write);
        self.env.scenario.inject(&site)
    }

    /// The access as the scenario has it. `bytes` are what a write carries,
    /// and room for what a read takes.
    pub(super) fn bent(
        &self,
        iova: Iova,
        mut bytes: Vec<u8>,
        write: bool,
        injection: Injection,
    ) -> Result<Issued, Fault> {
        let now = self.env.scenario.now();
        let room = self.bus.in_flight.borrow().has_room();
        match injection.outcome {
            // Nobody answers a read: all ones, as on a bus.
            What::Drop => {
                bytes.fill(0xff);
                return Ok(done(bytes, write));
            }
            What::Delay if room => {
                let due = now.saturating_add(injection.ns.max(1));
                return self
                    .part(iova, bytes, write, due, Vec::new())
                    .map(Issued::InFlight);
            }
            What::Torn if room => {
                let mut first = bytes;
                let second = first.split_off(first.len() / 2);
                self.whole(iova, &mut first, write)?;
                // Both halves lie in one page.
                let at = Iova(iova.0.saturating_add(first.len() as u64));
                return self
                    .part(at, second, write, now.saturating_add(1), first)
                    .map(Issued::InFlight);
            }
            What::Repeat => self.whole(iova, &mut bytes, write)?,
            _ => {}
        }
        let at = match injection.outcome {
            What::Redirect => Iova(injection.to),
            _ => iova,
        };
        self.whole(at, &mut bytes, write)?;
        Ok(done(bytes, write))
    }

    fn whole(&self, iova: Iova, bytes: &mut [u8], write: bool) -> Result<(), Fault> {
        if write {
            self.write(iova, bytes)
        } else {
            self.read(iova, bytes)
        }
    }
}

fn done(bytes: Vec<u8>, write: bool) -> Issued {
    Issued::Done(if write { Vec::new() } else { bytes })
}
