use super::harness::*;
use crate::vm::{Gpr, Registers, RunLimit, Trap, VmError, probe, thunk};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use memory::Gva;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const ELSEWHERE: Gva = Gva(CODE.0 + 0x1000);

fn general_protection(rip: u64) -> Trap {
    Trap::GeneralProtection {
        rip: Gva(rip),
        error: 0,
    }
}

/// After the trap at the start of `machine`, send it elsewhere with every
/// register changed: it must arrive with exactly these.
fn assert_redirects(machine: &mut Machine) {
    machine.space.write(ELSEWHERE, &[0xf4]).unwrap();
    let mut wanted = Registers {
        rip: ELSEWHERE.0,
        rflags: 0x202 | 0x8c5, // OF SF ZF PF CF
        ..Registers::default()
    };
    for (index, value) in wanted.gpr.iter_mut().enumerate() {
        *value = 0x1111_1111_0000_0000 * (index as u64 % 15 + 1) + index as u64;
    }
    wanted[Gpr::Rsp] = STACK_TOP - 0x808;

    machine.vm.set_registers(&wanted).unwrap();

    assert_eq!(machine.run(), general_protection(ELSEWHERE.0));
    assert_eq!(machine.vm.registers(), wanted);
}

fn machine_at(write: fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Machine {
    let mut machine = Machine::assemble(|a| write(a).unwrap());
    machine.set(Gpr::Rbx, MMIO.0);
    machine
}

#[test]
fn thunk_reaches_the_host_with_its_index() {
    let mut machine = Machine::new(&thunk::call(0x1234_5678));
    machine.push(ELSEWHERE.0);
    machine.space.write(ELSEWHERE, &[0xf4]).unwrap();

    let trap = machine.run();

    assert_eq!(
        trap,
        Trap::Port {
            port: thunk::CALL_PORT,
            value: 0x1234_5678,
            size: 4
        }
    );
    assert_eq!(machine.rip(), Gva(CODE.0 + 7));
    machine.set(Gpr::Rax, 0xffff_ffff_c000_0001);
    assert_eq!(machine.run(), general_protection(ELSEWHERE.0));
    assert_eq!(machine.get(Gpr::Rax), 0xffff_ffff_c000_0001);
    assert_eq!(machine.get(Gpr::Rsp), STACK_TOP - 0x100);
}

#[test]
fn many_thunks_in_a_row_each_return() {
    let mut machine = Machine::new(&thunk::table(0, 300));
    for index in 0..300 {
        machine.push(ELSEWHERE.0);
        machine.jump(Gva(CODE.0 + 8 * index));
        let trap = machine.run();
        assert!(matches!(trap, Trap::Port { value, .. } if u64::from(value) == index));
        assert_eq!(machine.rip(), Gva(CODE.0 + 8 * index + 7));
    }
}

#[test]
fn return_thunk_keeps_rax() {
    let mut machine = Machine::new(&thunk::routine_return());
    machine.set(Gpr::Rax, 0x8765_4321_1234_5678);
    for _ in 0..2 {
        // Twice, to the very instruction that KVM has not finished yet.
        machine.jump(CODE);
        let trap = machine.run();
        assert_eq!(
            trap,
            Trap::Port {
                port: thunk::RETURN_PORT,
                value: 0x1234_5678,
                size: 4
            }
        );
        assert_eq!(machine.rip(), Gva(CODE.0 + 2));
        assert_eq!(machine.get(Gpr::Rax), 0x8765_4321_1234_5678);
    }
}

#[test]
fn two_outputs_side_by_side_are_two_traps() {
    let mut machine = machine_at(|a| {
        a.out(u32::from(thunk::CALL_PORT), eax)?;
        a.out(u32::from(thunk::CALL_PORT), eax)?;
        a.out(u32::from(thunk::CALL_PORT), eax)?;
        a.hlt()
    });
    for index in 1..=3 {
        assert!(matches!(machine.run(), Trap::Port { .. }));
        assert_eq!(machine.rip(), Gva(CODE.0 + 2 * index));
    }
    assert_eq!(machine.run(), general_protection(CODE.0 + 6));
}

#[test]
fn port_trap_can_be_redirected() {
    let mut machine = Machine::new(&thunk::call(1));
    for _ in 0..2 {
        machine.jump(CODE);
        assert!(matches!(machine.run(), Trap::Port { .. }));
        assert_redirects(&mut machine);
    }
}

#[test]
fn output_through_dx_can_be_redirected() {
    let mut machine = machine_at(|a| a.out(dx, eax));
    for _ in 0..2 {
        machine.jump(CODE);
        machine.set(Gpr::Rdx, u64::from(thunk::CALL_PORT));
        assert!(matches!(machine.run(), Trap::Port { .. }));
        assert_eq!(machine.rip(), Gva(CODE.0 + 1));
        assert_redirects(&mut machine);
    }
}

#[test]
fn mmio_write_can_be_redirected() {
    let mut machine = machine_at(|a| a.mov(dword_ptr(rbx), eax));
    assert!(matches!(machine.run(), Trap::Mmio { write: Some(_), .. }));
    assert_redirects(&mut machine);
}

#[test]
fn mmio_read_can_be_redirected_once_answered() {
    let mut machine = machine_at(|a| a.mov(eax, dword_ptr(rbx)));
    assert!(matches!(machine.run(), Trap::Mmio { write: None, .. }));
    let registers = machine.vm.registers();
    assert!(matches!(
        machine.vm.set_registers(&registers),
        Err(VmError::UnansweredRead)
    ));
    machine.vm.finish_mmio_read([0; 8]).unwrap();
    assert_redirects(&mut machine);
}

#[test]
fn page_fault_can_be_redirected() {
    let mut machine = machine_at(|a| a.mov(eax, dword_ptr(0x1234)));
    assert_eq!(
        machine.run(),
        Trap::PageFault {
            address: Gva(0x1234),
            write: false,
            fetch: false,
            present: false,
            rip: CODE
        }
    );
    assert_redirects(&mut machine);
}

#[test]
fn general_protection_can_be_redirected() {
    let mut machine = machine_at(|a| a.cli());
    assert_eq!(machine.run(), general_protection(CODE.0));
    assert_redirects(&mut machine);
}

#[test]
fn invalid_opcode_can_be_redirected() {
    let mut machine = machine_at(|a| a.ud2());
    assert_eq!(machine.run(), Trap::InvalidOpcode { rip: CODE });
    assert_redirects(&mut machine);
}

#[test]
fn divide_error_can_be_redirected() {
    let mut machine = machine_at(|a| a.div(ecx));
    assert_eq!(machine.run(), Trap::DivideError { rip: CODE });
    assert_redirects(&mut machine);
}

#[test]
fn breakpoint_can_be_redirected() {
    let mut machine = machine_at(|a| a.int3());
    assert_eq!(machine.run(), Trap::Breakpoint { rip: CODE });
    assert_eq!(machine.rip(), Gva(CODE.0 + 1));
    assert_redirects(&mut machine);
}

#[test]
fn exception_shows_the_registers_of_the_driver() {
    let mut machine = machine_at(|a| a.hlt());
    let mut wanted = machine.vm.registers();
    for (index, value) in wanted.gpr.iter_mut().enumerate() {
        *value = !(index as u64);
    }
    machine.vm.set_registers(&wanted).unwrap();

    machine.run();

    assert_eq!(machine.vm.registers(), wanted);
}

#[test]
fn privileged_instructions_trap() {
    // (bytes, name)
    let table: &[(&[u8], &str)] = &[
        (&[0xfa], "cli"),
        (&[0xfb], "sti"),
        (&[0xf4], "hlt"),
        (&[0x44, 0x0f, 0x20, 0xc0], "mov rax, cr8"),
        (&[0x44, 0x0f, 0x22, 0xc0], "mov cr8, rax"),
        (&[0x0f, 0x20, 0xd8], "mov rax, cr3"),
        (&[0x0f, 0x23, 0xf8], "mov dr7, rax"),
        (&[0x0f, 0x32], "rdmsr"),
        (&[0x0f, 0x30], "wrmsr"),
        (&[0x0f, 0x01, 0xf8], "swapgs"),
        (&[0x0f, 0x01, 0x3b], "invlpg [rbx]"),
        (&[0x0f, 0x09], "wbinvd"),
        (&[0xec], "in al, dx"),
        (&[0xee], "out dx, al"),
        (&[0xe6, 0x0d], "out 0dh, al: the port of an exception stub"),
        (&[0xe6, 0x80], "out 80h, al"),
        (&[0xe7, 0xdd], "out 0ddh, eax: overlaps a permitted port"),
        (&[0xe7, 0xe8], "out 0e8h, eax: just above those"),
    ];
    let mut machine = Machine::new(&[]);
    machine.set(Gpr::Rdx, 0x3f8);
    for (code, name) in table {
        machine.space.write(CODE, code).unwrap();
        machine.jump(CODE);
        assert_eq!(machine.run(), general_protection(CODE.0), "{name}");
    }
}

#[test]
fn fast_fail_stops_at_the_instruction() {
    let mut machine = Machine::new(&[0xcd, 0x29]);
    let trap = machine.run();
    // #GP(29h * 8 + 2) by the architecture, #UD on some hosts.
    assert!(
        matches!(
            trap,
            Trap::GeneralProtection { rip: CODE, .. } | Trap::InvalidOpcode { rip: CODE }
        ),
        "{trap:?}"
    );
}

#[test]
fn endless_loop_times_out_with_its_registers() {
    let mut machine = machine_at(|a| {
        a.mov(eax, 7)?;
        a.db(&[0xeb, 0xfe])
    });
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_millis(60)),
        stop: None,
    };

    let trap = machine.vm.run(&mut machine.space, &limit).unwrap();

    assert_eq!(trap, Trap::Timeout);
    assert_eq!(machine.rip(), Gva(CODE.0 + 5));
    assert_eq!(machine.get(Gpr::Rax), 7);
    assert_redirects(&mut machine);
}

#[test]
fn stop_flag_interrupts_an_endless_loop() {
    let mut machine = machine_at(|a| a.db(&[0xeb, 0xfe]));
    let stop = AtomicBool::new(false);
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_secs(10)),
        stop: Some(&stop),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(40));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let trap = machine.vm.run(&mut machine.space, &limit).unwrap();
        assert_eq!(trap, Trap::Interrupted);
    });
}

#[test]
fn machine_moves_to_another_thread() {
    let mut machine = machine_at(|a| a.db(&[0xeb, 0xfe]));
    let limit = || RunLimit {
        deadline: Some(Instant::now() + Duration::from_millis(30)),
        stop: None,
    };
    let trap = machine.vm.run(&mut machine.space, &limit()).unwrap();
    assert_eq!(trap, Trap::Timeout);
    let trap = std::thread::spawn(move || machine.vm.run(&mut machine.space, &limit()).unwrap())
        .join()
        .unwrap();
    assert_eq!(trap, Trap::Timeout);
}

#[test]
fn ticks_do_not_disturb_a_computation() {
    // 200 million rounds, some hundred milliseconds.
    let mut machine = machine_at(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 200_000_000)?;
        a.xor(eax, eax)?;
        a.set_label(&mut top)?;
        a.add(rax, rcx)?;
        a.dec(ecx)?;
        a.jne(top)?;
        a.hlt()
    });
    assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
    assert_eq!(machine.get(Gpr::Rax), 200_000_000 * 200_000_001 / 2);
}

#[test]
fn jump_into_the_machines_own_pages_faults() {
    let mut machine = Machine::new(&[]);
    let stub = Gva(crate::vm::SYSTEM_BASE.0 + 0x2000);
    machine.jump(stub);
    let trap = machine.run();
    assert!(
        matches!(trap, Trap::PageFault { address, fetch: true, present: true, .. } if address == stub),
        "{trap:?}"
    );
}

#[test]
fn machine_works_without_shared_registers() {
    let mut machine = machine_at(|a| {
        a.out(u32::from(thunk::CALL_PORT), eax)?;
        a.mov(dword_ptr(rbx), eax)?;
        a.mov(ecx, dword_ptr(rbx))?;
        a.mov(edx, dword_ptr(0x123))
    });
    machine.vm.sync_regs = false;
    machine.set(Gpr::Rax, 5);
    assert!(matches!(machine.run(), Trap::Port { value: 5, .. }));
    machine.set(Gpr::Rax, 6);
    let write = Some([6, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(machine.run(), Trap::Mmio { write: w, .. } if w == write));
    assert!(matches!(machine.run(), Trap::Mmio { write: None, .. }));
    machine.vm.finish_mmio_read([7; 8]).unwrap();
    assert_eq!(machine.get(Gpr::Rcx), 0x0707_0707);
    assert!(matches!(
        machine.run(),
        Trap::PageFault {
            address: Gva(0x123),
            ..
        }
    ));
    assert_redirects(&mut machine);
}

#[test]
fn instruction_that_kvm_cannot_emulate_on_mmio_is_fatal() {
    let mut machine = machine_at(|a| a.pxor(xmm0, xmmword_ptr(rbx)));
    let trap = machine.run();
    assert!(
        matches!(&trap, Trap::Fatal(reason) if reason.contains("emulate")),
        "{trap:?}"
    );
}

#[test]
fn machine_without_its_stubs_is_fatal() {
    let mut machine = machine_at(|a| a.hlt());
    for page in 0..crate::vm::SYSTEM_PAGES {
        let at = Gva(crate::vm::SYSTEM_BASE.0 + page * 0x1000);
        machine.space.unmap(at).unwrap();
    }
    let trap = machine.run();
    assert!(matches!(trap, Trap::Fatal(_)), "{trap:?}");
}

#[test]
fn probe_measures_this_host() {
    let facts = probe().expect("these tests need a usable /dev/kvm");
    assert_eq!(facts.api_version, 12);
    assert!(facts.exit_us > 0.1, "{facts:?}");
}
