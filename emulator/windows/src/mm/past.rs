//! What was freed or unmapped: to say of an address that leads nowhere, or
//! of a second free, what was there.

use super::frames::Frame;
use super::{Gva, State, pool, space};
use journal::event::{AllocationId, Subject};
use memory::{PAGE_SIZE, Pfn};
use std::collections::{BTreeMap, VecDeque};

/// Ranges that are remembered.
const REMEMBERED: usize = 1 << 14;

/// A range of addresses that no longer leads anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gone {
    /// What lay there.
    pub kind: Kind,
    /// Which allocation.
    pub allocation: Option<AllocationId>,
    /// Its address, as the driver knew it.
    pub address: Gva,
    /// First address and pages of the range.
    pub base: Gva,
    /// Pages.
    pub pages: u64,
}

/// What lay at addresses that lead nowhere now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A pool block.
    Pool {
        /// Bytes, as asked for.
        size: u64,
        /// Its tag.
        tag: u32,
        /// The allocation whose pages it described, if it was their MDL.
        describes: Option<AllocationId>,
    },
    /// Memory of `MmAllocateContiguousMemory` and its kin.
    Contiguous,
    /// A system mapping of an MDL.
    Mdl,
    /// A mapping of device memory.
    Device,
}

impl Gone {
    /// What it was and what became of it, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let address = self.address;
        match self.kind {
            Kind::Pool { size, tag, .. } => format!(
                "the pool block at {address} of {size} bytes, tag '{}', which was freed",
                pool::tag_text(tag)
            ),
            Kind::Contiguous => {
                format!("the contiguous memory at {address}, which was freed")
            }
            Kind::Mdl => format!(
                "the system mapping at {} of the MDL at {address}, which was released",
                self.base
            ),
            Kind::Device => {
                format!("the mapping of device memory at {address}, which was released")
            }
        }
    }

    /// What a breach by its use is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject {
            allocation: self.allocation,
            address: self.address.0,
        }
    }
}

/// The ranges; none overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Past {
    ranges: BTreeMap<Gva, (u64, Gone)>,
    /// Bases and numbers of `ranges`, oldest first; some are gone from there.
    order: VecDeque<(Gva, u64)>,
    last: u64,
}

impl Past {
    /// That range was unmapped.
    pub fn note(&mut self, gone: Gone) {
        self.forget(gone.base, gone.pages);
        self.last += 1;
        self.ranges.insert(gone.base, (self.last, gone));
        self.order.push_back((gone.base, self.last));
        while self.order.len() > REMEMBERED {
            if let Some((base, number)) = self.order.pop_front()
                && self.ranges.get(&base).is_some_and(|(n, _)| *n == number)
            {
                self.ranges.remove(&base);
            }
        }
    }

    /// That range is in use again.
    pub fn forget(&mut self, base: Gva, pages: u64) {
        let end = Gva(base.0.saturating_add(pages * PAGE_SIZE));
        while let Some((&start, (_, gone))) = self.ranges.range(..end).next_back()
            && start.0 + gone.pages * PAGE_SIZE > base.0
        {
            self.ranges.remove(&start);
        }
    }

    /// The range around `address`.
    pub fn around(&self, address: Gva) -> Option<&Gone> {
        let (_, (_, gone)) = self.ranges.range(..=address).next_back()?;
        (address.0 - gone.base.0 < gone.pages * PAGE_SIZE).then_some(gone)
    }
}

/// What an address is that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Absent {
    /// Something lay there.
    Gone(Gone),
    /// It lies past the end of the mapping of an MDL with fewer pages than
    /// were asked for.
    PastPartial {
        /// Pages that were given.
        given: u64,
        /// Pages that were asked for.
        requested: u64,
        /// The allocation, and its MDL.
        subject: Subject,
    },
    /// It lies on the page after a pool block.
    PastPool {
        /// Bytes of the block, as asked for.
        size: u64,
        /// The allocation, and the block.
        subject: Subject,
    },
}

impl State {
    /// What an address is that leads nowhere, if it ever was something.
    #[must_use]
    pub fn absent(&self, address: Gva) -> Option<Absent> {
        if let Some(gone) = self.past.around(address) {
            return Some(Absent::Gone(*gone));
        }
        let mapped = self.mappings.iter().find(|(_, mapping)| {
            let offset = address.0.wrapping_sub(mapping.base.0);
            let pages = mapping.pages..mapping.pages + mapping.beyond;
            pages.contains(&(offset / PAGE_SIZE))
        });
        if let Some((&mdl, mapping)) = mapped {
            let record = mapping.allocation.and_then(|id| self.record(id))?;
            return Some(Absent::PastPartial {
                given: mapping.pages,
                requested: record.requested,
                subject: Subject {
                    allocation: mapping.allocation,
                    address: mdl.0,
                },
            });
        }
        let before = Gva(address.0.checked_sub(PAGE_SIZE)?);
        let (at, block) = self.pool.block_around(before)?;
        Some(Absent::PastPool {
            size: block.size,
            subject: Subject {
                allocation: Some(block.id),
                address: at.0,
            },
        })
    }

    /// The allocation that `address` belongs or belonged to: of an MDL, the
    /// pages that it was made with.
    #[must_use]
    pub fn subject_at(&self, address: Gva) -> Subject {
        let about = |allocation, at: Gva| Subject {
            allocation: Some(allocation),
            address: at.0,
        };
        if let Some(made) = self.mdls.get(&address) {
            return about(made.allocation, address);
        }
        if let Some((id, _)) = self.record_at(address) {
            return about(id, address);
        }
        if let Some((at, block)) = self.pool.block_around(address) {
            return match self.mdls.get(&at) {
                Some(made) => about(made.allocation, at),
                None => about(block.id, at),
            };
        }
        let around = |(_, mapping): &(&Gva, &super::mdl::Mapping)| {
            address.0.wrapping_sub(mapping.base.0) < mapping.pages * PAGE_SIZE
        };
        if let Some((&mdl, mapping)) = self.mappings.iter().find(around) {
            return Subject {
                allocation: mapping.allocation,
                address: mdl.0,
            };
        }
        match self.past.around(address) {
            Some(Gone {
                kind:
                    Kind::Pool {
                        describes: Some(id),
                        ..
                    },
                address,
                ..
            }) => about(*id, *address),
            Some(gone) => gone.subject(),
            None => Subject {
                allocation: None,
                address: address.0,
            },
        }
    }

    /// The MDL structure, made with pages, that `address` lies inside of.
    pub(super) fn mdl_around(&self, address: Gva) -> Option<Gva> {
        let (at, _) = self.pool.block_around(address)?;
        (at != address && self.mdls.contains_key(&at)).then_some(at)
    }

    /// The owner of a frame, about memory or an MDL at `address`.
    pub(super) fn subject_of_frame(&self, frame: Pfn, address: Gva) -> Subject {
        let allocation = match self.frame(frame) {
            Some(Frame::Owned(id)) => Some(id),
            _ => None,
        };
        Subject {
            allocation,
            address: address.0,
        }
    }

    /// Unmap a range that was the driver's, and remember what it was.
    pub(super) fn unmap_and_note(
        &mut self,
        platform: &mut dyn crate::Platform,
        base: Gva,
        kind: Kind,
        subject: Subject,
    ) -> bool {
        let Some(pages) = space::unmap(self, platform, base) else {
            return false;
        };
        self.past.note(Gone {
            kind,
            allocation: subject.allocation,
            address: Gva(subject.address),
            base,
            pages,
        });
        true
    }
}
