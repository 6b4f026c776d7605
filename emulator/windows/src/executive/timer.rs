//! Timers: dispatcher objects that virtual time signals.

use super::rules::{breach, unless};
use super::spec::dispatcher as layout;
use super::{Answer, State, dispatcher, field, pointer, time};
use crate::rules::executive as rule;
use crate::{Call, Platform, PlatformError};
use memory::Gva;

/// Most timers that may be set at once.
const MAX_TIMERS: usize = 4096;

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Timer {
    /// The KTIMER.
    pub object: Gva,
    /// When it expires, virtual nanoseconds.
    pub due: u64,
    /// Nanoseconds from one expiry to the next; 0 for one only.
    pub period: u64,
    /// The KDPC to queue; 0 for none.
    pub dpc: Gva,
}

impl State {
    /// Signal the timers whose time has come, earliest first, and queue their
    /// DPCs. A periodic one that is late by several periods expires once.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`] if a timer or its DPC was freed while it
    /// was set.
    pub fn expire_timers(&mut self, p: &mut dyn Platform) -> Result<(), PlatformError> {
        let now = p.scenario().now();
        // Each timer expires once at most, so this ends.
        let mut expired: Vec<Timer> = Vec::new();
        self.timers.retain(|timer| {
            let is_due = timer.due <= now;
            if is_due {
                expired.push(timer.clone());
            }
            !is_due
        });
        expired.sort_by_key(|timer| timer.due);
        for timer in expired {
            if let Some(late) = (now - timer.due).checked_div(timer.period) {
                let steps = (late + 1).saturating_mul(timer.period);
                self.timers.push(Timer {
                    due: timer.due.saturating_add(steps),
                    ..timer.clone()
                });
            }
            dispatcher::set_signal(p, timer.object, 1)?;
            if timer.dpc.0 != 0 {
                self.queue_dpc(p, timer.dpc, 0, 0)?;
            }
        }
        Ok(())
    }

    fn cancel(&mut self, object: Gva) -> bool {
        let before = self.timers.len();
        self.timers.retain(|timer| timer.object != object);
        self.timers.len() != before
    }
}

/// VOID KeInitializeTimer(PKTIMER).
pub(super) fn initialize(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let at = pointer(call, p, 0)?;
    make(state, p, at, layout::NOTIFICATION_TIMER)
}

/// VOID KeInitializeTimerEx(PKTIMER, TIMER_TYPE).
pub(super) fn initialize_ex(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let at = pointer(call, p, 0)?;
    let kind = match call.argument(p, 1)? as u32 {
        0 => layout::NOTIFICATION_TIMER,
        _ => layout::SYNCHRONIZATION_TIMER,
    };
    make(state, p, at, kind)
}

fn make(state: &mut State, p: &mut dyn Platform, at: Gva, kind: u8) -> Answer {
    let breach = breach(state, &rule::DISPATCH_OR_LESS, "KeInitializeTimer", at.0);
    p.write(at, &[0; layout::TIMER_SIZE as usize])?;
    dispatcher::make(p, at, kind, layout::TIMER_SIZE, 0)?;
    Ok(unless(breach, 0u64))
}

/// BOOLEAN KeSetTimer(PKTIMER, LARGE_INTEGER DueTime, PKDPC).
pub(super) fn set(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let dpc = pointer(call, p, 2)?;
    arm(state, p, call, 0, dpc)
}

/// BOOLEAN KeSetTimerEx(PKTIMER, LARGE_INTEGER DueTime, LONG Period, PKDPC).
pub(super) fn set_ex(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let period = call.argument(p, 2)? as u32;
    let dpc = pointer(call, p, 3)?;
    arm(state, p, call, period, dpc)
}

fn arm(state: &mut State, p: &mut dyn Platform, call: &Call, period: u32, dpc: Gva) -> Answer {
    let name = "KeSetTimer";
    let object = pointer(call, p, 0)?;
    let due = call.argument(p, 1)?.cast_signed();
    let breach = breach(state, &rule::DISPATCH_OR_LESS, name, object.0);
    dispatcher::check(p, name, object)?;
    let was_set = state.cancel(object);
    dispatcher::set_signal(p, object, 0)?;
    p.write_u64(field(object, layout::TIMER_DUE)?, due.cast_unsigned())?;
    p.write_u64(field(object, layout::TIMER_DPC)?, dpc.0)?;
    p.write_u32(field(object, layout::TIMER_PERIOD)?, period)?;
    if state.timers.len() < MAX_TIMERS {
        state.timers.push(Timer {
            object,
            due: time::due(p.scenario().now(), due),
            period: u64::from(period) * 1_000_000,
            dpc,
        });
    } else {
        log::warn!("more than {MAX_TIMERS} timers are set: the one at {object} never expires");
    }
    Ok(unless(breach, was_set))
}

/// BOOLEAN KeCancelTimer(PKTIMER).
pub(super) fn cancel(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    let breach = breach(state, &rule::DISPATCH_OR_LESS, "KeCancelTimer", object.0);
    let was_set = state.cancel(object);
    Ok(unless(breach, was_set))
}
