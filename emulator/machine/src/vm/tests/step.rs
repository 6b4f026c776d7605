use super::harness::*;
use crate::vm::{Gpr, RunLimit, StepEnd, Trap};
use iced_x86::code_asm::*;
use memory::Gva;
use std::time::{Duration, Instant};

fn step(machine: &mut Machine, pages: &[Gva]) -> StepEnd {
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_secs(10)),
        stop: None,
    };
    machine
        .vm
        .step_over(&mut machine.space, pages, &limit)
        .unwrap()
}

fn page(index: u64) -> Gva {
    Gva(DATA.0 + index * 0x1000)
}

/// RBX at the data, whose first four pages hold 1, 2, 3, 4 and are trapped.
fn machine(write: impl FnOnce(&mut CodeAssembler)) -> Machine {
    let mut machine = Machine::assemble(write);
    for index in 0..4 {
        let bytes = [index as u8 + 1; 0x1000];
        machine.space.write(page(index), &bytes).unwrap();
    }
    machine.space.trap_range(DATA, 4, true).unwrap();
    machine.set(Gpr::Rbx, DATA.0);
    machine
}

fn faults_at(machine: &mut Machine, address: Gva) {
    let trap = machine.run();
    assert!(
        matches!(trap, Trap::PageFault { address: at, .. } if at == address),
        "{trap:?} instead of a fault at {address}"
    );
}

/// The code is as it was, and the pages are trapped.
fn assert_clean(machine: &Machine, code: &[u8]) {
    let mut now = vec![0; code.len()];
    machine.space.read(CODE, &mut now).unwrap();
    assert_eq!(now, code);
    for index in 0..4 {
        assert!(machine.space.mapping(page(index)).unwrap().trapped);
    }
}

#[test]
fn load_is_stepped_and_the_page_traps_again() {
    let code = |a: &mut CodeAssembler| {
        a.mov(eax, dword_ptr(rbx)).unwrap();
        a.mov(ecx, dword_ptr(rbx + 4)).unwrap();
    };
    let mut machine = machine(code);
    faults_at(&mut machine, DATA);

    assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);

    assert_eq!(machine.get(Gpr::Rax), 0x0101_0101);
    assert_eq!(machine.rip(), Gva(CODE.0 + 2));
    faults_at(&mut machine, Gva(DATA.0 + 4));
    assert_clean(&machine, &assemble(CODE, code));
}

#[test]
fn instruction_that_the_host_does_not_know_is_stepped_in_the_guest() {
    let code = |a: &mut CodeAssembler| {
        a.xadd(dword_ptr(rbx), eax).unwrap();
        a.movups(xmm2, xmmword_ptr(rbx)).unwrap();
    };
    let mut machine = machine(code);
    machine.set(Gpr::Rax, 5);
    faults_at(&mut machine, DATA);

    assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);
    assert_eq!(machine.get(Gpr::Rax), 0x0101_0101);
    faults_at(&mut machine, DATA);
    assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);

    let value = machine.vm.fpu().unwrap().xmm(2).unwrap();
    assert_eq!(value as u64, 0x0101_0101_0101_0106);
    assert_clean(&machine, &assemble(CODE, code));
}

#[test]
fn stepped_pages_trap_again_100_times_of_100() {
    let mut machine = machine(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.add(eax, dword_ptr(rbx)).unwrap();
        a.jmp(top).unwrap();
    });
    for _ in 0..100 {
        faults_at(&mut machine, DATA);
        assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);
    }
    assert_eq!(
        machine.get(Gpr::Rax) as u32,
        0x0101_0101u32.wrapping_mul(100)
    );
}

#[test]
fn access_to_two_trapped_pages_takes_both() {
    let mut machine = machine(|a| {
        a.add(rax, qword_ptr(rbx + 0xffc)).unwrap();
        a.hlt().unwrap();
    });
    faults_at(&mut machine, Gva(DATA.0 + 0xffc));

    let first = step(&mut machine, &[page(0)]);

    assert!(
        matches!(first, StepEnd::Trap(Trap::PageFault { address, .. }) if address == page(1)),
        "{first:?}"
    );
    assert_eq!(step(&mut machine, &[page(0), page(1)]), StepEnd::Done);
    assert_eq!(machine.get(Gpr::Rax), 0x0202_0202_0101_0101);
    assert_eq!(machine.rip(), Gva(CODE.0 + 7));
}

#[test]
fn repeated_copy_faults_once_a_page() {
    let code = |a: &mut CodeAssembler| {
        a.rep().movsb().unwrap();
        a.hlt().unwrap();
    };
    let mut machine = machine(code);
    machine.set(Gpr::Rsi, DATA.0 + 0x800);
    machine.set(Gpr::Rdi, DATA.0 + 0x8000);
    machine.set(Gpr::Rcx, 0x2000);
    faults_at(&mut machine, Gva(DATA.0 + 0x800));

    let mut open = vec![page(0)];
    let mut end = step(&mut machine, &open);
    while let StepEnd::Trap(Trap::PageFault { address, .. }) = end {
        open.push(address.page_base());
        end = step(&mut machine, &open[open.len() - 1..]);
    }

    assert_eq!(end, StepEnd::Done);
    assert_eq!(open, [page(0), page(1), page(2)]);
    assert_eq!(machine.get(Gpr::Rcx), 0);
    let mut copied = vec![0; 0x2000];
    machine
        .space
        .read(Gva(DATA.0 + 0x8000), &mut copied)
        .unwrap();
    let expected = [&[1; 0x800][..], &[2; 0x1000], &[3; 0x800]].concat();
    assert_eq!(copied, expected);
    assert_clean(&machine, &assemble(CODE, code));
}

#[test]
fn calls_and_jumps_through_trapped_memory_arrive() {
    type Write = fn(&mut CodeAssembler);
    let table: [(Write, u64); 3] = [
        (|a| a.call(qword_ptr(rbx)).unwrap(), 1),
        (|a| a.jmp(qword_ptr(rbx)).unwrap(), 0),
        (|a| a.jmp(qword_ptr(rbx + r8 * 8)).unwrap(), 0),
    ];
    // To some other place, and to the instruction itself.
    for target in [CODE.0 + 0x1000, CODE.0] {
        for (write, pushed) in table {
            let mut machine = machine(write);
            machine.space.write_u64(DATA, target).unwrap();
            let stack = machine.get(Gpr::Rsp);
            machine.set(Gpr::R8, 0);
            faults_at(&mut machine, DATA);

            assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);

            assert_eq!(machine.rip(), Gva(target));
            assert_eq!(machine.get(Gpr::Rsp), stack - 8 * pushed);
            if pushed == 1 {
                let back = machine.space.read_u64(Gva(stack - 8)).unwrap();
                assert_eq!(back, CODE.0 + 2);
            }
        }
    }
}

#[test]
fn return_from_a_trapped_stack_arrives() {
    for (code, extra) in [(&[0xc3][..], 0), (&[0xc2, 0x20, 0x00], 0x20)] {
        let mut machine = machine(|a| a.db(code).unwrap());
        machine
            .space
            .write_u64(Gva(DATA.0 + 8), CODE.0 + 0x1000)
            .unwrap();
        machine.set(Gpr::Rsp, DATA.0 + 8);
        faults_at(&mut machine, Gva(DATA.0 + 8));
        assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);
        assert_eq!(machine.rip(), Gva(CODE.0 + 0x1000));
        assert_eq!(machine.get(Gpr::Rsp), DATA.0 + 16 + extra);
    }
}

#[test]
fn call_with_no_stack_is_a_write_fault_at_the_call() {
    let mut machine = machine(|a| a.call(qword_ptr(rbx)).unwrap());
    machine.set(Gpr::Rsp, 0x2000);
    faults_at(&mut machine, DATA);
    let end = step(&mut machine, &[DATA]);
    assert_eq!(
        end,
        StepEnd::Trap(Trap::PageFault {
            address: Gva(0x1ff8),
            write: true,
            fetch: false,
            present: false,
            rip: CODE
        })
    );
    assert_eq!(machine.rip(), CODE);
}

#[test]
fn conditional_branch_in_a_trapped_code_page_is_stepped() {
    // (condition, ZF, taken)
    for (opcode, rflags, taken) in [(0x74, 0x40, true), (0x74, 0, false), (0x75, 0, true)] {
        let mut machine = Machine::new(&[opcode, 0xfe]);
        let mut registers = machine.vm.registers();
        registers.rflags = rflags;
        machine.vm.set_registers(&registers).unwrap();
        machine.space.trap_accesses(CODE).unwrap();
        faults_at(&mut machine, CODE);
        assert_eq!(step(&mut machine, &[CODE]), StepEnd::Done);
        let next = if taken { CODE.0 } else { CODE.0 + 2 };
        assert_eq!(machine.rip(), Gva(next), "{opcode:#x}");
    }
}

#[test]
fn instruction_at_the_end_of_a_page_is_stepped() {
    // The successor is in the next page: mapped, then not mapped.
    for last in [CODE.0 + 0x1000, CODE.0 + 0x4000] {
        let mut machine = machine(|_| {});
        let at = Gva(last - 2);
        machine.space.write(at, &[0x03, 0x03]).unwrap(); // add eax, [rbx]
        machine.jump(at);
        faults_at(&mut machine, DATA);
        assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);
        assert_eq!(machine.rip(), Gva(last));
    }
}

#[test]
fn instruction_that_crosses_pages_is_stepped() {
    let mut machine = machine(|_| {});
    let at = Gva(CODE.0 + 0xffe);
    machine
        .space
        .write(at, &[0x81, 0x03, 0x01, 0x00, 0x00, 0x00, 0x90]) // add dword [rbx], 1
        .unwrap();
    machine.jump(at);
    faults_at(&mut machine, DATA);
    assert_eq!(step(&mut machine, &[DATA]), StepEnd::Done);
    assert_eq!(machine.rip(), Gva(at.0 + 6));
    assert_eq!(machine.space.read_u64(DATA).unwrap() as u32, 0x0101_0102);
}

#[test]
fn stepped_store_respects_protection() {
    let mut machine = machine(|a| a.mov(dword_ptr(rbx), eax).unwrap());
    machine
        .space
        .protect(DATA, crate::vm::Protection::READ_ONLY)
        .unwrap();
    faults_at(&mut machine, DATA);
    let end = step(&mut machine, &[DATA]);
    assert!(
        matches!(
            end,
            StepEnd::Trap(Trap::PageFault {
                write: true,
                present: true,
                ..
            })
        ),
        "{end:?}"
    );
    assert!(machine.space.mapping(DATA).unwrap().trapped);
}

#[test]
fn copy_from_a_trapped_page_to_mmio_shows_the_write() {
    let code = |a: &mut CodeAssembler| {
        a.movsd().unwrap();
        a.hlt().unwrap();
    };
    let mut machine = machine(code);
    machine.set(Gpr::Rsi, DATA.0);
    machine.set(Gpr::Rdi, MMIO.0);
    faults_at(&mut machine, DATA);
    let end = step(&mut machine, &[DATA]);
    assert!(
        matches!(
            end,
            StepEnd::Trap(Trap::Mmio {
                write: Some([1, 1, 1, 1, ..]),
                ..
            })
        ),
        "{end:?}"
    );
    assert_clean(&machine, &assemble(CODE, code));
    assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
    assert_eq!(machine.rip(), Gva(CODE.0 + 1));
}

/// What the host does itself must give what the processor gives.
#[test]
fn host_and_processor_agree_on_simple_instructions() {
    let instructions: &[&[u8]] = &[
        &[0x8b, 0x03],                               // mov eax, [rbx]
        &[0x48, 0x8b, 0x03],                         // mov rax, [rbx]
        &[0x66, 0x8b, 0x03],                         // mov ax, [rbx]
        &[0x8a, 0x23],                               // mov ah, [rbx]
        &[0x0f, 0xb6, 0x03],                         // movzx eax, byte [rbx]
        &[0x0f, 0xb7, 0x03],                         // movzx eax, word [rbx]
        &[0x48, 0x0f, 0xbe, 0x03],                   // movsx rax, byte [rbx]
        &[0x0f, 0xbf, 0x03],                         // movsx eax, word [rbx]
        &[0x48, 0x63, 0x03],                         // movsxd rax, dword [rbx]
        &[0x66, 0x0f, 0xbe, 0x03],                   // movsx ax, byte [rbx]
        &[0x89, 0x03],                               // mov [rbx], eax
        &[0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff], // mov qword [rbx], -2
        &[0x3b, 0x03],                               // cmp eax, [rbx]
        &[0x39, 0x03],                               // cmp [rbx], eax
        &[0x38, 0x23],                               // cmp [rbx], ah
        &[0x66, 0x83, 0x3b, 0xff],                   // cmp word [rbx], -1
        &[0x83, 0x3b, 0x7f],                         // cmp dword [rbx], 127
        &[0x48, 0x81, 0x3b, 0x00, 0x00, 0x00, 0x80], // cmp qword [rbx], -2^31
        &[0x80, 0x3b, 0x80],                         // cmp byte [rbx], 80h
        &[0x85, 0x03],                               // test [rbx], eax
        &[0xf6, 0x03, 0x81],                         // test byte [rbx], 81h
        &[0xf7, 0x03, 0x00, 0x00, 0x00, 0x80],       // test dword [rbx], 80000000h
    ];
    let values: &[u64] = &[
        0,
        1,
        0x7f,
        0x80,
        0x8000_0000,
        0x7fff_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
        0x0123_4567_89ab_cdef,
    ];
    let mut machine = Machine::new(&[]);
    machine.set(Gpr::Rbx, DATA.0);
    for code in instructions {
        machine.space.write(CODE, code).unwrap();
        let next = Gva(CODE.0 + code.len() as u64);
        machine.space.write(next, &[0xf4]).unwrap();
        for value in values {
            for old in [0x8877_6655_4433_2211, *value] {
                let set_up = |machine: &mut Machine| {
                    machine.space.write_u64(DATA, *value).unwrap();
                    machine.set(Gpr::Rax, old);
                    machine.jump(CODE);
                };
                set_up(&mut machine);
                assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
                let by_processor = machine.vm.registers();
                let left = machine.space.read_u64(DATA).unwrap();

                set_up(&mut machine);
                let exits = machine.vm.exits();
                assert_eq!(step(&mut machine, &[]), StepEnd::Done);

                assert_eq!(machine.vm.exits(), exits, "{code:x?} entered the guest");
                let mut by_host = machine.vm.registers();
                // AF is undefined after TEST.
                let is_test = matches!(code[0], 0x85 | 0xf6 | 0xf7);
                let mut expected = by_processor;
                if is_test {
                    by_host.rflags &= !0x10;
                    expected.rflags &= !0x10;
                }
                assert_eq!(by_host, expected, "{code:x?} {value:#x} {old:#x}");
                assert_eq!(machine.space.read_u64(DATA).unwrap(), left);
            }
        }
    }
}
