//! Domains and their second-level tables (VT-d 9.8): four levels, leaves of
//! 4 KiB; larger ones where all of RAM is mapped.

use super::owners::Owners;
use super::queue::{Invalidation, Request, blocks};
use super::{HalError, State, write_entry};
use crate::mm;
use crate::platform::Platform;
use iommu::spec::tables as spec;
use journal::event::{PageRun, Table};
use memory::{Gpa, Iova, PAGE_SIZE, Pfn};
use std::collections::BTreeMap;

/// Page numbers that 48 bits can hold.
const PAGES: u64 = 1 << 36;
/// Page-selective invalidations for one unmap; for more, the whole domain is
/// invalidated.
const SELECTIVE_LIMIT: usize = 64;

/// A domain: its id in context entries and descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

/// What a domain does with addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomainKind {
    /// Nothing: its devices reach all memory.
    Passthrough,
    /// Its tables say what its devices reach.
    Translate,
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Domain {
    pub kind: DomainKind,
    /// The top table; used for [`DomainKind::Translate`] only.
    pub root: Pfn,
    /// Every table, the top one first.
    tables: Vec<PageRun>,
    /// Mapped pages.
    pages: BTreeMap<u64, Owners>,
    /// Runs that are mapped for good, by leaves of any size.
    lasting: Vec<PageRun>,
}

/// The last table of level 1 that was found: neighbours share it.
#[derive(Clone, Copy, Default)]
struct Cursor(Option<(u64, Pfn)>);

impl State {
    /// Make a domain. Id 0 is not used: hardware with caching mode reserves
    /// it.
    ///
    /// # Errors
    /// [`HalError::NoDomainIds`], [`HalError::Allocation`].
    pub fn create_domain(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        kind: DomainKind,
    ) -> Result<DomainId, HalError> {
        let id = (1..=u16::MAX)
            .map(DomainId)
            .find(|id| !self.domains.contains_key(id))
            .ok_or(HalError::NoDomainIds)?;
        let mut domain = Domain {
            kind,
            root: Pfn(0),
            tables: Vec::new(),
            pages: BTreeMap::new(),
            lasting: Vec::new(),
        };
        if kind == DomainKind::Translate {
            domain.root = mm.reserve_frame(platform)?;
            mm::frames::push_frame(&mut domain.tables, domain.root);
        }
        self.domains.insert(id, domain);
        Ok(id)
    }

    /// Unmake a domain that no device is in; its tables go back to `mm`.
    ///
    /// # Errors
    /// [`HalError::NoDomain`], [`HalError::DomainInUse`].
    pub fn delete_domain(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        id: DomainId,
    ) -> Result<(), HalError> {
        if self.devices.values().any(|d| d.domain == Some(id)) {
            return Err(HalError::DomainInUse(id));
        }
        let domain = self.domains.get(&id).ok_or(HalError::NoDomain(id))?;
        let tables = domain.tables.clone();
        // The id may be used anew: nothing of the old domain may be cached.
        self.submit(platform, &[Request::domain(id.0, true)])?;
        self.domains.remove(&id);
        mm.release_reserved(platform, &tables);
        Ok(())
    }

    /// Is a page mapped in a domain?
    #[must_use]
    pub fn is_mapped(&self, domain: DomainId, frame: Pfn) -> bool {
        self.domains
            .get(&domain)
            .is_some_and(|d| d.pages.contains_key(&frame.0) || d.lasts(frame))
    }

    /// Let a domain's devices reach all of `runs` at their own addresses for
    /// as long as the domain lives, by the largest leaves that fit.
    ///
    /// # Errors
    /// [`HalError`]; part may be mapped then.
    pub fn map_all(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        id: DomainId,
        runs: &[PageRun],
    ) -> Result<(), HalError> {
        let largest = self.unit()?.largest_leaf();
        let domain = self.domains.get_mut(&id).ok_or(HalError::NoDomain(id))?;
        if domain.kind == DomainKind::Passthrough {
            return Ok(());
        }
        for run in runs {
            let end = run.first.0.saturating_add(run.count);
            if end > PAGES {
                return Err(HalError::BeyondWidth(end));
            }
            let mut at = run.first.0;
            while at < end {
                let fits = |level: &u8| {
                    let pages = 1u64 << (9 * u32::from(level - 1));
                    at.is_multiple_of(pages) && pages <= end - at
                };
                let level = (2..=largest).rev().find(fits).unwrap_or(1);
                domain.map_leaf(platform, mm, id, Pfn(at), level)?;
                at += 1 << (9 * u32::from(level - 1));
            }
            domain.lasting.push(*run);
        }
        if self.unit()?.caches_absence() {
            self.submit(platform, &[Request::domain(id.0, true)])?;
        }
        Ok(())
    }

    /// Let a domain's devices reach `frames` at their own addresses, to read
    /// and, with `write`, to write. A domain that passes through needs
    /// nothing.
    ///
    /// # Errors
    /// [`HalError`]; nothing is then mapped that was not before.
    pub fn map_identity(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        id: DomainId,
        frames: &[Pfn],
        write: bool,
    ) -> Result<(), HalError> {
        let domain = self.domains.get_mut(&id).ok_or(HalError::NoDomain(id))?;
        if domain.kind == DomainKind::Passthrough {
            return Ok(());
        }
        if let Some(frame) = frames.iter().find(|&&frame| domain.lasts(frame)) {
            return Err(HalError::Lasting {
                domain: id,
                page: frame.0,
            });
        }
        let mut cursor = Cursor::default();
        for (done, &frame) in frames.iter().enumerate() {
            if let Err(error) = domain.map_page(platform, mm, id, &mut cursor, frame, write) {
                let undone = frames.get(..done).unwrap_or_default();
                self.unmap(platform, id, undone, write)?;
                return Err(error);
            }
        }
        if self.unit()?.caches_absence() {
            self.invalidate(platform, id, sorted(frames), Invalidation::COMPLETE)?;
        }
        Ok(())
    }

    /// Take `frames`, which were mapped with `write` or without, from a
    /// domain's devices. When this returns, no access of them reaches the
    /// pages, and none that began before is still on its way. A page that was
    /// mapped more than once stays until the last unmap, for what those that
    /// remain may do.
    ///
    /// # Errors
    /// [`HalError::NotMapped`] with nothing changed; [`HalError`] of the
    /// queue.
    pub fn unmap(
        &mut self,
        platform: &mut dyn Platform,
        id: DomainId,
        frames: &[Pfn],
        write: bool,
    ) -> Result<(), HalError> {
        self.unmap_with(platform, id, frames, write, Invalidation::COMPLETE)
    }

    /// As [`State::unmap`], with a choice of how hardware's caches are
    /// treated.
    ///
    /// # Errors
    /// As [`State::unmap`].
    pub fn unmap_with(
        &mut self,
        platform: &mut dyn Platform,
        id: DomainId,
        frames: &[Pfn],
        write: bool,
        how: Invalidation,
    ) -> Result<(), HalError> {
        let domain = self.domains.get_mut(&id).ok_or(HalError::NoDomain(id))?;
        if domain.kind == DomainKind::Passthrough {
            return Ok(());
        }
        if let Some(page) = domain.first_unmapped(frames, write) {
            return Err(HalError::NotMapped { domain: id, page });
        }
        let mut cursor = Cursor::default();
        let mut shrunk = Vec::new();
        let mut result = Ok(());
        for &frame in frames {
            match domain.unmap_page(platform, id, &mut cursor, frame, write) {
                Ok(true) => shrunk.push(frame.0),
                Ok(false) => {}
                // What was taken so far is gone from the caches all the same.
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        shrunk.sort_unstable();
        self.invalidate(platform, id, shrunk, how)?;
        result
    }

    fn invalidate(
        &mut self,
        platform: &mut dyn Platform,
        id: DomainId,
        pages: Vec<u64>,
        how: Invalidation,
    ) -> Result<(), HalError> {
        if how.skip || pages.is_empty() {
            return Ok(());
        }
        let selective = self
            .unit()?
            .max_address_mask()
            .map(|max| blocks(&pages, max))
            .filter(|blocks| blocks.len() <= SELECTIVE_LIMIT);
        let requests: Vec<Request> = match selective {
            Some(blocks) => blocks
                .into_iter()
                .map(|block| Request::pages(id.0, block, how.drain))
                .collect(),
            None => vec![Request::domain(id.0, how.drain)],
        };
        self.submit(platform, &requests)
    }
}

fn sorted(frames: &[Pfn]) -> Vec<u64> {
    let mut pages: Vec<u64> = frames.iter().map(|frame| frame.0).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

impl Domain {
    fn lasts(&self, frame: Pfn) -> bool {
        let holds = |run: &PageRun| (run.first.0..run.first.0 + run.count).contains(&frame.0);
        self.lasting.iter().any(holds)
    }

    /// Write a leaf of `level` for good.
    fn map_leaf(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        id: DomainId,
        frame: Pfn,
        level: u8,
    ) -> Result<(), HalError> {
        let table = self.table_at(platform, mm, id, frame, level)?;
        let large = if level > 1 { spec::ENTRY_LARGE } else { 0 };
        let value = frame.base().0 | spec::ENTRY_READ | spec::ENTRY_WRITE | large;
        let table_kind = second_level(id, frame, level);
        Ok(write_entry(
            platform,
            entry(table, frame, level),
            value,
            table_kind,
        )?)
    }

    fn map_page(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        id: DomainId,
        cursor: &mut Cursor,
        frame: Pfn,
        write: bool,
    ) -> Result<(), HalError> {
        if frame.0 >= PAGES {
            return Err(HalError::BeyondWidth(frame.0));
        }
        let old = self.pages.get(&frame.0).copied().unwrap_or_default();
        let mut new = old;
        let owners = new.of(write);
        *owners = owners.saturating_add(1);
        if old.rights() != new.rights() {
            let table = self.leaf_table(platform, mm, id, cursor, frame)?;
            write_leaf(platform, table, id, frame, frame.base().0 | new.rights())?;
        }
        self.pages.insert(frame.0, new);
        Ok(())
    }

    /// Drop one owner; true if the leaf allows less now, or nothing.
    fn unmap_page(
        &mut self,
        platform: &mut dyn Platform,
        id: DomainId,
        cursor: &mut Cursor,
        frame: Pfn,
        write: bool,
    ) -> Result<bool, HalError> {
        let not_mapped = HalError::NotMapped {
            domain: id,
            page: frame.0,
        };
        let old = self.pages.get(&frame.0).copied().unwrap_or_default();
        let mut new = old;
        let owners = new.of(write);
        let Some(left) = owners.checked_sub(1) else {
            return Err(not_mapped);
        };
        *owners = left;
        let shrinks = old.rights() != new.rights();
        if shrinks {
            let Some(table) = self.find_leaf_table(platform, cursor, frame)? else {
                return Err(not_mapped);
            };
            let value = match new.rights() {
                0 => 0,
                rights => frame.base().0 | rights,
            };
            write_leaf(platform, table, id, frame, value)?;
        }
        if new == Owners::default() {
            self.pages.remove(&frame.0);
        } else {
            self.pages.insert(frame.0, new);
        }
        Ok(shrinks)
    }

    /// The first of `frames` that has fewer owners of that kind than times it
    /// is listed.
    fn first_unmapped(&self, frames: &[Pfn], write: bool) -> Option<u64> {
        let mut pages: Vec<u64> = frames.iter().map(|frame| frame.0).collect();
        pages.sort_unstable();
        pages
            .chunk_by(|a, b| a == b)
            .find(|same| {
                let mapped = same.first().and_then(|page| self.pages.get(page));
                let owners = mapped.map_or(0, |&(mut mapped)| *mapped.of(write));
                u64::from(owners) < same.len() as u64
            })
            .and_then(|same| same.first().copied())
    }

    fn find_leaf_table(
        &self,
        platform: &dyn Platform,
        cursor: &mut Cursor,
        frame: Pfn,
    ) -> Result<Option<Pfn>, HalError> {
        let prefix = frame.0 >> 9;
        if let Some((known, table)) = cursor.0
            && known == prefix
        {
            return Ok(Some(table));
        }
        let mut table = self.root;
        for level in [4, 3, 2] {
            let value = platform.memory().read_u64(entry(table, frame, level))?;
            if value & (spec::ENTRY_READ | spec::ENTRY_WRITE) == 0 {
                return Ok(None);
            }
            table = Pfn::from(Gpa(value & spec::ADDRESS));
        }
        cursor.0 = Some((prefix, table));
        Ok(Some(table))
    }

    /// As [`Domain::find_leaf_table`], making the tables that are not there.
    fn leaf_table(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        id: DomainId,
        cursor: &mut Cursor,
        frame: Pfn,
    ) -> Result<Pfn, HalError> {
        if let Some(table) = self.find_leaf_table(platform, cursor, frame)? {
            return Ok(table);
        }
        let table = self.table_at(platform, mm, id, frame, 1)?;
        cursor.0 = Some((frame.0 >> 9, table));
        Ok(table)
    }

    /// The table of `level` that maps `frame`, made if it is not there.
    fn table_at(
        &mut self,
        platform: &mut dyn Platform,
        mm: &mut mm::State,
        id: DomainId,
        frame: Pfn,
        level: u8,
    ) -> Result<Pfn, HalError> {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            let at = entry(table, frame, above);
            let value = platform.memory().read_u64(at)?;
            table = if value & (spec::ENTRY_READ | spec::ENTRY_WRITE) == 0 {
                let new = mm.reserve_frame(platform)?;
                mm::frames::push_frame(&mut self.tables, new);
                let value = new.base().0 | spec::ENTRY_READ | spec::ENTRY_WRITE;
                write_entry(platform, at, value, second_level(id, frame, above))?;
                new
            } else {
                Pfn::from(Gpa(value & spec::ADDRESS))
            };
        }
        Ok(table)
    }
}

fn write_leaf(
    platform: &dyn Platform,
    table: Pfn,
    id: DomainId,
    frame: Pfn,
    value: u64,
) -> Result<(), HalError> {
    let at = entry(table, frame, 1);
    Ok(write_entry(
        platform,
        at,
        value,
        second_level(id, frame, 1),
    )?)
}

/// Where the entry for the page lies in a table of `level`.
fn entry(table: Pfn, page: Pfn, level: u8) -> Gpa {
    let index = page.0 >> (9 * u32::from(level - 1)) & 0x1ff;
    Gpa(table.base().0 + 8 * index)
}

fn second_level(id: DomainId, page: Pfn, level: u8) -> Table {
    let covered = 9 * u32::from(level - 1);
    Table::SecondLevel {
        domain: id.0,
        level,
        iova: Iova((page.0 >> covered << covered) * PAGE_SIZE),
    }
}
