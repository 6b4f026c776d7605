//! Blob resources (§5.7.6.8, VIRTIO_GPU_F_RESOURCE_BLOB), in guest memory
//! only: the device has no memory that a guest could map.

use crate::device::{Gpu, Refused};
use crate::resource::{Backing, Rect, Resource, format};
use crate::spec::format::{BYTES, Format};
use crate::spec::{self, command as code};
use crate::{MAX_RESOURCES, MAX_SCANOUT_SIDE};
use memory::Iova;

/// The picture that SET_SCANOUT_BLOB finds in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Picture {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Number of its format.
    pub format: u32,
    /// Bytes a row.
    pub stride: u32,
    /// Byte of the blob where it starts.
    pub offset: u32,
}

/// How what a scanout shows lies in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    pub format: &'static Format,
    /// Byte of the blob where the first pixel shown is.
    pub start: u64,
    /// Bytes a row.
    pub stride: u64,
}

impl Layout {
    /// Of the part `rect` of a picture in a blob of `size` bytes; `None` if
    /// it is not in there.
    fn new(picture: Picture, rect: Rect, size: u64) -> Option<Self> {
        let bytes = |pixels: u32| u64::from(pixels) * u64::from(BYTES);
        let stride = u64::from(picture.stride);
        if !rect.lies_in(picture.width, picture.height)
            || rect.width.max(rect.height) > MAX_SCANOUT_SIDE
            || stride < bytes(picture.width)
        {
            return None;
        }
        let start = u64::from(rect.y)
            .checked_mul(stride)?
            .checked_add(u64::from(picture.offset))?
            .checked_add(bytes(rect.x))?;
        let rest = u64::from(rect.height) - 1;
        let end = start.checked_add(rest * stride + bytes(rect.width))?;
        (end <= size).then_some(Self {
            format: format(picture.format)?,
            start,
            stride,
        })
    }
}

impl Gpu {
    /// RESOURCE_CREATE_BLOB. Without entries the backing comes later.
    pub(crate) fn create_blob(
        &mut self,
        id: u32,
        (memory, flags): (u32, u32),
        size: u64,
        entries: &[(Iova, u32)],
    ) -> Result<(), Refused> {
        self.check_new(id)?;
        if memory != spec::BLOB_MEM_GUEST || flags & !spec::BLOB_FLAGS != 0 || size == 0 {
            return Err(code::ERR_INVALID_PARAMETER);
        }
        if self.resources.len() >= MAX_RESOURCES || !self.has_room_for(entries.len()) {
            return Err(code::ERR_OUT_OF_MEMORY);
        }
        let backing = match entries {
            [] => None,
            entries => Some(
                Backing::new(entries)
                    .filter(|backing| backing.length() >= size)
                    .ok_or(code::ERR_INVALID_PARAMETER)?,
            ),
        };
        self.resources.insert(id, Resource::new_blob(size, backing));
        Ok(())
    }

    /// SET_SCANOUT_BLOB. It shows nothing new before the next vsync.
    pub(crate) fn set_scanout_blob(
        &mut self,
        number: u32,
        id: u32,
        rect: Rect,
        picture: Picture,
    ) -> Result<(), Refused> {
        let scanout = self
            .scanouts
            .get_mut(number as usize)
            .ok_or(code::ERR_INVALID_SCANOUT_ID)?;
        let layout = match id {
            0 => None,
            id => {
                let resource = self
                    .resources
                    .get(&id)
                    .ok_or(code::ERR_INVALID_RESOURCE_ID)?;
                let size = resource.blob.ok_or(code::ERR_INVALID_PARAMETER)?;
                let layout = Layout::new(picture, rect, size);
                Some(layout.ok_or(code::ERR_INVALID_PARAMETER)?)
            }
        };
        scanout.show(id, rect, layout);
        self.vsync.changed(number);
        Ok(())
    }

    /// Why RESOURCE_MAP_BLOB and RESOURCE_UNMAP_BLOB fail: they are for blobs
    /// in host memory, of which there is none.
    pub(crate) fn cannot_map(&self, id: u32) -> Refused {
        match self.resources.get(&id) {
            None => code::ERR_INVALID_RESOURCE_ID,
            Some(_) => code::ERR_UNSPEC,
        }
    }
}
