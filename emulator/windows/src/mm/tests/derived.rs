//! Partial MDLs, MDLs for device memory, protections, chains, long MDLs.

use crate::mm::testing::{TestMachine, invoke, returned, state, stopped};
use crate::mm::{Frame, Mdl, POISON, State};
use crate::platform::{Platform, Protection};
use memory::{Gpa, Gva, PAGE_SIZE, Pfn};

const MAP: &str = "MmMapLockedPagesSpecifyCache";
const UNMAP: &str = "MmUnmapLockedPages";
/// The test's own memory.
const OWN: Gva = Gva(0xffff_8000_0000_0000);

struct Rig {
    state: State,
    machine: TestMachine,
}

impl Rig {
    fn new() -> Self {
        let mut machine = TestMachine::new();
        machine.map(OWN, Pfn(2), Protection::WRITE).unwrap();
        Self {
            state: state(),
            machine,
        }
    }

    fn call(&mut self, name: &str, arguments: &[u64]) -> u64 {
        returned(invoke(&mut self.state, &mut self.machine, name, arguments))
    }

    fn mdl(&self, at: u64) -> Mdl {
        Mdl::read(&self.machine, Gva(at)).unwrap()
    }

    fn frames(&self, at: u64) -> Vec<Pfn> {
        self.mdl(at).frames(&self.machine).unwrap()
    }

    /// A locked MDL of three pages of pool, from their 16th byte, and where
    /// it starts.
    fn source(&mut self) -> (u64, u64) {
        let block = self.call("ExAllocatePool2", &[0x40, 4 * PAGE_SIZE, 1]);
        let start = block + 16;
        let mdl = self.call("IoAllocateMdl", &[start, 3 * PAGE_SIZE, 0, 0, 0]);
        self.call("MmProbeAndLockPages", &[mdl, 0, 1]);
        (mdl, start)
    }
}

#[test]
fn a_partial_mdl_describes_its_part() {
    let mut rig = Rig::new();
    let (source, start) = rig.source();
    let target = rig.call("IoAllocateMdl", &[start, 2 * PAGE_SIZE, 0, 0, 0]);
    rig.call(
        "IoBuildPartialMdl",
        &[source, target, start + PAGE_SIZE, 2 * PAGE_SIZE],
    );
    let part = rig.mdl(target);
    assert_eq!((part.flags, part.byte_offset), (0x10, 16));
    assert_eq!(rig.frames(target), rig.frames(source)[1..]);
    let va = rig.call(MAP, &[target, 0, 1, 0, 0, 16]);
    let expected = rig.frames(source)[1].base().0 + 16;
    assert_eq!(rig.machine.translate(Gva(va)), Some(Gpa(expected)));
}

#[test]
fn a_partial_mdl_without_length_is_the_rest() {
    let mut rig = Rig::new();
    let (source, start) = rig.source();
    let target = rig.call("IoAllocateMdl", &[start, 3 * PAGE_SIZE, 0, 0, 0]);
    rig.call("IoBuildPartialMdl", &[source, target, start + 100, 0]);
    let rest = 3 * PAGE_SIZE as u32 - 100;
    assert_eq!(rig.mdl(target).byte_count, rest);
}

#[test]
fn a_partial_mdl_has_the_system_address_of_its_source() {
    let mut rig = Rig::new();
    let (source, start) = rig.source();
    let va = rig.call(MAP, &[source, 0, 1, 0, 0, 16]);
    let target = rig.call("IoAllocateMdl", &[start, PAGE_SIZE, 0, 0, 0]);
    rig.call("IoBuildPartialMdl", &[source, target, start + 100, 1]);
    let part = rig.mdl(target);
    assert_eq!((part.flags, part.mapped_system_va), (0x11, va + 100));
    // The mapping is the source's, so this is no free of a mapped MDL.
    rig.call("IoFreeMdl", &[target]);
    assert!(rig.machine.translate(Gva(va)).is_some());
}

#[test]
fn a_partial_mdls_own_mapping_goes_by_reuse_and_by_its_free() {
    for free in [false, true] {
        let mut rig = Rig::new();
        let (source, start) = rig.source();
        let target = rig.call("IoAllocateMdl", &[start, PAGE_SIZE, 0, 0, 0]);
        rig.call("IoBuildPartialMdl", &[source, target, start, 1]);
        let va = rig.call(MAP, &[target, 0, 1, 0, 0, 16]);
        if free {
            rig.call("IoFreeMdl", &[target]);
        } else {
            // MmPrepareMdlForReuse.
            rig.call(UNMAP, &[va, target]);
            assert_eq!(rig.mdl(target).flags, 0x10);
        }
        assert_eq!(rig.machine.translate(Gva(va)), None);
    }
}

#[test]
fn a_partial_mdl_of_freed_pages_is_not_mapped() {
    let mut rig = Rig::new();
    let source = rig.call("MmAllocatePagesForMdl", &[0, u64::MAX, 0, PAGE_SIZE]);
    let target = rig.call("IoAllocateMdl", &[0, PAGE_SIZE, 0, 0, 0]);
    rig.call("IoBuildPartialMdl", &[source, target, 0, 0]);
    rig.call("MmFreePagesFromMdl", &[source]);
    let stop = stopped(invoke(
        &mut rig.state,
        &mut rig.machine,
        MAP,
        &[target, 0, 1, 0, 0, 16],
    ));
    assert_eq!(stop.rule, Some("mdl-mapped-free-page"));
}

#[test]
fn device_memory_gets_an_mdl_that_can_be_mapped_and_freed() {
    let mut rig = Rig::new();
    for (index, value) in [0xc000_0000, 2 * PAGE_SIZE, 0xd000_0000, PAGE_SIZE]
        .into_iter()
        .enumerate()
    {
        let at = Gva(OWN.0 + 8 * index as u64);
        rig.machine.write_u64(at, value).unwrap();
    }
    let result = OWN.0 + 0x100;
    assert_eq!(rig.call("MmAllocateMdlForIoSpace", &[OWN.0, 2, result]), 0);
    let mdl = rig.machine.read_u64(Gva(result)).unwrap();
    assert_eq!(rig.frames(mdl), [0xc_0000, 0xc_0001, 0xd_0000].map(Pfn));
    let va = rig.call(MAP, &[mdl, 0, 0, 0, 0, 16]);
    assert_eq!(rig.machine.translate(Gva(va)), Some(Gpa(0xc000_0000)));
    rig.call(UNMAP, &[va, mdl]);
    rig.call("IoFreeMdl", &[mdl]);
    assert_eq!(rig.state.stats().live, []);
}

#[test]
fn ram_is_no_io_space() {
    let mut rig = Rig::new();
    rig.machine.write_u64(OWN, 20 * PAGE_SIZE).unwrap();
    rig.machine.write_u64(Gva(OWN.0 + 8), PAGE_SIZE).unwrap();
    let status = rig.call("MmAllocateMdlForIoSpace", &[OWN.0, 1, OWN.0 + 0x100]);
    assert_eq!(status, 0xc000_00ef);
}

#[test]
fn a_mapping_is_protected_page_by_page() {
    let mut rig = Rig::new();
    let mdl = rig.call("MmAllocatePagesForMdl", &[0, u64::MAX, 0, 2 * PAGE_SIZE]);
    let va = rig.call(MAP, &[mdl, 0, 1, 0, 0, 16]);
    let second = va / PAGE_SIZE + 1;
    assert_eq!(rig.call("MmProtectMdlSystemAddress", &[mdl, 2]), 0);
    assert_eq!(rig.machine.tables[&second].1, Protection::READ);
    assert_eq!(rig.call("MmProtectMdlSystemAddress", &[mdl, 1]), 0);
    assert_eq!(rig.machine.translate(Gva(va)), None);
    assert_eq!(rig.call("MmProtectMdlSystemAddress", &[mdl, 4]), 0);
    assert_eq!(rig.machine.tables[&second].1, Protection::WRITE);
    rig.call(UNMAP, &[va, mdl]);
    assert!(!rig.machine.tables.contains_key(&second));
}

#[test]
fn one_of_a_chain_is_freed_alone() {
    let mut rig = Rig::new();
    let pool = rig.call("ExAllocatePool2", &[0x40, PAGE_SIZE, 1]);
    let [first, second] = [0, 1].map(|_| rig.call("IoAllocateMdl", &[pool, 16, 0, 0, 0]));
    rig.machine.write_u64(Gva(first), second).unwrap();
    assert_eq!(rig.mdl(first).next, second);
    rig.call("IoFreeMdl", &[first]);
    assert!(rig.state.pool_block(Gva(second)).is_some());
}

#[test]
fn pages_of_one_of_a_chain_are_freed_alone() {
    let mut rig = Rig::new();
    let one = [0, u64::MAX, 0, PAGE_SIZE];
    let [first, second] = [0, 1].map(|_| rig.call("MmAllocatePagesForMdl", &one));
    rig.machine.write_u64(Gva(first), second).unwrap();
    let other = rig.frames(second)[0];
    rig.call("MmFreePagesFromMdl", &[first]);
    assert!(matches!(rig.state.frame(other), Some(Frame::Owned(_))));
}

#[test]
fn pages_are_freed_as_zeros_where_that_is_asked_for() {
    for (flags, word) in [(0, POISON), (1, 0)] {
        let mut rig = Rig::new();
        let mdl = rig.call("MmAllocatePagesForMdl", &[0, u64::MAX, 0, PAGE_SIZE]);
        let frame = rig.frames(mdl)[0];
        rig.machine.memory().write_u64(frame.base(), 7).unwrap();
        rig.call("MmFreePagesFromMdlEx", &[mdl, flags]);
        let left = rig.machine.memory().read_u64(frame.base()).unwrap();
        assert_eq!((left, rig.state.frame(frame)), (word, Some(Frame::Free)));
    }
}

#[test]
fn size_wraps_where_the_array_is_long_and_nothing_else_does() {
    // The largest MDL whose Size is right as a signed number, and longer ones:
    // 0x7fff less the header is 4,089 slots, and 65,536 wrap an unsigned one.
    for pages in [4_089, 4_090, 8_187, 65_530] {
        let mut rig = Rig::new();
        let start = 0xffff_9000_0000_0000u64;
        for page in 0..pages {
            let at = Gva(start + page * PAGE_SIZE);
            rig.machine.map(at, Pfn(3), Protection::WRITE).unwrap();
        }
        let mdl = rig.call("IoAllocateMdl", &[start, pages * PAGE_SIZE, 0, 0, 0]);
        let size = rig.machine.read_u16(Gva(mdl + 8)).unwrap();
        let bytes = 0x30 + 8 * pages;
        assert_eq!(u64::from(size), bytes & 0xffff);
        let fits = u64::try_from(size.cast_signed()) == Ok(bytes);
        assert_eq!(fits, pages == 4_089, "{pages} pages");
        rig.call("MmProbeAndLockPages", &[mdl, 0, 1]);
        assert_eq!(rig.frames(mdl), vec![Pfn(3); pages as usize]);
        rig.call("MmUnlockPages", &[mdl]);
        rig.call("IoFreeMdl", &[mdl]);
        assert_eq!(rig.state.stats().live, []);
    }
}
