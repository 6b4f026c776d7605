use super::Case;
use super::world::{NOWHERE, World};
use crate::Outcome;
use crate::mm::testing::FIRST;
use memory::PAGE_SIZE;

const EX: &str = "MmAllocatePagesForMdlEx";
const NODE: &str = "MmAllocateNodePagesForMdlEx";
const PARTITION: &str = "MmAllocatePartitionNodePagesForMdlEx";
const PART: &str = "IoBuildPartialMdl";
const FREE: &str = "MmFreePagesFromMdl";
const UNMAP: &str = "MmUnmapLockedPages";
const LOCK: &str = "MmProbeAndLockPages";
const UNLOCK: &str = "MmUnlockPages";
/// Offset of ByteCount and of the first slot of an MDL.
const COUNT: u64 = 0x28;
const SLOT: u64 = 0x30;
/// Last address of a range with four pages to give.
const FEW: u64 = (FIRST + 4) * PAGE_SIZE - 1;
/// MDL_PAGES_LOCKED, MDL_PARTIAL.
const LOCKED: u16 = 2;
const PARTIAL: u16 = 0x10;

pub const CASES: &[Case] = &[
    (
        "mdl-extent",
        |w| {
            let mdl = w.pages(1);
            w.put(mdl + COUNT, 0);
            w.call(FREE, &[mdl])
        },
        free,
    ),
    (
        "mdl-page-no-ram",
        |w| {
            let mdl = w.pages(1);
            w.put(mdl + SLOT, 0xf_ed90);
            w.map(mdl)
        },
        |w| {
            let mdl = w.pages(1);
            w.map(mdl)
        },
    ),
    (
        "pages-size",
        |w| w.call(EX, &[0, u64::MAX, 0, 0, 1, 0]),
        |w| w.call(EX, &[0, u64::MAX, 0, 1, 1, 0]),
    ),
    (
        "pages-skip",
        |w| w.call(EX, &[0, u64::MAX, 1, PAGE_SIZE, 1, 0]),
        |w| w.call(EX, &[0, u64::MAX, PAGE_SIZE, PAGE_SIZE, 1, 0]),
    ),
    (
        "pages-chunks",
        |w| w.call(EX, &[0, u64::MAX, 2 * PAGE_SIZE, 3 * PAGE_SIZE, 1, 0x20]),
        |w| w.call(EX, &[0, u64::MAX, 2 * PAGE_SIZE, 4 * PAGE_SIZE, 1, 0x20]),
    ),
    (
        "pages-large",
        |w| w.call(EX, &[0, u64::MAX, 0, PAGE_SIZE, 1, 0x60]),
        |w| w.call(EX, &[0, u64::MAX, 0, PAGE_SIZE, 1, 0x20]),
    ),
    (
        "pages-hot-remove",
        |w| w.call(EX, &[0, u64::MAX, 0, PAGE_SIZE, 1, 0x100]),
        |w| w.call(EX, &[0, u64::MAX, 0, PAGE_SIZE, 1, 0x010]),
    ),
    (
        "pages-node",
        |w| w.call(NODE, &[0, u64::MAX, 0, PAGE_SIZE, 1, 1, 2]),
        |w| w.call(NODE, &[0, u64::MAX, 0, PAGE_SIZE, 1, 1, 0]),
    ),
    (
        "pages-partition",
        |w| w.call(PARTITION, &[0, u64::MAX, 0, PAGE_SIZE, 1, 0, 0, 8]),
        |w| w.call(PARTITION, &[0, u64::MAX, 0, PAGE_SIZE, 1, 0, 0, 0]),
    ),
    (
        "pages-none",
        |w| w.call(EX, &[0, FEW, 0, 8 * PAGE_SIZE, 1, 0x4]),
        |w| w.call(EX, &[0, FEW, 0, 8 * PAGE_SIZE, 1, 0]),
    ),
    (
        "pages-freed-twice",
        |w| {
            let mdl = w.pages(1);
            w.value(FREE, &[mdl]);
            w.call(FREE, &[mdl])
        },
        free,
    ),
    (
        "pages-foreign",
        |w| {
            let (_, mdl) = w.dxgk_pages();
            w.call(FREE, &[mdl])
        },
        free,
    ),
    (
        "pages-changed",
        |w| {
            let mdl = w.pages(2);
            w.put(mdl + SLOT + 8, 3);
            w.call(FREE, &[mdl])
        },
        free,
    ),
    (
        "pages-freed-while-locked",
        |w| {
            let (pages, _) = locked_pages(w);
            w.call(FREE, &[pages])
        },
        |w| {
            let (pages, mdl) = locked_pages(w);
            w.value(UNLOCK, &[mdl]);
            w.call(FREE, &[pages])
        },
    ),
    (
        "pages-freed-while-locked",
        |w| {
            let (memory, _) = locked_contiguous(w);
            w.call("MmFreeContiguousMemory", &[memory])
        },
        |w| {
            let (memory, mdl) = locked_contiguous(w);
            w.value(UNLOCK, &[mdl]);
            w.call("MmFreeContiguousMemory", &[memory])
        },
    ),
    (
        "mdl-freed",
        |w| {
            let mdl = w.pages(1);
            w.value("ExFreePool", &[mdl]);
            w.call(FREE, &[mdl])
        },
        |w| {
            let mdl = w.pages(1);
            w.value(FREE, &[mdl]);
            w.call("ExFreePool", &[mdl])
        },
    ),
    (
        "pages-copied",
        |w| {
            let (_, copy) = copied(w);
            w.call(FREE, &[copy])
        },
        |w| {
            let (original, _) = copied(w);
            w.call(FREE, &[original])
        },
    ),
    (
        "mdl-not-released",
        |w| {
            let mdl = w.pages(1);
            w.value(FREE, &[mdl]);
            w.windows.mm.report_unreleased(&mut w.machine);
            Outcome::Return(0)
        },
        |w| {
            let mdl = w.pages(1);
            w.value(FREE, &[mdl]);
            w.value("ExFreePool", &[mdl]);
            w.windows.mm.report_unreleased(&mut w.machine);
            Outcome::Return(0)
        },
    ),
    (
        "mdl-freed-before-pages",
        |w| {
            let mdl = w.pages(1);
            w.value("ExFreePool", &[mdl]);
            w.windows.mm.report_unreleased(&mut w.machine);
            Outcome::Return(0)
        },
        |w| {
            let mdl = w.pages(1);
            w.value(FREE, &[mdl]);
            w.value("ExFreePool", &[mdl]);
            w.windows.mm.report_unreleased(&mut w.machine);
            Outcome::Return(0)
        },
    ),
    (
        "mdl-freed-by-other",
        |w| {
            let mdl = w.pool_mdl();
            w.call("ExFreePool", &[mdl])
        },
        |w| {
            let mdl = w.pool_mdl();
            w.call("IoFreeMdl", &[mdl])
        },
    ),
    (
        "pages-user-mapped",
        |w| {
            let (mdl, _) = w.user_mapped();
            w.call(FREE, &[mdl])
        },
        |w| {
            let (mdl, address) = w.user_mapped();
            w.value(UNMAP, &[address, mdl]);
            w.call(FREE, &[mdl])
        },
    ),
    (
        "lock-no-ram",
        |w| {
            let bar = w.bar();
            let registers = w.value("MmMapIoSpace", &[bar, PAGE_SIZE, 0]);
            let mdl = w.value("IoAllocateMdl", &[registers, PAGE_SIZE, 0, 0, 0]);
            w.call(LOCK, &[mdl, 0, 1])
        },
        lock,
    ),
    (
        "lock-absent-memory",
        |w| {
            let mdl = w.value("IoAllocateMdl", &[NOWHERE, PAGE_SIZE, 0, 0, 0]);
            w.call(LOCK, &[mdl, 0, 1])
        },
        lock,
    ),
    (
        "lock-freed-memory",
        |w| {
            let block = w.pool();
            let mdl = w.value("IoAllocateMdl", &[block, PAGE_SIZE, 0, 0, 0]);
            w.value("ExFreePool", &[block]);
            w.call(LOCK, &[mdl, 0, 1])
        },
        lock,
    ),
    ("build-paged-pool", |w| build(w, 0x100), |w| build(w, 0x40)),
    (
        "build-absent-memory",
        |w| {
            let mdl = w.value("IoAllocateMdl", &[NOWHERE, PAGE_SIZE, 0, 0, 0]);
            w.call("MmBuildMdlForNonPagedPool", &[mdl])
        },
        |w| build(w, 0x40),
    ),
    (
        "advance-allocated-pages",
        |w| {
            let mdl = w.pages(2);
            w.call("MmAdvanceMdl", &[mdl, PAGE_SIZE])
        },
        |w| {
            let mdl = w.pages(2);
            w.call("MmAdvanceMdl", &[mdl, PAGE_SIZE - 1])
        },
    ),
    (
        "advance-past-end",
        |w| {
            let mdl = w.locked();
            w.call("MmAdvanceMdl", &[mdl, PAGE_SIZE])
        },
        |w| {
            let mdl = w.locked();
            w.call("MmAdvanceMdl", &[mdl, PAGE_SIZE - 1])
        },
    ),
    (
        "lock-mdl-in-use",
        |w| {
            let mdl = w.locked();
            w.call(LOCK, &[mdl, 0, 1])
        },
        |w| {
            let mdl = w.locked();
            w.value(UNLOCK, &[mdl]);
            w.call(LOCK, &[mdl, 0, 1])
        },
    ),
    (
        "unlock-nonpaged-pool",
        |w| {
            let mdl = w.pool_mdl();
            w.value("MmBuildMdlForNonPagedPool", &[mdl]);
            w.call(UNLOCK, &[mdl])
        },
        unlock,
    ),
    (
        "unlock-partial-mdl",
        |w| {
            let mdl = w.locked();
            w.set_flags(mdl, LOCKED | PARTIAL);
            w.call(UNLOCK, &[mdl])
        },
        unlock,
    ),
    (
        "unlock-unlocked-mdl",
        |w| {
            let mdl = w.pool_mdl();
            w.call(UNLOCK, &[mdl])
        },
        unlock,
    ),
    (
        "unlock-unlocked-page",
        |w| {
            let mdl = w.locked();
            w.value(UNLOCK, &[mdl]);
            w.set_flags(mdl, LOCKED);
            w.call(UNLOCK, &[mdl])
        },
        unlock,
    ),
    (
        "free-mapped-mdl",
        |w| {
            let mdl = w.locked();
            assert!(matches!(w.map(mdl), Outcome::Return(_)));
            w.call("IoFreeMdl", &[mdl])
        },
        |w| {
            let mdl = w.locked();
            assert!(matches!(w.map(mdl), Outcome::Return(_)));
            w.value(UNLOCK, &[mdl]);
            w.call("IoFreeMdl", &[mdl])
        },
    ),
    (
        "mdl-size",
        |w| w.call("IoAllocateMdl", &[0, 0xffff_f001, 0, 0, 0]),
        |w| w.call("IoAllocateMdl", &[0, 0x1000_0000, 0, 0, 0]),
    ),
    (
        "mdl-none",
        |w| w.call("IoAllocateMdl", &[0, 0xffff_f000, 0, 0, 0]),
        |w| w.call("IoAllocateMdl", &[0, 0x1000_0000, 0, 0, 0]),
    ),
    (
        "partial-range",
        |w| {
            let (source, start, target) = w.source_and_target();
            w.call(PART, &[source, target, start + 2 * PAGE_SIZE - 1, 2])
        },
        |w| {
            let (source, start, target) = w.source_and_target();
            w.call(PART, &[source, target, start + 2 * PAGE_SIZE - 1, 1])
        },
    ),
    (
        "partial-room",
        |w| {
            let (source, start, target) = w.source_and_target();
            w.call(PART, &[source, target, start + 1, PAGE_SIZE])
        },
        |w| {
            let (source, start, target) = w.source_and_target();
            w.call(PART, &[source, target, start, PAGE_SIZE])
        },
    ),
    (
        "io-space-list",
        |w| {
            let (list, result) = (w.io_list(PAGE_SIZE + 1), w.space(8));
            w.call("MmAllocateMdlForIoSpace", &[list, 1, result])
        },
        io_space_mdl,
    ),
    (
        "io-space-none",
        |w| {
            while w.value("ExAllocatePool2", &[0x40, PAGE_SIZE, 1]) != 0 {}
            io_space_mdl(w)
        },
        io_space_mdl,
    ),
];

fn free(w: &mut World) -> Outcome {
    let mdl = w.pages(2);
    w.call(FREE, &[mdl])
}

fn unlock(w: &mut World) -> Outcome {
    let mdl = w.locked();
    w.call(UNLOCK, &[mdl])
}

/// Pages for an MDL that are locked through another one: both.
fn locked_pages(w: &mut World) -> (u64, u64) {
    let (pages, address) = w.mapped();
    let mdl = w.value("IoAllocateMdl", &[address, PAGE_SIZE, 0, 0, 0]);
    w.value(LOCK, &[mdl, 0, 1]);
    (pages, mdl)
}

/// Contiguous memory that is locked, and the MDL that it is locked through.
fn locked_contiguous(w: &mut World) -> (u64, u64) {
    let memory = w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX]);
    let mdl = w.value("IoAllocateMdl", &[memory, PAGE_SIZE, 0, 0, 0]);
    w.value(LOCK, &[mdl, 0, 1]);
    (memory, mdl)
}

fn io_space_mdl(w: &mut World) -> Outcome {
    let (list, result) = (w.io_list(PAGE_SIZE), w.space(8));
    w.call("MmAllocateMdlForIoSpace", &[list, 1, result])
}

/// An MDL with pages, and one of the driver's own with the same pages.
fn copied(w: &mut World) -> (u64, u64) {
    let original = w.pages(1);
    let copy = w.value("IoAllocateMdl", &[0, PAGE_SIZE, 0, 0, 0]);
    let page = w.get(original + SLOT);
    w.put(copy + SLOT, page);
    w.set_flags(copy, LOCKED);
    (original, copy)
}

fn lock(w: &mut World) -> Outcome {
    let mdl = w.pool_mdl();
    w.call(LOCK, &[mdl, 0, 1])
}

fn build(w: &mut World, flags: u64) -> Outcome {
    let block = w.value("ExAllocatePool2", &[flags, PAGE_SIZE, 1]);
    let mdl = w.value("IoAllocateMdl", &[block, PAGE_SIZE, 0, 0, 0]);
    w.call("MmBuildMdlForNonPagedPool", &[mdl])
}
