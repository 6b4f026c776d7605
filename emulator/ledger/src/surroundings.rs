//! The pages around a finding, as driver and IOMMU see them at that moment.

use crate::Ledger;
use crate::finding::{Neighbour, Ownership, Reach, Surroundings};
use crate::mappings::Translation;
use crate::pages::PageState;
use memory::{Iova, PAGE_SHIFT, RequesterId};

/// Pages of a row.
const ROW: u64 = 16;
/// Rows before the one of the finding.
const BEFORE: u64 = 2;
/// Rows in all.
const ROWS: u64 = 5;

impl Ledger {
    pub(crate) fn surroundings(
        &self,
        device: RequesterId,
        domain: Option<u16>,
        iova: Iova,
        allocation: Option<u32>,
        physical: bool,
    ) -> Surroundings {
        let last = u64::MAX >> PAGE_SHIFT;
        let first = (iova.page() & !(ROW - 1))
            .saturating_sub(BEFORE * ROW)
            .min(last + 1 - ROWS * ROW);
        let identity = self.identity(device);
        let pages = (first..first + ROWS * ROW)
            .map(|page| {
                let neighbour = self.neighbour(page, identity, domain, allocation);
                match physical {
                    true => self.by_number(page, allocation).unwrap_or(neighbour),
                    false => neighbour,
                }
            })
            .collect();
        Surroundings {
            first: Iova(first << PAGE_SHIFT),
            pages,
        }
    }

    /// A page of the driver's that no address of the device leads to, by its
    /// physical address.
    fn by_number(&self, page: u64, allocation: Option<u32>) -> Option<Neighbour> {
        let of = self.pages.get(page);
        let owned = of.state == PageState::Owned && self.mappings.reaching(page).is_none();
        owned.then(|| Neighbour {
            owner: Ownership::Owned,
            reach: Reach::Never,
            same: allocation == Some(of.owner),
        })
    }

    fn neighbour(
        &self,
        page: u64,
        identity: bool,
        domain: Option<u16>,
        allocation: Option<u32>,
    ) -> Neighbour {
        let iova = Iova(page << PAGE_SHIFT);
        let translation = domain.map(|domain| (domain, self.mappings.translate(domain, iova)));
        let (pfn, reach) = match translation {
            _ if identity => (Some(page), Reach::Identity),
            Some((_, Translation::Present { pfn, .. })) => (pfn, Reach::Mapped),
            Some((_, Translation::Absent { before, .. })) => {
                (before.map(|before| before.pfn), Reach::Unmapped)
            }
            Some((domain, Translation::Unknown)) => match self.mappings.last_fill(domain, iova) {
                Some(before) => (Some(before.pfn), Reach::Unknown),
                None if self.facts.table_writes > 0 => (None, Reach::Unmapped),
                None => (None, Reach::Unknown),
            },
            None => (None, Reach::Unknown),
        };
        let page = pfn.map(|pfn| self.pages.get(pfn)).unwrap_or_default();
        Neighbour {
            owner: match page.state {
                PageState::Never => Ownership::Never,
                PageState::Owned => Ownership::Owned,
                PageState::Freed => Ownership::Freed,
                PageState::Recycled => Ownership::Recycled,
            },
            reach,
            same: allocation.is_some() && page.last_owner() == allocation,
        }
    }
}
