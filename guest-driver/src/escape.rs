//! DxgkDdiEscape: the private commands of the `interface` crate.

use interface::{
    CREATE, CREATE_BLOB, CURSOR_HIDE, CURSOR_MOVE, CURSOR_SHAPE, DISPLAY, EDID, ESCAPE_SIZE,
    Escape, FREE, MAGIC, PRESENT, QUERY, RESIZE, SCANOUT, VERSION, WAIT,
};

use crate::adapter::Adapter;
use crate::cursor;
use crate::nt::Result;
use crate::resource::{self, Kind, MAX_RESOURCES};
use crate::spec::dxgk::EscapeArgument;
use crate::spec::nt::{STATUS_BUFFER_TOO_SMALL, STATUS_INVALID_PARAMETER, STATUS_NOT_SUPPORTED};

/// Reads, runs and answers one command. The private data is dxgkrnl's
/// kernel copy of what a user program sent: its address is good, its
/// contents are anything at all.
#[inline(never)]
pub fn handle(adapter: &Adapter, argument: &EscapeArgument) -> Result<()> {
    let data = argument.private_data.cast::<[u8; ESCAPE_SIZE]>();
    if data.is_null() || is_short(argument.private_data_size as usize) {
        return Err(STATUS_BUFFER_TOO_SMALL);
    }
    // SAFETY: at least that many bytes, by the check above; an array of
    // bytes has no alignment.
    let mut escape = Escape::from_bytes(unsafe { &*data });
    if escape.magic != MAGIC || escape.version != VERSION {
        return Err(STATUS_INVALID_PARAMETER);
    }
    dispatch(adapter, &mut escape)?;
    // SAFETY: as above, and the answer is as long as the question.
    unsafe { *data = escape.to_bytes() };
    Ok(())
}

#[cfg(not(feature = "defects"))]
fn is_short(size: usize) -> bool {
    size < ESCAPE_SIZE
}

#[cfg(feature = "defects")]
fn is_short(size: usize) -> bool {
    crate::defects::escape::is_short(size, ESCAPE_SIZE)
}

/// Runs one command and fills in its answer.
#[inline(never)]
pub fn dispatch(adapter: &Adapter, escape: &mut Escape) -> Result<()> {
    match escape.command {
        QUERY => {
            escape.value = MAX_RESOURCES as u64;
            Ok(())
        }
        DISPLAY => {
            let (size, heads) = adapter.display(escape.scanout)?;
            (escape.width, escape.height) = size.unwrap_or_default();
            escape.value = u64::from(heads);
            Ok(())
        }
        EDID => {
            let edid = adapter.edid(escape.scanout)?;
            (escape.width, escape.height) = (edid.width, edid.height);
            escape.value = edid.length as u64;
            Ok(())
        }
        _ => on_resources(adapter, escape),
    }
}

/// Those that work on resources and cursors.
#[inline(never)]
fn on_resources(adapter: &Adapter, escape: &mut Escape) -> Result<()> {
    #[cfg(feature = "defects")]
    if escape.command == RESIZE {
        adapter.resized()?;
    }
    adapter.with_resources(|context, table| {
        let (resource, scanout) = (escape.resource, escape.scanout);
        let size = (escape.width, escape.height);
        let at = (escape.x, escape.y);
        match escape.command {
            CREATE | CREATE_BLOB => {
                let kind = if escape.command == CREATE {
                    Kind::Picture
                } else {
                    Kind::Blob
                };
                let (id, pages) = resource::create(context, table, kind, scanout, size)?;
                escape.resource = id;
                escape.value = pages as u64;
                Ok(())
            }
            PRESENT => {
                escape.value = resource::present(context, table, resource, escape.seed)?;
                Ok(())
            }
            WAIT => resource::wait(context, table, resource),
            FREE => resource::free(context, table, resource),
            RESIZE => {
                let (id, pages) = resource::resize(context, table, resource, size)?;
                escape.resource = id;
                escape.value = pages as u64;
                Ok(())
            }
            SCANOUT => resource::scanout(context, table, resource, scanout),
            CURSOR_SHAPE => cursor::shape(context, table, scanout, size, at, |x, y| {
                interface::cursor_pixel(escape.seed, x, y)
            }),
            CURSOR_MOVE => cursor::to(context, table, scanout, at),
            CURSOR_HIDE => cursor::hide(context, table, scanout),
            _ => Err(STATUS_NOT_SUPPORTED),
        }
    })
}
