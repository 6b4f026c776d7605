//! Scanouts: the displays, what each shows, and its cursor.

use crate::MAX_SCANOUT_SIDE;
use crate::cursor::{Cursor, Image};
use crate::device::{Gpu, Refused};
use crate::edid;
use crate::frame::Frame;
use crate::resource::Rect;
use crate::spec::{self, command as code};

/// A display, and what is shown on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanout {
    /// Preferred size; with a side of 0 there is no display.
    size: (u32, u32),
    /// 0 is off.
    resource: u32,
    /// Which part of the resource.
    rect: Rect,
    /// What was last flushed. Stays when the scanout goes off, and through a
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
            self.resource = 0;
        }
    }

    /// Back to the state after power-on, but for the last frame.
    pub(crate) fn reset(&mut self) {
        self.resource = 0;
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

    pub(crate) fn set_scanout(&mut self, scanout: u32, id: u32, rect: Rect) -> Result<(), Refused> {
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

    pub(crate) fn flush(&mut self, id: u32, rect: Rect) -> Result<Vec<u32>, Refused> {
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

    /// UPDATE_CURSOR and MOVE_CURSOR (§5.7.6.10). The image is loaded from
    /// the resource: what becomes of that later does not matter.
    pub(crate) fn cursor(
        &mut self,
        scanout: u32,
        at: (u32, u32),
        image: Option<Image>,
    ) -> Result<(), Refused> {
        let scanout = self
            .scanouts
            .get_mut(scanout as usize)
            .ok_or(code::ERR_INVALID_SCANOUT_ID)?;
        if let Some(image) = image {
            match image.resource {
                0 => scanout.cursor.hide(),
                id => {
                    let resource = self
                        .resources
                        .get(&id)
                        .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
                    if (resource.width, resource.height) != (spec::CURSOR_SIDE, spec::CURSOR_SIDE) {
                        return Err(code::ERR_INVALID_PARAMETER);
                    }
                    scanout.cursor.load(resource, image.hot);
                }
            }
        }
        scanout.cursor.place(at);
        Ok(())
    }
}
