//! vm-memory's `GuestMemory` over [`Dma`], only so that virtio-queue's
//! `Queue` and `DescriptorChain` can run.

use super::Dma;
use crate::fault::{Fault, FaultReason};
use memory::{Iova, PAGE_SIZE};
use std::iter::FusedIterator;
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

/// The pieces of an access, translated one by one as they are asked for.
///
/// While it lives, an invalidation waits (VT-d 6.5.4: draining is of what was
/// processed): nobody can see it done while a view of a page that it takes
/// away still is in use.
#[derive(Debug)]
pub struct Slices<'a> {
    dma: Dma<'a>,
    at: Iova,
    left: usize,
    write: bool,
}

impl<'a> Slices<'a> {
    fn new(dma: Dma<'a>, at: Iova, left: usize, write: bool) -> Self {
        let views = &dma.bus.views;
        views.set(views.get().saturating_add(1));
        Self {
            dma,
            at,
            left,
            write,
        }
    }

    fn piece(&mut self) -> std::result::Result<VolatileSlice<'a, ()>, Fault> {
        let length = self.left.min((PAGE_SIZE - self.at.offset()) as usize);
        let translation = self.dma.issue(self.at, length, self.write)?;
        let memory = self.dma.env.memory;
        let slice = if self.write {
            memory.slice_mut(translation.gpa, length)
        } else {
            memory.slice(translation.gpa, length)
        };
        let Ok(slice) = slice else {
            return Err(self
                .dma
                .refuse(self.at, length, self.write, FaultReason::NotMemory));
        };
        self.dma.done(self.at, length, self.write, translation);
        self.left -= length;
        let last = self.left == 0;
        self.at = self.dma.next(self.at, length, last, self.write)?;
        Ok(slice)
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = Result<VolatileSlice<'a, ()>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let at = self.at;
        Some(self.piece().map_err(|fault| {
            self.left = 0;
            self.dma
                .bus
                .latched
                .borrow_mut()
                .entry(fault.device)
                .or_insert(fault);
            Error::InvalidGuestAddress(GuestAddress(at.0))
        }))
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

impl Drop for Slices<'_> {
    fn drop(&mut self) {
        let left = self.dma.bus.views.get().saturating_sub(1);
        self.dma.bus.views.set(left);
        if left == 0 && self.dma.bus.deferred.take() {
            self.dma
                .remapping
                .any()
                .borrow_mut()
                .accesses_done(self.dma.env, self.dma.bus);
        }
    }
}

impl GuestMemory for Dma<'_> {
    // Never given out: `physical_memory` stays `None`, for whoever holds the
    // backing can go round the translation.
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = ();

    /// A pure peek: records nothing.
    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        let mut at = Iova(addr.0);
        let mut left = count;
        while left > 0 {
            let length = left.min((PAGE_SIZE - at.offset()) as usize);
            let allowed = |write| {
                self.look(at, length, write)
                    .is_some_and(|gpa| self.env.memory.contains(gpa, length as u64))
            };
            let reads = access.allow(Permissions::Read);
            if (reads && !allowed(false)) || (access.has_write() && !allowed(true)) {
                return false;
            }
            left -= length;
            match at.checked_add(length as u64) {
                Some(next) => at = next,
                None => return left == 0,
            }
        }
        true
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        Ok(Slices::new(*self, Iova(addr.0), count, access.has_write()))
    }
}
