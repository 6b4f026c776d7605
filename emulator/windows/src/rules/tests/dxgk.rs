use super::Case;
use super::world::{ADAPTER, World};
use crate::Outcome;
use crate::dxgk::spec::{self, initialization as slot};
use memory::PAGE_SIZE;

const PAGES: &str = "DxgkCbAllocatePagesForMdl";
const CONTIGUOUS: &str = "DxgkCbAllocateContiguousMemory";

pub const CASES: &[Case] = &[
    (
        "adapter-handle",
        |w| allocate(w, ADAPTER + 8, PAGE_SIZE),
        |w| allocate(w, ADAPTER, PAGE_SIZE),
    ),
    (
        "callback-size",
        |w| allocate(w, ADAPTER, 0),
        |w| allocate(w, ADAPTER, 1),
    ),
    (
        "callback-boundary",
        |w| contiguous(w, 3 * PAGE_SIZE),
        |w| contiguous(w, 4 * PAGE_SIZE),
    ),
    (
        "callback-no-partial",
        |w| {
            let free = w.windows.mm.stats().free_frames;
            allocate(w, ADAPTER, (free + 1) * PAGE_SIZE)
        },
        |w| {
            let free = w.windows.mm.stats().free_frames;
            allocate(w, ADAPTER, (free - 8) * PAGE_SIZE)
        },
    ),
    (
        "memory-handle-twice",
        |w| {
            let (argument, _) = w.dxgk_pages();
            w.value("DxgkCbFreePagesFromMdl", &[ADAPTER, argument]);
            w.call("DxgkCbFreePagesFromMdl", &[ADAPTER, argument])
        },
        |w| {
            let (argument, _) = w.dxgk_pages();
            w.call("DxgkCbFreePagesFromMdl", &[ADAPTER, argument])
        },
    ),
    (
        "memory-handle",
        |w| {
            let (argument, _) = w.dxgk_pages();
            w.call("DxgkCbFreeContiguousMemory", &[ADAPTER, argument])
        },
        |w| {
            let (argument, _) = w.dxgk_pages();
            w.call("DxgkCbFreePagesFromMdl", &[ADAPTER, argument])
        },
    ),
    (
        "device-range",
        |w| map_memory(w, 0x4001),
        |w| map_memory(w, 0x4000),
    ),
    (
        "device-mapping",
        |w| {
            let at = mapped(w);
            w.value("DxgkCbUnmapMemory", &[ADAPTER, at]);
            w.call("DxgkCbUnmapMemory", &[ADAPTER, at])
        },
        |w| {
            let at = mapped(w);
            w.call("DxgkCbUnmapMemory", &[ADAPTER, at])
        },
    ),
    (
        "device-space",
        |w| read_space(w, 4093),
        |w| read_space(w, 252),
    ),
    (
        "initialization-table",
        |w| register(w, 0),
        |w| register(w, 0x1000),
    ),
];

fn allocate(w: &mut World, adapter: u64, bytes: u64) -> Outcome {
    let argument = w.pages_argument(bytes);
    w.call(PAGES, &[adapter, argument])
}

fn contiguous(w: &mut World, boundary: u64) -> Outcome {
    let argument = w.contiguous_argument(PAGE_SIZE, boundary);
    w.call(CONTIGUOUS, &[ADAPTER, argument])
}

fn map_memory(w: &mut World, length: u64) -> Outcome {
    let (bar, result) = (w.bar(), w.space(8));
    w.call("DxgkCbMapMemory", &[ADAPTER, bar, length, 0, 0, 0, result])
}

fn mapped(w: &mut World) -> u64 {
    let (bar, result) = (w.bar(), w.space(8));
    w.value("DxgkCbMapMemory", &[ADAPTER, bar, 0x1000, 0, 0, 0, result]);
    w.get(result)
}

fn read_space(w: &mut World, offset: u64) -> Outcome {
    let (buffer, counted) = (w.space(8), w.space(8));
    w.call(
        "DxgkCbReadDeviceSpace",
        &[ADAPTER, 0, buffer, offset, 4, counted],
    )
}

/// Register with this QueryAdapterInfo.
fn register(w: &mut World, query: u64) -> Outcome {
    let table = w.space(0x480);
    w.put(table + slot::VERSION, u64::from(spec::VERSION_WDDM_2_4));
    for offset in [
        slot::ADD_DEVICE,
        slot::START_DEVICE,
        slot::STOP_DEVICE,
        slot::REMOVE_DEVICE,
    ] {
        w.put(table + offset, 0x1000);
    }
    w.put(table + slot::QUERY_ADAPTER_INFO, query);
    w.call("DxgkInitialize", &[1, 1, table])
}
