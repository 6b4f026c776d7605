//! The isolation domain: created with the adapter, attached between Begin-
//! and EndExclusiveAccess, holding exactly the tracked pages, 1:1.

use crate::Windows;
use crate::hal;
use crate::platform::Platform;
use memory::Pfn;

/// What the device may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DomainMode {
    /// Everything: translation passes every address through, as for a
    /// driver that Windows does not isolate.
    Passthrough,
    /// Only what was given to the driver for the device, at logical
    /// addresses equal to the physical ones (WDDM 2.4 isolation).
    #[default]
    Isolation,
}

impl DomainMode {
    /// As on the command line and in the journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Isolation => "isolation",
        }
    }
}

/// Put the device behind the domain: every allocation made before is mapped
/// first, so that the switch loses nothing.
pub(crate) fn attach(windows: &mut Windows, p: &mut dyn Platform) -> Result<(), hal::HalError> {
    let domain = windows
        .hal
        .create_domain(p, &mut windows.mm, hal::DomainKind::Translate)?;
    windows.dxgk.domain = Some(domain);
    for tracked in windows.dxgk.tracked.values() {
        windows
            .hal
            .map_identity(p, &mut windows.mm, domain, &tracked.frames, true)?;
    }
    windows
        .hal
        .attach(p, &mut windows.mm, windows.dxgk.device, domain)?;
    windows.dxgk.attached = true;
    Ok(())
}

/// Take the device out of the domain, when the adapter is removed.
pub(crate) fn detach(windows: &mut Windows, p: &mut dyn Platform) -> Result<(), hal::HalError> {
    if std::mem::take(&mut windows.dxgk.attached) {
        windows.hal.detach(p, windows.dxgk.device)?;
    }
    Ok(())
}

/// Let the device reach new pages, if it is isolated; else the attach will.
pub(crate) fn map(
    windows: &mut Windows,
    p: &mut dyn Platform,
    frames: &[Pfn],
) -> Result<(), hal::HalError> {
    match windows.dxgk.domain {
        Some(domain) if windows.dxgk.attached => {
            windows
                .hal
                .map_identity(p, &mut windows.mm, domain, frames, true)
        }
        _ => Ok(()),
    }
}

/// Take pages from the device: cleared, invalidated, drained when this
/// returns.
pub(crate) fn unmap(
    windows: &mut Windows,
    p: &mut dyn Platform,
    frames: &[Pfn],
) -> Result<(), hal::HalError> {
    match windows.dxgk.domain {
        Some(domain) if windows.dxgk.attached => windows.hal.unmap(p, domain, frames),
        _ => Ok(()),
    }
}
