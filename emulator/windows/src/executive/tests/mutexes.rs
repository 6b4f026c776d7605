use super::machine::Machine;
use crate::status::{ABANDONED, SUCCESS, TIMEOUT};
use crate::{Outcome, Wait};
use memory::Gva;

fn mutex(m: &mut Machine) -> u64 {
    let mutex = m.space(0x38);
    m.value("KeInitializeMutex", &[mutex, 0]);
    mutex
}

fn fast_mutex(m: &mut Machine) -> u64 {
    let mutex = m.space(0x38);
    m.value("KeInitializeGuardedMutex", &[mutex]);
    mutex
}

/// Another thread has the CPU.
fn other_thread(m: &mut Machine) {
    let handle = m.space(8);
    m.value("PsCreateSystemThread", &[handle, 0, 0, 0, 0, 0x1111, 0]);
    m.state.switch_to(&mut m.p, 1).unwrap();
}

fn wait(m: &mut Machine, object: u64) -> Outcome {
    m.call("KeWaitForSingleObject", &[object, 0, 0, 0, 0])
}

fn done(status: u32) -> Outcome {
    Outcome::Return(u64::from(status))
}

fn blocked(outcome: Outcome) -> Wait {
    match outcome {
        Outcome::Block(wait) => wait,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mutex_is_owned_as_often_as_it_is_taken() {
    let mut m = Machine::new();
    let mutex = mutex(&mut m);

    let taken = [wait(&mut m, mutex), wait(&mut m, mutex)];
    let held = m.u64(mutex + 0x28);
    let states = [0; 3].map(|_| {
        let state = m.value("KeReadStateMutex", &[mutex]) as u32;
        if state.cast_signed() <= 0 {
            m.value("KeReleaseMutex", &[mutex, 0]);
        }
        state.cast_signed()
    });

    assert_eq!(taken, [done(SUCCESS), done(SUCCESS)]);
    assert_eq!(held, m.state.threads()[0].object.0);
    assert_eq!(states, [-1, 0, 1]);
    assert_eq!(m.u64(mutex + 0x28), 0);
}

#[test]
fn mutex_of_another_thread_is_waited_for() {
    let mut m = Machine::new();
    let mutex = mutex(&mut m);
    wait(&mut m, mutex);
    other_thread(&mut m);

    let waiting = blocked(wait(&mut m, mutex));
    let before = m.state.try_satisfy(&mut m.p, &waiting);
    assert!(!m.state.would_satisfy(&m.p, &waiting));
    m.state.switch_to(&mut m.p, 0).unwrap();
    m.value("KeReleaseMutex", &[mutex, 0]);
    assert!(m.state.would_satisfy(&m.p, &waiting));
    // The run loop asks while yet another thread has the CPU.
    let after = m.state.try_satisfy(&mut m.p, &waiting);

    assert_eq!((before, after), (None, Some(SUCCESS)));
    assert_eq!(m.u64(mutex + 0x28), m.state.threads()[1].object.0);
}

#[test]
fn mutex_holds_normal_apcs_back() {
    let mut m = Machine::new();
    let mutex = mutex(&mut m);

    wait(&mut m, mutex);
    wait(&mut m, mutex);
    let held = ["KeAreApcsDisabled", "KeAreAllApcsDisabled"].map(|name| m.value(name, &[]));
    m.value("KeReleaseMutex", &[mutex, 0]);
    m.value("KeReleaseMutex", &[mutex, 0]);

    assert_eq!(held, [1, 0]);
    assert_eq!(m.value("KeAreApcsDisabled", &[]), 0);
}

#[test]
fn abandoned_mutex_ends_the_next_wait_so() {
    let mut m = Machine::new();
    let mutex = mutex(&mut m);
    other_thread(&mut m);
    wait(&mut m, mutex);

    let (code, parameters, _) = m.stop("PsTerminateSystemThread", &[0]);
    // The run goes on all the same.
    m.state.end_thread(&mut m.p, 1, 0).unwrap();
    m.state.switch_to(&mut m.p, 0).unwrap();

    assert_eq!((code, parameters[1]), (0x4000_008a, mutex));
    assert_eq!(wait(&mut m, mutex), done(ABANDONED));
    assert_eq!(wait(&mut m, mutex), done(SUCCESS));
}

#[test]
fn wait_for_all_takes_mutexes_and_events_together() {
    let mut m = Machine::new();
    let (mutex, event) = (mutex(&mut m), m.space(0x18));
    m.value("KeInitializeEvent", &[event, 1, 0]);
    let list = m.space(16);
    m.p_write_u64(list, mutex);
    m.p_write_u64(list + 8, event);

    let all = blocked(m.call("KeWaitForMultipleObjects", &[2, list, 0, 0, 0, 0, 0, 0]));
    let free = m.value("KeReadStateMutex", &[mutex]);
    m.value("KeSetEvent", &[event, 0, 0]);

    assert_eq!(free, 1);
    assert_eq!(m.state.try_satisfy(&mut m.p, &all), Some(SUCCESS));
    assert_eq!(m.value("KeReadStateMutex", &[mutex]), 0);
}

#[test]
fn regions_left_open_at_return_stop_once() {
    let mut m = Machine::new();
    m.value("KeEnterCriticalRegion", &[]);
    m.value("KeEnterGuardedRegion", &[]);

    let stop = m.state.apcs_left("DxgkDdiStartDevice").unwrap();

    assert_eq!((stop.code, stop.parameters), (1, [0, 0, 0xffff_ffff, 0]));
    assert_eq!(m.state.apcs_left("DxgkDdiStartDevice"), None);
}

#[test]
fn fast_mutex_raises_to_apc_level_and_back() {
    let mut m = Machine::new();
    let mutex = fast_mutex(&mut m);

    m.value("ExAcquireFastMutex", &[mutex]);
    let held = (m.state.irql(), m.u32(mutex), m.u64(mutex + 8));
    m.value("ExReleaseFastMutex", &[mutex]);

    assert_eq!(held, (1, 0, m.state.threads()[0].object.0));
    assert_eq!((m.state.irql(), m.u32(mutex), m.u64(mutex + 8)), (0, 1, 0));
}

#[test]
fn guarded_mutex_enters_a_guarded_region() {
    let mut m = Machine::new();
    let mutex = fast_mutex(&mut m);

    m.value("KeAcquireGuardedMutex", &[mutex]);
    let held = (m.state.irql(), m.value("KeAreAllApcsDisabled", &[]));
    m.value("KeReleaseGuardedMutex", &[mutex]);

    assert_eq!(held, (0, 1));
    assert_eq!(m.value("KeAreAllApcsDisabled", &[]), 0);
}

#[test]
fn fast_mutex_of_another_thread_is_waited_for() {
    let mut m = Machine::new();
    let mutex = fast_mutex(&mut m);
    m.value("ExAcquireFastMutex", &[mutex]);
    m.state.set_irql(&mut m.p, 0).unwrap();
    other_thread(&mut m);

    let tried = m.value("ExTryToAcquireFastMutex", &[mutex]);
    let waiting = blocked(m.call("ExAcquireFastMutex", &[mutex]));
    let raised = m.state.irql();
    let before = m.state.try_satisfy(&mut m.p, &waiting);
    m.state.switch_to(&mut m.p, 0).unwrap();
    m.value("ExReleaseFastMutex", &[mutex]);
    let after = m.state.try_satisfy(&mut m.p, &waiting);
    m.state.switch_to(&mut m.p, 1).unwrap();
    m.state.set_irql(&mut m.p, 1).unwrap();
    m.value("ExReleaseFastMutex", &[mutex]);

    assert_eq!((tried, raised, m.u32(mutex + 0x10)), (0, 1, 1));
    assert_eq!((before, after), (None, Some(SUCCESS)));
    assert_eq!((m.state.irql(), m.u32(mutex)), (0, 1));
}

#[test]
fn event_that_is_set_makes_its_waiting_thread_ready() {
    let mut m = Machine::new();
    let event = m.space(0x18);
    m.value("KeInitializeEvent", &[event, 1, 0]);
    other_thread(&mut m);

    let waiting = blocked(wait(&mut m, event));
    m.state.switch_to(&mut m.p, 0).unwrap();
    m.value("KeSetEvent", &[event, 0, 0]);

    assert_eq!(waiting.objects, [Gva(event)]);
    assert_eq!(m.state.try_satisfy(&mut m.p, &waiting), Some(SUCCESS));
}

#[test]
fn zero_timeout_does_not_take_a_held_mutex() {
    let mut m = Machine::new();
    let (mutex, zero) = (mutex(&mut m), m.space(8));
    wait(&mut m, mutex);
    other_thread(&mut m);

    let outcome = m.call("KeWaitForMutexObject", &[mutex, 0, 0, 0, zero]);

    assert_eq!(outcome, done(TIMEOUT));
}

#[test]
fn priorities_are_kept_and_the_old_one_returned() {
    let mut m = Machine::new();
    let thread = m.value("KeGetCurrentThread", &[]);

    let old = m.value("KeSetPriorityThread", &[thread, 16]);

    assert_eq!(old, 8);
    assert_eq!(m.value("KeQueryPriorityThread", &[thread]), 16);
}
