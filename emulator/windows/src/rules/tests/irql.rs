//! Each IRQL rule, for each of its routines.

use super::world::{ADAPTER, World};
use crate::Outcome;
use crate::layout;
use crate::rules::{Irql, Rule, all};
use memory::PAGE_SIZE;

/// MM_ANY_NODE_OK.
const ANY_NODE: u64 = 0x8000_0000;

/// Arguments with which a call of the routine breaks no rule, and for which
/// `rule` is the one about IRQL.
fn arguments(w: &mut World, routine: &str, rule: &str) -> Vec<u64> {
    match routine {
        "KeAcquireSpinLockRaiseToDpc"
        | "KeAcquireSpinLockAtDpcLevel"
        | "KeTryToAcquireSpinLockAtDpcLevel" => vec![w.word(0)],
        "KeReleaseSpinLock" | "KeReleaseSpinLockFromDpcLevel" => vec![w.word(1), 0],
        "KeAcquireInStackQueuedSpinLock" => vec![w.word(0), w.space(0x18)],
        "KeSetEvent" => vec![w.event(), 0, u64::from(rule == "set-event-and-wait-irql")],
        "KeClearEvent" | "KeResetEvent" | "KeReadStateEvent" => vec![w.event()],
        "KeReadStateMutex" => vec![w.mutex()],
        "KeReleaseMutex" => {
            let mutex = w.mutex();
            w.value("KeWaitForSingleObject", &[mutex, 0, 0, 0, 0]);
            vec![mutex, 0]
        }
        "KeLeaveCriticalRegion" => {
            w.value("KeEnterCriticalRegion", &[]);
            vec![]
        }
        "KeLeaveGuardedRegion" => {
            w.value("KeEnterGuardedRegion", &[]);
            vec![]
        }
        "KeEnterCriticalRegion"
        | "KeEnterGuardedRegion"
        | "KeAreApcsDisabled"
        | "KeAreAllApcsDisabled" => vec![],
        "ExAcquireFastMutex"
        | "ExTryToAcquireFastMutex"
        | "KeAcquireGuardedMutex"
        | "KeTryToAcquireGuardedMutex" => vec![w.fast_mutex()],
        "ExReleaseFastMutex" => {
            let mutex = w.fast_mutex();
            w.value("ExAcquireFastMutex", &[mutex]);
            vec![mutex]
        }
        "KeReleaseGuardedMutex" => {
            let mutex = w.fast_mutex();
            w.value("KeAcquireGuardedMutex", &[mutex]);
            vec![mutex]
        }
        "IoAllocateWorkItem" => vec![w.irp()[0]],
        "IoFreeWorkItem" => vec![w.work_item()],
        "IoQueueWorkItem" | "IoQueueWorkItemEx" => {
            vec![w.work_item(), layout::IMAGES.0, 1, 0]
        }
        "ExQueueWorkItem" => {
            let item = w.space(0x20);
            w.put(item + 0x10, layout::IMAGES.0);
            vec![item, 1]
        }
        "IoInitializeRemoveLockEx" => vec![w.space(0x20), 1, 0, 0, 0x20],
        "IoAcquireRemoveLockEx" => vec![w.remove_lock(), 0, 0, 0, 0x20],
        "IoReleaseRemoveLockEx" | "IoReleaseRemoveLockAndWaitEx" => {
            let lock = w.remove_lock();
            w.value("IoAcquireRemoveLockEx", &[lock, 0, 0, 0, 0x20]);
            vec![lock, 0, 0x20]
        }
        "ExInitializeNPagedLookasideList" | "ExInitializePagedLookasideList" => {
            vec![w.space(0x80), 0, 0, 0, 0x40, 1, 0]
        }
        "ExInitializeLookasideListEx" => vec![w.space(0x80), 0, 0, 0, 0, 0x40, 1, 0],
        "ExDeleteNPagedLookasideList"
        | "ExDeletePagedLookasideList"
        | "ExDeleteLookasideListEx"
        | "ExFlushLookasideListEx" => vec![w.lookaside(0)],
        "KeReadStateSemaphore" => vec![w.semaphore()],
        "KeReleaseSemaphore" => vec![w.semaphore(), 0, 1, 0],
        "KeReadStateTimer" | "KeCancelTimer" | "KeInitializeTimer" => vec![w.timer()],
        "KeInitializeTimerEx" => vec![w.timer(), 1],
        "KeSetTimer" => vec![w.timer(), 100, 0],
        "KeSetTimerEx" => vec![w.timer(), 100, 0, 0],
        "KeWaitForSingleObject" => vec![w.event(), 0, 0, 0, timeout(w, rule)],
        "KeWaitForMultipleObjects" => {
            let event = w.event();
            vec![1, w.word(event), 1, 0, 0, 0, timeout(w, rule), 0]
        }
        "KeDelayExecutionThread" => vec![0, 0, w.word((-10i64).cast_unsigned())],
        "IoCreateNotificationEvent" | "IoCreateSynchronizationEvent" => {
            vec![w.unicode("\\name"), w.space(8)]
        }
        "PsCreateSystemThread" => vec![w.space(8), 0, 0, 0, 0, 0x1000, 0],
        "PsTerminateSystemThread" => {
            let thread = w.space(8);
            w.value("PsCreateSystemThread", &[thread, 0, 0, 0, 0, 0x1000, 0]);
            w.windows.executive.switch_to(&mut w.machine, 1).unwrap();
            vec![0]
        }
        "KeFlushQueuedDpcs" => vec![],
        "ZwClose" | "ObCloseHandle" | "ZwFlushKey" => vec![w.key()],
        "ObReferenceObjectByHandle" => {
            let (name, handle) = (w.unicode("\\name"), w.space(8));
            w.value("IoCreateNotificationEvent", &[name, handle]);
            vec![w.get(handle), 0, 0, 0, w.space(8), 0]
        }
        "ObfDereferenceObject" => vec![w.irp()[0]],
        "ZwOpenKey" => vec![w.space(8), 0, w.key_attributes()],
        "ZwCreateKey" => vec![w.space(8), 0, w.key_attributes(), 0, 0, 0, 0],
        "ZwQueryValueKey" => {
            let (key, name) = (w.key(), w.unicode("name"));
            vec![key, name, 2, w.space(0x40), 0x40, w.space(8)]
        }
        "ZwSetValueKey" => {
            let (key, name) = (w.key(), w.unicode("name"));
            vec![key, name, 0, 4, w.space(8), 4]
        }
        "ZwDeleteValueKey" => vec![w.key(), w.unicode("name")],
        "IoOpenDeviceRegistryKey" => vec![0, 2, 0, w.space(8)],
        "ZwLoadDriver" | "ZwUnloadDriver" => {
            let path = "\\Registry\\Machine\\System\\CurrentControlSet\\Services\\DXGKrnl";
            vec![w.unicode(path)]
        }
        "IoGetDeviceObjectPointer" => {
            vec![w.unicode("\\Device\\DxgKrnl"), 0, w.space(8), w.space(8)]
        }
        "IoBuildDeviceIoControlRequest" => {
            let [device, _] = w.irp();
            let (event, block, output) = (w.event(), w.space(16), w.space(8));
            vec![0x23_003f, device, 0, 0, output, 8, 1, event, block]
        }
        "IofCallDriver" => w.irp().to_vec(),
        "MmAllocatePagesForMdl" => vec![0, u64::MAX, 0, PAGE_SIZE],
        "MmAllocatePagesForMdlEx" => vec![0, u64::MAX, 0, PAGE_SIZE, 1, 0],
        "MmAllocateNodePagesForMdlEx" => vec![0, u64::MAX, 0, PAGE_SIZE, 1, ANY_NODE, 0],
        "MmAllocatePartitionNodePagesForMdlEx" => {
            vec![0, u64::MAX, 0, PAGE_SIZE, 1, ANY_NODE, 0, 0]
        }
        "MmFreePagesFromMdl" => vec![w.pages(1)],
        "MmFreePagesFromMdlEx" => vec![w.pages(1), 1],
        "MmMapLockedPages" => {
            vec![w.pages(1), u64::from(rule == "map-mdl-old-user-irql")]
        }
        "IoBuildPartialMdl" => {
            let (source, start, target) = w.source_and_target();
            vec![source, target, start, 1]
        }
        "MmAllocateMdlForIoSpace" => vec![w.io_list(PAGE_SIZE), 1, w.space(8)],
        "MmProtectMdlSystemAddress" => vec![w.mapped().0, 2],
        "MmMapLockedPagesSpecifyCache" => {
            let user = u64::from(rule == "map-mdl-user-irql");
            vec![w.pages(1), user, 1, 0, 0, 16]
        }
        "MmUnmapLockedPages" if rule == "unmap-mdl-user-irql" => {
            let (mdl, address) = w.user_mapped();
            vec![address, mdl]
        }
        "MmUnmapLockedPages" => {
            let (mdl, address) = w.mapped();
            vec![address, mdl]
        }
        "MmProbeAndLockPages" => vec![w.pool_mdl(), 0, 1],
        "MmUnlockPages" => vec![w.locked()],
        "MmAllocateContiguousMemory" => vec![PAGE_SIZE, u64::MAX],
        "MmAllocateContiguousMemorySpecifyCache" => vec![PAGE_SIZE, 0, u64::MAX, 0, 1],
        "MmAllocateContiguousMemorySpecifyCacheNode" => {
            vec![PAGE_SIZE, 0, u64::MAX, 0, 1, ANY_NODE]
        }
        "MmAllocateContiguousNodeMemory" => vec![PAGE_SIZE, 0, u64::MAX, 0, 4, ANY_NODE],
        "MmAllocateContiguousMemoryEx" => {
            let (size, base) = (w.word(PAGE_SIZE), w.space(8));
            vec![size, 0, u64::MAX, 0, ANY_NODE, 4, 0, 1, 0, base]
        }
        "MmAdvanceMdl" => vec![w.locked(), 1],
        "MmFreeContiguousMemorySpecifyCache" => {
            let memory = w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX]);
            vec![memory, PAGE_SIZE, 1]
        }
        "MmFreeContiguousMemory" => {
            vec![w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX])]
        }
        "IoAllocateMdl" => vec![w.pool(), PAGE_SIZE, 0, 0, 0],
        "IoFreeMdl" => vec![w.pool_mdl()],
        "MmMapIoSpace" => vec![w.bar(), PAGE_SIZE, 0],
        "MmUnmapIoSpace" => {
            let bar = w.bar();
            vec![w.value("MmMapIoSpace", &[bar, PAGE_SIZE, 0]), PAGE_SIZE]
        }
        "ExAllocatePool" => vec![paged(rule), 16],
        "ExAllocatePoolWithTag" => vec![paged(rule), 16, 1],
        "ExAllocatePool2" => vec![if paged(rule) == 1 { 0x100 } else { 0x40 }, 16, 1],
        "ExFreePool" => vec![w.pool()],
        "ExFreePoolWithTag" => vec![w.pool(), 0x3161_6161],
        "DxgkCbAllocatePagesForMdl" => vec![ADAPTER, w.pages_argument(PAGE_SIZE)],
        "DxgkCbAllocateContiguousMemory" => vec![ADAPTER, w.contiguous_argument(PAGE_SIZE, 0)],
        "DxgkCbFreePagesFromMdl" => vec![ADAPTER, w.dxgk_pages().0],
        "DxgkCbFreeContiguousMemory" => vec![ADAPTER, w.dxgk_contiguous().0],
        "DxgkCbMapMdlToIoMmu" => vec![ADAPTER, w.mdl_argument()],
        "DxgkCbUnmapMdlFromIoMmu" => vec![ADAPTER, w.mapped_mdl()],
        "DxgkCbPinFrameBufferForSave" => vec![ADAPTER, w.pin_argument(PAGE_SIZE)],
        "DxgkCbUnpinFrameBufferForSave" => vec![ADAPTER, w.pinned()],
        "DxgkCbMapFrameBufferPointer" => vec![ADAPTER, w.view_argument(PAGE_SIZE, 0)],
        "DxgkCbUnmapFrameBufferPointer" => vec![ADAPTER, w.viewed()],
        other => panic!("{other}: tell how it is called"),
    }
}

/// POOL_TYPE.
fn paged(rule: &str) -> u64 {
    u64::from(rule == "paged-pool-irql")
}

/// No timeout where the wait may block, else one of zero.
fn timeout(w: &mut World, rule: &str) -> u64 {
    match rule {
        "blocking-wait-irql" => 0,
        _ => w.word(0),
    }
}

/// IRQLs at the edge: those that are allowed, and those that are not.
fn edges(limit: Irql) -> (Vec<u8>, Vec<u8>) {
    match limit {
        Irql::AtMost(limit) => (vec![0, limit], vec![limit + 1, 15]),
        Irql::AtLeast(limit) => (vec![limit, 15], vec![limit - 1]),
        Irql::Exactly(level) => (vec![level], vec![level - 1, level + 1]),
    }
}

fn call(rule: &Rule, routine: &str, irql: u8) -> Outcome {
    let mut w = World::new();
    let arguments = arguments(&mut w, routine, rule.id);
    w.at_irql(irql).call(routine, &arguments)
}

#[test]
fn each_irql_rule_allows_its_limit_and_stops_beyond() {
    for (rule, limit) in all().filter_map(|rule| Some((rule, rule.irql?))) {
        let (allowed, forbidden) = edges(limit);
        for routine in rule.routines {
            for &irql in &allowed {
                let outcome = call(rule, routine, irql);
                let stopped = matches!(outcome, Outcome::Stop(_));
                assert!(!stopped, "{}, {routine} at {irql}: {outcome:?}", rule.id);
            }
            for &irql in &forbidden {
                let Outcome::Stop(stop) = call(rule, routine, irql) else {
                    panic!("{}: {routine} at {irql} goes on", rule.id);
                };
                super::assert_made_from(&stop, rule);
                assert!(stop.parameters.contains(&u64::from(irql)), "{stop:?}");
            }
        }
    }
}
