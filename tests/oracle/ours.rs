//! Our unit, and a device with a buffer before it.

use crate::target::{BUFFER, DEVICES, Direction, RAM, Target};
use iommu::{Env, Unit};
use memory::{Gpa, GuestMemory, Iova, RequesterId};
use scenario::Scenario;

pub struct Ours {
    memory: GuestMemory,
    scenario: Scenario,
    unit: Unit,
    buffers: [Vec<u8>; DEVICES.len()],
}

impl Ours {
    pub fn new() -> Self {
        Self {
            memory: GuestMemory::new(RAM).expect("the host gives memory"),
            scenario: Scenario::for_test(),
            unit: Unit::new(),
            buffers: std::array::from_fn(|_| vec![0; BUFFER as usize]),
        }
    }

    fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }
}

impl Target for Ours {
    fn poke(&mut self, at: u64, value: u64) {
        self.memory.write_u64(Gpa(at), value).expect("inside RAM");
    }

    fn look(&mut self, at: u64) -> u64 {
        self.memory.read_u64(Gpa(at)).expect("inside RAM")
    }

    fn clear(&mut self, at: u64, length: u64) {
        self.memory.fill(Gpa(at), length, 0).expect("inside RAM");
    }

    fn get(&mut self, offset: u64, size: u8) -> u64 {
        self.unit.mmio_read(self.env(), offset, size)
    }

    fn set(&mut self, offset: u64, size: u8, value: u64) {
        self.unit.mmio_write(self.env(), offset, size, value);
    }

    fn dma(&mut self, device: usize, direction: Direction, iova: u64, offset: u64, length: u64) {
        let mut buffer = std::mem::take(&mut self.buffers[device]);
        let dma = self
            .unit
            .dma(self.env(), RequesterId(DEVICES[device]), true);
        let bytes = &mut buffer[offset as usize..(offset + length) as usize];
        // Refusals are seen in the fault records.
        let _ = match direction {
            Direction::Read => dma.read(Iova(iova), bytes),
            Direction::Write => dma.write(Iova(iova), bytes),
        };
        self.buffers[device] = buffer;
    }
}
