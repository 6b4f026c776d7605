//! What the journal is told of mappings and faults, whichever unit has them.

use crate::fault::Fault;
use crate::mirror::Mapping;
use crate::translate::Env;
use journal::event::Event;
use memory::{Iova, RequesterId};

/// `device` reaches a range.
pub(crate) fn mapped(env: Env<'_>, device: RequesterId, mapping: &Mapping, generation: u32) {
    if env.journal().is_enabled() {
        env.journal().emit(Event::Map {
            device,
            iova: mapping.iova,
            length: mapping.length,
            target: mapping.target,
            read: mapping.read,
            write: mapping.write,
            generation,
        });
    }
}

/// `device` reaches a range no longer, of which `dropped` pages were mapped.
pub(crate) fn unmapped(
    env: Env<'_>,
    device: RequesterId,
    (iova, length): (Iova, u64),
    dropped: u64,
) {
    if env.journal().is_enabled() {
        env.journal().emit(Event::Unmap {
            device,
            iova,
            length,
            dropped,
        });
    }
}

/// An access was refused; does the guest have a record of it?
pub(crate) fn refused(env: Env<'_>, fault: &Fault, recorded: bool) {
    env.journal().emit(Event::Fault {
        context: fault.context,
        device: fault.device,
        iova: fault.iova,
        write: fault.write,
        reason: fault.reason.code(),
        recorded,
    });
}
