//! Pool.
//!
//! Each block has pages of its own and ends at the end of its last page (to
//! 16 bytes), as in Windows' special pool: an overrun meets the guard page,
//! and a freed block leaves the page tables, so that its use faults. A block
//! of a page or more starts at a page, as on Windows. A device that is given
//! the page of a block can thus reach that block only; on Windows, small
//! blocks have neighbours.

use super::frames::count_frames;
use super::space::{self, Region};
use super::spec::{SYSTEM_RANGE_START, pool as layout};
use super::{AllocFailure, POISON, State, Window, past, retire, tell_recycled, zero};
use crate::call::Stop;
use crate::injected;
use crate::platform::{Platform, Protection};
use crate::rules::pool as rule;
use journal::event::{Allocation, AllocationId, AllocationKind, Event, PageRun, StackId, Subject};
use memory::{Gva, PAGE_SIZE};
use std::collections::BTreeMap;

/// What is asked of pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// How much; 0 gives the smallest block.
    pub bytes: u64,
    /// Four characters, little-endian.
    pub tag: u32,
    /// A power of two, at least 16.
    pub alignment: u64,
    /// Clear it?
    pub zero: bool,
    /// May it hold code?
    pub execute: bool,
    /// Is it from paged pool?
    pub paged: bool,
}

impl Shape {
    /// A cleared block of data.
    #[must_use]
    pub fn zeroed(bytes: u64, tag: u32) -> Self {
        Self {
            bytes,
            tag,
            alignment: layout::ALIGNMENT,
            zero: true,
            execute: false,
            paged: false,
        }
    }
}

/// A live block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Its allocation.
    pub id: AllocationId,
    /// Bytes, as asked for.
    pub size: u64,
    /// Its tag.
    pub tag: u32,
    /// Is it from paged pool, which here is resident too?
    pub paged: bool,
    /// Its frames.
    pub pages: Vec<PageRun>,
    /// Who asked for it.
    pub stack: StackId,
}

impl Block {
    /// Is `tag` the block's, or none?
    #[must_use]
    pub fn has_tag(&self, tag: Option<u32>) -> bool {
        tag.is_none_or(|tag| (tag ^ self.tag) & !layout::PROTECTED == 0)
    }
}

/// All blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pool {
    blocks: BTreeMap<Gva, Block>,
}

impl Pool {
    /// The live block that starts at `address`.
    #[must_use]
    pub fn block(&self, address: Gva) -> Option<&Block> {
        self.blocks.get(&address)
    }

    /// Live blocks, by address.
    pub fn blocks(&self) -> impl Iterator<Item = (Gva, &Block)> {
        self.blocks.iter().map(|(&address, block)| (address, block))
    }

    /// The live block in whose pages `address` lies.
    pub(super) fn block_around(&self, address: Gva) -> Option<(Gva, &Block)> {
        let (&start, block) = self.blocks.range(..=address).next_back()?;
        let end = start.page_base().0 + count_frames(&block.pages) * PAGE_SIZE;
        (address.0 < end).then_some((start, block))
    }
}

/// Allocate a block.
///
/// # Errors
/// [`AllocFailure`]; nothing is then allocated.
pub fn allocate(
    state: &mut State,
    platform: &mut dyn Platform,
    shape: Shape,
) -> Result<Gva, AllocFailure> {
    let bytes = shape.bytes.max(1);
    let pages = bytes.div_ceil(PAGE_SIZE);
    injected::memory(platform, pages)?;
    let id = state.next_id()?;
    let taken = state
        .frames
        .allocate(id, pages, Window::ALL, false)
        .ok_or(AllocFailure::NoFrames { pages })?;
    tell_recycled(platform, taken.recycled);
    // Uninitialised pool keeps what the pages held.
    if shape.zero {
        zero(platform.memory(), &taken.frames);
    }
    let protection = Protection {
        write: true,
        execute: shape.execute,
    };
    let base = match space::map(state, platform, Region::Pool, &taken.frames, protection) {
        Ok(base) => base,
        Err(error) => {
            let recycled = state.frames.release(&taken.frames);
            tell_recycled(platform, recycled);
            return Err(error);
        }
    };
    let alignment = shape.alignment.clamp(layout::ALIGNMENT, PAGE_SIZE);
    let address = match bytes.checked_next_multiple_of(alignment) {
        Some(rounded) if rounded < PAGE_SIZE => Gva(base.0 + PAGE_SIZE - rounded),
        _ => base,
    };
    let stack = platform.stack();
    platform
        .scenario()
        .journal()
        .emit(Event::Allocate(Allocation {
            id,
            kind: AllocationKind::Pool,
            handle: 0,
            address: address.0,
            pages: taken.frames.clone(),
            requested: super::frames::count_frames(&taken.frames),
            stack,
        }));
    let block = Block {
        id,
        size: shape.bytes,
        tag: shape.tag,
        paged: shape.paged,
        pages: taken.frames,
        stack,
    };
    state.pool.blocks.insert(address, block);
    Ok(address)
}

/// Free the block at `address`. With a `tag`, it must be the block's.
///
/// # Errors
/// BAD_POOL_CALLER; nothing is then freed.
pub fn free(
    state: &mut State,
    platform: &mut dyn Platform,
    address: Gva,
    tag: Option<u32>,
) -> Result<(), Stop> {
    let Some(block) = state.pool.block(address) else {
        return Err(no_such_block(state, address));
    };
    if let Some(given) = tag.filter(|_| !block.has_tag(tag)) {
        let values = [address.0, u64::from(block.tag), u64::from(given)];
        let what = format!(
            "pool block {address} has the tag '{}' and is freed as '{}'",
            tag_text(block.tag),
            tag_text(given)
        );
        return Err(rule::WRONG_TAG
            .stop(&values, what)
            .about(state.subject_at(address))
            .or_return(0u64));
    }
    if let Some(block) = state.pool.blocks.remove(&address) {
        let made = state.mdls.remove(&address);
        state.structures.remove(&address);
        let kind = past::Kind::Pool {
            size: block.size,
            tag: block.tag,
            describes: made.map(|made| made.allocation),
        };
        let subject = Subject {
            allocation: Some(block.id),
            address: address.0,
        };
        state.unmap_and_note(platform, address.page_base(), kind, subject);
        retire(state, platform, block.id, &block.pages, POISON);
    }
    Ok(())
}

/// Which mistake a free of `address` is.
fn no_such_block(state: &State, address: Gva) -> Stop {
    let (rule, what) = if let Some(gone) = state.past.around(address)
        && matches!(gone.kind, past::Kind::Pool { .. })
        && gone.address == address
    {
        (&rule::FREED_TWICE, format!("a free of {}", gone.describe()))
    } else if address.0 < SYSTEM_RANGE_START {
        let what = format!("{address} is freed as pool and is no system address");
        (&rule::USER_ADDRESS, what)
    } else if let Some((start, block)) = state.pool.block_around(address) {
        let what = format!(
            "{address} is freed as pool and lies inside the block at {start} of {} bytes",
            block.size
        );
        (&rule::INSIDE, what)
    } else {
        let what = format!("{address} is freed as pool and never was pool");
        (&rule::NEVER_POOL, what)
    };
    rule.stop(&[address.0], what)
        .about(state.subject_at(address))
        .or_return(0u64)
}

/// A pool tag as people write it.
#[must_use]
pub fn tag_text(tag: u32) -> String {
    let printable = |byte: u8| match byte {
        0x20..=0x7e => char::from(byte),
        _ => '.',
    };
    let tag = tag & !layout::PROTECTED;
    tag.to_le_bytes().into_iter().map(printable).collect()
}
