use super::harness::*;
use crate::vm::{Gpr, Trap, VmError};
use iced_x86::code_asm::*;
use memory::{Gpa, Gva};

const ANSWER: [u8; 8] = [0x81, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7, 0xf8];

fn at(offset: u64, size: u8, write: Option<[u8; 8]>, rip: u64) -> Trap {
    Trap::Mmio {
        gpa: Gpa(MMIO_GPA + offset),
        size,
        write,
        rip: Gva(rip),
    }
}

fn machine(code: &[u8]) -> Machine {
    let mut machine = Machine::new(code);
    machine.set(Gpr::Rbx, MMIO.0 + 0x10);
    machine.set(Gpr::Rax, 0x1122_3344_5566_7788);
    machine
}

#[test]
fn reads_of_each_size_take_the_answer() {
    // (instruction, size, RAX after)
    type Row = (&'static [u8], u8, u64);
    let table: [Row; 5] = [
        (&[0x8a, 0x03], 1, 0x1122_3344_5566_7781),
        (&[0x66, 0x8b, 0x03], 2, 0x1122_3344_5566_9281),
        (&[0x8b, 0x03], 4, 0xb4a3_9281),
        (&[0x48, 0x8b, 0x03], 8, 0xf8e7_d6c5_b4a3_9281),
        (&[0x48, 0x0f, 0xbe, 0x03], 1, 0xffff_ffff_ffff_ff81), // movsx rax, byte
    ];
    for (code, size, after) in table {
        let mut machine = machine(code);
        machine
            .space
            .write(Gva(CODE.0 + code.len() as u64), &[0xf4])
            .unwrap();

        assert_eq!(machine.run(), at(0x10, size, None, CODE.0), "{code:x?}");
        assert_eq!(machine.rip(), CODE);
        machine.vm.finish_mmio_read(ANSWER).unwrap();

        assert_eq!(machine.get(Gpr::Rax), after, "{code:x?}");
        assert_eq!(machine.rip(), Gva(CODE.0 + code.len() as u64));
        assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
    }
}

#[test]
fn writes_of_each_size_show_what_is_written() {
    type Row = (&'static [u8], u8, [u8; 8]);
    let table: [Row; 5] = [
        (&[0x88, 0x03], 1, [0x88, 0, 0, 0, 0, 0, 0, 0]),
        (&[0x66, 0x89, 0x03], 2, [0x88, 0x77, 0, 0, 0, 0, 0, 0]),
        (&[0x89, 0x03], 4, [0x88, 0x77, 0x66, 0x55, 0, 0, 0, 0]),
        (
            &[0x48, 0x89, 0x03],
            8,
            [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11],
        ),
        (&[0xc6, 0x03, 0x5a], 1, [0x5a, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (code, size, written) in table {
        let mut machine = machine(code);
        let next = CODE.0 + code.len() as u64;
        assert_eq!(machine.run(), at(0x10, size, Some(written), next));
        assert_eq!(machine.rip(), Gva(next));
        assert!(!machine.vm.mid_instruction());
    }
}

#[test]
fn read_without_an_answer_cannot_go_on() {
    let mut machine = machine(&[0x8b, 0x03]);
    machine.run();
    let result = machine.vm.run(&mut machine.space, &Default::default());
    assert!(matches!(result, Err(VmError::UnansweredRead)));
}

#[test]
fn answer_without_a_read_is_an_error() {
    let mut machine = machine(&[0xf4]);
    machine.run();
    let result = machine.vm.finish_mmio_read(ANSWER);
    assert!(matches!(result, Err(VmError::NothingToAnswer)));
}

#[test]
fn wide_read_comes_in_parts() {
    let mut machine = Machine::assemble(|a| {
        a.movups(xmm3, xmmword_ptr(rbx)).unwrap();
        a.hlt().unwrap();
    });
    machine.set(Gpr::Rbx, MMIO.0);

    assert_eq!(machine.run(), at(0, 8, None, CODE.0));
    machine.vm.finish_mmio_read([1; 8]).unwrap();
    assert!(machine.vm.mid_instruction());
    let registers = machine.vm.registers();
    assert!(matches!(
        machine.vm.set_registers(&registers),
        Err(VmError::MidInstruction)
    ));
    assert_eq!(machine.run(), at(8, 8, None, CODE.0));
    machine.vm.finish_mmio_read([2; 8]).unwrap();
    assert!(!machine.vm.mid_instruction());

    assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
    let value = machine.vm.fpu().unwrap().xmm(3).unwrap();
    assert_eq!(
        value,
        u128::from_le_bytes([1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2])
    );
}

#[test]
fn wide_write_comes_in_parts() {
    let mut machine = Machine::assemble(|a| {
        a.movups(xmmword_ptr(rbx), xmm3).unwrap();
        a.hlt().unwrap();
    });
    machine.set(Gpr::Rbx, MMIO.0 + 0x20);
    let mut fpu = machine.vm.fpu().unwrap();
    fpu.set_xmm(3, u128::from_le_bytes(*b"abcdefghijklmnop"));
    machine.vm.set_fpu(&fpu).unwrap();
    let next = CODE.0 + 3;
    assert_eq!(machine.run(), at(0x20, 8, Some(*b"abcdefgh"), next));
    assert!(machine.vm.mid_instruction());
    assert_eq!(machine.run(), at(0x28, 8, Some(*b"ijklmnop"), next));
    assert!(!machine.vm.mid_instruction());
    assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
}

#[test]
fn string_write_gives_each_element() {
    let mut machine = Machine::assemble(|a| {
        a.rep().movsd().unwrap();
        a.hlt().unwrap();
    });
    machine.space.write(DATA, b"abcdefghijkl").unwrap();
    machine.set(Gpr::Rsi, DATA.0);
    machine.set(Gpr::Rdi, MMIO.0);
    machine.set(Gpr::Rcx, 3);
    for (index, bytes) in [b"abcd", b"efgh", b"ijkl"].into_iter().enumerate() {
        let mut written = [0; 8];
        written[..4].copy_from_slice(bytes);
        let trap = machine.run();
        assert_eq!(trap, at(4 * index as u64, 4, Some(written), CODE.0));
    }
    assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
    assert_eq!(machine.get(Gpr::Rcx), 0);
}

#[test]
fn string_read_takes_each_answer() {
    let mut machine = Machine::assemble(|a| {
        a.rep().movsd().unwrap();
        a.hlt().unwrap();
    });
    machine.set(Gpr::Rdi, DATA.0);
    machine.set(Gpr::Rsi, MMIO.0);
    machine.set(Gpr::Rcx, 3);
    for index in 0..3 {
        assert_eq!(machine.run(), at(4 * index, 4, None, CODE.0));
        machine.vm.finish_mmio_read([index as u8 + 1; 8]).unwrap();
    }
    assert!(matches!(machine.run(), Trap::GeneralProtection { .. }));
    let mut bytes = [0; 12];
    machine.space.read(DATA, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
}

#[test]
fn restored_machine_forgets_an_unanswered_read() {
    let mut machine = machine(&[0x8b, 0x03]);
    let state = machine.vm.save_cpu().unwrap();
    machine.run();
    assert!(machine.vm.save_cpu().is_err());

    machine.vm.restore_cpu(&state).unwrap();

    assert_eq!(machine.vm.save_cpu().unwrap(), state);
    assert_eq!(machine.run(), at(0x10, 4, None, CODE.0));
}

#[test]
fn unmapped_mmio_faults() {
    let mut machine = machine(&[0x89, 0x03, 0x89, 0x03]);
    machine.run();
    machine.space.unmap(MMIO).unwrap();
    let trap = machine.run();
    assert!(matches!(trap, Trap::PageFault { .. }), "{trap:?}");
}
