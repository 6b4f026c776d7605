use crate::mm::testing::{TestMachine, invoke, invoke_at, returned, state, stopped};
use crate::platform::Platform;
use journal::event::{AllocationKind, Event};
use memory::{Gva, PAGE_SIZE};

const TAG: u64 = u32::from_le_bytes(*b"Test") as u64;
const NON_PAGED: u64 = 0x40;

fn allocate(state: &mut crate::mm::State, machine: &mut TestMachine, bytes: u64) -> Gva {
    let arguments = [NON_PAGED, bytes, TAG];
    Gva(returned(invoke(
        state,
        machine,
        "ExAllocatePool2",
        &arguments,
    )))
}

#[test]
fn a_block_is_aligned_and_cleared_and_ends_at_a_page() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let block = allocate(&mut state, &mut machine, 100);
    assert_eq!(block.0 % 16, 0);
    assert_eq!(block.offset(), PAGE_SIZE - 112);
    let mut bytes = [1; 100];
    machine.read(block, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 100]);
}

#[test]
fn a_large_block_starts_at_a_page_and_has_a_guard_page() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let block = allocate(&mut state, &mut machine, 2 * PAGE_SIZE);
    assert_eq!(block.offset(), 0);
    assert!(
        machine
            .translate(Gva(block.0 + 2 * PAGE_SIZE - 1))
            .is_some()
    );
    assert!(machine.translate(Gva(block.0 + 2 * PAGE_SIZE)).is_none());
}

#[test]
fn a_freed_block_leaves_the_page_tables_and_its_address_is_not_reused() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let block = allocate(&mut state, &mut machine, 64);
    let frame = machine.translate(block).unwrap();
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[block.0]));
    assert_eq!(machine.translate(block), None);
    let poison = machine.memory().read_u64(frame).unwrap();
    assert_eq!(poison, crate::mm::POISON);
    assert_ne!(allocate(&mut state, &mut machine, 64), block);
}

#[test]
fn misuse_stops_with_its_parameters() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let live = allocate(&mut state, &mut machine, 64);
    let freed = allocate(&mut state, &mut machine, 64);
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[freed.0]));
    let other = u64::from(u32::from_le_bytes(*b"Else"));
    let rows: [(&str, [u64; 2], [u64; 4]); 5] = [
        ("ExFreePoolWithTag", [freed.0, TAG], [0x07, 0, 0, freed.0]),
        (
            "ExFreePoolWithTag",
            [live.0, other],
            [0x0a, live.0, TAG, other],
        ),
        ("ExFreePool", [live.0 + 16, 0], [0x46, live.0 + 16, 0, 0]),
        (
            "ExFreePool",
            [0x1000, 0],
            [0x40, 0x1000, 0xffff_8000_0000_0000, 0],
        ),
        (
            "ExFreePool",
            [0xffff_f800_0000_0000, 0],
            [0x42, 0xffff_f800_0000_0000, 0, 0],
        ),
    ];
    for (routine, arguments, parameters) in rows {
        let stop = stopped(invoke(&mut state, &mut machine, routine, &arguments));
        assert_eq!(
            (stop.code, stop.parameters),
            (0xc2, parameters),
            "{routine}"
        );
    }
    assert!(state.pool_block(live).is_some());
}

#[test]
fn an_irql_above_dispatch_stops() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let arguments = [512, 64, TAG];
    let name = "ExAllocatePoolWithTag";
    let stop = stopped(invoke_at(&mut state, &mut machine, 3, name, &arguments));
    assert_eq!(stop.parameters, [0x08, 3, 512, 64]);
    returned(invoke_at(&mut state, &mut machine, 2, name, &arguments));
}

#[test]
fn flags_without_sense_give_null() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    for arguments in [
        [0, 64, TAG],
        [NON_PAGED | 0x100, 64, TAG],
        [NON_PAGED | 0x10, 64, TAG],
        [NON_PAGED, 0, TAG],
        [NON_PAGED, 64, 0],
        [NON_PAGED, u64::MAX, TAG],
    ] {
        let result = invoke(&mut state, &mut machine, "ExAllocatePool2", &arguments);
        assert_eq!(returned(result), 0, "{arguments:x?}");
    }
}

#[test]
fn a_failed_mapping_leaks_no_frames() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let before = state.stats().free_frames;
    machine.mappings_left = 2;
    assert_eq!(allocate(&mut state, &mut machine, 4 * PAGE_SIZE), Gva(0));
    assert_eq!(state.stats().free_frames, before);
    assert_eq!(machine.tables.len(), 1, "only the stack is mapped");
}

#[test]
fn a_block_is_told_from_birth_to_free() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let block = allocate(&mut state, &mut machine, 64);
    let id = state.pool_block(block).unwrap().id;
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[block.0]));
    let told: Vec<_> = machine
        .events()
        .into_iter()
        .filter(|event| !matches!(event, Event::Stack { .. }))
        .collect();
    let [
        Event::Allocate(allocation),
        Event::Free {
            allocation: freed, ..
        },
        Event::Recycle { .. },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(allocation.kind, AllocationKind::Pool);
    assert_eq!((allocation.id, allocation.address), (id, block.0));
    assert_eq!(*freed, id);
}

#[test]
fn live_blocks_are_in_the_statistics() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let block = allocate(&mut state, &mut machine, 64);
    let stats = state.stats();
    assert_eq!(stats.live.len(), 1);
    assert_eq!((stats.live[0].address, stats.live[0].bytes), (block, 64));
}
