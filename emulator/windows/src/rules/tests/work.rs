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
