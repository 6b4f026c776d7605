//! Dispatcher objects: events, semaphores, and what waits ask of them.
//!
//! They lie in the driver's memory at Windows' layout, and their signal state
//! is what counts, so a driver that looks at it inline sees the truth. Wait
//! blocks do not exist: who waits is the run loop's record, and so the list
//! of an initialised object is always empty.

use super::rules::{breach, unless};
use super::spec::dispatcher as layout;
use super::{Answer, State, field, narrow, pointer};
use crate::rules::executive as rule;
use crate::{Call, Outcome, Platform, PlatformError};
use memory::Gva;

/// Make an object: its header, with an empty list of waiters.
pub(super) fn make(
    p: &mut dyn Platform,
    at: Gva,
    kind: u8,
    bytes: u64,
    signal: i32,
) -> Result<(), PlatformError> {
    let list = field(at, layout::WAIT_LIST)?;
    p.write(at, &[kind, 0, (bytes / 4) as u8, 0])?;
    set_signal(p, at, signal)?;
    p.write_u64(list, list.0)?;
    p.write_u64(field(list, 8)?, list.0)
}

/// Type of an initialised object, the lock bit cleared.
fn kind(p: &dyn Platform, at: Gva) -> Result<u8, PlatformError> {
    let mut byte = [0];
    p.read(field(at, layout::TYPE)?, &mut byte)?;
    Ok(byte[0] & 0x7f)
}

/// Is it a mutex?
pub(super) fn is_mutex(p: &dyn Platform, at: Gva) -> Result<bool, PlatformError> {
    Ok(kind(p, at)? == layout::MUTANT)
}

pub(super) fn signal(p: &dyn Platform, at: Gva) -> Result<i32, PlatformError> {
    Ok(p.read_u32(field(at, layout::SIGNAL)?)?.cast_signed())
}

pub(super) fn set_signal(p: &mut dyn Platform, at: Gva, signal: i32) -> Result<(), PlatformError> {
    p.write_u32(field(at, layout::SIGNAL)?, signal.cast_unsigned())
}

/// Refuse what is no dispatcher object: Windows follows its list of waiters
/// with the dispatcher lock held.
pub(super) fn check(p: &dyn Platform, name: &str, at: Gva) -> Result<(), Outcome> {
    let list = field(at, layout::WAIT_LIST)?;
    let first = p.read_u64(list)?;
    let kind = kind(p, at)?;
    let known = matches!(
        kind,
        layout::NOTIFICATION_EVENT
            | layout::SYNCHRONIZATION_EVENT
            | layout::MUTANT
            | layout::SEMAPHORE
            | layout::THREAD
            | layout::NOTIFICATION_TIMER
            | layout::SYNCHRONIZATION_TIMER
    );
    if known && first == list.0 {
        return Ok(());
    }
    let what = format!(
        "{name}: what lies at {at} (type {kind}, first waiter {first:#x}) is no dispatcher object"
    );
    Err(Outcome::Stop(
        rule::NO_DISPATCHER_OBJECT.stop(&[first], what),
    ))
}

/// Would a wait for the object end now?
pub(super) fn is_signaled(p: &dyn Platform, at: Gva) -> Result<bool, PlatformError> {
    Ok(signal(p, at)? > 0)
}

/// What the end of a wait does to the object, if it is no mutex.
pub(super) fn consume(p: &mut dyn Platform, at: Gva) -> Result<(), PlatformError> {
    match kind(p, at)? {
        layout::SYNCHRONIZATION_EVENT | layout::SYNCHRONIZATION_TIMER => set_signal(p, at, 0),
        layout::SEMAPHORE => {
            let count = signal(p, at)?;
            set_signal(p, at, count.saturating_sub(1))
        }
        _ => Ok(()),
    }
}

/// VOID KeInitializeEvent(PRKEVENT, EVENT_TYPE, BOOLEAN State).
pub(super) fn initialize_event(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let event = pointer(call, p, 0)?;
    let kind = match call.argument(p, 1)? as u32 {
        0 => layout::NOTIFICATION_EVENT,
        _ => layout::SYNCHRONIZATION_EVENT,
    };
    let state = narrow(call.argument(p, 2)?) != 0;
    make(p, event, kind, layout::HEADER, i32::from(state))?;
    Ok(Outcome::Return(0))
}

/// LONG KeSetEvent(PRKEVENT, KPRIORITY Increment, BOOLEAN Wait).
pub(super) fn set_event(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeSetEvent";
    let event = pointer(call, p, 0)?;
    // With Wait, a wait must follow at once, so the rule is that of waits.
    let rule = match narrow(call.argument(p, 2)?) {
        0 => &rule::SET_EVENT_IRQL,
        _ => &rule::SET_EVENT_WAIT_IRQL,
    };
    let breach = breach(state, rule, name, event.0);
    check(p, name, event)?;
    let old = signal(p, event)?;
    set_signal(p, event, 1)?;
    Ok(unless(breach, u64::from(old.cast_unsigned())))
}

/// VOID KeClearEvent(PRKEVENT).
pub(super) fn clear_event(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let event = pointer(call, p, 0)?;
    let breach = breach(state, &rule::DISPATCH_OR_LESS, "KeClearEvent", event.0);
    set_signal(p, event, 0)?;
    Ok(unless(breach, 0u64))
}

/// LONG KeResetEvent(PRKEVENT).
pub(super) fn reset_event(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let event = pointer(call, p, 0)?;
    let breach = breach(state, &rule::DISPATCH_OR_LESS, "KeResetEvent", event.0);
    let old = signal(p, event)?;
    set_signal(p, event, 0)?;
    Ok(unless(breach, u64::from(old.cast_unsigned())))
}

/// LONG KeReadStateEvent(PRKEVENT), and the same of semaphores and timers.
pub(super) fn read_state(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    let breach = breach(state, &rule::DISPATCH_OR_LESS, "KeReadStateEvent", object.0);
    let signal = signal(p, object)?;
    Ok(unless(breach, u64::from(signal.cast_unsigned())))
}

/// VOID KeInitializeSemaphore(PRKSEMAPHORE, LONG Count, LONG Limit).
pub(super) fn initialize_semaphore(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let semaphore = pointer(call, p, 0)?;
    let count = (call.argument(p, 1)? as u32).cast_signed();
    let limit = call.argument(p, 2)? as u32;
    make(
        p,
        semaphore,
        layout::SEMAPHORE,
        layout::SEMAPHORE_SIZE,
        count,
    )?;
    p.write_u32(field(semaphore, layout::SEMAPHORE_LIMIT)?, limit)?;
    Ok(Outcome::Return(0))
}

/// LONG KeReleaseSemaphore(PRKSEMAPHORE, KPRIORITY, LONG Adjustment, BOOLEAN
/// Wait). Past the limit Windows raises STATUS_SEMAPHORE_LIMIT_EXCEEDED, which
/// no driver catches.
pub(super) fn release_semaphore(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeReleaseSemaphore";
    let semaphore = pointer(call, p, 0)?;
    let adjustment = (call.argument(p, 2)? as u32).cast_signed();
    let breach = breach(state, &rule::DISPATCH_OR_LESS, name, semaphore.0);
    check(p, name, semaphore)?;
    let old = signal(p, semaphore)?;
    let limit = p
        .read_u32(field(semaphore, layout::SEMAPHORE_LIMIT)?)?
        .cast_signed();
    let old_value = u64::from(old.cast_unsigned());
    match old.checked_add(adjustment) {
        Some(new) if adjustment > 0 && new <= limit => {
            set_signal(p, semaphore, new)?;
            Ok(unless(breach, old_value))
        }
        _ => {
            let what = format!(
                "{name}: {old} + {adjustment} exceeds the limit {limit} of the semaphore at \
                 {semaphore}"
            );
            let stop = rule::SEMAPHORE_LIMIT.stop(&[semaphore.0], what);
            Ok(Outcome::Stop(stop.or_return(old_value)))
        }
    }
}
