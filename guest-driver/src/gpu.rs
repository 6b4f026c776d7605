//! The commands of virtio-gpu (virtio 1.2 §5.7.6) that this driver sends.

use core::mem::size_of;

use crate::callbacks::Callbacks;
use crate::edid::Edid;
use crate::memory::{Contiguous, Pages};
use crate::mutations::undo;
use crate::nt::Result;
use crate::queue::{Body, Queue, REQUEST_BYTES, SYNCHRONOUS};
use crate::spec::gpu::{
    AttachBacking, BLOB_FLAG_SHAREABLE, BLOB_MEM_GUEST, CMD_GET_DISPLAY_INFO, CMD_GET_EDID,
    CMD_MOVE_CURSOR, CMD_RESOURCE_ATTACH_BACKING, CMD_RESOURCE_CREATE_2D, CMD_RESOURCE_CREATE_BLOB,
    CMD_RESOURCE_DETACH_BACKING, CMD_RESOURCE_FLUSH, CMD_RESOURCE_UNREF, CMD_SET_SCANOUT,
    CMD_SET_SCANOUT_BLOB, CMD_TRANSFER_TO_HOST_2D, CMD_UPDATE_CURSOR, Create2d, CreateBlob,
    DISPLAY_INFO_SIZE, EDID_AT, EDID_RESPONSE_SIZE, EDID_ROOM, EDID_SIZE_AT, FLAG_FENCE,
    FORMAT_B8G8R8X8, GetEdid, Header, MemEntry, RESP_OK_DISPLAY_INFO, RESP_OK_EDID, Rect,
    ResourceCommand, ResourceFlush, SetScanout, SetScanoutBlob, TransferToHost2d, UpdateCursor,
};
use crate::spec::nt::{
    PAGE_SIZE, STATUS_IO_DEVICE_ERROR, STATUS_IO_TIMEOUT,
    STATUS_MONITOR_INVALID_DESCRIPTOR_CHECKSUM,
};

/// Commands: integers only, no padding bytes of the compiler's.
trait Command: Copy {}
impl Command for Header {}
impl Command for ResourceCommand {}
impl Command for Create2d {}
impl Command for AttachBacking {}
impl Command for MemEntry {}
impl Command for SetScanout {}
impl Command for TransferToHost2d {}
impl Command for ResourceFlush {}
impl Command for GetEdid {}
impl Command for CreateBlob {}
impl Command for SetScanoutBlob {}
impl Command for UpdateCursor {}

fn bytes_of<T: Command>(command: &T) -> &[u8] {
    // SAFETY: `Command` has no uninitialised bytes.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(command).cast(), size_of::<T>()) }
}

fn header(kind: u32) -> Header {
    Header {
        kind,
        ..Header::default()
    }
}

fn inline<T: Command>(command: &T) -> Body<'_> {
    Body::Inline(bytes_of(command))
}

/// Displays told of at most.
pub const HEADS: usize = 4;

/// Size of the display on each scanout, as (width, height), where there is
/// one.
#[inline(never)]
pub fn get_display_info(queue: &Queue) -> Result<[Option<(u32, u32)>; HEADS]> {
    let slot = queue.execute(inline(&header(CMD_GET_DISPLAY_INFO)))?;
    let mut response = [0; DISPLAY_INFO_SIZE];
    queue.response(slot, &mut response)?;
    if word(&response, 0) != RESP_OK_DISPLAY_INFO {
        return Err(STATUS_IO_DEVICE_ERROR);
    }
    let mut displays = [None; HEADS];
    for (display, at) in displays.iter_mut().zip((size_of::<Header>()..).step_by(24)) {
        let enabled = word(&response, at + 16) != 0;
        *display = enabled.then(|| (word(&response, at + 8), word(&response, at + 12)));
    }
    Ok(displays)
}

/// A word of a response; 0 beyond its end.
fn word(response: &[u8], at: usize) -> u32 {
    let bytes = response.get(at..at + 4).and_then(|b| b.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

/// The EDID of a scanout, checked.
#[inline(never)]
pub fn get_edid(queue: &Queue, scanout: u32) -> Result<Edid> {
    let command = GetEdid {
        header: header(CMD_GET_EDID),
        scanout,
        padding: 0,
    };
    let slot = queue.execute(inline(&command))?;
    let mut response = [0; EDID_RESPONSE_SIZE];
    queue.response(slot, &mut response)?;
    if word(&response, 0) != RESP_OK_EDID {
        return Err(STATUS_IO_DEVICE_ERROR);
    }
    // The device's word, which must not lead out of its own response.
    let bytes = word(&response, EDID_SIZE_AT) as usize;
    let edid = response
        .get(EDID_AT..EDID_AT + bytes.min(EDID_ROOM))
        .filter(|_| bytes <= EDID_ROOM);
    edid.and_then(Edid::parse)
        .ok_or(STATUS_MONITOR_INVALID_DESCRIPTOR_CHECKSUM)
}

/// Creates a 2D resource of 32-bit pixels of `format`.
#[inline(never)]
pub fn resource_create_2d(
    queue: &Queue,
    resource: u32,
    format: u32,
    width: u32,
    height: u32,
) -> Result<()> {
    let command = Create2d {
        header: header(CMD_RESOURCE_CREATE_2D),
        resource,
        format,
        width,
        height,
    };
    queue.execute(inline(&command)).map(|_| ())
}

/// Destroys a resource.
#[inline(never)]
pub fn resource_unref(queue: &Queue, resource: u32) -> Result<()> {
    let command = ResourceCommand {
        header: header(CMD_RESOURCE_UNREF),
        resource,
        padding: 0,
    };
    queue.submit(SYNCHRONOUS, [inline(&command)])?;
    undo!("unref-wait", queue.wait(SYNCHRONOUS))
}

/// Takes the backing from a resource. Once this returns `Ok` the device has
/// let go of the pages (§5.7.6.7).
#[inline(never)]
pub fn resource_detach_backing(queue: &Queue, resource: u32) -> Result<()> {
    let command = ResourceCommand {
        header: header(CMD_RESOURCE_DETACH_BACKING),
        resource,
        padding: 0,
    };
    queue.submit(SYNCHRONOUS, [inline(&command)])?;
    undo!("detach-wait", queue.wait(SYNCHRONOUS))
}

/// Gives `pages` to a resource as backing. A list too long for a slot goes
/// through a buffer of its own, which `spare` holds only while the device
/// may still read it.
#[inline(never)]
pub fn resource_attach_backing(
    queue: &Queue,
    callbacks: &Callbacks,
    resource: u32,
    pages: &Pages,
    spare: &mut Option<Contiguous>,
) -> Result<()> {
    let command = AttachBacking {
        header: header(CMD_RESOURCE_ATTACH_BACKING),
        resource,
        // At most one entry for each of 16384 pages.
        entries: pages.entries().count() as u32,
    };
    execute_with_entries(queue, callbacks, &command, pages, spare)
}

/// Gives one contiguous block to a resource as backing.
#[inline(never)]
pub fn resource_attach_block(queue: &Queue, resource: u32, block: &Contiguous) -> Result<()> {
    let command = AttachBacking {
        header: header(CMD_RESOURCE_ATTACH_BACKING),
        resource,
        entries: 1,
    };
    let mut request = [0; size_of::<AttachBacking>() + size_of::<MemEntry>()];
    write_entries(&command, core::iter::once(block.into()), &mut request);
    queue.execute(Body::Inline(&request)).map(|_| ())
}

/// Creates a blob over `pages`, which are its backing from the start; see
/// [`resource_attach_backing`] for `spare`.
#[inline(never)]
pub fn resource_create_blob(
    queue: &Queue,
    callbacks: &Callbacks,
    resource: u32,
    pages: &Pages,
    spare: &mut Option<Contiguous>,
) -> Result<()> {
    let command = CreateBlob {
        header: header(CMD_RESOURCE_CREATE_BLOB),
        resource,
        memory: BLOB_MEM_GUEST,
        flags: BLOB_FLAG_SHAREABLE,
        entries: pages.entries().count() as u32,
        blob: 0,
        size: (pages.count() * PAGE_SIZE) as u64,
    };
    execute_with_entries(queue, callbacks, &command, pages, spare)
}

fn execute_with_entries<T: Command>(
    queue: &Queue,
    callbacks: &Callbacks,
    command: &T,
    pages: &Pages,
    spare: &mut Option<Contiguous>,
) -> Result<()> {
    let bytes = size_of::<T>() + pages.entries().count() * size_of::<MemEntry>();
    if bytes <= REQUEST_BYTES {
        let mut request = [0; REQUEST_BYTES];
        write_entries(command, pages.entries(), &mut request);
        let request = request.get(..bytes).unwrap_or_default();
        return queue.execute(Body::Inline(request)).map(|_| ());
    }
    let buffer = Contiguous::allocate(callbacks, bytes)?;
    // SAFETY: fresh memory of that many bytes, ours alone.
    let request = unsafe { core::slice::from_raw_parts_mut(buffer.base, buffer.bytes) };
    write_entries(command, pages.entries(), request);
    let result = queue.execute(Body::External {
        address: buffer.device_address,
        bytes: bytes as u32,
    });
    if result == Err(STATUS_IO_TIMEOUT) {
        // The device may read it yet: it stays until the device is reset.
        *spare = Some(buffer);
        return Err(STATUS_IO_TIMEOUT);
    }
    let released = undo!("entries-free", buffer.release(callbacks));
    result?;
    released
}

fn write_entries<T: Command>(
    command: &T,
    entries: impl Iterator<Item = MemEntry>,
    request: &mut [u8],
) {
    let (head, tail) = request.split_at_mut(size_of::<T>());
    head.copy_from_slice(bytes_of(command));
    for (place, entry) in tail.chunks_exact_mut(size_of::<MemEntry>()).zip(entries) {
        place.copy_from_slice(bytes_of(&entry));
    }
}

/// Shows `resource` (0: nothing) on a scanout.
#[inline(never)]
pub fn set_scanout(
    queue: &Queue,
    scanout: u32,
    resource: u32,
    width: u32,
    height: u32,
) -> Result<()> {
    let command = SetScanout {
        header: header(CMD_SET_SCANOUT),
        rect: Rect {
            x: 0,
            y: 0,
            width,
            height,
        },
        scanout,
        resource,
    };
    queue.execute(inline(&command)).map(|_| ())
}

/// Shows the picture in a blob, its rows without gaps, on a scanout.
#[inline(never)]
pub fn set_scanout_blob(
    queue: &Queue,
    scanout: u32,
    resource: u32,
    width: u32,
    height: u32,
) -> Result<()> {
    let command = SetScanoutBlob {
        header: header(CMD_SET_SCANOUT_BLOB),
        rect: Rect {
            x: 0,
            y: 0,
            width,
            height,
        },
        scanout,
        resource,
        width,
        height,
        format: FORMAT_B8G8R8X8,
        padding: 0,
        strides: [width * 4, 0, 0, 0],
        offsets: [0; 4],
    };
    queue.execute(inline(&command)).map(|_| ())
}

/// Where in a frame's command block the flush is; the transfer is at 0.
const FLUSH_AT: usize = 64;
const _: () = assert!(size_of::<TransferToHost2d>() <= FLUSH_AT);
/// Bytes of a frame's command block.
pub const FRAME_COMMAND_BYTES: usize = FLUSH_AT + size_of::<ResourceFlush>();

/// Writes a command into a block that the device reads.
fn place<T: Command>(block: &Contiguous, at: usize, command: &T) -> Body<'static> {
    // SAFETY: a block of at least FRAME_COMMAND_BYTES, which no command in
    // flight uses: the caller waited for the frame before.
    unsafe {
        core::ptr::copy_nonoverlapping(
            bytes_of(command).as_ptr(),
            block.base.add(at),
            size_of::<T>(),
        );
    }
    Body::External {
        address: block.device_address + at as u64,
        bytes: size_of::<T>() as u32,
    }
}

/// Which part of a resource a frame is.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// Where its commands go; free since the frame before.
    pub commands: &'a Contiguous,
    /// Queue group.
    pub group: usize,
    /// Which resource.
    pub resource: u32,
    /// First row.
    pub top: u32,
    /// Pixels a row, all of them.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Frame<'_> {
    fn rect(&self) -> Rect {
        Rect {
            x: 0,
            y: self.top,
            width: self.width,
            height: self.height,
        }
    }

    /// The rows come from the start of the backing.
    fn transfer(&self) -> Body<'static> {
        let command = TransferToHost2d {
            header: header(CMD_TRANSFER_TO_HOST_2D),
            rect: self.rect(),
            offset: 0,
            resource: self.resource,
            padding: 0,
        };
        place(self.commands, 0, &command)
    }

    fn flush(&self, fence: u64) -> Body<'static> {
        let command = ResourceFlush {
            header: Header {
                flags: FLAG_FENCE,
                fence,
                ..header(CMD_RESOURCE_FLUSH)
            },
            rect: self.rect(),
            resource: self.resource,
            padding: 0,
        };
        place(self.commands, FLUSH_AT, &command)
    }
}

/// Queues the transfer of a frame and the flush that shows it under one
/// doorbell. The flush carries `fence`. Does not wait.
#[inline(never)]
pub fn queue_frame(queue: &Queue, frame: &Frame<'_>, fence: u64) -> Result<()> {
    queue
        .submit(frame.group, [frame.transfer(), frame.flush(fence)])
        .map(|_| ())
}

/// Queues the flush of a blob alone: its memory is the picture.
#[inline(never)]
pub fn queue_flush(queue: &Queue, frame: &Frame<'_>, fence: u64) -> Result<()> {
    queue.submit(frame.group, [frame.flush(fence)]).map(|_| ())
}

/// Queues the transfer alone, of what is no scanout's picture.
#[inline(never)]
pub fn queue_transfer(queue: &Queue, frame: &Frame<'_>) -> Result<()> {
    queue.submit(frame.group, [frame.transfer()]).map(|_| ())
}

/// Where a cursor is and what it looks like.
#[derive(Clone, Copy, Default)]
pub struct CursorState {
    /// Which scanout.
    pub scanout: u32,
    /// Resource with the picture; 0 for none.
    pub resource: u32,
    /// Where its hot spot is.
    pub at: (i32, i32),
    /// Which pixel of the picture is the hot spot.
    pub hot: (u32, u32),
}

/// Queues a new picture for a cursor on the cursor queue, or without `image`
/// a mere move. Does not wait.
#[inline(never)]
pub fn queue_cursor(queue: &Queue, group: usize, cursor: &CursorState, image: bool) -> Result<()> {
    let kind = if image {
        CMD_UPDATE_CURSOR
    } else {
        CMD_MOVE_CURSOR
    };
    let command = UpdateCursor {
        header: header(kind),
        scanout: cursor.scanout,
        x: cursor.at.0 as u32,
        y: cursor.at.1 as u32,
        position_padding: 0,
        resource: cursor.resource,
        hot_x: cursor.hot.0,
        hot_y: cursor.hot.1,
        padding: 0,
    };
    queue.submit(group, [inline(&command)]).map(|_| ())
}
