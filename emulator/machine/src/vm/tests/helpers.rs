use super::harness::*;
use crate::vm::{Gpr, Trap, helpers};
use memory::Gva;

const RETURN: u64 = CODE.0 + 0x3000;
const SOURCE: u64 = DATA.0 + 0x100;
const TARGET: u64 = DATA.0 + 0x2100;

struct Call {
    machine: Machine,
    image: helpers::HelperImage,
}

impl Call {
    fn new() -> Self {
        let image = helpers::image().unwrap();
        let machine = Machine::new(&image.code);
        machine.space.write(Gva(RETURN), &[0xf4]).unwrap();
        Self { machine, image }
    }

    /// Call by the Win64 convention; kept registers must be kept.
    fn call(&mut self, name: &str, arguments: [u64; 3]) -> u64 {
        let offset = self.image.offset(name).unwrap();
        let mut registers = self.machine.vm.registers();
        for (index, value) in registers.gpr.iter_mut().enumerate() {
            *value = 0x0101_0101 * index as u64;
        }
        registers[Gpr::Rcx] = arguments[0];
        registers[Gpr::Rdx] = arguments[1];
        registers[Gpr::R8] = arguments[2];
        registers[Gpr::Rsp] = STACK_TOP - 0x100;
        registers.rip = CODE.0 + u64::from(offset);
        registers.rflags = 0;
        self.machine.vm.set_registers(&registers).unwrap();
        self.machine.push(RETURN);
        let trap = self.machine.run();
        let rip = Gva(RETURN);
        assert_eq!(trap, Trap::GeneralProtection { rip, error: 0 }, "{name}");
        let after = self.machine.vm.registers();
        for kept in [
            Gpr::Rbx,
            Gpr::Rbp,
            Gpr::Rsp,
            Gpr::Rsi,
            Gpr::Rdi,
            Gpr::R12,
            Gpr::R13,
            Gpr::R14,
            Gpr::R15,
        ] {
            assert_eq!(after[kept], registers[kept], "{name} changes {kept:?}");
        }
        assert_eq!(after.rflags & 0x400, 0, "{name} leaves DF set");
        after[Gpr::Rax]
    }

    fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.machine.space.read(Gva(at), &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn memcpy_copies_and_returns_the_destination() {
    let mut call = Call::new();
    let bytes: Vec<u8> = (0..200).collect();
    call.machine.space.write(Gva(SOURCE), &bytes).unwrap();
    assert_eq!(call.call("memcpy", [TARGET, SOURCE, 200]), TARGET);
    assert_eq!(call.bytes(TARGET, 201), [&bytes[..], &[0]].concat());
    call.call("memcpy", [TARGET + 1, SOURCE, 0]);
    assert_eq!(call.bytes(TARGET, 200), bytes);
}

#[test]
fn memmove_allows_overlap_both_ways() {
    for (from, to) in [(0usize, 7usize), (7, 0), (3, 3)] {
        let mut call = Call::new();
        let mut bytes: Vec<u8> = (0..100).collect();
        call.machine.space.write(Gva(SOURCE), &bytes).unwrap();
        let arguments = [SOURCE + to as u64, SOURCE + from as u64, 90];
        call.call("memmove", arguments);
        bytes.copy_within(from..from + 90, to);
        assert_eq!(call.bytes(SOURCE, 100), bytes, "{from} to {to}");
    }
}

#[test]
fn memset_fills() {
    let mut call = Call::new();
    assert_eq!(call.call("memset", [TARGET, 0xffff_ff5a, 33]), TARGET);
    assert_eq!(call.bytes(TARGET, 34), [&[0x5a; 33][..], &[0]].concat());
}

#[test]
fn memcmp_orders_by_the_first_difference() {
    // (left, right, length, sign of the result)
    let table: &[(&[u8], &[u8], u64, i32)] = &[
        (b"abcd", b"abcd", 4, 0),
        (b"abcd", b"abce", 4, -1),
        (b"abce", b"abcd", 4, 1),
        (b"abce", b"abcd", 3, 0),
        (b"\xff", b"\x01", 1, 1),
        (b"x", b"y", 0, 0),
    ];
    let mut call = Call::new();
    for (left, right, length, sign) in table {
        call.machine.space.write(Gva(SOURCE), left).unwrap();
        call.machine.space.write(Gva(TARGET), right).unwrap();
        let result = call.call("memcmp", [SOURCE, TARGET, *length]) as i32;
        assert_eq!(result.signum(), *sign, "{left:?} {right:?} {length}");
    }
}

#[test]
fn string_lengths() {
    let mut call = Call::new();
    call.machine
        .space
        .write(Gva(SOURCE), b"seven..\0x")
        .unwrap();
    assert_eq!(call.call("strlen", [SOURCE, 0, 0]), 7);
    assert_eq!(call.call("strlen", [SOURCE + 7, 0, 0]), 0);
    let wide: Vec<u8> = "four".encode_utf16().flat_map(u16::to_le_bytes).collect();
    call.machine.space.write(Gva(SOURCE), &wide).unwrap();
    call.machine.space.write(Gva(SOURCE + 8), &[0, 0]).unwrap();
    assert_eq!(call.call("wcslen", [SOURCE, 0, 0]), 4);
}

#[test]
fn chkstk_touches_pages_and_changes_no_register() {
    for (bytes, faults) in [(0x20u64, false), (0x2f00, false), (0x4000, true)] {
        let mut call = Call::new();
        let entry = CODE.0 + u64::from(call.image.offset("__chkstk").unwrap());
        let mut registers = call.machine.vm.registers();
        for (index, value) in registers.gpr.iter_mut().enumerate() {
            *value = !(index as u64);
        }
        registers[Gpr::Rax] = bytes;
        registers[Gpr::Rsp] = STACK_TOP - 0x100;
        registers.rip = entry;
        call.machine.vm.set_registers(&registers).unwrap();
        call.machine.push(RETURN);

        let trap = call.machine.run();

        assert_eq!(matches!(trap, Trap::PageFault { .. }), faults, "{bytes:#x}");
        if !faults {
            assert_eq!(call.machine.vm.registers().gpr, registers.gpr);
        }
    }
}

#[test]
fn guard_dispatch_jumps_to_rax() {
    let mut call = Call::new();
    let entry = CODE.0 + u64::from(call.image.offset("_guard_dispatch_icall").unwrap());
    call.machine.set(Gpr::Rax, RETURN);
    call.machine.jump(Gva(entry));
    call.machine.run();
    assert_eq!(call.machine.rip(), Gva(RETURN));
}

#[test]
fn copy_from_a_trapped_page_faults_once_a_page() {
    let mut call = Call::new();
    let bytes = vec![0x33; 0x2000];
    call.machine.space.write(DATA, &bytes).unwrap();
    call.machine.space.trap_range(DATA, 2, true).unwrap();
    let entry = CODE.0 + u64::from(call.image.offset("memcpy").unwrap());
    call.machine.set(Gpr::Rcx, DATA.0 + 0x4000);
    call.machine.set(Gpr::Rdx, DATA.0);
    call.machine.set(Gpr::R8, 0x2000);
    call.machine.jump(Gva(entry));
    call.machine.push(RETURN);
    let mut faults = Vec::new();
    while let Trap::PageFault { address, .. } = call.machine.run() {
        faults.push(address.page_base());
        call.machine.space.untrap(address).unwrap();
    }
    assert_eq!(faults, [DATA, Gva(DATA.0 + 0x1000)]);
    assert_eq!(call.bytes(DATA.0 + 0x4000, 0x2000), bytes);
}
