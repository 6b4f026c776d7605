use super::harness::*;
use crate::vm::{FpuState, Gpr, Trap};
use iced_x86::code_asm::*;
use memory::Gva;

#[test]
fn sse_registers_are_saved_and_restored() {
    let mut machine = Machine::assemble(|a| {
        a.movups(xmm1, xmmword_ptr(rbx)).unwrap();
        a.out(0xe0, eax).unwrap();
        a.pxor(xmm1, xmm1).unwrap();
        a.fld1().unwrap();
        a.out(0xe0, eax).unwrap();
        a.hlt().unwrap();
    });
    machine.space.write(DATA, b"sixteen bytes..!").unwrap();
    machine.set(Gpr::Rbx, DATA.0);
    machine.run();
    let state = machine.vm.save_cpu().unwrap();
    assert_eq!(
        state.fpu.xmm(1),
        Some(u128::from_le_bytes(*b"sixteen bytes..!"))
    );
    machine.run();
    assert_ne!(machine.vm.save_cpu().unwrap().fpu, state.fpu);

    machine.vm.restore_cpu(&state).unwrap();

    assert_eq!(machine.vm.save_cpu().unwrap(), state);
    machine.run();
    assert_eq!(machine.rip(), Gva(CODE.0 + 3 + 2 + 4 + 2 + 2));
}

#[test]
fn registers_set_by_the_host_reach_sse_code() {
    let mut machine = Machine::assemble(|a| {
        a.addsd(xmm0, xmm15).unwrap();
        a.cvttsd2si(rax, xmm0).unwrap();
        a.hlt().unwrap();
    });
    let mut fpu = FpuState::default();
    fpu.set_xmm(0, u128::from(40.0f64.to_bits()));
    fpu.set_xmm(15, u128::from(2.0f64.to_bits()));
    machine.vm.set_fpu(&fpu).unwrap();

    machine.run();

    assert_eq!(machine.get(Gpr::Rax), 42);
}

#[test]
fn new_machine_has_the_default_state() {
    let machine = Machine::new(&[]);
    assert_eq!(machine.vm.fpu().unwrap(), FpuState::default());
}

#[test]
fn state_can_be_restored_in_another_machine() {
    let code = |a: &mut CodeAssembler| {
        a.mov(rax, qword_ptr(0x18).gs()).unwrap();
        a.out(0xe0, eax).unwrap();
        a.hlt().unwrap();
    };
    let mut first = Machine::assemble(code);
    first.space.write_u64(Gva(DATA.0 + 0x18), DATA.0).unwrap();
    first.vm.set_gs_base(DATA.0).unwrap();
    first.run();
    let state = first.vm.save_cpu().unwrap();
    let mut second = Machine::assemble(code);

    second.vm.restore_cpu(&state).unwrap();

    assert_eq!(second.vm.gs_base(), DATA.0);
    assert!(matches!(second.run(), Trap::GeneralProtection { .. }));
    assert_eq!(second.get(Gpr::Rax), DATA.0);
}

#[test]
fn gs_base_can_change_at_any_trap() {
    let mut machine = Machine::assemble(|a| {
        a.hlt().unwrap();
        a.mov(rax, qword_ptr(0).gs()).unwrap();
        a.out(0xe0, eax).unwrap();
        a.mov(rcx, qword_ptr(0).gs()).unwrap();
        a.hlt().unwrap();
    });
    machine.space.write_u64(DATA, 11).unwrap();
    machine.space.write_u64(Gva(DATA.0 + 8), 22).unwrap();
    machine.run();
    machine.vm.set_gs_base(DATA.0).unwrap();
    machine.jump(Gva(CODE.0 + 1));
    assert!(matches!(machine.run(), Trap::Port { value: 11, .. }));
    machine.vm.set_gs_base(DATA.0 + 8).unwrap();
    machine.run();
    assert_eq!(machine.get(Gpr::Rcx), 22);
}

#[test]
fn restored_gs_base_is_the_saved_one() {
    let mut machine = Machine::assemble(|a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.mov(rax, qword_ptr(0).gs()).unwrap();
        a.out(0xe0, eax).unwrap();
        a.jmp(top).unwrap();
    });
    for index in 0..3 {
        let at = Gva(DATA.0 + 8 * index);
        machine.space.write_u64(at, index).unwrap();
    }
    let mut states = Vec::new();
    for index in 0..3 {
        machine.vm.set_gs_base(DATA.0 + 8 * index).unwrap();
        states.push(machine.vm.save_cpu().unwrap());
        machine.run();
    }
    for index in [2, 0, 0, 1, 1, 2, 0] {
        machine.vm.restore_cpu(&states[index]).unwrap();
        assert_eq!(machine.vm.gs_base(), DATA.0 + 8 * index as u64);
        assert!(matches!(machine.run(), Trap::Port { value, .. } if value == index as u32));
    }
}

#[test]
fn processor_has_our_signature_even_unpatched() {
    let mut machine = Machine::assemble(|a| {
        a.cpuid().unwrap();
        a.hlt().unwrap();
    });
    machine.set(Gpr::Rax, 1);
    machine.set(Gpr::Rcx, 0);
    machine.run();
    // Some hosts mix features of their own into ECX (AVX, XSAVE): that is why
    // CPUID is patched in drivers.
    println!(
        "CPUID.1.ECX as the guest sees it: {:#x}",
        machine.get(Gpr::Rcx)
    );
    assert_eq!(machine.get(Gpr::Rax), 0x0005_06e3);
}
