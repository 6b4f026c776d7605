use super::harness::*;
use crate::vm::{Gpr, Protection, Trap};
use iced_x86::code_asm::*;
use memory::{Gva, Pfn, Tracker};

/// Reads [rbx], then comes back to the host; forever.
fn reader() -> Machine {
    let mut machine = Machine::assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.mov(ecx, dword_ptr(rbx)).unwrap();
        a.out(0xe0, eax).unwrap();
        a.jmp(top).unwrap();
    });
    machine.set(Gpr::Rbx, DATA.0);
    machine
}

fn writer() -> Machine {
    let mut machine = Machine::assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.mov(dword_ptr(rbx), ecx).unwrap();
        a.out(0xe0, eax).unwrap();
        a.jmp(top).unwrap();
    });
    machine.set(Gpr::Rbx, DATA.0);
    machine
}

fn fault(address: Gva, write: bool, fetch: bool, present: bool, rip: Gva) -> Trap {
    Trap::PageFault {
        address,
        write,
        fetch,
        present,
        rip,
    }
}

#[test]
fn unmapped_page_faults_1000_times_of_1000() {
    let mut machine = reader();
    let mut stale = 0;
    for _ in 0..1000 {
        assert!(matches!(machine.run(), Trap::Port { .. }));
        machine.jump(CODE);
        let old = machine.space.unmap(DATA).unwrap();
        if machine.run() != fault(DATA, false, false, false, CODE) {
            stale += 1;
        }
        machine.jump(CODE);
        machine.space.map(DATA, old.frame, old.protection).unwrap();
    }
    assert_eq!(stale, 0);
}

#[test]
fn trapped_page_faults_1000_times_of_1000() {
    let mut machine = reader();
    machine.space.write(DATA, &[1, 2, 3, 4]).unwrap();
    let mut stale = 0;
    for _ in 0..1000 {
        assert!(matches!(machine.run(), Trap::Port { .. }));
        assert_eq!(machine.get(Gpr::Rcx), 0x0403_0201);
        machine.jump(CODE);
        machine.space.trap_accesses(DATA).unwrap();
        if machine.run() != fault(DATA, false, false, false, CODE) {
            stale += 1;
        }
        machine.space.untrap(DATA).unwrap();
    }
    assert_eq!(stale, 0);
}

#[test]
fn remapped_page_shows_the_new_frame_200_times_of_200() {
    let mut machine = reader();
    let frames = [DATA_FRAME, Pfn(DATA_FRAME.0 + 9)];
    for (index, frame) in frames.iter().enumerate() {
        let memory = machine.space.memory();
        memory.write_u32(frame.base(), index as u32 + 1).unwrap();
    }
    for round in 0..200 {
        assert!(matches!(machine.run(), Trap::Port { .. }));
        assert_eq!(machine.get(Gpr::Rcx), round % 2 + 1);
        machine.space.unmap(DATA).unwrap();
        let next = frames[(round as usize + 1) % 2];
        machine.space.map(DATA, next, Protection::DATA).unwrap();
    }
}

#[test]
fn page_made_read_only_faults_100_times_of_100() {
    let mut machine = writer();
    for _ in 0..100 {
        assert!(matches!(machine.run(), Trap::Port { .. }));
        machine.jump(CODE);
        machine.space.protect(DATA, Protection::READ_ONLY).unwrap();
        assert_eq!(machine.run(), fault(DATA, true, false, true, CODE));
        machine.space.protect(DATA, Protection::DATA).unwrap();
    }
}

#[test]
fn page_made_writable_takes_the_write_100_times_of_100() {
    let mut machine = reader();
    let store = assemble(Gva(CODE.0 + 0x100), |a| {
        a.mov(dword_ptr(rbx), ecx).unwrap();
        a.out(0xe0, eax).unwrap();
    });
    machine.space.write(Gva(CODE.0 + 0x100), &store).unwrap();
    for _ in 0..100 {
        machine.space.protect(DATA, Protection::READ_ONLY).unwrap();
        machine.jump(CODE);
        assert!(matches!(machine.run(), Trap::Port { .. }));
        machine.space.protect(DATA, Protection::DATA).unwrap();
        machine.jump(Gva(CODE.0 + 0x100));
        assert!(matches!(machine.run(), Trap::Port { .. }));
    }
}

#[test]
fn scattered_pages_unmapped_together_all_fault() {
    let mut machine = reader();
    let pages: Vec<u64> = vec![0, 1, 2, 5, 15];
    for page in &pages {
        machine.set(Gpr::Rbx, DATA.0 + page * 0x1000);
        assert!(matches!(machine.run(), Trap::Port { .. }));
        machine.jump(CODE);
    }
    for page in &pages {
        machine.space.unmap(Gva(DATA.0 + page * 0x1000)).unwrap();
    }
    for page in &pages {
        let at = Gva(DATA.0 + page * 0x1000);
        machine.set(Gpr::Rbx, at.0);
        assert_eq!(machine.run(), fault(at, false, false, false, CODE));
    }
    machine.set(Gpr::Rbx, DATA.0 + 0x3000);
    assert!(matches!(machine.run(), Trap::Port { .. }));
}

#[test]
fn many_scattered_pages_unmapped_together_all_fault() {
    let mut machine = reader();
    let far = |index: u64| Gva(0xffff_a000_0000_0000 + index * 0x1000);
    for index in 0..40 {
        // Frames far enough apart not to be joined.
        let frame = Pfn(16 + index * 12);
        machine
            .space
            .map(far(index), frame, Protection::DATA)
            .unwrap();
        machine.set(Gpr::Rbx, far(index).0);
        machine.jump(CODE);
        assert!(matches!(machine.run(), Trap::Port { .. }));
    }
    for index in 0..40 {
        machine.space.unmap(far(index)).unwrap();
    }
    for index in 0..40 {
        machine.set(Gpr::Rbx, far(index).0);
        machine.jump(CODE);
        assert_eq!(machine.run(), fault(far(index), false, false, false, CODE));
    }
}

#[test]
fn range_is_trapped_and_untrapped_at_once() {
    let mut machine = reader();
    machine.run();
    machine.jump(CODE);
    machine.space.unmap(Gva(DATA.0 + 0x2000)).unwrap();
    assert_eq!(machine.space.trap_range(DATA, 16, true).unwrap(), 15);
    assert_eq!(machine.run(), fault(DATA, false, false, false, CODE));
    assert_eq!(machine.space.trap_range(DATA, 16, false).unwrap(), 15);
    assert!(matches!(machine.run(), Trap::Port { .. }));
}

#[test]
fn data_page_is_not_executable() {
    let mut machine = reader();
    machine.jump(DATA);
    assert_eq!(machine.run(), fault(DATA, false, true, true, DATA));
}

#[test]
fn code_page_is_not_writable() {
    let mut machine = writer();
    machine.set(Gpr::Rbx, CODE.0);
    assert_eq!(machine.run(), fault(CODE, true, false, true, CODE));
}

#[test]
fn null_call_is_a_fetch_fault() {
    let mut machine = reader();
    machine.jump(Gva(0));
    assert_eq!(machine.run(), fault(Gva(0), false, true, false, Gva(0)));
}

#[test]
fn address_that_is_not_canonical_is_a_general_protection_fault() {
    let mut machine = reader();
    machine.set(Gpr::Rbx, 0x8000_0000_0000_0000);
    let trap = machine.run();
    assert_eq!(
        trap,
        Trap::GeneralProtection {
            rip: CODE,
            error: 0
        }
    );
}

#[test]
fn machines_own_pages_are_out_of_reach() {
    for mut machine in [reader(), writer()] {
        let stack = Gva(crate::vm::SYSTEM_BASE.0 + 0x3000);
        machine.set(Gpr::Rbx, stack.0);
        let trap = machine.run();
        assert!(
            matches!(trap, Trap::PageFault { address, present: true, .. } if address == stack),
            "{trap:?}"
        );
    }
}

#[test]
fn code_that_the_host_writes_is_what_runs() {
    let mut machine = Machine::new(&[0xb8, 0, 0, 0, 0, 0xe7, 0xe0]);
    for round in 1..100u8 {
        machine.space.write(Gva(CODE.0 + 1), &[round]).unwrap();
        machine.jump(CODE);
        assert!(matches!(machine.run(), Trap::Port { value, .. } if value == u32::from(round)));
    }
}

#[test]
fn restored_address_space_is_the_old_one() {
    let mut machine = reader();
    machine.run();
    let cpu = machine.vm.save_cpu().unwrap();
    let space = machine.space.save();
    let memory = machine.space.memory().clone();
    let mut tracker = Tracker::new(&memory).unwrap();
    machine.vm.written().unwrap();
    let image = tracker.image().clone();
    for round in 0..20u32 {
        // Maps that did not exist, through page tables that did not exist.
        let fresh = Gva(0xffff_9000_0000_0000 + (u64::from(round) << 30));
        let protection = Protection::DATA;
        machine.space.map(fresh, DATA_FRAME, protection).unwrap();
        machine.set(Gpr::Rbx, fresh.0);
        assert!(matches!(machine.run(), Trap::Port { .. }));
        machine.space.unmap(DATA).unwrap();

        let written = machine.vm.written().unwrap();
        tracker.update(&memory, &written).unwrap();
        let changed = tracker.restore(&memory, &image).unwrap();
        machine.space.restore(&space, &changed);
        machine.vm.restore_cpu(&cpu).unwrap();

        assert!(matches!(machine.run(), Trap::Port { .. }));
        machine.set(Gpr::Rbx, fresh.0);
        machine.jump(CODE);
        assert_eq!(machine.run(), fault(fresh, false, false, false, CODE));
    }
}
