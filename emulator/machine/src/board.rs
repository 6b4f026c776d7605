//! The board: memory, CPU, IOMMU, device, and the buses between them. It is
//! the [`Platform`] that Windows runs on.

use crate::error::MachineError;
use crate::vm::{self, AddressSpace, RunLimit, StepEnd, Trap, Vm, VmError};
use gpu::{Stepped, VirtioGpu};
use iommu::{Dma, Env, Message, REGISTER_BASE, REGISTER_SIZE, Unit};
use journal::event::StackId;
use memory::{Changed, Gpa, GuestMemory, Gva, Image, Iova, PAGE_SIZE, Pfn, RequesterId, Tracker};
use scenario::Scenario;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use symbols::Unwinder;
use windows::{Platform, PlatformError, Protection, layout};

/// Pages of one buffer that are watched; a driver polls the start of one.
const MAX_POLLED: u64 = 16;
/// Frames of a stack that are kept.
const STACK_LIMIT: usize = 32;

/// Command register, first BAR and first capability (PCI 6.1).
const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
/// Most capabilities that fit into configuration space.
const MAX_CAPABILITIES: usize = 48;
/// Capability ids: vendor-specific, MSI-X (PCI 6.8.2).
const VENDOR_CAPABILITY: u32 = 0x09;
const MSIX_CAPABILITY: u32 = 0x11;
/// VIRTIO_PCI_CAP_COMMON_CFG, and device_status in what it leads to (virtio
/// 1.2 4.1.4.3).
const COMMON_CONFIGURATION: u32 = 1;
const DEVICE_STATUS: u64 = 0x14;

/// What of the board is neither in guest memory nor a room's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BoardState {
    /// Where each frame of RAM is mapped for the driver.
    mapped_at: BTreeMap<Pfn, BTreeSet<Gva>>,
    /// Pages whose reads trap, because the device may write them.
    polled: BTreeSet<Gva>,
    /// The driver's interrupt flag, as it believes.
    pub interrupts: bool,
}

impl Default for BoardState {
    fn default() -> Self {
        Self {
            mapped_at: BTreeMap::new(),
            polled: BTreeSet::new(),
            interrupts: true,
        }
    }
}

/// A write to the vendor's BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VendorWrite {
    /// Bytes of the journal before it.
    pub at: usize,
    /// Where in the BAR.
    pub offset: u64,
    /// The value, of 1 to 8 bytes.
    pub value: u64,
}

pub(crate) struct Board {
    pub memory: Arc<GuestMemory>,
    pub scenario: Scenario,
    pub unit: Unit,
    pub gpu: VirtioGpu,
    pub space: AddressSpace,
    pub vm: Vm,
    pub unwinder: Unwinder,
    pub state: BoardState,
    /// The vendor's BAR, and what was written there: no part of a snapshot.
    pub vendor: Option<(u8, Vec<VendorWrite>)>,
    /// Follows memory, once a snapshot or a digest was asked for.
    pub tracker: RefCell<Option<Tracker>>,
}

impl Board {
    fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }

    /// What memory holds.
    pub fn image(&self) -> Result<Image, MachineError> {
        let mut written = self.vm.written()?;
        self.add_stacks(&mut written);
        let mut tracker = self.tracker.borrow_mut();
        let tracker = match &mut *tracker {
            Some(tracker) => {
                tracker.update(&self.memory, &written)?;
                tracker
            }
            none => none.insert(Tracker::new(&self.memory)?),
        };
        Ok(tracker.image().clone())
    }

    /// Count every kernel stack as written by the CPU: KVM's log has been
    /// seen to lack the return address that a call pushes, where it is all
    /// that is written to its page (on a nested host without hardware's help;
    /// all other memory was compared, and nothing else was missing).
    fn add_stacks(&self, written: &mut [u64]) {
        let pages = layout::STACK_SIZE / PAGE_SIZE;
        for index in 0.. {
            let top = layout::stack_top(index);
            for page in 1..=pages {
                let at = Gva(top.0.wrapping_sub(page * PAGE_SIZE));
                let Some((gpa, _)) = self.space.translate(at) else {
                    return;
                };
                let Ok(page) = self.memory.page_of_file(gpa) else {
                    return;
                };
                if let Some(word) = written.get_mut((page / 64) as usize) {
                    *word |= 1 << (page % 64);
                }
            }
        }
    }

    /// Put an image back; the pages that changed by it.
    pub fn restore_memory(&mut self, image: &Image) -> Result<Vec<Changed>, MachineError> {
        self.image()?;
        Ok(match self.tracker.get_mut() {
            Some(tracker) => tracker.restore(&self.memory, image)?,
            None => Vec::new(),
        })
    }

    /// The device, and its way to memory.
    fn device(&mut self) -> (&mut VirtioGpu, Dma<'_>) {
        let env = Env {
            memory: &self.memory,
            scenario: &self.scenario,
        };
        let dma = self
            .unit
            .dma(env, self.gpu.requester(), self.gpu.bus_master());
        (&mut self.gpu, dma)
    }

    /// Let the device take one step; whatever it holds back lands.
    pub fn step_device_landing(&mut self) -> Stepped {
        let (gpu, dma) = self.device();
        gpu.step_landing(dma)
    }

    /// Would the device do something now? Its vertical blank comes by virtual
    /// time.
    pub fn device_has_work(&self) -> bool {
        self.gpu.has_work_at(self.scenario.now())
    }

    /// Let the device take one step.
    pub fn step_device(&mut self) -> Stepped {
        let (gpu, dma) = self.device();
        gpu.step(dma)
    }

    /// Interrupt messages since the last call.
    pub fn take_messages(&mut self) -> Vec<Message> {
        self.unit.take_messages()
    }

    /// The driver reads a device register.
    pub fn device_read(&mut self, address: Gpa, size: u8) -> u64 {
        let (gpu, dma) = self.device();
        // Nobody answers there: all ones, as on a real bus.
        gpu.mmio_read(dma, address, size).unwrap_or(u64::MAX)
    }

    /// The driver writes a device register.
    pub fn device_write(&mut self, address: Gpa, size: u8, value: u64) {
        if let Some((vendor, writes)) = &mut self.vendor
            && let Some((bar, offset)) = self.gpu.decode(address)
            && bar == *vendor
        {
            let at = self.scenario.journal().len();
            writes.push(VendorWrite { at, offset, value });
        }
        let (gpu, dma) = self.device();
        let _ = gpu.mmio_write(dma, address, size, value);
    }

    /// Run the driver up to its next trap; reads of memory that the device
    /// may still write trap too.
    pub fn run(&mut self, limit: &RunLimit<'_>) -> Result<Trap, VmError> {
        self.watch_device_memory()?;
        self.vm.run(&mut self.space, limit)
    }

    /// Trap the pages that the device may write while it has work to do, and
    /// no others.
    fn watch_device_memory(&mut self) -> Result<(), VmError> {
        let mut wanted = BTreeSet::new();
        if self.gpu.has_work() {
            let dma = self
                .unit
                .dma(self.env(), self.gpu.requester(), self.gpu.bus_master());
            for segment in self.gpu.may_write(dma) {
                let first = segment.iova.page();
                let end = segment.iova.0.saturating_add(u64::from(segment.length));
                let last = Iova(end.saturating_sub(1)).page();
                for page in first..=last.min(first + MAX_POLLED) {
                    if let Some(gpa) = dma.peek_address(Iova(page * PAGE_SIZE), true)
                        && let Some(at) = self.state.mapped_at.get(&Pfn::from(gpa))
                    {
                        wanted.extend(at.iter().copied());
                    }
                }
            }
        }
        let gone: Vec<Gva> = self.state.polled.difference(&wanted).copied().collect();
        let new: Vec<Gva> = wanted.difference(&self.state.polled).copied().collect();
        for page in gone {
            self.state.polled.remove(&page);
            self.space.untrap(page)?;
        }
        for page in new {
            self.space.trap_accesses(page)?;
            self.state.polled.insert(page);
        }
        Ok(())
    }

    /// Did this access trap only because the page's accesses trap now, and
    /// would it be allowed otherwise?
    pub fn is_trapped(&self, address: Gva, write: bool, fetch: bool) -> bool {
        self.space.mapping(address).is_some_and(|mapping| {
            mapping.trapped
                && (!write || mapping.protection.write)
                && (!fetch || mapping.protection.execute)
        })
    }

    /// Can the driver write there, at once or after a trap?
    pub fn is_writable(&self, address: Gva) -> bool {
        self.space
            .mapping(address)
            .is_some_and(|mapping| mapping.protection.write)
    }

    /// Let the instruction at RIP access `pages` once.
    pub fn step_over(&mut self, pages: &[Gva], limit: &RunLimit<'_>) -> Result<StepEnd, VmError> {
        self.vm.step_over(&mut self.space, pages, limit)
    }

    /// The function loses what it holds: the virtio device is reset, which
    /// cancels its accesses; messages, BARs and command register are as after
    /// power-on.
    fn reset_function(&mut self) {
        let (gpu, dma) = self.device();
        for (id, at) in capabilities(gpu, dma) {
            let read = |gpu: &mut VirtioGpu, offset, size| gpu.config_read(dma, at + offset, size);
            if id == VENDOR_CAPABILITY && read(gpu, 3, 1) == COMMON_CONFIGURATION {
                let (bar, offset) = (read(gpu, 4, 1) as u8, u64::from(read(gpu, 8, 4)));
                gpu.bar_write(dma, bar, offset + DEVICE_STATUS, 1, 0);
            } else if id == MSIX_CAPABILITY {
                let entries = u64::from(read(gpu, 2, 2) & 0x7ff) + 1;
                let place = read(gpu, 4, 4);
                let (bar, table) = ((place & 7) as u8, u64::from(place & !7));
                gpu.config_write(dma, at + 2, 2, 0);
                for word in 0..4 * entries {
                    // Address, data, control: masked.
                    let value = u64::from(word % 4 == 3);
                    gpu.bar_write(dma, bar, table + 4 * word, 4, value);
                }
            }
        }
        gpu.config_write(dma, COMMAND, 2, 0);
        for bar in 0..6 {
            gpu.config_write(dma, BAR0 + 4 * bar, 4, 0);
        }
    }

    /// The driver's stack: first the place itself, then return addresses.
    pub fn frames(&self) -> Vec<u64> {
        use vm::Gpr;
        let r = self.vm.registers();
        let registers = symbols::Registers {
            rip: r.rip,
            rsp: r[Gpr::Rsp],
            rbp: r[Gpr::Rbp],
            rbx: r[Gpr::Rbx],
            rsi: r[Gpr::Rsi],
            rdi: r[Gpr::Rdi],
            r12: r[Gpr::R12],
            r13: r[Gpr::R13],
            r14: r[Gpr::R14],
            r15: r[Gpr::R15],
        };
        let mut read = |at: u64| self.space.read_u64(Gva(at)).ok();
        let mut frames = self.unwinder.unwind(&registers, &mut read, STACK_LIMIT);
        // Inside a thunk the place of interest is the call of it: the byte
        // before the return address belongs to the call instruction.
        let thunks = layout::THUNKS.0..layout::THUNKS.0 + layout::THUNKS_SIZE;
        if frames.len() > 1 && thunks.contains(&frames[0]) {
            frames.remove(0);
            frames[0] = frames[0].wrapping_sub(1);
        }
        frames
    }

    /// The stack, interned.
    pub fn stack_id(&self) -> StackId {
        self.scenario.journal().stack(&self.frames())
    }
}

impl Platform for Board {
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
        self.unmap(address);
        self.space
            .map(
                address,
                frame,
                vm::Protection {
                    write: protection.write,
                    execute: protection.execute,
                    user: true,
                },
            )
            .map_err(|e| PlatformError::CannotMap {
                address,
                why: e.to_string(),
            })?;
        self.state
            .mapped_at
            .entry(frame)
            .or_default()
            .insert(address.page_base());
        Ok(())
    }

    fn unmap(&mut self, address: Gva) {
        let page = address.page_base();
        if let Ok(mapping) = self.space.unmap(page) {
            if let Some(at) = self.state.mapped_at.get_mut(&mapping.frame) {
                at.remove(&page);
                if at.is_empty() {
                    self.state.mapped_at.remove(&mapping.frame);
                }
            }
            self.state.polled.remove(&page);
        }
    }

    fn translate(&self, address: Gva) -> Option<Gpa> {
        let (gpa, protection) = self.space.translate(address)?;
        protection.user.then_some(gpa)
    }

    fn mmio_read(&mut self, address: Gpa, size: u8) -> u64 {
        match register_offset(address) {
            Some(offset) => self.unit.mmio_read(self.env(), offset, size),
            None => self.device_read(address, size),
        }
    }

    fn mmio_write(&mut self, address: Gpa, size: u8, value: u64) {
        match register_offset(address) {
            Some(offset) => self.unit.mmio_write(self.env(), offset, size, value),
            None => self.device_write(address, size, value),
        }
    }

    fn config_read(&mut self, device: RequesterId, offset: u16, size: u8) -> u32 {
        if device != self.gpu.requester() {
            return u32::MAX;
        }
        let (gpu, dma) = self.device();
        gpu.config_read(dma, offset, size)
    }

    fn config_write(&mut self, device: RequesterId, offset: u16, size: u8, value: u32) {
        if device == self.gpu.requester() {
            let (gpu, dma) = self.device();
            gpu.config_write(dma, offset, size, value);
        }
    }

    fn reset_device(&mut self, device: RequesterId) {
        if device == self.gpu.requester() {
            self.reset_function();
        }
    }

    fn stack(&mut self) -> StackId {
        self.stack_id()
    }
}

/// Id and place of each capability of the function (PCI 6.7).
fn capabilities(gpu: &mut VirtioGpu, dma: Dma<'_>) -> Vec<(u32, u16)> {
    let mut found = Vec::new();
    let mut at = gpu.config_read(dma, CAPABILITIES, 1) as u16;
    while at >= 0x40 && found.len() < MAX_CAPABILITIES {
        let header = gpu.config_read(dma, at, 2);
        found.push((header & 0xff, at));
        at = (header >> 8) as u16;
    }
    found
}

fn register_offset(address: Gpa) -> Option<u64> {
    let offset = address.0.checked_sub(REGISTER_BASE)?;
    (offset < REGISTER_SIZE).then_some(offset)
}
