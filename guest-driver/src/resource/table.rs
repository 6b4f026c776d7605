//! What a resource is, and the table of all of them.

use super::{MAX_RESOURCES, PLACES};
use crate::callbacks::Callbacks;
use crate::gpu::{CursorState, Frame, HEADS};
use crate::memory::{Contiguous, Pages};
use crate::nt::Result;
use crate::queue::Queue;
use crate::spec::nt::STATUS_INVALID_PARAMETER;

/// What a resource is to the device.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// A 2D resource that scanouts show.
    #[default]
    Picture,
    /// A blob in guest memory that scanouts show.
    Blob,
    /// A 2D resource with the picture of a cursor.
    Cursor,
}

/// What the device knows of a resource.
#[derive(Clone, Copy, Default)]
pub(crate) struct DeviceState {
    pub created: bool,
    pub attached: bool,
    /// Scanouts that show it, a bit each.
    pub scanouts: u32,
}

/// One resource, or a free place for one (id 0).
#[derive(Clone, Copy, Default)]
pub struct Resource {
    /// Id in the device; never used twice between start and stop.
    pub(crate) id: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) kind: Kind,
    pub(crate) pages: Option<Pages>,
    /// Kernel address of the pages; null while unmapped.
    pub(crate) address: usize,
    pub(crate) device: DeviceState,
    /// The commands of its frames, which the device reads.
    pub(crate) commands: Option<Contiguous>,
    /// A long attach command that the device may still read.
    pub(crate) attach_command: Option<Contiguous>,
    /// The save area is pinned, as the device may still read its frame there.
    pub(crate) pinned: bool,
}

// SAFETY: the pointers in it are kernel addresses, valid in every thread.
unsafe impl Send for Resource {}

impl Resource {
    /// Bytes of its picture.
    pub(crate) fn bytes(&self) -> usize {
        self.width as usize * self.height as usize * 4
    }

    /// Its whole picture as a frame of queue group `group`.
    pub(crate) fn frame(&self, group: usize) -> Result<Frame<'_>> {
        let commands = self.commands.as_ref().ok_or(STATUS_INVALID_PARAMETER)?;
        Ok(Frame {
            commands,
            group,
            resource: self.id,
            top: 0,
            width: self.width,
            height: self.height,
        })
    }

    /// Writes `pixel(x, y)` everywhere. The device must be done with the
    /// frame before, or read it on purpose while it changes (a blob).
    pub(crate) fn draw(&mut self, pixel: impl Fn(u32, u32) -> u32) {
        if self.address == 0 || self.width == 0 {
            return;
        }
        let pixels = self.width as usize * self.height as usize;
        #[cfg(feature = "defects")]
        let pixels = crate::defects::pages::drawn(pixels);
        // SAFETY: the mapping holds at least width x height pixels of 4
        // bytes and stays while we hold the adapter's mutex.
        let frame = unsafe { core::slice::from_raw_parts_mut(self.address as *mut u32, pixels) };
        for (row, y) in frame.chunks_exact_mut(self.width as usize).zip(0..) {
            for (place, x) in row.iter_mut().zip(0..) {
                *place = pixel(x, y);
            }
        }
    }
}

/// What the functions here work with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The control queue.
    pub queue: &'a Queue,
    /// The cursor queue.
    pub cursor: &'a Queue,
    /// dxgkrnl.
    pub callbacks: &'a Callbacks,
    /// Scanouts that are driven.
    pub heads: u32,
    /// Whether the device has blobs.
    pub blobs: bool,
}

/// All resources of an adapter; the index of one is its queue group.
pub struct Table {
    pub(crate) resources: [Resource; PLACES],
    pub(crate) cursors: [CursorState; HEADS],
    pub(super) next_id: u32,
    pub(super) next_fence: u64,
}

impl Table {
    /// No resources.
    pub const fn new() -> Self {
        const FREE: Resource = Resource {
            id: 0,
            width: 0,
            height: 0,
            kind: Kind::Picture,
            pages: None,
            address: 0,
            device: DeviceState {
                created: false,
                attached: false,
                scanouts: 0,
            },
            commands: None,
            attach_command: None,
            pinned: false,
        };
        const NO_CURSOR: CursorState = CursorState {
            scanout: 0,
            resource: 0,
            at: (0, 0),
            hot: (0, 0),
        };
        Self {
            resources: [FREE; PLACES],
            cursors: [NO_CURSOR; HEADS],
            next_id: 1,
            next_fence: 1,
        }
    }

    /// A resource that was created by Escape.
    pub(super) fn find(&mut self, id: u32) -> Result<(usize, &mut Resource)> {
        self.resources
            .iter_mut()
            .take(MAX_RESOURCES)
            .enumerate()
            .find(|(_, resource)| id != 0 && resource.id == id)
            .ok_or(STATUS_INVALID_PARAMETER)
    }

    /// The next frame's fence.
    pub(crate) fn fence(&mut self) -> u64 {
        let fence = self.next_fence;
        self.next_fence = fence.wrapping_add(1);
        fence
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}
