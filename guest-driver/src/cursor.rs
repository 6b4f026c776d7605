//! Hardware cursors: one picture for each scanout, shown and moved through
//! the cursor queue (virtio 1.2 §5.7.6.10), so that a busy control queue
//! does not hold the pointer up.

use interface::CURSOR_SIDE;

use crate::gpu::{self, CursorState};
use crate::mutations::undo;
use crate::nt::Result;
use crate::resource::{self, CURSORS, Context, Kind, Table};
use crate::spec::nt::{STATUS_INVALID_PARAMETER, STATUS_IO_TIMEOUT, STATUS_NOT_SUPPORTED};

/// The place of a scanout's cursor.
fn place(context: &Context<'_>, scanout: u32) -> Result<usize> {
    if scanout >= context.heads {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if !context.cursor.is_running() {
        return Err(STATUS_NOT_SUPPORTED);
    }
    Ok(CURSORS + scanout as usize)
}

/// Sends the cursor of `scanout` as it now is. The one before it has
/// arrived: a queue full of moves would refuse this one.
fn send(context: &Context<'_>, table: &Table, scanout: usize, image: bool) -> Result<()> {
    let Some(cursor) = table.cursors.get(scanout) else {
        return Err(STATUS_INVALID_PARAMETER);
    };
    undo!("cursor-send-wait", settle(context, CURSORS + scanout))?;
    gpu::queue_cursor(context.cursor, CURSORS + scanout, cursor, image)
}

/// Waits for the cursor commands of a place. One that failed is over.
fn settle(context: &Context<'_>, index: usize) -> Result<()> {
    match context.cursor.wait(index) {
        Err(STATUS_IO_TIMEOUT) => Err(STATUS_IO_TIMEOUT),
        _ => Ok(()),
    }
}

/// A new picture, `pixel(x, y)` as A8R8G8B8, shown with its hot spot at
/// `at`.
#[inline(never)]
pub fn shape(
    context: &Context<'_>,
    table: &mut Table,
    scanout: u32,
    hot: (u32, u32),
    at: (i32, i32),
    pixel: impl Fn(u32, u32) -> u32,
) -> Result<()> {
    let index = place(context, scanout)?;
    if hot.0 >= CURSOR_SIDE || hot.1 >= CURSOR_SIDE {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if table.resources[index].id == 0 {
        let side = (CURSOR_SIDE, CURSOR_SIDE);
        resource::begin(context, table, index, Kind::Cursor, side, 0)?;
    }
    undo!("cursor-draw-wait", context.queue.wait(index))?;
    let resource = &mut table.resources[index];
    resource.draw(pixel);
    let id = resource.id;
    transfer(context, table, index)?;
    table.cursors[index - CURSORS] = CursorState {
        scanout,
        resource: id,
        at,
        hot,
    };
    send(context, table, index - CURSORS, true)
}

/// Takes the picture to the device. The two queues are not ordered with each
/// other, so it must be there before the cursor queue names it.
pub(crate) fn transfer(context: &Context<'_>, table: &Table, index: usize) -> Result<()> {
    let resource = table.resources.get(index).ok_or(STATUS_INVALID_PARAMETER)?;
    resource::queue_frame(context, resource, index, 0)?;
    undo!("cursor-transfer-wait", context.queue.wait(index))
}

/// Shows the cursors again that were shown before the device was reset.
pub(crate) fn show_again(context: &Context<'_>, table: &Table) -> Result<()> {
    for scanout in 0..context.heads as usize {
        let shown = table.cursors.get(scanout).is_some_and(|c| c.resource != 0);
        if shown && context.cursor.is_running() {
            transfer(context, table, CURSORS + scanout)?;
            send(context, table, scanout, true)?;
        }
    }
    Ok(())
}

/// Another place for the hot spot.
#[inline(never)]
pub fn to(context: &Context<'_>, table: &mut Table, scanout: u32, at: (i32, i32)) -> Result<()> {
    let index = place(context, scanout)? - CURSORS;
    let cursor = table
        .cursors
        .get_mut(index)
        .ok_or(STATUS_INVALID_PARAMETER)?;
    cursor.scanout = scanout;
    cursor.at = at;
    send(context, table, index, false)
}

/// No cursor, and no picture of one.
#[inline(never)]
pub fn hide(context: &Context<'_>, table: &mut Table, scanout: u32) -> Result<()> {
    let index = place(context, scanout)?;
    if table.resources[index].id == 0 {
        return Ok(());
    }
    resource::give_back(context, table, index)
}

/// Takes the cursor off its scanout and waits until it is: afterwards no
/// command of the cursor queue names its picture.
pub(crate) fn take_off(context: &Context<'_>, table: &mut Table, scanout: usize) -> Result<()> {
    let Some(cursor) = table.cursors.get_mut(scanout) else {
        return Err(STATUS_INVALID_PARAMETER);
    };
    if cursor.resource == 0 || !context.cursor.is_running() {
        return Ok(());
    }
    cursor.resource = 0;
    send(context, table, scanout, true)?;
    undo!("cursor-hide-wait", settle(context, CURSORS + scanout))
}
