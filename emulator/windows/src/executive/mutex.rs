//! Mutexes: KMUTANT, which a thread owns any number of times, with its APCs
//! held back; and what of them is left when the thread ends.

use super::rules::{breach, unless};
use super::spec::dispatcher as layout;
use super::{Answer, State, Thread, dispatcher, field, pointer};
use crate::rules::locks as rule;
use crate::status::{ABANDONED, SUCCESS};
use crate::{Call, Outcome, Platform, PlatformError, Stop};
use memory::Gva;

impl State {
    /// May the thread take the mutex at `at` now?
    pub(super) fn is_mutex_free(
        &self,
        p: &dyn Platform,
        at: Gva,
        thread: u32,
    ) -> Result<bool, PlatformError> {
        let free = dispatcher::signal(p, at)? > 0;
        Ok(free || owner(p, at)? == self.object_of(thread))
    }

    /// The thread owns the mutex at `at` once more; the status of a wait for
    /// it alone.
    pub(super) fn take_mutex(
        &mut self,
        p: &mut dyn Platform,
        at: Gva,
        thread: u32,
    ) -> Result<u32, PlatformError> {
        let before = dispatcher::signal(p, at)?;
        dispatcher::set_signal(p, at, before.saturating_sub(1))?;
        if before <= 0 {
            return Ok(SUCCESS);
        }
        p.write_u64(field(at, layout::MUTANT_OWNER)?, self.object_of(thread).0)?;
        self.mutexes.insert(at, thread);
        self.disable_apcs(thread, -1);
        let mut abandoned = [0];
        let flag = field(at, layout::MUTANT_ABANDONED)?;
        p.read(flag, &mut abandoned)?;
        p.write(flag, &[0])?;
        Ok(match abandoned[0] {
            0 => SUCCESS,
            _ => ABANDONED,
        })
    }

    /// The stop of a wait for a mutex that its owner holds too often.
    pub(super) fn mutex_limit(&self, p: &dyn Platform, at: Gva) -> Result<Option<Stop>, Outcome> {
        let own = owner(p, at)? == self.object_of(self.current);
        if !own || !dispatcher::is_mutex(p, at)? || dispatcher::signal(p, at)? > i32::MIN {
            return Ok(None);
        }
        let what = format!("a wait for the mutex at {at}, which the thread holds 2^31 times");
        Ok(Some(rule::MUTEX_LIMIT.stop(&[at.0], what)))
    }

    /// The thread is about to end: what it may not leave behind.
    #[must_use]
    pub fn ends_with(&self, thread: u32) -> Option<Stop> {
        let object = self.object_of(thread);
        let held = self.mutexes.iter().find(|&(_, &owner)| owner == thread);
        if let Some((mutex, _)) = held {
            let what = format!("the thread at {object} ends with the mutex at {mutex}");
            let stop = rule::MUTEX_HELD_AT_END.stop(&[object.0, mutex.0], what);
            return Some(stop.or_return(0u64));
        }
        let thread = self.thread(thread)?;
        (thread.apcs < 0 && thread.item.is_none()).then(|| {
            let what = format!("the thread at {object} ends with its APCs held back");
            let values = [u64::from(combined(thread) & 0xFFFF), u64::from(self.irql())];
            rule::APCS_AT_END.stop(&values, what).or_return(0u64)
        })
    }

    /// A routine of the driver that Windows called, with nothing of the
    /// driver below it, has returned: are APCs of the thread still held back?
    /// They are not, if the run goes on.
    pub fn apcs_left(&mut self, routine: &str) -> Option<Stop> {
        let thread = self.threads.get_mut(self.current as usize)?;
        let left = combined(thread);
        if left == 0 {
            return None;
        }
        let worker = thread.item.is_some();
        let address = if worker { thread.start.0 } else { 0 };
        (thread.apcs, thread.special_apcs) = (0, 0);
        let what = format!("{routine} returned with APCs of its thread held back ({left:#x})");
        let values = [address, u64::from(left), u64::from(worker)];
        Some(rule::APCS_LEFT.stop(&values, what).or_return(0u64))
    }

    /// What the thread that ended held is free, and known to be abandoned.
    pub(super) fn abandon_mutexes(&mut self, p: &mut dyn Platform, thread: u32) {
        let held: Vec<Gva> = self
            .mutexes
            .iter()
            .filter(|&(_, &owner)| owner == thread)
            .map(|(&at, _)| at)
            .collect();
        for at in held {
            self.mutexes.remove(&at);
            // One whose memory is gone has no waiters either.
            let _ =
                set_free(p, at).and_then(|()| p.write(field(at, layout::MUTANT_ABANDONED)?, &[1]));
        }
    }

    /// One more (-1) or one less (1) that holds normal APCs back.
    fn disable_apcs(&mut self, thread: u32, change: i16) {
        if let Some(thread) = self.threads.get_mut(thread as usize) {
            thread.apcs = thread.apcs.saturating_add(change);
        }
    }

    pub(super) fn object_of(&self, thread: u32) -> Gva {
        self.thread(thread).map_or(Gva(0), |thread| thread.object)
    }
}

/// CombinedApcDisable: SpecialApcDisable << 16 | KernelApcDisable.
pub(super) fn combined(thread: &Thread) -> u32 {
    let bits = |count: i16| u32::from(count.cast_unsigned());
    bits(thread.special_apcs) << 16 | bits(thread.apcs)
}

fn owner(p: &dyn Platform, at: Gva) -> Result<Gva, PlatformError> {
    p.read_u64(field(at, layout::MUTANT_OWNER)?).map(Gva)
}

fn set_free(p: &mut dyn Platform, at: Gva) -> Result<(), PlatformError> {
    dispatcher::set_signal(p, at, 1)?;
    p.write_u64(field(at, layout::MUTANT_OWNER)?, 0)
}

/// VOID KeInitializeMutex(PRKMUTEX, ULONG Level).
pub(super) fn initialize(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let at = pointer(call, p, 0)?;
    dispatcher::make(p, at, layout::MUTANT, layout::MUTANT_SIZE, 1)?;
    let list = field(at, layout::MUTANT_LIST)?;
    p.write_u64(list, list.0)?;
    p.write_u64(field(list, 8)?, list.0)?;
    p.write_u64(field(at, layout::MUTANT_OWNER)?, 0)?;
    // Abandoned, and ApcDisable.
    p.write(field(at, layout::MUTANT_ABANDONED)?, &[0, 1])?;
    state.mutexes.remove(&at);
    Ok(Outcome::Return(0))
}

/// LONG KeReleaseMutex(PRKMUTEX, BOOLEAN Wait): 0 once it is free.
pub(super) fn release(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeReleaseMutex";
    let at = pointer(call, p, 0)?;
    let breach = breach(state, &rule::MUTEX_IRQL, name, at.0);
    dispatcher::check(p, name, at)?;
    let before = dispatcher::signal(p, at)?;
    if owner(p, at)? != state.object_of(state.current) {
        let what = format!("{name}: the current thread does not hold the mutex at {at}");
        return Ok(rule::MUTEX_NOT_OWNED.outcome(&[at.0], what));
    }
    if before < 0 {
        dispatcher::set_signal(p, at, before + 1)?;
    } else {
        set_free(p, at)?;
        state.mutexes.remove(&at);
        state.disable_apcs(state.current, 1);
    }
    Ok(unless(breach, u64::from(before.cast_unsigned())))
}

/// VOID KeEnterCriticalRegion(void).
pub(super) fn enter_critical(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    let breach = breach(state, &rule::REGION_IRQL, "KeEnterCriticalRegion", 0);
    state.disable_apcs(state.current, -1);
    Ok(unless(breach, 0u64))
}

/// VOID KeLeaveCriticalRegion(void).
pub(super) fn leave_critical(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    let name = "KeLeaveCriticalRegion";
    let breach = breach(state, &rule::REGION_IRQL, name, 0);
    if state.thread(state.current).is_none_or(|t| t.apcs >= 0) {
        return Ok(rule::NO_CRITICAL_REGION.outcome(&[], name));
    }
    state.disable_apcs(state.current, 1);
    Ok(unless(breach, 0u64))
}

/// Change what holds special APCs of the current thread back.
pub(super) fn disable_special(state: &mut State, change: i16) {
    if let Some(thread) = state.threads.get_mut(state.current as usize) {
        thread.special_apcs = thread.special_apcs.saturating_add(change);
    }
}

/// VOID KeEnterGuardedRegion(void).
pub(super) fn enter_guarded(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    let breach = breach(state, &rule::REGION_IRQL, "KeEnterGuardedRegion", 0);
    disable_special(state, -1);
    Ok(unless(breach, 0u64))
}

/// VOID KeLeaveGuardedRegion(void).
pub(super) fn leave_guarded(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    let name = "KeLeaveGuardedRegion";
    let breach = breach(state, &rule::REGION_IRQL, name, 0);
    if state
        .thread(state.current)
        .is_none_or(|t| t.special_apcs >= 0)
    {
        return Ok(rule::NO_GUARDED_REGION.outcome(&[], name));
    }
    disable_special(state, 1);
    Ok(unless(breach, 0u64))
}

/// BOOLEAN KeAreApcsDisabled(void): normal ones.
pub(super) fn are_apcs_disabled(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    let breach = breach(state, &rule::REGION_IRQL, "KeAreApcsDisabled", 0);
    let thread = state.thread(state.current);
    let disabled = thread.is_some_and(|thread| combined(thread) != 0);
    Ok(unless(breach, disabled))
}

/// BOOLEAN KeAreAllApcsDisabled(void): special ones too.
pub(super) fn are_all_apcs_disabled(state: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    let breach = breach(state, &rule::REGION_IRQL, "KeAreAllApcsDisabled", 0);
    let thread = state.thread(state.current);
    let disabled = state.irql() > 0 || thread.is_some_and(|thread| thread.special_apcs != 0);
    Ok(unless(breach, disabled))
}
