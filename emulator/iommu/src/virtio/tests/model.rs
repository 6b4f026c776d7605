//! The unit against a map of pages.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Of a domain: for each page where it leads, its rights, and which mapping
/// it belongs to.
type Pages = BTreeMap<u64, (u64, u32, u64)>;

#[derive(Clone, Debug, Default)]
struct Model {
    domains: BTreeMap<u32, Pages>,
    of: BTreeMap<RequesterId, u32>,
    maps: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Attach(u32, RequesterId),
    Detach(u32, RequesterId),
    Map(u32, u64, u64, u64, u32),
    Unmap(u32, u64, u64),
    Access(RequesterId, u64, bool),
    Reset,
    SaveAndRestore,
}

fn step() -> impl Strategy<Value = Step> {
    let domain = || 0..3u32;
    let device = || prop::sample::select(vec![GPU, OTHER]);
    let page = || 0..24u64;
    prop_oneof![
        3 => (domain(), device()).prop_map(|(d, e)| Step::Attach(d, e)),
        1 => (domain(), device()).prop_map(|(d, e)| Step::Detach(d, e)),
        8 => (domain(), page(), 1..6u64, 0..PAGES, 0..4u32)
            .prop_map(|(d, p, n, to, flags)| Step::Map(d, p, n, to, flags)),
        4 => (domain(), page(), prop_oneof![1..8u64, Just(1 << 30)])
            .prop_map(|(d, p, n)| Step::Unmap(d, p, n)),
        8 => (device(), page(), any::<bool>()).prop_map(|(e, p, w)| Step::Access(e, p, w)),
        1 => Just(Step::Reset),
        1 => Just(Step::SaveAndRestore),
    ]
}

impl Model {
    fn leave(&mut self, device: RequesterId) {
        if let Some(domain) = self.of.remove(&device)
            && !self.of.values().any(|&of| of == domain)
        {
            self.domains.remove(&domain);
        }
    }

    fn attach(&mut self, domain: u32, device: RequesterId) -> Status {
        if self.of.get(&device) != Some(&domain) {
            self.leave(device);
            self.of.insert(device, domain);
            self.domains.entry(domain).or_default();
        }
        Status::Ok
    }

    fn detach(&mut self, domain: u32, device: RequesterId) -> Status {
        if self.of.get(&device) != Some(&domain) {
            return Status::Inval;
        }
        self.leave(device);
        Status::Ok
    }

    fn map(&mut self, domain: u32, page: u64, count: u64, to: u64, flags: u32) -> Status {
        let Some(pages) = self.domains.get_mut(&domain) else {
            return Status::NoEnt;
        };
        if pages.range(page..page + count).next().is_some() {
            return Status::Inval;
        }
        self.maps += 1;
        for n in 0..count {
            pages.insert(page + n, (to + n, flags, self.maps));
        }
        Status::Ok
    }

    fn unmap(&mut self, domain: u32, page: u64, count: u64) -> Status {
        let Some(pages) = self.domains.get_mut(&domain) else {
            return Status::NoEnt;
        };
        let inside = page..page + count;
        let of = |at: &u64| pages.get(at).map(|&(_, _, mapping)| mapping);
        let touched: Vec<u64> = inside.clone().take(64).filter_map(|at| of(&at)).collect();
        let split = |(at, &(_, _, mapping)): (&u64, &(u64, u32, u64))| {
            touched.contains(&mapping) && !inside.contains(at)
        };
        if pages.iter().any(split) {
            return Status::Range;
        }
        pages.retain(|at, _| !inside.contains(at));
        Status::Ok
    }

    fn access(&self, device: RequesterId, page: u64, write: bool) -> Result<u64, FaultReason> {
        let domain = self.of.get(&device).ok_or(FaultReason::ContextNotPresent)?;
        let (denied, right) = if write {
            (FaultReason::WriteDenied, code::MAP_WRITE)
        } else {
            (FaultReason::ReadDenied, code::MAP_READ)
        };
        match self.domains[domain].get(&page) {
            Some(&(to, flags, _)) if flags & right != 0 => Ok(to),
            _ => Err(denied),
        }
    }
}

proptest! {
    #[test]
    fn the_unit_agrees_with_a_map_of_pages(steps in prop::collection::vec(step(), 1..80)) {
        let w = World::new(Scenario::for_test());
        let mut model = Model::default();
        let mut faults = 0;
        for step in steps {
            match step {
                Step::Attach(domain, device) => {
                    prop_assert_eq!(w.attach(domain, device), model.attach(domain, device));
                }
                Step::Detach(domain, device) => {
                    let status = w.send(&detach(domain, device));
                    prop_assert_eq!(status, model.detach(domain, device));
                }
                Step::Map(domain, page, count, to, flags) => {
                    let request = map(domain, span(page, count), to * PAGE_SIZE, flags);
                    let wanted = model.map(domain, page, count, to, flags);
                    prop_assert_eq!(w.send(&request), wanted);
                }
                Step::Unmap(domain, page, count) => {
                    let wanted = model.unmap(domain, page, count);
                    prop_assert_eq!(w.unmap(domain, page, count), wanted);
                }
                Step::Access(device, page, write) => {
                    let wanted = model.access(device, page, write);
                    faults += u64::from(wanted.is_err());
                    let dma = w.unit.dma(w.env(), device, true);
                    let at = Iova(page * PAGE_SIZE);
                    let led = dma.peek_address(at, write).map(|gpa| gpa.0 / PAGE_SIZE);
                    prop_assert_eq!(led, wanted.ok());
                    let wanted = match wanted {
                        Ok(to) if to >= PAGES => Err(FaultReason::NotMemory),
                        other => other.map(drop),
                    };
                    let done = if write {
                        w.write(device, page)
                    } else {
                        w.read(device, page).map(drop)
                    };
                    prop_assert_eq!(done, wanted);
                }
                Step::Reset => {
                    w.unit.reset(w.env());
                    model = Model { maps: model.maps, ..Model::default() };
                }
                Step::SaveAndRestore => {
                    let state = w.unit.save();
                    w.unit.set_bypass(w.env(), true);
                    w.unit.reset(w.env());
                    w.unit.restore(&state);
                    prop_assert_eq!(w.unit.save(), state);
                }
            }
            prop_assert_eq!(w.unit.faults(), faults);
            for device in [GPU, OTHER] {
                let mapped = w.unit.mappings(w.env(), device);
                let mapped: u64 = mapped.iter().map(|m| m.length / PAGE_SIZE).sum();
                let domain = model.of.get(&device).and_then(|of| model.domains.get(of));
                prop_assert_eq!(mapped, domain.map_or(0, |pages| pages.len() as u64));
            }
        }
    }
}
