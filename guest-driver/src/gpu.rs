//! The commands of virtio-gpu (virtio 1.2 §5.7.6) that this driver sends.

use core::mem::size_of;

use crate::callbacks::Callbacks;
use crate::memory::{Contiguous, Pages};
use crate::nt::Result;
use crate::queue::{Body, Queue, REQUEST_BYTES};
use crate::spec::gpu::{
    AttachBacking, CMD_GET_DISPLAY_INFO, CMD_RESOURCE_ATTACH_BACKING, CMD_RESOURCE_CREATE_2D,
    CMD_RESOURCE_DETACH_BACKING, CMD_RESOURCE_FLUSH, CMD_RESOURCE_UNREF, CMD_SET_SCANOUT,
    CMD_TRANSFER_TO_HOST_2D, Create2d, DISPLAY_INFO_SIZE, FLAG_FENCE, FORMAT_B8G8R8X8, Header,
    MemEntry, RESP_OK_DISPLAY_INFO, Rect, ResourceCommand, ResourceFlush, SetScanout,
    TransferToHost2d,
};
use crate::spec::nt::{STATUS_IO_DEVICE_ERROR, STATUS_IO_TIMEOUT};

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

/// Size of the first enabled display, as (width, height).
#[inline(never)]
pub fn get_display_info(queue: &Queue) -> Result<Option<(u32, u32)>> {
    let slot = queue.execute(inline(&header(CMD_GET_DISPLAY_INFO)))?;
    let mut response = [0; DISPLAY_INFO_SIZE];
    queue.response(slot, &mut response)?;
    let word = |at: usize| {
        let bytes = response.get(at..at + 4).and_then(|b| b.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    if word(0) != RESP_OK_DISPLAY_INFO {
        return Err(STATUS_IO_DEVICE_ERROR);
    }
    let first = (size_of::<Header>()..DISPLAY_INFO_SIZE)
        .step_by(24)
        .find(|&at| word(at + 16) != 0);
    Ok(first.map(|at| (word(at + 8), word(at + 12))))
}

/// Creates a 2D resource of 32-bit pixels.
#[inline(never)]
pub fn resource_create_2d(queue: &Queue, resource: u32, width: u32, height: u32) -> Result<()> {
    let command = Create2d {
        header: header(CMD_RESOURCE_CREATE_2D),
        resource,
        format: FORMAT_B8G8R8X8,
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
    queue.execute(inline(&command)).map(|_| ())
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
    queue.execute(inline(&command)).map(|_| ())
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
    let entries = pages.entries().count();
    let bytes = size_of::<AttachBacking>() + entries * size_of::<MemEntry>();
    let command = AttachBacking {
        header: header(CMD_RESOURCE_ATTACH_BACKING),
        resource,
        // At most one entry for each of 16384 pages.
        entries: entries as u32,
    };
    if bytes <= REQUEST_BYTES {
        let mut request = [0; REQUEST_BYTES];
        write_attach(&command, pages, &mut request);
        let request = request.get(..bytes).unwrap_or_default();
        return queue.execute(Body::Inline(request)).map(|_| ());
    }
    let buffer = Contiguous::allocate(callbacks, bytes)?;
    // SAFETY: fresh memory of that many bytes, ours alone.
    let request = unsafe { core::slice::from_raw_parts_mut(buffer.base, buffer.bytes) };
    write_attach(&command, pages, request);
    let result = queue.execute(Body::External {
        buffer: &buffer,
        bytes: bytes as u32,
    });
    if result == Err(STATUS_IO_TIMEOUT) {
        // The device may read it yet: it stays until the device is reset.
        *spare = Some(buffer);
        return Err(STATUS_IO_TIMEOUT);
    }
    let released = buffer.release(callbacks);
    result?;
    released
}

fn write_attach(command: &AttachBacking, pages: &Pages, request: &mut [u8]) {
    let (head, tail) = request.split_at_mut(size_of::<AttachBacking>());
    head.copy_from_slice(bytes_of(command));
    for (place, entry) in tail
        .chunks_exact_mut(size_of::<MemEntry>())
        .zip(pages.entries())
    {
        place.copy_from_slice(bytes_of(&entry));
    }
}

/// Shows `resource` (0: nothing) on scanout 0.
#[inline(never)]
pub fn set_scanout(queue: &Queue, resource: u32, width: u32, height: u32) -> Result<()> {
    let command = SetScanout {
        header: header(CMD_SET_SCANOUT),
        rect: Rect {
            x: 0,
            y: 0,
            width,
            height,
        },
        scanout: 0,
        resource,
    };
    queue.execute(inline(&command)).map(|_| ())
}

/// Queues the transfer of a whole resource and the flush that shows it, for
/// `group`, under one doorbell. The flush carries `fence`. Does not wait.
#[inline(never)]
pub fn queue_frame(
    queue: &Queue,
    group: usize,
    resource: u32,
    width: u32,
    height: u32,
    fence: u64,
) -> Result<()> {
    let rect = Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    let transfer = TransferToHost2d {
        header: header(CMD_TRANSFER_TO_HOST_2D),
        rect,
        offset: 0,
        resource,
        padding: 0,
    };
    let flush = ResourceFlush {
        header: Header {
            flags: FLAG_FENCE,
            fence,
            ..header(CMD_RESOURCE_FLUSH)
        },
        rect,
        resource,
        padding: 0,
    };
    queue
        .submit(group, [inline(&transfer), inline(&flush)])
        .map(|_| ())
}
