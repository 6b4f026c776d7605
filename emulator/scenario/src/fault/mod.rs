//! Fault plans: where, when, what. What must then be true is
//! [`crate::Verify`].
//!
//! A fault is injected at a *site*: a place in the emulator that asks
//! [`crate::Scenario::inject`] each time that it is passed. Sites of devices
//! and IOMMU ask [`crate::Scenario::has_faults`] first, so that a run without
//! a plan pays one load.

mod check;
mod engine;
mod pattern;
mod status;
#[cfg(test)]
mod tests;

use check::check;
pub(crate) use engine::{FaultState, draw};
pub use engine::{Injection, Shape, Site, Tally};
pub use pattern::matches;
pub use status::{Status, StatusError};

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Most faults of a plan.
pub const MAX_FAULTS: usize = 1_000;
/// Virtual nanoseconds of a delay that names none.
pub const DEFAULT_DELAY: u64 = 1_000_000;

/// Where a fault is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SiteKind {
    /// The driver calls a routine of Windows.
    Call,
    /// Windows maps pages for the device.
    Map,
    /// Windows takes pages from the device.
    Unmap,
    /// Windows attaches the device to its domain.
    Attach,
    /// The IOMMU reads a leaf entry of the second-level tables.
    Entry,
    /// The IOMMU caches a translation.
    Fill,
    /// The IOTLB is about to replace an entry by another.
    Evict,
    /// The IOMMU takes a descriptor from the invalidation queue.
    Descriptor,
    /// The IOMMU records a fault.
    FaultRecord,
    /// The device accesses memory, rings aside.
    Access,
    /// The device's interrupt message reaches the processor.
    Interrupt,
    /// The device takes a command from a virtqueue.
    Queue,
}

impl SiteKind {
    /// Every site, in the order of the schema.
    pub const ALL: [Self; 12] = [
        Self::Call,
        Self::Map,
        Self::Unmap,
        Self::Attach,
        Self::Entry,
        Self::Fill,
        Self::Evict,
        Self::Descriptor,
        Self::FaultRecord,
        Self::Access,
        Self::Interrupt,
        Self::Queue,
    ];

    /// Its name in a scenario file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Map => "map",
            Self::Unmap => "unmap",
            Self::Attach => "attach",
            Self::Entry => "entry",
            Self::Fill => "fill",
            Self::Evict => "evict",
            Self::Descriptor => "descriptor",
            Self::FaultRecord => "fault-record",
            Self::Access => "access",
            Self::Interrupt => "interrupt",
            Self::Queue => "queue",
        }
    }

    /// What can be done there.
    #[must_use]
    pub const fn outcomes(self) -> &'static [What] {
        use What as O;
        match self {
            Self::Call => &[O::Fail, O::Partial, O::LowMemory, O::Scattered, O::Above4G],
            Self::Map | Self::Unmap | Self::Attach => &[O::Fail],
            Self::Entry => &[O::NotPresent, O::ReadOnly, O::ReservedBits],
            Self::Fill => &[O::NoneCached, O::OneEntry],
            Self::Evict => &[O::Never],
            Self::Descriptor => &[O::Drop, O::Delay, O::WrongGranularity, O::CompleteEarly],
            Self::FaultRecord => &[O::Overflow, O::InterruptLost],
            Self::Access => &[O::Drop, O::Delay, O::Repeat, O::Torn, O::Redirect],
            Self::Interrupt => &[O::Spurious, O::Lost, O::Late],
            Self::Queue => &[O::DeviceReset, O::Unplug],
        }
    }

    /// Which filters make sense there.
    #[must_use]
    pub const fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Call | Self::Attach => &["function", "caller"],
            Self::Map | Self::Unmap => &["function", "caller", "iova"],
            Self::Entry | Self::Fill | Self::FaultRecord | Self::Access => {
                &["command", "iova", "direction"]
            }
            Self::Evict => &["iova"],
            Self::Descriptor => &["descriptor", "iova"],
            Self::Interrupt => &[],
            Self::Queue => &["queue"],
        }
    }

    pub(crate) const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It fails, a routine with `status` or as its documents say it fails
    /// for want of memory.
    Fail,
    /// At most `pages` pages are given.
    Partial,
    /// From now on no routine finds memory.
    LowMemory,
    /// No two of the pages given are neighbours.
    Scattered,
    /// Pages above 4 GiB are given, or none.
    #[serde(rename = "above-4g")]
    Above4G,
    /// The entry is read as not present.
    NotPresent,
    /// The entry is read without the right to write.
    ReadOnly,
    /// The entry is read with a reserved bit set.
    ReservedBits,
    /// The translation is used and not cached.
    NoneCached,
    /// The translation takes the place of all others: an IOTLB of one entry.
    OneEntry,
    /// What is cached stays, however old: the new translation is not cached.
    Never,
    /// It never happens: a descriptor is skipped; a write is lost, a read
    /// gives all ones.
    Drop,
    /// It happens `ns` later, and what waits for it does not wait.
    Delay,
    /// Less is invalidated than was asked for: one page.
    WrongGranularity,
    /// The invalidation completes with accesses in flight that it was to
    /// drain.
    CompleteEarly,
    /// There is no room for the record.
    Overflow,
    /// The record is there, and nobody is interrupted.
    InterruptLost,
    /// The access is made twice.
    Repeat,
    /// The second half of the access lands later.
    Torn,
    /// The access goes to `to` instead.
    Redirect,
    /// The interrupt comes once more, `ns` later, for no reason.
    Spurious,
    /// The interrupt never comes.
    Lost,
    /// The interrupt comes `ns` later.
    Late,
    /// The device stops with DEVICE_NEEDS_RESET in the middle of its work.
    DeviceReset,
    /// The device is gone from the bus.
    Unplug,
}

impl What {
    /// Its name in a scenario file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Partial => "partial",
            Self::LowMemory => "low-memory",
            Self::Scattered => "scattered",
            Self::Above4G => "above-4g",
            Self::NotPresent => "not-present",
            Self::ReadOnly => "read-only",
            Self::ReservedBits => "reserved-bits",
            Self::NoneCached => "none-cached",
            Self::OneEntry => "one-entry",
            Self::Never => "never",
            Self::Drop => "drop",
            Self::Delay => "delay",
            Self::WrongGranularity => "wrong-granularity",
            Self::CompleteEarly => "complete-early",
            Self::Overflow => "overflow",
            Self::InterruptLost => "interrupt-lost",
            Self::Repeat => "repeat",
            Self::Torn => "torn",
            Self::Redirect => "redirect",
            Self::Spurious => "spurious",
            Self::Lost => "lost",
            Self::Late => "late",
            Self::DeviceReset => "device-reset",
            Self::Unplug => "unplug",
        }
    }
}

/// Which way an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From memory.
    Read,
    /// To memory.
    Write,
}

/// A kind of descriptor of the invalidation queue (VT-d 6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Descriptor {
    /// Context-cache invalidation.
    Context,
    /// IOTLB invalidation.
    Iotlb,
    /// Invalidation wait.
    Wait,
}

impl Descriptor {
    /// Its name in a scenario file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Iotlb => "iotlb",
            Self::Wait => "wait",
        }
    }
}

/// A probability in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Probability(u32);

impl TryFrom<f64> for Probability {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value > 0.0 && value <= 1.0 {
            // At least the smallest there is.
            Ok(Self(((value * 1e6).round() as u32).max(1)))
        } else {
            Err(format!(
                "probability = {value}: give more than 0, at most 1"
            ))
        }
    }
}

impl From<Probability> for f64 {
    fn from(probability: Probability) -> Self {
        Self::from(probability.0) / 1e6
    }
}

/// The line of the file where a fault begins, from 1; no part of what it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line(pub usize);

impl PartialEq for Line {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Line {}

/// One fault of a plan, as a scenario file has it. Filters and triggers that
/// are given must all hold; with no trigger it is injected each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// Its name in reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where.
    pub at: SiteKind,
    /// What.
    #[serde(rename = "do")]
    pub outcome: What,

    /// In calls of routines of this name, a pattern with `*` and `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// With a function of the driver on the stack, as `module!function`, a
    /// pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// For GPU commands of this name, a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// At descriptors of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// Where any of these device addresses is touched, both ends included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iova: Option<(u64, u64)>,
    /// In accesses of this direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// At this queue of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u16>,

    /// Only the nth time, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Each time that is a multiple of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// After the first call of this routine of Windows, or of the driver; a
    /// pattern. Times are counted from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Within these virtual nanoseconds, both ends included. Times are
    /// counted within them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<(u64, u64)>,
    /// By chance, from the scenario's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<Probability>,

    /// What a failing routine returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Most pages of a partial allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
    /// Virtual nanoseconds of a delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<u64>,
    /// Where a redirected access goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,

    /// Where it stands in its file.
    #[serde(skip)]
    pub line: Line,
    /// Where the functions lie that `caller` names, once that is known.
    #[serde(skip)]
    pub callers: Vec<Range<u64>>,
}

impl Fault {
    /// A fault without filter or trigger.
    #[must_use]
    pub fn new(at: SiteKind, outcome: What) -> Self {
        Self {
            name: None,
            at,
            outcome,
            function: None,
            caller: None,
            command: None,
            descriptor: None,
            iova: None,
            direction: None,
            queue: None,
            nth: None,
            every: None,
            after: None,
            window: None,
            probability: None,
            status: None,
            pages: None,
            ns: None,
            to: None,
            line: Line::default(),
            callers: Vec::new(),
        }
    }

    /// Can it be?
    ///
    /// # Errors
    /// What is wrong, and what to write; the first thing.
    pub fn check(&self) -> Result<(), String> {
        check(self)
    }

    /// What it is called: by its own name, or by what it does.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("{} at {}", self.outcome.name(), self.at.name()),
        }
    }
}
