//! Entry points for fuzzers: what a hostile guest does to a unit.

use crate::spec::registers as reg;
use crate::testing::{Os, contexts, domain, global, pages, parted};
use crate::{Env, Issued, Landing, VirtioIommu};
use journal::Journal;
use memory::{Gpa, GuestMemory, Iova, RequesterId};

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

/// Bytes of any content as requests of a virtio-iommu, and accesses between
/// them. Must not panic, hang or grow; an answer fits into its room, and who
/// is in no domain reaches nothing.
pub fn fuzz_requests(data: &[u8]) {
    let Ok(memory) = GuestMemory::new(RAM) else {
        return;
    };
    let scenario = parted(Journal::disabled());
    let env = Env {
        memory: &memory,
        scenario: &scenario,
    };
    let devices = [RequesterId::new(0, 1, 0), RequesterId::new(0, 2, 0)];
    let unit = VirtioIommu::new(&devices);
    let mut input = Input(data);
    let mut tokens = Vec::new();
    while let Some(what) = input.byte() {
        let [first, second] = devices;
        let device = if what & 8 == 0 { first } else { second };
        let dma = unit.dma(env, device, true);
        match what & 7 {
            // As it comes, cut anywhere; then with small numbers, so that they
            // meet.
            0 | 1 => {
                let bytes: Vec<u8> = (0..what >> 2).map_while(|_| input.byte()).collect();
                let room = usize::from(input.byte().unwrap_or(0));
                let answer = unit.request(env, input.word(), &bytes, room);
                assert!(answer.len() <= room, "an answer longer than its room");
            }
            2..=4 => {
                let bytes = small_request(device, &mut input);
                let answer = unit.request(env, !0, &bytes, 4);
                assert!(answer.len() <= 4, "an answer longer than its room");
            }
            5 => {
                let at = Iova(input.word() >> (what >> 4 & 7) & !0xf00);
                let _ = dma.read(at, &mut [0; 40]);
                if let Ok(Issued::InFlight(token)) = dma.issue_write(at, &[what; 24]) {
                    tokens.push(token);
                }
            }
            6 => {
                if let Some(token) = tokens.pop()
                    && dma.land(token, what & 0x10 != 0) == Landing::Pending
                {
                    dma.cancel_all();
                }
                if unit.next_fault().is_some() {
                    unit.fault_reported();
                }
            }
            _ => {
                unit.set_bypass(env, what & 0x10 != 0);
                if what & 0x20 != 0 {
                    unit.reset(env);
                }
                let _ = unit.take_messages();
                unit.restore(&unit.save());
            }
        }
        assert!(
            !unit.mappings(env, device).is_empty() || dma.peek_address(Iova(0), false).is_none(),
            "reached without a mapping"
        );
    }
}

/// A whole request about few domains and pages.
fn small_request(device: RequesterId, input: &mut Input<'_>) -> Vec<u8> {
    let mut byte = || input.byte().unwrap_or(0);
    let (kind, domain, flags) = (byte() % 6, byte() % 4, byte() % 9);
    let (first, count, to) = (byte() % 32, byte() % 16, byte() % 20);
    let page = |number: u8| u64::from(number) << 12;
    let (first, to) = (page(first), page(to));
    let last = (first + page(count)).wrapping_sub(1);
    let mut bytes = vec![kind, 0, 0, 0, domain, 0, 0, 0];
    if kind < 3 {
        bytes.extend_from_slice(&u32::from(device.0).to_le_bytes());
        bytes.extend_from_slice(&[flags & 1, 0, 0, 0, 0, 0, 0, 0]);
    } else {
        bytes.extend_from_slice(&[first, last].map(u64::to_le_bytes).concat());
        if kind == 3 {
            bytes.extend_from_slice(&to.to_le_bytes());
            bytes.push(flags);
        }
        bytes.resize(72, 0);
    }
    bytes
}
