//! The driver's address space: four-level page tables in guest memory.
//!
//! KVM does not see entries that the host edits. An entry that becomes
//! present is found at the next fault, but one that is removed or changed
//! goes on working until its *target* leaves the host mapping. So each such
//! edit is noted, and [`AddressSpace::flush`] (called by `Vm::run`) carries
//! them out in as few calls as it can.

use super::error::SpaceError;
use super::frames::{FrameAllocator, FrameRange};
use super::layout;
use super::pte::{ACCESSED, FRAME, Mapping, PRESENT, Protection, USER, WRITE};
use memory::{Changed, Gpa, GuestMemory, Gva, PAGE_SIZE, Pfn};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Gaps of up to this many pages are dropped along with their neighbours: a
/// call costs more than the faults that bring a few pages back.
const JOIN_GAP: u64 = 8;

/// With more runs of pages than this, forgetting everything is cheaper.
const MAX_RUNS: usize = 32;

/// What of an [`AddressSpace`] is not in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceState {
    root: Pfn,
    frames: FrameAllocator,
    /// Frames whose translations must go before the vCPU runs.
    stale: Vec<Pfn>,
    /// So many changed, or such, that all translations must go.
    all_stale: bool,
}

impl Hash for SpaceState {
    /// What KVM has yet to forget is no part of what the driver meets next.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self {
            root,
            frames,
            stale: _,
            all_stale: _,
        } = self;
        (root, frames).hash(hasher);
    }
}

/// The driver's address space.
#[derive(Clone, Debug)]
pub struct AddressSpace {
    memory: Arc<GuestMemory>,
    /// Frames of the range that hold no tables: the machine's own pages.
    system: Vec<Pfn>,
    state: SpaceState,
}

impl AddressSpace {
    /// An address space with nothing but the machine's own supervisor pages
    /// at [`SYSTEM_BASE`](super::SYSTEM_BASE). Page tables and those pages
    /// come from `frames`, which nobody else may use.
    ///
    /// # Errors
    /// [`SpaceError::OutOfFrames`], [`SpaceError::Memory`].
    pub fn new(memory: Arc<GuestMemory>, frames: FrameRange) -> Result<Self, SpaceError> {
        let mut allocator = FrameAllocator::new(frames);
        let root = take_zeroed(&memory, &mut allocator)?;
        let mut space = Self {
            memory,
            system: Vec::new(),
            state: SpaceState {
                root,
                frames: allocator,
                stale: Vec::new(),
                all_stale: false,
            },
        };
        for (index, page) in layout::system_pages().iter().enumerate() {
            let frame = space.table_frame()?;
            space.memory.write(frame.base(), &page.bytes)?;
            space.system.push(frame);
            let at = Gva(layout::SYSTEM_BASE.0 + index as u64 * PAGE_SIZE);
            space.map(at, frame, page.protection)?;
        }
        Ok(space)
    }

    /// The state that is not in guest memory.
    #[must_use]
    pub fn save(&self) -> SpaceState {
        self.state.clone()
    }

    /// Take up `state`, after guest memory was restored to the same moment,
    /// by which these pages changed: no old entry of a table among them
    /// answers when the vCPU runs again.
    pub fn restore(&mut self, state: &SpaceState, changed: &[Changed]) {
        self.state = state.clone();
        let tables = self.state.frames.range();
        for page in changed {
            // The range lies in low RAM, where file and frames count alike.
            if !tables.contains(&page.index) || self.system.contains(&Pfn(page.index)) {
                continue;
            }
            let Some(old) = &page.old else { continue };
            let entry = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            for (index, old) in old.chunks_exact(8).enumerate() {
                let new = page.new.as_ref().map(|new| &new[index * 8..][..8]);
                match Mapping::decode(entry(old)) {
                    Some(mapping) if new != Some(old) && !mapping.trapped => {
                        if tables.contains(&mapping.frame.0) {
                            // A table went: whatever it led to is stale.
                            self.state.all_stale = true;
                            return;
                        }
                        self.forget(mapping.frame);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Guest RAM.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The top-level page table: CR3.
    #[must_use]
    pub fn root(&self) -> Pfn {
        self.state.root
    }

    /// Frames used for tables, and frames left.
    #[must_use]
    pub fn table_frames(&self) -> (u64, u64) {
        (self.state.frames.used(), self.state.frames.left())
    }

    /// The frame of the stack on which a trap's frame is pushed.
    #[must_use]
    pub fn trap_stack(&self) -> Option<Pfn> {
        self.system.get(layout::STACK_PAGE as usize).copied()
    }

    /// Map a page. `gva` may point anywhere into it.
    ///
    /// # Errors
    /// [`SpaceError::AlreadyMapped`], [`SpaceError::NotCanonical`],
    /// [`SpaceError::OutOfFrames`].
    pub fn map(&mut self, gva: Gva, frame: Pfn, protection: Protection) -> Result<(), SpaceError> {
        let entry = self.leaf_or_create(gva)?;
        if Mapping::decode(self.memory.read_u64(entry)?).is_some() {
            return Err(SpaceError::AlreadyMapped(gva.page_base()));
        }
        let mapping = Mapping {
            frame,
            protection,
            trapped: false,
        };
        self.memory.write_u64(entry, mapping.encode())?;
        Ok(())
    }

    /// Map `pages` pages from `gva` to consecutive frames from `first`.
    ///
    /// # Errors
    /// As [`AddressSpace::map`]; pages before the failing one stay mapped.
    pub fn map_range(
        &mut self,
        gva: Gva,
        first: Pfn,
        pages: u64,
        protection: Protection,
    ) -> Result<(), SpaceError> {
        for index in 0..pages {
            let at = page_after(gva, index)?;
            self.map(at, Pfn(first.0.wrapping_add(index)), protection)?;
        }
        Ok(())
    }

    /// Remove a page's mapping and return what it was.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`], [`SpaceError::NotCanonical`].
    pub fn unmap(&mut self, gva: Gva) -> Result<Mapping, SpaceError> {
        let (entry, old) = self.mapped(gva)?;
        self.memory.write_u64(entry, 0)?;
        if !old.trapped {
            self.forget(old.frame);
        }
        Ok(old)
    }

    /// Change what the driver may do with a mapped page.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`], [`SpaceError::NotCanonical`].
    pub fn protect(&mut self, gva: Gva, protection: Protection) -> Result<(), SpaceError> {
        let (_, old) = self.mapped(gva)?;
        self.replace(gva, Mapping { protection, ..old })
    }

    /// Make each access of the driver to this page fault, while the host
    /// still reaches it. Trapping a trapped page changes nothing.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`], [`SpaceError::NotCanonical`].
    pub fn trap_accesses(&mut self, gva: Gva) -> Result<(), SpaceError> {
        self.set_trapped(gva, true)
    }

    /// Let the driver reach the page again.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`], [`SpaceError::NotCanonical`].
    pub fn untrap(&mut self, gva: Gva) -> Result<(), SpaceError> {
        self.set_trapped(gva, false)
    }

    /// Trap or untrap `pages` pages from `gva`; pages without a mapping are
    /// skipped. Returns how many changed.
    ///
    /// # Errors
    /// [`SpaceError::NotCanonical`].
    pub fn trap_range(&mut self, gva: Gva, pages: u64, trapped: bool) -> Result<u64, SpaceError> {
        let mut changed = 0;
        for index in 0..pages {
            let at = page_after(gva, index)?;
            match self.mapped(at) {
                Ok((_, old)) if old.trapped != trapped => {
                    self.replace(at, Mapping { trapped, ..old })?;
                    changed += 1;
                }
                Ok(_) | Err(SpaceError::NotMapped(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changed)
    }

    /// What a page is mapped to.
    #[must_use]
    pub fn mapping(&self, gva: Gva) -> Option<Mapping> {
        self.mapped(gva).ok().map(|(_, mapping)| mapping)
    }

    /// The guest-physical address of a byte and what the driver may do there,
    /// trapped or not.
    #[must_use]
    pub fn translate(&self, gva: Gva) -> Option<(Gpa, Protection)> {
        let mapping = self.mapping(gva)?;
        let gpa = Gpa(mapping.frame.base().0 + gva.offset());
        Some((gpa, mapping.protection))
    }

    /// Read the driver's memory as the host: protection and access traps do
    /// not matter.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`] with the first page that has no mapping,
    /// [`SpaceError::Memory`] where it is mapped to no RAM; part of `bytes`
    /// may then be filled.
    pub fn read(&self, gva: Gva, bytes: &mut [u8]) -> Result<(), SpaceError> {
        let mut at = gva;
        let mut rest = bytes;
        while !rest.is_empty() {
            let step = rest.len().min((PAGE_SIZE - at.offset()) as usize);
            let (now, later) = rest.split_at_mut(step);
            let (gpa, _) = self
                .translate(at)
                .ok_or(SpaceError::NotMapped(at.page_base()))?;
            self.memory.read(gpa, now)?;
            rest = later;
            at = Gva(at.0.wrapping_add(step as u64));
        }
        Ok(())
    }

    /// Write the driver's memory as the host, code included: the vCPU sees
    /// the new bytes when it next runs.
    ///
    /// # Errors
    /// As [`AddressSpace::read`]; nothing is then written.
    pub fn write(&self, gva: Gva, bytes: &[u8]) -> Result<(), SpaceError> {
        let mut pieces = Vec::new();
        let mut at = gva;
        let mut rest = bytes;
        while !rest.is_empty() {
            let step = rest.len().min((PAGE_SIZE - at.offset()) as usize);
            let (now, later) = rest.split_at(step);
            let (gpa, _) = self
                .translate(at)
                .ok_or(SpaceError::NotMapped(at.page_base()))?;
            self.memory.slice(gpa, step)?;
            pieces.push((gpa, now));
            rest = later;
            at = Gva(at.0.wrapping_add(step as u64));
        }
        for (gpa, piece) in pieces {
            self.memory.write(gpa, piece)?;
        }
        Ok(())
    }

    /// A little-endian 64-bit value.
    ///
    /// # Errors
    /// As [`AddressSpace::read`].
    pub fn read_u64(&self, gva: Gva) -> Result<u64, SpaceError> {
        let mut bytes = [0; 8];
        self.read(gva, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Write a little-endian 64-bit value.
    ///
    /// # Errors
    /// As [`AddressSpace::write`].
    pub fn write_u64(&self, gva: Gva, value: u64) -> Result<(), SpaceError> {
        self.write(gva, &value.to_le_bytes())
    }

    /// Drop what KVM remembers of removed and changed entries. Returns
    /// whether *all* of it must go, which only KVM's owner can do.
    pub(super) fn flush(&mut self) -> Result<bool, SpaceError> {
        if std::mem::take(&mut self.state.all_stale) {
            self.state.stale.clear();
            return Ok(true);
        }
        if self.state.stale.is_empty() {
            return Ok(false);
        }
        let mut stale = std::mem::take(&mut self.state.stale);
        stale.sort_unstable();
        let mut runs: Vec<(Pfn, Pfn)> = Vec::new();
        for frame in stale {
            match runs.last_mut() {
                Some((first, last))
                    if frame.0 - last.0 <= JOIN_GAP
                        && self
                            .memory
                            .contains(first.base(), (frame.0 - first.0 + 1) * PAGE_SIZE) =>
                {
                    *last = frame;
                }
                _ => runs.push((frame, frame)),
            }
        }
        if runs.len() > MAX_RUNS {
            return Ok(true);
        }
        for (first, last) in runs {
            self.memory.drop_translations(first, last.0 - first.0 + 1)?;
        }
        Ok(false)
    }

    fn set_trapped(&mut self, gva: Gva, trapped: bool) -> Result<(), SpaceError> {
        let (_, old) = self.mapped(gva)?;
        if old.trapped == trapped {
            return Ok(());
        }
        self.replace(gva, Mapping { trapped, ..old })
    }

    fn replace(&mut self, gva: Gva, new: Mapping) -> Result<(), SpaceError> {
        let (entry, old) = self.mapped(gva)?;
        self.memory.write_u64(entry, new.encode())?;
        // Also where the new entry allows more: a processor may fault by an
        // older translation of a present page (Intel SDM vol. 3, 4.10.4.3),
        // and that fault would be blamed on the driver.
        if !old.trapped && new != old {
            self.forget(old.frame);
        }
        Ok(())
    }

    /// KVM may hold a translation to `frame` that must go.
    fn forget(&mut self, frame: Pfn) {
        if self.memory.contains(frame.base(), PAGE_SIZE) {
            self.state.stale.push(frame);
        } else {
            // There is no page to drop behind MMIO; KVM forgets what it
            // cached for it when its memory slots change.
            self.state.all_stale = true;
        }
    }

    fn mapped(&self, gva: Gva) -> Result<(Gpa, Mapping), SpaceError> {
        let not_mapped = || SpaceError::NotMapped(gva.page_base());
        let entry = self.leaf(gva)?.ok_or_else(not_mapped)?;
        let mapping = Mapping::decode(self.memory.read_u64(entry)?).ok_or_else(not_mapped)?;
        Ok((entry, mapping))
    }

    /// Where the entry of `gva` lies, if its table exists.
    fn leaf(&self, gva: Gva) -> Result<Option<Gpa>, SpaceError> {
        check_canonical(gva)?;
        let mut table = self.state.root;
        for level in [3, 2, 1] {
            let entry = self.memory.read_u64(entry_address(table, gva, level))?;
            if entry & PRESENT == 0 {
                return Ok(None);
            }
            table = Pfn::from(Gpa(entry & FRAME));
        }
        Ok(Some(entry_address(table, gva, 0)))
    }

    fn leaf_or_create(&mut self, gva: Gva) -> Result<Gpa, SpaceError> {
        check_canonical(gva)?;
        let mut table = self.state.root;
        for level in [3, 2, 1] {
            let at = entry_address(table, gva, level);
            let entry = self.memory.read_u64(at)?;
            table = if entry & PRESENT != 0 {
                Pfn::from(Gpa(entry & FRAME))
            } else {
                let frame = self.table_frame()?;
                let entry = frame.base().0 | PRESENT | WRITE | USER | ACCESSED;
                self.memory.write_u64(at, entry)?;
                frame
            };
        }
        Ok(entry_address(table, gva, 0))
    }

    fn table_frame(&mut self) -> Result<Pfn, SpaceError> {
        take_zeroed(&self.memory, &mut self.state.frames)
    }
}

fn take_zeroed(memory: &GuestMemory, frames: &mut FrameAllocator) -> Result<Pfn, SpaceError> {
    let used = frames.used();
    let frame = frames.take().ok_or(SpaceError::OutOfFrames(used))?;
    memory.fill(frame.base(), PAGE_SIZE, 0)?;
    Ok(frame)
}

fn entry_address(table: Pfn, gva: Gva, level: u32) -> Gpa {
    let index = gva.page() >> (9 * level) & 0x1ff;
    Gpa(table.base().0 + index * 8)
}

fn check_canonical(gva: Gva) -> Result<(), SpaceError> {
    let extended = (gva.0 as i64) << 16 >> 16;
    if extended as u64 == gva.0 {
        Ok(())
    } else {
        Err(SpaceError::NotCanonical(gva))
    }
}

fn page_after(gva: Gva, index: u64) -> Result<Gva, SpaceError> {
    index
        .checked_mul(PAGE_SIZE)
        .and_then(|bytes| gva.checked_add(bytes))
        .ok_or(SpaceError::NotCanonical(gva))
}
