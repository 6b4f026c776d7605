//! DxgkDdiEscape: the private commands of the `interface` crate.

use interface::{CREATE, ESCAPE_SIZE, Escape, FREE, MAGIC, PRESENT, QUERY, VERSION, WAIT};

use crate::adapter::Adapter;
use crate::nt::Result;
use crate::resource::{self, MAX_RESOURCES};
use crate::spec::dxgk::EscapeArgument;
use crate::spec::nt::{
    STATUS_BUFFER_TOO_SMALL, STATUS_DEVICE_NOT_READY, STATUS_INVALID_PARAMETER,
    STATUS_NOT_SUPPORTED,
};

/// Reads, runs and answers one command. The private data is dxgkrnl's
/// kernel copy of what a user program sent: its address is good, its
/// contents are anything at all.
#[inline(never)]
pub fn handle(adapter: &Adapter, argument: &EscapeArgument) -> Result<()> {
    let data = argument.private_data.cast::<[u8; ESCAPE_SIZE]>();
    if data.is_null() || (argument.private_data_size as usize) < ESCAPE_SIZE {
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

/// Runs one command and fills in its answer.
#[inline(never)]
pub fn dispatch(adapter: &Adapter, escape: &mut Escape) -> Result<()> {
    if escape.command == QUERY {
        escape.value = MAX_RESOURCES as u64;
        return Ok(());
    }
    let mut state = adapter.state();
    let state = &mut *state;
    if state.exclusive {
        return Err(STATUS_DEVICE_NOT_READY);
    }
    let context = adapter.context(&state.device)?;
    let table = &mut state.resources;
    match escape.command {
        CREATE => {
            let (id, pages) = resource::create(&context, table, escape.width, escape.height)?;
            escape.resource = id;
            escape.value = pages as u64;
        }
        PRESENT => {
            escape.value = resource::present(&context, table, escape.resource, escape.seed)?;
        }
        WAIT => resource::wait(&context, table, escape.resource)?,
        FREE => resource::free(&context, table, escape.resource)?,
        _ => return Err(STATUS_NOT_SUPPORTED),
    }
    Ok(())
}
