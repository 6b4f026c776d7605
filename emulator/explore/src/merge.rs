//! Results of shards, joined.

use crate::results::{self, Header, Line, Whole};
use crate::{Defect, ExploreError, Explored, Unit};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

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
    /// Shards of which no file was given, the first and the last of each run
    /// of them.
    pub missing: Vec<RangeInclusive<u32>>,
    /// Files that could not be read, and why not.
    pub unreadable: Vec<(PathBuf, String)>,
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
        let missing = self.missing.iter().map(|range| {
            let (first, last) = (range.start(), range.end());
            match first == last {
                true => format!("shard {first} was not given"),
                false => format!("shards {first} to {last} were not given"),
            }
        });
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable.map(|(path, why)| format!("{}: {why}", path.display()));
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
        missing.chain(unreadable).chain(unfinished).collect()
    }

    /// Is all there?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            missing,
            unreadable,
            unfinished,
        } = self;
        missing.is_empty() && unreadable.is_empty() && unfinished.is_empty()
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

/// One file of results.
struct Part {
    /// Its header, with the largest bound that it was explored to.
    header: Header,
    units: BTreeMap<Unit, Explored>,
    whole: BTreeSet<Whole>,
    /// Defects of units that are not there.
    found: Vec<(String, Defect)>,
}

impl Part {
    fn read(path: &Path) -> Result<Self, ExploreError> {
        let bad = |why: String| ExploreError::Read {
            path: path.to_owned(),
            why,
        };
        let file = File::open(path).map_err(|error| bad(error.to_string()))?;
        let mut header: Option<Header> = None;
        let mut units = BTreeMap::new();
        let mut whole = BTreeSet::new();
        let mut defects = Vec::new();
        results::read(path, &file, |line| {
            match (line, &mut header) {
                (Line::Header(found), _) => header = Some(found),
                (Line::Unit(unit, explored), _) => add(&mut units, unit, explored),
                (Line::Found(key, defect), _) => defects.push((key, defect)),
                (Line::Bound(bound), Some(header)) => {
                    let deepest = &mut header.bounds.deviations;
                    *deepest = bound.max(*deepest);
                }
                (Line::Bound(_), None) => {}
                (Line::Whole(found), _) => {
                    whole.insert(found);
                }
            }
            Ok(())
        })?;
        let header = header.ok_or_else(|| bad("it ends before it says anything".to_owned()))?;
        Ok(Self {
            header,
            units,
            whole,
            found: defects,
        })
    }
}

/// A unit that is in two files is one; each file says of its places what the
/// lines before it do not.
fn add(units: &mut BTreeMap<Unit, Explored>, unit: Unit, explored: Explored) {
    match units.get_mut(&unit) {
        Some(known) => known.places.extend(explored.places),
        None => {
            units.insert(unit, explored);
        }
    }
}

/// Join the results of shards. The order of the files does not matter.
///
/// # Errors
/// [`ExploreError`]: no results that can be read, or of different
/// explorations.
pub fn merge(paths: &[PathBuf]) -> Result<Merged, ExploreError> {
    let mut header: Option<Header> = None;
    let mut units = BTreeMap::new();
    let mut shards: BTreeMap<u32, Shard> = BTreeMap::new();
    let mut unreadable = Vec::new();
    let mut total = Explored::default();
    for path in paths {
        let found = match Part::read(path) {
            Ok(found) => found,
            Err(ExploreError::Read { path, why }) => {
                unreadable.push((path, why));
                continue;
            }
            Err(error) => return Err(error),
        };
        let shard = shards.entry(found.header.bounds.shard.0).or_default();
        shard.asked = shard.asked.max(found.header.bounds.deviations);
        shard.units.extend(found.units.keys());
        shard.whole.extend(found.whole);
        match &mut header {
            Some(header) => {
                results::same(path, &found.header, header, false)?;
                let bounds = &mut header.bounds;
                bounds.deviations = bounds.deviations.max(found.header.bounds.deviations);
            }
            None => header = Some(found.header),
        }
        for (key, defect) in found.found {
            total.keep(key, defect);
        }
        for (unit, explored) in found.units {
            add(&mut units, unit, explored);
        }
    }
    unreadable.sort();
    let Some(mut header) = header else {
        let (path, why) = unreadable.into_iter().next().unwrap_or_default();
        return Err(ExploreError::Read { path, why });
    };
    let of = header.bounds.shard.1;
    header.bounds.shard.0 = 0;
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
            missing: between(&shards, of),
            unreadable,
        },
    })
}

/// The shards of `of` that are not among `there`. A forged file may say that
/// there are a million.
fn between(there: &BTreeMap<u32, Shard>, of: u32) -> Vec<RangeInclusive<u32>> {
    let mut missing = Vec::new();
    let mut next = 0;
    for &shard in there.keys().chain([&of]) {
        if next < shard {
            missing.push(next..=shard - 1);
        }
        next = shard.saturating_add(1);
    }
    missing
}
