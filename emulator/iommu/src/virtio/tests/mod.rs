#![allow(clippy::unwrap_used)]

mod faults;
mod injected;
mod model;
mod requests;

use super::*;
use crate::fault::FaultReason;
use crate::spec::virtio::feature;
use journal::event::Event;
use memory::{Gpa, GuestMemory, Iova};
use scenario::Scenario;

pub(super) const GPU: RequesterId = RequesterId::new(0, 1, 0);
pub(super) const OTHER: RequesterId = RequesterId::new(0, 2, 0);
const PAGES: u64 = 16;

/// A unit with two endpoints, and memory whose pages hold their number.
pub(super) struct World {
    memory: GuestMemory,
    scenario: Scenario,
    pub unit: VirtioIommu,
}

impl World {
    pub fn new(scenario: Scenario) -> Self {
        let memory = GuestMemory::new(PAGES * PAGE_SIZE).unwrap();
        for page in 0..PAGES {
            memory
                .fill(Gpa(page * PAGE_SIZE), PAGE_SIZE, page as u8)
                .unwrap();
        }
        Self {
            memory,
            scenario,
            unit: VirtioIommu::new(&[GPU, OTHER]),
        }
    }

    /// With the GPU in domain 1.
    pub fn attached() -> Self {
        let world = Self::new(Scenario::for_test());
        assert_eq!(world.attach(1, GPU), Status::Ok);
        world
    }

    pub fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }

    pub fn send(&self, readable: &[u8]) -> Status {
        self.send_with(feature::ALL, readable)
    }

    pub fn send_with(&self, features: u64, readable: &[u8]) -> Status {
        let written = self
            .unit
            .request(self.env(), features, readable, code::TAIL);
        let [status, 0, 0, 0] = written[..] else {
            panic!("{written:?} is no tail");
        };
        of(status)
    }

    pub fn attach(&self, domain: u32, device: RequesterId) -> Status {
        self.send(&attach(domain, device, 0))
    }

    pub fn map(&self, domain: u32, page: u64, count: u64, to: u64) -> Status {
        let rw = code::MAP_READ | code::MAP_WRITE;
        self.send(&map(domain, span(page, count), to * PAGE_SIZE, rw))
    }

    pub fn unmap(&self, domain: u32, page: u64, count: u64) -> Status {
        self.send(&unmap(domain, span(page, count)))
    }

    pub fn read(&self, device: RequesterId, page: u64) -> Result<u8, FaultReason> {
        let dma = self.unit.dma(self.env(), device, true);
        let mut byte = [0xff];
        let read = dma.read(Iova(page * PAGE_SIZE), &mut byte);
        read.map(|()| byte[0]).map_err(|fault| fault.reason)
    }

    pub fn write(&self, device: RequesterId, page: u64) -> Result<(), FaultReason> {
        let dma = self.unit.dma(self.env(), device, true);
        let written = dma.write(Iova(page * PAGE_SIZE), &[0x77]);
        written.map_err(|fault| fault.reason)
    }

    pub fn events(&self) -> Vec<Event> {
        let (records, _) = journal::read(&self.scenario.journal().bytes()[..]).unwrap();
        records.into_iter().map(|record| record.event).collect()
    }
}

/// First and last address of pages.
pub(super) fn span(page: u64, count: u64) -> (u64, u64) {
    (page * PAGE_SIZE, (page + count) * PAGE_SIZE - 1)
}

fn of(status: u8) -> Status {
    use Status as S;
    let all = [
        S::Ok,
        S::IoErr,
        S::Unsupp,
        S::DevErr,
        S::Inval,
        S::Range,
        S::NoEnt,
        S::Fault,
        S::NoMem,
    ];
    all[usize::from(status)]
}

pub(super) fn attach(domain: u32, device: RequesterId, flags: u32) -> Vec<u8> {
    words(code::ATTACH, &[domain, device.0.into(), flags, 0])
}

pub(super) fn detach(domain: u32, device: RequesterId) -> Vec<u8> {
    words(code::DETACH, &[domain, device.0.into(), 0, 0])
}

pub(super) fn map(domain: u32, (first, last): (u64, u64), to: u64, flags: u32) -> Vec<u8> {
    let mut bytes = words(code::MAP, &[domain]);
    bytes.extend([first, last, to].map(u64::to_le_bytes).concat());
    bytes.extend(flags.to_le_bytes());
    bytes
}

pub(super) fn unmap(domain: u32, (first, last): (u64, u64)) -> Vec<u8> {
    let mut bytes = words(code::UNMAP, &[domain]);
    bytes.extend([first, last].map(u64::to_le_bytes).concat());
    bytes.extend([0; 4]);
    bytes
}

pub(super) fn probe(device: RequesterId) -> Vec<u8> {
    let mut bytes = words(code::PROBE, &[device.0.into()]);
    bytes.resize(code::PROBE_SIZE, 0);
    bytes
}

fn words(kind: u8, words: &[u32]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}
