//! The executive's rules.

use super::Irql::{AtLeast, AtMost, Exactly};
use super::Parameter::{Is, Of};
use super::{Rule, rules};
use crate::executive::spec::irql::{APC, DISPATCH, PASSIVE};
use crate::executive::spec::stop;
use crate::status;

const VERIFIER: &str = "bug check 0xC4, table of violations";
const DISPATCH_LTE: &str = "bug check 0xC4, row 0x20011: rule IrqlKeDispatchLte";
const ZW_PASSIVE: &str = "bug check 0xC4, row 0x2001F: rule IrqlZwPassive";

rules! {
    ARGUMENT_NOT_MAPPED "argument-not-mapped" = Rule::new(
        &[],
        "What an argument points at is mapped",
    )
    .stops(0x50, [Of("the address"), Is(0), Is(0), Is(2)])
    .inferred("bug check 0x50: a system service that touches memory that is not there");

    // IRQL and spin locks
    RAISE "irql-raised-down" = Rule::new(
        &["KfRaiseIrql", "KeRaiseIrqlToDpcLevel"],
        "The IRQL is raised to one that is not lower, and is an IRQL",
    )
    .finding("wrong-irql")
    .stops(stop::VERIFIER, [Is(0x30), Of("the IRQL"), Of("the new IRQL"), Is(0)])
    .documented(VERIFIER);
    LOWER "irql-lowered-up" = Rule::new(
        &[
            "KeLowerIrql",
            "KfLowerIrql",
            "KeReleaseSpinLock",
            "KeReleaseInStackQueuedSpinLock",
        ],
        "The IRQL is lowered to one that is not higher",
    )
    .finding("wrong-irql")
    .stops(stop::VERIFIER, [Is(0x31), Of("the IRQL"), Of("the new IRQL"), Is(0)])
    .documented(VERIFIER);
    ACQUIRE_IRQL "spin-lock-acquire-irql" = Rule::at(
        &["KeAcquireSpinLockRaiseToDpc"],
        AtMost(DISPATCH),
        "A spin lock is acquired at DISPATCH_LEVEL or below",
    )
    .verifier(0x42)
    .documented(VERIFIER);
    RELEASE_IRQL "spin-lock-release-irql" = Rule::at(
        &["KeReleaseSpinLock"],
        Exactly(DISPATCH),
        "A spin lock is released at DISPATCH_LEVEL",
    )
    .verifier(0x32)
    .documented(VERIFIER);
    ACQUIRE_AT_DPC_IRQL "spin-lock-acquire-at-dpc-irql" = Rule::at(
        &["KeAcquireSpinLockAtDpcLevel"],
        AtLeast(DISPATCH),
        "A spin lock is acquired this way at DISPATCH_LEVEL or above",
    )
    .verifier(0x40)
    .documented(VERIFIER);
    RELEASE_FROM_DPC_IRQL "spin-lock-release-from-dpc-irql" = Rule::at(
        &["KeReleaseSpinLockFromDpcLevel"],
        AtLeast(DISPATCH),
        "A spin lock is released this way at DISPATCH_LEVEL or above",
    )
    .verifier(0x41)
    .documented(VERIFIER);
    TRY_ACQUIRE_IRQL "spin-lock-try-irql" = Rule::at(
        &["KeTryToAcquireSpinLockAtDpcLevel"],
        AtLeast(DISPATCH),
        "A spin lock is tried at DISPATCH_LEVEL or above",
    )
    .page();
    ACQUIRE_QUEUED_IRQL "queued-spin-lock-acquire-irql" = Rule::at(
        &["KeAcquireInStackQueuedSpinLock"],
        AtMost(DISPATCH),
        "A queued spin lock is acquired at DISPATCH_LEVEL or below",
    )
    .page();
    LOCK_HELD "spin-lock-held" = Rule::new(
        LOCKING,
        "A spin lock is not acquired by the processor that holds it: one processor would spin \
         for ever",
    )
    .stops(stop::SPIN_LOCK_ALREADY_OWNED, [Of("the lock"), Of("its value"), Is(0), Is(0)])
    .documented("bug check 0x0F");
    LOCK_UNINITIALISED "spin-lock-uninitialised" = Rule::new(
        LOCKING,
        "A spin lock is initialised, and nobody else writes to it",
    )
    .stops(stop::SPIN_LOCK_ALREADY_OWNED, [Of("the lock"), Of("its value"), Is(0), Is(0)])
    .inferred("KeInitializeSpinLock's page; a processor would spin, which is bug check 0x0F");
    LOCK_NOT_HELD "spin-lock-not-held" = Rule::new(
        &[
            "KeReleaseSpinLock",
            "KeReleaseSpinLockFromDpcLevel",
            "KeReleaseInStackQueuedSpinLock",
        ],
        "Only a spin lock that is held is released",
    )
    .stops(stop::SPIN_LOCK_NOT_OWNED, [Of("the lock"), Of("its value"), Is(0), Is(0)])
    .documented("bug check 0x10");
    LIST_CORRUPT "list-corrupt" = Rule::new(
        &["ExInterlockedRemoveHeadList"],
        "The neighbours of a list entry point back at it",
    )
    .stops(stop::SECURITY_CHECK, [Is(3), Of("the entry"), Is(0), Is(0)])
    .documented("bug check 0x139, FAST_FAIL_CORRUPT_LIST_ENTRY");

    // Dispatcher objects
    SET_EVENT_IRQL "set-event-irql" = Rule::at(
        &["KeSetEvent"],
        AtMost(DISPATCH),
        "An event is set at DISPATCH_LEVEL or below",
    )
    .verifier(0x80)
    .documented(VERIFIER);
    SET_EVENT_WAIT_IRQL "set-event-and-wait-irql" = Rule::at(
        &["KeSetEvent"],
        AtMost(APC),
        "An event is set with Wait, so that a wait follows, at APC_LEVEL or below",
    )
    .verifier(0x80)
    .documented(VERIFIER);
    DISPATCH_OR_LESS "dispatcher-object-irql" = Rule::at(
        &[
            "KeClearEvent",
            "KeResetEvent",
            "KeReadStateEvent",
            "KeReadStateMutex",
            "KeReadStateSemaphore",
            "KeReadStateTimer",
            "KeReleaseSemaphore",
            "KeInitializeTimer",
            "KeInitializeTimerEx",
            "KeSetTimer",
            "KeSetTimerEx",
            "KeCancelTimer",
        ],
        AtMost(DISPATCH),
        "Events, semaphores and timers are used at DISPATCH_LEVEL or below",
    )
    .verifier(0x2_0011)
    .documented(DISPATCH_LTE);
    NO_DISPATCHER_OBJECT "dispatcher-object-invalid" = Rule::new(
        &[
            "KeSetEvent",
            "KeReleaseSemaphore",
            "KeSetTimer",
            "KeSetTimerEx",
            "KeWaitForSingleObject",
            "KeWaitForMultipleObjects",
        ],
        "A dispatcher object was initialised, was not moved and was not freed",
    )
    .stops(
        stop::IRQL_NOT_LESS_OR_EQUAL,
        [Of("its first waiter"), Is(DISPATCH as u64), Is(0), Is(0)],
    )
    .inferred("Windows follows its list of waiters with the dispatcher lock held");
    SEMAPHORE_LIMIT "semaphore-limit" = Rule::new(
        &["KeReleaseSemaphore"],
        "A semaphore is released by a positive count, and not past its limit",
    )
    // KMODE_EXCEPTION_NOT_HANDLED, STATUS_SEMAPHORE_LIMIT_EXCEEDED.
    .stops(0x1E, [Is(0xC000_0047), Is(0), Of("the semaphore"), Is(0)])
    .inferred("KeReleaseSemaphore's page: it raises an exception; bug check 0x1E, where no \
               handler is run, is inferred");
    WAIT_IRQL "wait-irql" = Rule::at(
        WAITS,
        AtMost(DISPATCH),
        "A wait with a timeout of zero is made at DISPATCH_LEVEL or below",
    )
    .page();
    BLOCKING_WAIT_IRQL "blocking-wait-irql" = Rule::at(
        &[
            "KeWaitForSingleObject",
            "KeWaitForMultipleObjects",
            "KeDelayExecutionThread",
        ],
        AtMost(APC),
        "A wait that may block is made at APC_LEVEL or below",
    )
    .page();
    WAIT_COUNT "wait-count" = Rule::new(
        &["KeWaitForMultipleObjects"],
        "One to 64 objects are waited for",
    )
    .returns(status::INVALID_PARAMETER as u64)
    .ours("MAXIMUM_WAIT_OBJECTS; Windows stops with bug check 0x0C above it");

    // Threads, DPCs, objects
    NAMED_EVENT_IRQL "named-event-irql" = Rule::at(
        &["IoCreateNotificationEvent", "IoCreateSynchronizationEvent"],
        AtMost(PASSIVE),
        "A named event is created at PASSIVE_LEVEL",
    )
    .verifier(0x2_000D)
    .documented("bug check 0xC4, row 0x2000D: rule IrqlIoPassive4");
    THREAD_IRQL "thread-irql" = Rule::at(
        &["PsCreateSystemThread"],
        AtMost(PASSIVE),
        "A system thread is made at PASSIVE_LEVEL",
    )
    .page();
    THREAD_END_IRQL "thread-end-irql" = Rule::at(
        &["PsTerminateSystemThread"],
        AtMost(PASSIVE),
        "A system thread ends at PASSIVE_LEVEL",
    )
    .page();
    FLUSH_DPCS_IRQL "flush-dpcs-irql" = Rule::at(
        &["KeFlushQueuedDpcs"],
        AtMost(PASSIVE),
        "DPCs are flushed at PASSIVE_LEVEL",
    )
    .page();
    CLOSE_IRQL "close-irql" = Rule::at(
        &["ZwClose", "ObCloseHandle"],
        AtMost(PASSIVE),
        "A handle is closed at PASSIVE_LEVEL",
    )
    .verifier(0x2_001F)
    .documented(ZW_PASSIVE);
    CLOSE_HANDLE "close-unknown-handle" = Rule::new(
        &["ZwClose", "ObCloseHandle"],
        "Only an open handle is closed",
    )
    .returns(status::INVALID_HANDLE as u64)
    .documented("ZwClose's page");
    BY_HANDLE_IRQL "object-by-handle-irql" = Rule::at(
        &["ObReferenceObjectByHandle"],
        AtMost(PASSIVE),
        "An object is looked up by its handle at PASSIVE_LEVEL",
    )
    .page();
    DEREFERENCE_IRQL "dereference-irql" = Rule::at(
        &["ObfDereferenceObject"],
        AtMost(DISPATCH),
        "A reference of an object is dropped at DISPATCH_LEVEL or below",
    )
    .page();
    DEREFERENCED_TOO_OFTEN "object-dereferenced-too-often" = Rule::new(
        &["ObfDereferenceObject"],
        "A reference of an object is dropped only by who holds one",
    )
    .stops(stop::REFERENCE_BY_POINTER, [Is(0), Of("the object"), Is(0), Is(0)])
    .documented("bug check 0x18");

    STRING_LEFT "string-left-at-unload" = Rule::new(
        &["RtlFreeUnicodeString"],
        "Strings that Rtl routines allocated are freed before the driver is unloaded",
    )
    .finding("memory-leak")
    .documented("Driver Verifier's page of pool tracking: bug check 0xC4, 0x62, at the unload");

    // Registry and I/O
    REGISTRY_IRQL "registry-irql" = Rule::at(
        &[
            "ZwOpenKey",
            "ZwCreateKey",
            "ZwFlushKey",
            "ZwQueryValueKey",
            "ZwSetValueKey",
            "ZwDeleteValueKey",
        ],
        AtMost(PASSIVE),
        "The registry is used at PASSIVE_LEVEL",
    )
    .verifier(0x2_001F)
    .documented(ZW_PASSIVE);
    DEVICE_KEY_IRQL "device-key-irql" = Rule::at(
        &["IoOpenDeviceRegistryKey"],
        AtMost(PASSIVE),
        "A device's registry key is opened at PASSIVE_LEVEL",
    )
    .page();
    LOAD_DRIVER_IRQL "load-driver-irql" = Rule::at(
        &["ZwLoadDriver", "ZwUnloadDriver"],
        AtMost(PASSIVE),
        "A driver is loaded and unloaded at PASSIVE_LEVEL",
    )
    .page();
    DEVICE_POINTER_IRQL "device-pointer-irql" = Rule::at(
        &["IoGetDeviceObjectPointer"],
        AtMost(PASSIVE),
        "A device is looked up by name at PASSIVE_LEVEL",
    )
    .page();
    BUILD_REQUEST_IRQL "build-request-irql" = Rule::at(
        &["IoBuildDeviceIoControlRequest"],
        AtMost(PASSIVE),
        "A device control request is built at PASSIVE_LEVEL",
    )
    .verifier(0x2_000A)
    .documented("bug check 0xC4, row 0x2000A: rule IrqlIoPassive1");
    REQUEST_METHOD "request-method" = Rule::new(
        &["IoBuildDeviceIoControlRequest"],
        "Control codes of other methods than METHOD_NEITHER are not implemented here",
    )
    .returns(0)
    .ours("the display port library uses no other; NULL is what a lack of memory gives");
    CALL_DRIVER_IRQL "call-driver-irql" = Rule::at(
        &["IofCallDriver"],
        AtMost(DISPATCH),
        "An IRP is sent at DISPATCH_LEVEL or below",
    )
    .page();
    REMOVE_LOCK_IRQL "remove-lock-irql" = Rule::at(
        &["IoAcquireRemoveLockEx", "IoReleaseRemoveLockEx"],
        AtMost(DISPATCH),
        "A remove lock is acquired and released at DISPATCH_LEVEL or below",
    )
    .page();
    REMOVE_LOCK_PASSIVE "remove-lock-passive" = Rule::at(
        &["IoInitializeRemoveLockEx", "IoReleaseRemoveLockAndWaitEx"],
        AtMost(PASSIVE),
        "A remove lock is initialised, and waited for, at PASSIVE_LEVEL",
    )
    .page();
    LOOKASIDE_IRQL "lookaside-irql" = Rule::at(
        &[
            "ExInitializeNPagedLookasideList",
            "ExDeleteNPagedLookasideList",
            "ExInitializeLookasideListEx",
            "ExDeleteLookasideListEx",
            "ExFlushLookasideListEx",
        ],
        AtMost(DISPATCH),
        "A lookaside list is initialised, flushed and deleted at DISPATCH_LEVEL or below",
    )
    .page();
    LOOKASIDE_PAGED_IRQL "paged-lookaside-irql" = Rule::at(
        &["ExInitializePagedLookasideList", "ExDeletePagedLookasideList"],
        AtMost(APC),
        "A lookaside list of paged pool is initialised and deleted at APC_LEVEL or below",
    )
    .page();
    LOOKASIDE_FLAGS "lookaside-flags" = Rule::new(
        &["ExInitializeLookasideListEx"],
        "Flags are 0 or one of EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL and FAIL_NO_RAISE",
    )
    .returns(status::INVALID_PARAMETER_5 as u64)
    .documented("ExInitializeLookasideListEx's page, return value");
    LOOKASIDE_UNKNOWN "lookaside-not-initialised" = Rule::new(
        &[
            "ExDeleteNPagedLookasideList",
            "ExDeletePagedLookasideList",
            "ExDeleteLookasideListEx",
        ],
        "Only a lookaside list that was initialised is deleted, and once",
    )
    .stops(stop::SECURITY_CHECK, [Is(3), Of("the list"), Is(0), Is(0)])
    .inferred("bug check 0x139, FAST_FAIL_CORRUPT_LIST_ENTRY: it is taken out of the list of all");
    LOOKASIDE_DEPTH "lookaside-depth" = Rule::new(
        &[
            "ExInitializeNPagedLookasideList",
            "ExInitializePagedLookasideList",
            "ExInitializeLookasideListEx",
        ],
        "A lookaside list keeps nothing: what is freed to it goes back to pool at once",
    )
    .ours("Windows decides how much a list keeps; so a second free of an entry, and its use after \
           the free, are seen");
    IRP_COMPLETE "irp-complete" = Rule::new(
        &["IofCallDriver"],
        "An IRP is sent that was built and is not complete",
    )
    .stops(stop::MULTIPLE_IRP_COMPLETE_REQUESTS, [Of("the IRP"), Is(0), Is(0), Is(0)])
    .inferred("bug check 0x44: the IRP would be completed a second time");
    IRP_LOCATION "irp-stack-location" = Rule::new(
        &["IofCallDriver"],
        "An IRP that is sent has a stack location left",
    )
    .stops(stop::NO_MORE_IRP_STACK_LOCATIONS, [Of("the IRP"), Is(0), Is(0), Is(0)])
    .documented("bug check 0x35");
}

const LOCKING: &[&str] = &[
    "KeAcquireSpinLockRaiseToDpc",
    "KeAcquireSpinLockAtDpcLevel",
    "KeAcquireInStackQueuedSpinLock",
    "ExInterlockedInsertHeadList",
    "ExInterlockedInsertTailList",
    "ExInterlockedRemoveHeadList",
];
const WAITS: &[&str] = &["KeWaitForSingleObject", "KeWaitForMultipleObjects"];
