//! What was found, on disk as it is found: a file of JSON lines, the first of
//! which says what was searched, one for each unit that was walked, and one
//! for each bound of which all units were. A torn last line is a unit that is
//! walked again.

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
    /// From here on it is searched up to another bound than the header says.
    Bound(u32),
    /// All units of a bound are above.
    Whole(Whole),
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
    units: BTreeMap<Unit, Explored>,
    whole: BTreeSet<Whole>,
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
            whole: BTreeSet::new(),
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
                let Parsed {
                    header,
                    units,
                    whole,
                    good,
                } = parse(path, &bytes)?;
                same(path, &header, &results.header, true)?;
                for (unit, explored) in units {
                    results.take_in(unit, explored);
                }
                results.whole = whole;
                // A torn last line is cut off, so that the next begins anew.
                let file = OpenOptions::new().write(true).open(path).map_err(write)?;
                file.set_len(good as u64).map_err(write)?;
                let mut file = file;
                io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(write)?;
                results.file = Some((path.to_owned(), file));
                let bound = results.header.bounds.deviations;
                if header.bounds.deviations != bound {
                    results.write(&Line::Bound(bound))?;
                }
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
    /// What was searched, up to the largest bound that any file says.
    pub header: Header,
    /// What all found.
    pub total: Explored,
    /// What is not there.
    pub gaps: Gaps,
}

/// What results of shards lack to be those of the whole exploration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// Shards of which no file was given.
    pub missing: Vec<u32>,
    /// Shards that were cut by a budget, interrupted, or explored to a
    /// smaller bound.
    pub unfinished: Vec<Gap>,
}

/// A shard that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gap {
    /// Which, from 0.
    pub shard: u32,
    /// The first bound that it did not finish.
    pub bound: u32,
    /// Up to which it was asked to go.
    pub asked: u32,
}

impl Gaps {
    /// What is lacking, a sentence each.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let missing = self.missing.iter();
        let missing = missing.map(|shard| format!("shard {shard} was not given"));
        let unfinished = self.unfinished.iter().map(|gap| {
            let Gap {
                shard,
                bound,
                asked,
            } = gap;
            match asked < bound {
                true => format!("shard {shard} was explored with --bound {asked} only"),
                false => format!(
                    "shard {shard} did not finish bound {bound}: its command goes on from there"
                ),
            }
        });
        missing.chain(unfinished).collect()
    }

    /// Is all there?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unfinished.is_empty()
    }
}

/// A shard's file, or several of one.
#[derive(Debug, Default)]
struct Shard {
    asked: u32,
    units: BTreeSet<Unit>,
    whole: BTreeSet<Whole>,
}

impl Shard {
    /// The first bound up to `last` that is not whole. A line that says so
    /// goes for nothing if the units are not there.
    fn gap(&self, last: u32) -> Option<u32> {
        (0..=last).find(|bound| {
            let there = self.units.iter().filter(|unit| unit.bound == *bound);
            let there = there.count() as u64;
            let says = |whole: &&Whole| whole.bound == *bound && whole.units == there;
            !self.whole.iter().any(|whole| says(&whole))
        })
    }
}

/// Join the results of shards. The order of the files does not matter.
///
/// # Errors
/// [`ExploreError`]: no results, or of different explorations.
pub fn merge(paths: &[PathBuf]) -> Result<Merged, ExploreError> {
    let mut header: Option<Header> = None;
    let mut units = BTreeMap::new();
    let mut shards: BTreeMap<u32, Shard> = BTreeMap::new();
    for path in paths {
        let bytes = std::fs::read(path).map_err(|error| ExploreError::Read {
            path: path.clone(),
            why: error.to_string(),
        })?;
        let found = parse(path, &bytes)?;
        let shard = shards.entry(found.header.bounds.shard.0).or_default();
        shard.asked = shard.asked.max(found.header.bounds.deviations);
        shard.units.extend(found.units.keys());
        shard.whole.extend(found.whole);
        match &mut header {
            Some(header) => {
                same(path, &found.header, header, false)?;
                let bounds = &mut header.bounds;
                bounds.deviations = bounds.deviations.max(found.header.bounds.deviations);
            }
            None => header = Some(found.header),
        }
        units.extend(found.units);
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
    let last = header.bounds.deviations;
    let unfinished = shards.iter().filter_map(|(&index, shard)| {
        let bound = shard.gap(last)?;
        Some(Gap {
            shard: index,
            bound,
            asked: shard.asked,
        })
    });
    Ok(Merged {
        header,
        total,
        gaps: Gaps {
            unfinished: unfinished.collect(),
            missing: (0..of)
                .filter(|shard| !shards.contains_key(shard))
                .collect(),
        },
    })
}

/// A file of results.
struct Parsed {
    /// Its header; the bound is the last that it was explored to.
    header: Header,
    units: BTreeMap<Unit, Explored>,
    whole: BTreeSet<Whole>,
    /// Bytes of its whole lines.
    good: usize,
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Parsed, ExploreError> {
    let bad = |why: String| ExploreError::Read {
        path: path.to_owned(),
        why,
    };
    let mut header: Option<Header> = None;
    let mut units = BTreeMap::new();
    let mut whole = BTreeSet::new();
    let mut good = 0;
    // A torn line may end within a character: it is cut off as bytes.
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") {
            break;
        }
        match (serde_json::from_slice(line), &mut header) {
            (Ok(Line::Header(found)), None) => {
                let (shard, of) = found.bounds.shard;
                if shard >= of || of > MAX_SHARDS {
                    return Err(bad(format!("line 1: there is no shard {shard} of {of}")));
                }
                header = Some(found);
            }
            (Ok(Line::Unit(unit, explored)), Some(_)) => {
                units.insert(unit, explored);
            }
            (Ok(Line::Bound(bound)), Some(header)) => header.bounds.deviations = bound,
            (Ok(Line::Whole(found)), Some(_)) => {
                whole.insert(found);
            }
            (Ok(_), _) => return Err(bad(format!("line {} is out of place", index + 1))),
            (Err(error), _) => return Err(bad(format!("line {}: {error}", index + 1))),
        }
        good += line.len();
    }
    let header = header.ok_or_else(|| bad("it is no result of dmasan explore".to_owned()))?;
    Ok(Parsed {
        header,
        units,
        whole,
        good,
    })
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
