//! What a scenario makes of the unit: entries read wrongly, translations not
//! cached, descriptors lost, late, half done or done too early, records and
//! interrupts lost.

use super::Vtd;
use super::invalidate::IotlbTarget;
use crate::bus::Bus;
use crate::spec::descriptors as spec;
use crate::spec::tables::{ENTRY_READ, ENTRY_WRITE};
use crate::translate::{Env, Request};
use memory::{Iova, PAGE_SIZE};
use scenario::{Descriptor, Injection, Site, SiteKind, What};

/// Descriptors that are late at once; a further one is done in time.
const MAX_LATE: usize = 1024;
/// A reserved bit of a second-level entry: SNP, without ECAP.SC.
const RESERVED: u64 = 1 << 11;

fn of_request(kind: SiteKind, request: &Request) -> Site<'static> {
    let (context, length) = (request.context.0, u64::from(request.length));
    Site::of_access(kind, context, request.iova.0, length, request.write)
}

/// A leaf entry as the walk reads it.
pub(super) fn entry(env: Env<'_>, request: &Request, value: u64) -> u64 {
    if !env.scenario.has_faults(SiteKind::Entry) {
        return value;
    }
    let injection = env.scenario.inject(&of_request(SiteKind::Entry, request));
    match injection.map(|injection| injection.outcome) {
        Some(What::NotPresent) => value & !(ENTRY_READ | ENTRY_WRITE),
        Some(What::ReadOnly) => value & !ENTRY_WRITE,
        Some(What::ReservedBits) => value | RESERVED,
        _ => value,
    }
}

/// What becomes of a fault's record.
pub(super) fn record(env: Env<'_>, fault: &crate::fault::Fault) -> Option<What> {
    if !env.scenario.has_faults(SiteKind::FaultRecord) {
        return None;
    }
    let context = fault.context.0;
    let site = Site::of_access(SiteKind::FaultRecord, context, fault.iova.0, 1, fault.write);
    env.scenario
        .inject(&site)
        .map(|injection| injection.outcome)
}

/// What becomes of a descriptor.
pub(super) fn descriptor(env: Env<'_>, low: u64, high: u64) -> Option<Injection> {
    if !env.scenario.has_faults(SiteKind::Descriptor) {
        return None;
    }
    let kind = match spec::kind(low) {
        spec::CONTEXT => Descriptor::Context,
        spec::IOTLB => Descriptor::Iotlb,
        spec::WAIT => Descriptor::Wait,
        _ => return None,
    };
    let pages = (low >> spec::GRANULARITY) & 0b11 == 3;
    let range = (kind == Descriptor::Iotlb && pages).then(|| {
        let length = PAGE_SIZE << (high & spec::IOTLB_ADDRESS_MASK).min(40);
        let first = high & !(length - 1);
        (first, first.saturating_add(length - 1))
    });
    env.scenario.inject(&Site {
        descriptor: Some(kind),
        iova: range,
        ..Site::new(SiteKind::Descriptor)
    })
}

/// An invalidation as it is done.
pub(super) fn bend(mut target: IotlbTarget, outcome: Option<What>) -> IotlbTarget {
    match outcome {
        Some(What::WrongGranularity) => {
            if target.granularity != 3 {
                target.address = Iova(0);
            }
            target.granularity = 3;
            target.mask = 0;
        }
        Some(What::CompleteEarly) => {
            target.drain_reads = false;
            target.drain_writes = false;
        }
        _ => {}
    }
    target
}

impl Vtd {
    /// Is a translation cached? In an IOTLB of one entry it is alone.
    pub(super) fn may_cache(
        &mut self,
        env: Env<'_>,
        request: &Request,
        domain: u16,
        shift: u32,
    ) -> bool {
        if env.scenario.has_faults(SiteKind::Fill) {
            let injection = env.scenario.inject(&of_request(SiteKind::Fill, request));
            match injection.map(|injection| injection.outcome) {
                Some(What::NoneCached) => return false,
                Some(What::OneEntry) => {
                    self.iotlb.drop_all();
                }
                _ => {}
            }
        }
        let full = env.scenario.has_faults(SiteKind::Evict)
            && self.iotlb.would_replace(domain, request.iova, shift);
        let (first, length) = (request.iova.0, u64::from(request.length));
        let site = Site {
            iova: Some((first, first.saturating_add(length.saturating_sub(1)))),
            ..Site::new(SiteKind::Evict)
        };
        !full || env.scenario.inject(&site).is_none()
    }

    /// Do a descriptor `ns` later; false if it must be done now.
    pub(super) fn put_off(&mut self, env: Env<'_>, words: [u64; 2], ns: u64) -> bool {
        let room = self.late.len() < MAX_LATE;
        if room {
            let due = env.scenario.now().saturating_add(ns);
            self.late.push((due, words));
        }
        room
    }

    /// Do the descriptors whose time has come.
    pub(crate) fn catch_up(&mut self, env: Env<'_>, bus: &Bus) {
        if self.late.is_empty() {
            return;
        }
        let now = env.scenario.now();
        let mut due: Vec<(u64, [u64; 2])> = Vec::new();
        self.late.retain(|&(at, words)| {
            if at <= now {
                due.push((at, words));
            }
            at > now
        });
        due.sort_by_key(|&(at, _)| at);
        for (_, [low, high]) in due {
            // Whether it can be done was looked at when it was taken.
            self.obey(env, bus, [low, high], None);
        }
    }
}
