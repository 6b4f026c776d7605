//! The adapter's life: which routine of the driver Windows calls next, and
//! with what.
//!
//! The order is that of the isolation article: load, add, start, ask for
//! the caps, attach the isolation domain inside exclusive access; use; stop,
//! remove, unload.

use super::spec::{escape, query, query_adapter_info, vidmm_caps};
use super::{DomainMode, domain, place};
use crate::platform::{Platform, PlatformError};
use crate::{Windows, status};
use journal::Event;
use memory::Gva;

/// Offset of MemoryManagementCaps (`DXGK_VIDMMCAPS`) in `DXGK_DRIVERCAPS`,
/// computed from the public declaration (natural x64 alignment).
const MEMORY_MANAGEMENT_CAPS: u64 = 0x44;

/// A call of Windows into the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Call the driver; give the result to the next step.
    Call(DriverCall),
    /// The adapter works: drive it.
    Ready,
    /// Nothing is left to call.
    Finished,
}

/// Which call was made last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// DxgkDdiBeginExclusiveAccess.
    Begin,
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

/// The device may not touch system memory from the return of
/// DxgkDdiBeginExclusiveAccess to the call of DxgkDdiEndExclusiveAccess.
fn tell_exclusive(p: &dyn Platform, begun: bool) {
    p.scenario()
        .journal()
        .emit(Event::ExclusiveAccess { begun });
}

fn passive(name: &'static str, routine: u64, arguments: Vec<u64>) -> Progress {
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
            Stage::Begin => {
                tell_exclusive(p, true);
                domain::attach(self, p)?;
                tell_exclusive(p, false);
                self.dxgk.stage = Stage::End;
                let routine = self.slot(|m| m.end_exclusive_access);
                Ok(self.exclusive("DxgkDdiEndExclusiveAccess", routine))
            }
            Stage::End => self.ready(),
            Stage::Ready => self.stop(p),
            Stage::Stop => {
                // As the PCI bus driver does with a stopped device: from now
                // on it may not master the bus.
                self.hal.disable_device(p, self.dxgk.device);
                self.dxgk.stage = Stage::Remove;
                let routine = self.slot(|m| m.remove_device);
                Ok(passive(
                    "DxgkDdiRemoveDevice",
                    routine,
                    vec![self.dxgk.context],
                ))
            }
            Stage::Remove => {
                domain::detach(self, p)?;
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
    fn refuse(&mut self, routine: &str, status: u32) {
        self.dxgk.failure = Some((routine.to_owned(), status));
    }

    fn slot(&self, get: fn(&super::Miniport) -> u64) -> u64 {
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
            self.hal.disable_device(p, self.dxgk.device);
            self.dxgk.stage = Stage::Remove;
            let routine = self.slot(|m| m.remove_device);
            return Ok(passive(
                "DxgkDdiRemoveDevice",
                routine,
                vec![self.dxgk.context],
            ));
        }
        self.dxgk.stage = Stage::Caps;
        p.write(place::OUTPUT, &[0; place::OUTPUT_SIZE as usize])?;
        p.write(place::QUERY, &[0; query_adapter_info::SIZE as usize])?;
        let at = |offset| Gva(place::QUERY.0 + offset);
        p.write_u32(at(query_adapter_info::TYPE), query::DRIVER_CAPS)?;
        p.write_u64(at(query_adapter_info::OUTPUT), place::OUTPUT.0)?;
        p.write_u32(at(query_adapter_info::OUTPUT_SIZE), place::OUTPUT_SIZE)?;
        let routine = self.slot(|m| m.query_adapter_info);
        Ok(passive(
            "DxgkDdiQueryAdapterInfo",
            routine,
            vec![self.dxgk.context, place::QUERY.0],
        ))
    }

    fn caps_told(&mut self, p: &mut dyn Platform, result: u32) -> Result<Progress, LifecycleError> {
        if !status::is_success(result) {
            self.refuse("DxgkDdiQueryAdapterInfo", result);
            return self.stop(p);
        }
        let caps = p.read_u32(Gva(place::OUTPUT.0 + MEMORY_MANAGEMENT_CAPS))?;
        p.scenario().journal().emit(Event::Caps { memory: caps });
        let display_only = self.dxgk.miniport.as_ref().is_some_and(|m| m.display_only);
        self.dxgk.secure_mode_supported =
            !display_only && caps & vidmm_caps::SECURE_MODE_SUPPORTED != 0;
        let begin = self.slot(|m| m.begin_exclusive_access);
        let end = self.slot(|m| m.end_exclusive_access);
        if self.dxgk.mode != DomainMode::Isolation {
            return self.ready();
        }
        if !self.dxgk.secure_mode_supported || begin == 0 || end == 0 {
            // IOMMUFlags without BypassDriverCap: the enable bits are ignored
            // for a driver that does not report the cap.
            p.scenario().journal().emit(Event::Note {
                text: "the driver does not report IoMmuSecureModeSupported with both \
                       exclusive-access routines: its device is not isolated"
                    .to_owned(),
            });
            return self.ready();
        }
        self.dxgk.stage = Stage::Begin;
        Ok(self.exclusive("DxgkDdiBeginExclusiveAccess", begin))
    }

    fn exclusive(&self, name: &'static str, routine: u64) -> Progress {
        passive(name, routine, vec![self.dxgk.context, place::EXCLUSIVE.0])
    }

    fn ready(&mut self) -> Result<Progress, LifecycleError> {
        self.dxgk.stage = Stage::Ready;
        Ok(Progress::Ready)
    }

    fn stop(&mut self, _: &mut dyn Platform) -> Result<Progress, LifecycleError> {
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
        p.write_u64(at(escape::DATA), place::PRIVATE.0)?;
        p.write_u32(at(escape::DATA_SIZE), data.len() as u32)?;
        p.write(place::PRIVATE, data)?;
        Ok(Some(DriverCall {
            name: "DxgkDdiEscape",
            routine: Gva(routine),
            arguments: vec![self.dxgk.context, place::ESCAPE.0],
            irql: 0,
        }))
    }

    /// The private data after an Escape.
    ///
    /// # Errors
    /// [`LifecycleError::Platform`].
    pub fn escape_answer(&self, p: &dyn Platform, data: &mut [u8]) -> Result<(), LifecycleError> {
        Ok(p.read(place::PRIVATE, data)?)
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
