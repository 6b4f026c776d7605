//! The rules of mutexes, fast mutexes and the regions without APCs.

use super::Irql::{AtMost, Exactly};
use super::Parameter::{Irql, Is, Of};
use super::{Rule, rules};
use crate::executive::spec::irql::{APC, DISPATCH};
use crate::executive::spec::stop;

const VERIFIER: &str = "bug check 0xC4, table of violations";
const DEADLOCK: &str = "bug check 0xC4, rows of Deadlock Detection";
const COUNT: &str = "the thread's APC disable count";

const FAST_ACQUIRES: &[&str] = &[
    "ExAcquireFastMutex",
    "ExAcquireFastMutexUnsafe",
    "KeAcquireGuardedMutex",
];
const FAST_RELEASES: &[&str] = &[
    "ExReleaseFastMutex",
    "ExReleaseFastMutexUnsafe",
    "KeReleaseGuardedMutex",
];

rules! {
    // Mutexes
    MUTEX_IRQL "mutex-irql" = Rule::at(
        &["KeReleaseMutex"],
        AtMost(DISPATCH),
        "A mutex is released at DISPATCH_LEVEL or below",
    )
    .verifier(0x2_0011)
    .documented("bug check 0xC4, row 0x20011: rule IrqlKeDispatchLte");
    MUTEX_NOT_OWNED "mutex-not-owned" = Rule::new(
        &["KeReleaseMutex"],
        "A mutex is released by the thread that holds it",
    )
    // KMODE_EXCEPTION_NOT_HANDLED, STATUS_MUTANT_NOT_OWNED.
    .stops(0x1E, [Is(0xC000_0046), Is(0), Of("the mutex"), Is(0)])
    .inferred("KeReleaseMutex's page: it raises an exception, which it calls \
               STATUS_MUTEX_NOT_OWNED; the number, and bug check 0x1E where no handler is run, \
               are inferred");
    MUTEX_LIMIT "mutex-limit" = Rule::new(
        &["KeWaitForSingleObject", "KeWaitForMultipleObjects"],
        "A thread holds a mutex less than 2^31 times",
    )
    // STATUS_MUTANT_LIMIT_EXCEEDED.
    .stops(0x1E, [Is(0xC000_0191), Is(0), Of("the mutex"), Is(0)])
    .inferred("KeWaitForSingleObject's page: past MINLONG times it raises an exception; bug check \
               0x1E, where no handler is run, is inferred");
    MUTEX_HELD_AT_END "mutex-held-at-thread-end" = Rule::new(
        &["PsTerminateSystemThread"],
        "A thread releases its mutexes before it ends",
    )
    .stops(0x4000_008A, [Of("the thread"), Of("the mutex"), Is(0), Is(0)])
    .documented("bug check 0x4000008A, THREAD_TERMINATE_HELD_MUTEX; a wait for it ends with \
                 STATUS_ABANDONED where the run goes on");

    // Regions
    REGION_IRQL "apc-region-irql" = Rule::at(
        &[
            "KeEnterCriticalRegion",
            "KeLeaveCriticalRegion",
            "KeEnterGuardedRegion",
            "KeLeaveGuardedRegion",
            "KeAreApcsDisabled",
            "KeAreAllApcsDisabled",
        ],
        AtMost(APC),
        "Critical and guarded regions are entered and left at APC_LEVEL or below",
    )
    .verifier(0x2_0010)
    .documented("bug check 0xC4, row 0x20010: rule IrqlKeApcLte2");
    NO_CRITICAL_REGION "critical-region-not-entered" = Rule::new(
        &["KeLeaveCriticalRegion"],
        "A critical region is left by a thread that is in one",
    )
    .stops(stop::VERIFIER, [Is(0x3E), Is(0), Is(0), Is(0)])
    .documented(VERIFIER);
    NO_GUARDED_REGION "guarded-region-not-entered" = Rule::new(
        &["KeLeaveGuardedRegion"],
        "A guarded region is left by a thread that is in one",
    )
    .stops(stop::VERIFIER, [Is(0x4_000E), Is(0), Is(0), Is(0)])
    .documented("bug check 0xC4, row 0x4000E: rule GuardedRegions");
    APCS_LEFT "apcs-disabled-at-return" = Rule::new(
        &[],
        "A routine of the driver leaves the regions that it enters, and releases the mutexes \
         that it takes, before it returns",
    )
    .stops(
        0x01,
        [
            Of("the routine, if it is known"),
            Is(0),
            Of("CombinedApcDisable"),
            Of("1 for a work item, else 0"),
        ],
    )
    .inferred("bug check 0x01, at the end of a system call or a work item; that a call of \
               dxgkrnl's ends in it too; see exclusive-access-held");
    APCS_AT_END "apcs-disabled-at-thread-end" = Rule::new(
        &["PsTerminateSystemThread"],
        "A thread leaves its regions before it ends",
    )
    .stops(0x20, [Is(0), Of(COUNT), Of("the IRQL"), Is(0)])
    .documented("bug check 0x20, KERNEL_APC_PENDING_DURING_EXIT");

    // Fast mutexes
    FAST_ACQUIRE_IRQL "fast-mutex-acquire-irql" = Rule::at(
        &["ExAcquireFastMutex", "ExTryToAcquireFastMutex"],
        AtMost(APC),
        "A fast mutex is acquired at APC_LEVEL or below",
    )
    .verifier(0x33)
    .documented(VERIFIER);
    FAST_RELEASE_IRQL "fast-mutex-release-irql" = Rule::at(
        &["ExReleaseFastMutex"],
        Exactly(APC),
        "A fast mutex is released at APC_LEVEL",
    )
    .stops(stop::VERIFIER, [Is(0x34), Irql, Of(COUNT), Of("the mutex")])
    .documented(VERIFIER);
    GUARDED_IRQL "guarded-mutex-irql" = Rule::at(
        &[
            "KeAcquireGuardedMutex",
            "KeTryToAcquireGuardedMutex",
            "KeReleaseGuardedMutex",
        ],
        AtMost(APC),
        "A guarded mutex is acquired and released at APC_LEVEL or below",
    )
    .verifier(0x2_000F)
    .documented("bug check 0xC4, row 0x2000F: rule IrqlKeApcLte1");
    UNSAFE_ACQUIRE "fast-mutex-unsafe-acquire" = Rule::new(
        &["ExAcquireFastMutexUnsafe"],
        "A fast mutex is acquired this way at APC_LEVEL, or below it in a critical or guarded \
         region",
    )
    .finding("wrong-irql")
    .stops(stop::VERIFIER, [Is(0x39), Of("the IRQL"), Of(COUNT), Of("the mutex")])
    .documented("bug check 0xC4, row 0x39; the routine's page allows the regions");
    UNSAFE_RELEASE "fast-mutex-unsafe-release" = Rule::new(
        &["ExReleaseFastMutexUnsafe"],
        "A fast mutex is released this way at APC_LEVEL, or below it in a critical or guarded \
         region",
    )
    .finding("wrong-irql")
    .stops(stop::VERIFIER, [Is(0x3A), Of("the IRQL"), Of(COUNT), Of("the mutex")])
    .documented("bug check 0xC4, row 0x3A; the routine's page allows the regions");
    FAST_UNINITIALISED "fast-mutex-uninitialised" = Rule::new(
        FAST_ACQUIRES,
        "A fast mutex is initialised, and nobody else writes to it",
    )
    .stops(stop::VERIFIER, [Is(0x1002), Of("the mutex"), Is(0), Is(0)])
    .documented(DEADLOCK);
    FAST_RECURSIVE "fast-mutex-recursive" = Rule::new(
        FAST_ACQUIRES,
        "A fast mutex is not acquired by the thread that holds it: it would wait for ever",
    )
    .stops(stop::VERIFIER, [Is(0x1001), Of("the mutex"), Is(0), Is(0)])
    .inferred(DEADLOCK);
    FAST_NOT_HELD "fast-mutex-not-held" = Rule::new(
        FAST_RELEASES,
        "Only a fast mutex that is held is released",
    )
    .stops(stop::VERIFIER, [Is(0x1007), Of("the mutex"), Is(0), Is(0)])
    .documented(DEADLOCK);
    FAST_OTHER_THREAD "fast-mutex-of-other-thread" = Rule::new(
        FAST_RELEASES,
        "A fast mutex is released by the thread that holds it",
    )
    .stops(stop::VERIFIER, [Is(0x1004), Of("the mutex"), Of("who holds it"), Of("the thread")])
    .documented(DEADLOCK);
}
