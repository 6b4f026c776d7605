//! NTSTATUS values by name (ntstatus.h; public constants).

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Names that a plan may use; any other status is given as a number.
const NAMES: &[(&str, u32)] = &[
    ("STATUS_SUCCESS", 0),
    ("STATUS_TIMEOUT", 0x0000_0102),
    ("STATUS_PENDING", 0x0000_0103),
    ("STATUS_BUFFER_OVERFLOW", 0x8000_0005),
    ("STATUS_DEVICE_BUSY", 0x8000_0011),
    ("STATUS_UNSUCCESSFUL", 0xC000_0001),
    ("STATUS_NOT_IMPLEMENTED", 0xC000_0002),
    ("STATUS_INVALID_HANDLE", 0xC000_0008),
    ("STATUS_INVALID_PARAMETER", 0xC000_000D),
    ("STATUS_NO_SUCH_DEVICE", 0xC000_000E),
    ("STATUS_INVALID_DEVICE_REQUEST", 0xC000_0010),
    ("STATUS_NO_MEMORY", 0xC000_0017),
    ("STATUS_ACCESS_DENIED", 0xC000_0022),
    ("STATUS_BUFFER_TOO_SMALL", 0xC000_0023),
    ("STATUS_OBJECT_NAME_NOT_FOUND", 0xC000_0034),
    ("STATUS_INSUFFICIENT_RESOURCES", 0xC000_009A),
    ("STATUS_DEVICE_NOT_READY", 0xC000_00A3),
    ("STATUS_NOT_SUPPORTED", 0xC000_00BB),
    ("STATUS_CANCELLED", 0xC000_0120),
    ("STATUS_IO_DEVICE_ERROR", 0xC000_0185),
    ("STATUS_DEVICE_REMOVED", 0xC000_02B6),
    ("STATUS_GRAPHICS_NO_VIDEO_MEMORY", 0xC01E_0100),
];

/// A status by name or number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Status(pub u32);

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a status is a name or a number")]
enum Text {
    Number(u32),
    Name(String),
}

/// A name that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("status {0:?} is not known by name: give its number")]
pub struct StatusError(String);

impl TryFrom<Text> for Status {
    type Error = StatusError;

    fn try_from(text: Text) -> Result<Self, StatusError> {
        match text {
            Text::Number(value) => Ok(Self(value)),
            Text::Name(name) => NAMES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|&(_, value)| Self(value))
                .ok_or(StatusError(name)),
        }
    }
}

impl From<Status> for Text {
    fn from(status: Status) -> Self {
        match status.name() {
            Some(name) => Self::Name(name.to_owned()),
            None => Self::Number(status.0),
        }
    }
}

impl Status {
    fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|&&(_, value)| value == self.0)
            .map(|&(name, _)| name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010X}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
