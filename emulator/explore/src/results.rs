//! What was found, on disk as it is found: a file of JSON lines, the first of
//! which says what was searched, and one for each unit that was walked. A torn
//! last line is a unit that is walked again.

use crate::{Bounds, ExploreError, Explored, Unit};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Most shards of one exploration.
const MAX_SHARDS: u32 = 1 << 20;

/// What was searched: two files with unequal headers cannot be joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of dmasan.
    pub version: String,
    /// File name of the driver.
    pub driver: String,
    /// Its XXH3-128, as hexadecimal digits.
    pub digest: String,
    /// What the run was made of: the reproducing arguments.
    pub arguments: Vec<String>,
    /// Text of the scenario that was deviated from.
    pub scenario: String,
    /// What was searched.
    pub bounds: Bounds,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The first.
    Header(Header),
    /// A unit and what it gave.
    Unit(Unit, Explored),
}

/// The results of an exploration, in memory and on disk.
#[derive(Debug)]
pub struct Results {
    header: Header,
    units: BTreeMap<Unit, Explored>,
    total: Explored,
    file: Option<(PathBuf, File)>,
}

impl Results {
    /// Results that are kept in memory only.
    #[must_use]
    pub fn in_memory(header: Header) -> Self {
        Self {
            header,
            units: BTreeMap::new(),
            total: Explored::default(),
            file: None,
        }
    }

    /// Results kept in the file at `path`; if it is there already, the
    /// exploration goes on where it was left.
    ///
    /// # Errors
    /// [`ExploreError`]: it is of another exploration, or the disk fails.
    pub fn open(path: &Path, header: Header) -> Result<Self, ExploreError> {
        let mut results = Self::in_memory(header);
        let write = |error| ExploreError::Write {
            path: path.to_owned(),
            error,
        };
        match std::fs::read(path) {
            Ok(bytes) => {
                let (found, units, good) = parse(path, &bytes)?;
                same(path, &found, &results.header, true)?;
                for (unit, explored) in units {
                    results.take_in(unit, explored);
                }
                // A torn last line is cut off, so that the next begins anew.
                let file = OpenOptions::new().write(true).open(path).map_err(write)?;
                file.set_len(good as u64).map_err(write)?;
                let mut file = file;
                io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(write)?;
                results.file = Some((path.to_owned(), file));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = File::create(path).map_err(write)?;
                results.file = Some((path.to_owned(), file));
                results.write(&Line::Header(results.header.clone()))?;
            }
            Err(error) => return Err(write(error)),
        }
        Ok(results)
    }

    /// Was this unit walked?
    #[must_use]
    pub fn has(&self, unit: Unit) -> bool {
        self.units.contains_key(&unit)
    }

    /// Everything together.
    #[must_use]
    pub fn total(&self) -> &Explored {
        &self.total
    }

    /// What was searched.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Keep what a unit gave, unless it was kept before.
    ///
    /// # Errors
    /// [`ExploreError::Write`].
    pub fn keep(&mut self, unit: Unit, explored: Explored) -> Result<(), ExploreError> {
        if self.has(unit) {
            return Ok(());
        }
        self.write(&Line::Unit(unit, explored.clone()))?;
        self.take_in(unit, explored);
        Ok(())
    }

    fn take_in(&mut self, unit: Unit, explored: Explored) {
        self.total.add(explored.clone());
        self.units.insert(unit, explored);
    }

    fn write(&mut self, line: &Line) -> Result<(), ExploreError> {
        let Some((path, file)) = &mut self.file else {
            return Ok(());
        };
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        file.write_all(text.as_bytes())
            .map_err(|error| ExploreError::Write {
                path: path.clone(),
                error,
            })
    }
}

/// Results of several shards, joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// What was searched; its shard is the first file's.
    pub header: Header,
    /// What all found.
    pub total: Explored,
    /// Shards that are not among the files.
    pub missing: Vec<u32>,
}

/// Join the results of shards. The order of the files does not matter.
///
/// # Errors
/// [`ExploreError`]: no results, or of different explorations.
pub fn merge(paths: &[PathBuf]) -> Result<Merged, ExploreError> {
    let mut header: Option<Header> = None;
    let mut units = BTreeMap::new();
    let mut shards = BTreeSet::new();
    for path in paths {
        let bytes = std::fs::read(path).map_err(|error| ExploreError::Read {
            path: path.clone(),
            why: error.to_string(),
        })?;
        let (found, walked, _) = parse(path, &bytes)?;
        shards.insert(found.bounds.shard.0);
        match &header {
            Some(header) => same(path, &found, header, false)?,
            None => header = Some(found),
        }
        units.extend(walked);
    }
    let Some(mut header) = header else {
        return Err(ExploreError::Read {
            path: PathBuf::new(),
            why: "no results were given".to_owned(),
        });
    };
    let of = header.bounds.shard.1;
    header.bounds.shard.0 = 0;
    let mut total = Explored::default();
    // Which file a unit came from does not show: they are joined in order.
    for explored in units.into_values() {
        total.add(explored);
    }
    Ok(Merged {
        header,
        total,
        missing: (0..of).filter(|shard| !shards.contains(shard)).collect(),
    })
}

type Parsed = (Header, BTreeMap<Unit, Explored>, usize);

/// Header, units, and how many bytes of whole lines there are.
fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, ExploreError> {
    let bad = |why: String| ExploreError::Read {
        path: path.to_owned(),
        why,
    };
    let mut header = None;
    let mut units = BTreeMap::new();
    let mut good = 0;
    // A torn line may end within a character: it is cut off as bytes.
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") {
            break;
        }
        match serde_json::from_slice(line) {
            Ok(Line::Header(found)) if index == 0 => {
                let (shard, of) = found.bounds.shard;
                if shard >= of || of > MAX_SHARDS {
                    return Err(bad(format!("line 1: there is no shard {shard} of {of}")));
                }
                header = Some(found);
            }
            Ok(Line::Unit(unit, explored)) if index > 0 => {
                units.insert(unit, explored);
            }
            Ok(_) => return Err(bad(format!("line {} is out of place", index + 1))),
            Err(error) => return Err(bad(format!("line {}: {error}", index + 1))),
        }
        good += line.len();
    }
    let header = header.ok_or_else(|| bad("it is no result of dmasan explore".to_owned()))?;
    Ok((header, units, good))
}

/// Are both of one exploration?
fn same(path: &Path, a: &Header, b: &Header, shard: bool) -> Result<(), ExploreError> {
    let what = if a.version != b.version {
        "the version of dmasan"
    } else if a.digest != b.digest {
        "the driver"
    } else if a.scenario != b.scenario {
        "the scenario"
    } else if a.arguments != b.arguments {
        "an argument"
    } else if a.bounds.reduce != b.bounds.reduce {
        "--no-reduction"
    } else if a.bounds.shard.1 != b.bounds.shard.1 || shard && a.bounds.shard != b.bounds.shard {
        "--shard"
    } else {
        // A larger bound goes on from a smaller one.
        return Ok(());
    };
    Err(ExploreError::Other {
        path: path.to_owned(),
        what,
    })
}
