//! Bugs in the order in which a resource comes and goes. Part of
//! [`resource`](super), whose steps these functions take in a wrong order.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{
    Context, DeviceState, MAX_RESOURCES, Resource, Table, release_commands, release_pages, retire,
    retire_and_release, wait_for_frames,
};
use crate::defects::{Defect, is_chosen, is_fixed, races, shows};
use crate::gpu::{self, FRAME_COMMAND_BYTES};
use crate::memory::{Contiguous, Pages};
use crate::nt::Result;
use crate::queue::Body;
use crate::spec::gpu::{CMD_RESOURCE_DETACH_BACKING, CMD_RESOURCE_UNREF, Header, ResourceCommand};
use crate::spec::nt::{
    PAGE_SIZE, STATUS_DEVICE_HARDWARE_ERROR, STATUS_INSUFFICIENT_RESOURCES, STATUS_IO_TIMEOUT,
};

/// Frees a resource in the planted way, if one is chosen.
pub fn free(context: &Context<'_>, index: usize, resource: &mut Resource) -> Option<Result<()>> {
    if shows(Defect::FreeBeforeDetach) {
        Some(free_before_detach(context, index, resource))
    } else if shows(Defect::FreeInFlight) {
        Some(free_in_flight(context, index, resource))
    } else if shows(Defect::DoubleFree) {
        Some(free_and_keep(context, index, resource))
    } else if is_chosen(Defect::ReuseOldBacking) {
        Some(free_into_cache(context, index, resource))
    } else if is_chosen(Defect::StaleSignal) {
        Some(free_after_frame(context, index, resource))
    } else if is_chosen(Defect::FreedByTwoThreads) {
        Some(free_by_worker(context, index, resource))
    } else if is_chosen(Defect::TimeoutDoubleFree) {
        Some(free_or_give_up(context, index, resource))
    } else {
        None
    }
}

/// The planted bug: the pages go back while the device still has them.
#[inline(never)]
fn free_before_detach(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    let released = release_pages(context.callbacks, resource);
    retire(context, index, resource)?;
    let commands = release_commands(context.callbacks, resource);
    resource.id = 0;
    released.and(commands)
}

/// The planted bug: a command that was queued is not one that was carried
/// out.
#[inline(never)]
fn free_in_flight(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    let detach = command(CMD_RESOURCE_DETACH_BACKING, resource.id);
    let unref = command(CMD_RESOURCE_UNREF, resource.id);
    context
        .queue
        .submit(index, [Body::Inline(&detach), Body::Inline(&unref)])?;
    resource.device = DeviceState::default();
    let released = release_pages(context.callbacks, resource);
    context.queue.wait(index)?;
    let commands = release_commands(context.callbacks, resource);
    resource.id = 0;
    released.and(commands)
}

fn command(kind: u32, resource: u32) -> [u8; size_of::<ResourceCommand>()] {
    let mut bytes = [0; size_of::<ResourceCommand>()];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    let id = size_of::<Header>();
    bytes[id..id + 4].copy_from_slice(&resource.to_le_bytes());
    bytes
}

/// The planted bug: the entry stays in the table, pages and all, until
/// StopDevice frees what it finds there.
#[inline(never)]
fn free_and_keep(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    let (id, pages) = (resource.id, resource.pages);
    retire_and_release(context, index, resource)?;
    (resource.id, resource.pages) = (id, pages);
    Ok(())
}

/// The resource that the device keeps for the next picture of its size: id,
/// and width and height.
static CACHED_ID: AtomicU32 = AtomicU32::new(0);
static CACHED_SIZE: AtomicU64 = AtomicU64::new(0);

fn size(width: u32, height: u32) -> u64 {
    u64::from(width) << 32 | u64::from(height)
}

/// Gives back the pages and keeps the device's resource.
#[inline(never)]
fn free_into_cache(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    context.queue.wait(index)?;
    if is_fixed(Defect::ReuseOldBacking) {
        gpu::resource_detach_backing(context.queue, resource.id)?;
    }
    CACHED_ID.store(resource.id, Ordering::Relaxed);
    CACHED_SIZE.store(size(resource.width, resource.height), Ordering::Relaxed);
    let commands = release_commands(context.callbacks, resource);
    let released = release_pages(context.callbacks, resource);
    *resource = Resource::default();
    released.and(commands)
}

/// Creates a picture on the device's kept resource, if there is one of its
/// size. The planted bug: its backing is the pages that went back.
#[inline(never)]
pub fn create_from_cache(
    context: &Context<'_>,
    table: &mut Table,
    width: u32,
    height: u32,
) -> Option<Result<(u32, usize)>> {
    let id = CACHED_ID.load(Ordering::Relaxed);
    if id == 0
        || !is_chosen(Defect::ReuseOldBacking)
        || CACHED_SIZE.load(Ordering::Relaxed) != size(width, height)
    {
        return None;
    }
    CACHED_ID.store(0, Ordering::Relaxed);
    Some(renew(context, table, id, width, height))
}

#[inline(never)]
fn renew(
    context: &Context<'_>,
    table: &mut Table,
    id: u32,
    width: u32,
    height: u32,
) -> Result<(u32, usize)> {
    let bytes = (width as usize * height as usize * 4).next_multiple_of(PAGE_SIZE);
    let resource = table
        .resources
        .iter_mut()
        .take(MAX_RESOURCES)
        .find(|resource| resource.id == 0)
        .ok_or(STATUS_INSUFFICIENT_RESOURCES)?;
    let pages = Pages::allocate(context.callbacks, bytes)?;
    let commands = Contiguous::allocate(context.callbacks, FRAME_COMMAND_BYTES)?;
    *resource = Resource {
        id,
        width,
        height,
        pages: Some(pages),
        commands: Some(commands),
        ..Resource::default()
    };
    resource.device = DeviceState {
        created: true,
        attached: true,
        scanouts: 1,
    };
    resource.address = pages.map()? as usize;
    if is_fixed(Defect::ReuseOldBacking) {
        gpu::resource_attach_backing(
            context.queue,
            context.callbacks,
            id,
            &pages,
            &mut resource.attach_command,
        )?;
    }
    gpu::set_scanout(context.queue, 0, id, width, height)?;
    Ok((id, bytes / PAGE_SIZE))
}

/// Waits for the last frame, and gives the pages back at once: of what
/// follows none makes the device read them.
#[inline(never)]
fn free_after_frame(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    context.queue.wait(index)?;
    let released = release_pages(context.callbacks, resource);
    retire_and_release(context, index, resource).and(released)
}

/// Takes a resource from the device, and leaves its pages to the worker.
#[inline(never)]
fn free_by_worker(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    retire(context, index, resource)?;
    let commands = release_commands(context.callbacks, resource);
    if let Some(pages) = resource.pages.take() {
        pages.unmap(resource.address as *mut u8);
        resource.address = 0;
        races::free_later(context.callbacks, pages);
    }
    resource.id = 0;
    commands
}

/// Frees a resource of a device that may be dead. The planted bug: the pages
/// go back although it did not let go of them, and once more when the driver
/// stops.
#[inline(never)]
fn free_or_give_up(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    let result = retire_and_release(context, index, resource);
    let dead = matches!(
        result,
        Err(STATUS_IO_TIMEOUT | STATUS_DEVICE_HARDWARE_ERROR)
    );
    if dead && shows(Defect::TimeoutDoubleFree) {
        let pages = resource.pages;
        let _ = release_pages(context.callbacks, resource);
        resource.pages = pages;
    }
    result
}

/// Gives back the block of the old picture's frames, so that the new one can
/// have it.
#[inline(never)]
pub fn before_resize(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    if !is_chosen(Defect::ResizeRacesDpc) {
        return Ok(());
    }
    if !races::is_block_unused(context.queue, index) {
        wait_for_frames(context, index)?;
    }
    release_commands(context.callbacks, resource)
}

/// There was no memory for the block of a new picture's frames; what it has
/// so far goes back with it. The planted bugs: the pages are forgotten, or
/// freed here as well.
#[inline(never)]
pub fn undo_build(context: &Context<'_>, resource: &mut Resource) {
    if shows(Defect::ErrorPathLeak) {
        resource.pages = None;
        resource.address = 0;
    } else if shows(Defect::ErrorPathDoubleFree) {
        let pages = resource.pages;
        let _ = release_pages(context.callbacks, resource);
        resource.pages = pages;
    }
}
