//! The adapter's life: which routine of the driver Windows calls next, and
//! with what.
//!
//! The order is that of the isolation article: load, add, start, ask for
//! the caps, attach the isolation domain inside exclusive access; use; stop,
//! remove, unload.

use super::{domain, place};
use crate::platform::{Platform, PlatformError};
use crate::{Windows, status};
use journal::Event;
use memory::Gva;

/// A call of Windows into the driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DriverCall {
    /// Name of the slot, for the journal.
    pub name: &'static str,
    /// Where the routine is.
    pub routine: Gva,
    /// Its arguments.
    pub arguments: Vec<u64>,
    /// IRQL it runs at.
    pub irql: u8,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Call the driver; give the result to the next step.
    Call(DriverCall),
    /// Nothing is called now: the device does what it can, and the life goes
    /// on.
    DevicesTurn,
    /// The adapter works: drive it.
    Ready,
    /// Nothing is left to call.
    Finished,
}

/// Which call was made last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// None yet.
    Load,
    /// DriverEntry.
    Entry,
    /// DxgkDdiAddDevice.
    Add,
    /// DxgkDdiStartDevice.
    Start,
    /// DxgkDdiQueryAdapterInfo, for the driver's caps.
    Caps,
    /// DxgkDdiQueryAdapterInfo, for the size of the frame buffer's save area.
    SaveSize,
    /// DxgkDdiQueryAdapterInfo, for the number of reserved ranges.
    CountRanges,
    /// DxgkDdiQueryAdapterInfo, for the reserved ranges.
    Ranges,
    /// DxgkDdiBeginExclusiveAccess.
    Begin,
    /// None: exclusive access has begun.
    Quiet,
    /// None: the device is behind its domain.
    Switched,
    /// DxgkDdiEndExclusiveAccess.
    End,
    /// In use.
    Ready,
    /// DxgkDdiStopDevice.
    Stop,
    /// DxgkDdiRemoveDevice.
    Remove,
    /// DxgkDdiUnload or DriverUnload.
    Unload,
    /// Over.
    Done,
}

/// Offset of DriverUnload in DRIVER_OBJECT.
const DRIVER_UNLOAD: u64 = 0x68;
/// Bytes of DRIVER_OBJECT.
const DRIVER_OBJECT_SIZE: u16 = 0x150;

pub(super) fn passive(name: &'static str, routine: u64, arguments: Vec<u64>) -> Progress {
    Progress::Call(DriverCall {
        name,
        routine: Gva(routine),
        arguments,
        irql: 0,
    })
}

/// Why the life of the adapter cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// Our own structures are not where they should be.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The IOMMU could not be programmed.
    #[error("attaching the isolation domain: {0}")]
    Hal(#[from] crate::hal::HalError),
}

impl Windows {
    /// The next call, given what the last one returned (RAX).
    ///
    /// # Errors
    /// [`LifecycleError`].
    pub fn advance(
        &mut self,
        p: &mut dyn Platform,
        result: u64,
    ) -> Result<Progress, LifecycleError> {
        let result = result as u32;
        match self.dxgk.stage {
            Stage::Load => self.enter(p),
            Stage::Entry => self.entered(p, result),
            Stage::Add => self.added(p, result),
            Stage::Start => self.started(p, result),
            Stage::Caps => self.caps_told(p, result),
            Stage::SaveSize => self.save_size_told(p, result),
            Stage::CountRanges => self.ranges_counted(p, result),
            Stage::Ranges => self.ranges_told(p, result),
            Stage::Begin => self.begun(p, result),
            Stage::Quiet => self.switched(p),
            Stage::Switched => self.end(p),
            Stage::End => self.ended(p),
            Stage::Ready => self.stop(p),
            Stage::Stop => {
                // As the PCI bus driver does with a stopped device: from now
                // on it may not master the bus.
                self.remove(p)
            }
            Stage::Remove => {
                domain::detach(self, p)?;
                self.release_reserved_ranges(p);
                self.unload(p)
            }
            Stage::Unload | Stage::Done => {
                self.dxgk.unloaded |= self.dxgk.stage == Stage::Unload;
                self.dxgk.stage = Stage::Done;
                Ok(Progress::Finished)
            }
        }
    }

    /// Tell the life that it is not to go on from [`Stage::Ready`] alone: a
    /// routine refused to start.
    pub(super) fn refuse(&mut self, routine: &str, status: u32) {
        self.dxgk.failure = Some((routine.to_owned(), status));
    }

    pub(super) fn slot(&self, get: fn(&super::Miniport) -> u64) -> u64 {
        self.dxgk.miniport.as_ref().map_or(0, get)
    }

    fn enter(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        let object = place::DRIVER_OBJECT;
        p.write(object, &[4, 0])?; // IO_TYPE_DRIVER
        p.write(Gva(object.0 + 2), &DRIVER_OBJECT_SIZE.to_le_bytes())?;
        p.write_u64(Gva(object.0 + 0x18), self.image_base.0)?; // DriverStart
        p.write_u32(Gva(object.0 + 0x20), self.image_size)?; // DriverSize
        p.write_u64(Gva(object.0 + 0x58), self.entry.0)?; // DriverInit
        // DEVICE_OBJECT of the PCI function: type and size are all of it
        // that a miniport may look at.
        p.write(place::PHYSICAL_DEVICE, &[3, 0, 0x50, 1])?;
        let text = super::device::utf16(&self.executive.registry().service_key());
        let path = place::SERVICE_PATH;
        let length = text.len() as u64 - 2;
        p.write_u64(path, length | (text.len() as u64) << 16)?;
        p.write_u64(Gva(path.0 + 8), path.0 + 0x10)?;
        p.write(Gva(path.0 + 0x10), &text)?;
        self.dxgk.stage = Stage::Entry;
        Ok(passive("DriverEntry", self.entry.0, vec![object.0, path.0]))
    }

    fn entered(&mut self, p: &mut dyn Platform, result: u32) -> Result<Progress, LifecycleError> {
        if !status::is_success(result) {
            // Windows unloads such an image without calling it again.
            self.refuse("DriverEntry", result);
            self.dxgk.unloaded = true;
            self.dxgk.stage = Stage::Done;
            return Ok(Progress::Finished);
        }
        if !self.dxgk.registered() {
            p.scenario().journal().emit(Event::Note {
                text: "the driver did not register as a display miniport: only DriverEntry and \
                       DriverUnload were run"
                    .to_owned(),
            });
            return self.unload(p);
        }
        self.dxgk.stage = Stage::Add;
        let routine = self.slot(|m| m.add_device);
        Ok(passive(
            "DxgkDdiAddDevice",
            routine,
            vec![place::PHYSICAL_DEVICE.0, place::CONTEXT.0],
        ))
    }

    fn added(&mut self, p: &mut dyn Platform, result: u32) -> Result<Progress, LifecycleError> {
        if !status::is_success(result) {
            self.refuse("DxgkDdiAddDevice", result);
            return self.unload(p);
        }
        self.dxgk.context = p.read_u64(place::CONTEXT)?;
        // DXGK_START_INFO: no DMA queue entry is required; GUID and LUID are
        // fixed, so that runs are alike.
        p.write(place::START_INFO, &[0; 0x1C])?;
        p.write_u32(Gva(place::START_INFO.0 + 0x14), 0xD3A5)?;
        super::write_interface(self, p, place::INTERFACE)?;
        p.write_u64(place::COUNTS, 0)?;
        self.hal.enable_device(p, self.dxgk.device);
        self.dxgk.stage = Stage::Start;
        let routine = self.slot(|m| m.start_device);
        Ok(passive(
            "DxgkDdiStartDevice",
            routine,
            vec![
                self.dxgk.context,
                place::START_INFO.0,
                place::INTERFACE.0,
                place::COUNTS.0,
                place::COUNTS.0 + 4,
            ],
        ))
    }

    fn started(&mut self, p: &mut dyn Platform, result: u32) -> Result<Progress, LifecycleError> {
        if !status::is_success(result) {
            // A device that did not start is removed, not stopped.
            self.refuse("DxgkDdiStartDevice", result);
            return self.remove(p);
        }
        self.ask_caps(p)
    }

    /// The driver has let go of its device, as far as it ever will.
    fn remove(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        self.hal.disable_device(p, self.dxgk.device);
        self.take_back(p);
        self.dxgk.stage = Stage::Remove;
        let routine = self.slot(|m| m.remove_device);
        Ok(passive(
            "DxgkDdiRemoveDevice",
            routine,
            vec![self.dxgk.context],
        ))
    }

    /// Stop the device; one that is powered down comes back to D0 first.
    pub(super) fn stop(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        if let Some(call) = self.set_power(p, false) {
            self.dxgk.stage = Stage::Ready;
            return Ok(Progress::Call(call));
        }
        self.dxgk.stage = Stage::Stop;
        let routine = self.slot(|m| m.stop_device);
        Ok(passive(
            "DxgkDdiStopDevice",
            routine,
            vec![self.dxgk.context],
        ))
    }

    fn unload(&mut self, p: &mut dyn Platform) -> Result<Progress, LifecycleError> {
        self.dxgk.stage = Stage::Unload;
        let own = self.slot(|m| m.unload);
        if own != 0 {
            return Ok(passive("DxgkDdiUnload", own, Vec::new()));
        }
        let plain = p.read_u64(Gva(place::DRIVER_OBJECT.0 + DRIVER_UNLOAD))?;
        if plain != 0 {
            let object = place::DRIVER_OBJECT.0;
            return Ok(passive("DriverUnload", plain, vec![object]));
        }
        self.dxgk.stage = Stage::Done;
        Ok(Progress::Finished)
    }
}
