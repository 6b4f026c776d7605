//! A driver that writes rings into guest memory, and a GPU that it steps.
#![allow(clippy::unwrap_used)]

mod blobs;
mod commands;
mod cursor;
mod displays;
mod errors;
mod faults;
mod hostile;
mod owned;
mod state;
mod vsync;

use crate::spec::command as code;
use crate::{GpuConfig, Stepped, VirtioGpu};
use interface::pixel;
use iommu::Dma;
use iommu::testing::{Os, READ_WRITE};
use journal::event::Event;
use memory::{Gpa, Iova, PAGE_SIZE};
use pci::layout;
use pci::spec::virtio::{DESC_NEXT, DESC_WRITE, common};
use scenario::{Part, Plan, Scenario};

/// RAM: tables from the start, rings and buffers from 4 MiB.
const RAM: u64 = 8 << 20;
const RINGS: u64 = 4 << 20;
const COMMAND: u64 = RINGS + 0x1_0000;
const RESPONSE: u64 = RINGS + 0x6_0000;
const BACKING: u64 = RINGS + 0x10_0000;

/// The device's way to memory, as its command register has it.
pub(crate) fn dma<'a>(os: &'a Os, gpu: &VirtioGpu) -> Dma<'a> {
    os.unit.dma(os.env(), gpu.requester(), gpu.bus_master())
}

pub(crate) struct Guest {
    pub os: Os,
    pub gpu: VirtioGpu,
    /// Top second-level table, with translation on.
    pub top: Option<Gpa>,
    /// Buffers offered so far, by queue.
    offered: [u16; 2],
    /// The device's own features that it takes.
    features: u64,
}

impl Guest {
    /// Translation off.
    pub fn new() -> Self {
        Self::with(GpuConfig::default(), Part::None, false)
    }

    /// Translation on, and everything from 4 MiB mapped one to one.
    pub fn isolated(part: Part) -> Self {
        Self::with(GpuConfig::default(), part, true)
    }

    pub fn with(config: GpuConfig, part: Part, translated: bool) -> Self {
        let mut plan = Plan::default();
        if part != Part::None {
            plan.part = part;
        }
        let journal = journal::Journal::in_memory();
        let os = Os::new(RAM, Scenario::new(plan, journal));
        let top = translated.then(|| {
            os.start();
            let top = os.attach(config.device, 1, 4);
            for page in RINGS / PAGE_SIZE..RAM / PAGE_SIZE {
                let at = page * PAGE_SIZE;
                os.map(top, Iova(at), Gpa(at), READ_WRITE);
            }
            top
        });
        let mut guest = Self {
            gpu: VirtioGpu::new(&config),
            os,
            top,
            offered: [0; 2],
            features: 0,
        };
        guest.place();
        guest.start();
        guest
    }

    fn place(&mut self) {
        let dma = self.os.dma(self.gpu.requester());
        self.gpu.config_write(dma, 0x10, 4, 0xe000_0000);
        self.gpu.config_write(dma, 0x14, 4, 0xe001_0000);
        self.gpu.config_write(dma, 0x04, 2, 0x6);
        for vector in 0..3 {
            let entry = 0xe001_0000 + 16 * vector;
            self.gpu.mmio_write(dma, Gpa(entry), 8, 0xfee0_0000);
            self.gpu.mmio_write(dma, Gpa(entry + 8), 8, 0x40 + vector);
        }
        self.gpu.config_write(dma, 0x42, 2, 0x8000);
    }

    pub fn set(&mut self, (offset, size): common::Register, value: u64) {
        let dma = self.os.dma(self.gpu.requester());
        self.gpu
            .bar_write(dma, 0, layout::COMMON + offset, size, value);
    }

    pub fn start(&mut self) {
        self.prepare();
        self.set(common::DEVICE_STATUS, 0xf);
    }

    /// Reset it, and start it with `features` besides those of
    /// [`Guest::prepare`].
    pub fn restart(&mut self, features: u64) {
        self.set(common::DEVICE_STATUS, 0);
        self.features = features;
        self.start();
    }

    /// Everything but DRIVER_OK.
    pub fn prepare(&mut self) {
        self.set(common::DRIVER_FEATURE_SELECT, 0);
        self.set(common::DRIVER_FEATURE, 1 << 28 | self.features);
        self.set(common::DRIVER_FEATURE_SELECT, 1);
        self.set(common::DRIVER_FEATURE, 3);
        self.set(common::DEVICE_STATUS, 0xb);
        self.set(common::CONFIG_MSIX_VECTOR, 0);
        for queue in 0..2 {
            let rings = Self::rings(queue as usize);
            self.set(common::QUEUE_SELECT, queue);
            self.set(common::QUEUE_DESC, rings);
            self.set(common::QUEUE_DRIVER, rings + 0x1000);
            self.set(common::QUEUE_DEVICE, rings + 0x2000);
            self.set(common::QUEUE_MSIX_VECTOR, queue + 1);
            self.set(common::QUEUE_ENABLE, 1);
        }
        self.offered = [0; 2];
        self.os.memory.fill(Gpa(RINGS), 0x6000, 0).unwrap();
    }

    fn rings(queue: usize) -> u64 {
        RINGS + 0x3000 * queue as u64
    }

    pub fn poke(&self, at: u64, bytes: &[u8]) {
        self.os.memory.write(Gpa(at), bytes).unwrap();
    }

    pub fn peek(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.os.memory.read(Gpa(at), &mut bytes).unwrap();
        bytes
    }

    pub fn descriptor(&self, queue: usize, index: u64, fields: (u64, u32, u16, u16)) {
        let mut bytes = fields.0.to_le_bytes().to_vec();
        bytes.extend(fields.1.to_le_bytes());
        bytes.extend(fields.2.to_le_bytes());
        bytes.extend(fields.3.to_le_bytes());
        self.poke(Self::rings(queue) + 16 * index, &bytes);
    }

    /// Put `head` into the available ring and ring the doorbell.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let size = if queue == 0 { 256 } else { 16 };
        let avail = Self::rings(queue) + 0x1000;
        let at = u64::from(self.offered[queue] % size);
        self.poke(avail + 4 + 2 * at, &head.to_le_bytes());
        self.offered[queue] += 1;
        self.poke(avail + 2, &self.offered[queue].to_le_bytes());
        let dma = dma(&self.os, &self.gpu);
        let doorbell = layout::NOTIFY + 4 * queue as u64;
        self.gpu.bar_write(dma, 0, doorbell, 2, queue as u64);
    }

    /// Put a command where the device reads it, with room for a response,
    /// and ring.
    pub fn queue(&mut self, queue: usize, command: &[u8], room: u32) {
        self.poke(COMMAND, command);
        self.os.memory.fill(Gpa(RESPONSE), 0x1000, 0xee).unwrap();
        self.descriptor(queue, 0, (COMMAND, command.len() as u32, DESC_NEXT, 1));
        self.descriptor(queue, 1, (RESPONSE, room, DESC_WRITE, 0));
        self.offer(queue, 0);
    }

    /// Step until nothing is left; says how many steps that took.
    pub fn run(&mut self) -> usize {
        for steps in 0..200_000 {
            let dma = dma(&self.os, &self.gpu);
            if self.gpu.step_landing(dma) == Stepped::Idle {
                return steps;
            }
        }
        panic!("the device does not come to rest");
    }

    /// One step, landing left to the scenario.
    pub fn step(&mut self) -> Stepped {
        let dma = dma(&self.os, &self.gpu);
        self.gpu.step(dma)
    }

    /// Queue a control command, run, and give the response's code.
    pub fn ask(&mut self, command: &[u8]) -> u32 {
        self.queue(0, command, 2048);
        self.run();
        self.code()
    }

    pub fn code(&self) -> u32 {
        u32::from_le_bytes(self.peek(RESPONSE, 4).try_into().unwrap())
    }

    /// Used index of a queue, and id and length of its last element.
    pub fn used(&self, queue: usize) -> (u16, u32, u32) {
        let ring = Self::rings(queue) + 0x2000;
        let word = |at| u32::from_le_bytes(self.peek(at, 4).try_into().unwrap());
        let index = (word(ring) >> 16) as u16;
        let size = if queue == 0 { 256 } else { 16 };
        let at = ring + 4 + 8 * u64::from(index.wrapping_sub(1) % size);
        (index, word(at), word(at + 4))
    }

    /// A resource with its backing at [`BACKING`], on scanout 0.
    pub fn show(&mut self, id: u32, width: u32, height: u32) {
        assert_eq!(self.ask(&create(id, 2, width, height)), code::OK_NODATA);
        let entries = [(BACKING, width * height * 4)];
        assert_eq!(self.ask(&attach(id, &entries)), code::OK_NODATA);
        let shown = (0, 0, width, height);
        assert_eq!(self.ask(&set_scanout(0, id, shown)), code::OK_NODATA);
    }

    /// Draw the picture of `seed` into the backing.
    pub fn draw(&self, seed: u64, width: u32, height: u32) {
        for y in 0..height {
            let row: Vec<u8> = (0..width)
                .flat_map(|x| pixel(seed, x, y).to_le_bytes())
                .collect();
            self.poke(BACKING + u64::from(y * width * 4), &row);
        }
    }

    pub fn events(&self) -> Vec<Event> {
        let bytes = self.os.scenario.journal().bytes();
        let (records, _) = journal::read(&bytes[..]).unwrap();
        records.into_iter().map(|r| r.event).collect()
    }

    /// Names of commands and responses in the journal, in order.
    pub fn told(&self) -> Vec<String> {
        let events = self.events();
        let text = |wanted| {
            events.iter().find_map(|e| match e {
                Event::Name { id, text } if *id == wanted => Some(text.clone()),
                _ => None,
            })
        };
        events
            .iter()
            .filter_map(|e| match e {
                Event::Command { name, .. } | Event::Response { name, .. } => text(*name),
                Event::DeviceState { state, .. } => text(*state),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn words(kind: u32, words: &[u32]) -> Vec<u8> {
    let header = [kind, 0, 0, 0, 0, 0];
    header
        .iter()
        .chain(words)
        .flat_map(|w| w.to_le_bytes())
        .collect()
}

pub(crate) type Xywh = (u32, u32, u32, u32);

pub(crate) fn create(id: u32, format: u32, width: u32, height: u32) -> Vec<u8> {
    words(code::RESOURCE_CREATE_2D, &[id, format, width, height])
}

pub(crate) fn unref(id: u32) -> Vec<u8> {
    words(code::RESOURCE_UNREF, &[id, 0])
}

pub(crate) fn detach(id: u32) -> Vec<u8> {
    words(code::RESOURCE_DETACH_BACKING, &[id, 0])
}

pub(crate) fn attach(id: u32, entries: &[(u64, u32)]) -> Vec<u8> {
    let mut rest = vec![id, entries.len() as u32];
    for &(address, length) in entries {
        rest.extend([address as u32, (address >> 32) as u32, length, 0]);
    }
    words(code::RESOURCE_ATTACH_BACKING, &rest)
}

pub(crate) fn set_scanout(scanout: u32, id: u32, (x, y, w, h): Xywh) -> Vec<u8> {
    words(code::SET_SCANOUT, &[x, y, w, h, scanout, id])
}

pub(crate) fn flush(id: u32, (x, y, w, h): Xywh) -> Vec<u8> {
    words(code::RESOURCE_FLUSH, &[x, y, w, h, id, 0])
}

pub(crate) fn transfer(id: u32, (x, y, w, h): Xywh, offset: u32) -> Vec<u8> {
    let rest = [x, y, w, h, offset, 0, id, 0];
    words(code::TRANSFER_TO_HOST_2D, &rest)
}

/// A guest blob of whole pages from [`BACKING`] on.
pub(crate) fn create_blob(id: u32, size: u32) -> Vec<u8> {
    let at = BACKING as u32;
    let entry = [at, 0, size, 0];
    blob(id, (1, 1), size.into(), &entry)
}

pub(crate) fn blob(id: u32, (mem, flags): (u32, u32), size: u64, entries: &[u32]) -> Vec<u8> {
    let count = entries.len() as u32 / 4;
    let (low, high) = (size as u32, (size >> 32) as u32);
    let mut rest = vec![id, mem, flags, count, 0, 0, low, high];
    rest.extend(entries);
    words(code::RESOURCE_CREATE_BLOB, &rest)
}

/// Scanout, resource, rectangle; width, height, format, stride, offset.
pub(crate) fn set_scanout_blob(
    (scanout, id): (u32, u32),
    (x, y, w, h): Xywh,
    (width, height, format, stride, offset): (u32, u32, u32, u32, u32),
) -> Vec<u8> {
    let mut rest = vec![x, y, w, h, scanout, id, width, height, format, 0];
    rest.extend([stride, 0, 0, 0, offset, 0, 0, 0]);
    words(code::SET_SCANOUT_BLOB, &rest)
}
