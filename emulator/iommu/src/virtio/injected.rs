//! What a scenario makes of the unit: requests that fail, mappings that
//! outlive their UNMAP, translations read wrongly, faults not reported.
//!
//! To this unit an UNMAP is what an invalidation is to VT-d, so faults at
//! `descriptor` are injected there, as `iotlb`.

use super::remapper::Remapper;
use super::request::Request;
use super::space::Range;
use crate::spec::virtio::Status;
use crate::translate::{Env, Request as Access, Translation};
use memory::{Gpa, PAGE_SIZE};
use scenario::{Descriptor, Fault, Injection, Site, SiteKind, What};

/// Ranges that are stale at once; of further ones all is forgotten in time.
const MAX_STALE: usize = 1024;

/// A mapping that a driver believes to be gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stale {
    domain: u32,
    first: u64,
    range: Range,
    /// When it is forgotten after all, virtual nanoseconds.
    due: Option<u64>,
}

impl Stale {
    /// What is left of it without `first..=last`: below, and above.
    fn without(self, first: u64, last: u64) -> [Option<Self>; 2] {
        let (begin, end) = (self.first, self.range.last);
        if begin > last || end < first {
            return [Some(self), None];
        }
        let (mut below, mut above) = (self.clone(), self);
        below.range.last = first.saturating_sub(1);
        above.first = last.saturating_add(1);
        above.range.physical += above.first.saturating_sub(begin);
        [
            (begin < first).then_some(below),
            (last < end).then_some(above),
        ]
    }
}

/// What an UNMAP does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unmapping {
    /// Does what is in flight land first?
    pub lands: bool,
    /// From which address on the mappings stay in reach, and until when.
    keeps: Option<(u64, Option<u64>)>,
}

impl Unmapping {
    /// As it is to be (virtio 1.2 §5.13.6.4).
    const WHOLE: Self = Self {
        lands: true,
        keeps: None,
    };
}

/// The answer that a scenario gives to a request instead of doing it.
pub(super) fn refused(env: Env<'_>, request: &Request) -> Option<Status> {
    let (kind, iova, status) = match *request {
        Request::Attach { .. } => (SiteKind::Attach, None, Status::DevErr),
        Request::Map { first, last, .. } => (SiteKind::Map, Some((first, last)), Status::NoMem),
        Request::Unmap { first, last, .. } => {
            (SiteKind::Unmap, Some((first, last)), Status::DevErr)
        }
        _ => return None,
    };
    if !env.scenario.has_faults(kind) {
        return None;
    }
    let site = Site {
        iova,
        ..Site::new(kind)
    };
    env.scenario.inject(&site).map(|_| status)
}

/// How a scenario has an UNMAP done.
pub(super) fn unmapping(env: Env<'_>, first: u64, last: u64) -> Unmapping {
    if !env.scenario.has_faults(SiteKind::Descriptor) {
        return Unmapping::WHOLE;
    }
    let injection = env.scenario.inject(&Site {
        descriptor: Some(Descriptor::Iotlb),
        iova: Some((first, last)),
        ..Site::new(SiteKind::Descriptor)
    });
    let keeps = |from, until| Unmapping {
        keeps: Some((from, until)),
        ..Unmapping::WHOLE
    };
    match injection {
        Some(Injection {
            outcome: What::Drop,
            ..
        }) => Unmapping {
            // What is not done waits for nothing either.
            lands: false,
            ..keeps(first, None)
        },
        Some(Injection {
            outcome: What::Delay,
            ns,
            ..
        }) => Unmapping {
            lands: false,
            ..keeps(first, Some(env.scenario.now().saturating_add(ns)))
        },
        Some(Injection {
            outcome: What::WrongGranularity,
            ..
        }) => keeps(first.saturating_add(PAGE_SIZE), None),
        Some(Injection {
            outcome: What::CompleteEarly,
            ..
        }) => Unmapping {
            lands: false,
            ..Unmapping::WHOLE
        },
        _ => Unmapping::WHOLE,
    }
}

/// A translation as a scenario has it; `None`: it is not there.
pub(super) fn found(env: Env<'_>, access: &Access, found: Translation) -> Option<Translation> {
    if !env.scenario.has_faults(SiteKind::Entry) {
        return Some(found);
    }
    let (context, length) = (access.context.0, u64::from(access.length));
    let site = Site::of_access(
        SiteKind::Entry,
        context,
        access.iova.0,
        length,
        access.write,
    );
    // There are no reserved bits in a mapping of this unit.
    let can = |fault: &Fault| fault.outcome != What::ReservedBits;
    match env.scenario.inject_where(&site, can).map(|i| i.outcome) {
        None => Some(found),
        Some(What::ReadOnly) if !access.write => Some(found),
        Some(_) => None,
    }
}

/// Is a fault kept for the driver?
pub(super) fn records(env: Env<'_>, access: &Access) -> bool {
    if !env.scenario.has_faults(SiteKind::FaultRecord) {
        return true;
    }
    let (context, iova) = (access.context.0, access.iova.0);
    let site = Site::of_access(SiteKind::FaultRecord, context, iova, 1, access.write);
    env.scenario.inject(&site).is_none()
}

impl Remapper {
    /// An UNMAP took these ranges away, or seems to have.
    pub(super) fn forget(
        &mut self,
        (domain, first, last): (u32, u64, u64),
        removed: Vec<(u64, Range)>,
        how: Unmapping,
    ) {
        // What is done now is done to what an earlier one left too.
        let left = std::mem::take(&mut self.stale).into_iter();
        let left = left.flat_map(|stale| match stale.domain == domain {
            true => stale.without(first, last),
            false => [Some(stale), None],
        });
        self.stale = left.flatten().take(MAX_STALE).collect();
        let Some((from, due)) = how.keeps else {
            return;
        };
        for (first, mut range) in removed {
            let begin = first.max(from);
            if begin > range.last || self.stale.len() >= MAX_STALE {
                continue;
            }
            range.physical += begin - first;
            let first = begin;
            self.stale.push(Stale {
                domain,
                first,
                range,
                due,
            });
        }
    }

    /// No domain has anything stale any more.
    pub(super) fn forget_all(&mut self) {
        self.stale.clear();
    }

    /// Forget what is stale and due.
    pub(super) fn catch_up(&mut self, now: u64) {
        self.stale
            .retain(|stale| stale.due.is_none_or(|due| due > now));
    }

    /// Where an access goes by what should be forgotten.
    pub(super) fn stale_hit(&self, domain: u32, access: &Access) -> Option<Translation> {
        let at = access.iova.0;
        let of = |stale: &&Stale| {
            stale.domain == domain && (stale.first..=stale.range.last).contains(&at)
        };
        let stale = self.stale.iter().find(of)?;
        stale.range.allows(access.write).then_some(Translation {
            gpa: Gpa(stale.range.physical + (at - stale.first)),
            generation: stale.range.generation,
            cached: true,
        })
    }
}
