//! NTSTATUS values by name (ntstatus.h; public constants).

use journal::{status_name, status_value};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

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
            Text::Name(name) => status_value(&name).map(Self).ok_or(StatusError(name)),
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
        status_name(self.0)
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
