//! The rules of work items.

use super::Irql::AtMost;
use super::Parameter::{Is, Of};
use super::{Rule, rules};
use crate::executive::spec::irql::DISPATCH;

const INVALID: &str = "bug check 0xE4, WORKER_INVALID";
const QUEUES: &[&str] = &["IoQueueWorkItem", "IoQueueWorkItemEx", "ExQueueWorkItem"];
const IO_QUEUES: &[&str] = &["IoQueueWorkItem", "IoQueueWorkItemEx"];

rules! {
    WORK_IRQL "work-item-irql" = Rule::at(
        &[
            "IoAllocateWorkItem",
            "IoFreeWorkItem",
            "IoQueueWorkItem",
            "IoQueueWorkItemEx",
            "ExQueueWorkItem",
        ],
        AtMost(DISPATCH),
        "Work items are allocated, queued and freed at DISPATCH_LEVEL or below",
    )
    .page();
    WORK_OBJECT "work-item-object" = Rule::new(
        &["IoAllocateWorkItem"],
        "A work item is allocated for a device object or a driver object",
    )
    .stops(0xE4, [Is(3), Is(0), Of("the object"), Is(0)])
    .documented(INVALID);
    WORK_QUEUED "work-item-queued" = Rule::new(
        QUEUES,
        "A work item is initialised, and is not queued while it is queued",
    )
    .stops(0xE4, [Is(1), Of("the item"), Of("the queue"), Is(0)])
    .documented(INVALID);
    WORK_QUEUE "work-item-queue" = Rule::new(
        QUEUES,
        "A work item is queued to a WORK_QUEUE_TYPE that there is",
    )
    .stops(0xE4, [Is(6), Of("the item"), Of("the queue"), Is(0)])
    .documented(INVALID);
    WORK_ROUTINE "work-item-routine" = Rule::new(
        QUEUES,
        "The routine of a work item is at a system address",
    )
    .stops(0xE4, [Is(7), Of("the item"), Of("the queue"), Is(0)])
    .documented(INVALID);
    WORK_FREED_QUEUED "work-item-freed-while-queued" = Rule::new(
        &["IoFreeWorkItem"],
        "A work item is not freed while it is queued",
    )
    .stops(0xE4, [Is(2), Of("the item"), Of("its routine"), Is(0)])
    .documented(INVALID);
    WORK_FREED_TWICE "work-item-freed-twice" = Rule::new(
        &["IoFreeWorkItem"],
        "A work item that IoAllocateWorkItem gave is freed once",
    )
    .finding("double-free")
    .stops(0xC2, [Is(0x07), Is(0), Is(0), Of("the item")])
    .inferred("bug check 0xC2, 0x07: a work item is pool");
    WORK_POOL "work-item-pool-freed" = Rule::new(
        &["ExFreePool", "ExFreePoolWithTag"],
        "Pool is not freed while a work item in it is queued",
    )
    .finding("cpu-use-after-free")
    .stops(0xE4, [Is(0), Of("the item"), Of("the block"), Of("its end")])
    .documented(INVALID);
    WORK_MEMORY "work-item-memory-gone" = Rule::new(
        &["ExQueueWorkItem"],
        "The memory of a work item is there until a worker has taken it",
    )
    .finding("cpu-use-after-free")
    .inferred("ExQueueWorkItem's page; the worker reads what lies there by then: here it calls \
               the routine that was queued");
    WORK_GONE "work-item-gone" = Rule::new(
        IO_QUEUES,
        "A work item is queued that IoAllocateWorkItem gave, and that was not freed",
    )
    .finding("cpu-use-after-free")
    .stops(0xCC, [Of("the item"), Is(0), Is(0), Is(0)])
    .inferred("bug check 0xCC: a work item is pool, and all pool here is as special pool; items \
               of IoInitializeWorkItem are not implemented");
    WORKER_IRQL "work-item-returns-at-irql" = Rule::new(
        &[],
        "The routine of a work item returns at PASSIVE_LEVEL",
    )
    .finding("wrong-irql")
    .stops(
        0xE1,
        [Of("the routine"), Of("the IRQL"), Of("its first argument"), Of("the item")],
    )
    .documented("bug check 0xE1, WORKER_THREAD_RETURNED_AT_BAD_IRQL");
}
