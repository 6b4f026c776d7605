//! A driver made of bytes: it writes memory and calls routines with
//! arguments that now and then make sense.

use crate::{DATA, DATA_PAGES, Input, Machine, STACK_POINTER};
use ::windows::{Call, Platform};
use memory::{Gva, PAGE_SIZE};

/// Return values that are remembered as arguments of later calls.
const REMEMBERED: usize = 8;

/// What the driver knows.
#[derive(Debug, Default)]
pub struct Guest {
    returned: Vec<u64>,
}

impl Guest {
    /// Remember what a routine returned.
    pub fn remember(&mut self, value: u64) {
        if self.returned.len() == REMEMBERED {
            self.returned.remove(0);
        }
        self.returned.push(value);
    }

    /// A number: small, a size, an address of the data, something that a
    /// routine returned, or any.
    pub fn value(&mut self, input: &mut Input<'_>) -> u64 {
        let what = input.byte();
        match what {
            0..=0x3f => u64::from(what),
            0x40..=0x5f => (u64::from(what & 0x1f) + 1) * PAGE_SIZE,
            0x60..=0x9f => DATA.0 + u64::from(what & 0x3f) * 0x40,
            0xa0..=0xaf => self
                .returned
                .get(usize::from(what & 7))
                .copied()
                .unwrap_or_default(),
            0xb0..=0xbf => DATA.0 + u64::from(input.half()) % (DATA_PAGES * PAGE_SIZE),
            0xc0..=0xcf => DATA.0 + DATA_PAGES * PAGE_SIZE - u64::from(what & 0xf),
            0xd0..=0xdf => 1 << (what & 0xf) << (input.byte() & 0x3f).min(48),
            0xe0..=0xef => u64::MAX - u64::from(what & 0xf),
            _ => input.word(),
        }
    }

    /// Write memory: bytes, or one number that makes sense.
    pub fn poke(&mut self, machine: &mut Machine, input: &mut Input<'_>) {
        let at = Gva(self.value(input));
        let length = input.byte();
        // What is not mapped cannot be written; the driver would trap.
        let _ = if length & 0x80 != 0 {
            let value = self.value(input);
            machine.write_u64(at, value)
        } else {
            machine.write(at, input.bytes(usize::from(length)))
        };
    }

    /// The frame of a call: up to eight arguments.
    pub fn call(&mut self, machine: &mut Machine, input: &mut Input<'_>) -> Call {
        let mut registers = [0; 4];
        for index in 0..usize::from(input.byte() % 9) {
            let value = self.value(input);
            match registers.get_mut(index) {
                Some(register) => *register = value,
                None => {
                    let at = Gva(STACK_POINTER.0 + 8 + 8 * index as u64);
                    let _ = machine.write_u64(at, value);
                }
            }
        }
        Call {
            registers,
            stack_pointer: STACK_POINTER,
        }
    }
}
