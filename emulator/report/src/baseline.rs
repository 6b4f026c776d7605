//! A baseline: an earlier report, as JSON, whose findings are known.

use crate::clean::clean_short;
use crate::fingerprint::Fingerprint;
use crate::json;
use crate::layout::stack;
use crate::model::Frame;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Findings and bug checks that a baseline may have.
const MAX_ENTRIES: usize = 4096;
/// Lines of a stack.
const MAX_FRAMES: usize = 64;
/// Characters of a name or path.
const MAX_TEXT: usize = 1024;

/// Why a file is no baseline.
#[derive(Debug, Error)]
pub enum BaselineError {
    /// No JSON.
    #[error("no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but no report.
    #[error("no report of dmasan: name a report.json that dmasan run or report --json has written")]
    NoReport,
    /// A report of another version.
    #[error("a report of schema version {0}, but this dmasan reads version {expected}: \
             make it again with dmasan report --json", expected = json::VERSION)]
    Version(u64),
    /// Too long.
    #[error("more than {MAX_ENTRIES} findings or bug checks")]
    TooMany,
}

/// What an earlier run has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// Findings, and how to call each.
    pub(crate) findings: BTreeMap<Fingerprint, String>,
    /// Bug checks.
    pub(crate) stops: BTreeSet<Fingerprint>,
}

impl Baseline {
    /// Read a report. Fingerprints are computed anew from its stacks, never
    /// taken from it, so that one made by an older dmasan serves as well.
    ///
    /// # Errors
    /// If the bytes are no JSON report of this schema's version.
    pub fn parse(bytes: &[u8]) -> Result<Self, BaselineError> {
        let value: Value = serde_json::from_slice(bytes)?;
        if value.get("format").and_then(Value::as_str) != Some("dmasan-report") {
            return Err(BaselineError::NoReport);
        }
        let version = value.get("version").and_then(Value::as_u64);
        match version.ok_or(BaselineError::NoReport)? {
            version if version == u64::from(json::VERSION) => {}
            version => return Err(BaselineError::Version(version)),
        }
        let mut baseline = Self::default();
        for finding in list(&value, "findings")? {
            let id = text(finding, "/id").ok_or(BaselineError::NoReport)?;
            let breach = finding.get("breach").is_some_and(Value::is_object);
            let used = if breach {
                frames(finding, "/breach/place/stack")
            } else {
                frames(finding, "/command/submitted/stack")
            };
            let freed = frames(finding, "/allocation/freed/stack");
            let allocated = frames(finding, "/allocation/allocated/stack");
            let fingerprint = Fingerprint::new(
                &id,
                text(finding, "/command/name").as_deref(),
                &[&used, &freed, &allocated],
            );
            let stacks: [&[Frame]; 3] = if breach {
                [&used, &freed, &allocated]
            } else {
                [&freed, &used, &allocated]
            };
            let place = stack::telling(&stacks, &BTreeSet::new()).unwrap_or_default();
            baseline
                .findings
                .insert(fingerprint, format!("{id}{place}"));
        }
        for stop in list(&value, "bug_checks")? {
            let code = text(stop, "/code").ok_or(BaselineError::NoReport)?;
            let id = format!("bug-check {code}");
            let stack = frames(stop, "/stack");
            let fingerprint = Fingerprint::new(&id, None, &[&stack]);
            baseline.stops.insert(fingerprint);
        }
        Ok(baseline)
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], BaselineError> {
    let list = value.get(key).and_then(Value::as_array);
    let list = list.ok_or(BaselineError::NoReport)?;
    if list.len() > MAX_ENTRIES {
        return Err(BaselineError::TooMany);
    }
    Ok(list)
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    let text = value.pointer(pointer)?.as_str()?;
    Some(clean_short(text, MAX_TEXT))
}

fn frames(value: &Value, pointer: &str) -> Vec<Frame> {
    let stack = value.pointer(pointer).and_then(Value::as_array);
    let frame = |value: &Value| Frame {
        module: text(value, "/module"),
        function: text(value, "/function"),
        file: text(value, "/file"),
        line: value
            .get("line")
            .and_then(Value::as_u64)
            .and_then(|line| u32::try_from(line).ok()),
        offset: text(value, "/offset")
            .and_then(|hex| u64::from_str_radix(hex.strip_prefix("0x")?, 16).ok())
            .unwrap_or_default(),
        inlined: value.get("inlined").and_then(Value::as_bool) == Some(true),
        ..Frame::default()
    };
    stack
        .into_iter()
        .flatten()
        .take(MAX_FRAMES)
        .map(frame)
        .collect()
}
