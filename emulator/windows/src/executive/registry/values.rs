//! Reading and writing values of an open key.

use super::services::passive;
use super::{MAX_DATA, Value};
use crate::executive::rules::unless;
use crate::executive::spec::status::{INVALID_INFO_CLASS, OBJECT_TYPE_MISMATCH};
use crate::executive::{Answer, Handle, State, pointer, strings};
use crate::status::{
    BUFFER_OVERFLOW, BUFFER_TOO_SMALL, INSUFFICIENT_RESOURCES, INVALID_HANDLE,
    OBJECT_NAME_NOT_FOUND, SUCCESS,
};
use crate::{Call, Platform};

/// A KEY_VALUE_*_INFORMATION, and how many of its bytes are its fixed part.
struct Information {
    bytes: Vec<u8>,
    fixed: usize,
}

/// The information of a class about a value (wdm.h); `None` for a class that
/// there is not.
fn information(class: u32, value: &Value) -> Option<Information> {
    let name: Vec<u8> = value
        .name
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let kind = value.kind;
    let (name_length, data_length) = (name.len() as u32, value.data.len() as u32);
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let information = match class {
        // KeyValueBasicInformation: TitleIndex, Type, NameLength, Name.
        0 => {
            let mut bytes = words(&[0, kind, name_length]);
            bytes.extend_from_slice(&name);
            Information { bytes, fixed: 12 }
        }
        // KeyValueFullInformation: TitleIndex, Type, DataOffset, DataLength,
        // NameLength, Name; the data is aligned to 4 bytes.
        1 => {
            let offset = (20 + name.len()).next_multiple_of(4);
            let mut bytes = words(&[0, kind, offset as u32, data_length, name_length]);
            bytes.extend_from_slice(&name);
            bytes.resize(offset, 0);
            bytes.extend_from_slice(&value.data);
            Information { bytes, fixed: 20 }
        }
        // KeyValuePartialInformation: TitleIndex, Type, DataLength, Data.
        2 => {
            let mut bytes = words(&[0, kind, data_length]);
            bytes.extend_from_slice(&value.data);
            Information { bytes, fixed: 12 }
        }
        // KeyValuePartialInformationAlign64: Type, DataLength, Data.
        4 => {
            let mut bytes = words(&[kind, data_length]);
            bytes.extend_from_slice(&value.data);
            Information { bytes, fixed: 8 }
        }
        _ => return None,
    };
    Some(information)
}

/// The path of an open key, or the status that refuses the handle.
fn key(state: &State, handle: u64) -> Result<String, u32> {
    match state.look_up(handle) {
        Some(Handle::Key(path)) => Ok(path.clone()),
        Some(_) => Err(OBJECT_TYPE_MISMATCH),
        None => Err(INVALID_HANDLE),
    }
}

/// NTSTATUS ZwQueryValueKey(HANDLE, PUNICODE_STRING, Class, Information,
/// Length, PULONG ResultLength).
pub(in crate::executive) fn query_value(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let handle = call.argument(p, 0)?;
    let name = strings::object_name(p, pointer(call, p, 1)?)?;
    let class = call.argument(p, 2)? as u32;
    let buffer = pointer(call, p, 3)?;
    let length = call.argument(p, 4)? as u32 as usize;
    let result_at = pointer(call, p, 5)?;
    let breach = passive(state, "ZwQueryValueKey");
    let found = key(state, handle).and_then(|key| {
        let value = state.registry.value(&key, &name?);
        let value = value.ok_or(OBJECT_NAME_NOT_FOUND)?;
        information(class, value).ok_or(INVALID_INFO_CLASS)
    });
    let information = match found {
        Ok(information) => information,
        Err(status) => return Ok(unless(breach, status)),
    };
    let all = &information.bytes;
    p.write_u32(result_at, all.len() as u32)?;
    if length < information.fixed {
        return Ok(unless(breach, BUFFER_TOO_SMALL));
    }
    let written = all.get(..length).unwrap_or(all);
    p.write(buffer, written)?;
    let status = if length < all.len() {
        BUFFER_OVERFLOW
    } else {
        SUCCESS
    };
    Ok(unless(breach, status))
}

/// NTSTATUS ZwSetValueKey(HANDLE, PUNICODE_STRING, TitleIndex, Type, Data,
/// Size).
pub(in crate::executive) fn set_value(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let handle = call.argument(p, 0)?;
    let name = strings::object_name(p, pointer(call, p, 1)?)?;
    let kind = call.argument(p, 3)? as u32;
    let data_at = pointer(call, p, 4)?;
    let size = call.argument(p, 5)? as u32 as usize;
    let breach = passive(state, "ZwSetValueKey");
    let (key, name) = match key(state, handle).and_then(|key| Ok((key, name?))) {
        Ok(found) => found,
        Err(status) => return Ok(unless(breach, status)),
    };
    if size > MAX_DATA {
        return Ok(unless(breach, INSUFFICIENT_RESOURCES));
    }
    let mut data = vec![0; size];
    p.read(data_at, &mut data)?;
    let status = if state.registry.set(&key, Value { name, kind, data }) {
        SUCCESS
    } else {
        INSUFFICIENT_RESOURCES
    };
    Ok(unless(breach, status))
}

/// NTSTATUS ZwDeleteValueKey(HANDLE, PUNICODE_STRING).
pub(in crate::executive) fn delete_value(
    state: &mut State,
    p: &mut dyn Platform,
    call: &Call,
) -> Answer {
    let handle = call.argument(p, 0)?;
    let name = strings::object_name(p, pointer(call, p, 1)?)?;
    let breach = passive(state, "ZwDeleteValueKey");
    let status = match key(state, handle).and_then(|key| Ok((key, name?))) {
        Ok((key, name)) if state.registry.remove(&key, &name) => SUCCESS,
        Ok(_) => OBJECT_NAME_NOT_FOUND,
        Err(status) => status,
    };
    Ok(unless(breach, status))
}
