//! Entry points for fuzzers: what a hostile guest does to the unit.

use crate::spec::registers as reg;
use crate::testing::{Os, contexts, domain, global, pages, parted};
use crate::{Issued, Landing};
use journal::Journal;
use memory::{Gpa, Iova, RequesterId};

const RAM: u64 = 64 << 10;
/// Eight pages from here have their leaf entries in one table.
const MAPPED: Iova = Iova(0x4000_0000);

/// Read numbers off the input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Up to eight bytes, the top ones zero where the input ends.
    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, i| {
            word | u64::from(self.byte().unwrap_or(0)) << (8 * i)
        })
    }
}

/// An address: one that may be mapped, or any.
fn address(what: u8, input: &mut Input<'_>) -> Iova {
    let word = input.word();
    if what & 0x40 != 0 {
        Iova(MAPPED.0 + word % (8 << 12))
    } else {
        Iova(word >> (what >> 3 & 0xf))
    }
}

/// Any register writes, any bytes as tables and descriptors, any accesses.
/// Must not panic, hang or grow; the queue's head must stay inside the queue.
pub fn fuzz_registers(data: &[u8]) {
    let os = Os::new(RAM, parted(Journal::disabled()));
    let device = RequesterId::new(0, 2, 0);
    os.start();
    let top = os.attach(device, 1, 4);
    let leaf = os.entry(top, 4, 1, MAPPED);
    let mut input = Input(data);
    let mut tokens = Vec::new();
    while let Some(what) = input.byte() {
        let dma = os.unit.dma(os.env(), device, what & 0x80 == 0);
        match what & 7 {
            // A register that exists, then any place at all.
            0 | 1 => {
                let row = usize::from(what >> 3 & 0x1f) % reg::LAYOUT.len();
                let size = if what & 1 == 0 { 8 } else { 4 };
                let offset = reg::LAYOUT.get(row).map_or(0, |row| row.offset);
                os.set(offset, size, input.word());
            }
            2 => {
                let (offset, value) = (input.word() & 0xfff, input.word());
                os.unit.mmio_write(os.env(), offset, what >> 3 & 0xf, value);
            }
            // The leaf entries of the addresses that are used below.
            3 if what & 0x40 != 0 => {
                let index = u64::from(what >> 3 & 7);
                os.poke(Gpa(leaf.0 + 8 * index), input.word());
            }
            3 => {
                let at = Gpa((input.word() % RAM) & !7);
                os.poke(at, input.word());
            }
            // A descriptor that is well made, then any.
            4 if what & 0x40 != 0 => {
                let at = Iova(MAPPED.0 + (u64::from(what & 0x38) << 9));
                let mask = what >> 3 & 1;
                os.run(match what >> 4 & 3 {
                    0 => global(true),
                    1 => domain(1, false),
                    2 => contexts(1, 1, device, 0),
                    _ => pages(1, at, mask, true),
                });
            }
            4 => os.submit(&[[input.word(), input.word()]]),
            5 => {
                let mut bytes = [0; 40];
                let at = address(what, &mut input);
                let _ = dma.read(at, &mut bytes);
                let _ = dma.peek(at, &mut bytes);
            }
            6 => {
                let at = address(what, &mut input);
                if let Ok(Issued::InFlight(token)) = dma.issue_write(at, &[what; 24]) {
                    tokens.push(token);
                }
            }
            _ => {
                if let Some(token) = tokens.pop() {
                    let landing = dma.land(token, what & 0x10 != 0);
                    if landing == Landing::Pending {
                        dma.cancel_all();
                    }
                }
                let _ = os.unit.take_messages();
                os.unit.restore(&os.unit.save());
            }
        }
        assert!(os.get(reg::IQH, 8) < 1 << 19, "the head left the queue");
    }
}
