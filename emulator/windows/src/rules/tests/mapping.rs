use super::Case;
use super::world::World;
use crate::Outcome;
use crate::mm::testing::FIRST;
use memory::PAGE_SIZE;

const FREE: &str = "MmFreePagesFromMdl";
const UNMAP: &str = "MmUnmapLockedPages";
/// Offset of StartVa and of the first slot of an MDL.
const START: u64 = 0x20;
const SLOT: u64 = 0x30;
/// MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, MDL_PARTIAL.
const MAPPED: u16 = 1;
const LOCKED: u16 = 2;
const PARTIAL: u16 = 0x10;

pub const CASES: &[Case] = &[
    (
        "map-mdl-user-raises",
        |w| {
            let mdl = w.pages(1);
            w.call("MmMapLockedPagesSpecifyCache", &[mdl, 1, 1, 0x10000, 0, 16])
        },
        |w| {
            let mdl = w.pages(1);
            w.call("MmMapLockedPagesSpecifyCache", &[mdl, 1, 1, 0, 0, 16])
        },
    ),
    (
        "unmap-user-address",
        |w| {
            let (mdl, address) = w.user_mapped();
            w.call(UNMAP, &[address + PAGE_SIZE, mdl])
        },
        |w| {
            let (mdl, address) = w.user_mapped();
            w.call(UNMAP, &[address, mdl])
        },
    ),
    (
        "mdl-mapped-twice",
        |w| {
            let (mdl, _) = w.mapped();
            w.map(mdl)
        },
        |w| {
            let (mdl, address) = w.mapped();
            w.value(UNMAP, &[address, mdl]);
            w.map(mdl)
        },
    ),
    (
        "mdl-mapped-unlocked",
        |w| {
            let mdl = w.pool_mdl();
            w.map(mdl)
        },
        |w| {
            let mdl = w.locked();
            w.map(mdl)
        },
    ),
    (
        "mdl-mapped-free-page",
        |w| {
            let mdl = w.pages(1);
            let page = w.get(mdl + SLOT);
            w.value(FREE, &[mdl]);
            w.put(mdl + SLOT, page);
            w.set_flags(mdl, LOCKED);
            w.map(mdl)
        },
        map,
    ),
    (
        "map-mdl-bug-check",
        |w| map_without_tables(w, 1),
        |w| map_without_tables(w, 0),
    ),
    ("map-mdl-null", |w| map_without_tables(w, 0), map),
    (
        "unmap-partial-mdl",
        |w| {
            let (mdl, address) = w.mapped();
            w.set_flags(mdl, MAPPED | LOCKED | PARTIAL);
            w.call(UNMAP, &[address, mdl])
        },
        unmap,
    ),
    (
        "unmap-unmapped-mdl",
        |w| {
            let (mdl, address) = w.mapped();
            w.value(UNMAP, &[address, mdl]);
            w.call(UNMAP, &[address, mdl])
        },
        unmap,
    ),
    (
        "unmap-unknown-mdl",
        |w| {
            let (_, address) = w.mapped();
            let other = w.pages(1);
            w.set_flags(other, MAPPED | LOCKED);
            w.call(UNMAP, &[address, other])
        },
        unmap,
    ),
    (
        "unmap-wrong-address",
        |w| {
            let (mdl, address) = w.mapped();
            w.call(UNMAP, &[address + 8, mdl])
        },
        unmap,
    ),
    (
        "unmap-changed-start",
        |w| {
            let (mdl, address) = w.mapped();
            w.put(mdl + START, PAGE_SIZE);
            w.call(UNMAP, &[address, mdl])
        },
        unmap,
    ),
    (
        "unmap-changed-page",
        |w| {
            let (mdl, address) = w.mapped();
            let page = w.get(mdl + SLOT);
            w.put(mdl + SLOT, page + 1);
            w.call(UNMAP, &[address, mdl])
        },
        unmap,
    ),
    (
        "mdl-protection",
        |w| {
            let (mdl, _) = w.mapped();
            w.call("MmProtectMdlSystemAddress", &[mdl, 6])
        },
        protect,
    ),
    (
        "mdl-protect-unmapped",
        |w| {
            let (mdl, address) = w.mapped();
            w.value(UNMAP, &[address, mdl]);
            w.call("MmProtectMdlSystemAddress", &[mdl, 2])
        },
        protect,
    ),
    (
        "mdl-protect-page",
        |w| {
            let (mdl, _) = w.mapped();
            w.put(mdl + SLOT, FIRST + 500);
            w.call("MmProtectMdlSystemAddress", &[mdl, 2])
        },
        protect,
    ),
];

fn map(w: &mut World) -> Outcome {
    let mdl = w.pages(1);
    w.map(mdl)
}

fn unmap(w: &mut World) -> Outcome {
    let (mdl, address) = w.mapped();
    w.call(UNMAP, &[address, mdl])
}

fn map_without_tables(w: &mut World, bug_check: u64) -> Outcome {
    let mdl = w.pages(1);
    w.machine.mappings_left = 0;
    w.call(
        "MmMapLockedPagesSpecifyCache",
        &[mdl, 0, 1, 0, bug_check, 16],
    )
}

fn protect(w: &mut World) -> Outcome {
    let (mdl, _) = w.mapped();
    w.call("MmProtectMdlSystemAddress", &[mdl, 2])
}
