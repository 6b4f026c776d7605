//! The times when the device must not touch memory: D3, and exclusive
//! access to it while dxgkrnl attaches or detaches the isolation domain.
//! Both end with a device that starts anew and is told what it knew.

use super::{Adapter, State};
use crate::mutations::undo;
use crate::nt::{Result, log};
use crate::pci;
use crate::power::{self, Saved};
use crate::spec::gpu::F_RESOURCE_BLOB;
use crate::spec::nt::STATUS_DEVICE_NOT_READY;
use crate::spec::pci::{COMMAND_BUS_MASTER, COMMAND_MEMORY};

impl Adapter {
    /// DxgkDdiSetPowerState to D3: the frame is saved and the device reset,
    /// for it will lose all it knows. Never fails: what could not be saved
    /// is drawn anew.
    #[inline(never)]
    pub fn power_down(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(device) = state.device.as_mut().filter(|_| !state.asleep) else {
            return;
        };
        let callbacks = device.callbacks;
        if device.working {
            let _ = undo!("power-down-wait", self.queue.wait_idle());
            let _ = undo!("power-down-cursor-wait", self.cursor.wait_idle());
            state.saved = power::save(&callbacks, &state.resources);
        }
        self.halt(device);
        power::forget(&callbacks, &mut state.resources);
        let _ = undo!(
            "power-down-bus-master-off",
            pci::disable(&callbacks, COMMAND_BUS_MASTER)
        );
        state.asleep = true;
        log!("in D3");
    }

    /// DxgkDdiSetPowerState to D0: starts the device again and gives it back
    /// what it knew.
    #[inline(never)]
    pub fn power_up(&self) -> Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        if !state.asleep {
            return Ok(());
        }
        let saved = state.saved.take();
        self.wake_or_halt(state, saved)?;
        log!("in D0");
        Ok(())
    }

    /// Starts a device that was reset, and gives it back what it knew; or
    /// resets it again.
    fn wake_or_halt(&self, state: &mut State, saved: Option<Saved>) -> Result<()> {
        let result = self.wake(state, saved);
        if let Err(status) = result {
            log!("the device did not wake up: 0x%x", status);
            // Whatever it knows by now, it forgets.
            if let Some(device) = state.device.as_mut() {
                self.halt(device);
                power::forget(&device.callbacks, &mut state.resources);
            }
        }
        result
    }

    #[inline(never)]
    fn wake(&self, state: &mut State, saved: Option<Saved>) -> Result<()> {
        let device = state.device.as_mut().ok_or(STATUS_DEVICE_NOT_READY)?;
        state.asleep = false;
        let transport = device.transport.as_ref().ok_or(STATUS_DEVICE_NOT_READY)?;
        // As at start: the reset before bus mastering.
        pci::enable(&device.callbacks, COMMAND_MEMORY)?;
        undo!("wake-reset", transport.reset())?;
        pci::enable(&device.callbacks, COMMAND_BUS_MASTER)?;
        device.blobs = transport.negotiate()? & F_RESOURCE_BLOB != 0;
        for memory in [&device.control, &device.cursor].into_iter().flatten() {
            memory.rings.clear();
        }
        self.run(device, &state.settings)?;
        let small = device.small.ok_or(STATUS_DEVICE_NOT_READY)?;
        let context = self.context(&state.device)?;
        power::restore(&context, &mut state.resources, &small, saved)
    }

    /// BeginExclusiveAccess: nothing outstanding, and then a reset. A device
    /// whose queues are empty may look into them all the same, and reads the
    /// blobs that it shows at each vertical blank; only the reset promises
    /// that it touches no memory up to [`end_exclusive`](Self::end_exclusive).
    #[inline(never)]
    pub fn begin_exclusive(&self) -> Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(device) = state.device.as_mut() else {
            return Err(STATUS_DEVICE_NOT_READY);
        };
        #[cfg(feature = "defects")]
        if crate::defects::races::believes_idle() {
            state.exclusive = true;
            return Ok(());
        }
        #[cfg(feature = "defects")]
        crate::defects::life::before_wait(&self.queue);
        undo!("exclusive-wait", self.queue.wait_idle())?;
        undo!("exclusive-cursor-wait", self.cursor.wait_idle())?;
        state.exclusive = true;
        #[cfg(feature = "defects")]
        if crate::defects::shows(crate::defects::Defect::DmaInExclusiveAccess) {
            crate::defects::life::after_wait(&self.queue);
            return Ok(());
        }
        if device.working {
            self.halt(device);
            power::forget(&device.callbacks, &mut state.resources);
        }
        Ok(())
    }

    /// EndExclusiveAccess: starts the device again, unless it is in D3.
    #[inline(never)]
    pub fn end_exclusive(&self) -> Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        state.exclusive = false;
        let halted = state.device.as_ref().is_some_and(|device| !device.working);
        if halted && !state.asleep {
            return self.wake_or_halt(state, None);
        }
        Ok(())
    }
}
