//! A function with a device that does nothing, on a bus without translation.
#![allow(clippy::unwrap_used)]

mod config;
mod messages;
mod registers;
mod rings;

use crate::spec::virtio::{self, common};
use crate::{Device, Function, Setup, layout};
use iommu::Dma;
use iommu::testing::Os;
use journal::event::Event;
use memory::{Gpa, RequesterId};
use scenario::Scenario;

pub(crate) const BAR0: u64 = 0xe000_0000;
pub(crate) const BAR1: u64 = 0xe001_0000;
pub(crate) const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
pub(crate) const OFFERED: u64 =
    virtio::F_VERSION_1 | virtio::F_ACCESS_PLATFORM | virtio::F_RING_INDIRECT_DESC;

#[derive(Default)]
pub(crate) struct Stub {
    pub notified: Vec<u16>,
    pub resets: u32,
    pub written: Vec<(u64, u8, u64)>,
}

impl Device for Stub {
    fn features(&self) -> u64 {
        OFFERED
    }

    fn config_read(&self, offset: u64, size: u8) -> u64 {
        0x1000 + offset * 0x10 + u64::from(size)
    }

    fn config_write(&mut self, offset: u64, size: u8, value: u64) {
        self.written.push((offset, size, value));
    }

    fn notify(&mut self, queue: u16) {
        self.notified.push(queue);
    }

    fn reset(&mut self, _dma: Dma<'_>) {
        self.resets += 1;
    }
}

/// A placed function, bus mastering on.
pub(crate) struct Bench {
    pub os: Os,
    pub function: Function,
    pub device: Stub,
}

pub(crate) fn setup() -> Setup {
    Setup {
        requester: DEVICE,
        device_type: 16,
        subsystem: 0xd3a5,
        class: 0x03_8000,
        queues: vec![16, 4],
        config_size: 16,
        vendor: None,
    }
}

impl Bench {
    /// After power-on: nothing placed.
    pub fn cold() -> Self {
        let device = Stub::default();
        Self {
            os: Os::new(2 << 20, Scenario::for_test()),
            function: Function::new(&setup(), &device),
            device,
        }
    }

    /// BARs placed, memory and bus mastering on.
    pub fn new() -> Self {
        let mut bench = Self::cold();
        bench.config(0x10, 4, BAR0 as u32);
        bench.config(0x14, 4, BAR1 as u32);
        bench.config(0x04, 2, 0x6);
        bench
    }

    pub fn config(&mut self, offset: u16, size: u8, value: u32) {
        let dma = self.os.dma(DEVICE);
        self.function
            .config_write(dma, &mut self.device, offset, size, value);
    }

    pub fn config_of(&mut self, offset: u16, size: u8) -> u32 {
        self.function.config_read(&self.device, offset, size)
    }

    pub fn write(&mut self, bar: u8, offset: u64, size: u8, value: u64) {
        let dma = self.os.dma(DEVICE);
        self.function
            .bar_write(dma, &mut self.device, bar, offset, size, value);
    }

    pub fn read(&mut self, bar: u8, offset: u64, size: u8) -> u64 {
        self.function.bar_read(&self.device, bar, offset, size)
    }

    pub fn set(&mut self, register: common::Register, value: u64) {
        self.write(0, layout::COMMON + register.0, register.1, value);
    }

    pub fn get(&mut self, register: common::Register) -> u64 {
        self.read(0, layout::COMMON + register.0, register.1)
    }

    pub fn features(&mut self, features: u64) {
        for half in 0..2 {
            self.set(common::DRIVER_FEATURE_SELECT, half);
            self.set(
                common::DRIVER_FEATURE,
                features >> (32 * half) & 0xffff_ffff,
            );
        }
        self.set(common::DEVICE_STATUS, 0xb);
    }

    /// Negotiated and running, queue 0 with its parts in page 256.
    pub fn live() -> Self {
        let mut bench = Self::new();
        bench.start();
        bench
    }

    pub fn start(&mut self) {
        self.features(OFFERED);
        self.set(common::QUEUE_SELECT, 0);
        self.set(common::QUEUE_DESC, DESC);
        self.set(common::QUEUE_DRIVER, AVAIL);
        self.set(common::QUEUE_DEVICE, USED);
        self.set(common::QUEUE_ENABLE, 1);
        self.set(common::DEVICE_STATUS, 0xf);
    }

    /// Turn MSI-X on, with vector `n`'s message (0xfee00000 + n, 0x40 + n).
    pub fn messages(&mut self) {
        for vector in 0..3u64 {
            self.write(1, 16 * vector, 8, 0xfee0_0000 + (vector << 12));
            self.write(1, 16 * vector + 8, 8, 0x40 + vector);
        }
        self.config(0x42, 2, 0x8000);
        self.set(common::CONFIG_MSIX_VECTOR, 0);
        self.set(common::QUEUE_SELECT, 0);
        self.set(common::QUEUE_MSIX_VECTOR, 1);
    }

    /// Data of the messages sent since the last call.
    pub fn sent(&self) -> Vec<u32> {
        let messages = self.os.unit.take_messages();
        messages.iter().map(|m| m.data).collect()
    }

    pub fn poke(&self, at: u64, bytes: &[u8]) {
        self.os.memory.write(Gpa(at), bytes).unwrap();
    }

    pub fn descriptor(&self, table: u64, index: u64, fields: (u64, u32, u16, u16)) {
        let mut bytes = fields.0.to_le_bytes().to_vec();
        bytes.extend(fields.1.to_le_bytes());
        bytes.extend(fields.2.to_le_bytes());
        bytes.extend(fields.3.to_le_bytes());
        self.poke(table + 16 * index, &bytes);
    }

    /// Make `heads` available, from ring position 0 on.
    pub fn offer(&self, heads: &[u16]) {
        for (at, head) in heads.iter().enumerate() {
            self.poke(AVAIL + 4 + 2 * at as u64, &head.to_le_bytes());
        }
        self.poke(AVAIL + 2, &(heads.len() as u16).to_le_bytes());
    }

    pub fn events(&self) -> Vec<Event> {
        let bytes = self.os.scenario.journal().bytes();
        let (records, _) = journal::read(&bytes[..]).unwrap();
        records.into_iter().map(|r| r.event).collect()
    }
}

pub(crate) const DESC: u64 = 0x10_0000;
pub(crate) const AVAIL: u64 = 0x10_1000;
pub(crate) const USED: u64 = 0x10_2000;
