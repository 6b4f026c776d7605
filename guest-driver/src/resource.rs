//! Resources: a picture in the device, its backing pages, and the order in
//! which they come and go.
//!
//! A resource records each thing it holds, so that one function gives back
//! exactly that, whether creation failed half-way, the owner frees it, or
//! the device stops. What the device would not let go of stays allocated
//! until the device was reset.

use crate::callbacks::Callbacks;
use crate::gpu;
use crate::memory::{Contiguous, Pages};
use crate::nt::{Result, log};
use crate::queue::Queue;
use crate::spec::nt::{
    PAGE_SIZE, STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER, STATUS_IO_TIMEOUT,
};

#[cfg(feature = "defects")]
#[path = "defects/resource.rs"]
mod planted;

/// Resources that exist at a time.
pub const MAX_RESOURCES: usize = 8;
/// Pixels a row, and rows, at most.
const MAX_SIDE: u32 = 4096;
/// Backing pages of a resource at most: 64 MiB, what 4096 x 4096 takes.
const MAX_PAGES: usize = 16384;

/// What the device knows of a resource.
#[derive(Clone, Copy, Default)]
struct DeviceState {
    created: bool,
    attached: bool,
    scanout: bool,
}

/// One resource, or a free place for one (id 0).
#[derive(Clone, Copy, Default)]
pub struct Resource {
    /// Id in the device; never used twice between start and stop.
    id: u32,
    width: u32,
    height: u32,
    pages: Option<Pages>,
    /// Kernel address of the pages; null while unmapped.
    address: usize,
    device: DeviceState,
    /// A long attach command that the device may still read.
    attach_command: Option<Contiguous>,
}

// SAFETY: the pointers in it are kernel addresses, valid in every thread.
unsafe impl Send for Resource {}

/// What the functions here work with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The control queue.
    pub queue: &'a Queue,
    /// dxgkrnl.
    pub callbacks: &'a Callbacks,
}

/// All resources of an adapter; the index of one is its queue group.
pub struct Table {
    resources: [Resource; MAX_RESOURCES],
    next_id: u32,
    next_fence: u64,
}

impl Table {
    /// No resources.
    pub const fn new() -> Self {
        const FREE: Resource = Resource {
            id: 0,
            width: 0,
            height: 0,
            pages: None,
            address: 0,
            device: DeviceState {
                created: false,
                attached: false,
                scanout: false,
            },
            attach_command: None,
        };
        Self {
            resources: [FREE; MAX_RESOURCES],
            next_id: 1,
            next_fence: 1,
        }
    }

    fn find(&mut self, id: u32) -> Result<(usize, &mut Resource)> {
        self.resources
            .iter_mut()
            .enumerate()
            .find(|(_, resource)| id != 0 && resource.id == id)
            .ok_or(STATUS_INVALID_PARAMETER)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

/// Creates a resource and shows it: its id and its number of pages.
#[inline(never)]
pub fn create(
    context: &Context<'_>,
    table: &mut Table,
    width: u32,
    height: u32,
) -> Result<(u32, usize)> {
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let pages = (width as usize * height as usize * 4).div_ceil(PAGE_SIZE);
    if pages > MAX_PAGES {
        return Err(STATUS_INVALID_PARAMETER);
    }
    #[cfg(feature = "defects")]
    if let Some(result) = planted::create_from_cache(context, table, width, height) {
        return result;
    }
    let index = table
        .resources
        .iter()
        .position(|resource| resource.id == 0)
        .ok_or(STATUS_INSUFFICIENT_RESOURCES)?;
    let id = table.next_id;
    table.next_id = table.next_id.wrapping_add(1).max(1);
    let resource = &mut table.resources[index];
    *resource = Resource {
        id,
        width,
        height,
        ..Resource::default()
    };
    if let Err(status) = build(context, resource, pages * PAGE_SIZE) {
        log!("resource %u was not created: 0x%x", id, status);
        // On failure the place stays taken: the device still holds pages.
        let _ = retire_and_release(context, index, resource);
        return Err(status);
    }
    // A scanout shows one resource: the one before lost it.
    for (other, resource) in table.resources.iter_mut().enumerate() {
        resource.device.scanout = other == index;
    }
    Ok((id, pages))
}

/// Takes what a resource needs, recording each step.
#[inline(never)]
fn build(context: &Context<'_>, resource: &mut Resource, bytes: usize) -> Result<()> {
    let pages = Pages::allocate(context.callbacks, bytes)?;
    resource.pages = Some(pages);
    resource.address = pages.map()? as usize;
    gpu::resource_create_2d(context.queue, resource.id, resource.width, resource.height)
        .inspect_err(|&status| resource.device.created = status == STATUS_IO_TIMEOUT)?;
    resource.device.created = true;
    // Recorded before it is sent: after a timeout the device may have it.
    resource.device.attached = true;
    gpu::resource_attach_backing(
        context.queue,
        context.callbacks,
        resource.id,
        &pages,
        &mut resource.attach_command,
    )
    .inspect_err(|&status| resource.device.attached = status == STATUS_IO_TIMEOUT)?;
    gpu::set_scanout(context.queue, resource.id, resource.width, resource.height)
}

/// Draws frame `seed` and queues it: its fence. Waits for the frame before,
/// whose pixels the device may still be reading.
#[inline(never)]
pub fn present(context: &Context<'_>, table: &mut Table, id: u32, seed: u64) -> Result<u64> {
    let fence = table.next_fence;
    let (index, resource) = table.find(id)?;
    if resource.address == 0 || !resource.device.attached {
        return Err(STATUS_INVALID_PARAMETER);
    }
    context.queue.wait(index)?;
    draw(resource, seed);
    gpu::queue_frame(
        context.queue,
        index,
        id,
        resource.width,
        resource.height,
        fence,
    )?;
    table.next_fence = fence.wrapping_add(1);
    Ok(fence)
}

/// Writes the picture of `seed` into the backing.
#[inline(never)]
fn draw(resource: &Resource, seed: u64) {
    let pixels = resource.width as usize * resource.height as usize;
    #[cfg(feature = "defects")]
    let pixels = crate::defects::pages::drawn(pixels);
    // SAFETY: the mapping holds at least width x height pixels of 4 bytes,
    // and the device is done with the frame before.
    let frame = unsafe { core::slice::from_raw_parts_mut(resource.address as *mut u32, pixels) };
    for (row, y) in frame.chunks_exact_mut(resource.width as usize).zip(0..) {
        for (place, x) in row.iter_mut().zip(0..) {
            *place = interface::pixel(seed, x, y);
        }
    }
}

/// Waits until the device completed all frames of a resource.
#[inline(never)]
pub fn wait(context: &Context<'_>, table: &mut Table, id: u32) -> Result<()> {
    let (index, _) = table.find(id)?;
    context.queue.wait(index)
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

fn retire_and_release(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    retire(context, index, resource)?;
    let released = release_pages(context.callbacks, resource);
    resource.id = 0;
    released
}

/// Takes a resource from the device. On `Ok` the device acknowledged the
/// detach, and its pages may go back.
#[inline(never)]
fn retire(context: &Context<'_>, index: usize, resource: &mut Resource) -> Result<()> {
    // A frame that failed is over as well; one that hangs is not.
    if let Err(STATUS_IO_TIMEOUT) = context.queue.wait(index) {
        return Err(STATUS_IO_TIMEOUT);
    }
    if resource.device.scanout {
        gpu::set_scanout(context.queue, 0, 0, 0)?;
        resource.device.scanout = false;
    }
    if resource.device.attached {
        gpu::resource_detach_backing(context.queue, resource.id)?;
        resource.device.attached = false;
    }
    if resource.device.created {
        gpu::resource_unref(context.queue, resource.id)?;
        resource.device.created = false;
    }
    Ok(())
}

/// Unmaps the pages and gives them to dxgkrnl.
#[inline(never)]
fn release_pages(callbacks: &Callbacks, resource: &mut Resource) -> Result<()> {
    let mut result = Ok(());
    if let Some(buffer) = resource.attach_command.take() {
        result = buffer.release(callbacks);
    }
    let Some(pages) = resource.pages.take() else {
        return result;
    };
    if resource.address != 0 {
        pages.unmap(resource.address as *mut u8);
        resource.address = 0;
    }
    pages.release(callbacks).and(result)
}

/// Gives back every resource that the device lets go of.
#[inline(never)]
pub fn free_all(context: &Context<'_>, table: &mut Table) {
    for index in 0..MAX_RESOURCES {
        let resource = &mut table.resources[index];
        if resource.id != 0 {
            let _ = retire_and_release(context, index, resource);
        }
    }
}

/// Gives back what is left after the device was reset, which holds nothing
/// any more.
#[inline(never)]
pub fn release_all(callbacks: &Callbacks, table: &mut Table) {
    for resource in &mut table.resources {
        if resource.id != 0 {
            let _ = release_pages(callbacks, resource);
            *resource = Resource::default();
        }
    }
}
