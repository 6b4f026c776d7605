//! Resources: a picture in the device, its backing pages, and the order in
//! which they come and go.
//!
//! A resource records each thing it holds, so that one function gives back
//! exactly that, whether creation failed half-way, the owner frees it, or
//! the device stops. What the device would not let go of stays allocated
//! until the device was reset.

use crate::callbacks::Callbacks;
use crate::cursor;
use crate::gpu::{self, FRAME_COMMAND_BYTES, HEADS};
use crate::memory::{Contiguous, Pages};
use crate::mutations::undo;
use crate::nt::{Result, log};
use crate::spec::gpu::{FORMAT_B8G8R8A8, FORMAT_B8G8R8X8};
use crate::spec::nt::{
    PAGE_SIZE, STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER, STATUS_IO_TIMEOUT,
    STATUS_NOT_SUPPORTED,
};

mod table;

pub use table::{Context, Kind, Resource, Table};

#[cfg(feature = "defects")]
use table::DeviceState;

#[cfg(feature = "defects")]
#[path = "defects/resource.rs"]
mod planted;

/// Resources that exist at a time.
pub const MAX_RESOURCES: usize = 8;
/// The place where a resize builds the new resource.
const SPARE: usize = MAX_RESOURCES;
/// The places of the cursors' pictures, by scanout.
pub(crate) const CURSORS: usize = MAX_RESOURCES + 1;
/// Places for resources in all; the index of one is its queue group.
pub const PLACES: usize = CURSORS + HEADS;
/// Pixels a row, and rows, at most.
const MAX_SIDE: u32 = 4096;
/// Backing pages of a resource at most: 64 MiB, what 4096 x 4096 takes.
const MAX_PAGES: usize = 16384;

/// Creates a resource and shows it on `scanout`: its id and its number of
/// pages.
#[inline(never)]
pub fn create(
    context: &Context<'_>,
    table: &mut Table,
    kind: Kind,
    scanout: u32,
    size: (u32, u32),
) -> Result<(u32, usize)> {
    if scanout >= context.heads {
        return Err(STATUS_INVALID_PARAMETER);
    }
    #[cfg(feature = "defects")]
    if let Some(result) = planted::create_from_cache(context, table, size.0, size.1) {
        return result;
    }
    let index = table
        .resources
        .iter()
        .take(MAX_RESOURCES)
        .position(|resource| resource.id == 0)
        .ok_or(STATUS_INSUFFICIENT_RESOURCES)?;
    let pages = begin(context, table, index, kind, size, 1 << scanout)?;
    Ok((table.resources[index].id, pages))
}

/// Makes a resource at a free place and shows it on `scanouts`: its number
/// of pages. On failure the place is free again, unless the device holds on
/// to its pages.
#[inline(never)]
pub(crate) fn begin(
    context: &Context<'_>,
    table: &mut Table,
    index: usize,
    kind: Kind,
    (width, height): (u32, u32),
    scanouts: u32,
) -> Result<usize> {
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if kind == Kind::Blob && !context.blobs {
        return Err(STATUS_NOT_SUPPORTED);
    }
    let pages = (width as usize * height as usize * 4).div_ceil(PAGE_SIZE);
    if pages > MAX_PAGES {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let id = table.next_id;
    table.next_id = id.wrapping_add(1).max(1);
    let resource = &mut table.resources[index];
    *resource = Resource {
        id,
        width,
        height,
        kind,
        ..Resource::default()
    };
    let result = build(context, resource, pages * PAGE_SIZE)
        .and_then(|()| show_on(context, table, index, scanouts));
    if let Err(status) = result {
        log!("resource %u was not created: 0x%x", id, status);
        // On failure the place stays taken: the device still holds pages.
        let _ = give_back(context, table, index);
        return Err(status);
    }
    Ok(pages)
}

/// Takes what a resource needs, recording each step.
#[inline(never)]
fn build(context: &Context<'_>, resource: &mut Resource, bytes: usize) -> Result<()> {
    let pages = Pages::allocate(context.callbacks, bytes)?;
    resource.pages = Some(pages);
    resource.address = pages.map()? as usize;
    let commands = Contiguous::allocate(context.callbacks, FRAME_COMMAND_BYTES);
    #[cfg(feature = "defects")]
    let commands = commands.inspect_err(|_| planted::undo_build(context, resource));
    resource.commands = Some(commands?);
    create_in_device(context, resource)?;
    attach(context, resource)
}

/// Creates the device's side of a resource; a blob gets its backing with it.
#[inline(never)]
pub(crate) fn create_in_device(context: &Context<'_>, resource: &mut Resource) -> Result<()> {
    let pages = resource.pages.ok_or(STATUS_INVALID_PARAMETER)?;
    let (queue, id) = (context.queue, resource.id);
    let (width, height) = (resource.width, resource.height);
    let result = match resource.kind {
        Kind::Picture => gpu::resource_create_2d(queue, id, FORMAT_B8G8R8X8, width, height),
        Kind::Cursor => gpu::resource_create_2d(queue, id, FORMAT_B8G8R8A8, width, height),
        Kind::Blob => gpu::resource_create_blob(
            queue,
            context.callbacks,
            id,
            &pages,
            &mut resource.attach_command,
        ),
    };
    // After a timeout the device may have it.
    resource.device.created = matches!(result, Ok(()) | Err(STATUS_IO_TIMEOUT));
    result
}

/// Gives the device the pages, unless it has them since the creation.
#[inline(never)]
pub(crate) fn attach(context: &Context<'_>, resource: &mut Resource) -> Result<()> {
    if resource.kind == Kind::Blob {
        return Ok(());
    }
    let pages = resource.pages.ok_or(STATUS_INVALID_PARAMETER)?;
    let result = gpu::resource_attach_backing(
        context.queue,
        context.callbacks,
        resource.id,
        &pages,
        &mut resource.attach_command,
    );
    resource.device.attached = matches!(result, Ok(()) | Err(STATUS_IO_TIMEOUT));
    result
}

/// Shows the resource at `index` on each of `scanouts`; what was there lost
/// them.
pub(crate) fn show_on(
    context: &Context<'_>,
    table: &mut Table,
    index: usize,
    scanouts: u32,
) -> Result<()> {
    for scanout in (0..context.heads).filter(|scanout| scanouts & 1 << scanout != 0) {
        let resource = &table.resources[index];
        let (id, width, height) = (resource.id, resource.width, resource.height);
        match resource.kind {
            Kind::Picture => gpu::set_scanout(context.queue, scanout, id, width, height)?,
            Kind::Blob => gpu::set_scanout_blob(context.queue, scanout, id, width, height)?,
            Kind::Cursor => return Err(STATUS_INVALID_PARAMETER),
        }
        for (other, resource) in table.resources.iter_mut().enumerate() {
            if other == index {
                resource.device.scanouts |= 1 << scanout;
            } else {
                resource.device.scanouts &= !(1 << scanout);
            }
        }
    }
    Ok(())
}

/// Shows a resource, or with id 0 nothing, on `scanout`.
#[inline(never)]
pub fn scanout(context: &Context<'_>, table: &mut Table, id: u32, scanout: u32) -> Result<()> {
    if scanout >= context.heads {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if id == 0 {
        undo!(
            "scanout-off",
            gpu::set_scanout(context.queue, scanout, 0, 0, 0)
        )?;
        for resource in &mut table.resources {
            resource.device.scanouts &= !(1 << scanout);
        }
        return Ok(());
    }
    let (index, _) = table.find(id)?;
    show_on(context, table, index, 1 << scanout)
}

/// Replaces a resource by one of another size: the new id and its number of
/// pages. A resource of the device has one size for life, so the new one is
/// built beside the old one, takes its scanouts, and then the old one goes,
/// with its pages and its command block.
#[inline(never)]
pub fn resize(
    context: &Context<'_>,
    table: &mut Table,
    id: u32,
    size: (u32, u32),
) -> Result<(u32, usize)> {
    let (index, old) = table.find(id)?;
    let (kind, scanouts) = (old.kind, old.device.scanouts);
    if table.resources[SPARE].id != 0 {
        // An old one that the device did not let go of is there.
        return Err(STATUS_INSUFFICIENT_RESOURCES);
    }
    #[cfg(feature = "defects")]
    planted::before_resize(context, index, &mut table.resources[index])?;
    undo!("resize-wait", wait_for_frames(context, index))?;
    if let Err(status) = begin(context, table, SPARE, kind, size, scanouts) {
        // It may have taken a scanout before it failed.
        let lost = scanouts & !table.resources[index].device.scanouts;
        let _ = show_on(context, table, index, lost);
        return Err(status);
    }
    // Nothing of either is in flight, so the groups that go with the places
    // are both idle.
    table.resources.swap(index, SPARE);
    if let Err(status) = give_back(context, table, SPARE) {
        log!(
            "the resized resource %u stays until the reset: 0x%x",
            id,
            status
        );
    }
    let resource = &table.resources[index];
    Ok((resource.id, resource.bytes().div_ceil(PAGE_SIZE)))
}

/// Draws frame `seed` and queues it: its fence. Waits for the frame before,
/// whose pixels the device may still be reading.
#[inline(never)]
pub fn present(context: &Context<'_>, table: &mut Table, id: u32, seed: u64) -> Result<u64> {
    let fence = table.next_fence;
    let (index, resource) = table.find(id)?;
    if resource.address == 0 || !resource.device.created {
        return Err(STATUS_INVALID_PARAMETER);
    }
    undo!("present-wait", context.queue.wait(index))?;
    resource.draw(|x, y| interface::pixel(seed, x, y));
    queue_frame(context, resource, index, fence)?;
    table.fence();
    Ok(fence)
}

/// Queues what shows a resource's pixels as they are.
pub(crate) fn queue_frame(
    context: &Context<'_>,
    resource: &Resource,
    index: usize,
    fence: u64,
) -> Result<()> {
    let frame = resource.frame(index)?;
    #[cfg(feature = "defects")]
    crate::defects::races::stamp_later(resource.commands.as_ref(), index);
    match resource.kind {
        Kind::Picture => gpu::queue_frame(context.queue, &frame, fence),
        Kind::Blob => gpu::queue_flush(context.queue, &frame, fence),
        Kind::Cursor => gpu::queue_transfer(context.queue, &frame),
    }
}

/// Waits until the device completed all frames of a resource.
#[inline(never)]
pub fn wait(context: &Context<'_>, table: &mut Table, id: u32) -> Result<()> {
    let (index, _) = table.find(id)?;
    undo!("escape-wait", context.queue.wait(index))
}

/// Waits until a group is idle. A frame that failed is over as well; one
/// that hangs is not.
fn wait_for_frames(context: &Context<'_>, index: usize) -> Result<()> {
    match context.queue.wait(index) {
        Err(STATUS_IO_TIMEOUT) => Err(STATUS_IO_TIMEOUT),
        _ => Ok(()),
    }
}

/// Gives a resource back: its frames, its backing, its id, its pages, in
/// this order.
#[inline(never)]
pub fn free(context: &Context<'_>, table: &mut Table, id: u32) -> Result<()> {
    let (index, resource) = table.find(id)?;
    #[cfg(feature = "defects")]
    if let Some(result) = planted::free(context, index, resource) {
        return result;
    }
    retire_and_release(context, index, resource)
}

/// Gives back what is at a place, the cursor's picture only after no command
/// of the cursor queue names it any more.
pub(crate) fn give_back(context: &Context<'_>, table: &mut Table, index: usize) -> Result<()> {
    if index >= CURSORS {
        undo!(
            "cursor-hide",
            cursor::take_off(context, table, index - CURSORS)
        )?;
    }
    retire_and_release(context, index, &mut table.resources[index])
}

fn retire_and_release(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    undo!("free-retire", retire(context, index, resource))?;
    let commands = release_commands(context.callbacks, resource);
    let released = release_pages(context.callbacks, resource);
    resource.id = 0;
    released.and(commands)
}

/// Takes a resource from the device. On `Ok` the device acknowledged the
/// detach, and its pages may go back.
#[inline(never)]
fn retire(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    undo!("free-wait", wait_for_frames(context, index))?;
    for scanout in 0..context.heads {
        if resource.device.scanouts & 1 << scanout != 0 {
            undo!(
                "free-scanout-off",
                gpu::set_scanout(context.queue, scanout, 0, 0, 0)
            )?;
            resource.device.scanouts &= !(1 << scanout);
        }
    }
    if resource.device.attached {
        undo!(
            "free-detach",
            gpu::resource_detach_backing(context.queue, resource.id)
        )?;
        resource.device.attached = false;
    }
    if resource.device.created {
        // This is also what takes the pages from a blob.
        undo!(
            "free-unref",
            gpu::resource_unref(context.queue, resource.id)
        )?;
        resource.device.created = false;
    }
    Ok(())
}

/// Gives back the blocks that the device reads commands from.
#[inline(never)]
pub(crate) fn release_commands(callbacks: &Callbacks, resource: &mut Resource) -> Result<()> {
    let mut result = Ok(());
    if let Some(buffer) = resource.attach_command.take() {
        result = undo!("attach-command-free", buffer.release(callbacks));
    }
    if let Some(block) = resource.commands.take() {
        result = undo!("frame-commands-free", block.release(callbacks)).and(result);
    }
    result
}

/// Unmaps the pages and gives them to dxgkrnl.
#[inline(never)]
pub(crate) fn release_pages(callbacks: &Callbacks, resource: &mut Resource) -> Result<()> {
    let Some(pages) = resource.pages.take() else {
        return Ok(());
    };
    if resource.address != 0 {
        undo!("free-unmap", pages.unmap(resource.address as *mut u8));
        resource.address = 0;
    }
    undo!("free-pages", pages.release(callbacks))
}

/// Gives back every resource that the device lets go of.
#[inline(never)]
pub fn free_all(context: &Context<'_>, table: &mut Table) {
    for index in 0..PLACES {
        if table.resources[index].id != 0 {
            let _ = give_back(context, table, index);
        }
    }
}

/// Gives back what is left after the device was reset, which holds nothing
/// any more.
#[inline(never)]
pub fn release_all(callbacks: &Callbacks, table: &mut Table) {
    for resource in &mut table.resources {
        if resource.id != 0 {
            let _ = release_commands(callbacks, resource);
            let _ = release_pages(callbacks, resource);
            resource.id = 0;
        }
    }
}
