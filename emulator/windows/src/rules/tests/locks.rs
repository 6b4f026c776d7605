use super::Case;
use super::world::World;
use crate::Outcome;
use memory::Gva;

const WAIT: &str = "KeWaitForSingleObject";
const RELEASE: &str = "KeReleaseMutex";
const ACQUIRE_FAST: &str = "ExAcquireFastMutex";
const RELEASE_FAST: &str = "ExReleaseFastMutex";
const ACQUIRE_UNSAFE: &str = "ExAcquireFastMutexUnsafe";
const RELEASE_UNSAFE: &str = "ExReleaseFastMutexUnsafe";

pub const CASES: &[Case] = &[
    (
        "mutex-not-owned",
        |w| {
            let mutex = w.mutex();
            w.call(RELEASE, &[mutex, 0])
        },
        |w| {
            let mutex = w.mutex();
            w.value(WAIT, &[mutex, 0, 0, 0, 0]);
            w.call(RELEASE, &[mutex, 0])
        },
    ),
    (
        "mutex-limit",
        |w| take_again(w, 0x8000_0000),
        |w| take_again(w, 0x8000_0001),
    ),
    (
        "mutex-held-at-thread-end",
        |w| {
            let mutex = w.mutex();
            w.in_thread().value(WAIT, &[mutex, 0, 0, 0, 0]);
            w.call("PsTerminateSystemThread", &[0])
        },
        |w| {
            let mutex = w.mutex();
            w.in_thread().value(WAIT, &[mutex, 0, 0, 0, 0]);
            w.value(RELEASE, &[mutex, 0]);
            w.call("PsTerminateSystemThread", &[0])
        },
    ),
    (
        "critical-region-not-entered",
        |w| w.call("KeLeaveCriticalRegion", &[]),
        |w| {
            w.value("KeEnterCriticalRegion", &[]);
            w.call("KeLeaveCriticalRegion", &[])
        },
    ),
    (
        "guarded-region-not-entered",
        |w| {
            w.value("KeEnterCriticalRegion", &[]);
            w.call("KeLeaveGuardedRegion", &[])
        },
        |w| {
            w.value("KeEnterGuardedRegion", &[]);
            w.call("KeLeaveGuardedRegion", &[])
        },
    ),
    (
        "apcs-disabled-at-thread-end",
        |w| {
            w.in_thread().value("KeEnterCriticalRegion", &[]);
            w.call("PsTerminateSystemThread", &[0])
        },
        |w| w.in_thread().call("PsTerminateSystemThread", &[0]),
    ),
    (
        "fast-mutex-unsafe-acquire",
        |w| {
            let mutex = w.fast_mutex();
            w.call(ACQUIRE_UNSAFE, &[mutex])
        },
        |w| {
            let mutex = w.fast_mutex();
            w.value("KeEnterCriticalRegion", &[]);
            w.call(ACQUIRE_UNSAFE, &[mutex])
        },
    ),
    (
        "fast-mutex-unsafe-release",
        |w| {
            let mutex = w.fast_mutex();
            w.at_irql(1).value(ACQUIRE_UNSAFE, &[mutex]);
            w.at_irql(0).call(RELEASE_UNSAFE, &[mutex])
        },
        |w| {
            let mutex = w.fast_mutex();
            w.at_irql(1).value(ACQUIRE_UNSAFE, &[mutex]);
            w.call(RELEASE_UNSAFE, &[mutex])
        },
    ),
    (
        "fast-mutex-uninitialised",
        |w| {
            let mutex = w.space(0x38);
            w.call(ACQUIRE_FAST, &[mutex])
        },
        |w| {
            let mutex = w.fast_mutex();
            w.call(ACQUIRE_FAST, &[mutex])
        },
    ),
    (
        "fast-mutex-recursive",
        |w| {
            let mutex = w.fast_mutex();
            w.value(ACQUIRE_FAST, &[mutex]);
            w.call(ACQUIRE_FAST, &[mutex])
        },
        // What another thread holds is waited for.
        |w| {
            let mutex = w.fast_mutex();
            w.value(ACQUIRE_FAST, &[mutex]);
            w.at_irql(0).in_thread().call(ACQUIRE_FAST, &[mutex])
        },
    ),
    (
        "fast-mutex-not-held",
        |w| {
            let mutex = w.fast_mutex();
            w.at_irql(1).call(RELEASE_FAST, &[mutex])
        },
        |w| {
            let mutex = w.fast_mutex();
            w.value(ACQUIRE_FAST, &[mutex]);
            w.call(RELEASE_FAST, &[mutex])
        },
    ),
    (
        "fast-mutex-of-other-thread",
        |w| {
            let mutex = w.fast_mutex();
            w.value(ACQUIRE_FAST, &[mutex]);
            w.at_irql(0).in_thread();
            w.at_irql(1).call(RELEASE_FAST, &[mutex])
        },
        |w| {
            let mutex = w.fast_mutex();
            w.value(ACQUIRE_FAST, &[mutex]);
            w.call(RELEASE_FAST, &[mutex])
        },
    ),
];

/// A wait for a mutex that the thread has, with this SignalState.
fn take_again(w: &mut World, signal: u32) -> Outcome {
    use crate::Platform;
    let mutex = w.mutex();
    w.value(WAIT, &[mutex, 0, 0, 0, 0]);
    w.machine.write_u32(Gva(mutex + 4), signal).unwrap();
    w.call(WAIT, &[mutex, 0, 0, 0, 0])
}
