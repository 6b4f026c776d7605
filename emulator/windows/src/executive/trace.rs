//! Tracing (WMI, ETW): nobody listens.

use super::{Answer, State, pointer, success};
use crate::status::NOT_SUPPORTED;
use crate::{Call, Outcome, Platform};

/// Registrations that are accepted and forgotten.
pub(super) fn succeed(_: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    success()
}

/// NTSTATUS EtwRegister(LPCGUID, PETWENABLECALLBACK, PVOID, PREGHANDLE).
pub(super) fn etw_register(_: &mut State, p: &mut dyn Platform, call: &Call) -> Answer {
    let handle = pointer(call, p, 3)?;
    p.write_u64(handle, 1)?;
    success()
}

/// BOOLEAN EtwEventEnabled, EtwProviderEnabled.
pub(super) fn disabled(_: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(0))
}

/// NTSTATUS WmiQueryTraceInformation(...): there is no session to ask about.
pub(super) fn unsupported(_: &mut State, _: &mut dyn Platform, _: &Call) -> Answer {
    Ok(Outcome::Return(u64::from(NOT_SUPPORTED)))
}
