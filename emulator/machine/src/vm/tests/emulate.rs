//! Bytes, what they ask for, and the state afterwards. No `/dev/kvm` needed.

use super::harness::{self, DATA, DATA_FRAME};
use crate::vm::emulate::{Completion, Destination, Privileged as P, Segment, decode};
use crate::vm::{AddressSpace, Gpr, Protection, Registers};
use iced_x86::{Mnemonic, Register};
use memory::Gva;

const RIP: u64 = 0xffff_f800_0010_0000;
const STACK: u64 = DATA.0 + 0x800;

fn space() -> AddressSpace {
    let mut space = harness::space();
    space.map(DATA, DATA_FRAME, Protection::DATA).unwrap();
    for (index, word) in [0x246u64, 0x10, 0x8d5, 0x7777].into_iter().enumerate() {
        let at = Gva(STACK + 8 * index as u64);
        space.write_u64(at, word).unwrap();
    }
    space
}

fn registers() -> Registers {
    let mut registers = Registers {
        rip: RIP,
        rflags: Registers::clean_flags(0),
        ..Registers::default()
    };
    registers[Gpr::Rax] = 0xaaaa_aaaa_1111_2222;
    registers[Gpr::Rcx] = 0xcccc_cccc_0000_0003;
    registers[Gpr::Rdx] = 0xdddd_dddd_0000_03f8;
    registers[Gpr::Rbx] = DATA.0 + 0x100;
    registers[Gpr::Rsi] = DATA.0 + 0x100;
    registers[Gpr::Rdi] = DATA.0 + 0x200;
    registers[Gpr::Rsp] = STACK;
    registers
}

#[test]
fn instructions_ask_for_what_they_say() {
    let rax = Register::RAX;
    let table: &[(&[u8], P)] = &[
        (
            &[0x9d],
            P::Popf {
                value: 0x246,
                size: 8,
            },
        ),
        (
            &[0x66, 0x9d],
            P::Popf {
                value: 0x246,
                size: 2,
            },
        ),
        (&[0x9c], P::Pushf { size: 8 }),
        (&[0xfa], P::Cli),
        (&[0xfb], P::Sti),
        (&[0xf4], P::Hlt),
        (&[0x0f, 0x31], P::Rdtsc { processor: false }),
        (&[0x0f, 0x01, 0xf9], P::Rdtsc { processor: true }),
        (&[0x44, 0x0f, 0x20, 0xc0], P::ReadCr { number: 8, to: rax }),
        (
            &[0x44, 0x0f, 0x22, 0xc1],
            P::WriteCr {
                number: 8,
                value: 0xcccc_cccc_0000_0003,
            },
        ),
        (&[0x0f, 0x20, 0xd8], P::ReadCr { number: 3, to: rax }),
        (&[0x0f, 0x21, 0xf8], P::ReadDr { number: 7, to: rax }),
        (
            &[0x0f, 0x23, 0xf8],
            P::WriteDr {
                number: 7,
                value: 0xaaaa_aaaa_1111_2222,
            },
        ),
        (&[0x0f, 0xa2], P::Cpuid { leaf: 0x1111_2222 }),
        (&[0x0f, 0x32], P::Rdmsr { msr: 3 }),
        (
            &[0x0f, 0x30],
            P::Wrmsr {
                msr: 3,
                value: 0x0000_03f8_1111_2222,
            },
        ),
        (&[0x0f, 0x33], P::Rdpmc { counter: 3 }),
        (&[0x0f, 0x01, 0xd0], P::Xgetbv { register: 3 }),
        (
            &[0xec],
            P::In {
                port: 0x3f8,
                size: 1,
            },
        ),
        (
            &[0x66, 0xe5, 0x40],
            P::In {
                port: 0x40,
                size: 2,
            },
        ),
        (
            &[0xe7, 0x80],
            P::Out {
                port: 0x80,
                size: 4,
                value: 0x1111_2222,
            },
        ),
        (
            &[0xf3, 0x6d],
            P::StringIn {
                port: 0x3f8,
                size: 4,
                repeat: true,
            },
        ),
        (
            &[0x6e],
            P::StringOut {
                port: 0x3f8,
                size: 1,
                value: 0,
                repeat: false,
            },
        ),
        (
            &[0xf3, 0x48, 0x0f, 0xae, 0xc8],
            P::ReadBase {
                segment: Segment::Gs,
                to: rax,
            },
        ),
        (
            &[0xf3, 0x48, 0x0f, 0xae, 0xd0],
            P::WriteBase {
                segment: Segment::Fs,
                value: 0xaaaa_aaaa_1111_2222,
            },
        ),
        (&[0x48, 0x0f, 0xc7, 0xf0], P::Random { to: rax }),
        (&[0x0f, 0xc7, 0xf8], P::Random { to: Register::EAX }),
        (
            &[0x0f, 0x01, 0x23],
            P::StoreSystem {
                mnemonic: Mnemonic::Smsw,
                to: Destination::Memory(Gva(DATA.0 + 0x100), 2),
            },
        ),
        (
            &[0x0f, 0x01, 0x03],
            P::StoreTable {
                mnemonic: Mnemonic::Sgdt,
                to: Gva(DATA.0 + 0x100),
            },
        ),
        (
            &[0x66, 0x8c, 0xc8],
            P::ReadSelector {
                selector: 0x10,
                to: Destination::Register(Register::AX),
            },
        ),
        (
            &[0x8c, 0x13],
            P::ReadSelector {
                selector: 0x18,
                to: Destination::Memory(Gva(DATA.0 + 0x100), 2),
            },
        ),
        (&[0x8e, 0xd8], P::WriteSelector { selector: 0x2222 }),
        (
            &[0x48, 0xcf],
            P::Iretq {
                rip: 0x246,
                rflags: 0x8d5,
                rsp: 0x7777,
            },
        ),
        (&[0xcd, 0x29], P::FastFail { code: 3 }),
        (&[0xcd, 0x2c], P::Assert),
        (
            &[0xcd, 0x2d],
            P::DebugService {
                service: 0x1111_2222,
            },
        ),
        (&[0xcd, 0x80], P::Interrupt { vector: 0x80 }),
        (&[0x0f, 0x01, 0xf8], P::System(Mnemonic::Swapgs)),
        (&[0x0f, 0x01, 0xca], P::System(Mnemonic::Clac)),
        (&[0x0f, 0x09], P::System(Mnemonic::Wbinvd)),
        (&[0x0f, 0x01, 0x3b], P::System(Mnemonic::Invlpg)),
        (&[0x0f, 0x05], P::System(Mnemonic::Syscall)),
        (&[0x0f, 0x0b], P::Undefined),
    ];
    let space = space();
    for (code, wanted) in table {
        let found = decode(code, &registers(), 0, &space).unwrap().unwrap();
        assert_eq!(found.what, *wanted, "{code:x?}");
        assert_eq!(usize::from(found.length), code.len(), "{code:x?}");
    }
}

#[test]
fn ordinary_and_broken_code_asks_for_nothing() {
    let space = space();
    for code in [&[0x90][..], &[0x48, 0x8b, 0x03], &[0x0f], &[0x06], &[]] {
        assert_eq!(decode(code, &registers(), 0, &space).unwrap(), None);
    }
}

#[test]
fn popf_without_a_stack_is_an_error() {
    let mut registers = registers();
    registers[Gpr::Rsp] = 0x10;
    assert!(decode(&[0x9d], &registers, 0, &space()).is_err());
}

/// The registers and the space after `code`, with every value 0x8182...88.
fn after(code: &[u8]) -> (Registers, AddressSpace) {
    let space = space();
    let mut registers = registers();
    let with = Completion {
        value: 0x8182_8384_8586_8788,
        extra: 0x1234,
        interrupts: false,
    };
    decode(code, &registers, 0, &space)
        .unwrap()
        .unwrap()
        .apply(&with, &mut registers, &space)
        .unwrap();
    (registers, space)
}

#[test]
fn registers_after_are_as_the_architecture_says() {
    // (instruction, register, its value)
    let table: &[(&[u8], Gpr, u64)] = &[
        (&[0x9d], Gpr::Rsp, STACK + 8),
        (&[0x66, 0x9d], Gpr::Rsp, STACK + 2),
        (&[0x9c], Gpr::Rsp, STACK - 8),
        (&[0x0f, 0x31], Gpr::Rax, 0x8586_8788),
        (&[0x0f, 0x31], Gpr::Rdx, 0x8182_8384),
        (&[0x0f, 0x31], Gpr::Rcx, 0xcccc_cccc_0000_0003),
        (&[0x0f, 0x01, 0xf9], Gpr::Rcx, 0x1234),
        (&[0x44, 0x0f, 0x20, 0xc0], Gpr::Rax, 0x8182_8384_8586_8788),
        (&[0x0f, 0x32], Gpr::Rdx, 0x8182_8384),
        (&[0xec], Gpr::Rax, 0xaaaa_aaaa_1111_2288),
        (&[0x66, 0xe5, 0x40], Gpr::Rax, 0xaaaa_aaaa_1111_8788),
        (&[0xe5, 0x40], Gpr::Rax, 0x8586_8788),
        (&[0x0f, 0xc7, 0xf0], Gpr::Rax, 0x8586_8788),
        (&[0x66, 0x8c, 0xc8], Gpr::Rax, 0xaaaa_aaaa_1111_0010),
        (&[0x8c, 0xd0], Gpr::Rax, 0x18),
        (&[0x48, 0xcf], Gpr::Rsp, 0x7777),
        (&[0x6e], Gpr::Rsi, DATA.0 + 0x101),
        (&[0x6d], Gpr::Rdi, DATA.0 + 0x204),
        (&[0xcd, 0x29], Gpr::Rcx, 0xcccc_cccc_0000_0003),
    ];
    for (code, register, value) in table {
        let (registers, _) = after(code);
        assert_eq!(registers[*register], *value, "{code:x?} {register:?}");
        if code != &[0x48, 0xcf] {
            assert_eq!(registers.rip, RIP + code.len() as u64, "{code:x?}");
        }
    }
}

#[test]
fn flags_follow_the_virtual_interrupt_flag() {
    let (_, space) = after(&[0x9c]);
    let pushed = space.read_u64(Gva(STACK - 8)).unwrap();
    assert_eq!(pushed, 2);
    let popped = decode(&[0x9d], &registers(), 0, &space).unwrap().unwrap();
    assert_eq!(popped.what.interrupt_flag(), Some(true));
    let (registers, _) = after(&[0x9d]);
    assert_eq!(registers.rflags, 0x246);
    assert_eq!(P::Cli.interrupt_flag(), Some(false));
    assert_eq!(P::Hlt.interrupt_flag(), None);
}

#[test]
fn random_succeeds_and_says_so() {
    let (registers, _) = after(&[0x48, 0x0f, 0xc7, 0xf0]);
    assert_eq!(registers.rflags & 0x8d5, 1);
}

#[test]
fn cpuid_answers_from_the_fixed_table() {
    let space = space();
    // (leaf, EAX, EDX)
    for (leaf, eax, edx) in [
        (0, 7, 0x4965_6e69),
        (1, 0x0005_06e3, 0x078b_fbfd),
        (99, 0, 0),
    ] {
        let mut registers = registers();
        registers[Gpr::Rax] = leaf;
        let what = decode(&[0x0f, 0xa2], &registers, 0, &space)
            .unwrap()
            .unwrap();
        what.apply(&Completion::default(), &mut registers, &space)
            .unwrap();
        assert_eq!((registers[Gpr::Rax], registers[Gpr::Rdx]), (eax, edx));
    }
}

#[test]
fn sgdt_stores_ten_bytes() {
    let (_, space) = after(&[0x0f, 0x01, 0x03]);
    let mut bytes = [0; 11];
    space.read(Gva(DATA.0 + 0x100), &mut bytes).unwrap();
    let expected = [
        0x34, 0x12, 0x88, 0x87, 0x86, 0x85, 0x84, 0x83, 0x82, 0x81, 0,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn repeated_input_counts_down_at_the_instruction() {
    let space = space();
    let mut registers = registers();
    registers[Gpr::Rcx] = 3;
    for round in 0..3u64 {
        let what = decode(&[0xf3, 0x6d], &registers, 0, &space)
            .unwrap()
            .unwrap();
        assert_eq!(registers.rip, RIP);
        let with = Completion {
            value: round + 1,
            ..Completion::default()
        };
        what.apply(&with, &mut registers, &space).unwrap();
    }
    assert_eq!(registers.rip, RIP + 2);
    assert_eq!(registers[Gpr::Rcx], 0);
    let read = space.read_u64(Gva(DATA.0 + 0x200)).unwrap();
    assert_eq!(read, 0x2_0000_0001);
}

#[test]
fn failing_push_changes_nothing() {
    let space = space();
    let mut registers = registers();
    registers[Gpr::Rsp] = DATA.0;
    let before = registers;
    let what = decode(&[0x9c], &registers, 0, &space).unwrap().unwrap();
    let result = what.apply(&Completion::default(), &mut registers, &space);
    assert!(result.is_err());
    assert_eq!(registers, before);
}
