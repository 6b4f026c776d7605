//! What was found, on disk as it is found: a file of JSON lines, the first of
//! which says what was searched, one for each unit that was walked, and one
//! for each bound of which all units were. A torn last line is a unit that is
//! walked again.

use crate::{Bounds, Defect, ExploreError, Explored, Unit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Most shards of one exploration.
const MAX_SHARDS: u32 = 1 << 20;
/// Longest line of a file. A unit has its defects and places of code in it.
const MAX_LINE: u64 = 64 << 20;
/// How a file begins.
const BEGINNING: &[u8] = b"{\"header\":";

/// What was searched: two files with unequal headers cannot be joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of dmasan.
    pub version: String,
    /// File name of the driver.
    pub driver: String,
    /// Its XXH3-128, as hexadecimal digits.
    pub digest: String,
    /// What the run was made of: arguments of `dmasan run`.
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
    /// From here on it is searched up to another bound than the header says.
    Bound(u32),
    /// All units of a bound are above.
    Whole(Whole),
    /// A defect, by its identity, of a unit that was not walked to its end.
    Found(String, Defect),
}

/// A bound that was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Whole {
    /// Which.
    pub bound: u32,
    /// How many units of it there are in this shard.
    pub units: u64,
}

/// The results of an exploration, in memory and on disk.
#[derive(Debug)]
pub struct Results {
    header: Header,
    units: BTreeSet<Unit>,
    whole: BTreeSet<Whole>,
    total: Explored,
    file: Option<Lines>,
}

/// The file: nobody else writes to it while it is open.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl Results {
    /// Results that are kept in memory only.
    #[must_use]
    pub fn in_memory(header: Header) -> Self {
        Self {
            header,
            units: BTreeSet::new(),
            whole: BTreeSet::new(),
            total: Explored::default(),
            file: None,
        }
    }

    /// Results kept in the file at `path`; if it is there already, the
    /// exploration goes on where it was left.
    ///
    /// # Errors
    /// [`ExploreError`]: it is of another exploration, somebody else writes
    /// to it, or the disk fails.
    pub fn open(path: &Path, header: Header) -> Result<Self, ExploreError> {
        let mut results = Self::in_memory(header);
        let mut lines = Lines::open(path)?;
        let mut found: Option<Header> = None;
        let end = read(path, &lines.file, |line| {
            match line {
                Line::Header(header) => {
                    same(path, &header, &results.header, true)?;
                    found = Some(header);
                }
                Line::Bound(bound) => {
                    if let Some(header) = &mut found {
                        let deepest = &mut header.bounds.deviations;
                        *deepest = bound.max(*deepest);
                    }
                }
                Line::Unit(unit, explored) => results.take_in(unit, explored),
                Line::Found(key, defect) => results.find(key, defect),
                Line::Whole(whole) => {
                    results.whole.insert(whole);
                }
            }
            Ok(())
        })?;
        // A torn last line is cut off, so that the next begins anew.
        lines.cut(end)?;
        results.file = Some(lines);
        let bound = results.header.bounds.deviations;
        match found {
            None => results.write(&Line::Header(results.header.clone()))?,
            Some(header) if header.bounds.deviations < bound => {
                results.write(&Line::Bound(bound))?;
            }
            Some(_) => {}
        }
        Ok(results)
    }

    /// Was this unit walked?
    #[must_use]
    pub fn has(&self, unit: Unit) -> bool {
        self.units.contains(&unit)
    }

    /// Everything together, up to the bound of the header.
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
    pub fn keep(&mut self, unit: Unit, mut explored: Explored) -> Result<(), ExploreError> {
        if self.has(unit) {
            return Ok(());
        }
        // Most units come by the same places as those before.
        let known = &self.total.places;
        explored.places.retain(|place| !known.contains(place));
        self.write(&Line::Unit(unit, explored.clone()))?;
        self.take_in(unit, explored);
        Ok(())
    }

    /// What was found in a unit that is not to be kept: it is walked again.
    /// Its defects are kept.
    pub(crate) fn tell(&mut self, explored: Explored) -> Result<(), ExploreError> {
        for (key, defect) in &explored.defects {
            let known = self.total.defects.get(key);
            if known.is_none_or(|known| defect.order() < known.order()) {
                self.write(&Line::Found(key.clone(), defect.clone()))?;
            }
        }
        self.total.add(explored);
        Ok(())
    }

    /// Keep that all `units` units of a bound are there.
    ///
    /// # Errors
    /// [`ExploreError::Write`].
    pub fn finish(&mut self, bound: u32, units: u64) -> Result<(), ExploreError> {
        let whole = Whole { bound, units };
        if self.whole.insert(whole) {
            self.write(&Line::Whole(whole))?;
        }
        Ok(())
    }

    fn find(&mut self, key: String, defect: Defect) {
        if defect.schedule.len() <= self.header.bounds.deviations as usize {
            self.total.keep(key, defect);
        }
    }

    fn take_in(&mut self, unit: Unit, mut explored: Explored) {
        if unit.bound > self.header.bounds.deviations {
            // Of a deeper search of before; but what this one's units say of
            // places may count on it.
            explored = Explored {
                places: explored.places,
                ..Explored::default()
            };
        }
        self.total.add(explored);
        self.units.insert(unit);
    }

    fn write(&mut self, line: &Line) -> Result<(), ExploreError> {
        match &mut self.file {
            Some(lines) => lines.write(line),
            None => Ok(()),
        }
    }
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ExploreError> {
        let failed = |error| ExploreError::Write {
            path: path.to_owned(),
            error,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ExploreError::InUse {
                    path: path.to_owned(),
                });
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            length: 0,
        })
    }

    /// Cut off what is beyond `length`.
    fn cut(&mut self, length: u64) -> Result<(), ExploreError> {
        let cut = self.file.set_len(length);
        let cut = cut.and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map_err(|error| self.failed(error))?;
        self.length = length;
        Ok(())
    }

    fn write(&mut self, line: &Line) -> Result<(), ExploreError> {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // What another worker still writes begins a line of its own.
            let _ = self.cut(self.length);
            return Err(self.failed(error));
        }
        self.length += text.len() as u64;
        Ok(())
    }

    fn failed(&self, error: io::Error) -> ExploreError {
        ExploreError::Write {
            path: self.path.clone(),
            error,
        }
    }
}

/// The whole lines of a file, from where it stands, each given to `take`;
/// how many bytes they are. A torn header is no line either: the file then
/// says nothing yet.
pub(crate) fn read(
    path: &Path,
    file: &File,
    mut take: impl FnMut(Line) -> Result<(), ExploreError>,
) -> Result<u64, ExploreError> {
    let bad = |why: String| ExploreError::Read {
        path: path.to_owned(),
        why,
    };
    let mut reader = BufReader::new(file);
    let mut good = 0;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| bad(error.to_string()))?;
        // A torn line may end within a character: it is cut off as bytes.
        if !line.ends_with(b"\n") {
            if line.len() as u64 == MAX_LINE {
                return Err(bad(format!("line {number} is too long")));
            }
            let torn = line.len().min(BEGINNING.len());
            if number == 1 && line.get(..torn) != BEGINNING.get(..torn) {
                return Err(bad("it is no result of dmasan explore".to_owned()));
            }
            break;
        }
        let found: Line =
            serde_json::from_slice(&line).map_err(|e| bad(format!("line {number}: {e}")))?;
        if matches!(found, Line::Header(_)) != (number == 1) {
            return Err(bad(format!("line {number} is out of place")));
        }
        check(&found).map_err(|why| bad(format!("line {number}: {why}")))?;
        take(found)?;
        good += line.len() as u64;
    }
    Ok(good)
}

/// Does a line say what can be?
fn check(line: &Line) -> Result<(), String> {
    match line {
        Line::Header(header) => {
            let (shard, of) = header.bounds.shard;
            if shard >= of || of > MAX_SHARDS {
                return Err(format!("there is no shard {shard} of {of}"));
            }
        }
        Line::Unit(_, explored) => explored.defects.values().try_for_each(named)?,
        Line::Found(_, defect) => named(defect)?,
        Line::Bound(_) | Line::Whole(_) => {}
    }
    Ok(())
}

/// Is a defect's finding one that a folder can be named by?
fn named(defect: &Defect) -> Result<(), String> {
    let named = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let id = &defect.finding;
    if id.is_empty() || id.len() > 64 || !id.bytes().all(named) {
        return Err(format!("there is no finding {id:?}"));
    }
    Ok(())
}

/// Are both of one exploration?
pub(crate) fn same(path: &Path, a: &Header, b: &Header, shard: bool) -> Result<(), ExploreError> {
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
