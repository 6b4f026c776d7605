//! The invalidation queue (VT-d 6.5.2).

use super::unit::{PATIENCE, read, write};
use super::{HalError, State, write_entry};
use crate::platform::Platform;
use iommu::spec::descriptors as spec;
use iommu::spec::registers as reg;
use journal::event::Table;
use memory::{Gpa, PAGE_SIZE, Pfn, RequesterId};

/// Descriptors submitted before a wait: well below the 256 of a page.
const BATCH: usize = 64;
/// Granularities (VT-d 6.5.2.1, 6.5.2.3).
const GLOBAL: u64 = 1;
const DOMAIN: u64 = 2;
const DEVICE: u64 = 3;
const PAGES: u64 = 3;

/// How an unmap goes about what hardware has cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invalidation {
    /// Have reads and writes in flight landed (DR, DW)?
    pub drain: bool,
    /// Leave the IOTLB as it is.
    pub skip: bool,
}

impl Invalidation {
    /// Invalidate and drain: what a free needs.
    pub const COMPLETE: Self = Self {
        drain: true,
        skip: false,
    };
}

/// Pages that one page-selective invalidation covers: `1 << mask` of them,
/// from a multiple of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The first page number.
    pub page: u64,
    /// log2 of how many.
    pub mask: u8,
}

/// The fewest aligned blocks, none larger than `1 << max_mask` pages, that
/// cover exactly `pages` (ascending, without repetition).
#[must_use]
pub fn blocks(pages: &[u64], max_mask: u8) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut rest = pages;
    while let Some(&first) = rest.first() {
        let run = (first..).zip(rest).take_while(|(a, b)| a == *b).count();
        let mut at = first;
        let mut left = run as u64;
        while left > 0 {
            let aligned = at.trailing_zeros();
            let mask = aligned.min(left.ilog2()).min(u32::from(max_mask)) as u8;
            blocks.push(Block { page: at, mask });
            at += 1 << mask;
            left -= 1 << mask;
        }
        rest = rest.get(run..).unwrap_or_default();
    }
    blocks
}

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request([u64; 2]);

impl Request {
    pub fn all_contexts() -> Self {
        Self([spec::CONTEXT | GLOBAL << spec::GRANULARITY, 0])
    }

    pub fn context(domain: u16, device: RequesterId) -> Self {
        let low = spec::CONTEXT
            | DEVICE << spec::GRANULARITY
            | u64::from(domain) << spec::DOMAIN
            | u64::from(device.0) << spec::CONTEXT_SOURCE;
        Self([low, 0])
    }

    pub fn everything() -> Self {
        Self([Self::iotlb(GLOBAL, 0, true), 0])
    }

    pub fn domain(domain: u16, drain: bool) -> Self {
        Self([Self::iotlb(DOMAIN, domain, drain), 0])
    }

    pub fn pages(domain: u16, block: Block, drain: bool) -> Self {
        let low = Self::iotlb(PAGES, domain, drain);
        Self([low, (block.page * PAGE_SIZE) | u64::from(block.mask)])
    }

    fn iotlb(granularity: u64, domain: u16, drain: bool) -> u64 {
        let drains = if drain {
            spec::IOTLB_DRAIN_READS | spec::IOTLB_DRAIN_WRITES
        } else {
            0
        };
        spec::IOTLB | granularity << spec::GRANULARITY | drains | u64::from(domain) << spec::DOMAIN
    }

    fn wait(status: Gpa, value: u32) -> Self {
        let low = spec::WAIT | spec::WAIT_STATUS | u64::from(value) << spec::WAIT_DATA;
        Self([low, status.0])
    }
}

/// The queue of one page, and where wait descriptors write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    frame: Pfn,
    status: Pfn,
    /// Byte offset of the next descriptor.
    tail: u64,
    /// What the last wait descriptor wrote.
    sequence: u32,
}

impl Queue {
    pub fn new(frame: Pfn, status: Pfn) -> Self {
        Self {
            frame,
            status,
            tail: 0,
            sequence: 0,
        }
    }

    pub fn base(&self) -> Gpa {
        self.frame.base()
    }

    fn push(&mut self, platform: &dyn Platform, request: Request) -> Result<(), HalError> {
        let at = self.base().0 + self.tail;
        let [low, high] = request.0;
        write_entry(platform, Gpa(at), low, Table::Queue)?;
        write_entry(platform, Gpa(at + 8), high, Table::Queue)?;
        self.tail = (self.tail + spec::SIZE) % PAGE_SIZE;
        Ok(())
    }
}

impl State {
    /// Do the requests, and return when hardware has done them: a wait
    /// descriptor ends each batch, and its status is polled.
    pub(super) fn submit(
        &mut self,
        platform: &mut dyn Platform,
        requests: &[Request],
    ) -> Result<(), HalError> {
        for batch in requests.chunks(BATCH) {
            let unit = self.unit.as_mut().ok_or(HalError::NotInitialised)?;
            let queue = &mut unit.queue;
            // The status must differ from what the last wait left there, 0
            // included (a fresh page).
            queue.sequence = queue.sequence.wrapping_add(1).max(1);
            let value = queue.sequence;
            let status = queue.status.base();
            for &request in batch {
                queue.push(platform, request)?;
            }
            queue.push(platform, Request::wait(status, value))?;
            let tail = queue.tail;
            write(platform, reg::IQT, 8, tail);
            await_status(platform, status, value)?;
        }
        Ok(())
    }
}

fn await_status(platform: &mut dyn Platform, status: Gpa, value: u32) -> Result<(), HalError> {
    for _ in 0..PATIENCE {
        if platform.memory().read_u32(status)? == value {
            return Ok(());
        }
        let faults = read(platform, reg::FSTS, 4) as u32;
        if faults & reg::QUEUE_ERROR != 0 {
            let code = read(platform, reg::IQERCD, 8);
            return Err(HalError::Queue(code & 0xf));
        }
    }
    Err(HalError::Timeout("an invalidation"))
}
