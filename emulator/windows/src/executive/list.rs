//! Interlocked lists under a spin lock: LIST_ENTRY is {Flink, Blink}.

use super::rules::unless;
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
