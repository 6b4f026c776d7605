//! A domain that somebody else translates for: QEMU's remapping unit works
//! for the guest, and a vfio-user client tells us each mapping that it made
//! (DMA_MAP) and took away (DMA_UNMAP). There are no tables to walk and no
//! IOTLB: what was told is what a device may reach, at once and exactly.

mod table;
#[cfg(test)]
mod tests;

use crate::bus::{Bus, BusState, Message};
use crate::dma::{Dma, Remapping};
use crate::fault::{Fault, FaultReason};
use crate::tell;
use crate::translate::{Env, Request, Translate, Translation, is_interrupt_address};
use memory::{Gpa, Iova, PAGE_SIZE, RequesterId};
use std::cell::RefCell;
use table::{Entry, Table};
use thiserror::Error;

/// Most mappings at once; a further one is refused. vfio-user clients keep to
/// what the server announces, 65,535 unless it says otherwise.
pub const MAX_MAPPINGS: usize = 1 << 20;
/// Refused accesses kept for whoever tells the guest of them.
const MAX_REFUSED: usize = 1 << 12;

/// Why a mapping cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MirrorError {
    /// The range is empty, no multiple of a page, or wraps round.
    #[error("a mapping of {length:#x} bytes at {iova}: give whole pages, at least one")]
    BadRange {
        /// First address.
        iova: Iova,
        /// Bytes.
        length: u64,
    },
    /// Part of the range is mapped, and to something else.
    #[error("a mapping at {0} lies over another: unmap that one first")]
    Overlap(Iova),
    /// [`MAX_MAPPINGS`] are there.
    #[error("more than {MAX_MAPPINGS} mappings of one device")]
    TooMany,
}

/// One mapping, as it was told or as it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// First address.
    pub iova: Iova,
    /// Bytes, whole pages.
    pub length: u64,
    /// Where it leads; `None`: to something that is no RAM of ours (ROM,
    /// another device), so that an access is let through and finds nothing.
    pub target: Option<Gpa>,
    /// May the device read?
    pub read: bool,
    /// May it write?
    pub write: bool,
}

/// What a [`Mirror`] is saved as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MirrorState {
    /// Ascending by address; with each, its generation.
    mappings: Vec<(Mapping, u32)>,
    maps: u32,
    refused: Vec<Request>,
    bus: BusState,
}

/// The part that translates.
#[derive(Debug, Default)]
pub(crate) struct Domain {
    table: Table,
    /// Mappings made so far: the generation of the latest.
    maps: u32,
    refused: Vec<Request>,
}

/// The domain of one device, mirrored.
#[derive(Debug, Default)]
pub struct Mirror {
    domain: RefCell<Domain>,
    bus: Bus,
}

/// First and last page number of a range of whole pages.
fn pages(iova: Iova, length: u64) -> Result<(u64, u64), MirrorError> {
    let bad = MirrorError::BadRange { iova, length };
    if length == 0 || !length.is_multiple_of(PAGE_SIZE) || iova.offset() != 0 {
        return Err(bad);
    }
    let last = iova.checked_add(length - 1).ok_or(bad)?;
    Ok((iova.page(), last.page()))
}

impl Mirror {
    /// A domain with nothing mapped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `device` may reach a range from now on. The same mapping again is no
    /// error.
    ///
    /// # Errors
    /// [`MirrorError`]; nothing is then mapped.
    pub fn map(
        &self,
        env: Env<'_>,
        device: RequesterId,
        mapping: Mapping,
    ) -> Result<(), MirrorError> {
        let range = pages(mapping.iova, mapping.length)?;
        if let Some(target) = mapping.target
            && (target.offset() != 0 || target.checked_add(mapping.length - 1).is_none())
        {
            let (iova, length) = (mapping.iova, mapping.length);
            return Err(MirrorError::BadRange { iova, length });
        }
        let mut domain = self.domain.borrow_mut();
        let generation = domain.maps.wrapping_add(1).max(1);
        let entry = Entry::new(&mapping, generation);
        if !domain.table.insert(range, entry)? {
            return Ok(());
        }
        domain.maps = generation;
        tell::mapped(env, device, &mapping, generation);
        Ok(())
    }

    /// `device` may no longer reach a range, of which any part may be mapped.
    /// What it has in flight lands before this returns. How many pages were
    /// mapped.
    ///
    /// # Errors
    /// [`MirrorError::BadRange`].
    pub fn unmap(
        &self,
        env: Env<'_>,
        device: RequesterId,
        iova: Iova,
        length: u64,
    ) -> Result<u64, MirrorError> {
        let range = pages(iova, length)?;
        self.land(env);
        let dropped = self.domain.borrow_mut().table.remove(range);
        tell::unmapped(env, device, (iova, length), dropped);
        Ok(dropped)
    }

    /// `device` may reach nothing any more, as [`Mirror::unmap`].
    pub fn unmap_all(&self, env: Env<'_>, device: RequesterId) -> u64 {
        self.land(env);
        let dropped = self.domain.borrow_mut().table.clear();
        // The last page of the address space is the one that the length
        // cannot say.
        tell::unmapped(env, device, (Iova(0), !(PAGE_SIZE - 1)), dropped);
        dropped
    }

    /// Whoever is told that a mapping is gone must see nothing arrive by it
    /// afterwards.
    fn land(&self, env: Env<'_>) {
        debug_assert_eq!(self.bus.views.get(), 0, "a device call is under way");
        self.bus.in_flight.borrow_mut().drain(env, true, true);
    }

    /// A device's way to memory. `bus_master`: is Bus Master Enable set?
    pub fn dma<'a>(&'a self, env: Env<'a>, device: RequesterId, bus_master: bool) -> Dma<'a> {
        let remapping = Remapping::Mirror(&self.domain);
        Dma::new(env, remapping, &self.bus, device, bus_master)
    }

    /// The interrupts that the device sent since the last call.
    pub fn take_messages(&self) -> Vec<Message> {
        std::mem::take(&mut *self.bus.messages.borrow_mut())
    }

    /// Did the device send any?
    #[must_use]
    pub fn has_messages(&self) -> bool {
        !self.bus.messages.borrow().is_empty()
    }

    /// Accesses that this domain refused since the last call, oldest first;
    /// of very many only the first. Whoever has a real remapping unit beside
    /// this mirror can let it refuse them too, so that the guest hears of it.
    pub fn take_refused(&self) -> Vec<Request> {
        std::mem::take(&mut self.domain.borrow_mut().refused)
    }

    /// Would an access of `length` bytes, which do not leave their page, be
    /// let through?
    #[must_use]
    pub fn allows(&self, iova: Iova, write: bool) -> bool {
        let domain = self.domain.borrow();
        domain
            .table
            .find(iova)
            .is_some_and(|(e, _)| e.allows(write))
    }

    /// Every mapping, ascending by address.
    #[must_use]
    pub fn mappings(&self) -> Vec<Mapping> {
        let domain = self.domain.borrow();
        let all = domain.table.all().into_iter();
        all.map(|((first, last), entry)| entry.mapping(first, last))
            .collect()
    }

    /// Accesses that were issued and have not landed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.bus.in_flight.borrow().pending()
    }

    /// A point to come back to.
    #[must_use]
    pub fn save(&self) -> MirrorState {
        let domain = self.domain.borrow();
        let all = domain.table.all().into_iter();
        MirrorState {
            mappings: all
                .map(|((first, last), entry)| (entry.mapping(first, last), entry.generation()))
                .collect(),
            maps: domain.maps,
            refused: domain.refused.clone(),
            bus: self.bus.save(),
        }
    }

    /// Go back to a point.
    pub fn restore(&self, state: &MirrorState) {
        let mut domain = self.domain.borrow_mut();
        domain.table.clear();
        for (mapping, generation) in &state.mappings {
            if let Ok(range) = pages(mapping.iova, mapping.length) {
                // They came out of a table, so they go into one.
                let _ = domain.table.insert(range, Entry::new(mapping, *generation));
            }
        }
        domain.maps = state.maps;
        domain.refused.clone_from(&state.refused);
        self.bus.restore(&state.bus);
    }
}

impl Domain {
    /// What every access asks first.
    #[inline]
    pub fn hit(&self, request: &Request) -> Option<Translation> {
        if is_interrupt_address(request.iova.0) {
            return None;
        }
        let (entry, offset) = self.table.find(request.iova)?;
        entry.allows(request.write).then(|| Translation {
            gpa: entry.target(offset),
            generation: entry.generation(),
            cached: false,
        })
    }
}

impl Translate for Domain {
    fn translate(&mut self, env: Env<'_>, request: Request) -> Result<Translation, Fault> {
        if let Some(found) = self.hit(&request) {
            return Ok(found);
        }
        let reason = if is_interrupt_address(request.iova.0) {
            FaultReason::InterruptRange
        } else if request.write {
            FaultReason::WriteDenied
        } else {
            FaultReason::ReadDenied
        };
        if self.refused.len() < MAX_REFUSED {
            self.refused.push(request);
        }
        let fault = Fault {
            device: request.device,
            context: request.context,
            iova: request.iova,
            write: request.write,
            reason,
        };
        // Whether the other unit's records have room is not known here.
        tell::refused(env, &fault, true);
        Err(fault)
    }

    fn peek(&self, _env: Env<'_>, request: Request) -> Option<Gpa> {
        self.hit(&request).map(|found| found.gpa)
    }
}
