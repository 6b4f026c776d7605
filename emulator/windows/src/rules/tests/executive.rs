use super::Case;
use super::world::{NOWHERE, World};
use crate::Outcome;
use memory::PAGE_SIZE;

pub const CASES: &[Case] = &[
    (
        "argument-not-mapped",
        |w| w.call("KeSetEvent", &[NOWHERE, 0, 0]),
        |w| {
            let event = w.event();
            w.call("KeSetEvent", &[event, 0, 0])
        },
    ),
    (
        "irql-raised-down",
        |w| w.at_irql(2).call("KfRaiseIrql", &[1]),
        |w| w.at_irql(2).call("KfRaiseIrql", &[2]),
    ),
    (
        "irql-lowered-up",
        |w| w.call("KeLowerIrql", &[1]),
        |w| w.call("KeLowerIrql", &[0]),
    ),
    (
        "string-left-at-unload",
        |w| {
            string(w);
            w.windows.executive.report_strings_left(&w.machine);
            Outcome::Return(0)
        },
        |w| {
            let string = string(w);
            w.value("RtlFreeUnicodeString", &[string]);
            w.windows.executive.report_strings_left(&w.machine);
            Outcome::Return(0)
        },
    ),
    ("lookaside-flags", |w| lookaside(w, 3), |w| lookaside(w, 1)),
    (
        "lookaside-not-initialised",
        |w| {
            let list = w.lookaside(0);
            w.value("ExDeleteLookasideListEx", &[list]);
            w.call("ExDeleteLookasideListEx", &[list])
        },
        |w| {
            let list = w.lookaside(0);
            w.call("ExDeleteLookasideListEx", &[list])
        },
    ),
    (
        "spin-lock-held",
        |w| {
            let lock = w.word(1);
            w.call("KeAcquireSpinLockRaiseToDpc", &[lock])
        },
        |w| {
            let lock = w.word(0);
            w.call("KeAcquireSpinLockRaiseToDpc", &[lock])
        },
    ),
    (
        "spin-lock-uninitialised",
        |w| {
            let lock = w.word(2);
            w.call("KeAcquireSpinLockRaiseToDpc", &[lock])
        },
        |w| {
            let lock = w.word(2);
            w.value("KeInitializeSpinLock", &[lock]);
            w.call("KeAcquireSpinLockRaiseToDpc", &[lock])
        },
    ),
    (
        "spin-lock-not-held",
        |w| {
            let lock = w.word(0);
            w.at_irql(2).call("KeReleaseSpinLock", &[lock, 0])
        },
        |w| {
            let lock = w.word(1);
            w.at_irql(2).call("KeReleaseSpinLock", &[lock, 0])
        },
    ),
    (
        "list-corrupt",
        |w| {
            let (head, lock) = (w.space(16), w.word(0));
            w.put(head, head);
            w.put(head + 8, lock);
            w.call("ExInterlockedRemoveHeadList", &[head, lock])
        },
        |w| {
            let (head, lock) = (w.space(16), w.word(0));
            w.put(head, head);
            w.put(head + 8, head);
            w.call("ExInterlockedRemoveHeadList", &[head, lock])
        },
    ),
    (
        "dispatcher-object-invalid",
        |w| {
            let zeros = w.space(0x18);
            w.call("KeSetEvent", &[zeros, 0, 0])
        },
        |w| {
            let event = w.event();
            w.call("KeSetEvent", &[event, 0, 0])
        },
    ),
    (
        "semaphore-limit",
        |w| {
            let semaphore = w.semaphore();
            w.call("KeReleaseSemaphore", &[semaphore, 0, 2, 0])
        },
        |w| {
            let semaphore = w.semaphore();
            w.call("KeReleaseSemaphore", &[semaphore, 0, 1, 0])
        },
    ),
    (
        "wait-count",
        |w| {
            let list = w.space(65 * 8);
            w.call("KeWaitForMultipleObjects", &[65, list, 1, 0, 0, 0, 0, 0])
        },
        |w| {
            let event = w.event();
            let list = w.space(64 * 8);
            (0..64).for_each(|index| w.put(list + 8 * index, event));
            w.call("KeWaitForMultipleObjects", &[64, list, 1, 0, 0, 0, 0, 0])
        },
    ),
    (
        "close-unknown-handle",
        |w| w.call("ZwClose", &[0x1234]),
        |w| {
            let key = w.key();
            w.call("ZwClose", &[key])
        },
    ),
    (
        "object-dereferenced-too-often",
        |w| {
            let file = file(w);
            w.value("ObfDereferenceObject", &[file]);
            w.call("ObfDereferenceObject", &[file])
        },
        |w| {
            let file = file(w);
            w.call("ObfDereferenceObject", &[file])
        },
    ),
    (
        "request-method",
        |w| build(w, 0x23_003c),
        |w| build(w, 0x23_003f),
    ),
    (
        "irp-complete",
        |w| {
            let sent = w.irp();
            w.value("IofCallDriver", &sent);
            w.call("IofCallDriver", &sent)
        },
        |w| {
            let sent = w.irp();
            w.call("IofCallDriver", &sent)
        },
    ),
    (
        "irp-stack-location",
        |w| {
            use crate::executive::spec::io::IRP_CURRENT;
            let [device, irp] = w.irp();
            let at = irp + IRP_CURRENT;
            let moved = w.get(at) + 8;
            w.put(at, moved);
            w.call("IofCallDriver", &[device, irp])
        },
        |w| {
            let sent = w.irp();
            w.call("IofCallDriver", &sent)
        },
    ),
];

/// A file object with one reference.
fn file(w: &mut super::World) -> u64 {
    let (file, device) = (w.space(8), w.space(8));
    let name = w.unicode("\\Device\\DxgKrnl");
    w.value("IoGetDeviceObjectPointer", &[name, 0, file, device]);
    w.get(file)
}

fn build(w: &mut super::World, code: u64) -> crate::Outcome {
    let [device, _] = w.irp();
    let arguments = [code, device, 0, 0, 0, PAGE_SIZE, 1, 0, 0];
    w.call("IoBuildDeviceIoControlRequest", &arguments)
}

/// A UNICODE_STRING that Windows allocated.
fn string(w: &mut World) -> u64 {
    let (target, source, text) = (w.space(16), w.space(16), w.word(0x0061_6161));
    w.value("RtlInitAnsiString", &[source, text]);
    let arguments = [target, source, 1];
    assert_eq!(w.value("RtlAnsiStringToUnicodeString", &arguments), 0);
    target
}

fn lookaside(w: &mut World, flags: u64) -> Outcome {
    let at = w.space(0x60);
    let arguments = [at, 0, 0, 0, flags, 0x40, 1, 0];
    w.call("ExInitializeLookasideListEx", &arguments)
}

#[test]
fn an_entry_of_a_lookaside_list_is_had_from_pool_and_goes_back_there() {
    let mut w = World::new();
    let list = w.lookaside(0);
    // As the inline routines do: an empty list, so Allocate; Depth is 0, so
    // Free.
    assert_eq!(w.value("ExpInterlockedPopEntrySList", &[list]), 0);
    let [allocate, free] = ["ExAllocatePoolWithTag", "ExFreePool"]
        .map(|name| w.windows.resolve_routine("test", name).0);
    assert_eq!((w.get(list + 0x30), w.get(list + 0x38)), (allocate, free));
    assert_eq!(w.get(list + 0x10) & 0xffff, 0);
    assert_eq!(w.value("ExQueryDepthSList", &[list]), 0);
    let (kind, size) = (w.get(list + 0x20) >> 32, w.get(list + 0x28) >> 32);
    assert_eq!((kind, size), (0, 0x40));
    assert_eq!(w.windows.executive.lookasides().count(), 1);
    w.value("ExDeleteLookasideListEx", &[list]);
    assert_eq!(w.windows.executive.lookasides().count(), 0);
}

#[test]
fn sequenced_list_gives_back_what_was_pushed_last_first() {
    let mut w = World::new();
    let (head, first, second) = (w.space(16), w.space(16), w.space(16));
    assert_eq!(w.value("ExpInterlockedPushEntrySList", &[head, first]), 0);
    let before = w.value("ExpInterlockedPushEntrySList", &[head, second]);
    assert_eq!(before, first);
    assert_eq!(w.value("ExQueryDepthSList", &[head]), 2);
    assert_eq!(w.value("ExpInterlockedPopEntrySList", &[head]), second);
    assert_eq!(w.value("ExpInterlockedFlushSList", &[head]), first);
    assert_eq!(w.value("ExpInterlockedPopEntrySList", &[head]), 0);
    assert_eq!(w.value("ExQueryDepthSList", &[head]), 0);
}

#[test]
fn remove_lock_is_waited_for_until_its_last_user_has_released_it() {
    let mut w = World::new();
    let lock = w.remove_lock();
    let acquire = [lock, 0, 0, 0, 0x20];
    // Two users; one of them waits for the other.
    assert_eq!(w.value("IoAcquireRemoveLockEx", &acquire), 0);
    assert_eq!(w.value("IoAcquireRemoveLockEx", &acquire), 0);
    let release = [lock, 0, 0x20];
    let Outcome::Block(wait) = w.call("IoReleaseRemoveLockAndWaitEx", &release) else {
        panic!("somebody has the lock");
    };
    let World {
        windows, machine, ..
    } = &mut w;
    assert_eq!(windows.executive.try_satisfy(machine, &wait), None);
    let pending = u64::from(crate::status::DELETE_PENDING);
    assert_eq!(w.value("IoAcquireRemoveLockEx", &acquire), pending);
    w.value("IoReleaseRemoveLockEx", &release);
    let World {
        windows, machine, ..
    } = &mut w;
    let status = windows.executive.try_satisfy(machine, &wait);
    assert_eq!(status, Some(0));
}

#[test]
fn remove_lock_that_nobody_else_has_is_not_waited_for() {
    let mut w = World::new();
    let lock = w.remove_lock();
    w.value("IoAcquireRemoveLockEx", &[lock, 0, 0, 0, 0x20]);
    w.value("IoReleaseRemoveLockAndWaitEx", &[lock, 0, 0x20]);
}
