//! The device behind the transport: configuration, resources, scanouts, and
//! what each command does to them. Nothing here reaches guest memory.

use crate::command::Command;
use crate::frame::Frame;
use crate::resource::{Backing, MAX_SIDE, Rect, Resource, Transfer, format};
use crate::spec::{self, command as code};
use crate::step::Job;
use crate::{GpuConfig, MAX_BACKING_ENTRIES, MAX_RESOURCES, MAX_SCANOUT_SIDE};
use iommu::{Dma, Fault};
use pci::spec::virtio::{F_ACCESS_PLATFORM, F_RING_INDIRECT_DESC, F_VERSION_1};
use std::collections::BTreeMap;

/// A display, and what is shown on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanout {
    /// Preferred size.
    size: (u32, u32),
    /// 0 is off.
    resource: u32,
    /// Which part of the resource.
    rect: Rect,
    /// What was last flushed. Stays when the scanout goes off, and through a
    /// reset: it is what a person looking at the display last saw.
    frame: Option<Frame>,
    /// Where the cursor is, and its resource (0: hidden).
    cursor: (u32, u32, u32),
}

/// State of the device. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    features: u64,
    required: u64,
    max_pixel_bytes: u64,
    /// Pending events of the device configuration.
    events: u32,
    pub(crate) scanouts: Vec<Scanout>,
    resources: BTreeMap<u32, Resource>,
    /// Queues that were notified and have not been found empty since.
    pub(crate) notified: [bool; 2],
    /// The command under way.
    pub(crate) job: Option<Job>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It is complete, with this response.
    Response(u32),
    /// Display information is the response.
    DisplayInfo,
    /// It goes on with reads of backing.
    Transfer(Transfer),
    /// It is complete; these scanouts show something new.
    Flushed(Vec<u32>),
}

/// A response that is an error.
type Refused = u32;

impl Gpu {
    pub(crate) fn new(config: &GpuConfig) -> Self {
        let mut scanouts: Vec<Scanout> = config
            .displays
            .iter()
            .take(spec::MAX_SCANOUTS)
            .map(|&size| Scanout {
                size,
                ..Scanout::default()
            })
            .collect();
        if scanouts.is_empty() {
            scanouts.push(Scanout {
                size: (1024, 768),
                ..Scanout::default()
            });
        }
        let mut required = F_VERSION_1;
        if config.require_access_platform {
            required |= F_ACCESS_PLATFORM;
        }
        Self {
            features: F_VERSION_1 | F_ACCESS_PLATFORM | F_RING_INDIRECT_DESC,
            required,
            max_pixel_bytes: config.max_pixel_bytes,
            events: 0,
            scanouts,
            resources: BTreeMap::new(),
            notified: [false; 2],
            job: None,
        }
    }

    pub(crate) fn frame(&self, scanout: u32) -> Option<&Frame> {
        self.scanouts.get(scanout as usize)?.frame.as_ref()
    }

    /// Another preferred size, and the event that says so.
    pub(crate) fn set_display(&mut self, scanout: u32, size: (u32, u32)) -> bool {
        let Some(scanout) = self.scanouts.get_mut(scanout as usize) else {
            return false;
        };
        scanout.size = size;
        self.events |= spec::EVENT_DISPLAY;
        true
    }

    /// The preferred sizes of the displays, from left to right.
    pub(crate) fn displays(&self) -> impl Iterator<Item = Rect> {
        self.scanouts.iter().scan(0u32, |x, scanout| {
            let (width, height) = scanout.size;
            let at = *x;
            *x = x.saturating_add(width);
            Some(Rect {
                x: at,
                y: 0,
                width,
                height,
            })
        })
    }

    /// Do a command of the control queue (§5.7.6.8) or the cursor queue
    /// (§5.7.6.10).
    pub(crate) fn execute(&mut self, queue: u16, command: &Command) -> Done {
        let cursor = matches!(command, Command::Cursor { .. });
        let result = if cursor != (queue == spec::CURSOR_QUEUE) {
            Err(code::ERR_UNSPEC)
        } else {
            self.dispatch(command)
        };
        result.unwrap_or_else(Done::Response)
    }

    fn dispatch(&mut self, command: &Command) -> Result<Done, Refused> {
        match *command {
            Command::GetDisplayInfo => return Ok(Done::DisplayInfo),
            Command::Transfer {
                resource,
                rect,
                offset,
            } => return self.transfer(resource, rect, offset).map(Done::Transfer),
            Command::Flush { resource, rect } => {
                return self.flush(resource, rect).map(Done::Flushed);
            }
            Command::Create {
                resource,
                format,
                width,
                height,
            } => self.create(resource, format, width, height)?,
            Command::Unref { resource } => self.unref(resource)?,
            Command::SetScanout {
                scanout,
                resource,
                rect,
            } => self.set_scanout(scanout, resource, rect)?,
            Command::Attach {
                resource,
                ref entries,
            } => self.attach(resource, entries)?,
            Command::Detach { resource } => self.detach(resource)?,
            Command::Cursor {
                scanout,
                x,
                y,
                image,
            } => self.cursor(scanout, x, y, image)?,
            Command::Unknown => return Err(code::ERR_UNSPEC),
        }
        Ok(Done::Response(code::OK_NODATA))
    }

    fn create(&mut self, id: u32, number: u32, width: u32, height: u32) -> Result<(), Refused> {
        // 0 means "none" in other commands, and a living id is taken.
        if id == 0 || self.resources.contains_key(&id) {
            return Err(code::ERR_INVALID_RESOURCE_ID);
        }
        let format = format(number).ok_or(code::ERR_INVALID_PARAMETER)?;
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&width) || !sides.contains(&height) {
            return Err(code::ERR_INVALID_PARAMETER);
        }
        let resource = Resource::new(format, width, height);
        let used: u64 = self.resources.values().map(Resource::bytes).sum();
        if self.resources.len() >= MAX_RESOURCES || used + resource.bytes() > self.max_pixel_bytes {
            return Err(code::ERR_OUT_OF_MEMORY);
        }
        self.resources.insert(id, resource);
        Ok(())
    }

    fn unref(&mut self, id: u32) -> Result<(), Refused> {
        self.resources
            .remove(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        for scanout in &mut self.scanouts {
            if scanout.resource == id {
                scanout.resource = 0;
            }
            if scanout.cursor.2 == id {
                scanout.cursor.2 = 0;
            }
        }
        Ok(())
    }

    fn set_scanout(&mut self, scanout: u32, id: u32, rect: Rect) -> Result<(), Refused> {
        let scanout = self
            .scanouts
            .get_mut(scanout as usize)
            .ok_or(code::ERR_INVALID_SCANOUT_ID)?;
        if id != 0 {
            let resource = self
                .resources
                .get(&id)
                .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
            let shown = rect.width.max(rect.height) <= MAX_SCANOUT_SIDE;
            if !shown || !rect.lies_in(resource.width, resource.height) {
                return Err(code::ERR_INVALID_PARAMETER);
            }
        }
        scanout.resource = id;
        scanout.rect = rect;
        Ok(())
    }

    fn flush(&mut self, id: u32, rect: Rect) -> Result<Vec<u32>, Refused> {
        let resource = self
            .resources
            .get(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        if !rect.lies_in(resource.width, resource.height) {
            return Err(code::ERR_INVALID_PARAMETER);
        }
        let mut flushed = Vec::new();
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            let Some(part) = scanout.rect.intersect(rect) else {
                continue;
            };
            if scanout.resource != id {
                continue;
            }
            let (width, height) = (scanout.rect.width, scanout.rect.height);
            let frame = match &mut scanout.frame {
                Some(frame) if (frame.width, frame.height) == (width, height) => frame,
                other => other.insert(Frame::black(width, height)),
            };
            frame.copy(resource, scanout.rect, part);
            flushed.push(index as u32);
        }
        Ok(flushed)
    }

    fn transfer(&self, id: u32, rect: Rect, offset: u64) -> Result<Transfer, Refused> {
        let resource = self
            .resources
            .get(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        // The standard names no error for a resource without backing.
        let backing = resource.backing.as_ref().ok_or(code::ERR_UNSPEC)?;
        if !rect.lies_in(resource.width, resource.height) {
            return Err(code::ERR_INVALID_PARAMETER);
        }
        Transfer::new(id, resource, backing, rect, offset).ok_or(code::ERR_INVALID_PARAMETER)
    }

    fn attach(&mut self, id: u32, entries: &[(memory::Iova, u32)]) -> Result<(), Refused> {
        let used: usize = self
            .resources
            .values()
            .filter_map(|r| r.backing.as_ref())
            .map(Backing::entry_count)
            .sum();
        let resource = self
            .resources
            .get_mut(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        // Nor one for a second backing.
        if resource.backing.is_some() {
            return Err(code::ERR_UNSPEC);
        }
        if used + entries.len() > MAX_BACKING_ENTRIES {
            return Err(code::ERR_OUT_OF_MEMORY);
        }
        resource.backing = Some(Backing::new(entries).ok_or(code::ERR_INVALID_PARAMETER)?);
        Ok(())
    }

    fn detach(&mut self, id: u32) -> Result<(), Refused> {
        let resource = self
            .resources
            .get_mut(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        resource.backing.take().map(|_| ()).ok_or(code::ERR_UNSPEC)
    }

    /// Position and image are kept; composing the cursor into the frame is
    /// not done.
    fn cursor(&mut self, scanout: u32, x: u32, y: u32, image: Option<u32>) -> Result<(), Refused> {
        let scanout = self
            .scanouts
            .get_mut(scanout as usize)
            .ok_or(code::ERR_INVALID_SCANOUT_ID)?;
        let image = match image {
            None => scanout.cursor.2,
            Some(0) => 0,
            Some(id) => {
                let resource = self
                    .resources
                    .get(&id)
                    .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
                if (resource.width, resource.height) != (spec::CURSOR_SIDE, spec::CURSOR_SIDE) {
                    return Err(code::ERR_INVALID_PARAMETER);
                }
                id
            }
        };
        scanout.cursor = (x, y, image);
        Ok(())
    }

    pub(crate) fn set_notified(&mut self, queue: u16, to: bool) {
        if let Some(notified) = self.notified.get_mut(usize::from(queue)) {
            *notified = to;
        }
    }

    /// The next piece of a transfer: one entry, one page.
    pub(crate) fn transfer_piece(&self, transfer: &Transfer) -> Option<(memory::Iova, u32)> {
        let (offset, length) = transfer.next()?;
        let backing = self.resources.get(&transfer.resource)?.backing.as_ref()?;
        backing.piece(offset, length)
    }

    /// Read the next piece straight into the pixels: for accesses that are
    /// not parted, without a copy between. `None` if there is no piece.
    pub(crate) fn transfer_read(
        &mut self,
        dma: Dma<'_>,
        transfer: &mut Transfer,
    ) -> Option<Result<(), Fault>> {
        let (iova, length) = self.transfer_piece(transfer)?;
        let resource = self.resources.get_mut(&transfer.resource)?;
        let bytes = resource.slot(transfer.target(), length as usize)?;
        let result = dma.read(iova, bytes);
        if result.is_ok() {
            transfer.advance(u64::from(length));
        }
        Some(result)
    }

    /// Bytes of a piece arrived.
    pub(crate) fn transfer_put(&mut self, transfer: &mut Transfer, bytes: &[u8]) {
        let resource = self.resources.get_mut(&transfer.resource);
        if let Some(slot) = resource.and_then(|r| r.slot(transfer.target(), bytes.len())) {
            slot.copy_from_slice(bytes);
        }
        transfer.advance(bytes.len() as u64);
    }
}

impl pci::Device for Gpu {
    fn features(&self) -> u64 {
        self.features
    }

    fn required_features(&self) -> u64 {
        self.required
    }

    fn config_read(&self, offset: u64, size: u8) -> u64 {
        let mut image = [0u8; spec::CONFIG_SIZE as usize];
        let fields = [
            (spec::CONFIG_EVENTS_READ, self.events),
            (spec::CONFIG_NUM_SCANOUTS, self.scanouts.len() as u32),
            (spec::CONFIG_NUM_CAPSETS, 0),
        ];
        for (at, value) in fields {
            let places = image.iter_mut().skip(at as usize);
            for (place, byte) in places.zip(value.to_le_bytes()) {
                *place = byte;
            }
        }
        (0..u64::from(size.min(8))).fold(0, |value, i| {
            let byte = image.get((offset + i) as usize).copied().unwrap_or(0);
            value | u64::from(byte) << (8 * i)
        })
    }

    fn config_write(&mut self, offset: u64, size: u8, value: u64) {
        // §5.7.4: writing a bit to events_clear clears it in events_read.
        if (offset, size) == (spec::CONFIG_EVENTS_CLEAR, 4) {
            self.events &= !(value as u32);
        }
    }

    fn notify(&mut self, queue: u16) {
        self.set_notified(queue, true);
    }

    fn reset(&mut self, _dma: Dma<'_>) {
        self.job = None;
        self.notified = [false; 2];
        self.events = 0;
        self.resources.clear();
        for scanout in &mut self.scanouts {
            scanout.resource = 0;
            scanout.cursor = (0, 0, 0);
        }
    }
}
