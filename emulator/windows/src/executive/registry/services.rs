//! Opening and making keys.

use super::{HARDWARE, SOFTWARE, normal};
use crate::executive::rules::{breach, unless};
use crate::executive::spec::status::{OBJECT_PATH_SYNTAX_BAD, OBJECT_TYPE_MISMATCH};
use crate::executive::{Answer, Handle, State, field, pointer, strings};
use crate::rules::executive as rule;
use crate::status::{
    INSUFFICIENT_RESOURCES, INVALID_HANDLE, INVALID_PARAMETER, OBJECT_NAME_NOT_FOUND, SUCCESS,
};
use crate::{Call, Platform, PlatformError, Stop};
use memory::Gva;

/// OBJECT_ATTRIBUTES: RootDirectory, ObjectName, and its Length.
const ROOT: u64 = 8;
const NAME: u64 = 0x10;
const LENGTH: u32 = 0x30;
/// REG_CREATED_NEW_KEY and REG_OPENED_EXISTING_KEY.
const CREATED: u32 = 1;
const OPENED: u32 = 2;
/// Longest path: 32,767 characters, as of any object's name.
const MAX_PATH: usize = 32_767;

/// The IRQL rule of the registry.
pub(super) fn passive(state: &State, name: &str) -> Option<Stop> {
    breach(state, &rule::REGISTRY_IRQL, name, 0)
}

/// The path that OBJECT_ATTRIBUTES name, or the status that refuses them.
fn path(state: &State, p: &dyn Platform, at: Gva) -> Result<Result<String, u32>, PlatformError> {
    if p.read_u32(at)? != LENGTH {
        return Ok(Err(INVALID_PARAMETER));
    }
    let root = p.read_u64(field(at, ROOT)?)?;
    let name = match strings::object_name(p, Gva(p.read_u64(field(at, NAME)?)?))? {
        Ok(name) => name,
        Err(status) => return Ok(Err(status)),
    };
    let path = if root == 0 {
        if !name.starts_with('\\') {
            return Ok(Err(OBJECT_PATH_SYNTAX_BAD));
        }
        name
    } else {
        let Some(handle) = state.look_up(root) else {
            return Ok(Err(INVALID_HANDLE));
        };
        let Handle::Key(root) = handle else {
            return Ok(Err(OBJECT_TYPE_MISMATCH));
        };
        match name.as_str() {
            "" => root.clone(),
            _ if name.starts_with('\\') => return Ok(Err(OBJECT_PATH_SYNTAX_BAD)),
            _ => format!("{root}\\{name}"),
        }
    };
    if path.len() > MAX_PATH {
        return Ok(Err(OBJECT_PATH_SYNTAX_BAD));
    }
    Ok(Ok(normal(&path)))
}

/// Open the key at `path` and store the handle: the status.
fn open(
    state: &mut State,
    p: &mut dyn Platform,
    path: String,
    handle_at: Gva,
) -> Result<u32, PlatformError> {
    if !state.registry.has_key(&path) {
        return Ok(OBJECT_NAME_NOT_FOUND);
    }
    let Some(handle) = state.open(Handle::Key(path)) else {
        return Ok(INSUFFICIENT_RESOURCES);
    };
    p.write_u64(handle_at, handle)?;
    Ok(SUCCESS)
}

/// NTSTATUS ZwOpenKey(PHANDLE, ACCESS_MASK, OBJECT_ATTRIBUTES*).
pub(in crate::executive) fn open_key(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let (handle_at, attributes) = (pointer(call, p, 0)?, pointer(call, p, 2)?);
    let breach = passive(state, "ZwOpenKey");
    let status = match path(state, p, attributes)? {
        Ok(path) => open(state, p, path, handle_at)?,
        Err(status) => status,
    };
    Ok(unless(breach, status))
}

/// NTSTATUS ZwCreateKey(PHANDLE, ACCESS_MASK, OBJECT_ATTRIBUTES*, TitleIndex,
/// Class, CreateOptions, PULONG Disposition): the key above must be there.
pub(in crate::executive) fn create_key(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let (handle_at, attributes) = (pointer(call, p, 0)?, pointer(call, p, 2)?);
    let disposition = pointer(call, p, 6)?;
    let breach = passive(state, "ZwCreateKey");
    let path = match path(state, p, attributes)? {
        Ok(path) => path,
        Err(status) => return Ok(unless(breach, status)),
    };
    let existed = state.registry.has_key(&path);
    let parent = path.rsplit_once('\\').map_or("", |(parent, _)| parent);
    if !existed {
        if !state.registry.has_key(parent) {
            return Ok(unless(breach, OBJECT_NAME_NOT_FOUND));
        }
        if !state.registry.create(&path) {
            return Ok(unless(breach, INSUFFICIENT_RESOURCES));
        }
    }
    let status = open(state, p, path, handle_at)?;
    if status == SUCCESS && disposition.0 != 0 {
        p.write_u32(disposition, if existed { OPENED } else { CREATED })?;
    }
    Ok(unless(breach, status))
}

/// NTSTATUS IoOpenDeviceRegistryKey(PDEVICE_OBJECT, ULONG Type, ACCESS_MASK,
/// PHANDLE). Every device is the one adapter.
pub(in crate::executive) fn open_device_key(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    /// PLUGPLAY_REGKEY_DEVICE and PLUGPLAY_REGKEY_DRIVER.
    const DEVICE: u32 = 1;
    const DRIVER: u32 = 2;
    let kind = call.argument(p, 1)? as u32;
    let handle_at = pointer(call, p, 3)?;
    let breach = breach(state, &rule::DEVICE_KEY_IRQL, "IoOpenDeviceRegistryKey", 0);
    let status = match kind & 0xf {
        DEVICE => open(state, p, normal(HARDWARE), handle_at)?,
        DRIVER => open(state, p, normal(SOFTWARE), handle_at)?,
        _ => INVALID_PARAMETER,
    };
    Ok(unless(breach, status))
}

/// NTSTATUS ZwFlushKey(HANDLE): nothing to do, if it is a key.
pub(in crate::executive) fn flush_key(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let handle = call.argument(p, 0)?;
    let breach = passive(state, "ZwFlushKey");
    let status = match state.look_up(handle) {
        Some(Handle::Key(_)) => SUCCESS,
        Some(_) => OBJECT_TYPE_MISMATCH,
        None => INVALID_HANDLE,
    };
    Ok(unless(breach, status))
}
