//! Random calls of the driver's against a small model of the documents.

use super::*;
use crate::mm::Frame;
use crate::mm::testing::invoke;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Allocate(u64),
    Contiguous(u64),
    Map {
        write: bool,
    },
    /// Give the n-th handle that was ever given back to its own routine.
    Free(usize),
    /// And to another one.
    FreeWrongly(usize),
    /// Pages straight from Mm, which the device never reaches.
    Raw,
    Attach,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..6).prop_map(Step::Allocate),
        2 => (1u64..6).prop_map(Step::Contiguous),
        2 => any::<bool>().prop_map(|write| Step::Map { write }),
        6 => any::<usize>().prop_map(Step::Free),
        2 => any::<usize>().prop_map(Step::FreeWrongly),
        1 => Just(Step::Raw),
        1 => Just(Step::Attach),
    ]
}

/// A handle as the model knows it.
struct Held {
    handle: u64,
    routine: &'static str,
    frames: Vec<Pfn>,
    write: bool,
    live: bool,
}

const UNMAP: &str = "DxgkCbUnmapMdlFromIoMmu";

/// A live handle's new frames: those of its row in the adapter's own books.
fn newest(windows: &Windows) -> (u64, Vec<Pfn>, bool) {
    let (&handle, tracked) = windows.dxgk.tracked.last_key_value().unwrap();
    (handle, tracked.frames.clone(), tracked.write)
}

fn new_allocation(
    windows: &mut Windows,
    machine: &mut TestMachine,
    step: &Step,
) -> Option<&'static str> {
    match *step {
        Step::Allocate(count) => {
            let status = returned(allocate(windows, machine, count * PAGE_SIZE));
            (status == 0).then_some(FREE_PAGES)
        }
        Step::Contiguous(count) => {
            put(machine, contiguous::BYTES, count * PAGE_SIZE);
            put(machine, contiguous::LOWEST, 0);
            put(machine, contiguous::HIGHEST, u64::MAX);
            put(machine, contiguous::BOUNDARY, 0);
            let name = "DxgkCbAllocateContiguousMemory";
            (returned(call(windows, machine, name)) == 0).then_some(FREE_CONTIGUOUS)
        }
        Step::Map { write } => {
            let mut mm = |name: &str, arguments: &[u64]| {
                returned(invoke(&mut windows.mm, machine, name, arguments))
            };
            let block = mm("ExAllocatePool2", &[0x40, PAGE_SIZE, 1]);
            let mdl = mm("IoAllocateMdl", &[block, PAGE_SIZE, 0, 0, 0]);
            if block == 0 || mdl == 0 {
                return None;
            }
            mm("MmProbeAndLockPages", &[mdl, 0, u64::from(write)]);
            put(machine, 0, mdl);
            let status = returned(call(windows, machine, "DxgkCbMapMdlToIoMmu"));
            (status == 0).then_some(UNMAP)
        }
        Step::Raw => {
            let arguments = [0, u64::MAX, 0, PAGE_SIZE];
            let name = "MmAllocatePagesForMdl";
            returned(invoke(&mut windows.mm, machine, name, &arguments));
            None
        }
        _ => None,
    }
}

fn check(windows: &Windows, machine: &TestMachine, held: &[Held], attached: bool) {
    for frame in (0..crate::mm::testing::RAM).map(Pfn) {
        let live = held.iter().filter(|h| h.live && h.frames.contains(&frame));
        let owners: Vec<&Held> = live.collect();
        let mapped = windows
            .dxgk
            .domain
            .is_some_and(|domain| windows.hal.is_mapped(domain, frame));
        // What the documents promise: mapped if and only if it was given.
        assert_eq!(mapped, attached && !owners.is_empty(), "{frame:?}");
        let free = matches!(
            windows.mm.frame(frame),
            Some(Frame::Free | Frame::Quarantined)
        );
        assert!(!(free && mapped), "{frame:?} is free and mapped");
        if attached {
            assert_eq!(machine.device_reads(frame), mapped, "{frame:?}");
            let write = owners.iter().any(|owner| owner.write);
            assert_eq!(machine.device_writes(frame), write, "{frame:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_page_is_free_and_mapped_and_handles_die_once(steps in prop::collection::vec(step(), 1..40)) {
        let (mut windows, mut machine) = adapter(DomainMode::Isolation);
        let mut held: Vec<Held> = Vec::new();
        let mut attached = false;
        for step in steps {
            match step {
                Step::Attach if !attached => {
                    domain::attach(&mut windows, &mut machine).unwrap();
                    attached = true;
                }
                Step::Free(which) if !held.is_empty() => {
                    let index = which % held.len();
                    let Held { handle, routine, live, .. } = held[index];
                    let status = free(&mut windows, &mut machine, routine, handle);
                    let refused = u64::from(status::INVALID_HANDLE);
                    let wanted = if live || routine == UNMAP { 0 } else { refused };
                    prop_assert_eq!(status, wanted);
                    held[index].live = false;
                }
                Step::FreeWrongly(which) if !held.is_empty() => {
                    let Held { handle, routine, .. } = held[which % held.len()];
                    let other = if routine == FREE_PAGES { FREE_CONTIGUOUS } else { FREE_PAGES };
                    let status = free(&mut windows, &mut machine, other, handle);
                    prop_assert_eq!(status, u64::from(status::INVALID_HANDLE));
                }
                other => {
                    if let Some(routine) = new_allocation(&mut windows, &mut machine, &other) {
                        let (handle, frames, write) = newest(&windows);
                        prop_assert!(held.iter().all(|h| h.handle != handle));
                        held.push(Held { handle, routine, frames, write, live: true });
                    }
                }
            }
        }
        check(&windows, &machine, &held, attached);
        let live = held.iter().filter(|h| h.live).count();
        prop_assert_eq!(windows.dxgk.live_allocations(), live);
    }
}
