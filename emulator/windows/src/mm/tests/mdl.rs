use crate::mm::testing::{TestMachine, invoke, invoke_at, returned, state, stopped};
use crate::mm::{Mdl, MdlError, State};
use crate::platform::{Platform, Protection};
use memory::{Gva, PAGE_SIZE, Pfn};
use proptest::prelude::*;

const MAP: &str = "MmMapLockedPagesSpecifyCache";
const UNMAP: &str = "MmUnmapLockedPages";
const READ_ONLY: u64 = 0x8000_0010;

fn allocate(state: &mut State, machine: &mut TestMachine, pages: u64) -> u64 {
    let arguments = [0, u64::MAX, 0, pages * PAGE_SIZE];
    returned(invoke(state, machine, "MmAllocatePagesForMdl", &arguments))
}

fn map(state: &mut State, machine: &mut TestMachine, mdl: u64) -> u64 {
    returned(invoke(state, machine, MAP, &[mdl, 0, 1, 0, 0, 16]))
}

#[test]
fn a_mapping_shows_the_pages_and_is_noted_in_the_mdl() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 2);
    let va = map(&mut state, &mut machine, mdl);
    let read = Mdl::read(&machine, Gva(mdl)).unwrap();
    assert_eq!((read.flags, read.mapped_system_va), (3, va));
    let frames = read.frames(&machine).unwrap();
    let second = machine.translate(Gva(va + PAGE_SIZE)).unwrap();
    assert_eq!(second, frames[1].base());
}

#[test]
fn an_unmapped_mdl_can_be_mapped_again_elsewhere() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    let first = map(&mut state, &mut machine, mdl);
    returned(invoke(&mut state, &mut machine, UNMAP, &[first, mdl]));
    assert_eq!(machine.translate(Gva(first)), None);
    assert_eq!(Mdl::read(&machine, Gva(mdl)).unwrap().flags, 2);
    assert_ne!(map(&mut state, &mut machine, mdl), first);
}

#[test]
fn a_mapping_without_write_is_read_only() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    let va = returned(invoke(
        &mut state,
        &mut machine,
        MAP,
        &[mdl, 0, 1, 0, 0, READ_ONLY],
    ));
    let (_, protection) = machine.tables[&(va / PAGE_SIZE)];
    assert_eq!(protection, Protection::READ);
}

#[test]
fn freeing_pages_releases_their_mapping() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    let va = map(&mut state, &mut machine, mdl);
    returned(invoke(
        &mut state,
        &mut machine,
        "MmFreePagesFromMdl",
        &[mdl],
    ));
    assert_eq!(machine.translate(Gva(va)), None);
    assert_eq!(Mdl::read(&machine, Gva(mdl)).unwrap().flags, 0);
}

#[test]
fn mapping_twice_stops() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    map(&mut state, &mut machine, mdl);
    let stop = stopped(invoke(
        &mut state,
        &mut machine,
        MAP,
        &[mdl, 0, 1, 0, 0, 16],
    ));
    assert_eq!((stop.code, stop.parameters), (0xc4, [0xb2, mdl, 3, 1]));
}

#[test]
fn mapping_freed_pages_stops() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    let pfn = machine.read_u64(Gva(mdl + 0x30)).unwrap();
    returned(invoke(
        &mut state,
        &mut machine,
        "MmFreePagesFromMdl",
        &[mdl],
    ));
    machine.write_u64(Gva(mdl + 0x30), pfn).unwrap();
    machine.write(Gva(mdl + 0x0a), &[2, 0]).unwrap();
    let stop = stopped(invoke(
        &mut state,
        &mut machine,
        MAP,
        &[mdl, 0, 1, 0, 0, 16],
    ));
    assert_eq!((stop.code, stop.parameters), (0x1a, [0x1233, pfn, 0, 0]));
}

#[test]
fn wrong_unmaps_stop_each_in_its_way() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    let other = allocate(&mut state, &mut machine, 1);
    let va = map(&mut state, &mut machine, mdl);
    let unmap = |state: &mut State, machine: &mut TestMachine, va, mdl| {
        let stop = stopped(invoke(state, machine, UNMAP, &[va, mdl]));
        (stop.code, stop.parameters[0])
    };
    assert_eq!(unmap(&mut state, &mut machine, va, other), (0xc4, 0xb6));
    assert_eq!(unmap(&mut state, &mut machine, va + 8, mdl), (0xda, 3));
    let pfn = machine.read_u64(Gva(mdl + 0x30)).unwrap();
    machine.write_u64(Gva(mdl + 0x30), pfn + 1).unwrap();
    assert_eq!(unmap(&mut state, &mut machine, va, mdl), (0xda, 4));
    machine.write_u64(Gva(mdl + 0x20), PAGE_SIZE).unwrap();
    assert_eq!(unmap(&mut state, &mut machine, va, mdl), (0xda, 5));
    let stop = stopped(invoke_at(&mut state, &mut machine, 3, UNMAP, &[va, mdl]));
    assert_eq!(stop.parameters, [0x79, 3, va, mdl]);
}

#[test]
fn a_user_mapping_is_at_a_user_address_and_ends_by_itself() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let arguments = [0, u64::MAX, 0, PAGE_SIZE];
    let mdl = returned(invoke(
        &mut state,
        &mut machine,
        "MmAllocatePagesForMdl",
        &arguments,
    ));
    let name = "MmMapLockedPagesSpecifyCache";
    let at = returned(invoke(
        &mut state,
        &mut machine,
        name,
        &[mdl, 1, 1, 0, 0, 0],
    ));
    assert!(at != 0 && at < 0x0000_8000_0000_0000);
    assert!(machine.translate(Gva(at)).is_some());
    returned(invoke(
        &mut state,
        &mut machine,
        "MmUnmapLockedPages",
        &[at, mdl],
    ));
    assert_eq!(machine.translate(Gva(at)), None);
}

#[test]
fn a_driver_locks_and_unlocks_its_pool() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let arguments = [0x40, 3 * PAGE_SIZE, 1];
    let block = returned(invoke(
        &mut state,
        &mut machine,
        "ExAllocatePool2",
        &arguments,
    ));
    let arguments = [block + 8, 2 * PAGE_SIZE, 0, 0, 0];
    let mdl = returned(invoke(
        &mut state,
        &mut machine,
        "IoAllocateMdl",
        &arguments,
    ));
    returned(invoke(
        &mut state,
        &mut machine,
        "MmProbeAndLockPages",
        &[mdl, 0, 1],
    ));
    let read = Mdl::read(&machine, Gva(mdl)).unwrap();
    let frames = read.frames(&machine).unwrap();
    assert_eq!((read.flags, read.byte_offset, frames.len()), (0x82, 8, 3));
    let physical = returned(invoke(
        &mut state,
        &mut machine,
        "MmGetPhysicalAddress",
        &[block],
    ));
    assert_eq!(frames[0].base().0, physical);
    returned(invoke(&mut state, &mut machine, "MmUnlockPages", &[mdl]));
    let stop = stopped(invoke(&mut state, &mut machine, "MmUnlockPages", &[mdl]));
    assert_eq!(stop.parameters[0], 0x7c);
    returned(invoke(&mut state, &mut machine, "IoFreeMdl", &[mdl]));
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[block]));
    assert_eq!(state.stats().live, []);
}

#[test]
fn a_lock_does_not_outlive_its_page() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let block = returned(invoke(
        &mut state,
        &mut machine,
        "ExAllocatePool2",
        &[0x40, 64, 1],
    ));
    let mdl = returned(invoke(
        &mut state,
        &mut machine,
        "IoAllocateMdl",
        &[block, 64],
    ));
    returned(invoke(
        &mut state,
        &mut machine,
        "MmProbeAndLockPages",
        &[mdl, 0, 1],
    ));
    returned(invoke(&mut state, &mut machine, "ExFreePool", &[block]));
    let stop = stopped(invoke(&mut state, &mut machine, "MmUnlockPages", &[mdl]));
    assert_eq!((stop.code, stop.parameters[0]), (0x4e, 0x07));
    let pages = allocate(&mut state, &mut machine, 1);
    returned(invoke(
        &mut state,
        &mut machine,
        "MmFreePagesFromMdl",
        &[pages],
    ));
}

#[test]
fn a_page_locked_through_another_mdl_is_not_freed() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let pages = allocate(&mut state, &mut machine, 1);
    let va = map(&mut state, &mut machine, pages);
    let mdl = returned(invoke(&mut state, &mut machine, "IoAllocateMdl", &[va, 64]));
    returned(invoke(
        &mut state,
        &mut machine,
        "MmProbeAndLockPages",
        &[mdl, 0, 1],
    ));
    let stop = stopped(invoke(
        &mut state,
        &mut machine,
        "MmFreePagesFromMdl",
        &[pages],
    ));
    assert_eq!((stop.code, stop.parameters[0]), (0x4e, 0x9a));
}

#[test]
fn an_mdl_for_nonpaged_pool_has_the_address_of_the_pool() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let block = returned(invoke(
        &mut state,
        &mut machine,
        "ExAllocatePool2",
        &[0x40, 64, 1],
    ));
    let mdl = returned(invoke(
        &mut state,
        &mut machine,
        "IoAllocateMdl",
        &[block, 64],
    ));
    returned(invoke(
        &mut state,
        &mut machine,
        "MmBuildMdlForNonPagedPool",
        &[mdl],
    ));
    let read = Mdl::read(&machine, Gva(mdl)).unwrap();
    assert_eq!((read.flags, read.mapped_system_va), (4, block));
}

#[test]
fn a_mapped_mdl_cannot_be_freed() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    map(&mut state, &mut machine, mdl);
    let stop = stopped(invoke(&mut state, &mut machine, "IoFreeMdl", &[mdl]));
    assert_eq!(stop.parameters, [0xb8, mdl, 3, 0]);
}

#[test]
fn a_page_that_is_no_ram_is_refused() {
    let (mut state, mut machine) = (state(), TestMachine::new());
    let mdl = allocate(&mut state, &mut machine, 1);
    machine.write_u64(Gva(mdl + 0x30), 0xfed90).unwrap();
    let stop = stopped(invoke(
        &mut state,
        &mut machine,
        MAP,
        &[mdl, 0, 1, 0, 0, 16],
    ));
    assert_eq!(stop.parameters, [0x89, mdl, mdl + 0x30, 0xfed90]);
}

proptest! {
    #[test]
    fn hostile_mdls_are_read_within_bounds(
        header in prop::array::uniform32(any::<u8>()),
        count in prop_oneof![0u32..0x4000, any::<u32>()],
        offset in prop_oneof![0u32..0x1000, any::<u32>()],
        slots in prop::collection::vec(prop_oneof![0u64..2000, any::<u64>()], 64),
    ) {
        let mut machine = TestMachine::new();
        let at = Gva(0xffff_8000_0000_0e00);
        machine.map(at, Pfn(2), Protection::WRITE).unwrap();
        machine.write(at, &header).unwrap();
        machine.write_u32(Gva(at.0 + 0x28), count).unwrap();
        machine.write_u32(Gva(at.0 + 0x2c), offset).unwrap();
        for (index, slot) in (0..58).zip(slots) {
            machine.write_u64(Gva(at.0 + 0x30 + 8 * index), slot).unwrap();
        }
        match Mdl::read(&machine, at) {
            Err(MdlError::BadExtent { .. }) => prop_assert!(offset >= 0x1000 || count == 0),
            Err(other) => prop_assert!(false, "{}", other),
            Ok(mdl) => match mdl.frames(&machine) {
                Ok(frames) => {
                    prop_assert_eq!(frames.len() as u64, mdl.pages());
                    prop_assert!(frames.len() <= 58);
                    let ram = |f: &Pfn| machine.memory().contains(f.base(), PAGE_SIZE);
                    prop_assert!(mdl.flags & 0x800 != 0 || frames.iter().all(ram));
                }
                Err(MdlError::Unreadable { .. }) => prop_assert!(mdl.pages() > 58),
                Err(_) => {}
            },
        }
    }
}
