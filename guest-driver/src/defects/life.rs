//! Bugs in the adapter's life: around exclusive access and at its stop.

use super::{Defect, is_fixed, shows};
use crate::memory::Contiguous;
use crate::queue::{Body, Queue, SYNCHRONOUS};
use crate::spec::gpu::{CMD_GET_DISPLAY_INFO, Header};

/// BeginExclusiveAccess, before it waits for what is outstanding.
pub fn before_wait(queue: &Queue) {
    if is_fixed(Defect::DmaInExclusiveAccess) {
        refresh_displays(queue);
    }
}

/// BeginExclusiveAccess, after it waited: here nothing may be sent any more.
pub fn after_wait(queue: &Queue) {
    if shows(Defect::DmaInExclusiveAccess) {
        refresh_displays(queue);
    }
}

/// Asks for the displays without waiting for the answer.
#[inline(never)]
fn refresh_displays(queue: &Queue) {
    let mut command = [0; size_of::<Header>()];
    command[..4].copy_from_slice(&CMD_GET_DISPLAY_INFO.to_le_bytes());
    let _ = queue.submit(SYNCHRONOUS, [Body::Inline(&command)]);
}

/// The planted bug: the stop forgets the command buffer.
pub fn forget(commands: Option<Contiguous>) -> Option<Contiguous> {
    commands.filter(|_| !shows(Defect::LeakHandle))
}
