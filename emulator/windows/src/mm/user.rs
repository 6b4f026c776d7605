//! Mappings of MDLs to user addresses.
//!
//! There is one process here, the system's, and nothing of its own lies at
//! user addresses: only the driver itself can go there.

use super::frames::{each_frame, push_frame};
use super::space::{self, Region};
use super::{AllocFailure, Mdl, State};
use crate::platform::{Platform, Protection};
use crate::rules::mm as rule;
use journal::event::{PageRun, Subject};
use memory::{Gva, Pfn};

/// A mapping of an MDL to user addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct UserMapping {
    pub mdl: Gva,
    /// The address that the driver got.
    pub address: Gva,
    pages: Vec<PageRun>,
}

/// Map the MDL's pages to user addresses. The caller has checked flags and
/// frames.
///
/// # Errors
/// [`AllocFailure`]; nothing is then mapped.
pub(super) fn map(
    state: &mut State,
    platform: &mut dyn Platform,
    mdl: &Mdl,
    frames: &[Pfn],
    protection: Protection,
) -> Result<Gva, AllocFailure> {
    let mut pages = Vec::new();
    for &frame in frames {
        push_frame(&mut pages, frame);
    }
    let base = space::map(state, platform, Region::User, &pages, protection)?;
    let address = Gva(base.0 + u64::from(mdl.byte_offset));
    let mapping = UserMapping {
        mdl: mdl.address,
        address,
        pages,
    };
    state.user_mappings.insert(base, mapping);
    Ok(address)
}

impl State {
    /// Release the user mapping of the MDL at `mdl` that is at `address`;
    /// says whether there was one.
    pub(super) fn unmap_user(
        &mut self,
        platform: &mut dyn Platform,
        address: Gva,
        mdl: Gva,
    ) -> bool {
        let base = address.page_base();
        let ours = self
            .user_mappings
            .get(&base)
            .is_some_and(|mapping| mapping.mdl == mdl && mapping.address == address);
        if ours {
            self.user_mappings.remove(&base);
            space::unmap(self, platform, base);
        }
        ours
    }

    /// Is the MDL at `mdl` mapped to user addresses?
    pub(super) fn is_user_mapped(&self, mdl: Gva) -> bool {
        self.user_mappings.values().any(|m| m.mdl == mdl)
    }

    /// `routine` gives these frames away: tell of it if a user address leads
    /// to one. The call goes on and the mapping stays, as on Windows.
    pub(super) fn tell_user_mapped(
        &self,
        platform: &mut dyn Platform,
        routine: &str,
        subject: Subject,
        frames: impl IntoIterator<Item = Pfn>,
    ) {
        if self.user_mappings.is_empty() {
            return;
        }
        let mapped: std::collections::BTreeMap<Pfn, Gva> = self
            .user_mappings
            .values()
            .flat_map(|m| each_frame(&m.pages).map(|frame| (frame, m.address)))
            .collect();
        let found = frames
            .into_iter()
            .find_map(|frame| Some((frame, mapped.get(&frame)?)));
        if let Some((frame, address)) = found {
            let what = format!(
                "{routine} gives page {:#x} away, which is mapped for user mode at {address}",
                frame.0
            );
            rule::USER_MAPPED.report(platform, subject, None, what);
        }
    }
}
