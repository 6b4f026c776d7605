//! Scanouts: the displays, what each shows, and its cursor.

use crate::MAX_SCANOUT_SIDE;
use crate::blob::Layout;
use crate::cursor::{Cursor, CursorUpdate, IMAGE_BYTES, Image};
use crate::device::{Done, Gpu, Refused};
use crate::edid;
use crate::frame::Frame;
use crate::resource::{Rect, Transfer};
use crate::spec::{self, command as code};

/// A display, and what is shown on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scanout {
    /// Preferred size; with a side of 0 there is no display.
    size: (u32, u32),
    /// 0 is off.
    pub(crate) resource: u32,
    /// Which part of the resource.
    pub(crate) rect: Rect,
    /// How that lies in a blob; `None` for a 2D resource.
    pub(crate) layout: Option<Layout>,
    /// What was last flushed, or read at a vsync. Stays when the scanout goes off, and through a
    /// reset: it is what a person looking at the display last saw.
    frame: Option<Frame>,
    cursor: Cursor,
}

impl Scanout {
    pub(crate) fn new((width, height): (u32, u32)) -> Self {
        Self {
            size: (width.min(MAX_SCANOUT_SIDE), height.min(MAX_SCANOUT_SIDE)),
            ..Self::default()
        }
    }

    /// Size of the display, if there is one.
    fn display(&self) -> Option<(u32, u32)> {
        (self.size.0 != 0 && self.size.1 != 0).then_some(self.size)
    }

    /// A resource is gone: the scanout that shows it is off. A cursor was
    /// loaded from it and stays.
    pub(crate) fn forget(&mut self, resource: u32) {
        if self.resource == resource {
            self.show(0, Rect::default(), None);
        }
    }

    pub(crate) fn show(&mut self, resource: u32, rect: Rect, layout: Option<Layout>) {
        self.resource = resource;
        self.rect = rect;
        self.layout = layout;
    }

    /// The frame, of the size that is shown.
    pub(crate) fn frame_to_fill(&mut self) -> &mut Frame {
        let (width, height) = (self.rect.width, self.rect.height);
        let fits = |frame: &Frame| (frame.width, frame.height) == (width, height);
        if !self.frame.as_ref().is_some_and(fits) {
            self.frame = None;
        }
        self.frame
            .get_or_insert_with(|| Frame::black(width, height))
    }

    /// Back to the state after power-on, but for the last frame.
    pub(crate) fn reset(&mut self) {
        self.show(0, Rect::default(), None);
        self.cursor = Cursor::default();
    }
}

impl Gpu {
    pub(crate) fn frame(&self, scanout: u32) -> Option<&Frame> {
        self.scanouts.get(scanout as usize)?.frame.as_ref()
    }

    /// Another preferred size, or no display at all, and the event that says
    /// so. False if there is no such scanout, or it cannot show that.
    pub(crate) fn set_display(&mut self, scanout: u32, size: (u32, u32)) -> bool {
        let Some(scanout) = self.scanouts.get_mut(scanout as usize) else {
            return false;
        };
        if size.0.max(size.1) > MAX_SCANOUT_SIDE {
            return false;
        }
        scanout.size = size;
        self.events |= spec::EVENT_DISPLAY;
        true
    }

    /// What follows the header of OK_DISPLAY_INFO: the displays, from left to
    /// right. One that is off takes no place.
    pub(crate) fn display_info(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(spec::MAX_SCANOUTS * code::DISPLAY_SIZE);
        let mut x = 0u32;
        for scanout in &self.scanouts {
            let words = match scanout.display() {
                Some((width, height)) => [x, 0, width, height, 1, 0],
                None => [0; 6],
            };
            x = x.saturating_add(scanout.display().map_or(0, |(width, _)| width));
            bytes.extend(words.into_iter().flat_map(u32::to_le_bytes));
        }
        bytes.resize(spec::MAX_SCANOUTS * code::DISPLAY_SIZE, 0);
        bytes
    }

    /// What follows the header of OK_EDID. Without a display there is no
    /// EDID: size 0.
    pub(crate) fn edid(&self, number: u32) -> Result<Vec<u8>, Refused> {
        let scanout = self
            .scanouts
            .get(number as usize)
            .ok_or(code::ERR_INVALID_SCANOUT_ID)?;
        let block = scanout.display().map(|size| edid::block(number, size));
        let block = block.as_ref().map_or(&[][..], |block| block);
        let mut bytes = (block.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(block);
        bytes.resize(8 + code::EDID_ROOM, 0);
        Ok(bytes)
    }

    /// The frame with the cursor over it.
    pub(crate) fn frame_with_cursor(&self, scanout: u32) -> Option<Frame> {
        let scanout = self.scanouts.get(scanout as usize)?;
        let mut frame = scanout.frame.clone()?;
        scanout.cursor.draw(&mut frame);
        Some(frame)
    }

    pub(crate) fn set_scanout(&mut self, number: u32, id: u32, rect: Rect) -> Result<(), Refused> {
        let scanout = self
            .scanouts
            .get_mut(number as usize)
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
        scanout.show(id, rect, None);
        self.vsync.changed(number);
        Ok(())
    }

    pub(crate) fn flush(&mut self, id: u32, rect: Rect) -> Result<Vec<u32>, Refused> {
        let resource = self
            .resources
            .get(&id)
            .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
        // A blob has no size of its own. Its scanout reads it anew at each
        // vsync, so a flush has nothing to add.
        if resource.blob.is_some() {
            return Ok(Vec::new());
        }
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
            let rect = scanout.rect;
            scanout.frame_to_fill().copy(resource, rect, part);
            flushed.push(index as u32);
        }
        Ok(flushed)
    }

    /// UPDATE_CURSOR and MOVE_CURSOR (§5.7.6.10). The image is loaded from
    /// the resource: what becomes of that later does not matter.
    pub(crate) fn cursor(&mut self, update: CursorUpdate) -> Result<Done, Refused> {
        if self.scanouts.get(update.scanout as usize).is_none() {
            return Err(code::ERR_INVALID_SCANOUT_ID);
        }
        if let Some(Image { resource: id, .. }) = update.image.filter(|i| i.resource != 0) {
            let resource = self
                .resources
                .get(&id)
                .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
            if let Some(size) = resource.blob {
                let bytes = IMAGE_BYTES as u64;
                if size < bytes {
                    return Err(code::ERR_INVALID_PARAMETER);
                }
                if resource.backing.is_none() {
                    return Err(code::ERR_UNSPEC);
                }
                let transfer = Transfer::scan(id, 0, bytes, bytes, 1);
                return Ok(Done::Transfer(transfer, Some(update)));
            }
            if (resource.width, resource.height) != (spec::CURSOR_SIDE, spec::CURSOR_SIDE) {
                return Err(code::ERR_INVALID_PARAMETER);
            }
        }
        self.update_cursor(update);
        Ok(Done::Response(code::OK_NODATA))
    }

    /// The image, if there is one, is on the host.
    pub(crate) fn update_cursor(&mut self, update: CursorUpdate) {
        let Some(scanout) = self.scanouts.get_mut(update.scanout as usize) else {
            return;
        };
        if let Some(image) = update.image {
            match self.resources.get_mut(&image.resource) {
                Some(resource) => {
                    scanout.cursor.load(resource, image.hot);
                    resource.drop_blob_pixels();
                }
                None => scanout.cursor.hide(),
            }
        }
        scanout.cursor.place(update.at);
    }
}
