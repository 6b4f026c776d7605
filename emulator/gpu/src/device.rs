//! The device behind the transport: configuration, resources, scanouts, and
//! what each command does to them. Nothing here reaches guest memory.

use crate::command::Command;
use crate::cursor::CursorUpdate;
use crate::resource::{Backing, MAX_SIDE, Rect, Resource, Transfer, format};
use crate::scanout::Scanout;
use crate::spec::{self, command as code};
use crate::step::Job;
use crate::vsync::Vsync;
use crate::{GpuConfig, MAX_BACKING_ENTRIES, MAX_RESOURCES};
use iommu::{Dma, Fault};
use memory::RequesterId;
use pci::spec::virtio::{F_ACCESS_PLATFORM, F_RING_INDIRECT_DESC, F_VERSION_1};
use std::collections::BTreeMap;

/// State of the device. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gpu {
    features: u64,
    required: u64,
    device: RequesterId,
    /// UUIDs given out so far.
    uuids: u32,
    max_pixel_bytes: u64,
    /// Pending events of the device configuration.
    pub(crate) events: u32,
    pub(crate) scanouts: Vec<Scanout>,
    pub(crate) resources: BTreeMap<u32, Resource>,
    /// Queues that were notified and have not been found empty since.
    pub(crate) notified: [bool; 2],
    /// The command under way.
    pub(crate) job: Option<Job>,
    pub(crate) vsync: Vsync,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Done {
    /// It is complete, with this response.
    Response(u32),
    /// It is complete, with this response and what follows its header.
    Answer(u32, Vec<u8>),
    /// It goes on with reads of backing, which may be of a cursor's image.
    Transfer(Transfer, Option<CursorUpdate>),
    /// It is complete; these scanouts show something new.
    Flushed(Vec<u32>),
}

/// A response that is an error.
pub(crate) type Refused = u32;

impl Gpu {
    pub(crate) fn new(config: &GpuConfig) -> Self {
        let mut scanouts: Vec<Scanout> = config
            .displays
            .iter()
            .take(spec::MAX_SCANOUTS)
            .map(|&size| Scanout::new(size))
            .collect();
        if scanouts.is_empty() {
            scanouts.push(Scanout::new((1024, 768)));
        }
        let mut required = F_VERSION_1;
        if config.require_access_platform {
            required |= F_ACCESS_PLATFORM;
        }
        let mut features = F_VERSION_1
            | F_ACCESS_PLATFORM
            | F_RING_INDIRECT_DESC
            | spec::F_EDID
            | spec::F_RESOURCE_UUID;
        if config.blobs {
            features |= spec::F_RESOURCE_BLOB;
        }
        Self {
            features,
            required,
            device: config.device,
            uuids: 0,
            max_pixel_bytes: config.max_pixel_bytes,
            events: 0,
            scanouts,
            resources: BTreeMap::new(),
            notified: [false; 2],
            job: None,
            vsync: Vsync::default(),
        }
    }

    /// Do a command of the control queue (§5.7.6.8) or the cursor queue
    /// (§5.7.6.10). `now` is virtual time: the first picture in a blob is
    /// read at the vsync after it.
    pub(crate) fn execute(&mut self, queue: u16, command: &Command, now: u64) -> Done {
        let scanned = self.is_scanned_out();
        let done = self.execute_on(queue, command);
        if !scanned && self.is_scanned_out() {
            self.vsync.start(now);
        }
        done
    }

    fn execute_on(&mut self, queue: u16, command: &Command) -> Done {
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
            Command::GetDisplayInfo => {
                return Ok(Done::Answer(code::OK_DISPLAY_INFO, self.display_info()));
            }
            Command::GetEdid { scanout } => {
                return Ok(Done::Answer(code::OK_EDID, self.edid(scanout)?));
            }
            Command::AssignUuid { resource } => {
                let uuid = self.assign_uuid(resource)?;
                return Ok(Done::Answer(code::OK_RESOURCE_UUID, uuid.to_vec()));
            }
            Command::Transfer {
                resource,
                rect,
                offset,
            } => return self.transfer(resource, rect, offset),
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
            Command::CreateBlob {
                resource,
                memory,
                flags,
                size,
                ref entries,
            } => self.create_blob(resource, (memory, flags), size, entries)?,
            Command::SetScanoutBlob {
                scanout,
                resource,
                rect,
                picture,
            } => self.set_scanout_blob(scanout, resource, rect, picture)?,
            Command::MapBlob { resource } | Command::UnmapBlob { resource } => {
                return Err(self.cannot_map(resource));
            }
            Command::Cursor { scanout, at, image } => {
                return self.cursor(CursorUpdate { scanout, at, image });
            }
            Command::Unknown => return Err(code::ERR_UNSPEC),
        }
        Ok(Done::Response(code::OK_NODATA))
    }

    /// 0 means "none" in other commands, and a living id is taken.
    pub(crate) fn check_new(&self, id: u32) -> Result<(), Refused> {
        if id == 0 || self.resources.contains_key(&id) {
            return Err(code::ERR_INVALID_RESOURCE_ID);
        }
        Ok(())
    }

    fn create(&mut self, id: u32, number: u32, width: u32, height: u32) -> Result<(), Refused> {
        self.check_new(id)?;
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

    /// A resource keeps its UUID, and no other ever gets it: RFC 9562 version
    /// 8, of the device and a count that goes on through a reset.
    fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], Refused> {
        let resource = self
            .resources
            .get_mut(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        if let Some(uuid) = resource.uuid {
            return Ok(uuid);
        }
        self.uuids = self.uuids.wrapping_add(1);
        let [d0, d1] = self.device.0.to_be_bytes();
        let [c0, c1, c2, c3] = self.uuids.to_be_bytes();
        let [a, b, c, d, e, f] = *b"dmasan";
        let uuid = [a, b, c, d, e, f, 0x80, 0, 0x80, 0, d0, d1, c0, c1, c2, c3];
        resource.uuid = Some(uuid);
        Ok(uuid)
    }

    fn unref(&mut self, id: u32) -> Result<(), Refused> {
        self.resources
            .remove(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        for scanout in &mut self.scanouts {
            scanout.forget(id);
        }
        self.vsync.forget(id);
        Ok(())
    }

    fn transfer(&self, id: u32, rect: Rect, offset: u64) -> Result<Done, Refused> {
        let resource = self
            .resources
            .get(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        // The guest memory of a blob is all there is of it. Linux transfers
        // its cursors all the same.
        if resource.blob.is_some() {
            return Ok(Done::Response(code::OK_NODATA));
        }
        // The standard names no error for a resource without backing.
        let backing = resource.backing.as_ref().ok_or(code::ERR_UNSPEC)?;
        if !rect.lies_in(resource.width, resource.height) {
            return Err(code::ERR_INVALID_PARAMETER);
        }
        Transfer::new(id, resource, backing, rect, offset)
            .map(|transfer| Done::Transfer(transfer, None))
            .ok_or(code::ERR_INVALID_PARAMETER)
    }

    fn attach(&mut self, id: u32, entries: &[(memory::Iova, u32)]) -> Result<(), Refused> {
        let room = self.has_room_for(entries.len());
        let resource = self
            .resources
            .get_mut(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        // Nor one for a second backing.
        if resource.backing.is_some() {
            return Err(code::ERR_UNSPEC);
        }
        if !room {
            return Err(code::ERR_OUT_OF_MEMORY);
        }
        let backing = Backing::new(entries).ok_or(code::ERR_INVALID_PARAMETER)?;
        if resource.blob.is_some_and(|size| backing.length() < size) {
            return Err(code::ERR_INVALID_PARAMETER);
        }
        resource.backing = Some(backing);
        Ok(())
    }

    /// Can so many more entries of backing be kept?
    pub(crate) fn has_room_for(&self, entries: usize) -> bool {
        let backings = self.resources.values().filter_map(|r| r.backing.as_ref());
        let used: usize = backings.map(Backing::entry_count).sum();
        used + entries <= MAX_BACKING_ENTRIES
    }

    fn detach(&mut self, id: u32) -> Result<(), Refused> {
        let resource = self
            .resources
            .get_mut(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        resource.backing.take().ok_or(code::ERR_UNSPEC)?;
        self.vsync.forget(id);
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

    /// A transfer failed: what was read of a blob's cursor is of no use.
    pub(crate) fn give_up(&mut self, transfer: Transfer) {
        if let Some(resource) = self.resources.get_mut(&transfer.resource) {
            resource.drop_blob_pixels();
        }
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
        self.vsync.reset();
        self.resources.clear();
        for scanout in &mut self.scanouts {
            scanout.reset();
        }
    }
}
