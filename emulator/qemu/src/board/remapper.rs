//! Our virtio-iommu as a PCI function: its queues, and what is on them.
//!
//! A guest waits for its requests in a loop with interrupts off, so the whole
//! queue is worked off as soon as it is notified. That memory is the
//! function's own affair, as VT-d's queue is: none of it is in the journal,
//! which has what the requests did.

use super::port::Face;
use super::{Board, Translation};
use crate::outgoing::{Ask, Outcome};
use iommu::spec::virtio::{self as spec, feature};
use iommu::{Dma, Env, MAX_REQUEST, VirtioIommu};
use memory::{Iova, RequesterId};
use pci::spec::virtio::{F_RING_INDIRECT_DESC, F_VERSION_1};
use pci::{Chain, Device, Function, RingError, Segment, Setup};

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Class code of an IOMMU (PCI Code and ID Assignment 1.11, 1.9).
const CLASS: u32 = 0x08_06_00;
/// Subsystem id of dmasan's.
const SUBSYSTEM: u16 = 0xd3a6;
/// How QEMU answers an access that is refused.
const ENODEV: u32 = 19;
/// Longest answer that is written: to PROBE.
const MAX_ANSWER: usize = iommu::PROPERTIES + spec::request::TAIL;

/// The function. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Remapper {
    pub function: Function,
    shell: Shell,
    /// Faults that were there when the event queue was last tried.
    tried: u64,
}

/// What the driver sees and does beside the queues; the unit hears of it when
/// the access to the register is over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shell {
    config: [u8; spec::CONFIG_SIZE],
    notified: [bool; 2],
    /// The driver reset the device.
    reset: bool,
    /// It wrote the bypass field.
    bypass: Option<bool>,
}

impl Device for Shell {
    fn features(&self) -> u64 {
        F_VERSION_1 | F_RING_INDIRECT_DESC | feature::ALL
    }

    /// Not ACCESS_PLATFORM: nobody translates for the one who translates.
    fn required_features(&self) -> u64 {
        F_VERSION_1
    }

    fn config_read(&self, offset: u64, size: u8) -> u64 {
        (0..u64::from(size.min(8))).fold(0, |value, i| {
            let at = usize::try_from(offset.saturating_add(i)).ok();
            let byte = at.and_then(|at| self.config.get(at)).copied();
            value | u64::from(byte.unwrap_or(0)) << (8 * i)
        })
    }

    /// Only bypass can be written, as one byte (virtio 1.2 §4.1.3.1), and only
    /// to 0 or 1.
    fn config_write(&mut self, offset: u64, size: u8, value: u64) {
        if (offset, size) == (spec::CONFIG_BYPASS, 1) && value <= 1 {
            self.bypass = Some(value == 1);
        }
    }

    fn notify(&mut self, queue: u16) {
        if let Some(notified) = self.notified.get_mut(usize::from(queue)) {
            *notified = true;
        }
    }

    fn reset(&mut self, _dma: Dma<'_>) {
        self.reset = true;
        self.notified = [false; 2];
    }
}

impl Remapper {
    pub fn new(requester: RequesterId, unit: &VirtioIommu) -> Self {
        let shell = Shell {
            config: unit.config(),
            notified: [false; 2],
            reset: false,
            bypass: None,
        };
        let setup = Setup {
            requester,
            device_type: spec::DEVICE_TYPE,
            subsystem: SUBSYSTEM,
            class: CLASS,
            queues: vec![QUEUE_SIZE; 2],
            config_size: spec::CONFIG_SIZE as u32,
            vendor: None,
        };
        Self {
            function: Function::new(&setup, &shell),
            shell,
            tried: 0,
        }
    }

    /// Do what the driver has asked for since the last call, and report what
    /// faults can be. `dma` is the function's own way to memory, `env` that of
    /// the unit. First and last address of each range that was unmapped.
    pub fn work(&mut self, dma: Dma<'_>, env: Env<'_>, unit: &VirtioIommu) -> Vec<(u64, u64)> {
        let mut unmapped = Vec::new();
        self.obey(env, unit);
        if !self.function.transport().is_live() {
            self.shell.notified = [false; 2];
            return unmapped;
        }
        // An error has told the driver that the device needs a reset.
        if self.requests(dma, env, unit, &mut unmapped).is_ok() {
            let _ = self.reports(dma, unit);
        }
        unmapped
    }

    /// Bypass and reset, which registers say.
    fn obey(&mut self, env: Env<'_>, unit: &VirtioIommu) {
        if std::mem::take(&mut self.shell.reset) {
            unit.reset(env);
        }
        // Only who took the feature may (§5.13.4.1).
        let taken = self.function.transport().features() & feature::BYPASS_CONFIG != 0;
        if let Some(bypass) = self.shell.bypass.take().filter(|_| taken) {
            unit.set_bypass(env, bypass);
        }
        self.shell.config = unit.config();
    }

    fn is_notified(&mut self, queue: u16) -> bool {
        let notified = self.shell.notified.get_mut(usize::from(queue));
        notified.is_some_and(std::mem::take) && self.function.transport().queue_ready(queue)
    }

    fn requests(
        &mut self,
        dma: Dma<'_>,
        env: Env<'_>,
        unit: &VirtioIommu,
        unmapped: &mut Vec<(u64, u64)>,
    ) -> Result<(), RingError> {
        const QUEUE: u16 = spec::REQUEST_QUEUE;
        if !self.is_notified(QUEUE) {
            return Ok(());
        }
        let features = self.function.transport().features();
        let mut done = 0;
        while let Some(chain) = self.function.pop(dma, QUEUE)? {
            let written = match fetch(dma, &chain) {
                Some(request) => {
                    let room = room(&chain.writable);
                    let answer = unit.request(env, features, &request, room);
                    unmapped.extend(range(&request));
                    store(dma, &chain.writable, &answer)
                }
                None => 0,
            };
            self.function.add_used(dma, QUEUE, chain.head, written)?;
            done += 1;
            // More than a queue holds: the driver goes on adding, and others
            // are to have their turn.
            if done == QUEUE_SIZE {
                self.shell.notify(QUEUE);
                break;
            }
        }
        self.interrupt(dma, QUEUE, done)
    }

    /// Report faults while the driver has buffers for them.
    fn reports(&mut self, dma: Dma<'_>, unit: &VirtioIommu) -> Result<(), RingError> {
        const QUEUE: u16 = spec::EVENT_QUEUE;
        // A driver may fill the queue without a word.
        let news = self.is_notified(QUEUE) || unit.faults() != self.tried;
        self.tried = unit.faults();
        if !news || !self.function.transport().queue_ready(QUEUE) {
            return Ok(());
        }
        let mut done = 0;
        while let Some(report) = unit.next_fault() {
            let Some(chain) = self.function.pop(dma, QUEUE)? else {
                break;
            };
            // A report is in one buffer (§5.13.6.7): one too small goes back
            // as it came.
            let written = if room(&chain.writable) >= report.len() {
                store(dma, &chain.writable, &report)
            } else {
                0
            };
            if written as usize == report.len() {
                unit.fault_reported();
            }
            self.function.add_used(dma, QUEUE, chain.head, written)?;
            done += 1;
            if done == QUEUE_SIZE {
                self.shell.notify(QUEUE);
                break;
            }
        }
        self.interrupt(dma, QUEUE, done)
    }

    fn interrupt(&mut self, dma: Dma<'_>, queue: u16, done: u16) -> Result<(), RingError> {
        if done != 0 && self.function.wants_interrupt(dma, queue)? {
            self.function.interrupt(dma, queue);
        }
        Ok(())
    }

    /// Is something left that was notified?
    pub fn is_busy(&self) -> bool {
        self.function.transport().is_live() && self.shell.notified.contains(&true)
    }
}

impl Face for Remapper {
    fn function(&self) -> &Function {
        &self.function
    }

    fn config_read(&mut self, _dma: Dma<'_>, offset: u16, size: u8) -> u32 {
        self.function.config_read(&self.shell, offset, size)
    }

    fn config_write(&mut self, dma: Dma<'_>, offset: u16, size: u8, value: u32) {
        self.function
            .config_write(dma, &mut self.shell, offset, size, value);
    }

    fn bar_read(&mut self, _dma: Dma<'_>, bar: u8, offset: u64, size: u8) -> u64 {
        self.function.bar_read(&self.shell, bar, offset, size)
    }

    fn bar_write(&mut self, dma: Dma<'_>, bar: u8, offset: u64, size: u8, value: u64) {
        self.function
            .bar_write(dma, &mut self.shell, bar, offset, size, value);
    }
}

impl Board {
    /// What a client does for the device where the guest's IOMMU is the
    /// client's: an access through it, which the guest hears of if it is
    /// refused, and which is in no journal. `None`: it is the client's.
    pub fn peer_access(&mut self, ask: &Ask) -> Option<Outcome> {
        let Translation::Ours(ours) = &self.translation else {
            return None;
        };
        let env = Env {
            memory: &self.memory,
            scenario: &self.quiet,
        };
        let (requester, bus_master) = (self.gpu.requester(), self.gpu.bus_master());
        let dma = ours.unit.dma(env, requester, bus_master);
        let at = Iova(ask.address);
        let done = match &ask.data {
            Some(data) => dma.write(at, data).map(|()| Vec::new()),
            None => {
                let length = (ask.count as usize).min(crate::spec::MAX_TRANSFER);
                let mut bytes = vec![0; length];
                dma.read(at, &mut bytes).map(|()| bytes)
            }
        };
        Some(done.map_err(|_| ENODEV))
    }
}

/// First and last address of an UNMAP request (virtio 1.2 §5.13.6.6).
fn range(request: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| {
        let bytes = request.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let is_unmap = request.first() == Some(&spec::request::UNMAP);
    is_unmap.then_some((word(8)?, word(16)?))
}

/// The queue that a driver asks by: entries, and where its descriptors, its
/// available and its used ring are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestQueue {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Board {
    /// The queue of our remapping unit, if there is one and it is set up.
    pub fn request_queue(&self) -> Option<RequestQueue> {
        let Translation::Ours(ours) = &self.translation else {
            return None;
        };
        let transport = ours.remapper.function.transport();
        let [descriptors, available, used] = transport.areas(spec::REQUEST_QUEUE)?;
        Some(RequestQueue {
            size: u16::try_from(descriptors.length / 16).ok()?,
            descriptors: descriptors.iova.0,
            available: available.iova.0,
            used: used.iova.0,
        })
    }
}

fn room(segments: &[Segment]) -> usize {
    let lengths = segments.iter().map(|segment| segment.length as usize);
    lengths.fold(0, usize::saturating_add).min(MAX_ANSWER)
}

/// What the driver wrote, as far as it can matter; `None`: it is not in
/// memory.
fn fetch(dma: Dma<'_>, chain: &Chain) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for segment in &chain.readable {
        let length = (segment.length as usize).min(MAX_REQUEST - bytes.len());
        let mut piece = vec![0; length];
        dma.read(segment.iova, &mut piece).ok()?;
        bytes.extend_from_slice(&piece);
    }
    Some(bytes)
}

/// Write an answer; how many bytes of it arrived.
fn store(dma: Dma<'_>, segments: &[Segment], answer: &[u8]) -> u32 {
    let mut rest = answer;
    for &Segment { iova, length } in segments {
        let (piece, later) = rest.split_at(rest.len().min(length as usize));
        if piece.is_empty() || dma.write(Iova(iova.0), piece).is_err() {
            break;
        }
        rest = later;
    }
    (answer.len() - rest.len()) as u32
}
