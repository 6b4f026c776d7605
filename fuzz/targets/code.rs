//! A driver's instructions: the scan for those that do not trap, and the
//! emulation of those that do. No KVM: only page tables in memory.
#![no_main]

use fuzz::Input;
use machine::vm::emulate::{Completion, decode};
use machine::vm::{AddressSpace, FrameRange, Protection, Registers, patch};
use memory::{GuestMemory, Gva, PAGE_SIZE, Pfn};
use std::sync::Arc;

const DATA: Gva = Gva(0xffff_8000_0000_0000);
const TEXT: u32 = 0x1000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let functions: Vec<_> = (0..input.byte() % 8)
        .map(|_| u32::from(input.half())..u32::from(input.half()))
        .collect();
    let entries: Vec<_> = (0..input.byte() % 8)
        .map(|_| u32::from(input.half()))
        .collect();
    let values: [u64; 4] = [0; 4].map(|_: u64| match input.byte() {
        small @ 0..=0x7f => DATA.0 + u64::from(small) * 0x40 - 0x40,
        _ => input.word(),
    });
    let code = input.0;

    let found = patch::scan(code, TEXT, &functions, &entries);
    let end = TEXT as usize + code.len();
    for site in &found.sites {
        let at = (site.rva - TEXT) as usize;
        assert_eq!(code.get(at), Some(&site.original));
        assert!(site.rva as usize + usize::from(site.length) <= end);
    }
    for gap in &found.undecoded {
        assert!(gap.rva >= TEXT && gap.rva as usize + gap.length as usize <= end);
    }

    let memory = GuestMemory::new(64 * PAGE_SIZE).expect("the host gives memory");
    let frames = FrameRange {
        first: Pfn(1),
        count: 16,
    };
    let mut space = AddressSpace::new(Arc::new(memory), frames).expect("frames suffice");
    let writable = Protection {
        write: true,
        execute: false,
        user: true,
    };
    space.map(DATA, Pfn(32), writable).expect("frames suffice");
    let mut registers = Registers::default();
    registers.rip = DATA.0;
    for (number, register) in registers.gpr.iter_mut().enumerate() {
        *register = values[number % values.len()];
    }
    for at in 0..code.len().min(64) {
        let window = &code[at..code.len().min(at + 15)];
        if let Ok(Some(found)) = decode(window, &registers, values[0], &space) {
            assert!(usize::from(found.length) <= window.len());
            let done = Completion {
                value: values[1],
                extra: values[2] as u32,
                interrupts: values[3] & 1 != 0,
            };
            let mut after = registers;
            let _ = found.apply(&done, &mut after, &space);
        }
    }
});
