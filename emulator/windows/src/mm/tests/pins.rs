use crate::mm::State;
use crate::mm::testing::{TestMachine, invoke, returned, state};
use crate::platform::Platform;
use journal::event::{AllocationId, Event};
use memory::{Gva, PAGE_SIZE, Pfn};

/// A block of pool, an MDL for it that is locked, and its frame.
fn locked_pool(state: &mut State, machine: &mut TestMachine) -> (u64, u64, Pfn) {
    let block = returned(invoke(
        state,
        machine,
        "ExAllocatePool2",
        &[0x40, PAGE_SIZE, 1],
    ));
    let mdl = returned(invoke(
        state,
        machine,
        "IoAllocateMdl",
        &[block, PAGE_SIZE, 0, 0, 0],
    ));
    returned(invoke(state, machine, "MmProbeAndLockPages", &[mdl, 0, 1]));
    let frame = Pfn::from(machine.translate(Gva(block)).unwrap());
    (block, mdl, frame)
}

/// Allocation and address of each breach.
fn breaches(machine: &TestMachine) -> Vec<(Option<AllocationId>, u64)> {
    let subjects = machine
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Breach(breach) => Some((breach.subject.allocation, breach.subject.address)),
            _ => None,
        });
    subjects.collect()
}

#[test]
fn each_free_of_what_the_device_reaches_is_told() {
    for name in ["ExFreePool", "IoFreeMdl", "MmUnlockPages"] {
        let (mut state, mut machine) = (state(), TestMachine::new());
        let (block, mdl, frame) = locked_pool(&mut state, &mut machine);
        let id = state.pool_block(Gva(block)).unwrap().id;
        state.pin_for_device(Gva(mdl), &[frame]);
        let argument = if name == "ExFreePool" { block } else { mdl };
        returned(invoke(&mut state, &mut machine, name, &[argument]));
        assert_eq!(breaches(&machine), [(Some(id), mdl)], "{name}");
    }
}

#[test]
fn an_unlock_through_another_mdl_is_not_told() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let (block, first, frame) = locked_pool(&mut state, &mut machine);
    let arguments = [block, PAGE_SIZE, 0, 0, 0];
    let second = returned(invoke(
        &mut state,
        &mut machine,
        "IoAllocateMdl",
        &arguments,
    ));
    for name in ["MmProbeAndLockPages", "MmUnlockPages"] {
        state.pin_for_device(Gva(first), &[frame]);
        returned(invoke(&mut state, &mut machine, name, &[second, 0, 1]));
    }
    assert_eq!(breaches(&machine), []);
}

#[test]
fn an_mdl_pinned_twice_is_pinned_until_both_end() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let (block, mdl, frame) = locked_pool(&mut state, &mut machine);
    state.pin_for_device(Gva(mdl), &[frame]);
    state.pin_for_device(Gva(mdl), &[frame]);
    state.unpin_for_device(Gva(mdl));
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[block]));
    assert_eq!(breaches(&machine).len(), 1);
}

#[test]
fn what_the_device_reaches_no_more_is_freed_in_silence() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let (block, mdl, frame) = locked_pool(&mut state, &mut machine);
    state.pin_for_device(Gva(mdl), &[frame]);
    state.unpin_for_device(Gva(mdl));
    returned(invoke(&mut state, &mut machine, "MmUnlockPages", &[mdl]));
    returned(invoke(&mut state, &mut machine, "IoFreeMdl", &[mdl]));
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[block]));
    assert_eq!(breaches(&machine), []);
}
