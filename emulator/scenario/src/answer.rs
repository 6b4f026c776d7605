//! Answers of the device that are not its own: what a scenario writes over
//! them.

use crate::plan::PlanError;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Most bytes of a [`Hex`]: a page, as of an Escape's private data.
pub const MAX_BYTES: usize = 4096;

/// Bytes, in a scenario file a text of hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > 2 * MAX_BYTES {
            return Err(format!("give at most {MAX_BYTES} bytes"));
        }
        let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
        text.as_bytes()
            .chunks(2)
            .map(|pair| match *pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            })
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| "give two hexadecimal digits a byte".to_owned())
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        hex.0.iter().fold(Self::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// What the device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerOf {
    /// The response to a command: header and body, EDID and all.
    Response,
    /// How many bytes it says it wrote, 32 bits in the used ring.
    Used,
    /// A read of the device's configuration.
    Configuration,
}

impl AnswerOf {
    /// All, in the order of the schema.
    pub const ALL: [Self; 3] = [Self::Response, Self::Used, Self::Configuration];

    /// Its name in a scenario file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Used => "used",
            Self::Configuration => "configuration",
        }
    }
}

/// One answer, and what is written over it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Answer {
    /// Which kind.
    pub of: AnswerOf,
    /// Which of them in the run, from 0.
    pub number: u64,
    /// From which byte on.
    #[serde(default)]
    pub at: u32,
    /// These bytes; those beyond the answer's end change nothing.
    pub data: Hex,
}

impl Answer {
    /// What it is called.
    #[must_use]
    pub fn title(&self) -> String {
        format!("answer {} {}", self.of.name(), self.number)
    }

    /// Write it over what the device answers.
    pub(crate) fn write_over(&self, bytes: &mut [u8]) {
        let places = bytes.iter_mut().skip(self.at as usize);
        for (place, byte) in places.zip(&self.data.0) {
            *place = *byte;
        }
    }
}

/// No answer is written over twice.
pub(crate) fn check(answers: &[Answer]) -> Result<(), PlanError> {
    let mut seen = std::collections::BTreeSet::new();
    match answers
        .iter()
        .find(|answer| !seen.insert((answer.of, answer.number)))
    {
        Some(twice) => Err(PlanError::TwiceAnswered(twice.of.name(), twice.number)),
        None => Ok(()),
    }
}
