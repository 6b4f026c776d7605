//! What must be true after a run by a plan.

use crate::fault::Status;
use serde::{Deserialize, Serialize};

/// What must be true after the run; nothing is asked that is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Verify {
    /// Exactly these kinds of findings are made, each any number of times;
    /// an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<String>>,
    /// What routines returned, to the driver or from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<Returned>,
    /// Is everything released that the driver was given?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<bool>,
    /// The last frame on scanout 0, against the same run without faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<Frame>,
}

/// A routine returned a status at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Returned {
    /// The routine, of Windows or of the driver; a pattern.
    pub function: String,
    /// The status.
    pub returns: Status,
}

/// A frame against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// The same pixels.
    Unchanged,
    /// Others.
    Changed,
}
