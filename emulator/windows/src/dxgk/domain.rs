//! The isolation domain: created with the adapter, attached between Begin-
//! and EndExclusiveAccess, holding exactly the tracked pages, 1:1, or all of
//! RAM.

use crate::Windows;
use crate::hal;
use crate::injected;
use crate::mm::frames::each_frame;
use crate::platform::Platform;
use journal::event::PageRun;
use memory::{PAGE_SIZE, Pfn};

/// What the device may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DomainMode {
    /// Everything: translation passes every address through, as for a
    /// driver that Windows does not isolate.
    Passthrough,
    /// Only what was given to the driver for the device, at logical
    /// addresses equal to the physical ones: WDDM 2.4 isolation, as once a
    /// secure VM runs.
    #[default]
    Isolation,
    /// All of RAM, through the tables of a domain: isolation forced at start
    /// by IOMMUFlags 7.
    Forced,
}

impl DomainMode {
    /// As on the command line and in the journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Isolation => "isolation",
            Self::Forced => "isolation-forced",
        }
    }

    /// The bits of IOMMUFlags that it stands for. A secure VM needs none.
    #[must_use]
    pub const fn flags(self) -> IommuFlags {
        match self {
            Self::Passthrough | Self::Isolation => IommuFlags(0),
            Self::Forced => IommuFlags(IommuFlags::FORCE),
        }
    }
}

/// The registry value IOMMUFlags, under
/// `HKLM\SYSTEM\CurrentControlSet\Control\GraphicsDrivers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IommuFlags(pub u32);

impl IommuFlags {
    /// Create the domain.
    pub const ENABLED: u32 = 0x01;
    /// Map all of RAM in it; needs [`Self::ENABLED`].
    pub const ENABLE_MAPPINGS: u32 = 0x02;
    /// Attach the device to it; needs [`Self::ENABLE_MAPPINGS`].
    pub const ENABLE_ATTACH: u32 = 0x04;
    /// Go on although the driver does not report the cap.
    pub const BYPASS_DRIVER_CAP: u32 = 0x08;
    /// The adapter works although enabling failed.
    pub const ALLOW_FAILURE: u32 = 0x10;
    /// The three enable bits.
    pub const FORCE: u32 = Self::ENABLED | Self::ENABLE_MAPPINGS | Self::ENABLE_ATTACH;
    /// Every bit that means something.
    pub const ALL: u32 = Self::FORCE | Self::BYPASS_DRIVER_CAP | Self::ALLOW_FAILURE;

    /// Is this bit set?
    #[must_use]
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// These bits and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// What the enable bits come to: one without the bit that it needs does
    /// nothing.
    const fn effective(self) -> Plan {
        let create = self.has(Self::ENABLED);
        let map_all = create && self.has(Self::ENABLE_MAPPINGS);
        let attach = map_all && self.has(Self::ENABLE_ATTACH);
        Plan {
            create,
            map_all,
            attach,
        }
    }

    /// The mode that the value alone comes to.
    #[must_use]
    pub const fn mode(self) -> DomainMode {
        if self.effective().attach {
            DomainMode::Forced
        } else {
            DomainMode::Passthrough
        }
    }
}

/// What is done about an adapter's isolation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    pub create: bool,
    pub map_all: bool,
    pub attach: bool,
}

/// What is done, given whether the driver supports isolation: reports the cap
/// and has both exclusive-access routines.
pub(super) fn plan(mode: DomainMode, flags: IommuFlags, supported: bool) -> Plan {
    if !supported && !flags.has(IommuFlags::BYPASS_DRIVER_CAP) {
        return Plan::default();
    }
    match mode {
        DomainMode::Isolation => Plan {
            create: true,
            map_all: false,
            attach: true,
        },
        DomainMode::Passthrough | DomainMode::Forced => flags.effective(),
    }
}

/// Make the domain, with every mapping that is due: the device can then be
/// switched to it and loses nothing.
pub(super) fn create(
    windows: &mut Windows,
    p: &mut dyn Platform,
    map_all: bool,
) -> Result<(), hal::HalError> {
    let Windows { hal, mm, dxgk, .. } = windows;
    let domain = hal.create_domain(p, mm, hal::DomainKind::Translate)?;
    let filled = fill(hal, mm, dxgk, p, domain, map_all);
    if let Err(error) = filled {
        hal.delete_domain(p, mm, domain)?;
        return Err(error);
    }
    dxgk.domain = Some(domain);
    dxgk.maps_all = map_all;
    Ok(())
}

fn fill(
    hal: &mut hal::State,
    mm: &mut crate::mm::State,
    dxgk: &super::State,
    p: &mut dyn Platform,
    domain: hal::DomainId,
    map_all: bool,
) -> Result<(), hal::HalError> {
    let mut reserved: Vec<Pfn> = each_frame(&dxgk.reserved).collect();
    if map_all {
        let all = ram(p);
        hal.map_all(p, mm, domain, &all)?;
        reserved.retain(|frame| !p.memory().contains(frame.base(), PAGE_SIZE));
        return hal.map_identity(p, mm, domain, &reserved, true);
    }
    hal.map_identity(p, mm, domain, &reserved, true)?;
    for tracked in dxgk.tracked.values() {
        hal.map_identity(p, mm, domain, &tracked.frames, tracked.write)?;
    }
    if let Some(pinned) = dxgk.section.as_ref().and_then(|s| s.pinned.as_ref()) {
        hal.map_identity(p, mm, domain, &pinned.frames, true)?;
    }
    Ok(())
}

/// All of RAM.
fn ram(p: &dyn Platform) -> Vec<PageRun> {
    let slots = p.memory().slots();
    let run = |slot: &memory::Slot| PageRun {
        first: Pfn::from(slot.base),
        count: slot.size / PAGE_SIZE,
    };
    slots.iter().map(run).collect()
}

/// Switch the device to the domain. Not atomic: the device must be quiet.
pub(super) fn switch(windows: &mut Windows, p: &mut dyn Platform) -> Result<(), hal::HalError> {
    let Some(domain) = windows.dxgk.domain else {
        return Ok(());
    };
    injected::attach(p)?;
    windows
        .hal
        .attach(p, &mut windows.mm, windows.dxgk.device, domain)?;
    windows.dxgk.attached = true;
    Ok(())
}

/// Make the domain and switch to it.
#[cfg(test)]
pub(crate) fn attach(windows: &mut Windows, p: &mut dyn Platform) -> Result<(), hal::HalError> {
    create(windows, p, windows.dxgk.mode == DomainMode::Forced)?;
    switch(windows, p)
}

/// Take the device out of the domain, when the adapter is removed.
pub(crate) fn detach(windows: &mut Windows, p: &mut dyn Platform) -> Result<(), hal::HalError> {
    if std::mem::take(&mut windows.dxgk.attached) {
        windows.hal.detach(p, windows.dxgk.device)?;
    }
    Ok(())
}

/// Let the device reach new pages once it is behind the domain. All of RAM
/// that is mapped stays as it is.
pub(crate) fn map(
    windows: &mut Windows,
    p: &mut dyn Platform,
    frames: &[Pfn],
    write: bool,
) -> Result<(), hal::HalError> {
    injected::map(p, frames)?;
    match windows.dxgk.domain {
        Some(domain) if !windows.dxgk.maps_all => {
            windows
                .hal
                .map_identity(p, &mut windows.mm, domain, frames, write)
        }
        _ => Ok(()),
    }
}

/// Take pages, which were mapped with `write` or without, from the device:
/// cleared, invalidated, drained when this returns.
pub(crate) fn unmap(
    windows: &mut Windows,
    p: &mut dyn Platform,
    frames: &[Pfn],
    write: bool,
) -> Result<(), hal::HalError> {
    match windows.dxgk.domain {
        Some(domain) if !windows.dxgk.maps_all && !injected::keeps(p, frames) => {
            windows.hal.unmap(p, domain, frames, write)
        }
        _ => Ok(()),
    }
}
