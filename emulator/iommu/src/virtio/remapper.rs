//! The part that translates: endpoints, domains, faults, and what each
//! request does to them.

use super::injected::{self, Stale};
use super::request::Request;
use super::space::{Range, Space};
use super::{DOMAIN_LAST, INPUT_LAST, PROPERTIES};
use crate::bus::Bus;
use crate::fault::{Fault, FaultReason};
use crate::mirror::{MAX_MAPPINGS, Mapping};
use crate::spec::virtio::{self as spec, Status, fault, feature, request as code};
use crate::tell;
use crate::translate::{Env, Request as Access, Translate, Translation, is_interrupt_address};
use memory::{Gpa, Iova, PAGE_SIZE, RequesterId};
use std::collections::{BTreeMap, VecDeque};

/// Faults that wait for a buffer of the driver's; a further one is lost to the
/// driver, and the journal says so.
const MAX_FAULTS: usize = 4096;
/// Where messages go: reserved for every endpoint.
const MSI_FIRST: u64 = 0xfee0_0000;
const MSI_LAST: u64 = 0xfeef_ffff;
const PAGE_MASK: u64 = PAGE_SIZE - 1;
/// All pages but the last, whose end no length can say.
const EVERYTHING: u64 = !PAGE_MASK;

type Done = Result<(), Status>;

/// A domain; it is there while an endpoint is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Domain {
    /// Everything is let through, to where it says.
    bypass: bool,
    space: Space,
}

/// Plain data; to save it is to clone it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Remapper {
    /// Every endpoint, with its domain.
    endpoints: BTreeMap<RequesterId, Option<u32>>,
    domains: BTreeMap<u32, Domain>,
    bypass: bool,
    /// Mappings made so far: the generation of the latest.
    maps: u32,
    waiting: VecDeque<[u8; fault::SIZE]>,
    faults: u64,
    /// What a scenario keeps in reach behind the driver's back.
    pub(super) stale: Vec<Stale>,
}

impl Remapper {
    pub fn new(endpoints: &[RequesterId]) -> Self {
        Self {
            endpoints: endpoints.iter().map(|&id| (id, None)).collect(),
            domains: BTreeMap::new(),
            bypass: false,
            maps: 0,
            waiting: VecDeque::new(),
            faults: 0,
            stale: Vec::new(),
        }
    }

    pub fn bypass(&self) -> bool {
        self.bypass
    }

    pub fn set_bypass(&mut self, env: Env<'_>, bus: &Bus, bypass: bool) {
        if self.bypass == bypass {
            return;
        }
        land(env, bus);
        for device in self.unattached() {
            self.tell_lost(env, device);
        }
        self.bypass = bypass;
        for device in self.unattached() {
            self.tell_reached(env, device);
        }
    }

    pub fn reset(&mut self, env: Env<'_>, bus: &Bus) {
        land(env, bus);
        let attached = self.endpoints.iter().filter(|(_, domain)| domain.is_some());
        let attached: Vec<RequesterId> = attached.map(|(&device, _)| device).collect();
        for device in attached {
            self.leave(env, device);
        }
        self.forget_all();
        self.waiting.clear();
    }

    pub fn next_fault(&self) -> Option<[u8; fault::SIZE]> {
        self.waiting.front().copied()
    }

    pub fn fault_reported(&mut self) {
        self.waiting.pop_front();
    }

    pub fn faults(&self) -> u64 {
        self.faults
    }

    pub fn mappings(&self, env: Env<'_>, device: RequesterId) -> Vec<Mapping> {
        match self.domain_of(device) {
            Some(domain) if !domain.bypass => {
                let ranges = domain.space.ranges();
                ranges.map(|(first, range)| mapping(first, range)).collect()
            }
            Some(_) => all_of_memory(env),
            None if self.passes_unattached(device) => all_of_memory(env),
            None => Vec::new(),
        }
    }

    /// PROBE: the properties, as far as there is room, and the status.
    pub fn probe(&self, endpoint: u32, room: usize) -> (Vec<u8>, Status) {
        let mut properties = vec![0; room.min(PROPERTIES)];
        if room < PROPERTIES {
            return (properties, Status::Inval);
        }
        if self.endpoint(endpoint).is_err() {
            return (properties, Status::NoEnt);
        }
        let fields = [
            &spec::PROPERTY_RESERVED_MEMORY.to_le_bytes()[..],
            &spec::RESERVED_MEMORY_LENGTH.to_le_bytes(),
            &[spec::RESERVED_MEMORY_MSI, 0, 0, 0],
            &MSI_FIRST.to_le_bytes(),
            &MSI_LAST.to_le_bytes(),
        ];
        for (to, from) in properties.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        (properties, Status::Ok)
    }

    /// Any other request. One that is refused changes nothing.
    pub(super) fn request(
        &mut self,
        env: Env<'_>,
        bus: &Bus,
        features: u64,
        request: Request,
    ) -> Done {
        self.catch_up(env.scenario.now());
        if let Some(status) = injected::refused(env, &request) {
            return Err(status);
        }
        match request {
            Request::Attach {
                domain,
                endpoint,
                flags,
                reserved,
            } => {
                let known = match features & feature::BYPASS_CONFIG {
                    0 => 0,
                    _ => code::ATTACH_BYPASS,
                };
                if reserved != 0 || flags & !known != 0 {
                    return Err(Status::Inval);
                }
                let bypass = flags & code::ATTACH_BYPASS != 0;
                self.attach((env, bus), domain, self.endpoint(endpoint)?, bypass)
            }
            Request::Detach { domain, endpoint } => {
                let device = self.endpoint(endpoint)?;
                if self.endpoints.get(&device) != Some(&Some(domain)) {
                    return Err(Status::Inval);
                }
                land(env, bus);
                self.leave(env, device);
                Ok(())
            }
            Request::Map {
                domain,
                first,
                last,
                physical,
                flags,
            } => {
                let mut known = code::MAP_READ | code::MAP_WRITE;
                if features & feature::MMIO != 0 {
                    known |= code::MAP_MMIO;
                }
                if flags & !known != 0 {
                    return Err(Status::Inval);
                }
                self.map(env, domain, (first, last), (physical, flags))
            }
            Request::Unmap { reserved, .. } if reserved != 0 => Err(Status::Inval),
            Request::Unmap {
                domain,
                first,
                last,
                ..
            } => self.unmap((env, bus), domain, first, last),
            // It has an answer of its own.
            Request::Probe { .. } => Err(Status::DevErr),
        }
    }

    fn attach(
        &mut self,
        (env, bus): (Env<'_>, &Bus),
        domain: u32,
        device: RequesterId,
        bypass: bool,
    ) -> Done {
        if domain > DOMAIN_LAST {
            return Err(Status::Range);
        }
        if self
            .domains
            .get(&domain)
            .is_some_and(|d| d.bypass != bypass)
        {
            return Err(Status::Inval);
        }
        if self.endpoints.get(&device) == Some(&Some(domain)) {
            return Ok(());
        }
        land(env, bus);
        // As if a DETACH came first (§5.13.6.2.2); it may be from nothing.
        self.leave(env, device);
        self.tell_lost(env, device);
        self.domains.entry(domain).or_insert_with(|| Domain {
            bypass,
            space: Space::default(),
        });
        self.endpoints.insert(device, Some(domain));
        self.tell_reached(env, device);
        Ok(())
    }

    /// Take an endpoint out of its domain, which goes with its last one.
    fn leave(&mut self, env: Env<'_>, device: RequesterId) {
        let Some(Some(domain)) = self.endpoints.get(&device).copied() else {
            return;
        };
        self.tell_lost(env, device);
        self.endpoints.insert(device, None);
        if !self.endpoints.values().any(|&of| of == Some(domain)) {
            self.domains.remove(&domain);
        }
        self.tell_reached(env, device);
    }

    fn map(
        &mut self,
        env: Env<'_>,
        number: u32,
        (first, last): (u64, u64),
        (physical, flags): (u64, u32),
    ) -> Done {
        if (first | physical | last.wrapping_add(1)) & PAGE_MASK != 0 || last > INPUT_LAST {
            return Err(Status::Range);
        }
        let length = last.checked_sub(first).ok_or(Status::Inval)?;
        physical.checked_add(length).ok_or(Status::Range)?;
        let mappings: usize = self.domains.values().map(|of| of.space.len()).sum();
        let domain = self.domains.get_mut(&number).ok_or(Status::NoEnt)?;
        if domain.bypass || (first <= MSI_LAST && last >= MSI_FIRST) {
            return Err(Status::Inval);
        }
        if mappings >= MAX_MAPPINGS {
            return Err(Status::NoMem);
        }
        let range = Range {
            last,
            physical,
            flags,
            generation: self.maps.wrapping_add(1).max(1),
        };
        if !domain.space.insert(first, range) {
            return Err(Status::Inval);
        }
        self.maps = range.generation;
        for device in self.members(number) {
            tell::mapped(env, device, &mapping(first, &range), range.generation);
        }
        Ok(())
    }

    fn unmap(&mut self, (env, bus): (Env<'_>, &Bus), number: u32, first: u64, last: u64) -> Done {
        let domain = self.domains.get_mut(&number).ok_or(Status::NoEnt)?;
        if domain.bypass || last < first {
            return Err(Status::Inval);
        }
        domain.space.may_remove(first, last)?;
        let how = injected::unmapping(env, first, last);
        if how.lands {
            land(env, bus);
        }
        let removed = domain.space.remove(first, last);
        let pages = |&(first, range): &(u64, Range)| (range.last - first) / PAGE_SIZE + 1;
        let dropped = removed.iter().map(pages).sum();
        self.forget((number, first, last), removed, how);
        // In whole pages, as what is in the range was.
        let begin = first & !PAGE_MASK;
        let length = (last - begin).saturating_add(PAGE_SIZE) & !PAGE_MASK;
        for device in self.members(number) {
            tell::unmapped(env, device, (Iova(begin), length), dropped);
        }
        Ok(())
    }

    fn endpoint(&self, number: u32) -> Result<RequesterId, Status> {
        let id = u16::try_from(number).map(RequesterId);
        id.ok()
            .filter(|id| self.endpoints.contains_key(id))
            .ok_or(Status::NoEnt)
    }

    /// The endpoints of a domain.
    fn members(&self, domain: u32) -> Vec<RequesterId> {
        let of = self.endpoints.iter().filter(|(_, of)| **of == Some(domain));
        of.map(|(&device, _)| device).collect()
    }

    fn unattached(&self) -> Vec<RequesterId> {
        let of = self.endpoints.iter().filter(|(_, domain)| domain.is_none());
        of.map(|(&device, _)| device).collect()
    }

    fn domain_of(&self, device: RequesterId) -> Option<&Domain> {
        let number = (*self.endpoints.get(&device)?)?;
        self.domains.get(&number)
    }

    /// Does this endpoint, which is in no domain, reach everything?
    fn passes_unattached(&self, device: RequesterId) -> bool {
        self.bypass && self.endpoints.contains_key(&device)
    }

    /// What every access asks first.
    #[inline]
    pub fn hit(&self, access: &Access) -> Option<Translation> {
        if is_interrupt_address(access.iova.0) {
            return None;
        }
        let through = Translation {
            gpa: Gpa(access.iova.0),
            generation: 0,
            cached: false,
        };
        let Some(domain) = self.domain_of(access.device) else {
            return self.passes_unattached(access.device).then_some(through);
        };
        if domain.bypass {
            return Some(through);
        }
        if !self.stale.is_empty()
            && let Some(Some(number)) = self.endpoints.get(&access.device)
            && let Some(stale) = self.stale_hit(*number, access)
        {
            return Some(stale);
        }
        let (range, gpa) = domain.space.find(access.iova.0)?;
        range.allows(access.write).then_some(Translation {
            gpa,
            generation: range.generation,
            cached: false,
        })
    }

    /// Is there no domain that could let an endpoint's access through?
    fn is_homeless(&self, device: RequesterId) -> bool {
        self.domain_of(device).is_none() && !self.passes_unattached(device)
    }

    /// Tell the journal of everything that an endpoint reaches from now on.
    fn tell_reached(&self, env: Env<'_>, device: RequesterId) {
        if !env.journal().is_enabled() {
            return;
        }
        match self.domain_of(device) {
            Some(domain) if !domain.bypass => {
                for (first, range) in domain.space.ranges() {
                    tell::mapped(env, device, &mapping(first, range), range.generation);
                }
            }
            _ => {
                for all in self.mappings(env, device) {
                    tell::mapped(env, device, &all, 0);
                }
            }
        }
    }

    /// And that it reaches it no longer.
    fn tell_lost(&self, env: Env<'_>, device: RequesterId) {
        if !env.journal().is_enabled() {
            return;
        }
        let lost = self.mappings(env, device).into_iter();
        let dropped: u64 = lost.map(|of| of.length / PAGE_SIZE).sum();
        if dropped != 0 {
            tell::unmapped(env, device, (Iova(0), EVERYTHING), dropped);
        }
    }
}

impl Translate for Remapper {
    fn translate(&mut self, env: Env<'_>, access: Access) -> Result<Translation, Fault> {
        self.catch_up(env.scenario.now());
        if let Some(hit) = self.hit(&access)
            && let Some(found) = injected::found(env, &access, hit)
        {
            return Ok(found);
        }
        // The journal has the reasons of VT-d.
        let (reason, report) = if is_interrupt_address(access.iova.0) {
            (FaultReason::InterruptRange, fault::MAPPING)
        } else if self.is_homeless(access.device) {
            (FaultReason::ContextNotPresent, fault::DOMAIN)
        } else if access.write {
            (FaultReason::WriteDenied, fault::MAPPING)
        } else {
            (FaultReason::ReadDenied, fault::MAPPING)
        };
        let recorded = self.waiting.len() < MAX_FAULTS && injected::records(env, &access);
        if recorded {
            self.waiting.push_back(fault_report(report, &access));
        }
        self.faults = self.faults.wrapping_add(1);
        let fault = Fault {
            device: access.device,
            context: access.context,
            iova: access.iova,
            write: access.write,
            reason,
        };
        tell::refused(env, &fault, recorded);
        Err(fault)
    }

    fn peek(&self, _env: Env<'_>, access: Access) -> Option<Gpa> {
        self.hit(&access).map(|found| found.gpa)
    }
}

/// Whoever is told that a mapping is gone must see nothing arrive by it
/// afterwards.
fn land(env: Env<'_>, bus: &Bus) {
    debug_assert_eq!(bus.views.get(), 0, "a device call is under way");
    bus.in_flight.borrow_mut().drain(env, true, true);
}

fn mapping(first: u64, range: &Range) -> Mapping {
    Mapping {
        iova: Iova(first),
        length: (range.last - first).saturating_add(1),
        target: Some(Gpa(range.physical)),
        read: range.allows(false),
        write: range.allows(true),
    }
}

fn all_of_memory(env: Env<'_>) -> Vec<Mapping> {
    let slots = env.memory.slots().into_iter();
    slots
        .map(|slot| Mapping {
            iova: Iova(slot.base.0),
            length: slot.size,
            target: Some(slot.base),
            read: true,
            write: true,
        })
        .collect()
}

fn fault_report(reason: u8, access: &Access) -> [u8; fault::SIZE] {
    let direction = if access.write {
        fault::WRITE
    } else {
        fault::READ
    };
    let fields = [
        &[reason, 0, 0, 0][..],
        &(direction | fault::ADDRESS).to_le_bytes(),
        &u32::from(access.device.0).to_le_bytes(),
        &[0; 4],
        &access.iova.0.to_le_bytes(),
    ];
    let mut report = [0; fault::SIZE];
    for (to, from) in report.iter_mut().zip(fields.concat()) {
        *to = from;
    }
    report
}
