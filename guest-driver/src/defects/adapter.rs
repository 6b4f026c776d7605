//! Bugs of the adapter as a whole. Part of [`adapter`](super), whose memory
//! they treat wrongly.

use super::{Adapter, QueueMemory};
use crate::defects::{Defect, shows};
use crate::memory::Contiguous;
use crate::nt::Result;
use crate::spec::nt::STATUS_DEVICE_NOT_READY;

impl Adapter {
    /// Another size of picture: the planted bug makes new rings for it.
    pub fn resized(&self) -> Result<()> {
        if shows(Defect::RingFreedOnResize) {
            return self.renew_rings();
        }
        Ok(())
    }

    /// The planted bug: rings are the device's from the queue's enabling to
    /// the device's reset, whatever the driver does in between.
    #[inline(never)]
    fn renew_rings(&self) -> Result<()> {
        let mut state = self.state();
        let device = state.device.as_mut().ok_or(STATUS_DEVICE_NOT_READY)?;
        let memory = device.control.ok_or(STATUS_DEVICE_NOT_READY)?;
        self.queue.wait_idle()?;
        let rings = Contiguous::allocate(&device.callbacks, memory.layout.bytes)?;
        self.queue.move_rings(memory.layout, &rings);
        device.control = Some(QueueMemory { rings, ..memory });
        memory.rings.release(&device.callbacks)
    }
}
