use super::Case;
use super::world::World;
use crate::Outcome;
use memory::PAGE_SIZE;

const TAG: u64 = 0x3161_6161;

pub const CASES: &[Case] = &[
    (
        "pool-arguments",
        |w| w.call("ExAllocatePool2", &[0x140, 16, TAG]),
        |w| w.call("ExAllocatePool2", &[0x100, 16, TAG]),
    ),
    (
        "pool-none",
        |w| w.call("ExAllocatePool2", &[0x40, 1 << 30, TAG]),
        |w| w.call("ExAllocatePool2", &[0x40, 1 << 20, TAG]),
    ),
    (
        "pool-wrong-tag",
        |w| {
            let block = w.pool();
            w.call("ExFreePoolWithTag", &[block, TAG + 1])
        },
        |w| {
            let block = w.pool();
            w.call("ExFreePoolWithTag", &[block, TAG])
        },
    ),
    (
        "pool-freed-twice",
        |w| {
            let block = w.pool();
            w.value("ExFreePool", &[block]);
            w.call("ExFreePool", &[block])
        },
        |w| {
            let (block, other) = (w.pool(), w.pool());
            w.value("ExFreePool", &[block]);
            w.call("ExFreePool", &[other])
        },
    ),
    (
        "pool-freed-while-locked",
        |w| {
            let (block, _) = locked(w);
            w.call("ExFreePool", &[block])
        },
        |w| {
            let (block, mdl) = locked(w);
            w.value("MmUnlockPages", &[mdl]);
            w.call("ExFreePool", &[block])
        },
    ),
    (
        "pool-left-at-unload",
        |w| {
            w.pool();
            unload(w)
        },
        |w| {
            let block = w.pool();
            w.value("ExFreePool", &[block]);
            unload(w)
        },
    ),
    (
        "pool-left-at-unload",
        |w| {
            let (block, mdl) = locked(w);
            w.value("MmUnlockPages", &[mdl]);
            w.value("ExFreePool", &[block]);
            unload(w)
        },
        |w| {
            // The MDL of pages is told by another rule.
            w.pages(1);
            unload(w)
        },
    ),
    (
        "pool-user-address",
        |w| w.call("ExFreePool", &[0x1000]),
        |w| {
            let block = w.pool();
            w.call("ExFreePool", &[block])
        },
    ),
    (
        "pool-inside-block",
        |w| {
            let block = w.pool();
            w.call("ExFreePool", &[block + 16])
        },
        |w| {
            let block = w.pool();
            w.call("ExFreePool", &[block])
        },
    ),
    (
        "pool-never-allocated",
        |w| {
            let memory = w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX]);
            w.call("ExFreePool", &[memory])
        },
        |w| {
            let block = w.pool();
            w.call("ExFreePool", &[block])
        },
    ),
];

fn unload(w: &mut World) -> Outcome {
    w.windows.mm.report_unreleased(&mut w.machine);
    Outcome::Return(0)
}

/// Pool that is locked, and the MDL that it is locked through.
fn locked(w: &mut World) -> (u64, u64) {
    let block = w.pool();
    let mdl = w.value("IoAllocateMdl", &[block, PAGE_SIZE, 0, 0, 0]);
    w.value("MmProbeAndLockPages", &[mdl, 0, 1]);
    (block, mdl)
}
