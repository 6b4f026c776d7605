//! Spin locks, for one processor: to wait for a lock is to wait for ever.
//!
//! A KSPIN_LOCK is a pointer-sized word: 0 free, 1 held.

use super::rules::{breach, unless};
use super::spec::irql;
use super::{Answer, State, field, narrow, pointer};
use crate::rules::executive as rule;
use crate::{Call, Outcome, Platform, Stop};
use memory::Gva;

/// KLOCK_QUEUE_HANDLE.LockQueue.Lock.
const QUEUE_LOCK: u64 = 8;
/// KLOCK_QUEUE_HANDLE.OldIrql.
const QUEUE_IRQL: u64 = 0x10;

/// Take a lock; the breach if it is held.
pub(super) fn take(p: &mut dyn Platform, name: &str, lock: Gva) -> Result<Option<Stop>, Outcome> {
    let value = p.read_u64(lock)?;
    p.write_u64(lock, 1)?;
    let (rule, what) = match value {
        0 => return Ok(None),
        1 => (&rule::LOCK_HELD, "is held already".to_owned()),
        other => (&rule::LOCK_UNINITIALISED, format!("holds {other:#x}")),
    };
    let what = format!("{name}: the spin lock at {lock} {what}");
    Ok(Some(rule.stop(&[lock.0, value], what)))
}

/// Free a lock; the breach if it is not held.
pub(super) fn free(p: &mut dyn Platform, name: &str, lock: Gva) -> Result<Option<Stop>, Outcome> {
    let value = p.read_u64(lock)?;
    p.write_u64(lock, 0)?;
    Ok((value != 1).then(|| {
        let what = format!("{name}: the spin lock at {lock} is not held");
        rule::LOCK_NOT_HELD.stop(&[lock.0, value], what)
    }))
}

/// VOID KeInitializeSpinLock(PKSPIN_LOCK).
pub(super) fn initialize(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let lock = pointer(call, p, 0)?;
    p.write_u64(lock, 0)?;
    Ok(Outcome::Return(0))
}

/// KIRQL KeAcquireSpinLockRaiseToDpc(PKSPIN_LOCK).
pub(super) fn acquire(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeAcquireSpinLockRaiseToDpc";
    let lock = pointer(call, p, 0)?;
    let old = state.irql();
    let too_high = breach(state, &rule::ACQUIRE_IRQL, name, lock.0);
    if too_high.is_none() {
        state.set_irql(p, irql::DISPATCH)?;
    }
    let held = take(p, name, lock)?;
    Ok(unless(too_high.or(held), old))
}

/// VOID KeReleaseSpinLock(PKSPIN_LOCK, KIRQL NewIrql).
pub(super) fn release(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeReleaseSpinLock";
    let lock = pointer(call, p, 0)?;
    let level = narrow(call.argument(p, 1)?);
    let not_held = free(p, name, lock)?;
    let elsewhere = breach(state, &rule::RELEASE_IRQL, name, lock.0);
    let breach = state.lower(p, level)?;
    Ok(unless(not_held.or(elsewhere).or(breach), 0u64))
}

/// VOID KeAcquireSpinLockAtDpcLevel(PKSPIN_LOCK).
pub(super) fn acquire_at_dpc(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeAcquireSpinLockAtDpcLevel";
    let lock = pointer(call, p, 0)?;
    let too_low = breach(state, &rule::ACQUIRE_AT_DPC_IRQL, name, lock.0);
    let held = take(p, name, lock)?;
    Ok(unless(held.or(too_low), 0u64))
}

/// VOID KeReleaseSpinLockFromDpcLevel(PKSPIN_LOCK).
pub(super) fn release_from_dpc(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeReleaseSpinLockFromDpcLevel";
    let lock = pointer(call, p, 0)?;
    let too_low = breach(state, &rule::RELEASE_FROM_DPC_IRQL, name, lock.0);
    let not_held = free(p, name, lock)?;
    Ok(unless(not_held.or(too_low), 0u64))
}

/// BOOLEAN KeTryToAcquireSpinLockAtDpcLevel(PKSPIN_LOCK).
pub(super) fn try_acquire(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeTryToAcquireSpinLockAtDpcLevel";
    let lock = pointer(call, p, 0)?;
    let too_low = breach(state, &rule::TRY_ACQUIRE_IRQL, name, lock.0);
    let is_free = p.read_u64(lock)? == 0;
    if is_free {
        p.write_u64(lock, 1)?;
    }
    Ok(unless(too_low, is_free))
}

/// VOID KeAcquireInStackQueuedSpinLock(PKSPIN_LOCK, PKLOCK_QUEUE_HANDLE).
pub(super) fn acquire_queued(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeAcquireInStackQueuedSpinLock";
    let (lock, handle) = (pointer(call, p, 0)?, pointer(call, p, 1)?);
    let old = state.irql();
    let too_high = breach(state, &rule::ACQUIRE_QUEUED_IRQL, name, lock.0);
    if too_high.is_none() {
        state.set_irql(p, irql::DISPATCH)?;
    }
    p.write_u64(field(handle, QUEUE_LOCK)?, lock.0)?;
    p.write(field(handle, QUEUE_IRQL)?, &[old])?;
    let held = take(p, name, lock)?;
    Ok(unless(too_high.or(held), 0u64))
}

/// VOID KeReleaseInStackQueuedSpinLock(PKLOCK_QUEUE_HANDLE).
pub(super) fn release_queued(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let handle = pointer(call, p, 0)?;
    let lock = Gva(p.read_u64(field(handle, QUEUE_LOCK)?)?);
    let mut level = [0];
    p.read(field(handle, QUEUE_IRQL)?, &mut level)?;
    let not_held = free(p, "KeReleaseInStackQueuedSpinLock", lock)?;
    let breach = state.lower(p, level[0])?;
    Ok(unless(not_held.or(breach), 0u64))
}
