//! Prints what things cost on this host:
//! `cargo test -p dmasan-machine --release costs -- --ignored --nocapture`.

use super::harness::*;
use crate::vm::{Gpr, RunLimit, StepEnd, Trap};
use iced_x86::code_asm::*;
use memory::Gva;
use std::time::Instant;

const ROUNDS: u32 = 1000;

fn measure(name: &str, mut what: impl FnMut()) {
    what();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        what();
    }
    let us = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!("{name:40} {us:8.1} us");
}

#[test]
#[ignore = "a measurement"]
fn costs() {
    let mut machine = Machine::assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.out(0xe0, eax).unwrap();
        a.jmp(top).unwrap();
    });
    let mut count = 0;
    measure("port trap, RAX changed", || {
        count += 1;
        machine.set(Gpr::Rax, count);
        assert!(matches!(machine.run(), Trap::Port { .. }));
    });

    let mut machine = Machine::assemble(|a| a.hlt().unwrap());
    measure("general protection trap", || {
        assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
    });

    let mut machine = Machine::assemble(|a| a.mov(eax, dword_ptr(rbx)).unwrap());
    machine.set(Gpr::Rbx, 0x1000);
    measure("page fault trap", || {
        assert!(matches!(machine.run(), Trap::PageFault { .. }));
    });

    let mut machine = Machine::assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.mov(dword_ptr(rbx), eax).unwrap();
        a.jmp(top).unwrap();
    });
    machine.set(Gpr::Rbx, MMIO.0);
    measure("mmio write trap", || {
        assert!(matches!(machine.run(), Trap::Mmio { .. }));
    });

    let mut machine = Machine::assemble(|a| {
        a.mov(eax, dword_ptr(rbx)).unwrap();
        a.out(0xe0, eax).unwrap();
    });
    machine.set(Gpr::Rbx, DATA.0);
    measure("read, port trap", || {
        machine.jump(CODE);
        assert!(matches!(machine.run(), Trap::Port { .. }));
    });
    measure("unmap, map, read, port trap", || {
        let old = machine.space.unmap(DATA).unwrap();
        machine.space.map(DATA, old.frame, old.protection).unwrap();
        machine.jump(CODE);
        assert!(matches!(machine.run(), Trap::Port { .. }));
    });

    for (name, code) in [
        ("step over a load (by the host)", &[0x8b, 0x03][..]),
        ("step over an add (planted hlt)", &[0x03, 0x03]),
    ] {
        let mut machine = Machine::new(code);
        machine.set(Gpr::Rbx, DATA.0);
        machine.space.trap_accesses(DATA).unwrap();
        measure(name, || {
            machine.jump(CODE);
            let limit = RunLimit::default();
            let end = machine
                .vm
                .step_over(&mut machine.space, &[DATA], &limit)
                .unwrap();
            assert_eq!(end, StepEnd::Done);
        });
    }

    let machine = Machine::new(&[]);
    let mut bytes = [0; 8];
    measure("host read of the driver's memory", || {
        machine.space.read(Gva(DATA.0 + 8), &mut bytes).unwrap();
    });
    let mut machine = Machine::new(&[]);
    let state = machine.vm.save_cpu().unwrap();
    measure("save_cpu + restore_cpu", || {
        machine.vm.save_cpu().unwrap();
        machine.vm.restore_cpu(&state).unwrap();
    });
    measure("new machine", || {
        crate::vm::Vm::new(&machine.space).unwrap();
    });
}
