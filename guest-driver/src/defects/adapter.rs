//! Bugs of the adapter as a whole. Part of [`adapter`](super), whose memory
//! they treat wrongly.

use core::ptr;
use core::sync::atomic::Ordering;

use super::{Adapter, Device, QueueMemory, State};
use crate::defects::{Defect, is_chosen, is_fixed, races, shows};
use crate::memory::Contiguous;
use crate::nt::Result;
use crate::queue::{Body, SYNCHRONOUS};
use crate::spec::gpu::{CMD_SET_SCANOUT, SetScanout};
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

    /// StartDevice is over; `heads` is what it answers.
    pub fn started(&self, state: &State, heads: u32) -> Result<u32> {
        let device = state.device.as_ref().ok_or(STATUS_DEVICE_NOT_READY)?;
        races::started(&device.callbacks, &self.queue)?;
        Ok(heads)
    }

    /// Blanks the screen before the reset, without waiting for the answer;
    /// whether the defect or its twin is chosen. The planted bug: the answer
    /// may have come, and its DPC then looks into rings that are freed.
    #[inline(never)]
    pub fn blank_and_halt(&self, device: &mut Device) -> bool {
        if !is_chosen(Defect::ResetOutstanding) || !device.working {
            return false;
        }
        let mut command = [0; size_of::<SetScanout>()];
        command[..4].copy_from_slice(&CMD_SET_SCANOUT.to_le_bytes());
        let _ = self.queue.submit(SYNCHRONOUS, [Body::Inline(&command)]);
        device.working = false;
        self.reset_hardware();
        self.status.store(ptr::null_mut(), Ordering::Release);
        if is_fixed(Defect::ResetOutstanding) {
            self.interrupts.stop();
            self.queue.shut_down();
            self.cursor.shut_down();
        }
        true
    }
}
