use crate::mm::testing::{
    FIRST, TestMachine, invoke, invoke_at, returned, state, state_with_quarantine, stopped,
};
use crate::mm::{
    ALLOCATE_FULLY_REQUIRED, AllocFailure, ContiguousRequest, Frame, Mdl, POISON, PageRequest,
    State,
};
use crate::platform::Platform;
use journal::event::{AllocationKind, Event};
use memory::{Gva, PAGE_SIZE, Pfn};

fn request(pages: u64) -> PageRequest {
    PageRequest {
        low: 0,
        high: u64::MAX,
        skip: 0,
        bytes: pages * PAGE_SIZE,
        flags: ALLOCATE_FULLY_REQUIRED,
        kind: AllocationKind::DxgkMdl,
        handle: 7,
    }
}

fn free_pages(state: &mut State, machine: &mut TestMachine, mdl: u64) -> crate::Outcome {
    invoke(state, machine, "MmFreePagesFromMdl", &[mdl])
}

fn allocate_pages(state: &mut State, machine: &mut TestMachine, bytes: u64) -> u64 {
    let arguments = [0, u64::MAX, 0, bytes];
    returned(invoke(state, machine, "MmAllocatePagesForMdl", &arguments))
}

#[test]
fn the_mdl_describes_zeroed_locked_pages() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    machine
        .memory()
        .fill(Pfn(FIRST).base(), PAGE_SIZE, 0xaa)
        .unwrap();
    let made = state
        .allocate_pages_for_mdl(&mut machine, &request(3))
        .unwrap();
    let mdl = Mdl::read(&machine, made.mdl).unwrap();
    assert_eq!((mdl.flags, mdl.byte_count, mdl.start_va), (2, 0x3000, 0));
    assert_eq!(mdl.frames(&machine).unwrap(), made.frames);
    assert_eq!(made.frames, [Pfn(FIRST), Pfn(FIRST + 1), Pfn(FIRST + 2)]);
    assert_eq!(machine.memory().read_u64(Pfn(FIRST).base()).unwrap(), 0);
}

#[test]
fn the_event_carries_the_handle_of_the_caller() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let made = state
        .allocate_pages_for_mdl(&mut machine, &request(1))
        .unwrap();
    let told = machine.events().into_iter().any(|event| {
        matches!(event, Event::Allocate(a) if a.id == made.id
            && a.handle == 7 && a.kind == AllocationKind::DxgkMdl && a.address == made.mdl.0)
    });
    assert!(told);
}

#[test]
fn released_pages_are_poisoned_and_held_back() {
    let (mut state, mut machine) = (state_with_quarantine(8), TestMachine::new());
    let made = state
        .allocate_pages_for_mdl(&mut machine, &request(2))
        .unwrap();
    state.release_pages(&mut machine, made.id);
    let frame = made.frames[0];
    assert_eq!(state.frame(frame), Some(Frame::Quarantined));
    assert_eq!(machine.memory().read_u64(frame.base()).unwrap(), POISON);
    assert_eq!(state.free_mdl_structure(&mut machine, made.mdl), None);
    assert_eq!(state.stats().live, []);
}

#[test]
fn an_mdl_structure_that_the_driver_freed_is_a_double_free() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let made = state
        .allocate_pages_for_mdl(&mut machine, &request(1))
        .unwrap();
    returned(invoke(
        &mut state,
        &mut machine,
        "ExFreePool",
        &[made.mdl.0],
    ));
    state.release_pages(&mut machine, made.id);
    let stop = state.free_mdl_structure(&mut machine, made.mdl).unwrap();
    assert_eq!(stop.parameters, [0x07, 0, 0, made.mdl.0]);
}

#[test]
fn bad_requests_fail_and_change_nothing() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let before = state.stats();
    let good = request(1);
    let rows = [
        PageRequest { bytes: 0, ..good },
        PageRequest {
            bytes: 1 << 32,
            ..good
        },
        PageRequest { skip: 1, ..good },
        PageRequest {
            low: 0x1000,
            high: 0x1ffe,
            ..good
        },
        PageRequest {
            flags: 0x40,
            ..good
        },
        request(5000),
    ];
    for row in rows {
        assert!(
            state.allocate_pages_for_mdl(&mut machine, &row).is_err(),
            "{row:?}"
        );
    }
    assert_eq!(state.stats(), before);
}

#[test]
fn a_partial_request_gives_a_shorter_mdl() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let high = (FIRST + 2) * PAGE_SIZE - 1;
    let arguments = [0, high, 0, 5 * PAGE_SIZE];
    let mdl = returned(invoke(
        &mut state,
        &mut machine,
        "MmAllocatePagesForMdl",
        &arguments,
    ));
    assert_eq!(Mdl::read(&machine, Gva(mdl)).unwrap().byte_count, 0x2000);
}

#[test]
fn skip_slides_the_range() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mut wanted = request(4);
    wanted.low = FIRST * PAGE_SIZE;
    wanted.high = wanted.low + 2 * PAGE_SIZE - 1;
    wanted.skip = 8 * PAGE_SIZE;
    let made = state.allocate_pages_for_mdl(&mut machine, &wanted).unwrap();
    let expected = [0, 1, 8, 9].map(|offset| Pfn(FIRST + offset));
    assert_eq!(made.frames, expected);
}

#[test]
fn contiguous_chunks_are_aligned_to_skip() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mut wanted = request(8);
    wanted.flags |= 0x20;
    wanted.skip = 4 * PAGE_SIZE;
    wanted.low = (FIRST + 1) * PAGE_SIZE;
    let made = state.allocate_pages_for_mdl(&mut machine, &wanted).unwrap();
    assert_eq!(made.frames[0], Pfn(FIRST + 4));
    assert_eq!(made.frames.len(), 8);
}

#[test]
fn a_healthy_cycle_of_the_mm_family_leaves_nothing() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate_pages(&mut state, &mut machine, 3 * PAGE_SIZE);
    returned(free_pages(&mut state, &mut machine, mdl));
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[mdl]));
    assert_eq!(state.stats().live, []);
    assert_eq!(machine.tables.len(), 1);
}

#[test]
fn a_second_free_of_the_same_mdl_stops() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate_pages(&mut state, &mut machine, PAGE_SIZE);
    returned(free_pages(&mut state, &mut machine, mdl));
    let stop = stopped(free_pages(&mut state, &mut machine, mdl));
    assert_eq!(stop.code, 0x1a);
    assert_eq!(stop.parameters, [0x1236, mdl, mdl + 0x30, u64::MAX]);
}

#[test]
fn a_changed_slot_stops_and_frees_nothing() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate_pages(&mut state, &mut machine, 2 * PAGE_SIZE);
    machine.write_u64(Gva(mdl + 0x38), 3).unwrap();
    let stop = stopped(free_pages(&mut state, &mut machine, mdl));
    assert_eq!(stop.parameters, [0x1236, mdl, mdl + 0x38, 3]);
    assert!(state.record_at(Gva(mdl)).is_some());
}

#[test]
fn pages_of_dxgkrnl_are_not_freed_by_mm() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let made = state
        .allocate_pages_for_mdl(&mut machine, &request(1))
        .unwrap();
    let stop = stopped(free_pages(&mut state, &mut machine, made.mdl.0));
    assert_eq!((stop.code, stop.parameters[0]), (0x1a, 0x1236));
    assert!(state.record(made.id).is_some());
}

#[test]
fn an_mdl_freed_too_early_is_a_page_fault_of_windows() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate_pages(&mut state, &mut machine, PAGE_SIZE);
    let (id, _) = state.record_at(Gva(mdl)).unwrap();
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[mdl]));
    let stop = stopped(free_pages(&mut state, &mut machine, mdl));
    assert_eq!((stop.code, stop.rule), (0xcc, Some("mdl-freed")));
    assert_eq!(stop.subject.allocation, Some(id));
}

#[test]
fn an_irql_above_dispatch_stops() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let name = "MmAllocatePagesForMdl";
    let stop = stopped(invoke_at(
        &mut state,
        &mut machine,
        5,
        name,
        &[0, u64::MAX, 0, 4096],
    ));
    assert_eq!((stop.code, stop.parameters), (0xc4, [0x7e, 5, 2, 0]));
}

#[test]
fn contiguous_memory_is_mapped_and_comes_back() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let name = "MmAllocateContiguousMemory";
    let at = returned(invoke(&mut state, &mut machine, name, &[0x2001, u64::MAX]));
    let first = machine.translate(Gva(at)).unwrap();
    assert_eq!(
        machine.translate(Gva(at + 0x2000)).unwrap().0,
        first.0 + 0x2000
    );
    let name = "MmFreeContiguousMemory";
    let stop = stopped(invoke(&mut state, &mut machine, name, &[at + 0x1000]));
    assert_eq!(stop.code, 0x1a);
    returned(invoke(&mut state, &mut machine, name, &[at]));
    assert_eq!(machine.translate(Gva(at)), None);
    assert_eq!(state.stats().live, []);
}

#[test]
fn a_boundary_that_is_no_power_of_two_fails() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let request = ContiguousRequest {
        bytes: PAGE_SIZE,
        lowest: 0,
        highest: u64::MAX,
        boundary: 3 * PAGE_SIZE,
        kind: AllocationKind::MmContiguous,
        handle: 0,
    };
    let failure = state
        .allocate_contiguous(&mut machine, &request)
        .unwrap_err();
    assert!(matches!(failure, AllocFailure::BadArgument { .. }));
}

#[test]
fn system_memory_is_in_no_event_and_comes_back() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let before = state.stats().free_frames;
    let at = state
        .system_memory(&mut machine, 0x6000, crate::Protection::WRITE)
        .unwrap();
    machine.write_u64(Gva(at.0 + 0x5ff8), 1).unwrap();
    state.free_system_memory(&mut machine, at);
    assert_eq!(state.stats().free_frames, before);
    let told = machine.events();
    assert!(!told.iter().any(|event| matches!(event, Event::Allocate(_))));
}
