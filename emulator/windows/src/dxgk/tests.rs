#![allow(clippy::unwrap_used)]

mod life;
mod mdl;
mod model;
mod save;

use super::spec::{allocate_contiguous as contiguous, allocate_pages as pages};
use super::*;
use crate::mm::testing::{DEVICE, TestMachine, returned, state, stopped};
use crate::{Protection, hal};
use ::memory::PAGE_SIZE;

/// Where the test's own argument structures lie.
const ARGUMENT: Gva = Gva(0xffff_f000_0000_0000);
const STACK: Gva = Gva(0xffff_be00_0000_0000);

/// A machine with the IOMMU on and an adapter that is not isolated yet.
fn adapter(mode: DomainMode) -> (Windows, TestMachine) {
    let mut machine = TestMachine::new();
    machine.map(ARGUMENT, Pfn(2), Protection::WRITE).unwrap();
    let mut windows = Windows::new(
        executive::State::new("test", &[]),
        state(),
        hal::State::default(),
        State::new(DEVICE, mode),
        [],
    );
    windows
        .hal
        .init(&mut machine, &mut windows.mm, &[DEVICE])
        .unwrap();
    (windows, machine)
}

fn call(windows: &mut Windows, machine: &mut TestMachine, name: &str) -> Outcome {
    let (_, routine) = CALLBACKS.iter().find(|(n, _)| *n == name).unwrap();
    let call = Call {
        registers: [DEVICE_HANDLE, ARGUMENT.0, 0, 0],
        stack_pointer: STACK,
    };
    routine(windows, machine, &call)
}

fn put(machine: &mut TestMachine, offset: u64, value: u64) {
    machine.write_u64(Gva(ARGUMENT.0 + offset), value).unwrap();
}

/// Allocate pages; the handle.
fn allocate(windows: &mut Windows, machine: &mut TestMachine, bytes: u64) -> Outcome {
    put(machine, pages::LOW, 0);
    put(machine, pages::HIGH, u64::MAX);
    put(machine, pages::SKIP, 0);
    put(machine, pages::BYTES, bytes);
    put(machine, pages::CACHE, 1);
    call(windows, machine, "DxgkCbAllocatePagesForMdl")
}

fn handle(machine: &TestMachine) -> u64 {
    machine.read_u64(Gva(ARGUMENT.0 + pages::HANDLE)).unwrap()
}

fn free(windows: &mut Windows, machine: &mut TestMachine, name: &str, handle: u64) -> u64 {
    put(machine, 0, handle);
    returned(call(windows, machine, name))
}

const FREE_PAGES: &str = "DxgkCbFreePagesFromMdl";
const FREE_CONTIGUOUS: &str = "DxgkCbFreeContiguousMemory";

#[test]
fn isolated_pages_are_reachable_from_their_allocation_to_their_free() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    domain::attach(&mut windows, &mut machine).unwrap();
    assert_eq!(
        returned(allocate(&mut windows, &mut machine, 3 * PAGE_SIZE)),
        0
    );
    let frames = windows.tracked_frames();
    assert_eq!(frames.len(), 3);
    assert!(
        frames
            .iter()
            .all(|&f| machine.device_reads(f) && machine.device_writes(f))
    );
    let next = Pfn(frames[2].0 + 1);
    assert!(
        !machine.device_reads(next),
        "only what was given is reachable"
    );

    let handle = handle(&machine);
    assert_eq!(free(&mut windows, &mut machine, FREE_PAGES, handle), 0);
    assert!(frames.iter().all(|&f| !machine.device_reads(f)));
    assert_eq!(windows.dxgk.live_allocations(), 0);
}

#[test]
fn the_attach_maps_what_was_allocated_before_and_nothing_else() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    allocate(&mut windows, &mut machine, PAGE_SIZE);
    let frames = windows.tracked_frames();
    let other = Pfn(frames[0].0 + 1);
    assert!(
        machine.device_reads(other),
        "not isolated before the attach"
    );
    domain::attach(&mut windows, &mut machine).unwrap();
    assert!(machine.device_reads(frames[0]));
    assert!(!machine.device_reads(other));
}

#[test]
fn passed_through_pages_stay_reachable_after_their_free() {
    let (mut windows, mut machine) = adapter(DomainMode::Passthrough);
    allocate(&mut windows, &mut machine, PAGE_SIZE);
    let frame = windows.tracked_frames()[0];
    let handle = handle(&machine);
    assert_eq!(free(&mut windows, &mut machine, FREE_PAGES, handle), 0);
    assert!(machine.device_reads(frame));
}

#[test]
fn a_handle_frees_once_and_by_its_own_routine() {
    let (mut windows, mut machine) = adapter(DomainMode::Passthrough);
    allocate(&mut windows, &mut machine, PAGE_SIZE);
    let handle = handle(&machine);
    let invalid = u64::from(status::INVALID_HANDLE);
    assert_eq!(
        free(&mut windows, &mut machine, FREE_CONTIGUOUS, handle),
        invalid
    );
    assert_eq!(
        free(&mut windows, &mut machine, FREE_PAGES, handle ^ 8),
        invalid
    );
    assert_eq!(free(&mut windows, &mut machine, FREE_PAGES, handle), 0);
    assert_eq!(
        free(&mut windows, &mut machine, FREE_PAGES, handle),
        invalid
    );
}

#[test]
fn contiguous_memory_is_mapped_for_both_and_goes_back() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    domain::attach(&mut windows, &mut machine).unwrap();
    put(&mut machine, contiguous::BYTES, 2 * PAGE_SIZE);
    put(&mut machine, contiguous::LOWEST, 0);
    put(&mut machine, contiguous::HIGHEST, u64::MAX);
    put(&mut machine, contiguous::BOUNDARY, 0);
    let name = "DxgkCbAllocateContiguousMemory";
    assert_eq!(returned(call(&mut windows, &mut machine, name)), 0);
    let memory = machine
        .read_u64(Gva(ARGUMENT.0 + contiguous::MEMORY))
        .unwrap();
    let handle = machine
        .read_u64(Gva(ARGUMENT.0 + contiguous::HANDLE))
        .unwrap();
    let frames = windows.tracked_frames();
    assert_eq!(frames[1].0, frames[0].0 + 1);
    assert_eq!(machine.translate(Gva(memory)), Some(frames[0].base()));
    assert!(machine.device_writes(frames[1]));
    assert_eq!(free(&mut windows, &mut machine, FREE_CONTIGUOUS, handle), 0);
    assert_eq!(
        machine.translate(Gva(memory)),
        None,
        "the CPU's mapping goes too"
    );
    assert!(!machine.device_reads(frames[0]));
}

#[test]
fn impossible_sizes_are_refused() {
    for (bytes, status) in [
        (0, status::INVALID_PARAMETER),
        (spec::ALLOCATION_LIMIT + 1, status::INVALID_PARAMETER),
        (1 << 30, status::NO_MEMORY), // more than the machine has
    ] {
        let (mut windows, mut machine) = adapter(DomainMode::Passthrough);
        let outcome = allocate(&mut windows, &mut machine, bytes);
        assert_eq!(returned(outcome), u64::from(status), "{bytes}");
        assert_eq!(windows.dxgk.live_allocations(), 0);
    }
}

#[test]
fn a_memory_callback_at_dispatch_level_stops_and_at_apc_level_does_not() {
    for (irql, stops) in [(0, false), (1, false), (2, true), (9, true)] {
        let (mut windows, mut machine) = adapter(DomainMode::Passthrough);
        windows.executive.set_irql(&mut machine, irql).unwrap();
        let outcome = allocate(&mut windows, &mut machine, PAGE_SIZE);
        if stops {
            assert_eq!(stopped(outcome).code, 0x0A);
        } else {
            assert_eq!(returned(outcome), 0, "IRQL {irql}");
        }
    }
}

#[test]
fn an_argument_that_leads_nowhere_is_a_page_fault() {
    let (mut windows, mut machine) = adapter(DomainMode::Passthrough);
    machine.unmap(ARGUMENT);
    let outcome = call(&mut windows, &mut machine, FREE_PAGES);
    assert_eq!(stopped(outcome).code, 0x50);
}

#[test]
fn a_table_without_its_mandatory_routines_is_refused() {
    use spec::initialization as slot;
    let (mut windows, mut machine) = adapter(DomainMode::Passthrough);
    let registration = Call {
        registers: [1, 1, ARGUMENT.0, 0],
        stack_pointer: STACK,
    };
    put(
        &mut machine,
        slot::VERSION,
        u64::from(spec::VERSION_WDDM_2_4),
    );
    for offset in [
        slot::ADD_DEVICE,
        slot::START_DEVICE,
        slot::STOP_DEVICE,
        slot::REMOVE_DEVICE,
    ] {
        put(&mut machine, offset, 0x1000);
    }
    let refused = register(&mut windows, &mut machine, &registration);
    assert_eq!(returned(refused), u64::from(status::INVALID_PARAMETER));
    put(&mut machine, slot::QUERY_ADAPTER_INFO, 0x1000);
    assert_eq!(
        returned(register(&mut windows, &mut machine, &registration)),
        0
    );
    assert!(windows.dxgk.registered());
}

#[test]
fn a_display_only_table_has_no_exclusive_access() {
    use spec::initialization as slot;
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    for offset in (8..0x468).step_by(8) {
        put(&mut machine, offset, 0x1000);
    }
    put(&mut machine, slot::VERSION, 0x300E);
    let registration = Call {
        registers: [1, 1, ARGUMENT.0, 0],
        stack_pointer: STACK,
    };
    register_display_only(&mut windows, &mut machine, &registration);
    let miniport = windows.dxgk.miniport.unwrap();
    assert_eq!(miniport.begin_exclusive_access, 0);
    assert_eq!(miniport.end_exclusive_access, 0);
}

#[test]
fn callbacks_that_are_not_there_have_a_name() {
    let (mut windows, mut machine) = adapter(DomainMode::Passthrough);
    write_interface(&mut windows, &mut machine, ARGUMENT).unwrap();
    assert_eq!(machine.read_u32(ARGUMENT).unwrap(), 0x1C8);
    // DxgkCbReportDiagnostic is at 0x1C0.
    let slot = machine.read_u64(Gva(ARGUMENT.0 + 0x1C0)).unwrap();
    let name = windows.missing_name(Gva(slot + 3));
    assert_eq!(name, Some("dxgkrnl.sys!DxgkCbReportDiagnostic"));
    // DxgkCbFreePagesFromMdl is at 0x188, and there.
    let slot = machine.read_u64(Gva(ARGUMENT.0 + 0x188)).unwrap();
    let index = (slot - layout::THUNKS.0) / layout::THUNK_SIZE;
    assert_eq!(windows.thunk_name(index as u32), Some(FREE_PAGES));
}

#[test]
fn no_frame_for_the_devices_tables_is_no_memory_and_takes_nothing() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    domain::attach(&mut windows, &mut machine).unwrap();
    let one = crate::mm::PageRequest {
        low: 0,
        high: u64::MAX,
        skip: 0,
        bytes: PAGE_SIZE,
        flags: 0,
        kind: journal::event::AllocationKind::DxgkMdl,
        handle: 0,
    };
    // Leave one page: enough for the driver, not for its tables as well.
    let mut last = None;
    while let Ok(made) = windows.mm.allocate_pages_for_mdl(&mut machine, &one) {
        last = Some(made);
    }
    windows.mm.release_pages(&mut machine, last.unwrap().id);
    for _ in 0..2 {
        let status = returned(allocate(&mut windows, &mut machine, PAGE_SIZE));
        assert_eq!(status, u64::from(status::NO_MEMORY));
    }
    assert_eq!(windows.dxgk.live_allocations(), 0);
}

#[test]
fn device_memory_without_room_in_the_page_tables_is_refused_whole() {
    let (mut windows, mut machine) = adapter(DomainMode::Isolation);
    machine.bars[0] = (0x4000, false);
    windows
        .hal
        .configure_device(&mut machine, DEVICE, 1)
        .unwrap();
    let bar = windows.hal.resources(DEVICE).memory[0].address;
    machine.mappings_left = 2;
    let before = machine.tables.len();
    let call = Call {
        registers: [DEVICE_HANDLE, bar.0, 0x4000, 0],
        stack_pointer: STACK,
    };
    let status = returned(device::map_memory(&mut windows, &mut machine, &call));
    assert_eq!(status, u64::from(status::INSUFFICIENT_RESOURCES));
    assert_eq!(machine.tables.len(), before);
}
