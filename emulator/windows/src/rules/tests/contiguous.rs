use super::Case;
use super::world::World;
use crate::Outcome;
use crate::mm::testing::FIRST;
use memory::PAGE_SIZE;

const CONTIGUOUS: &str = "MmAllocateContiguousMemorySpecifyCache";
/// Last address of a range with four pages to give.
const FEW: u64 = (FIRST + 4) * PAGE_SIZE - 1;

pub const CASES: &[Case] = &[
    (
        "contiguous-ex-argument",
        |w| contiguous_ex(w, PAGE_SIZE, 3 * PAGE_SIZE),
        |w| contiguous_ex(w, PAGE_SIZE, 4 * PAGE_SIZE),
    ),
    (
        "contiguous-ex-none",
        |w| contiguous_ex(w, 1 << 30, 0),
        |w| contiguous_ex(w, 1 << 20, 0),
    ),
    (
        "contiguous-freed-twice",
        |w| {
            let memory = w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX]);
            w.value("MmFreeContiguousMemory", &[memory]);
            w.call("MmFreeContiguousMemory", &[memory])
        },
        |w| {
            let memory = w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX]);
            w.call("MmFreeContiguousMemory", &[memory])
        },
    ),
    (
        "contiguous-left-at-unload",
        |w| {
            w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX]);
            w.windows.mm.report_unreleased(&mut w.machine);
            Outcome::Return(0)
        },
        |w| {
            let memory = w.value("MmAllocateContiguousMemory", &[PAGE_SIZE, u64::MAX]);
            w.value("MmFreeContiguousMemory", &[memory]);
            w.windows.mm.report_unreleased(&mut w.machine);
            Outcome::Return(0)
        },
    ),
    (
        "io-space-unlocked",
        |w| w.call("MmMapIoSpace", &[FEW + 1, PAGE_SIZE, 0]),
        |w| {
            let bar = w.bar();
            w.call("MmMapIoSpace", &[bar, PAGE_SIZE, 0])
        },
    ),
    (
        "contiguous-size",
        |w| w.call(CONTIGUOUS, &[0, 0, u64::MAX, 0, 1]),
        |w| w.call(CONTIGUOUS, &[1, 0, u64::MAX, 0, 1]),
    ),
    (
        "contiguous-boundary",
        |w| w.call(CONTIGUOUS, &[1, 0, u64::MAX, 3 * PAGE_SIZE, 1]),
        |w| w.call(CONTIGUOUS, &[1, 0, u64::MAX, 4 * PAGE_SIZE, 1]),
    ),
    (
        "contiguous-none",
        |w| w.call(CONTIGUOUS, &[2 * PAGE_SIZE, 0, u64::MAX, PAGE_SIZE, 1]),
        |w| w.call(CONTIGUOUS, &[PAGE_SIZE, 0, u64::MAX, PAGE_SIZE, 1]),
    ),
    (
        "contiguous-foreign",
        |w| {
            let (_, memory) = w.dxgk_contiguous();
            w.call("MmFreeContiguousMemory", &[memory])
        },
        free_contiguous,
    ),
    (
        "contiguous-base",
        |w| {
            let memory = w.value(CONTIGUOUS, &[2 * PAGE_SIZE, 0, u64::MAX, 0, 1]);
            w.call("MmFreeContiguousMemory", &[memory + PAGE_SIZE])
        },
        free_contiguous,
    ),
    (
        "contiguous-free-size",
        |w| free_specify_cache(w, PAGE_SIZE),
        |w| free_specify_cache(w, PAGE_SIZE + 1),
    ),
    (
        "io-space-size",
        |w| w.call("MmMapIoSpace", &[0xc000_0000, 0, 0]),
        |w| w.call("MmMapIoSpace", &[0xc000_0000, 1, 0]),
    ),
    (
        "io-space-count",
        |w| unmap_io_space(w, 0, 2 * PAGE_SIZE),
        |w| unmap_io_space(w, 0, PAGE_SIZE),
    ),
    (
        "io-space-address",
        |w| unmap_io_space(w, PAGE_SIZE, PAGE_SIZE),
        |w| unmap_io_space(w, 0, PAGE_SIZE),
    ),
];

fn contiguous_ex(w: &mut World, bytes: u64, boundary: u64) -> Outcome {
    let (size, base) = (w.word(bytes), w.space(8));
    let arguments = [size, 0, u64::MAX, boundary, 0, 4, 0, 1, 0, base];
    w.call("MmAllocateContiguousMemoryEx", &arguments)
}

fn free_contiguous(w: &mut World) -> Outcome {
    let memory = w.value(CONTIGUOUS, &[PAGE_SIZE, 0, u64::MAX, 0, 1]);
    w.call("MmFreeContiguousMemory", &[memory])
}

/// Free two pages of contiguous memory by this size.
fn free_specify_cache(w: &mut World, bytes: u64) -> Outcome {
    let memory = w.value(CONTIGUOUS, &[2 * PAGE_SIZE, 0, u64::MAX, 0, 1]);
    w.call("MmFreeContiguousMemorySpecifyCache", &[memory, bytes, 1])
}

fn unmap_io_space(w: &mut World, offset: u64, bytes: u64) -> Outcome {
    let at = w.value("MmMapIoSpace", &[0xc000_0000, PAGE_SIZE, 0]);
    w.call("MmUnmapIoSpace", &[at + offset, bytes])
}
