//! MDL structures: whose they are; and what a driver that is unloaded leaves.

use super::{Gva, State, pool};
use crate::platform::Platform;
use crate::rules::{contiguous as contiguous_rule, mm as rule, pool as pool_rule};
use journal::event::{AllocationKind, StackId, Subject};

impl State {
    /// The driver was unloaded: tell of each MDL of `MmAllocatePagesForMdl`
    /// and its kin whose structure it never freed, whether it freed the pages
    /// or not; of pages that it left, whose structure it freed; and of other
    /// memory that it left.
    pub fn report_unreleased(&mut self, platform: &mut dyn Platform) {
        // None of the driver's code is running.
        let none = StackId::default();
        let left = self.mdls.iter();
        for (&mdl, made) in left.filter(|(_, made)| made.kind == AllocationKind::MmMdl) {
            let what = match self.record(made.allocation) {
                Some(_) => format!("neither the MDL at {mdl} nor its pages were freed"),
                None => format!("the pages of the MDL at {mdl} were freed, and the MDL was not"),
            };
            let subject = Subject {
                allocation: Some(made.allocation),
                address: mdl.0,
            };
            rule::UNRELEASED.report_from(platform, none, subject, None, what);
        }
        let pages = self.records.iter();
        for (&id, record) in pages.filter(|(_, record)| record.kind == AllocationKind::MmMdl) {
            let mdl = record.address;
            if self
                .mdls
                .get(&mdl)
                .is_some_and(|made| made.allocation == id)
            {
                continue;
            }
            let subject = Subject {
                allocation: Some(id),
                address: mdl.0,
            };
            let what = format!("the MDL at {mdl} was freed, and its pages were not");
            rule::PAGES_LEFT.report_from(platform, none, subject, None, what);
        }
        self.report_memory_left(platform);
    }

    /// The rest of what it left: pool and contiguous memory.
    fn report_memory_left(&self, platform: &dyn Platform) {
        let none = StackId::default();
        let about = |id, address: Gva| Subject {
            allocation: Some(id),
            address: address.0,
        };
        // MDLs that come with pages are told by those, or are dxgkrnl's.
        let mut blocks = self.pool.blocks();
        let blocks = blocks
            .by_ref()
            .filter(|(at, _)| !self.mdls.contains_key(at));
        for (at, block) in blocks {
            let what = match self.structures.contains(&at) {
                true => format!("the MDL at {at} of IoAllocateMdl was not freed"),
                false => format!(
                    "the pool block at {at} of {} bytes, tag '{}', was not freed",
                    block.size,
                    pool::tag_text(block.tag)
                ),
            };
            pool_rule::LEFT.report_from(platform, none, about(block.id, at), None, what);
        }
        let contiguous = self.records.iter();
        let contiguous = contiguous.filter(|(_, r)| r.kind == AllocationKind::MmContiguous);
        for (&id, record) in contiguous {
            let at = record.address;
            let what = format!("the contiguous memory at {at} was not freed");
            contiguous_rule::CONTIGUOUS_LEFT.report_from(platform, none, about(id, at), None, what);
        }
    }

    /// `routine` frees the structure of an MDL: tell of it if that is
    /// another's to free. The call goes on, as on Windows, where all come from
    /// pool.
    pub(super) fn tell_other_free(&self, platform: &mut dyn Platform, routine: &str, mdl: Gva) {
        let pool = routine != "IoFreeMdl";
        let whose = match self.mdls.get(&mdl).map(|made| made.kind) {
            Some(AllocationKind::MmMdl) if !pool => "the Mm routines made, for ExFreePool to free",
            Some(AllocationKind::MmMdl) => return,
            Some(_) => "dxgkrnl made, and frees",
            None if pool == self.structures.contains(&mdl) => match pool {
                true => "IoAllocateMdl made, for IoFreeMdl to free",
                // Of what is no pool, the free itself tells.
                false if self.pool_block(mdl).is_none() => return,
                false => "the driver made of pool, for ExFreePool to free",
            },
            None => return,
        };
        let what = format!("{routine} of the MDL at {mdl}, which {whose}");
        rule::OTHER_FREE.report(platform, self.subject_at(mdl), None, what);
    }
}
