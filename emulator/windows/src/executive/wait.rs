//! Waits: for objects, for time, or for whichever comes first.

use super::rules::breach;
use super::spec::dispatcher as layout;
use super::{Answer, State, dispatcher, field, pointer, success, time};
use crate::rules::executive as rule;
use crate::status::{SUCCESS, TIMEOUT};
use crate::{Call, Outcome, Platform, PlatformError, Stop, Wait};
use memory::Gva;

/// MAXIMUM_WAIT_OBJECTS.
const MAXIMUM_WAIT_OBJECTS: u32 = 64;

impl State {
    /// Does the wait end now? Its status if so: of the first signaled object
    /// (and a synchronization object then is signaled no more), of all of
    /// them together, or of the time. An object that is no longer mapped ends nothing: see
    /// [`State::wait_faults`].
    pub fn try_satisfy(&mut self, p: &mut dyn Platform, wait: &Wait) -> Option<u32> {
        if let (Some(old_irql), Some(&mutex)) = (wait.fast_mutex, wait.objects.first()) {
            let taken = self.take_fast_mutex(p, mutex, wait.thread, old_irql);
            return taken.unwrap_or(false).then_some(SUCCESS);
        }
        let thread = wait.thread;
        if wait.all && !wait.objects.is_empty() {
            // None is taken before all can be.
            if (wait.objects.iter()).all(|&object| self.would_end(p, object, thread)) {
                let mut abandoned = SUCCESS;
                for &object in &wait.objects {
                    abandoned |= self.consume(p, object, thread);
                }
                return Some(abandoned);
            }
            return self.given_up(p, wait);
        }
        for (index, &object) in (0..).zip(&wait.objects) {
            if self.would_end(p, object, thread) {
                return Some(self.consume(p, object, thread) + index);
            }
        }
        self.given_up(p, wait)
    }

    /// Would a wait of the thread for the object end now? Not, if it is not
    /// there.
    fn would_end(&self, p: &dyn Platform, object: Gva, thread: u32) -> bool {
        let ends = match dispatcher::is_mutex(p, object) {
            Ok(true) => self.is_mutex_free(p, object, thread),
            Ok(false) => dispatcher::is_signaled(p, object),
            Err(error) => Err(error),
        };
        ends.unwrap_or(false)
    }

    /// What the end of a wait of the thread does to the object; STATUS_SUCCESS
    /// or STATUS_ABANDONED. The object was mapped a moment ago, and nobody ran
    /// since.
    fn consume(&mut self, p: &mut dyn Platform, object: Gva, thread: u32) -> u32 {
        let taken = match dispatcher::is_mutex(p, object) {
            Ok(true) => self.take_mutex(p, object, thread),
            _ => dispatcher::consume(p, object).map(|()| SUCCESS),
        };
        taken.unwrap_or(SUCCESS)
    }

    /// The status of a wait whose time is over.
    fn given_up(&self, p: &dyn Platform, wait: &Wait) -> Option<u32> {
        let is_over = wait.until.is_some_and(|until| p.scenario().now() >= until);
        // KeDelayExecutionThread ends in success, a wait in a timeout.
        let status = if wait.objects.is_empty() {
            SUCCESS
        } else {
            TIMEOUT
        };
        is_over.then_some(status)
    }

    /// Would [`Self::try_satisfy`] end this wait now? Changes nothing.
    #[must_use]
    pub fn would_satisfy(&self, p: &dyn Platform, wait: &Wait) -> bool {
        if let (Some(_), Some(&mutex)) = (wait.fast_mutex, wait.objects.first()) {
            return super::fast_mutex::is_free(p, mutex).unwrap_or(false);
        }
        let ends = |&object: &Gva| self.would_end(p, object, wait.thread);
        let ended = match wait.all {
            true => !wait.objects.is_empty() && wait.objects.iter().all(ends),
            false => wait.objects.iter().any(ends),
        };
        ended || wait.until.is_some_and(|until| p.scenario().now() >= until)
    }

    /// The first of the wait's objects that is not there any more: freed
    /// while a thread waits for it.
    #[must_use]
    pub fn wait_faults(&self, p: &dyn Platform, wait: &Wait) -> Option<Gva> {
        wait.objects
            .iter()
            .copied()
            .find(|&object| dispatcher::is_signaled(p, object).is_err())
    }

    /// When something happens by itself: the wait's own end, or the next
    /// timer. Virtual nanoseconds.
    #[must_use]
    pub fn next_deadline(&self, wait: Option<&Wait>) -> Option<u64> {
        let timers = self.timers.iter().map(|timer| timer.due);
        timers.chain(wait.and_then(|wait| wait.until)).min()
    }
}

/// A timeout argument: NULL is none; negative is relative, in 100 ns;
/// otherwise it is system time.
enum Timeout {
    Never,
    Now,
    At(u64),
}

fn timeout(p: &dyn Platform, at: Gva) -> Result<Timeout, PlatformError> {
    if at.0 == 0 {
        return Ok(Timeout::Never);
    }
    let value = p.read_u64(at)?.cast_signed();
    Ok(match value {
        0 => Timeout::Now,
        _ => Timeout::At(time::due(p.scenario().now(), value)),
    })
}

/// The IRQL rule of waits: DISPATCH_LEVEL at most, and APC_LEVEL at most
/// where the wait may block (KeWaitForSingleObject's page).
fn irql_rule(state: &State, name: &str, timeout: &Timeout, object: Gva) -> Option<Stop> {
    let rule = match timeout {
        Timeout::Now => &rule::WAIT_IRQL,
        _ => &rule::BLOCKING_WAIT_IRQL,
    };
    breach(state, rule, name, object.0)
}

fn wait(
    state: &mut State,
    p: &mut dyn Platform,
    name: &str,
    objects: Vec<Gva>,
    all: bool,
    timeout: &Timeout,
) -> Answer {
    let first = objects.first().copied().unwrap_or_default();
    let breach = irql_rule(state, name, timeout, first);
    for &object in &objects {
        dispatcher::check(p, name, object)?;
        if let Some(stop) = state.mutex_limit(p, object)? {
            return Ok(Outcome::Stop(stop.or_return(TIMEOUT)));
        }
    }
    let until = match timeout {
        Timeout::Never => None,
        Timeout::Now => Some(0),
        Timeout::At(until) => Some(*until),
    };
    let wait = Wait {
        objects,
        all,
        until,
        thread: state.current,
        fast_mutex: None,
    };
    let now = state.try_satisfy(p, &wait);
    match (breach, now) {
        // A thread cannot wait at that IRQL, so a run that goes on sees a
        // timeout.
        (Some(stop), now) => Ok(Outcome::Stop(stop.or_return(now.unwrap_or(TIMEOUT)))),
        (None, Some(status)) => Ok(Outcome::Return(u64::from(status))),
        (None, None) => Ok(Outcome::Block(wait)),
    }
}

/// NTSTATUS KeWaitForSingleObject(Object, WaitReason, WaitMode, Alertable,
/// PLARGE_INTEGER Timeout).
pub(super) fn single(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let object = pointer(call, p, 0)?;
    let timeout = timeout(p, pointer(call, p, 4)?)?;
    wait(
        state,
        p,
        "KeWaitForSingleObject",
        vec![object],
        false,
        &timeout,
    )
}

/// NTSTATUS KeWaitForMultipleObjects(Count, Object[], WaitType, WaitReason,
/// WaitMode, Alertable, Timeout, WaitBlockArray). WaitType is WaitAll (0) or
/// WaitAny (1).
pub(super) fn multiple(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeWaitForMultipleObjects";
    let count = call.argument(p, 0)? as u32;
    let list = pointer(call, p, 1)?;
    let all = call.argument(p, 2)? as u32 == 0;
    if count == 0 || count > MAXIMUM_WAIT_OBJECTS {
        return Ok(rule::WAIT_COUNT.refusal(format_args!("{name} of {count} objects")));
    }
    let mut objects = Vec::new();
    for index in 0..u64::from(count) {
        objects.push(Gva(p.read_u64(field(list, 8 * index)?)?));
    }
    let timeout = timeout(p, pointer(call, p, 6)?)?;
    wait(state, p, name, objects, all, &timeout)
}

/// NTSTATUS KeDelayExecutionThread(WaitMode, Alertable, PLARGE_INTEGER).
pub(super) fn delay(state: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let name = "KeDelayExecutionThread";
    let interval = pointer(call, p, 2)?;
    let breach = breach(state, &rule::BLOCKING_WAIT_IRQL, name, 0);
    let until = match timeout(p, interval)? {
        Timeout::At(until) => until,
        Timeout::Now => p.scenario().now(),
        // The pointer is not optional.
        Timeout::Never => return Err(PlatformError::NotMapped(interval).into()),
    };
    match breach {
        Some(stop) => Ok(super::rules::unless(Some(stop), u64::from(SUCCESS))),
        None if until <= p.scenario().now() => success(),
        None => Ok(Outcome::Block(Wait {
            until: Some(until),
            thread: state.current,
            ..Wait::default()
        })),
    }
}

/// PKEVENT IoCreateNotificationEvent(PUNICODE_STRING, PHANDLE): the event of
/// that name, made signaled if there is none.
pub(super) fn create_notification_event(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    create_event(state, p, call, layout::NOTIFICATION_EVENT)
}

/// PKEVENT IoCreateSynchronizationEvent(PUNICODE_STRING, PHANDLE).
pub(super) fn create_synchronization_event(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    create_event(state, p, call, layout::SYNCHRONIZATION_EVENT)
}

fn create_event(state: &mut State, p: &mut dyn Platform, call: &Call, kind: u8) -> Answer {
    let name = super::read_unicode_string(p, pointer(call, p, 0)?)?.to_lowercase();
    let handle_at = pointer(call, p, 1)?;
    let breach = breach(
        state,
        &rule::NAMED_EVENT_IRQL,
        "IoCreateNotificationEvent",
        0,
    );
    let event = match state.events.get(&name) {
        Some(&event) => Some(event),
        None => state.arena.take(layout::HEADER),
    };
    let handle = event.and_then(|event| state.open(super::Handle::Event(event)));
    let (Some(event), Some(handle)) = (event, handle) else {
        return Ok(super::rules::unless(breach, 0u64));
    };
    if state.events.insert(name, event).is_none() {
        dispatcher::make(p, event, kind, layout::HEADER, 1)?;
    }
    p.write_u64(handle_at, handle)?;
    Ok(super::rules::unless(breach, event.0))
}
