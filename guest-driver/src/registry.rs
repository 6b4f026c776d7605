//! The device's registry values.

use core::mem::MaybeUninit;

use crate::mutations::undo;
use crate::nt::{Result, ZwClose, ZwOpenKey, ZwQueryValueKey, check, unicode, wide};
#[cfg(any(feature = "defects", feature = "mutations"))]
use crate::spec::nt::REG_SZ;
use crate::spec::nt::{
    KEY_READ, KEY_VALUE_PARTIAL, KeyValuePartial, OBJ_CASE_INSENSITIVE, OBJ_KERNEL_HANDLE,
    ObjectAttributes, REG_DWORD, UnicodeString, VALUE_CAPACITY,
};

/// What the registry says. A value that is missing or of another type
/// counts as not given.
#[derive(Clone, Copy, Default)]
pub struct Settings {
    /// `PollCompletion`, REG_DWORD: 1 polls the used index instead of
    /// waiting for interrupts.
    pub poll_completion: bool,
}

/// A short text value, ASCII; anything else in it reads as '?'.
#[cfg(any(feature = "defects", feature = "mutations"))]
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; VALUE_CAPACITY / 2],
    length: usize,
}

#[cfg(any(feature = "defects", feature = "mutations"))]
impl Text {
    /// The characters.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Reads the settings below the device's key; PASSIVE_LEVEL.
#[inline(never)]
pub fn settings(path: &UnicodeString) -> Result<Settings> {
    let Some(key) = Key::open(path) else {
        return Ok(Settings::default());
    };
    #[cfg(feature = "mutations")]
    crate::mutations::choose(key.text(&unicode(wide!("Mutation"))))?;
    // `Defect`, REG_SZ.
    #[cfg(feature = "defects")]
    crate::defects::choose(key.text(&unicode(wide!("Defect"))))?;
    Ok(Settings {
        poll_completion: key.dword(&unicode(wide!("PollCompletion"))) == Some(1),
    })
}

/// An open key.
struct Key(crate::spec::nt::Handle);

impl Key {
    fn open(path: &UnicodeString) -> Option<Self> {
        let attributes = ObjectAttributes {
            length: size_of::<ObjectAttributes>() as u32,
            root_directory: core::ptr::null_mut(),
            object_name: path,
            attributes: OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE,
            security_descriptor: core::ptr::null_mut(),
            security_quality_of_service: core::ptr::null_mut(),
        };
        let mut key = core::ptr::null_mut();
        // SAFETY: the structures live through the call.
        check(unsafe { ZwOpenKey(&raw mut key, KEY_READ, &raw const attributes) }).ok()?;
        Some(Self(key))
    }

    fn value(&self, name: &UnicodeString) -> Option<KeyValuePartial> {
        let mut value = MaybeUninit::<KeyValuePartial>::zeroed();
        let mut bytes = 0;
        // SAFETY: the buffer is as long as it says; a value that does not
        // fit is an error.
        check(unsafe {
            ZwQueryValueKey(
                self.0,
                name,
                KEY_VALUE_PARTIAL,
                value.as_mut_ptr().cast(),
                size_of::<KeyValuePartial>() as u32,
                &raw mut bytes,
            )
        })
        .ok()?;
        // SAFETY: every byte pattern is a value of its fields.
        let value = unsafe { value.assume_init() };
        (value.data_length as usize <= VALUE_CAPACITY).then_some(value)
    }

    fn dword(&self, name: &UnicodeString) -> Option<u32> {
        let value = self.value(name)?;
        if value.kind != REG_DWORD || value.data_length != 4 {
            return None;
        }
        let [a, b, c, d, ..] = value.data;
        Some(u32::from_le_bytes([a, b, c, d]))
    }

    #[cfg(any(feature = "defects", feature = "mutations"))]
    fn text(&self, name: &UnicodeString) -> Option<Text> {
        let value = self.value(name)?;
        if value.kind != REG_SZ {
            return None;
        }
        let mut text = Text {
            bytes: [0; VALUE_CAPACITY / 2],
            length: 0,
        };
        let units = value
            .data
            .chunks_exact(2)
            .take(value.data_length as usize / 2);
        for (place, unit) in text.bytes.iter_mut().zip(units) {
            *place = match *unit {
                [0, 0] => break,
                [low, 0] if low.is_ascii() => low,
                _ => b'?',
            };
            text.length += 1;
        }
        Some(text)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once.
        let _ = undo!("key-close", unsafe { ZwClose(self.0) });
    }
}
