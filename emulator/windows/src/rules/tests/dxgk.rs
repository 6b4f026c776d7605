use super::Case;
use super::world::{ADAPTER, World};
use crate::Outcome;
use crate::dxgk::spec::{self, initialization as slot};
use memory::PAGE_SIZE;

const PAGES: &str = "DxgkCbAllocatePagesForMdl";
const CONTIGUOUS: &str = "DxgkCbAllocateContiguousMemory";
const MAP_MDL: &str = "DxgkCbMapMdlToIoMmu";
const UNMAP_MDL: &str = "DxgkCbUnmapMdlFromIoMmu";
const PIN: &str = "DxgkCbPinFrameBufferForSave";
const UNPIN: &str = "DxgkCbUnpinFrameBufferForSave";
const VIEW: &str = "DxgkCbMapFrameBufferPointer";

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
        "memory-handle-adapter",
        |w| {
            let (argument, _) = w.dxgk_pages();
            w.call("DxgkCbFreePagesFromMdl", &[ADAPTER + 8, argument])
        },
        |w| {
            let (argument, _) = w.dxgk_pages();
            w.call("DxgkCbFreePagesFromMdl", &[ADAPTER, argument])
        },
    ),
    (
        "handle-freed-while-locked",
        |w| free_locked(w, true, false),
        |w| free_locked(w, true, true),
    ),
    (
        "handle-freed-while-locked",
        |w| free_locked(w, false, false),
        |w| free_locked(w, false, true),
    ),
    (
        "handle-freed-while-locked",
        |w| unpin_locked(w, false),
        |w| unpin_locked(w, true),
    ),
    (
        "mdl-rewritten-while-device-mapped",
        |w| {
            let argument = w.mdl_argument();
            w.value(MAP_MDL, &[ADAPTER, argument]);
            let (mdl, handle) = (w.get(argument), w.get(argument + 8));
            w.put(mdl + 0x30, 2);
            let argument = w.word(handle);
            w.call(UNMAP_MDL, &[ADAPTER, argument])
        },
        |w| {
            let argument = w.mapped_mdl();
            w.call(UNMAP_MDL, &[ADAPTER, argument])
        },
    ),
    (
        "mdl-populated",
        |w| {
            let (argument, mdl) = (w.space(16), w.pool_mdl());
            w.put(argument, mdl);
            w.call(MAP_MDL, &[ADAPTER, argument])
        },
        |w| {
            let argument = w.mdl_argument();
            w.call(MAP_MDL, &[ADAPTER, argument])
        },
    ),
    ("mdl-pages-owned", |w| map_slot(w, 900), |w| map_slot(w, 2)),
    ("mdl-tables", |w| map_isolated(w, 0), |w| map_isolated(w, 3)),
    (
        "unmap-handle",
        |w| {
            let (argument, _) = w.dxgk_pages();
            w.call(UNMAP_MDL, &[ADAPTER, argument])
        },
        |w| {
            let argument = w.mapped_mdl();
            w.call(UNMAP_MDL, &[ADAPTER, argument])
        },
    ),
    (
        "unmap-handle-twice",
        |w| {
            let argument = w.mapped_mdl();
            w.value(UNMAP_MDL, &[ADAPTER, argument]);
            w.call(UNMAP_MDL, &[ADAPTER, argument])
        },
        |w| {
            let argument = w.mapped_mdl();
            w.call(UNMAP_MDL, &[ADAPTER, argument])
        },
    ),
    (
        "save-adapter",
        |w| {
            let argument = w.pin_argument(PAGE_SIZE);
            w.windows.dxgk.section = None;
            w.call(PIN, &[ADAPTER, argument])
        },
        |w| pin(w, PAGE_SIZE),
    ),
    (
        "save-size",
        |w| pin(w, 41 * PAGE_SIZE),
        |w| pin(w, 40 * PAGE_SIZE),
    ),
    (
        "save-in-use",
        |w| {
            w.pinned();
            let argument = w.space(0x20);
            w.put(argument + 8, PAGE_SIZE);
            w.call(VIEW, &[ADAPTER, argument])
        },
        |w| {
            let argument = w.pinned();
            w.value(UNPIN, &[ADAPTER, argument]);
            let argument = w.space(0x20);
            w.put(argument + 8, PAGE_SIZE);
            w.call(VIEW, &[ADAPTER, argument])
        },
    ),
    (
        "save-pin",
        |w| {
            w.windows.dxgk.pin_succeeds = false;
            pin(w, PAGE_SIZE)
        },
        |w| pin(w, PAGE_SIZE),
    ),
    (
        "save-map",
        |w| {
            w.leave_frames(1);
            view(w, 2 * PAGE_SIZE)
        },
        |w| {
            w.leave_frames(2);
            view(w, 2 * PAGE_SIZE)
        },
    ),
    (
        "save-no-page",
        |w| {
            w.leave_frames(0);
            view(w, PAGE_SIZE)
        },
        |w| {
            w.leave_frames(1);
            view(w, PAGE_SIZE)
        },
    ),
    (
        "save-release",
        |w| {
            let argument = w.pinned();
            w.value(UNPIN, &[ADAPTER, argument]);
            w.call(UNPIN, &[ADAPTER, argument])
        },
        |w| {
            let argument = w.pinned();
            w.call(UNPIN, &[ADAPTER, argument])
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

fn pin(w: &mut World, bytes: u64) -> Outcome {
    let argument = w.pin_argument(bytes);
    w.call(PIN, &[ADAPTER, argument])
}

fn view(w: &mut World, bytes: u64) -> Outcome {
    let argument = w.view_argument(bytes, 0);
    w.call(VIEW, &[ADAPTER, argument])
}

/// Map an MDL whose one page is `page`.
fn map_slot(w: &mut World, page: u64) -> Outcome {
    let (argument, mdl) = (w.space(16), w.pool_mdl());
    w.set_flags(mdl, 2); // MDL_PAGES_LOCKED
    w.put(mdl + 0x30, page);
    w.put(argument, mdl);
    w.call(MAP_MDL, &[ADAPTER, argument])
}

/// Map an MDL for an isolated device, with this many frames for its tables.
fn map_isolated(w: &mut World, frames: u64) -> Outcome {
    crate::dxgk::domain::attach(&mut w.windows, &mut w.machine).unwrap();
    let argument = w.mdl_argument();
    w.leave_frames(frames);
    w.call(MAP_MDL, &[ADAPTER, argument])
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

/// Lock a page by its address, or do so and unlock it again.
fn lock(w: &mut World, address: u64, unlock: bool) {
    let mdl = w.value("IoAllocateMdl", &[address, PAGE_SIZE, 0, 0, 0]);
    w.value("MmProbeAndLockPages", &[mdl, 0, 1]);
    if unlock {
        w.value("MmUnlockPages", &[mdl]);
    }
}

fn free_locked(w: &mut World, contiguous: bool, unlock: bool) -> Outcome {
    if contiguous {
        let (argument, address) = w.dxgk_contiguous();
        lock(w, address, unlock);
        return w.call("DxgkCbFreeContiguousMemory", &[ADAPTER, argument]);
    }
    let (argument, mdl) = w.dxgk_pages();
    let Outcome::Return(address) = w.map(mdl) else {
        panic!("the MDL is not mapped");
    };
    lock(w, address, unlock);
    w.call("DxgkCbFreePagesFromMdl", &[ADAPTER, argument])
}

fn unpin_locked(w: &mut World, unlock: bool) -> Outcome {
    let argument = w.pin_argument(PAGE_SIZE);
    w.value(PIN, &[ADAPTER, argument]);
    let mdl = w.get(argument + 0x10);
    let Outcome::Return(address) = w.map(mdl) else {
        panic!("the MDL is not mapped");
    };
    lock(w, address, unlock);
    let argument = w.word(0);
    w.call(UNPIN, &[ADAPTER, argument])
}
