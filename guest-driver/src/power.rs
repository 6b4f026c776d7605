//! What becomes of the pictures in D3, where the device forgets everything.
//!
//! On the way down the frame that is shown goes into the save area that
//! dxgkrnl keeps for it (FRAMEBUFFERSAVESIZE); on the way up the device
//! reads it from there. Both ways first try to have the whole area pinned,
//! and fall back to windows of it through a small buffer that was allocated
//! at start, when memory was not short. When not even a page can be mapped,
//! the transfer is given up: the picture is then drawn from its backing,
//! which is system memory and survives.

use core::ptr;

use crate::callbacks::Callbacks;
use crate::cursor;
use crate::gpu::{self, Frame};
use crate::memory::{Contiguous, Pages};
use crate::mutations::undo;
use crate::nt::{Result, log, whole_pages};
use crate::resource::{self, Context, Kind, MAX_RESOURCES, Resource, Table};
use crate::spec::nt::{
    PAGE_SIZE, STATUS_INVALID_PARAMETER, STATUS_IO_DEVICE_ERROR, STATUS_IO_TIMEOUT,
};

/// Bytes of the save area: one frame of 1920 x 1080.
pub const SAVE_BYTES: usize = 8 << 20;
/// Bytes of the small buffer: two rows of the widest picture.
pub const SMALL_BYTES: usize = 32 << 10;

/// The frame in the save area.
#[derive(Clone, Copy)]
pub struct Saved {
    /// Its resource's id.
    id: u32,
    /// Its bytes.
    bytes: usize,
}

/// Puts the frame that is shown into the save area; none if there is none,
/// or if it cannot be had.
#[inline(never)]
pub fn save(callbacks: &Callbacks, table: &Table) -> Option<Saved> {
    let shown = table.resources.iter().take(MAX_RESOURCES).find(|r| {
        r.id != 0 && r.kind == Kind::Picture && r.device.scanouts != 0 && r.bytes() <= SAVE_BYTES
    })?;
    let saved = Saved {
        id: shown.id,
        bytes: shown.bytes(),
    };
    // SAFETY: the mapping holds the whole picture.
    let frame = unsafe { core::slice::from_raw_parts(shown.address as *const u8, saved.bytes) };
    let result = save_pinned(callbacks, frame).or_else(|_| {
        through_windows(callbacks, 0, saved.bytes, |at, window| {
            if let Some(from) = frame.get(at..at + window.len()) {
                window.copy_from_slice(from);
            }
        })
    });
    match result {
        Ok(()) => Some(saved),
        Err(status) => {
            log!("the frame was not saved: 0x%x", status);
            None
        }
    }
}

/// Through a pin of the whole area.
#[inline(never)]
fn save_pinned(callbacks: &Callbacks, frame: &[u8]) -> Result<()> {
    let pages = Pages::pinned(callbacks, whole_pages(frame.len()))?;
    let result = pages.map().map(|address| {
        // SAFETY: the mapping is at least as long as the frame, and nobody
        // else's.
        unsafe { ptr::copy_nonoverlapping(frame.as_ptr(), address, frame.len()) };
        undo!("save-unmap", pages.unmap(address));
    });
    let unpinned = undo!("save-unpin", callbacks.unpin_framebuffer());
    result.and(unpinned)
}

/// Runs `work(byte of the range, bytes)` over windows of `bytes` bytes of
/// the save area from `start` on, as large as dxgkrnl can map them.
fn through_windows(
    callbacks: &Callbacks,
    start: usize,
    bytes: usize,
    mut work: impl FnMut(usize, &mut [u8]),
) -> Result<()> {
    let mut largest = SMALL_BYTES;
    let mut done = 0;
    while done < bytes {
        let inside = (start + done) % PAGE_SIZE;
        let size = whole_pages(inside + bytes - done).min(largest);
        let (base, address) = match callbacks.map_framebuffer(start + done - inside, size) {
            Ok(mapping) => mapping,
            Err(status) if largest == PAGE_SIZE => return Err(status),
            Err(_) => {
                largest = whole_pages(largest / 2);
                continue;
            }
        };
        let count = (size - inside).min(bytes - done);
        // SAFETY: within the mapping, which is ours until it is undone.
        work(done, unsafe {
            core::slice::from_raw_parts_mut(address.add(inside), count)
        });
        undo!("window-unmap", callbacks.unmap_framebuffer(base))?;
        done += count;
    }
    Ok(())
}

/// The device was reset: it knows none of the resources, and reads none of
/// their commands. Which scanouts show them is kept for the way up.
#[inline(never)]
pub fn forget(callbacks: &Callbacks, table: &mut Table) {
    for resource in &mut table.resources {
        resource.device.created = false;
        resource.device.attached = false;
        if core::mem::take(&mut resource.pinned) {
            let _ = callbacks.unpin_framebuffer();
        }
        if let Some(buffer) = resource.attach_command.take() {
            let _ = undo!("forgotten-command-free", buffer.release(callbacks));
        }
    }
}

/// Creates the resources again, with what they showed and where.
#[inline(never)]
pub fn restore(
    context: &Context<'_>,
    table: &mut Table,
    small: &Contiguous,
    saved: Option<Saved>,
) -> Result<()> {
    for index in 0..table.resources.len() {
        let resource = &mut table.resources[index];
        if resource.id == 0 {
            continue;
        }
        let scanouts = resource.device.scanouts;
        resource::create_in_device(context, resource)?;
        resource::show_on(context, table, index, scanouts)?;
        let fence = table.fence();
        let resource = &mut table.resources[index];
        let frame =
            saved.filter(|saved| saved.id == resource.id && saved.bytes == resource.bytes());
        let shown = frame.map(|saved| {
            restore_pinned(context, resource, index, fence, saved)
                .or_else(|_| restore_by_windows(context, resource, index, fence, small))
        });
        resource::attach(context, resource)?;
        if shown != Some(Ok(())) && resource.kind == Kind::Picture {
            resource::queue_frame(context, resource, index, fence)?;
            undo!("restore-wait", context.queue.wait(index))?;
        }
    }
    cursor::show_again(context, table)
}

/// The device reads the whole frame from the pinned save area, which is its
/// backing for so long: where it does not let go of it, until the reset.
#[inline(never)]
fn restore_pinned(
    context: &Context<'_>,
    resource: &mut Resource,
    index: usize,
    fence: u64,
    saved: Saved,
) -> Result<()> {
    let pages = Pages::pinned(context.callbacks, whole_pages(saved.bytes))?;
    let id = resource.id;
    let attached = gpu::resource_attach_backing(
        context.queue,
        context.callbacks,
        id,
        &pages,
        &mut resource.attach_command,
    );
    let result = attached.and_then(|()| {
        let queued = resource::queue_frame(context, resource, index, fence);
        let shown = undo!("restore-saved-wait", context.queue.wait(index));
        let detached = undo!(
            "restore-detach",
            gpu::resource_detach_backing(context.queue, id)
        );
        // An error is an answer too; without one it may have the pages yet.
        resource.pinned = !matches!(detached, Ok(()) | Err(STATUS_IO_DEVICE_ERROR));
        queued.and(shown).and(detached)
    });
    // The same of an attach that was not answered: they go after the reset.
    resource.pinned |= attached == Err(STATUS_IO_TIMEOUT);
    if resource.pinned {
        return result;
    }
    let unpinned = undo!("restore-unpin", context.callbacks.unpin_framebuffer());
    result.and(unpinned)
}

/// The device reads a few rows at a time from the small buffer.
#[inline(never)]
fn restore_by_windows(
    context: &Context<'_>,
    resource: &Resource,
    index: usize,
    fence: u64,
    small: &Contiguous,
) -> Result<()> {
    let stride = resource.width as usize * 4;
    let rows = small.bytes.checked_div(stride).unwrap_or(0) as u32;
    if rows == 0 {
        return Err(STATUS_INVALID_PARAMETER);
    }
    gpu::resource_attach_block(context.queue, resource.id, small)?;
    let result = (0..resource.height)
        .step_by(rows as usize)
        .try_for_each(|top| {
            let height = rows.min(resource.height - top);
            let start = top as usize * stride;
            through_windows(
                context.callbacks,
                start,
                height as usize * stride,
                |at, window| {
                    // SAFETY: at most `rows` rows, which the buffer holds; the
                    // device is done with those before.
                    unsafe {
                        ptr::copy_nonoverlapping(window.as_ptr(), small.base.add(at), window.len());
                    }
                },
            )?;
            let frame = Frame {
                top,
                height,
                ..resource.frame(index)?
            };
            gpu::queue_frame(context.queue, &frame, fence)?;
            undo!("restore-rows-wait", context.queue.wait(index))
        });
    let detached = undo!(
        "restore-rows-detach",
        gpu::resource_detach_backing(context.queue, resource.id)
    );
    result.and(detached)
}
