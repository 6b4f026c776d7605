//! A small machine for Windows: RAM, page tables as a map, the remapping unit
//! and the GPU on their buses; no CPU.

use ::windows::{Platform, PlatformError, Protection, layout};
use gpu::{GpuConfig, VirtioGpu};
use iommu::{Env, REGISTER_BASE, REGISTER_SIZE, Unit};
use journal::Journal;
use journal::event::StackId;
use memory::{Gpa, GuestMemory, Gva, PAGE_SIZE, Pfn, RequesterId};
use scenario::{Plan, Scenario};
use std::collections::BTreeMap;

/// The only device.
pub const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
/// Memory that the input fills.
pub const DATA: Gva = Gva(0xffff_8000_0000_0000);
/// Pages of it; the page after them is not mapped.
pub const DATA_PAGES: u64 = 4;
/// RSP of every call: the fifth argument lies 0x28 above.
pub const STACK_POINTER: Gva = Gva(layout::STACKS.0 + 0x1800);

/// Frames of RAM.
const RAM: u64 = 512;
/// Bytes that resources may have together.
const PIXEL_BYTES: u64 = 1 << 18;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    memory: GuestMemory,
    scenario: Scenario,
    unit: Unit,
    gpu: VirtioGpu,
    pages: BTreeMap<u64, Pfn>,
    next: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// With data, a stack and Windows' own regions mapped.
    ///
    /// # Panics
    /// If the host has no memory.
    #[must_use]
    pub fn new() -> Self {
        let config = GpuConfig {
            device: DEVICE,
            max_pixel_bytes: PIXEL_BYTES,
            ..GpuConfig::default()
        };
        let mut machine = Self {
            memory: GuestMemory::new(RAM * PAGE_SIZE).expect("the host gives memory"),
            scenario: Scenario::new(Plan::default(), Journal::disabled()),
            unit: Unit::new(),
            gpu: VirtioGpu::new(&config),
            pages: BTreeMap::new(),
            next: 1,
        };
        for (base, pages) in [
            (DATA, DATA_PAGES),
            (Gva(layout::STACKS.0 + PAGE_SIZE), 1),
            (layout::SHARED_DATA, 1),
            (layout::SYSTEM_DATA, layout::SYSTEM_DATA_SIZE / PAGE_SIZE),
            (layout::DXGK_DATA, layout::DXGK_DATA_SIZE / PAGE_SIZE),
        ] {
            for page in 0..pages {
                let at = Gva(base.0 + page * PAGE_SIZE);
                machine.pages.insert(at.page(), Pfn(machine.next));
                machine.next += 1;
            }
        }
        machine
    }

    /// Frames that Windows may give out: the first and their number.
    #[must_use]
    pub fn free_frames(&self) -> (Pfn, u64) {
        (Pfn(self.next), RAM - self.next)
    }

    /// Let the device take a step.
    pub fn step(&mut self) {
        self.on_bus(|gpu, dma| gpu.step_landing(dma));
    }

    fn on_bus<T>(&mut self, act: impl FnOnce(&mut VirtioGpu, iommu::Dma<'_>) -> T) -> T {
        let env = Env {
            memory: &self.memory,
            scenario: &self.scenario,
        };
        let dma = self.unit.dma(env, DEVICE, self.gpu.bus_master());
        act(&mut self.gpu, dma)
    }

    fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }
}

impl Platform for Machine {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    fn map(&mut self, at: Gva, frame: Pfn, _: Protection) -> Result<(), PlatformError> {
        self.pages.insert(at.page(), frame);
        Ok(())
    }

    fn unmap(&mut self, address: Gva) {
        self.pages.remove(&address.page());
    }

    fn translate(&self, address: Gva) -> Option<Gpa> {
        let frame = self.pages.get(&address.page())?;
        frame.base().checked_add(address.offset())
    }

    fn mmio_read(&mut self, address: Gpa, size: u8) -> u64 {
        let offset = address.0.wrapping_sub(REGISTER_BASE);
        if offset < REGISTER_SIZE {
            return self.unit.mmio_read(self.env(), offset, size);
        }
        self.on_bus(|gpu, dma| gpu.mmio_read(dma, address, size))
            .unwrap_or(u64::MAX)
    }

    fn mmio_write(&mut self, address: Gpa, size: u8, value: u64) {
        let offset = address.0.wrapping_sub(REGISTER_BASE);
        if offset < REGISTER_SIZE {
            self.unit.mmio_write(self.env(), offset, size, value);
        } else {
            self.on_bus(|gpu, dma| gpu.mmio_write(dma, address, size, value));
        }
    }

    fn config_read(&mut self, device: RequesterId, offset: u16, size: u8) -> u32 {
        if device != DEVICE {
            return u32::MAX;
        }
        self.on_bus(|gpu, dma| gpu.config_read(dma, offset, size))
    }

    fn config_write(&mut self, device: RequesterId, offset: u16, size: u8, value: u32) {
        if device == DEVICE {
            self.on_bus(|gpu, dma| gpu.config_write(dma, offset, size, value));
        }
    }

    fn stack(&mut self) -> StackId {
        StackId(0)
    }
}
