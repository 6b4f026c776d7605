//! The adapter's power: D0 and D3, as the policy owner asks for them.

use super::lifecycle::DriverCall;
use super::spec::power;
use crate::Windows;
use crate::platform::Platform;
use memory::Gva;

/// Where the adapter's power is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Power {
    /// D0.
    #[default]
    On,
    /// The driver is being told of D3.
    GoingOff,
    /// D3hot.
    Off,
}

impl Windows {
    /// A call of DxgkDdiSetPowerState: the adapter goes to D3 (`d3`) or comes
    /// back to D0. `None` if the driver has no such routine, or the adapter
    /// is there already.
    ///
    /// The driver is told of D3 while the device still works, and of D0 once
    /// it works again, as the PCI bus driver powers it: what the device held
    /// is lost between the two.
    pub fn set_power(&mut self, p: &mut dyn Platform, d3: bool) -> Option<DriverCall> {
        let routine = self.dxgk.miniport.as_ref().map_or(0, |m| m.set_power_state);
        self.settle_power(p);
        let there = (self.dxgk.power == Power::Off) == d3;
        if routine == 0 || there {
            return None;
        }
        let (state, action) = if d3 {
            self.dxgk.power = Power::GoingOff;
            (power::D3, power::ACTION_SLEEP)
        } else {
            self.hal.power_up(p, self.dxgk.device);
            self.dxgk.power = Power::On;
            (power::D0, power::ACTION_NONE)
        };
        Some(DriverCall {
            name: "DxgkDdiSetPowerState",
            routine: Gva(routine),
            arguments: vec![self.dxgk.context, power::ADAPTER, state, action],
            irql: 0,
        })
    }

    /// The routine that was called last has returned: if it was told of D3,
    /// the device goes there now, whatever the routine returned.
    pub fn settle_power(&mut self, p: &mut dyn Platform) {
        if self.dxgk.power == Power::GoingOff {
            self.hal.power_down(p, self.dxgk.device);
            self.dxgk.power = Power::Off;
        }
    }

    /// Is the device in D3?
    #[must_use]
    pub fn powered_down(&self) -> bool {
        self.dxgk.power == Power::Off
    }
}
