//! The device on its bus: guest memory, the mirrored domain, the GPU and its
//! interrupts, and what each command of the client does to them.

mod look;
mod ranges;
mod rogue;

pub(crate) use look::{Look, Unmapped};
#[cfg(test)]
pub(crate) use ranges::only_private;
pub(crate) use ranges::q35_below_4g;

use crate::error::ServeError;
use crate::interrupts::{Changed, Interrupts, SetIrqs};
use crate::message::{Errno, Request};
use crate::server::ServeConfig;
use crate::spec::{self, uapi};
use gpu::{Frame, GpuConfig, Stepped, VirtioGpu};
use iommu::{Dma, Env, Mapping, Mirror, Request as Access};
use journal::Journal;
use journal::event::{Begin, End, Event};
use memory::{GuestMemory, PAGE_SIZE};
use rogue::Rogue;
use scenario::{Plan, Scenario};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::time::Instant;

/// BAR of the transport, and where the device status is in it (virtio 1.2
/// §4.1.4.3).
const TRANSPORT_BAR: u8 = 0;
const DEVICE_STATUS: u64 = 0x14;
/// BAR of the MSI-X table.
const MSIX_BAR: u8 = 1;
const MSIX_ENTRY: u64 = 16;
/// Configuration space: command register, first capability, and the MSI-X
/// capability (PCI Local Bus 3.0 §6.2.2, §6.7, §6.8.2).
const COMMAND: u16 = 0x04;
const CAPABILITIES: u16 = 0x34;
const CAPABILITY_MSIX: u32 = 0x11;
const CONFIG_SIZE: u64 = 256;
/// Where the entries of the MSI-X table send their messages. The client keeps
/// the guest's table and gives us an event file for each vector; a message's
/// data is its vector here.
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

/// Why a command did not work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client is told so.
    Refused(Errno),
    /// Serving ends.
    Fatal(ServeError),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

pub(crate) struct Board {
    memory: GuestMemory,
    /// Device and inode of the client's memory file, once it came.
    file: Option<(u64, u64)>,
    below_4g: fn(u64) -> u64,
    scenario: Scenario,
    mirror: Mirror,
    gpu: VirtioGpu,
    interrupts: Interrupts,
    rogue: Rogue,
    /// Who is told of each DMA_UNMAP.
    watcher: Option<Sender<Unmapped>>,
    started: Instant,
}

impl Board {
    pub fn new(config: &ServeConfig, journal: Journal) -> Result<Self, ServeError> {
        let scenario = Scenario::new(Plan::default(), journal);
        scenario.journal().emit(Event::Begin(Begin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: config.name.clone(),
            domain: "guest".to_owned(),
            memory: config.memory,
            device: config.device,
            ..Begin::default()
        }));
        let mut gpu = VirtioGpu::new(&GpuConfig {
            device: config.device,
            displays: config.displays.clone(),
            require_access_platform: config.require_access_platform,
            ..GpuConfig::default()
        });
        let mirror = Mirror::new();
        // Nothing leads there: the client's own memory comes with its first
        // mapping.
        let memory = GuestMemory::new(PAGE_SIZE)?;
        let vectors = {
            let env = Env {
                memory: &memory,
                scenario: &scenario,
            };
            let dma = mirror.dma(env, gpu.requester(), false);
            msix(&mut gpu, dma).map_or(0, |(_, vectors)| vectors)
        };
        scenario.journal().flush()?;
        Ok(Self {
            memory,
            file: None,
            below_4g: config.below_4g,
            scenario,
            mirror,
            gpu,
            interrupts: Interrupts::new(vectors),
            rogue: Rogue::default(),
            watcher: None,
            started: Instant::now(),
        })
    }

    fn device(&mut self) -> (&mut VirtioGpu, Dma<'_>) {
        let env = Env {
            memory: &self.memory,
            scenario: &self.scenario,
        };
        let requester = self.gpu.requester();
        let dma = self.mirror.dma(env, requester, self.gpu.bus_master());
        (&mut self.gpu, dma)
    }

    fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }

    /// The guest runs by the host's clock, so virtual time is real time here.
    pub fn tick(&self) {
        let real = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let passed = real.saturating_sub(self.scenario.now());
        self.scenario.advance(passed);
    }

    /// Nanoseconds until the device has something to do of its own accord.
    pub fn idle_for(&self) -> Option<u64> {
        let due = self.gpu.next_vsync().filter(|_| !self.rogue.stalled)?;
        Some(due.saturating_sub(self.scenario.now()))
    }

    /// Let the device take a step; false if it has nothing to do.
    pub fn step(&mut self) -> bool {
        if self.rogue.stalled || !self.gpu.has_work_at(self.scenario.now()) {
            return false;
        }
        let (gpu, dma) = self.device();
        let progress = gpu.step_landing(dma) == Stepped::Progress;
        self.rogue.see(&self.gpu);
        progress
    }

    /// Everything so far is in the journal before the guest sees it.
    pub fn flush(&self) -> Result<(), ServeError> {
        Ok(self.scenario.journal().flush()?)
    }

    /// Interrupt the guest, if the device wants to.
    pub fn interrupt(&mut self) {
        self.rogue.see(&self.gpu);
        for message in self.mirror.take_messages() {
            if message.device.is_some() && message.address == u64::from(MESSAGE_ADDRESS) {
                self.interrupts.message(message.data);
            }
        }
        self.interrupts.level(self.gpu.function().intx());
    }

    /// A file of the client's that wakes the device.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.interrupts.watched()
    }

    /// Accesses that the guest's IOMMU would refuse, for it to hear of.
    pub fn take_refused(&self) -> Vec<Access> {
        let still = |access: &Access| !self.mirror.allows(access.iova, access.write);
        let refused = self.mirror.take_refused().into_iter();
        refused.filter(still).collect()
    }

    pub fn note(&self, text: String) {
        self.scenario.journal().emit(Event::Note { text });
    }

    pub fn end(&self, end: End) -> Result<(), ServeError> {
        self.tick();
        self.scenario.journal().emit(Event::End(end));
        self.flush()
    }

    pub fn frame(&self, scanout: u32) -> Option<Frame> {
        self.gpu.frame_with_cursor(scanout)
    }

    pub fn mappings(&self) -> Vec<Mapping> {
        self.mirror.mappings()
    }

    /// Do a command; gives the body of the reply. `peer` is the client's
    /// process.
    pub fn handle(
        &mut self,
        request: Request<'_>,
        files: Vec<OwnedFd>,
        peer: Option<i32>,
    ) -> Result<Vec<u8>, Failure> {
        if !files.is_empty() && !matches!(request, Request::DmaMap { .. } | Request::SetIrqs { .. })
        {
            return Err(Errno::INVAL.into());
        }
        match request {
            // Only once, before anything else: the server does it.
            Request::Version { .. } => Err(Errno::INVAL.into()),
            Request::DmaMap {
                flags,
                offset,
                address,
                size,
            } => self.map((flags, offset, address, size), files, peer),
            Request::DmaUnmap {
                flags,
                address,
                size,
                body,
            } => {
                self.unmap(flags, address, size)?;
                Ok(body.to_vec())
            }
            Request::DeviceInfo { argsz } => device_info(argsz),
            Request::RegionInfo { index } => self.region_info(index),
            Request::RegionIoFds => Err(Errno::NOTSUP.into()),
            Request::IrqInfo { index } => {
                let (count, flags) = self.interrupts.info(index).ok_or(Errno::INVAL)?;
                Ok(words(&[16, flags, index, count]))
            }
            Request::SetIrqs {
                flags,
                index,
                start,
                count,
                data,
            } => {
                let changed = self.interrupts.set(SetIrqs {
                    flags,
                    index,
                    start,
                    count,
                    data,
                    files,
                })?;
                if changed == Changed::Vectors {
                    self.connect_vectors();
                }
                Ok(Vec::new())
            }
            Request::RegionRead {
                offset,
                region,
                count,
            } => {
                self.check(region, offset, count as usize)?;
                let mut body = [&offset.to_le_bytes()[..], &region.to_le_bytes()].concat();
                body.extend_from_slice(&count.to_le_bytes());
                for (at, size) in pieces(offset, count as usize, widest(region)) {
                    let value = self.read(region, at, size);
                    body.extend(value.to_le_bytes().iter().take(usize::from(size)));
                }
                Ok(body)
            }
            Request::RegionWrite {
                offset,
                region,
                data,
            } => {
                self.check(region, offset, data.len())?;
                let mut rest = data;
                for (at, size) in pieces(offset, data.len(), widest(region)) {
                    let (piece, later) = rest.split_at(usize::from(size).min(rest.len()));
                    rest = later;
                    let mut value = [0; 8];
                    for (to, from) in value.iter_mut().zip(piece) {
                        *to = *from;
                    }
                    self.write(region, at, size, u64::from_le_bytes(value));
                }
                let mut body = [&offset.to_le_bytes()[..], &region.to_le_bytes()].concat();
                body.extend_from_slice(&(data.len() as u32).to_le_bytes());
                Ok(body)
            }
            Request::Reset => {
                self.reset();
                Ok(Vec::new())
            }
        }
    }

    /// Bytes of a region; 0 if there is none.
    fn region_size(&self, region: u32) -> u64 {
        match region {
            uapi::VFIO_PCI_CONFIG_REGION_INDEX => CONFIG_SIZE,
            // BARs are the first regions.
            0..=5 => self.gpu.function().bar_size(region as u8).into(),
            _ => 0,
        }
    }

    fn region_info(&self, index: u32) -> Result<Vec<u8>, Failure> {
        if index >= uapi::VFIO_PCI_NUM_REGIONS {
            return Err(Errno::INVAL.into());
        }
        let size = self.region_size(index);
        let flags = match size {
            0 => 0,
            _ => uapi::VFIO_REGION_INFO_FLAG_READ | uapi::VFIO_REGION_INFO_FLAG_WRITE,
        };
        let mut body = words(&[32, flags, index, 0]);
        body.extend_from_slice(&size.to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        Ok(body)
    }

    fn check(&self, region: u32, offset: u64, count: usize) -> Result<(), Errno> {
        let end = offset.checked_add(count as u64).ok_or(Errno::INVAL)?;
        if count == 0 || count > spec::MAX_TRANSFER || end > self.region_size(region) {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    fn read(&mut self, region: u32, at: u64, size: u8) -> u64 {
        let (gpu, dma) = self.device();
        match region {
            uapi::VFIO_PCI_CONFIG_REGION_INDEX => gpu.config_read(dma, at as u16, size).into(),
            bar => gpu.bar_read(dma, bar as u8, at, size),
        }
    }

    fn write(&mut self, region: u32, at: u64, size: u8, value: u64) {
        let vectors = self.interrupts.vectors() as u64;
        let (gpu, dma) = self.device();
        match region {
            uapi::VFIO_PCI_CONFIG_REGION_INDEX => {
                gpu.config_write(dma, at as u16, size, value as u32);
            }
            // The guest's table is the client's affair; ours says which file.
            bar if bar as u8 == MSIX_BAR && at < vectors * MSIX_ENTRY => {}
            bar => gpu.bar_write(dma, bar as u8, at, size, value),
        }
    }

    /// A vector that has a file sends; one that has none is masked, and keeps
    /// its message until it gets one.
    fn connect_vectors(&mut self) {
        for vector in 0..self.interrupts.vectors() {
            let connected = self.interrupts.is_connected(vector);
            let at = vector as u64 * MSIX_ENTRY;
            let (gpu, dma) = self.device();
            let entry = [MESSAGE_ADDRESS, 0, vector as u32, u32::from(!connected)];
            for (word, value) in entry.into_iter().enumerate() {
                gpu.bar_write(dma, MSIX_BAR, at + 4 * word as u64, 4, value.into());
            }
        }
    }

    /// As after power-on, but for the BARs, which the client places again.
    fn reset(&mut self) {
        let (gpu, dma) = self.device();
        gpu.bar_write(dma, TRANSPORT_BAR, DEVICE_STATUS, 1, 0);
        if let Some((capability, _)) = msix(gpu, dma) {
            gpu.config_write(dma, capability + 2, 2, 0);
        }
        gpu.config_write(dma, COMMAND, 2, 0);
        self.interrupts.reset();
    }
}

fn device_info(argsz: u32) -> Result<Vec<u8>, Failure> {
    // What the client has no room for it does not get: newer clients take a
    // longer structure.
    if argsz < 16 {
        return Err(Errno::INVAL.into());
    }
    let flags = uapi::VFIO_DEVICE_FLAGS_RESET | uapi::VFIO_DEVICE_FLAGS_PCI;
    Ok(words(&[
        16,
        flags,
        uapi::VFIO_PCI_NUM_REGIONS,
        uapi::VFIO_PCI_NUM_IRQS,
    ]))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Widest access of a region, bytes.
fn widest(region: u32) -> u8 {
    if region == uapi::VFIO_PCI_CONFIG_REGION_INDEX {
        4
    } else {
        8
    }
}

/// A range as naturally aligned accesses of 1, 2, 4 or (not in configuration
/// space) 8 bytes, as a bus does it.
fn pieces(offset: u64, count: usize, widest: u8) -> impl Iterator<Item = (u64, u8)> {
    let (mut at, end) = (offset, offset.saturating_add(count as u64));
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|&left| left != 0)?;
        let fits = |&size: &u8| {
            size <= widest && u64::from(size) <= left && at.is_multiple_of(size.into())
        };
        let size = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let piece = (at, size);
        at += u64::from(size);
        Some(piece)
    })
}

/// Where the MSI-X capability is, and how many vectors it has.
fn msix(gpu: &mut VirtioGpu, dma: Dma<'_>) -> Option<(u16, u16)> {
    let mut at = gpu.config_read(dma, CAPABILITIES, 1) as u16;
    // A list in 256 bytes has no more members.
    for _ in 0..64 {
        if at == 0 {
            break;
        }
        if gpu.config_read(dma, at, 1) == CAPABILITY_MSIX {
            let control = gpu.config_read(dma, at + 2, 2) as u16;
            return Some((at, (control & 0x7ff) + 1));
        }
        at = gpu.config_read(dma, at + 1, 1) as u16;
    }
    None
}
