//! Remove locks: IO_REMOVE_LOCK, a count of those who use a device, and an
//! event for whoever waits until it is nobody's.

use super::rules::{breach, unless};
use super::spec::{dispatcher as object, remove_lock as layout};
use super::{Answer, State, dispatcher, field, pointer};
use crate::rules::executive as rule;
use crate::status::{DELETE_PENDING, SUCCESS};
use crate::{Call, Outcome, Platform, PlatformError, Wait};
use memory::Gva;

/// Add to the count; the new one.
fn count(p: &mut dyn Platform, lock: Gva, change: i32) -> Result<i32, PlatformError> {
    let at = field(lock, layout::COUNT)?;
    let new = p.read_u32(at)?.cast_signed().wrapping_add(change);
    p.write_u32(at, new.cast_unsigned())?;
    Ok(new)
}

/// VOID IoInitializeRemoveLockEx(PIO_REMOVE_LOCK, ULONG AllocateTag, ULONG
/// MaxLockedMinutes, ULONG HighWatermark, ULONG RemlockSize). A checked
/// build's lock is longer, and begins in the same way.
pub(super) fn initialize(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let lock = pointer(call, p, 0)?;
    let name = "IoInitializeRemoveLockEx";
    let breach = breach(state, &rule::REMOVE_LOCK_PASSIVE, name, lock.0);
    p.write(lock, &[0; layout::SIZE as usize])?;
    // The owner's own, which IoReleaseRemoveLockAndWaitEx gives up.
    count(p, lock, 1)?;
    let event = field(lock, layout::EVENT)?;
    dispatcher::make(p, event, object::SYNCHRONIZATION_EVENT, object::HEADER, 0)?;
    Ok(unless(breach, 0u64))
}

/// NTSTATUS IoAcquireRemoveLockEx(PIO_REMOVE_LOCK, PVOID Tag, PCSTR File,
/// ULONG Line, ULONG RemlockSize).
pub(super) fn acquire(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let lock = pointer(call, p, 0)?;
    let name = "IoAcquireRemoveLockEx";
    let breach = breach(state, &rule::REMOVE_LOCK_IRQL, name, lock.0);
    let mut removed = [0];
    p.read(lock, &mut removed)?;
    let status = match removed {
        [0] => {
            count(p, lock, 1)?;
            u64::from(SUCCESS)
        }
        _ => u64::from(DELETE_PENDING),
    };
    Ok(unless(breach, status))
}

/// VOID IoReleaseRemoveLockEx(PIO_REMOVE_LOCK, PVOID Tag, ULONG RemlockSize).
pub(super) fn release(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let lock = pointer(call, p, 0)?;
    let name = "IoReleaseRemoveLockEx";
    let breach = breach(state, &rule::REMOVE_LOCK_IRQL, name, lock.0);
    if count(p, lock, -1)? == 0 {
        dispatcher::set_signal(p, field(lock, layout::EVENT)?, 1)?;
    }
    Ok(unless(breach, 0u64))
}

/// VOID IoReleaseRemoveLockAndWaitEx(PIO_REMOVE_LOCK, PVOID Tag, ULONG
/// RemlockSize): nobody gets the lock from now on, and everybody has given it
/// back when this returns.
pub(super) fn release_and_wait(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let lock = pointer(call, p, 0)?;
    let name = "IoReleaseRemoveLockAndWaitEx";
    let breach = breach(state, &rule::REMOVE_LOCK_PASSIVE, name, lock.0);
    p.write(lock, &[1])?;
    // The caller's, and the owner's own.
    let left = count(p, lock, -2)?;
    if left <= 0 || breach.is_some() {
        return Ok(unless(breach, 0u64));
    }
    Ok(Outcome::Block(Wait {
        objects: vec![field(lock, layout::EVENT)?],
        thread: state.current,
        ..Wait::default()
    }))
}
