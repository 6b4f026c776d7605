use super::machine::{Machine, NOWHERE};
use crate::status::{SUCCESS, TIMEOUT};
use crate::{Outcome, Platform, Wait};
use memory::Gva;

const NOTIFICATION: u64 = 0;
const SYNCHRONIZATION: u64 = 1;

fn event(m: &mut Machine, kind: u64, state: u64) -> u64 {
    let event = m.space(0x18);
    m.value("KeInitializeEvent", &[event, kind, state]);
    event
}

fn timeout(m: &mut Machine, value: i64) -> u64 {
    m.bytes(&value.to_le_bytes())
}

fn wait(m: &mut Machine, object: u64, timeout: u64) -> Outcome {
    m.call("KeWaitForSingleObject", &[object, 0, 0, 0, timeout])
}

fn done(status: u32) -> Outcome {
    Outcome::Return(u64::from(status))
}

#[test]
fn event_has_windows_layout() {
    let mut m = Machine::new();

    let event = event(&mut m, SYNCHRONIZATION, 1);

    assert_eq!(m.u64(event), 1 << 32 | 6 << 16 | 1);
    assert_eq!(m.u64(event + 8), event + 8);
    assert_eq!(m.u64(event + 16), event + 8);
}

#[test]
fn event_routines_return_the_old_state() {
    let mut m = Machine::new();
    let event = event(&mut m, NOTIFICATION, 0);

    let set = m.value("KeSetEvent", &[event, 0, 0]);
    let state = m.value("KeReadStateEvent", &[event]);
    let reset = m.value("KeResetEvent", &[event]);
    m.value("KeClearEvent", &[event]);

    assert_eq!((set, state, reset), (0, 1, 1));
    assert_eq!(m.value("KeReadStateEvent", &[event]), 0);
}

#[test]
fn synchronization_event_lets_one_through() {
    let mut m = Machine::new();
    let event = event(&mut m, SYNCHRONIZATION, 1);

    assert_eq!(wait(&mut m, event, 0), done(SUCCESS));
    let blocked = wait(&mut m, event, 0);

    let expected = Wait {
        objects: vec![Gva(event)],
        all: false,
        until: None,
        ..Wait::default()
    };
    assert_eq!(blocked, Outcome::Block(expected));
}

#[test]
fn notification_event_lets_all_through() {
    let mut m = Machine::new();
    let event = event(&mut m, NOTIFICATION, 1);

    assert_eq!(wait(&mut m, event, 0), done(SUCCESS));
    assert_eq!(wait(&mut m, event, 0), done(SUCCESS));
}

#[test]
fn timeouts_are_relative_absolute_or_zero() {
    let mut m = Machine::new();
    let event = event(&mut m, NOTIFICATION, 0);
    m.p.scenario().advance(1_000_000);
    let system = m.space(8);
    m.value("KeQuerySystemTime", &[system]);
    let now = m.u64(system).cast_signed();

    for (value, expected) in [
        (0, None),
        (-30, Some(1_003_000)),
        (now + 20, Some(1_002_000)),
        (now - 20, None),
        (5, None),
    ] {
        let at = timeout(&mut m, value);
        let outcome = wait(&mut m, event, at);
        let expected = match expected {
            None => done(TIMEOUT),
            Some(until) => Outcome::Block(Wait {
                objects: vec![Gva(event)],
                all: false,
                until: Some(until),
                ..Wait::default()
            }),
        };
        assert_eq!(outcome, expected, "{value}");
    }
}

#[test]
fn blocked_wait_ends_by_signal_or_time() {
    let mut m = Machine::new();
    let event = event(&mut m, SYNCHRONIZATION, 0);
    let wait = Wait {
        objects: vec![Gva(event)],
        all: false,
        until: Some(5_000),
        ..Wait::default()
    };

    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), None);
    assert_eq!(m.state.next_deadline(Some(&wait)), Some(5_000));
    m.value("KeSetEvent", &[event, 0, 0]);
    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), Some(SUCCESS));
    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), None);
    m.p.scenario().advance(5_000);
    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), Some(TIMEOUT));
}

#[test]
fn wait_above_its_irql_stops() {
    for (irql, value, stops) in [
        (1, None, false),
        (2, None, true),
        (2, Some(-10), true),
        (2, Some(0), false),
        (3, Some(0), true),
    ] {
        let mut m = Machine::new();
        let event = event(&mut m, NOTIFICATION, 1);
        let at = value.map_or(0, |value| timeout(&mut m, value));
        m.state.set_irql(&mut m.p, irql).unwrap();

        let outcome = wait(&mut m, event, at);

        let stopped = matches!(outcome, Outcome::Stop(ref stop) if stop.code == 0x0a
            && stop.parameters[1] == u64::from(irql)
            && stop.go_on == Some(u64::from(SUCCESS)));
        assert_eq!(stopped, stops, "irql {irql}, {value:?}: {outcome:?}");
    }
}

#[test]
fn uninitialised_object_stops() {
    for name in [
        "KeSetEvent",
        "KeWaitForSingleObject",
        "KeReleaseSemaphore",
        "KeSetTimer",
    ] {
        let mut m = Machine::new();
        let zeros = m.space(0x40);

        let (code, ..) = m.stop(name, &[zeros, 0, 1, 0, 0]);

        assert_eq!(code, 0x0a, "{name}");
    }
}

#[test]
fn object_that_is_not_there_is_a_page_fault() {
    let mut m = Machine::new();

    let (code, parameters, _) = m.stop("KeSetEvent", &[NOWHERE, 0, 0]);

    assert_eq!((code, parameters[0]), (0x50, NOWHERE + 8));
}

#[test]
fn events_have_irql_rows() {
    for (name, irql, wait, row) in [
        ("KeSetEvent", 3, 0, 0x80),
        ("KeSetEvent", 2, 1, 0x80),
        ("KeClearEvent", 3, 0, 0x2_0011),
        ("KeResetEvent", 3, 0, 0x2_0011),
        ("KeReadStateEvent", 3, 0, 0x2_0011),
        ("KeCancelTimer", 3, 0, 0x2_0011),
    ] {
        let mut m = Machine::new();
        let event = event(&mut m, NOTIFICATION, 0);
        m.state.set_irql(&mut m.p, irql).unwrap();

        let (code, parameters, go_on) = m.stop(name, &[event, 0, wait]);

        assert_eq!((code, parameters[0]), (0xc4, row), "{name}");
        assert_eq!(go_on, Some(0), "{name}");
    }
}

#[test]
fn freed_object_of_a_wait_is_seen() {
    let mut m = Machine::new();
    let wait = Wait {
        objects: vec![Gva(NOWHERE)],
        all: false,
        until: None,
        ..Wait::default()
    };

    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), None);
    assert_eq!(m.state.wait_faults(&m.p, &wait), Some(Gva(NOWHERE)));
}

#[test]
fn semaphore_counts() {
    let mut m = Machine::new();
    let semaphore = m.space(0x20);
    m.value("KeInitializeSemaphore", &[semaphore, 1, 2]);

    let old = m.value("KeReleaseSemaphore", &[semaphore, 0, 1, 0]);
    let (code, ..) = m.stop("KeReleaseSemaphore", &[semaphore, 0, 1, 0]);
    let zero = timeout(&mut m, 0);
    let waits = [0; 3].map(|_| wait(&mut m, semaphore, zero));

    assert_eq!((old, code), (1, 0x1e));
    assert_eq!(waits, [done(SUCCESS), done(SUCCESS), done(TIMEOUT)]);
}

#[test]
fn any_of_several_objects_ends_the_wait() {
    let mut m = Machine::new();
    let (a, b) = (
        event(&mut m, NOTIFICATION, 0),
        event(&mut m, NOTIFICATION, 1),
    );
    let list: Vec<u8> = [a, b].into_iter().flat_map(u64::to_le_bytes).collect();
    let list = m.bytes(&list);

    let any = m.value("KeWaitForMultipleObjects", &[2, list, 1, 0, 0, 0, 0, 0]);
    let none = m.value("KeWaitForMultipleObjects", &[0, list, 1, 0, 0, 0, 0, 0]);
    let all = m.call("KeWaitForMultipleObjects", &[2, list, 0, 0, 0, 0, 0, 0]);

    assert_eq!((any, none), (1, 0xc000_000d));
    assert!(matches!(all, Outcome::Block(wait) if wait.all));
}

#[test]
fn delay_waits_for_time_only() {
    let mut m = Machine::new();
    let interval = timeout(&mut m, -10);

    let outcome = m.call("KeDelayExecutionThread", &[0, 0, interval]);

    let wait = Wait {
        until: Some(1_000),
        ..Wait::default()
    };
    assert_eq!(outcome, Outcome::Block(wait.clone()));
    m.p.scenario().advance(1_000);
    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), Some(SUCCESS));
}

#[test]
fn delay_at_dispatch_level_stops() {
    let mut m = Machine::new();
    let interval = timeout(&mut m, -10);
    m.state.set_irql(&mut m.p, 2).unwrap();

    let (code, _, go_on) = m.stop("KeDelayExecutionThread", &[0, 0, interval]);

    assert_eq!((code, go_on), (0x0a, Some(0)));
}

#[test]
fn timer_signals_and_queues_its_dpc() {
    let mut m = Machine::new();
    let (timer, dpc) = (m.space(0x40), m.space(0x40));
    m.value("KeInitializeTimer", &[timer]);
    m.value("KeInitializeDpc", &[dpc, 0x1234, 0x55]);

    let first = m.value("KeSetTimer", &[timer, (-20i64).cast_unsigned(), dpc]);
    let again = m.value("KeSetTimer", &[timer, (-10i64).cast_unsigned(), dpc]);
    assert_eq!(m.state.next_deadline(None), Some(1_000));
    m.p.scenario().advance(1_000);
    m.state.expire_timers(&mut m.p).unwrap();

    assert_eq!((first, again), (0, 1));
    assert_eq!(m.value("KeReadStateTimer", &[timer]), 1);
    let queued = m.state.pop_dpc(&mut m.p).unwrap().unwrap();
    assert_eq!((queued.routine, queued.context), (Gva(0x1234), 0x55));
    assert_eq!(m.value("KeCancelTimer", &[timer]), 0);
}

#[test]
fn late_periodic_timer_expires_once() {
    let mut m = Machine::new();
    let timer = m.space(0x40);
    m.value("KeInitializeTimerEx", &[timer, 1]);
    m.value("KeSetTimerEx", &[timer, (-10_000i64).cast_unsigned(), 1, 0]);

    m.p.scenario().advance(5_500_000);
    m.state.expire_timers(&mut m.p).unwrap();

    assert_eq!(m.state.next_deadline(None), Some(6_000_000));
    assert_eq!(m.value("KeCancelTimer", &[timer]), 1);
    assert_eq!(m.state.next_deadline(None), None);
}

#[test]
fn dpc_is_queued_once_until_it_is_taken() {
    let mut m = Machine::new();
    let dpc = m.space(0x40);
    m.value("KeInitializeDpc", &[dpc, 0x1000, 7]);

    let inserted = [1, 2].map(|n| m.value("KeInsertQueueDpc", &[dpc, n, n]));
    let taken = m.state.pop_dpc(&mut m.p).unwrap().unwrap();
    let after = m.value("KeInsertQueueDpc", &[dpc, 3, 3]);

    assert_eq!((inserted, after), ([1, 0], 1));
    assert_eq!((taken.argument1, taken.argument2), (1, 1));
    assert_eq!(m.value("KeRemoveQueueDpc", &[dpc]), 1);
    assert!(!m.state.has_dpc());
}

#[test]
fn freed_dpc_in_the_queue_is_an_error() {
    let mut m = Machine::new();
    let dpc = m.space(0x40);
    m.value("KeInitializeDpc", &[dpc, 0x1000, 7]);
    m.value("KeInsertQueueDpc", &[dpc, 0, 0]);

    m.p.unmap(Gva(dpc));

    assert!(m.state.pop_dpc(&mut m.p).is_err());
}

#[test]
fn dpcs_are_flushed_at_passive_level_only() {
    let mut m = Machine::new();
    assert_eq!(m.value("KeFlushQueuedDpcs", &[]), 0);
    m.state.set_irql(&mut m.p, 1).unwrap();

    let (code, ..) = m.stop("KeFlushQueuedDpcs", &[]);

    assert_eq!(code, 0x0a);
}

#[test]
fn a_wait_for_all_takes_none_before_all_are_signaled() {
    let mut m = Machine::new();
    let (first, second) = (
        event(&mut m, SYNCHRONIZATION, 1),
        event(&mut m, SYNCHRONIZATION, 0),
    );
    let wait = Wait {
        objects: vec![Gva(first), Gva(second)],
        all: true,
        until: None,
        ..Wait::default()
    };

    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), None);
    assert_eq!(m.value("KeReadStateEvent", &[first]), 1);
    m.value("KeSetEvent", &[second, 0, 0]);
    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), Some(SUCCESS));
    assert_eq!(m.value("KeReadStateEvent", &[first]), 0);
    assert_eq!(m.state.try_satisfy(&mut m.p, &wait), None);
}
