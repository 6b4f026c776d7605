//! The devices on their bus: guest memory, who translates, the GPU and its
//! interrupts, and what each command of the client does to them.
//!
//! Who translates is the client's remapping unit, which tells us its mappings
//! ([`Mirror`]); or our own virtio-iommu, a second function that the guest
//! programs, while the client tells us where guest memory lies and no more.

mod claims;
mod course;
mod injected;
mod look;
mod port;
mod ranges;
mod remapper;
mod rogue;

pub(crate) use look::{Look, Unmapped};
#[cfg(test)]
pub(crate) use ranges::only_private;
pub(crate) use ranges::q35_below_4g;
pub(crate) use remapper::RequestQueue;

use crate::error::ServeError;
use crate::interrupts::Interrupts;
use crate::message::{Errno, Request};
use crate::server::ServeConfig;
use crate::spec::guest;
use claims::Claims;
use course::Course;
use gpu::{Frame, GpuConfig, Stepped, VirtioGpu};
use injected::Delayed;
pub use injected::check_plan;
use iommu::{Dma, Env, Mapping, Message, Mirror, Request as Access, VirtioIommu};
use journal::Journal;
use journal::event::{Begin, End, Event};
use memory::{GuestMemory, PAGE_SIZE, RequesterId};
use pci::{Function, VendorRegion};
use port::{MESSAGE_ADDRESS, Port, device_info, msix, on_port};
use remapper::Remapper;
use rogue::Rogue;
use scenario::{Plan, Scenario, SiteKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::time::Instant;

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

/// Which function a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Gpu,
    /// Our virtio-iommu; only there if the machine has it.
    Iommu,
}

/// Who translates for the GPU.
enum Translation {
    Client(Mirror),
    Ours(Box<Ours>),
}

impl Translation {
    /// The GPU's way to memory.
    fn dma<'a>(&'a self, env: Env<'a>, gpu: &VirtioGpu) -> Dma<'a> {
        let (requester, bus_master) = (gpu.requester(), gpu.bus_master());
        match self {
            Self::Client(mirror) => mirror.dma(env, requester, bus_master),
            Self::Ours(ours) => ours.unit.dma(env, requester, bus_master),
        }
    }
}

/// Our virtio-iommu.
struct Ours {
    unit: VirtioIommu,
    remapper: Remapper,
    /// What the function itself reaches: guest memory as it is.
    mirror: Mirror,
    interrupts: Interrupts,
}

pub(crate) struct Board {
    memory: GuestMemory,
    /// Device and inode of the client's memory file, once it came.
    file: Option<(u64, u64)>,
    below_4g: fn(u64) -> u64,
    scenario: Scenario,
    /// What the remapping unit does with its own queues: in no journal.
    quiet: Scenario,
    translation: Translation,
    gpu: VirtioGpu,
    interrupts: Interrupts,
    rogue: Rogue,
    /// What the guest tells of its memory.
    claims: Claims,
    course: Course,
    /// What the scenario has put off.
    delayed: Delayed,
    /// Who is told of each DMA_UNMAP.
    watcher: Option<Sender<Unmapped>>,
    started: Instant,
}

impl Board {
    pub fn new(config: &ServeConfig, journal: Journal) -> Result<Self, ServeError> {
        let plan = config.plan.as_ref();
        let name = plan.map(|plan| plan.name.clone()).unwrap_or_default();
        let scenario = Scenario::new(plan.cloned().unwrap_or_default(), journal);
        scenario.journal().emit(Event::Begin(Begin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: config.name.clone(),
            scenario: name,
            seed: scenario.plan().seed,
            domain: "guest".to_owned(),
            memory: config.memory,
            device: config.device,
            ..Begin::default()
        }));
        let gpu = VirtioGpu::new(&GpuConfig {
            device: config.device,
            displays: config.displays.clone(),
            require_access_platform: config.require_access_platform,
            vendor: Some(VendorRegion {
                bar: guest::BAR,
                size: guest::SIZE,
                vendor: guest::VENDOR,
                data: guest::capability(),
            }),
            blobs: config.blobs,
            ..GpuConfig::default()
        });
        let translation = match config.iommu {
            None => Translation::Client(Mirror::new()),
            Some(requester) => {
                let unit = VirtioIommu::new(&[config.device]);
                Translation::Ours(Box::new(Ours {
                    remapper: Remapper::new(requester, &unit),
                    unit,
                    mirror: Mirror::new(),
                    interrupts: Interrupts::new(0),
                }))
            }
        };
        let mut board = Self {
            // Nothing leads there: the client's own memory comes with its
            // first mapping.
            memory: GuestMemory::new(PAGE_SIZE)?,
            file: None,
            below_4g: config.below_4g,
            scenario,
            quiet: Scenario::new(Plan::default(), Journal::disabled()),
            translation,
            gpu,
            interrupts: Interrupts::new(0),
            rogue: Rogue::default(),
            claims: Claims::default(),
            course: Course::default(),
            delayed: Delayed::default(),
            watcher: None,
            started: Instant::now(),
        };
        for slot in [Slot::Gpu, Slot::Iommu] {
            if let Some(port) = board.port(slot) {
                let vectors = msix(port.face, port.dma).map_or(0, |(_, vectors)| vectors);
                *port.interrupts = Interrupts::new(vectors);
            }
        }
        board.flush()?;
        Ok(board)
    }

    /// A function with all that belongs to it, if it is there.
    fn port(&mut self, slot: Slot) -> Option<Port<'_>> {
        let env = Env {
            memory: &self.memory,
            scenario: &self.scenario,
        };
        match slot {
            Slot::Gpu => {
                let dma = self.translation.dma(env, &self.gpu);
                Some(Port {
                    face: &mut self.gpu,
                    dma,
                    interrupts: &mut self.interrupts,
                    claims: Some(&mut self.claims),
                })
            }
            Slot::Iommu => {
                let Translation::Ours(ours) = &mut self.translation else {
                    return None;
                };
                let env = Env {
                    memory: &self.memory,
                    scenario: &self.quiet,
                };
                let function = &ours.remapper.function;
                let (requester, bus_master) = (function.requester(), function.bus_master());
                Some(Port {
                    face: &mut ours.remapper,
                    dma: ours.mirror.dma(env, requester, bus_master),
                    interrupts: &mut ours.interrupts,
                    claims: None,
                })
            }
        }
    }

    fn device(&mut self) -> (&mut VirtioGpu, Dma<'_>) {
        let env = Env {
            memory: &self.memory,
            scenario: &self.scenario,
        };
        let dma = self.translation.dma(env, &self.gpu);
        (&mut self.gpu, dma)
    }

    fn env(&self) -> Env<'_> {
        Env {
            memory: &self.memory,
            scenario: &self.scenario,
        }
    }

    /// The mirror that a function's DMA_MAP and DMA_UNMAP go to; `None`: what
    /// it may reach is not the client's affair.
    fn mirror(&self, slot: Slot) -> Option<(&Mirror, Env<'_>, RequesterId)> {
        match (&self.translation, slot) {
            (Translation::Client(mirror), Slot::Gpu) => {
                Some((mirror, self.env(), self.gpu.requester()))
            }
            (Translation::Ours(ours), Slot::Iommu) => {
                let env = Env {
                    memory: &self.memory,
                    scenario: &self.quiet,
                };
                Some((&ours.mirror, env, ours.remapper.function.requester()))
            }
            _ => None,
        }
    }

    /// The guest runs by the host's clock, so virtual time is real time here.
    pub fn tick(&self) {
        let real = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let passed = real.saturating_sub(self.scenario.now());
        self.scenario.advance(passed);
    }

    /// Nanoseconds until a device has something to do of its own accord.
    pub fn idle_for(&self) -> Option<u64> {
        if let Translation::Ours(ours) = &self.translation
            && ours.remapper.is_busy()
        {
            return Some(0);
        }
        let vsync = self.gpu.next_vsync().filter(|_| !self.rogue.stalled);
        let vsync = vsync.map(|due| due.saturating_sub(self.scenario.now()));
        vsync.into_iter().chain(self.delayed_for()).min()
    }

    /// Let the device take a step; false if it has nothing to do.
    pub fn step(&mut self) -> bool {
        if self.rogue.stalled || !self.gpu.has_work_at(self.scenario.now()) {
            return false;
        }
        // Only a command can take something away.
        let command = self.gpu.has_command();
        // What a scenario delays lands in time, which is the host's.
        let delays = self.scenario.has_faults(SiteKind::Access);
        let (gpu, dma) = self.device();
        let stepped = if delays {
            gpu.step(dma)
        } else {
            gpu.step_landing(dma)
        };
        self.delayed.waiting = stepped == Stepped::Waiting;
        if command {
            self.rogue.see(&self.gpu);
        }
        stepped == Stepped::Progress
    }

    /// Let our remapping unit do the requests that wait for it, and report
    /// faults.
    pub fn remap(&mut self) {
        let Translation::Ours(ours) = &mut self.translation else {
            return;
        };
        let memory = &self.memory;
        let own = Env {
            memory,
            scenario: &self.quiet,
        };
        let env = Env {
            memory,
            scenario: &self.scenario,
        };
        let function = &ours.remapper.function;
        let (requester, bus_master) = (function.requester(), function.bus_master());
        let dma = ours.mirror.dma(own, requester, bus_master);
        let failed = function.transport().failure().is_some();
        let unmapped = ours.remapper.work(dma, env, &ours.unit);
        if let Some(error) = ours.remapper.function.transport().failure()
            && !failed
        {
            env.journal().emit(Event::Note {
                text: format!("the virtio-iommu needs a reset: {error}"),
            });
        }
        // They are of no page of the guest's; the guest has the error.
        let _ = ours.mirror.take_refused();
        for (first, last) in unmapped {
            self.tell_watcher(first, last.saturating_sub(first).saturating_add(1));
        }
    }

    /// Everything so far is in the journal before the guest sees it.
    pub fn flush(&self) -> Result<(), ServeError> {
        Ok(self.scenario.journal().flush()?)
    }

    /// Does the GPU want to interrupt the guest, with no command left to do
    /// before? A vsync can wait for that.
    pub fn owes_interrupt(&self) -> bool {
        let owes = match &self.translation {
            Translation::Client(mirror) => mirror.has_messages(),
            Translation::Ours(ours) => ours.unit.has_messages(),
        };
        owes && !self.gpu.has_command()
    }

    /// Interrupt the guest, if a device wants to.
    pub fn interrupt(&mut self) {
        self.rogue.see(&self.gpu);
        let messages = match &mut self.translation {
            Translation::Client(mirror) => mirror.take_messages(),
            Translation::Ours(ours) => {
                let messages = ours.mirror.take_messages();
                send(&mut ours.interrupts, &messages, &ours.remapper.function);
                ours.unit.take_messages()
            }
        };
        let messages = self.spoiled(messages);
        send(&mut self.interrupts, &messages, self.gpu.function());
    }

    /// Files of the client's that wake a device.
    pub fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let other = match &self.translation {
            Translation::Client(_) => None,
            Translation::Ours(ours) => ours.interrupts.watched(),
        };
        self.interrupts.watched().into_iter().chain(other)
    }

    /// Accesses that the client's IOMMU would refuse, for the guest to hear
    /// of. Ours tells it itself.
    pub fn take_refused(&self) -> Vec<Access> {
        let Translation::Client(mirror) = &self.translation else {
            return Vec::new();
        };
        let still = |access: &Access| !mirror.allows(access.iova, access.write);
        mirror.take_refused().into_iter().filter(still).collect()
    }

    pub fn note(&self, text: String) {
        self.scenario.journal().emit(Event::Note { text });
    }

    pub fn end(&self, end: End) -> Result<(), ServeError> {
        self.tick();
        self.tell_course();
        self.scenario.journal().emit(Event::End(end));
        self.flush()
    }

    pub fn frame(&self, scanout: u32) -> Option<Frame> {
        self.gpu.frame_with_cursor(scanout)
    }

    pub fn mappings(&self) -> Vec<Mapping> {
        match &self.translation {
            Translation::Client(mirror) => mirror.mappings(),
            Translation::Ours(ours) => ours.unit.mappings(self.env(), self.gpu.requester()),
        }
    }

    /// Do a command for one of the functions; gives the body of the reply.
    /// `peer` is the client's process.
    pub fn handle(
        &mut self,
        slot: Slot,
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
            } => self.map(slot, (flags, offset, address, size), files, peer),
            Request::DmaUnmap {
                flags,
                address,
                size,
                body,
            } => {
                self.unmap(slot, flags, address, size)?;
                Ok(body.to_vec())
            }
            Request::DeviceInfo { argsz } => device_info(argsz),
            Request::RegionIoFds => Err(Errno::NOTSUP.into()),
            _ => {
                let restart = matches!(request, Request::Reset);
                let mut port = self.port(slot).ok_or(Errno::INVAL)?;
                let result = on_port(&mut port, request, files);
                if let Translation::Ours(ours) = &self.translation
                    && restart
                    && slot == Slot::Iommu
                {
                    // What a reset by the driver leaves (virtio 1.2 §5.13.4.2),
                    // that of the machine does not.
                    ours.unit.set_bypass(self.env(), false);
                }
                match slot {
                    Slot::Gpu => self.follow(),
                    // Whoever rang its doorbell waits for it.
                    Slot::Iommu => self.remap(),
                }
                result
            }
        }
    }
}

/// Pass a function's messages on, and the level of its INTx#.
fn send(interrupts: &mut Interrupts, messages: &[Message], function: &Function) {
    for (at, message) in messages.iter().enumerate() {
        // A file that is signalled twice tells no more than once.
        let first = !messages.get(..at).unwrap_or_default().contains(message);
        if first && message.device.is_some() && message.address == u64::from(MESSAGE_ADDRESS) {
            interrupts.message(message.data);
        }
    }
    interrupts.level(function.intx());
}
