//! A small machine for tests: RAM, page tables as a map, the remapping unit,
//! one PCI function with MSI-X.
#![allow(clippy::unwrap_used)]

use super::{Config, SERVICES, State};
use crate::call::{Call, Outcome, Stop};
use crate::platform::{Platform, PlatformError, Protection};
use iommu::{Env, REGISTER_BASE, REGISTER_SIZE, Unit};
use journal::event::{Event, PageRun, StackId};
use memory::{Gpa, GuestMemory, Gva, PAGE_SIZE, Pfn, RequesterId};
use scenario::Scenario;
use std::collections::BTreeMap;

pub(crate) const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
/// Frames of RAM in the machine; the allocator gets those from [`FIRST`] on.
pub(crate) const RAM: u64 = 1024;
pub(crate) const FIRST: u64 = 16;
const STACK: Gva = Gva(0xffff_be00_0000_0000);

pub(crate) struct TestMachine {
    memory: GuestMemory,
    scenario: Scenario,
    pub unit: Unit,
    pub tables: BTreeMap<u64, (Pfn, Protection)>,
    /// Mappings that are left before the machine refuses.
    pub mappings_left: usize,
    pub config: [u8; 256],
    /// Sizes of the six BARs, and whether they are 64 bits wide.
    pub bars: [(u64, bool); 6],
    pub msix: BTreeMap<u64, u64>,
}

impl TestMachine {
    pub fn new() -> Self {
        let mut machine = Self {
            memory: GuestMemory::new(RAM * PAGE_SIZE).unwrap(),
            scenario: Scenario::for_test(),
            unit: Unit::new(),
            tables: BTreeMap::new(),
            mappings_left: usize::MAX,
            config: [0; 256],
            bars: [(0, false); 6],
            msix: BTreeMap::new(),
        };
        machine.map(STACK, Pfn(1), Protection::WRITE).unwrap();
        machine
    }

    /// From now on every access of the device is parted from its landing.
    /// The journal begins anew.
    #[expect(
        clippy::field_reassign_with_default,
        reason = "a plan has private fields"
    )]
    pub fn part_accesses(&mut self) {
        let mut plan = scenario::Plan::default();
        plan.part = scenario::Part::All;
        self.scenario = Scenario::new(plan, journal::Journal::in_memory());
    }

    pub fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }

    pub fn events(&self) -> Vec<Event> {
        let bytes = self.scenario.journal().bytes();
        let (records, _) = journal::read(&bytes[..]).unwrap();
        records.into_iter().map(|record| record.event).collect()
    }

    pub fn device_reads(&self, frame: Pfn) -> bool {
        let mut bytes = [0; 8];
        let dma = self.unit.dma(self.env(), DEVICE, true);
        dma.read(memory::Iova(frame.base().0), &mut bytes).is_ok()
    }

    pub fn device_writes(&self, frame: Pfn) -> bool {
        let dma = self.unit.dma(self.env(), DEVICE, true);
        dma.write(memory::Iova(frame.base().0), &[1; 8]).is_ok()
    }

    fn bar_register(&self, index: usize) -> u32 {
        let at = 0x10 + 4 * index;
        let written = u32::from_le_bytes(self.config[at..at + 4].try_into().unwrap());
        let (size, wide) = self.bars[index];
        let upper = index > 0 && self.bars[index - 1].1;
        if upper {
            let mask = self.bars[index - 1].0.wrapping_neg() >> 32;
            written & mask as u32
        } else if size == 0 {
            0
        } else {
            written & size.wrapping_neg() as u32 | if wide { 4 } else { 0 }
        }
    }
}

impl Platform for TestMachine {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    fn map(
        &mut self,
        address: Gva,
        frame: Pfn,
        protection: Protection,
    ) -> Result<(), PlatformError> {
        if self.mappings_left == 0 {
            let why = "no page tables left".to_owned();
            return Err(PlatformError::CannotMap { address, why });
        }
        self.mappings_left -= 1;
        self.tables.insert(address.page(), (frame, protection));
        Ok(())
    }

    fn unmap(&mut self, address: Gva) {
        self.tables.remove(&address.page());
    }

    fn translate(&self, address: Gva) -> Option<Gpa> {
        let (frame, _) = self.tables.get(&address.page())?;
        Some(Gpa(frame.base().0 + address.offset()))
    }

    fn mmio_read(&mut self, address: Gpa, size: u8) -> u64 {
        let offset = address.0.wrapping_sub(REGISTER_BASE);
        if offset < REGISTER_SIZE {
            return self.unit.mmio_read(self.env(), offset, size);
        }
        self.msix.get(&address.0).copied().unwrap_or(u64::MAX)
    }

    fn mmio_write(&mut self, address: Gpa, size: u8, value: u64) {
        let offset = address.0.wrapping_sub(REGISTER_BASE);
        if offset < REGISTER_SIZE {
            self.unit.mmio_write(self.env(), offset, size, value);
        } else {
            self.msix.insert(address.0, value);
        }
    }

    fn config_read(&mut self, device: RequesterId, offset: u16, size: u8) -> u32 {
        if device != DEVICE {
            return u32::MAX;
        }
        let at = usize::from(offset);
        if size == 4 && (0x10..0x28).contains(&at) {
            return self.bar_register((at - 0x10) / 4);
        }
        let mut bytes = [0; 4];
        let length = usize::from(size);
        bytes[..length].copy_from_slice(&self.config[at..at + length]);
        u32::from_le_bytes(bytes)
    }

    fn config_write(&mut self, device: RequesterId, offset: u16, size: u8, value: u32) {
        if device == DEVICE {
            let (at, length) = (usize::from(offset), usize::from(size));
            self.config[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        }
    }

    fn stack(&mut self) -> StackId {
        self.scenario.journal().stack(&[0xffff_f800_1000_1234])
    }
}

/// All memory but the first pages, no quarantine.
pub(crate) fn state() -> State {
    state_with_quarantine(0)
}

pub(crate) fn state_with_quarantine(quarantine: u64) -> State {
    State::new(&Config {
        frames: vec![PageRun {
            first: Pfn(FIRST),
            count: RAM - FIRST,
        }],
        quarantine,
    })
}

/// Call a service by name, with arguments in registers and on the stack.
pub(crate) fn invoke(
    state: &mut State,
    machine: &mut TestMachine,
    name: &str,
    arguments: &[u64],
) -> Outcome {
    invoke_at(state, machine, 0, name, arguments)
}

pub(crate) fn invoke_at(
    state: &mut State,
    machine: &mut TestMachine,
    irql: u8,
    name: &str,
    arguments: &[u64],
) -> Outcome {
    let mut registers = [0; 4];
    for (index, &value) in arguments.iter().enumerate() {
        match registers.get_mut(index) {
            Some(register) => *register = value,
            None => machine
                .write_u64(Gva(STACK.0 + 8 + 8 * index as u64), value)
                .unwrap(),
        }
    }
    let call = Call {
        registers,
        stack_pointer: STACK,
    };
    let (_, service) = SERVICES.iter().find(|(n, _)| *n == name).unwrap();
    service(state, machine, &call, irql)
}

pub(crate) fn returned(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Return(value) => value,
        other => panic!("expected a return, got {other:?}"),
    }
}

pub(crate) fn stopped(outcome: Outcome) -> Stop {
    match outcome {
        Outcome::Stop(stop) => stop,
        other => panic!("expected a stop, got {other:?}"),
    }
}
