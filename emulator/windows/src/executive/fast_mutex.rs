//! Fast mutexes and guarded mutexes: FAST_MUTEX, taken by one thread, once.
//!
//! ExInitializeFastMutex is inline: Count 1, no owner, an event. A thread
//! that waits here looks at Count; the event, on which a waiter sleeps on
//! Windows, is never set.

use super::rules::breach;
use super::spec::{dispatcher, fast_mutex as layout, irql};
use super::{Answer, State, field, mutex, pointer};
use crate::rules::{Rule, locks as rule};
use crate::{Call, Outcome, Platform, PlatformError, Stop, Wait};
use memory::Gva;

/// How a routine keeps APCs from the thread that holds the mutex.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It raises the IRQL to APC_LEVEL.
    Fast,
    /// It enters a guarded region.
    Guarded,
    /// The caller has seen to it.
    Unsafe,
}

/// Does no thread hold it?
pub(super) fn is_free(p: &dyn Platform, at: Gva) -> Result<bool, PlatformError> {
    Ok(p.read_u32(field(at, layout::COUNT)?)? == 1)
}

impl State {
    /// End the wait for a fast mutex, if it is free: the thread holds it.
    pub(super) fn take_fast_mutex(
        &self,
        p: &mut dyn Platform,
        at: Gva,
        thread: u32,
        old_irql: u8,
    ) -> Result<bool, PlatformError> {
        if !is_free(p, at)? {
            return Ok(false);
        }
        p.write_u32(field(at, layout::COUNT)?, 0)?;
        p.write_u64(field(at, layout::OWNER)?, self.object_of(thread).0)?;
        p.write_u32(field(at, layout::OLD_IRQL)?, u32::from(old_irql))?;
        Ok(true)
    }

    /// What forbids the call: its IRQL, or APCs that are not held back.
    fn fast_breach(&self, name: &str, at: Gva, kind: Kind, release: bool) -> Option<Stop> {
        let thread = self.thread(self.current);
        let count = thread.map_or(0, mutex::combined);
        let values = [u64::from(count), at.0];
        match (kind, release) {
            (Kind::Fast, false) => breach(self, &rule::FAST_ACQUIRE_IRQL, name, at.0),
            (Kind::Fast, true) => rule::FAST_RELEASE_IRQL.breach(name, self.irql(), &values),
            (Kind::Guarded, _) => breach(self, &rule::GUARDED_IRQL, name, at.0),
            (Kind::Unsafe, _) => {
                let held_back = self.irql() == irql::APC || self.irql() < irql::APC && count != 0;
                let rule = match release {
                    false => &rule::UNSAFE_ACQUIRE,
                    true => &rule::UNSAFE_RELEASE,
                };
                (!held_back).then(|| {
                    let irql = self.irql();
                    let what = format!("{name} at IRQL {irql}, outside of a critical region");
                    rule.stop(&[u64::from(irql), u64::from(count), at.0], what)
                })
            }
        }
    }

    /// Hold APCs back; the IRQL before.
    fn hold_back(&mut self, p: &mut dyn Platform, kind: Kind) -> Result<u8, PlatformError> {
        let old = self.irql();
        match kind {
            Kind::Fast if old < irql::APC => self.set_irql(p, irql::APC)?,
            Kind::Guarded => mutex::disable_special(self, -1),
            _ => {}
        }
        Ok(old)
    }

    fn is_own(&self, p: &dyn Platform, at: Gva) -> Result<bool, PlatformError> {
        let owner = p.read_u64(field(at, layout::OWNER)?)?;
        Ok(!is_free(p, at)? && owner == self.object_of(self.current).0)
    }
}

fn acquire_as(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
    name: &str,
    kind: Kind,
) -> Answer {
    let at = pointer(call, p, 0)?;
    check(p, name, at)?;
    let breach = state.fast_breach(name, at, kind, false);
    if state.is_own(p, at)? {
        let what = format!("{name}: the thread holds the mutex at {at} already");
        return Ok(rule::FAST_RECURSIVE.outcome(&[at.0], what));
    }
    let old = state.hold_back(p, kind)?;
    let taken = state.take_fast_mutex(p, at, state.current, old)?;
    match (breach, taken) {
        (Some(stop), _) => Ok(Outcome::Stop(stop.or_return(0u64))),
        (None, true) => Ok(Outcome::Return(0)),
        (None, false) => {
            let contention = field(at, layout::CONTENTION)?;
            let count = p.read_u32(contention)?;
            p.write_u32(contention, count.wrapping_add(1))?;
            Ok(Outcome::Block(Wait {
                objects: vec![at],
                thread: state.current,
                fast_mutex: Some(old),
                ..Wait::default()
            }))
        }
    }
}

fn try_as(state: &mut State, p: &mut dyn Platform, call: &Call, name: &str, kind: Kind) -> Answer {
    let at = pointer(call, p, 0)?;
    check(p, name, at)?;
    let breach = state.fast_breach(name, at, kind, false);
    let old = state.irql();
    let taken = state.take_fast_mutex(p, at, state.current, old)?;
    if taken {
        state.hold_back(p, kind)?;
    }
    Ok(super::rules::unless(breach, taken))
}

fn release_as(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
    name: &str,
    kind: Kind,
) -> Answer {
    let at = pointer(call, p, 0)?;
    let breach = state.fast_breach(name, at, kind, true);
    if !state.is_own(p, at)? {
        let what = format!("{name}: the thread does not hold the mutex at {at}");
        let stop = |rule: &Rule, values: &[u64]| rule.outcome(values, &what);
        if is_free(p, at)? {
            return Ok(stop(&rule::FAST_NOT_HELD, &[at.0]));
        }
        let owner = p.read_u64(field(at, layout::OWNER)?)?;
        let current = state.object_of(state.current).0;
        return Ok(stop(&rule::FAST_OTHER_THREAD, &[at.0, owner, current]));
    }
    let old = p.read_u32(field(at, layout::OLD_IRQL)?)? as u8;
    p.write_u64(field(at, layout::OWNER)?, 0)?;
    p.write_u32(field(at, layout::COUNT)?, 1)?;
    match kind {
        Kind::Fast if breach.is_none() => state.set_irql(p, old.min(irql::APC))?,
        Kind::Guarded => mutex::disable_special(state, 1),
        _ => {}
    }
    Ok(super::rules::unless(breach, 0u64))
}

/// Refuse what was never initialised: its event is none.
fn check(p: &dyn Platform, name: &str, at: Gva) -> Result<(), Outcome> {
    let count = p.read_u32(field(at, layout::COUNT)?)?;
    let list = field(field(at, layout::EVENT)?, dispatcher::WAIT_LIST)?;
    if count <= 1 && p.read_u64(list)? == list.0 {
        return Ok(());
    }
    let what = format!("{name}: what lies at {at} is no fast mutex");
    Err(rule::FAST_UNINITIALISED.outcome(&[at.0], what))
}

/// VOID KeInitializeGuardedMutex(PKGUARDED_MUTEX).
pub(super) fn initialize(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let at = pointer(call, p, 0)?;
    p.write(at, &[0; layout::SIZE as usize])?;
    p.write_u32(field(at, layout::COUNT)?, 1)?;
    let event = field(at, layout::EVENT)?;
    let kind = dispatcher::SYNCHRONIZATION_EVENT;
    super::dispatcher::make(p, event, kind, dispatcher::HEADER, 0)?;
    Ok(Outcome::Return(0))
}

/// VOID ExAcquireFastMutex(PFAST_MUTEX).
pub(super) fn acquire(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    acquire_as(state, p, call, "ExAcquireFastMutex", Kind::Fast)
}

/// VOID ExAcquireFastMutexUnsafe(PFAST_MUTEX).
pub(super) fn acquire_unsafe(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    acquire_as(state, p, call, "ExAcquireFastMutexUnsafe", Kind::Unsafe)
}

/// VOID KeAcquireGuardedMutex(PKGUARDED_MUTEX).
pub(super) fn acquire_guarded(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    acquire_as(state, p, call, "KeAcquireGuardedMutex", Kind::Guarded)
}

/// BOOLEAN ExTryToAcquireFastMutex(PFAST_MUTEX).
pub(super) fn try_acquire(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    try_as(state, p, call, "ExTryToAcquireFastMutex", Kind::Fast)
}

/// BOOLEAN KeTryToAcquireGuardedMutex(PKGUARDED_MUTEX).
pub(super) fn try_acquire_guarded(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    try_as(state, p, call, "KeTryToAcquireGuardedMutex", Kind::Guarded)
}

/// VOID ExReleaseFastMutex(PFAST_MUTEX).
pub(super) fn release(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    release_as(state, p, call, "ExReleaseFastMutex", Kind::Fast)
}

/// VOID ExReleaseFastMutexUnsafe(PFAST_MUTEX).
pub(super) fn release_unsafe(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    release_as(state, p, call, "ExReleaseFastMutexUnsafe", Kind::Unsafe)
}

/// VOID KeReleaseGuardedMutex(PKGUARDED_MUTEX).
pub(super) fn release_guarded(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    release_as(state, p, call, "KeReleaseGuardedMutex", Kind::Guarded)
}
