//! What the device of a running guest can reach now, page by page, and what
//! of it is its business.
//!
//! Two who say it are compared: QEMU, by the mappings that it told us, and,
//! behind VT-d, the guest's own tables in shared memory. What QEMU was told
//! and the tables no longer hold is an entry that was cleared and not yet
//! invalidated: the device still gets there.

mod draw;
mod pieces;
mod probe;
mod tables;
mod text;
mod watch;

pub use draw::picture;
pub use pieces::{Piece, joined, pages};
pub use probe::Probe;
pub use text::render;
pub use watch::{Watched, watch};

use crate::board::Look;
use crate::handle::{Handle, HandleError};
use crate::launch::Iommu;
use memory::{PAGE_SHIFT, PAGE_SIZE};
use pieces::{beside, within, without};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tables::Walked;

/// Where the rest of the machine is.
#[derive(Clone, Debug)]
pub struct Place {
    /// QEMU's own control socket.
    pub monitor: PathBuf,
    /// The guest's IOMMU.
    pub iommu: Iommu,
}

/// What an audit shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// The device.
    pub device: String,
    /// Is Bus Master Enable set? Without it nothing is reached.
    pub bus_master: bool,
    /// Pages of guest RAM.
    pub guest_pages: u64,
    /// Mappings, as they were told.
    pub mappings: u64,
    /// Everything that is mapped, ascending.
    pub reach: Vec<Piece>,
    /// Pages of RAM that are reached, by whatever address.
    pub reached_pages: u64,
    /// What the device uses: of each, its pages, and how many are mapped.
    pub uses: Vec<UseFacts>,
    /// What is mapped and no ring, buffer or backing of the device's.
    pub unowned: Vec<Piece>,
    /// What is mapped at its own physical address.
    pub identity: Vec<Piece>,
    /// The guest's own tables.
    pub tables: Tables,
    /// Reads of what is not mapped.
    pub probe: Probe,
    /// Guest RAM by what may be done to it, ascending by physical address.
    pub map: Vec<Patch>,
    /// Guest RAM: first address and bytes of each part.
    pub slots: Vec<(u64, u64)>,
}

/// What the device uses for something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UseFacts {
    /// For what.
    pub what: String,
    /// Pages it is in.
    pub pages: u64,
    /// Pages of these that are mapped.
    pub mapped: u64,
}

/// The guest's tables beside what QEMU told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tables {
    /// They were not walked; why.
    NotWalked(String),
    /// They pass the device's requests through.
    PassThrough,
    /// They were.
    Walked {
        /// Pages that they map.
        pages: u64,
        /// Were all of them read?
        whole: bool,
        /// Cleared in the tables and not yet invalidated: still in reach.
        cleared: Vec<Piece>,
        /// In the tables, and QEMU told nothing of it.
        untold: Vec<Piece>,
        /// They lead elsewhere, or with other rights, than QEMU told.
        changed: Vec<Piece>,
    },
}

/// Pages of guest RAM that are reached in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Physical address.
    pub gpa: u64,
    /// Bytes.
    pub length: u64,
    /// Is it something that the device uses?
    pub owned: bool,
    /// At its own physical address?
    pub identity: bool,
    /// May the device write?
    pub write: bool,
}

impl Audit {
    /// Does it show that isolation does not hold?
    #[must_use]
    pub fn is_breach(&self) -> bool {
        let stale = match &self.tables {
            Tables::Walked {
                cleared, changed, ..
            } => !cleared.is_empty() || !changed.is_empty(),
            _ => false,
        };
        stale || !self.probe.reached.is_empty()
    }
}

/// Look at a running machine. `tries`: how many reads the probe may make; 0
/// for none.
///
/// # Errors
/// [`HandleError`].
pub fn audit(handle: &Handle, place: &Place, tries: usize) -> Result<Audit, HandleError> {
    let root = match place.iommu {
        Iommu::Intel => tables::root(&place.monitor),
        _ => Err("only VT-d keeps its tables where they can be seen".to_owned()),
    };
    let before = handle.look()?;
    let walked = match root {
        Ok(root) => {
            let device = before.device;
            Ok(handle.see(move |memory| tables::walk(memory, root, device))?)
        }
        Err(why) => Err(why),
    };
    let look = handle.look()?;
    let reach = pieces_of(&look);
    let tables = compare(walked, &pieces_of(&before), &reach);
    let slots: Vec<(u64, u64)> = look.slots.iter().map(|s| (s.base.0, s.size)).collect();
    let probe = probe::probe(handle, place, &reach, &slots, tries)?;
    let owned = owned_pieces(&look.owned);
    let unowned = without(&reach, &owned);
    let map = map(&reach, &owned);
    Ok(Audit {
        device: look.device.to_string(),
        bus_master: look.bus_master,
        guest_pages: look.memory >> PAGE_SHIFT,
        mappings: look.mappings.len() as u64,
        reached_pages: reached_pages(&map),
        uses: uses(&look, &reach),
        unowned,
        identity: reach.iter().filter(|p| p.is_identity()).copied().collect(),
        tables,
        probe,
        map,
        slots,
        reach,
    })
}

pub(super) fn pieces_of(look: &Look) -> Vec<Piece> {
    joined(look.mappings.iter().map(|&mapping| mapping.into()))
}

/// What of the tables is not as QEMU told: only what it told before and after
/// the walk counts as told, so that a guest that goes on working is not taken
/// for one that forgets.
fn compare(walked: Result<Walked, String>, before: &[Piece], after: &[Piece]) -> Tables {
    let (found, whole) = match walked {
        Err(why) => return Tables::NotWalked(why),
        Ok(Walked::PassThrough) => return Tables::PassThrough,
        Ok(Walked::NoContext) => (Vec::new(), true),
        Ok(Walked::Mapped(found, whole)) => (found, whole),
    };
    let steady = within(after, before);
    let mut changed = Vec::new();
    beside(&steady, &found, |both| {
        if let (Some(told), Some(found)) = (both.first, both.second) {
            let elsewhere = told.target != found.target;
            if elsewhere || (told.read, told.write) != (found.read, found.write) {
                changed.push(told);
            }
        }
    });
    Tables::Walked {
        pages: pages(&found),
        // What was not read cannot be missed.
        cleared: if whole {
            without(&steady, &found)
        } else {
            Vec::new()
        },
        untold: without(&without(&found, after), before),
        changed: joined(changed),
        whole,
    }
}

/// Whole pages of what the device uses, ascending.
fn owned_pieces(owned: &[gpu::Owned]) -> Vec<Piece> {
    let mut all: Vec<(u64, u64)> = owned
        .iter()
        .map(|owned| {
            let end = owned.iova.0.saturating_add(owned.length.into());
            let end = end.checked_next_multiple_of(PAGE_SIZE);
            (owned.iova.page_base().0, end.unwrap_or(!(PAGE_SIZE - 1)))
        })
        .collect();
    all.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in all {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let piece = |(start, end)| Piece {
        iova: start,
        length: end - start,
        target: None,
        read: true,
        write: true,
    };
    merged.into_iter().map(piece).collect()
}

fn uses(look: &Look, reach: &[Piece]) -> Vec<UseFacts> {
    let mut by: BTreeMap<gpu::Use, Vec<gpu::Owned>> = BTreeMap::new();
    for owned in &look.owned {
        by.entry(owned.what).or_default().push(*owned);
    }
    by.into_iter()
        .map(|(what, owned)| {
            let own = owned_pieces(&owned);
            UseFacts {
                what: what.to_string(),
                pages: pages(&own),
                mapped: pages(&within(&own, reach)),
            }
        })
        .collect()
}

/// Guest RAM by what may be done to it. Where two addresses lead to one page,
/// both are there.
fn map(reach: &[Piece], owned: &[Piece]) -> Vec<Patch> {
    let mut map = Vec::new();
    beside(reach, owned, |both| {
        if let Some(Piece {
            target: Some(gpa),
            length,
            write,
            ..
        }) = both.first
        {
            map.push(Patch {
                gpa,
                length,
                owned: both.second.is_some(),
                identity: both.first.is_some_and(|piece| piece.is_identity()),
                write,
            });
        }
    });
    map.sort_unstable_by_key(|patch| patch.gpa);
    map
}

fn reached_pages(map: &[Patch]) -> u64 {
    let mut end = 0;
    let mut bytes = 0;
    for patch in map {
        let stop = patch.gpa.saturating_add(patch.length);
        bytes += stop.saturating_sub(patch.gpa.max(end));
        end = end.max(stop);
    }
    bytes >> PAGE_SHIFT
}
