use super::harness::*;
use crate::vm::emulate::{Completion, Privileged, decode};
use crate::vm::patch::{PatchTable, Undecoded, scan};
use crate::vm::{Gpr, Trap};
use iced_x86::Mnemonic;
use memory::Gva;
use std::ops::Range;

const BASE: u32 = 0x1000;

fn ranges(functions: &[(u32, u32)]) -> Vec<Range<u32>> {
    functions.iter().map(|(start, end)| *start..*end).collect()
}

/// RVAs of the sites in `code`, whose functions are `functions`.
fn sites(code: &[u8], functions: &[(u32, u32)]) -> Vec<u32> {
    let scan = scan(code, BASE, &ranges(functions), &[]);
    scan.sites.iter().map(|site| site.rva).collect()
}

#[test]
fn each_silent_instruction_is_found() {
    let table: &[(&[u8], Mnemonic)] = &[
        (&[0x9d], Mnemonic::Popfq),
        (&[0x9c], Mnemonic::Pushfq),
        (&[0x0f, 0x31], Mnemonic::Rdtsc),
        (&[0x0f, 0x01, 0xf9], Mnemonic::Rdtscp),
        (&[0x0f, 0xa2], Mnemonic::Cpuid),
        (&[0xf3, 0x48, 0x0f, 0xae, 0xc8], Mnemonic::Rdgsbase),
        (&[0xf3, 0x48, 0x0f, 0xae, 0xd8], Mnemonic::Wrgsbase),
        (&[0xf3, 0x48, 0x0f, 0xae, 0xc0], Mnemonic::Rdfsbase),
        (&[0xf3, 0x48, 0x0f, 0xae, 0xd0], Mnemonic::Wrfsbase),
        (&[0x48, 0x0f, 0xc7, 0xf0], Mnemonic::Rdrand),
        (&[0x48, 0x0f, 0xc7, 0xf8], Mnemonic::Rdseed),
        (&[0x0f, 0x01, 0xe0], Mnemonic::Smsw),
        (&[0x0f, 0x01, 0x03], Mnemonic::Sgdt),
        (&[0x0f, 0x01, 0x0b], Mnemonic::Sidt),
        (&[0x0f, 0x00, 0xc0], Mnemonic::Sldt),
        (&[0x0f, 0x00, 0xc8], Mnemonic::Str),
        (&[0x8c, 0xc8], Mnemonic::Mov),
        (&[0x66, 0x8c, 0xd0], Mnemonic::Mov),
        (&[0x48, 0xcf], Mnemonic::Iretq),
        (&[0x0f, 0x05], Mnemonic::Syscall),
        (&[0x0f, 0x01, 0xd0], Mnemonic::Xgetbv),
    ];
    for (bytes, kind) in table {
        let code = [&[0x90][..], bytes, &[0xc3]].concat();
        let end = BASE + code.len() as u32;
        let found = scan(&code, BASE, &ranges(&[(BASE, end)]), &[]).sites;
        assert_eq!(found.len(), 1, "{kind:?}");
        assert_eq!(found[0].rva, BASE + 1);
        assert_eq!(found[0].kind, *kind);
        assert_eq!(found[0].original, bytes[0]);
        assert_eq!(usize::from(found[0].length), bytes.len());
    }
}

#[test]
fn bytes_inside_other_instructions_are_left_alone() {
    // mov eax, 0x319c0f9d; mov ds, ax; mov ax, ds; ret
    let code = [0xb8, 0x9d, 0x0f, 0x9c, 0x31, 0x8e, 0xd8, 0x8c, 0xd8, 0xc3];
    assert!(sites(&code, &[(BASE, BASE + 10)]).is_empty());
}

#[test]
fn called_leaf_function_without_pdata_is_scanned() {
    let mut code = vec![0xcc; 64];
    code[0..6].copy_from_slice(&[0xe8, 0x1b, 0x00, 0x00, 0x00, 0xc3]); // call 0x20; ret
    code[0x20..0x23].copy_from_slice(&[0x0f, 0x31, 0xc3]);
    assert_eq!(sites(&code, &[(BASE, BASE + 6)]), [BASE + 0x20]);
}

#[test]
fn leaf_function_that_nobody_calls_directly_is_scanned() {
    let mut code = vec![0xcc; 64];
    code[0] = 0xc3;
    code[0x20..0x23].copy_from_slice(&[0x0f, 0x31, 0xc3]);
    assert_eq!(sites(&code, &[(BASE, BASE + 1)]), [BASE + 0x20]);
}

#[test]
fn jump_table_is_data_and_its_targets_are_code() {
    let mut code = vec![0xcc; 64];
    code[0..2].copy_from_slice(&[0xff, 0xe0]); // jmp rax
    code[8..11].copy_from_slice(&[0x0f, 0x31, 0xc3]); // case 0: rdtsc; ret
    code[11..13].copy_from_slice(&[0x9c, 0xc3]); // case 1: pushfq; ret
    for (index, target) in [BASE + 8, BASE + 11, BASE + 8].into_iter().enumerate() {
        code[16 + 4 * index..20 + 4 * index].copy_from_slice(&target.to_le_bytes());
    }
    // The table in the function's range, and behind it.
    for end in [BASE + 28, BASE + 16] {
        let scan = scan(&code, BASE, &ranges(&[(BASE, end)]), &[]);
        let rvas: Vec<u32> = scan.sites.iter().map(|site| site.rva).collect();
        assert_eq!(rvas, [BASE + 8, BASE + 11]);
        assert_eq!(scan.undecoded, []);
    }
}

#[test]
fn data_between_functions_is_reported_and_not_patched() {
    let mut code = vec![0xcc; 64];
    code[0] = 0xc3;
    // pushfq and rdtsc, then a byte that is no instruction in 64-bit mode.
    code[0x10..0x14].copy_from_slice(&[0x9c, 0x0f, 0x31, 0x06]);
    let scan = scan(&code, BASE, &ranges(&[(BASE, BASE + 1)]), &[]);
    assert_eq!(scan.sites, []);
    let first = scan.undecoded[0];
    assert_eq!(first.rva, BASE + 0x10);
    assert!(first.length >= 4, "{first:?}");
}

#[test]
fn function_that_does_not_decode_is_reported() {
    let code = [0x90, 0x06, 0x06, 0xc3];
    let scan = scan(&code, BASE, &ranges(&[(BASE, BASE + 4)]), &[]);
    let expected = Undecoded {
        rva: BASE + 1,
        length: 3,
    };
    assert_eq!(scan.undecoded, [expected]);
}

#[test]
fn ranges_outside_the_section_are_ignored() {
    let code = [0x0f, 0x31, 0xc3];
    let functions = ranges(&[(0, 4), (BASE, BASE + 3), (0xffff_fff0, 0xffff_ffff), (9, 2)]);
    let scan = scan(&code, BASE, &functions, &[0, u32::MAX]);
    assert_eq!(scan.sites.len(), 1);
}

#[test]
fn patched_rdtsc_traps_and_is_emulated() {
    let code = [0x0f, 0x31, 0x48, 0x89, 0xc3, 0xf4]; // rdtsc; mov rbx, rax; hlt
    let mut machine = Machine::new(&code);
    let found = scan(&code, 0, &ranges(&[(0, 6)]), &[]);
    let mut table = PatchTable::default();
    table.install(&machine.space, CODE, &found.sites).unwrap();

    let trap = machine.run();

    assert_eq!(
        trap,
        Trap::GeneralProtection {
            rip: CODE,
            error: 0
        }
    );
    assert!(table.site(CODE).is_some());
    let original = table.original_code(&machine.space, CODE);
    assert_eq!(original[..2], [0x0f, 0x31]);
    let mut registers = machine.vm.registers();
    let what = decode(&original, &registers, 0, &machine.space)
        .unwrap()
        .unwrap();
    assert_eq!(what.what, Privileged::Rdtsc { processor: false });
    let with = Completion {
        value: 1234,
        ..Completion::default()
    };
    what.apply(&with, &mut registers, &machine.space).unwrap();
    machine.vm.set_registers(&registers).unwrap();
    machine.run();
    assert_eq!(machine.get(Gpr::Rbx), 1234);
    assert_eq!(machine.rip(), Gva(CODE.0 + 5));

    table.remove(CODE, 0x1000);
    assert!(table.site(CODE).is_none());
}

proptest::proptest! {
    #[test]
    fn scanner_survives_any_bytes(
        code in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
        functions in proptest::collection::vec((0u32..0x1400, 0u32..0x1400), 0..8),
    ) {
        let scan = scan(&code, BASE, &ranges(&functions), &[BASE + 3]);
        for site in &scan.sites {
            let offset = (site.rva - BASE) as usize;
            proptest::prop_assert_eq!(code[offset], site.original);
        }
    }
}
