//! Child devices: the connectors of the heads.

use super::is_our_handle;
use crate::call::{Call, Outcome};
use crate::platform::Platform;
use crate::{Windows, status};
use memory::Gva;

/// Bytes of a `DXGK_CHILD_STATUS`.
const CHILD_STATUS_SIZE: usize = 0x10;

/// NTSTATUS DxgkCbIndicateChildStatus(hDevice, DXGK_CHILD_STATUS*). Nothing
/// here draws on a head that a driver says is there: its success is all.
pub(crate) fn indicate_status(_: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    let [handle, child, ..] = call.registers;
    if !is_our_handle(handle) {
        return Outcome::Return(status::INVALID_PARAMETER.into());
    }
    match p.read(Gva(child), &mut [0; CHILD_STATUS_SIZE]) {
        Ok(()) => Outcome::Return(status::SUCCESS.into()),
        Err(e) => e.into(),
    }
}
