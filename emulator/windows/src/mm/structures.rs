//! MDL structures: whose they are, and which were never freed.

use super::pages::MDL_TAG;
use super::{Gva, State};
use crate::platform::Platform;
use crate::rules::mm as rule;
use journal::event::{AllocationKind, Subject};

impl State {
    /// The driver was unloaded: tell of each MDL of `MmAllocatePagesForMdl`
    /// and its kin whose structure it never freed, whether it freed the pages
    /// or not.
    pub fn report_unreleased(&mut self, platform: &mut dyn Platform) {
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
            rule::UNRELEASED.report(platform, subject, None, what);
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
            None if pool && self.is_plain_mdl(mdl) => "IoAllocateMdl made, for IoFreeMdl to free",
            None => return,
        };
        let what = format!("{routine} of the MDL at {mdl}, which {whose}");
        rule::OTHER_FREE.report(platform, self.subject_at(mdl), None, what);
    }

    /// Did Windows make an MDL there without pages?
    fn is_plain_mdl(&self, mdl: Gva) -> bool {
        let block = self.pool_block(mdl);
        !self.mdls.contains_key(&mdl) && block.is_some_and(|block| block.tag == MDL_TAG)
    }
}
