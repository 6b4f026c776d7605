//! Stacks: images with any function table, unwind codes and instructions
//! (epilogs), any registers and stack; and the PDB that an image names.
#![no_main]

use fuzz::Input;
use symbols::{Registers, Unwinder};

const BASE: u64 = 0xffff_f800_1000_0000;
const LIMIT: usize = 32;
/// Reads that a walk of [`LIMIT`] frames may make: 32 chained descriptions of
/// at most 255 codes each a frame, a return address, a machine frame.
const MAX_READS: usize = LIMIT * (32 * 256 + 4);

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = symbols::pdb_reference(data);

    let mut input = Input(data);
    let start = Registers {
        rip: BASE + u64::from(input.half()),
        rsp: if input.byte() & 1 == 0 {
            0xffff_8000_0100_0000
        } else {
            input.word()
        },
        rbp: BASE + u64::from(input.half()),
        ..Registers::default()
    };
    let stack = input.bytes(32);
    let image = input.0;
    let _ = symbols::pdb_reference(image);
    let mut unwinder = Unwinder::new();
    if unwinder.add_module("fuzz.sys", BASE, image).is_err() {
        return;
    }
    let mut reads = 0;
    let mut read = |address: u64| {
        reads += 1;
        let byte = stack.get(reads % 32).copied().unwrap_or_default();
        match byte & 3 {
            0 => Some(BASE + (u64::from(byte) << 6)),
            1 => Some(address.wrapping_add(u64::from(byte))),
            2 => Some(u64::from(byte)),
            _ if byte == 0xff => None,
            _ => Some(BASE + (address & 0xffff)),
        }
    };
    let addresses = unwinder.unwind(&start, &mut read, LIMIT);
    assert!(!addresses.is_empty() && addresses.len() <= LIMIT);
    assert!(reads <= MAX_READS, "{reads} reads");
    for address in addresses {
        let _ = unwinder.module_at(address);
    }
    assert!(unwinder.remove_module(BASE));
});
