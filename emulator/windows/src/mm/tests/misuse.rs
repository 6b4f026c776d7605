//! What a driver did wrong, and what Windows says it is about.

use crate::call::Outcome;
use crate::mm::testing::{FIRST, TestMachine, invoke, returned, state, stopped};
use crate::mm::{Absent, GoneKind, Mdl, State};
use crate::platform::Platform;
use journal::event::{AllocationId, Event};
use memory::{Gva, PAGE_SIZE, Pfn};

const FREE: &str = "MmFreePagesFromMdl";
const MAP: &str = "MmMapLockedPagesSpecifyCache";

struct Rig {
    state: State,
    machine: TestMachine,
}

impl Rig {
    fn new() -> Self {
        Self {
            state: state(),
            machine: TestMachine::new(),
        }
    }

    fn call(&mut self, name: &str, arguments: &[u64]) -> Outcome {
        invoke(&mut self.state, &mut self.machine, name, arguments)
    }

    fn value(&mut self, name: &str, arguments: &[u64]) -> u64 {
        returned(self.call(name, arguments))
    }

    /// An MDL of `given` pages of `pages`, and its allocation.
    fn pages(&mut self, pages: u64, given: u64) -> (u64, AllocationId) {
        let high = (FIRST + given) * PAGE_SIZE - 1;
        let arguments = [0, high, 0, pages * PAGE_SIZE];
        let mdl = self.value("MmAllocatePagesForMdl", &arguments);
        let (id, _) = self.state.record_at(Gva(mdl)).unwrap();
        (mdl, id)
    }

    /// A locked MDL for pages of pool.
    fn locked(&mut self, pages: u64) -> (u64, u64) {
        let block = self.value("ExAllocatePool2", &[0x40, pages * PAGE_SIZE, 1]);
        let mdl = self.value("IoAllocateMdl", &[block, pages * PAGE_SIZE, 0, 0, 0]);
        self.value("MmProbeAndLockPages", &[mdl, 0, 1]);
        (block, mdl)
    }

    /// The rule that the call broke, and the allocation it is about.
    fn broken(&mut self, name: &str, arguments: &[u64]) -> (&'static str, Option<AllocationId>) {
        let stop = stopped(self.call(name, arguments));
        (stop.rule.unwrap(), stop.subject.allocation)
    }

    /// Rules of the breaches that were told.
    fn told(&self) -> Vec<String> {
        let breaches = self.machine.events().into_iter().filter_map(|e| match e {
            Event::Breach(breach) => Some(breach.rule),
            _ => None,
        });
        breaches.collect()
    }
}

#[test]
fn an_mdl_that_the_driver_made_of_pool_is_freed_as_pool() {
    // NonPagedPoolNx, by the tag that Windows gives its own.
    let arguments = [512, 0x40, u64::from(u32::from_le_bytes(*b"Mdl "))];
    for (free, told) in [
        ("ExFreePool", None),
        ("IoFreeMdl", Some("mdl-freed-by-other")),
    ] {
        let mut rig = Rig::new();
        let mdl = rig.value("ExAllocatePoolWithTag", &arguments);

        rig.value(free, &[mdl]);

        assert_eq!(rig.told(), Vec::from_iter(told), "{free}");
    }
}

#[test]
fn a_second_free_is_about_the_pages_of_the_first() {
    let mut rig = Rig::new();
    let (mdl, id) = rig.pages(1, 8);
    rig.value(FREE, &[mdl]);

    assert_eq!(rig.broken(FREE, &[mdl]), ("pages-freed-twice", Some(id)));
}

#[test]
fn pages_freed_through_a_copy_are_not_freed_again() {
    let mut rig = Rig::new();
    let (mdl, id) = rig.pages(1, 8);
    let copy = rig.value("IoAllocateMdl", &[0, PAGE_SIZE, 0, 0, 0]);
    let page = rig.machine.read_u64(Gva(mdl + 0x30)).unwrap();
    rig.machine.write_u64(Gva(copy + 0x30), page).unwrap();
    rig.value(FREE, &[copy]);

    assert_eq!(rig.told(), ["pages-copied"]);
    assert_eq!(rig.broken(FREE, &[mdl]), ("pages-freed-twice", Some(id)));
}

#[test]
fn an_address_inside_an_mdl_is_a_foreign_mdl() {
    let mut rig = Rig::new();
    let (mdl, id) = rig.pages(1, 8);

    assert_eq!(rig.broken(FREE, &[mdl + 8]), ("pages-foreign", Some(id)));
}

#[test]
fn an_mdl_for_pool_is_foreign_and_about_the_pool() {
    let mut rig = Rig::new();
    let (block, mdl) = rig.locked(1);
    let id = rig.state.pool_block(Gva(block)).unwrap().id;

    assert_eq!(rig.broken(FREE, &[mdl]), ("pages-foreign", Some(id)));
}

#[test]
fn an_mdl_that_was_freed_is_not_mapped() {
    let mut rig = Rig::new();
    let (mdl, id) = rig.pages(1, 8);
    rig.value("ExFreePool", &[mdl]);

    let arguments = [mdl, 0, 1, 0, 0, 16];
    assert_eq!(rig.broken(MAP, &arguments), ("mdl-freed", Some(id)));
}

#[test]
fn slots_past_a_partial_mdl_hold_no_page() {
    let mut rig = Rig::new();
    let (mdl, _) = rig.pages(5, 2);

    let size = rig.machine.read_u16(Gva(mdl + 8)).unwrap();
    assert_eq!(u64::from(size), 0x30 + 5 * 8);
    assert_eq!(Mdl::read(&rig.machine, Gva(mdl)).unwrap().pages(), 2);
    let slots = (0..5).map(|slot| rig.machine.read_u64(Gva(mdl + 0x30 + 8 * slot)).unwrap());
    let expected = [FIRST, FIRST + 1, u64::MAX, u64::MAX, u64::MAX];
    assert_eq!(slots.collect::<Vec<_>>(), expected);
}

#[test]
fn the_addresses_of_pages_that_were_not_given_stay_free() {
    let mut rig = Rig::new();
    let (mdl, id) = rig.pages(5, 2);
    let at = rig.value(MAP, &[mdl, 0, 1, 0, 0, 16]);

    for page in 2..5 {
        let address = Gva(at + page * PAGE_SIZE);
        assert_eq!(rig.machine.translate(address), None);
        let Some(Absent::PastPartial { subject, .. }) = rig.state.absent(address) else {
            panic!("{:?}", rig.state.absent(address));
        };
        assert_eq!((subject.allocation, subject.address), (Some(id), mdl));
    }
    assert_eq!(rig.state.absent(Gva(at + 5 * PAGE_SIZE)), None);
}

#[test]
fn an_address_in_use_again_is_not_gone() {
    let mut rig = Rig::new();
    let block = rig.value("ExAllocatePool2", &[0x40, PAGE_SIZE, 1]);
    rig.value("ExFreePool", &[block]);
    let Some(Absent::Gone(gone)) = rig.state.absent(Gva(block)) else {
        panic!("not remembered");
    };
    assert!(matches!(gone.kind, GoneKind::Pool { .. }));

    rig.state.past.forget(gone.base, gone.pages);

    assert_eq!(rig.state.absent(Gva(block)), None);
}

#[test]
fn what_was_never_there_is_not_gone() {
    let rig = Rig::new();
    for address in [0, 0xffff_ad00_1000_0000, u64::MAX] {
        assert_eq!(rig.state.absent(Gva(address)), None);
    }
}

#[test]
fn a_physical_address_that_is_asked_for_is_told() {
    let mut rig = Rig::new();
    let block = rig.value("ExAllocatePool2", &[0x40, PAGE_SIZE, 1]);
    let given = rig.value("MmGetPhysicalAddress", &[block + 8]);
    rig.value("MmGetPhysicalAddress", &[0x1000]);

    let asked = rig.machine.events().into_iter().filter_map(|e| match e {
        Event::Physical { address, gpa, .. } => Some((address, gpa.0)),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [(block + 8, given)]);
}

#[test]
fn an_advanced_mdl_unlocks_and_unmaps_what_it_leaves() {
    let mut rig = Rig::new();
    let (block, mdl) = rig.locked(3);
    let at = rig.value(MAP, &[mdl, 0, 1, 0, 0, 16]);

    assert_eq!(rig.value("MmAdvanceMdl", &[mdl, PAGE_SIZE + 16]), 0);

    let read = Mdl::read(&rig.machine, Gva(mdl)).unwrap();
    assert_eq!((read.start_va, read.byte_offset), (block + PAGE_SIZE, 16));
    assert_eq!(u64::from(read.byte_count), 2 * PAGE_SIZE - 16);
    let first = Pfn::from(rig.machine.translate(Gva(block + PAGE_SIZE)).unwrap());
    assert_eq!(read.frames(&rig.machine).unwrap()[0], first);
    assert_eq!(rig.machine.translate(Gva(at)), None);
    let now = at + PAGE_SIZE + 16;
    assert_eq!(read.mapped_system_va, now);
    rig.value("MmUnmapLockedPages", &[now, mdl]);
    rig.value("MmUnlockPages", &[mdl]);
    assert!(rig.state.locks.is_empty());
}

#[test]
fn a_user_mapping_outlives_the_free_that_it_is_told_at() {
    let mut rig = Rig::new();
    let (mdl, _) = rig.pages(1, 8);
    let at = rig.value(MAP, &[mdl, 1, 1, 0, 0, 16]);
    rig.value(FREE, &[mdl]);

    assert_eq!(rig.told(), ["pages-user-mapped"]);
    assert!(rig.machine.translate(Gva(at)).is_some());
    rig.value("MmUnmapLockedPages", &[at, mdl]);
    assert_eq!(rig.machine.translate(Gva(at)), None);
}

#[test]
fn contiguous_memory_of_the_newer_routine_tells_its_size() {
    let mut rig = Rig::new();
    let block = rig.value("ExAllocatePool2", &[0x40, 16, 1]);
    rig.machine.write_u64(Gva(block), 1).unwrap();
    let arguments = [block, 0, u64::MAX, 0, 0, 4, 0, 1, 0, block + 8];

    assert_eq!(rig.value("MmAllocateContiguousMemoryEx", &arguments), 0);

    assert_eq!(rig.machine.read_u64(Gva(block)).unwrap(), PAGE_SIZE);
    let base = rig.machine.read_u64(Gva(block + 8)).unwrap();
    rig.value("MmFreeContiguousMemory", &[base]);
}
