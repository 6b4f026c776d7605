//! Which Windows this is.

use super::{Answer, State, field, pointer, success};
use crate::{Call, Outcome, Platform};

/// The build of Windows 10 1803, the first with WDDM 2.4 and its isolation
/// callbacks.
pub const BUILD: u32 = 17134;

/// NTSTATUS RtlGetVersion(RTL_OSVERSIONINFOEXW*).
pub(super) fn get(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    /// Size of RTL_OSVERSIONINFOEXW, and where its wProductType lies.
    const EXTENDED: u32 = 0x11C;
    const PRODUCT_TYPE: u64 = 0x11A;
    let at = pointer(call, p, 0)?;
    let size = p.read_u32(at)?;
    // MajorVersion, MinorVersion, BuildNumber, VER_PLATFORM_WIN32_NT.
    for (offset, value) in [(4, 10), (8, 0), (0xC, BUILD), (0x10, 2)] {
        p.write_u32(field(at, offset)?, value)?;
    }
    p.write(field(at, 0x14)?, &[0, 0])?; // szCSDVersion
    if size >= EXTENDED {
        p.write(field(at, PRODUCT_TYPE)?, &[1])?; // VER_NT_WORKSTATION
    }
    success()
}

/// BOOLEAN PsGetVersion(PULONG Major,
/// PULONG Minor, PULONG Build, PUNICODE_STRING): a free build.
pub(super) fn ps_get(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    for (index, value) in [10, 0, BUILD].into_iter().enumerate() {
        let at = pointer(call, p, index)?;
        if at.0 != 0 {
            p.write_u32(at, value)?;
        }
    }
    Ok(Outcome::Return(0))
}
