//! What Windows calls the driver for while the adapter works: Escapes,
//! interrupts, deferred calls.

use super::lifecycle::{DriverCall, LifecycleError};
use super::place;
use super::spec::escape;
use crate::Windows;
use crate::platform::{Platform, PlatformError};
use memory::Gva;

impl Windows {
    /// A call of DxgkDdiEscape with this private data; `None` if the driver
    /// has no such routine, or the data is longer than a page.
    ///
    /// # Errors
    /// [`LifecycleError::Platform`].
    pub fn escape(
        &mut self,
        p: &mut dyn Platform,
        data: &[u8],
    ) -> Result<Option<DriverCall>, LifecycleError> {
        let routine = self.slot(|m| m.escape);
        if routine == 0 || data.len() > place::PRIVATE_SIZE {
            return Ok(None);
        }
        let at = |offset| Gva(place::ESCAPE.0 + offset);
        p.write(place::ESCAPE, &[0; escape::SIZE as usize])?;
        let place = private_data(data.len());
        p.write_u64(at(escape::DATA), if data.is_empty() { 0 } else { place.0 })?;
        p.write_u32(at(escape::DATA_SIZE), data.len() as u32)?;
        p.write(place, data)?;
        Ok(Some(DriverCall {
            name: "DxgkDdiEscape",
            routine: Gva(routine),
            arguments: vec![self.dxgk.context, place::ESCAPE.0],
            irql: 0,
        }))
    }

    /// The private data after an Escape, as long as it was before.
    ///
    /// # Errors
    /// [`LifecycleError::Platform`].
    pub fn escape_answer(&self, p: &dyn Platform, data: &mut [u8]) -> Result<(), LifecycleError> {
        Ok(p.read(private_data(data.len()), data)?)
    }

    /// The private data of the last Escape, if it is there to be read.
    #[must_use]
    pub fn escape_question(&self, p: &dyn Platform) -> Option<Vec<u8>> {
        let at = |offset| Gva(place::ESCAPE.0 + offset);
        let length = p.read_u32(at(escape::DATA_SIZE)).ok()? as usize;
        let mut data = vec![0; length.min(place::PRIVATE_SIZE)];
        p.read(private_data(length), &mut data).ok()?;
        Some(data)
    }

    /// The driver's interrupt routine for a message, if it has one.
    #[must_use]
    pub fn interrupt(&self, message: u32) -> Option<DriverCall> {
        let routine = self.slot(|m| m.interrupt_routine);
        (routine != 0).then(|| DriverCall {
            name: "DxgkDdiInterruptRoutine",
            routine: Gva(routine),
            arguments: vec![self.dxgk.context, u64::from(message)],
            irql: super::DEVICE_IRQL,
        })
    }

    /// A deferred call that is due: the driver's own DPC first, then those
    /// it queued itself.
    ///
    /// # Errors
    /// [`PlatformError::NotMapped`]: the driver freed a KDPC that was queued.
    pub fn take_dpc(&mut self, p: &mut dyn Platform) -> Result<Option<DriverCall>, PlatformError> {
        if std::mem::take(&mut self.dxgk.dpc_queued) {
            let routine = self.slot(|m| m.dpc_routine);
            if routine != 0 {
                return Ok(Some(DriverCall {
                    name: "DxgkDdiDpcRoutine",
                    routine: Gva(routine),
                    arguments: vec![self.dxgk.context],
                    irql: 2,
                }));
            }
        }
        let dpc = self.executive.pop_dpc(p)?;
        Ok(dpc.map(|dpc| DriverCall {
            name: "DPC",
            routine: dpc.routine,
            arguments: vec![dpc.object.0, dpc.context, dpc.argument1, dpc.argument2],
            irql: 2,
        }))
    }

    /// Is a deferred call waiting?
    #[must_use]
    pub fn dpc_pending(&self) -> bool {
        self.dxgk.dpc_queued || self.executive.has_dpc()
    }
}

/// Where private data of this length is: aligned to 8, at the end of its page.
fn private_data(length: usize) -> Gva {
    let room = place::PRIVATE_SIZE.saturating_sub(length.next_multiple_of(8));
    Gva(place::PRIVATE.0 + room as u64)
}
