//! MDLs that the device reaches.

use super::Case;
use super::world::World;
use crate::Outcome;
use crate::mm::Mdl;
use memory::{Gva, PAGE_SIZE};

const BUILD: &str = "MmBuildMdlForNonPagedPool";
const LOCK: &str = "MmProbeAndLockPages";
const PART: &str = "IoBuildPartialMdl";
const REWRITTEN: &str = "mdl-rewritten-while-device-mapped";
/// Offset of StartVa of an MDL.
const START: u64 = 0x20;

pub const CASES: &[Case] = &[
    (
        REWRITTEN,
        |w| {
            let mdl = pinned(w);
            w.call("MmAdvanceMdl", &[mdl, 16])
        },
        |w| {
            let mdl = pinned(w);
            w.call("MmAdvanceMdl", &[mdl, 0])
        },
    ),
    (
        REWRITTEN,
        |w| {
            let mdl = pinned(w);
            let other = w.pool();
            w.put(mdl + START, other);
            w.call(BUILD, &[mdl])
        },
        |w| {
            let mdl = w.pool_mdl();
            w.value(BUILD, &[mdl]);
            pin(w, mdl);
            w.call(BUILD, &[mdl])
        },
    ),
    (
        REWRITTEN,
        |w| {
            let mdl = pinned(w);
            w.set_flags(mdl, 0);
            w.call(LOCK, &[mdl, 0, 1])
        },
        |w| {
            let mdl = pinned(w);
            w.windows.mm.unpin_for_device(Gva(mdl));
            w.set_flags(mdl, 0);
            w.call(LOCK, &[mdl, 0, 1])
        },
    ),
    (
        REWRITTEN,
        |w| part_twice(w, PAGE_SIZE),
        |w| part_twice(w, 0),
    ),
    (
        "mdl-device-mapped",
        |w| {
            let mdl = pinned(w);
            w.call("IoFreeMdl", &[mdl])
        },
        |w| {
            let mdl = pinned(w);
            w.windows.mm.unpin_for_device(Gva(mdl));
            w.call("IoFreeMdl", &[mdl])
        },
    ),
];

/// A partial MDL that the device reaches is built again, that many bytes
/// further on.
fn part_twice(w: &mut World, further: u64) -> Outcome {
    let (source, start, target) = w.source_and_target();
    w.value(PART, &[source, target, start, PAGE_SIZE]);
    pin(w, target);
    w.call(PART, &[source, target, start + further, PAGE_SIZE])
}

/// An MDL for pool that the device reaches.
fn pinned(w: &mut World) -> u64 {
    let mdl = w.locked();
    pin(w, mdl);
    mdl
}

fn pin(w: &mut World, mdl: u64) {
    let read = Mdl::read(&w.machine, Gva(mdl)).unwrap();
    let frames = read.frames(&w.machine).unwrap();
    w.windows.mm.pin_for_device(Gva(mdl), &frames);
}
