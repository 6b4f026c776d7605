//! Differences that no table of the IOMMU shows: memory that is reached by
//! its physical address, that has another owner by now, or that may not be
//! touched at all.

use crate::backings::{Attached, Held};
use crate::finding::{Kind, Outcome};
use crate::history::Step;
use crate::mappings::Translation;
use crate::pages::{MAX_PFN, PageState};
use crate::spec::INTERRUPT_RANGE;
use crate::verdict::Case;
use crate::{Access, Ledger, Route};
use journal::event::{self, AllocationKind, ContextId, Segment, StackId};
use memory::{Iova, PAGE_SHIFT, PAGE_SIZE, RequesterId};

/// Frame number of a slot past the end of a partial MDL, as far as an address
/// has room for it: the slots hold -1.
const TERMINATOR: u64 = u64::MAX >> PAGE_SHIFT;
/// The same in the 40 bits of a frame number that hardware has room for.
const TERMINATOR_OF_HARDWARE: u64 = (1 << 40) - 1;

/// Where the address of a refused access led before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Led {
    /// It was never mapped.
    Never,
    /// To memory of this allocation.
    To(u32),
    /// It is mapped still, or whose its memory was is not known.
    Otherwise,
}

impl Ledger {
    /// Does the device reach all memory by its physical address?
    pub(crate) fn identity(&self, device: RequesterId) -> bool {
        self.forced || self.passes_through(device)
    }

    /// Exclusive access began or ended.
    pub(crate) fn exclusive_access(&mut self, begun: bool) {
        self.exclusive = begun;
        self.quiet = None;
    }

    pub(crate) fn map_mdl(&mut self, mapping: &event::MdlMapping) {
        let done = self.mdls.map(mapping, self.time, self.budget);
        self.budget = self.budget.saturating_sub(done);
        let step = Step::MdlMapped {
            handle: mapping.handle,
            stack: mapping.stack,
        };
        for pfn in crate::pages::frames(&mapping.pages, done) {
            self.note(pfn, step.clone());
        }
    }

    pub(crate) fn unmap_mdl(&mut self, handle: u64, stack: StackId) {
        let Some(frames) = self.mdls.unmap(handle, (self.time, stack)) else {
            self.facts.contradictions += 1;
            return;
        };
        for pfn in frames {
            self.note(pfn, Step::MdlUnmapped { handle, stack });
        }
    }

    /// Whose the memory is that a device was told of.
    pub(crate) fn held(&mut self, device: RequesterId, segments: &[Segment]) -> Held {
        let mut held = Held::default();
        let identity = self.identity(device);
        let domain = self.domain_of(device);
        for segment in segments {
            let mut at = segment.iova.0;
            let end = at.saturating_add(u64::from(segment.length));
            while at < end && self.budget > 0 {
                self.budget -= 1;
                let page = at >> PAGE_SHIFT;
                let next = ((at | (PAGE_SIZE - 1)).saturating_add(1)).min(end);
                let pfn = if identity {
                    Some(page)
                } else {
                    domain.and_then(|domain| match self.mappings.translate(domain, Iova(at)) {
                        Translation::Present { pfn, .. } => pfn,
                        _ => None,
                    })
                };
                let owner = pfn.and_then(|pfn| self.pages.get(pfn).last_owner());
                held.push(at, next, owner);
                at = next;
            }
        }
        held
    }

    pub(crate) fn attached(&mut self, context: ContextId, resource: u32, segments: &[Segment]) {
        let command = self.commands.get(context);
        let device = command.map_or(self.default_device, |context| context.device);
        let attached = Attached {
            device,
            context,
            at: command.and_then(|context| context.submitted),
        };
        let held = self.held(device, segments);
        self.backings.attach(resource, held, attached);
    }

    /// The live allocation of memory that dxgkrnl did not make for a device,
    /// if the frame belongs to one.
    fn plain_memory(&self, pfn: u64) -> Option<u32> {
        let page = self.pages.get(pfn);
        let record = self.allocations.get(&page.owner)?;
        let plain = matches!(
            record.kind,
            AllocationKind::Pool | AllocationKind::MmMdl | AllocationKind::MmContiguous
        );
        (page.state == PageState::Owned && plain).then_some(page.owner)
    }

    /// Where the driver asked for the physical address of a frame of this
    /// allocation, since it was made.
    pub(crate) fn origin(&self, pfn: u64, owner: u32) -> Option<(u64, StackId)> {
        let (of, at) = self.mdls.origin(pfn)?;
        let record = self.allocations.get(&owner)?;
        let same = self.pages.get(of).last_owner() == Some(owner);
        (same && at.0 >= record.allocated.0).then_some(at)
    }

    /// What a refused access is that no look at the tables explains: its kind
    /// and the allocation it is about.
    pub(crate) fn special(
        &self,
        access: Access,
        led: Led,
        reason: Option<u8>,
    ) -> Option<(Kind, Option<u32>, Case)> {
        let page = access.iova.page();
        if self.exclusive && access.device == self.default_device {
            let owner = self.pages.get(page).last_owner();
            return Some((Kind::ExclusiveAccessViolation, owner, Case::Exclusive));
        }
        if INTERRUPT_RANGE.contains(&access.iova.0) {
            return Some((Kind::DmaInterruptRange, None, Case::InterruptRange));
        }
        if (page == TERMINATOR || page == TERMINATOR_OF_HARDWARE)
            && let Some(&id) = self.partials.last()
        {
            let (requested, given) = self
                .allocations
                .get(&id)
                .map_or((0, 0), |a| (a.requested, crate::pages::count(&a.runs)));
            let case = Case::Partial { requested, given };
            return Some((Kind::PartialAllocationIgnored, Some(id), case));
        }
        // The device was not quiet, whatever the address was.
        if self.identity(access.device) || matches!(reason, Some(1..=3 | 0xf0..)) {
            return None;
        }
        let owner = self.plain_memory(page)?;
        // An address that led to other memory before may be an old one; one
        // that was asked for since is not.
        let raw = match led {
            Led::Never => true,
            Led::To(former) => former != owner && self.origin(page, owner).is_some(),
            Led::Otherwise => false,
        };
        raw.then_some((
            Kind::DmaRawPhysicalAddress,
            Some(owner),
            Case::RawPhysical { through: false },
        ))
    }

    /// What is wrong with an access that went through, whatever the tables
    /// say.
    pub(crate) fn watch(&mut self, access: Access, route: Route) {
        let found = |ledger: &mut Self, kind, owner, case: Case| {
            let generation = Some(route.generation).filter(|_| !ledger.identity(access.device));
            ledger.find(
                (kind, Outcome::WentThrough),
                access,
                (Some(route.gpa), generation),
                owner,
                &case,
            )
        };
        let pfn = route.gpa.page();
        let page = self.pages.get(pfn);
        if self.exclusive && access.device == self.default_device {
            let owner = page.last_owner();
            found(self, Kind::ExclusiveAccessViolation, owner, Case::Exclusive);
        }
        if INTERRUPT_RANGE.contains(&access.iova.0) {
            found(self, Kind::DmaInterruptRange, None, Case::InterruptRange);
            return;
        }
        if let Some((old, queue)) = self.reused(access, pfn) {
            let case = Case::Reused { queue };
            found(self, Kind::DmaReusedMemory, Some(old), case);
        }
        if !(self.secure && self.unisolated) || self.mdls.may_cover(pfn) {
            return;
        }
        if let Some(owner) = self.plain_memory(pfn) {
            let case = Case::RawPhysical { through: true };
            found(self, Kind::DmaRawPhysicalAddress, Some(owner), case);
        } else if page.state == PageState::Never && pfn < MAX_PFN && self.facts.unwatched_pages == 0
        {
            found(self, Kind::DmaUnmapped, None, Case::IdentityOnly);
        }
    }

    /// The former owner of the memory that the device means by this address,
    /// if the page has another one now; and is it a queue that means it?
    fn reused(&self, access: Access, pfn: u64) -> Option<(u32, bool)> {
        let page = self.pages.get(pfn);
        if page.state != PageState::Owned {
            return None;
        }
        let live = |id: u32| self.allocations.get(&id).is_some_and(|a| a.freed.is_none());
        let context = self.commands.get(access.context);
        let resource = context.and_then(|context| context.resource);
        let held = resource.and_then(|of| self.backings.of_resource(of, access.iova.0));
        let (old, queue) = match held {
            Some(owner) => (owner, false),
            // The device's housekeeping touches its rings alone.
            None if access.context == ContextId(0) => {
                let owner = self.backings.of_queue(access.device, access.iova.0)?;
                (owner, true)
            }
            // A command's descriptors are read in its own name.
            None if !access.write => {
                let (device, address) = (access.device, access.iova.0);
                let of = self.backings.of_descriptor(device, address, access.length);
                (of?, true)
            }
            None => return None,
        };
        (old != page.owner && !live(old) && live(page.owner)).then_some((old, queue))
    }
}
