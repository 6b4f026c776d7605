//! Interlocked lists under a spin lock: LIST_ENTRY is {Flink, Blink}; and
//! sequenced lists, which need none.

use super::rules::unless;
use super::spec::slist;
use super::{Answer, State, field, pointer, spinlock};
use crate::rules::executive::LIST_CORRUPT;
use crate::{Call, Outcome, Platform};
use memory::Gva;

/// Offset of Blink.
const BLINK: u64 = 8;

/// The neighbours of an entry, which must point back at it: Windows fails
/// fast otherwise (FAST_FAIL_CORRUPT_LIST_ENTRY, 3).
fn neighbours(p: &dyn Platform, entry: Gva) -> Result<(Gva, Gva), Outcome> {
    let next = Gva(p.read_u64(entry)?);
    let previous = Gva(p.read_u64(field(entry, BLINK)?)?);
    let back = p.read_u64(field(next, BLINK)?)?;
    let forth = p.read_u64(previous)?;
    if back == entry.0 && forth == entry.0 {
        return Ok((next, previous));
    }
    let what = format!(
        "the list at {entry} is corrupt: its neighbours {next} and {previous} do not point back"
    );
    Err(Outcome::Stop(LIST_CORRUPT.stop(&[entry.0], what)))
}

fn link(p: &mut dyn Platform, previous: Gva, entry: Gva, next: Gva) -> Result<(), Outcome> {
    p.write_u64(entry, next.0)?;
    p.write_u64(field(entry, BLINK)?, previous.0)?;
    p.write_u64(previous, entry.0)?;
    p.write_u64(field(next, BLINK)?, entry.0)?;
    Ok(())
}

/// PLIST_ENTRY ExInterlockedInsertTailList(head, entry, lock): the entry that
/// was last, or NULL.
pub(super) fn insert_tail(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (head, entry, lock) = (
        pointer(call, p, 0)?,
        pointer(call, p, 1)?,
        pointer(call, p, 2)?,
    );
    let held = spinlock::take(p, "ExInterlockedInsertTailList", lock)?;
    let (_, last) = neighbours(p, head)?;
    link(p, last, entry, head)?;
    spinlock::free(p, "ExInterlockedInsertTailList", lock)?;
    Ok(unless(held, if last == head { 0 } else { last.0 }))
}

/// PLIST_ENTRY ExInterlockedInsertHeadList(head, entry, lock): the entry that
/// was first, or NULL.
pub(super) fn insert_head(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (head, entry, lock) = (
        pointer(call, p, 0)?,
        pointer(call, p, 1)?,
        pointer(call, p, 2)?,
    );
    let held = spinlock::take(p, "ExInterlockedInsertHeadList", lock)?;
    let (first, _) = neighbours(p, head)?;
    link(p, head, entry, first)?;
    spinlock::free(p, "ExInterlockedInsertHeadList", lock)?;
    Ok(unless(held, if first == head { 0 } else { first.0 }))
}

/// PLIST_ENTRY ExInterlockedRemoveHeadList(head, lock): the first entry, or
/// NULL.
pub(super) fn remove_head(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (head, lock) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let held = spinlock::take(p, "ExInterlockedRemoveHeadList", lock)?;
    let (first, _) = neighbours(p, head)?;
    let mut removed = 0;
    if first != head {
        let (next, _) = neighbours(p, first)?;
        p.write_u64(head, next.0)?;
        p.write_u64(field(next, BLINK)?, head.0)?;
        removed = first.0;
    }
    spinlock::free(p, "ExInterlockedRemoveHeadList", lock)?;
    Ok(unless(held, removed))
}

/// An SLIST_HEADER: depth, sequence number, first entry, and the bits beside
/// it.
struct Sequenced {
    depth: u64,
    sequence: u64,
    first: u64,
    reserved: u64,
}

impl Sequenced {
    fn read(p: &dyn Platform, head: Gva) -> Result<Self, Outcome> {
        let counts = p.read_u64(head)?;
        let first = p.read_u64(field(head, slist::FIRST)?)?;
        Ok(Self {
            depth: counts & ((1 << slist::DEPTH_BITS) - 1),
            sequence: counts >> slist::DEPTH_BITS,
            first: first & !slist::RESERVED,
            reserved: first & slist::RESERVED,
        })
    }

    fn write(&self, p: &mut dyn Platform, head: Gva) -> Result<(), Outcome> {
        let depth = self.depth & ((1 << slist::DEPTH_BITS) - 1);
        p.write_u64(head, depth | self.sequence << slist::DEPTH_BITS)?;
        p.write_u64(field(head, slist::FIRST)?, self.first | self.reserved)?;
        Ok(())
    }
}

/// PSLIST_ENTRY ExpInterlockedPushEntrySList(head, entry): the entry that was
/// first, or NULL.
pub(super) fn push_sequenced(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let (head, entry) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let mut list = Sequenced::read(p, head)?;
    let old = list.first;
    p.write_u64(entry, old)?;
    list.first = entry.0 & !slist::RESERVED;
    list.depth += 1;
    list.sequence = list.sequence.wrapping_add(1);
    list.write(p, head)?;
    Ok(Outcome::Return(old))
}

/// PSLIST_ENTRY ExpInterlockedPopEntrySList(head): the first entry, or NULL.
pub(super) fn pop_sequenced(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let head = pointer(call, p, 0)?;
    let mut list = Sequenced::read(p, head)?;
    let first = list.first;
    if first != 0 {
        list.first = p.read_u64(Gva(first))? & !slist::RESERVED;
        list.depth = list.depth.saturating_sub(1);
        list.write(p, head)?;
    }
    Ok(Outcome::Return(first))
}

/// PSLIST_ENTRY ExpInterlockedFlushSList(head): all entries, by their first.
pub(super) fn flush_sequenced(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let head = pointer(call, p, 0)?;
    let mut list = Sequenced::read(p, head)?;
    let first = std::mem::take(&mut list.first);
    list.depth = 0;
    list.write(p, head)?;
    Ok(Outcome::Return(first))
}

/// USHORT ExQueryDepthSList(head).
pub(super) fn sequenced_depth(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let head = pointer(call, p, 0)?;
    Ok(Outcome::Return(Sequenced::read(p, head)?.depth))
}
