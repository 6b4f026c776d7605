use super::Case;
use super::world::World;
use crate::Outcome;

const QUEUE: &str = "IoQueueWorkItem";
const FREE: &str = "IoFreeWorkItem";
/// A routine of the driver.
const ROUTINE: u64 = 0xffff_f800_1000_1000;

pub const CASES: &[Case] = &[
    (
        "work-item-object",
        |w| {
            let event = w.event();
            w.call("IoAllocateWorkItem", &[event])
        },
        |w| {
            let [device, _] = w.irp();
            w.call("IoAllocateWorkItem", &[device])
        },
    ),
    (
        "work-item-queued",
        |w| {
            let item = w.queued_work_item();
            w.call(QUEUE, &[item, ROUTINE, 1, 0])
        },
        queue,
    ),
    (
        "work-item-queue",
        |w| {
            let item = w.work_item();
            w.call(QUEUE, &[item, ROUTINE, 7, 0])
        },
        queue,
    ),
    (
        "work-item-routine",
        |w| {
            let item = w.work_item();
            w.call(QUEUE, &[item, 0x1000, 1, 0])
        },
        queue,
    ),
    (
        "work-item-freed-while-queued",
        |w| {
            let item = w.queued_work_item();
            w.call(FREE, &[item])
        },
        |w| {
            let item = w.work_item();
            w.value(QUEUE, &[item, ROUTINE, 1, 0]);
            w.call(FREE, &[item])
        },
    ),
    (
        "work-item-pool-freed",
        |w| {
            let block = w.pool();
            queue_in(w, block + 0x100);
            w.call("ExFreePool", &[block])
        },
        |w| {
            let (block, other) = (w.pool(), w.pool());
            queue_in(w, block + 0x100);
            w.call("ExFreePool", &[other])
        },
    ),
    (
        "work-item-memory-gone",
        |w| take_from_contiguous(w, true),
        |w| take_from_contiguous(w, false),
    ),
    (
        "work-item-freed-twice",
        |w| {
            let item = w.work_item();
            w.value(FREE, &[item]);
            w.call(FREE, &[item])
        },
        |w| {
            let item = w.work_item();
            w.call(FREE, &[item])
        },
    ),
    (
        "work-item-gone",
        |w| {
            let item = w.work_item();
            w.value(FREE, &[item]);
            w.call(QUEUE, &[item, ROUTINE, 1, 0])
        },
        queue,
    ),
];

fn queue(w: &mut World) -> Outcome {
    let item = w.work_item();
    w.call(QUEUE, &[item, ROUTINE, 1, 0])
}

/// Queue a WORK_QUEUE_ITEM at that address, for which no worker is free.
fn queue_in(w: &mut World, at: u64) {
    w.queued_work_item();
    w.put(at + 0x10, ROUTINE);
    w.value("ExQueueWorkItem", &[at, 1]);
}

/// The turn of a work item in contiguous memory comes, with the memory there
/// or freed.
fn take_from_contiguous(w: &mut World, freed: bool) -> Outcome {
    let arguments = [memory::PAGE_SIZE, u64::MAX];
    let memory = w.value("MmAllocateContiguousMemory", &arguments);
    queue_in(w, memory);
    if freed {
        w.value("MmFreeContiguousMemory", &[memory]);
    }
    for worker in [1, 2] {
        let executive = &mut w.windows.executive;
        executive.end_thread(&mut w.machine, worker, 0).unwrap();
    }
    Outcome::Return(0)
}
