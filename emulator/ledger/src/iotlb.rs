//! What the IOMMU may still have cached: the translations that it has walked
//! to, and those of them whose entries were cleared since and that no
//! invalidation has covered.

use crate::history::covers;
use journal::event::Scope;
use memory::{Iova, PAGE_SHIFT};
use std::collections::{BTreeMap, BTreeSet};

/// Translations of each sort that are remembered; of more nothing is said.
const MAX_ENTRIES: usize = 1 << 16;

/// By domain and page of the device's address.
type Address = (u16, u64);

/// See the module.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Iotlb {
    cached: BTreeSet<Address>,
    /// Cleared and not invalidated: the frame that it led to.
    pending: BTreeMap<Address, u64>,
    /// The same by frame.
    frames: BTreeSet<(u64, u16, u64)>,
}

impl Iotlb {
    /// A walk ended here: what was cached of the address before is gone.
    pub(crate) fn filled(&mut self, domain: u16, iova: Iova) {
        let at = (domain, iova.page());
        self.settle(at);
        if self.cached.len() < MAX_ENTRIES {
            self.cached.insert(at);
        }
    }

    /// The leaf entry that led to `pfn` was cleared or changed.
    pub(crate) fn cleared(&mut self, domain: u16, iova: Iova, pfn: u64) {
        let at = (domain, iova.page());
        if self.cached.contains(&at)
            && self.pending.len() < MAX_ENTRIES
            && !self.pending.contains_key(&at)
        {
            self.pending.insert(at, pfn);
            self.frames.insert((pfn, domain, iova.page()));
        }
    }

    /// It leads to `pfn` now.
    pub(crate) fn mapped(&mut self, domain: u16, iova: Iova, pfn: u64) {
        let at = (domain, iova.page());
        if self.pending.get(&at) == Some(&pfn) {
            self.settle(at);
        }
    }

    /// What the scope covers is dropped. Each entry that goes was paid for by
    /// the event that made it.
    pub(crate) fn invalidated(&mut self, scope: Scope) {
        let (first, last) = match scope {
            Scope::Global => ((0, 0), (u16::MAX, u64::MAX)),
            Scope::Domain(domain) => ((domain, 0), (domain, u64::MAX)),
            Scope::Pages {
                domain,
                iova,
                count,
            } => {
                let page = iova.page();
                let Some(last) = count.checked_sub(1) else {
                    return;
                };
                ((domain, page), (domain, page.saturating_add(last)))
            }
            Scope::ContextGlobal | Scope::ContextDomain(_) | Scope::ContextDevice(..) => return,
        };
        let gone: Vec<Address> = self.cached.range(first..=last).copied().collect();
        for at in gone {
            self.cached.remove(&at);
        }
        let gone: Vec<Address> = self
            .pending
            .range(first..=last)
            .map(|(&at, _)| at)
            .collect();
        for at in gone {
            debug_assert!(covers(scope, at.0, Iova(at.1 << PAGE_SHIFT)));
            self.settle(at);
        }
    }

    /// An address by which the IOMMU may still lead to this frame, though the
    /// tables do not.
    pub(crate) fn may_lead_to(&self, pfn: u64) -> Option<(u16, Iova)> {
        let range = (pfn, 0, 0)..=(pfn, u16::MAX, u64::MAX);
        let (_, domain, page) = self.frames.range(range).next()?;
        Some((*domain, Iova(page << PAGE_SHIFT)))
    }

    fn settle(&mut self, at: Address) {
        if let Some(pfn) = self.pending.remove(&at) {
            self.frames.remove(&(pfn, at.0, at.1));
        }
    }
}
