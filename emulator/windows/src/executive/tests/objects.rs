use super::machine::Machine;
use crate::Outcome;
use crate::executive::Handle;
use crate::status::{INVALID_HANDLE, INVALID_PARAMETER, SUCCESS};
use memory::Gva;

/// A system thread: its handle.
fn thread(m: &mut Machine) -> u64 {
    let (handle, client) = (m.space(8), m.space(16));
    let status = m.value(
        "PsCreateSystemThread",
        &[handle, 0x1f_ffff, 0, 0, client, 0x1111, 0x2222],
    );
    assert_eq!(status, u64::from(SUCCESS));
    m.u64(handle)
}

fn object(m: &mut Machine, handle: u64) -> u64 {
    let at = m.space(8);
    let status = m.value("ObReferenceObjectByHandle", &[handle, 0, 0, 0, at, 0]);
    assert_eq!(status, u64::from(SUCCESS));
    m.u64(at)
}

#[test]
fn new_thread_is_recorded() {
    let mut m = Machine::new();

    thread(&mut m);

    let made = m.state.thread(1).unwrap();
    assert_eq!(
        (made.start, made.arguments.as_slice()),
        (Gva(0x1111), [0x2222].as_slice())
    );
    assert_eq!(made.ended, None);
}

#[test]
fn thread_object_is_signaled_when_it_ends() {
    let mut m = Machine::new();
    let handle = thread(&mut m);
    let object = object(&mut m, handle);
    let wait = [object, 0, 0, 0, 0];
    assert!(matches!(
        m.call("KeWaitForSingleObject", &wait),
        Outcome::Block(_)
    ));

    m.state.switch_to(&mut m.p, 1).unwrap();
    let outcome = m.call("PsTerminateSystemThread", &[5]);
    m.state.switch_to(&mut m.p, 0).unwrap();

    assert_eq!(outcome, Outcome::EndThread);
    assert_eq!(m.state.thread(1).unwrap().ended, Some(5));
    assert_eq!(m.value("KeWaitForSingleObject", &wait), u64::from(SUCCESS));
}

#[test]
fn only_system_threads_terminate_themselves() {
    let mut m = Machine::new();

    let status = m.value("PsTerminateSystemThread", &[0]);

    assert_eq!(status, u64::from(INVALID_PARAMETER));
}

#[test]
fn current_thread_follows_the_switch() {
    let mut m = Machine::new();
    let handle = thread(&mut m);
    let object = object(&mut m, handle);

    m.state.switch_to(&mut m.p, 1).unwrap();

    assert_eq!(m.value("KeGetCurrentThread", &[]), object);
    assert_eq!(m.value("PsGetCurrentThreadId", &[]), 12);
}

#[test]
fn stack_limits_are_those_that_were_set() {
    let mut m = Machine::new();
    let (low, high) = (m.space(8), m.space(8));
    m.state
        .set_stack(&mut m.p, 0, Gva(0x9000), Gva(0x3000))
        .unwrap();

    m.value("IoGetStackLimits", &[low, high]);

    assert_eq!((m.u64(low), m.u64(high)), (0x3000, 0x9000));
}

#[test]
fn priority_is_kept() {
    let mut m = Machine::new();
    let current = m.value("KeGetCurrentThread", &[]);

    let old = m.value("KeSetPriorityThread", &[current, 16]);

    assert_eq!((old, m.value("KeQueryPriorityThread", &[current])), (8, 16));
}

#[test]
fn handle_is_closed_once() {
    let mut m = Machine::new();
    let handle = thread(&mut m);
    assert_eq!(
        m.state.handles().collect::<Vec<_>>(),
        [(handle, &Handle::Thread(1))]
    );

    let first = m.value("ZwClose", &[handle]);
    let second = m.value("ZwClose", &[handle]);

    assert_eq!(
        (first, second),
        (u64::from(SUCCESS), u64::from(INVALID_HANDLE))
    );
}

#[test]
fn close_above_passive_level_stops() {
    let mut m = Machine::new();
    let handle = thread(&mut m);
    m.state.set_irql(&mut m.p, 1).unwrap();

    let (code, parameters, go_on) = m.stop("ZwClose", &[handle]);

    assert_eq!((code, parameters[0], go_on), (0xc4, 0x2_001f, Some(0)));
}

#[test]
fn dereference_too_many_stops() {
    let mut m = Machine::new();
    let handle = thread(&mut m);
    let object = object(&mut m, handle);
    m.value("ZwClose", &[handle]);
    m.state.end_thread(&mut m.p, 1, 0).unwrap();

    let last = m.value("ObfDereferenceObject", &[object]);
    let (code, parameters, _) = m.stop("ObfDereferenceObject", &[object]);

    assert_eq!((last, code, parameters[1]), (0, 0x18, object));
}

#[test]
fn running_thread_keeps_its_own_reference() {
    let mut m = Machine::new();
    let current = m.value("KeGetCurrentThread", &[]);

    let (code, ..) = m.stop("ObfDereferenceObject", &[current]);

    assert_eq!(code, 0x18);
}

#[test]
fn references_of_others_objects_are_accepted() {
    let mut m = Machine::new();
    let foreign = m.space(0x100);

    m.value("ObfReferenceObject", &[foreign]);
    m.value("ObfDereferenceObject", &[foreign]);
    m.value("ObfDereferenceObject", &[foreign]);
}

#[test]
fn named_event_is_shared_and_starts_signaled() {
    let mut m = Machine::new();
    let name = m.unicode("\\BaseNamedObjects\\Probe");
    let upper = m.unicode("\\BASENAMEDOBJECTS\\PROBE");
    let handle = m.space(8);

    let first = m.value("IoCreateNotificationEvent", &[name, handle]);
    let second = m.value("IoCreateNotificationEvent", &[upper, handle]);

    assert_ne!(first, 0);
    assert_eq!(first, second);
    assert_eq!(m.value("KeReadStateEvent", &[first]), 1);
}

#[test]
fn threads_run_out_with_an_error() {
    let mut m = Machine::new();
    let handle = m.space(8);

    let last = (0..200)
        .map(|_| m.value("PsCreateSystemThread", &[handle, 0, 0, 0, 0, 1, 2]))
        .last();

    assert_eq!(last, Some(0xc000_009a));
}
