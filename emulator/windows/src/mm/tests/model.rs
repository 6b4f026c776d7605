//! Random sequences of calls against a small obvious model: which frames
//! somebody owns, and which are mapped.
//!
//! The driver of this test frees nothing under a mapping or a lock of its
//! own that Windows does not release itself: there Windows leaves a hole, and
//! so does this crate.

use crate::call::Outcome;
use crate::mm::testing::{FIRST, RAM, TestMachine, invoke, state_with_quarantine};
use crate::mm::{Frame, Mdl, State};
use crate::platform::Platform;
use journal::event::Event;
use memory::{Gva, PAGE_SIZE, Pfn};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// MM_ANY_NODE_OK.
const ANY_NODE: u64 = 0x8000_0000;
/// Who frees what the device reaches breaks this rule.
const PINNED: &str = "mdl-device-mapped";
/// The test's own memory.
const OWN: Gva = Gva(0xffff_8000_0000_0000);

#[derive(Clone, Copy, Debug)]
enum Step {
    Pages(u64),
    /// As many of them as there are in the lowest quarter of memory.
    Partial(u64),
    Pool(u64),
    Contiguous(u64),
    /// The same, by MmAllocateContiguousNodeMemory.
    ContiguousNode(u64),
    /// The same, by MmAllocateContiguousMemoryEx.
    ContiguousEx(u64),
    /// An MDL for a pool block.
    PoolMdl(usize),
    Map(usize),
    Unmap(usize),
    MapForUser(usize),
    UnmapForUser(usize),
    Lock(usize),
    Unlock(usize),
    /// A locked MDL begins a page later, if there is one.
    Advance(usize),
    /// An MDL made with its pages does not: must stop.
    AdvanceWrongly(usize),
    /// The device reaches a locked MDL, or no more.
    Pin(usize),
    Unpin(usize),
    /// Free it as what it is; a second time must stop.
    Free(usize),
    /// Free the structure of an MDL.
    FreeStructure(usize),
    /// Free it as what it is not: must stop.
    FreeWrongly(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = any::<usize>;
    prop_oneof![
        (1u64..20).prop_map(Step::Pages),
        (1u64..400).prop_map(Step::Partial),
        (1u64..20_000).prop_map(Step::Pool),
        (1u64..20_000).prop_map(Step::Contiguous),
        (1u64..20_000).prop_map(Step::ContiguousNode),
        (1u64..20_000).prop_map(Step::ContiguousEx),
        which().prop_map(Step::PoolMdl),
        which().prop_map(Step::Map),
        which().prop_map(Step::Unmap),
        which().prop_map(Step::MapForUser),
        which().prop_map(Step::UnmapForUser),
        which().prop_map(Step::Lock),
        which().prop_map(Step::Unlock),
        which().prop_map(Step::Advance),
        which().prop_map(Step::AdvanceWrongly),
        which().prop_map(Step::Pin),
        which().prop_map(Step::Unpin),
        which().prop_map(Step::Free),
        which().prop_map(Step::FreeStructure),
        which().prop_map(Step::FreeWrongly),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Pages for an MDL, which has its own entry.
    Pages,
    Pool,
    Contiguous,
    /// The structure of an MDL, itself pool.
    Structure,
}

/// Something that was allocated.
#[derive(Clone, Debug)]
struct Object {
    kind: Kind,
    /// Of the memory, or of the MDL.
    address: u64,
    frames: Vec<Pfn>,
    live: bool,
    /// System address of the MDL.
    mapped: Option<u64>,
    /// User address of the MDL.
    user: Option<u64>,
    locked: bool,
    /// The device reaches it.
    pinned: bool,
    /// Pages that the MDL of a pool block describes.
    left: u64,
    /// The pool block that the MDL describes.
    block: Option<usize>,
}

struct Rig {
    state: State,
    machine: TestMachine,
    objects: Vec<Object>,
}

impl Rig {
    fn call(&mut self, name: &str, arguments: &[u64]) -> Outcome {
        invoke(&mut self.state, &mut self.machine, name, arguments)
    }

    fn value(&mut self, name: &str, arguments: &[u64]) -> u64 {
        match self.call(name, arguments) {
            Outcome::Return(value) => value,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// The call must stop, and change nothing.
    fn stops(&mut self, name: &str, address: u64) {
        let before = self.state.clone();
        let outcome = self.call(name, &[address]);
        assert!(matches!(outcome, Outcome::Stop(_)), "{name}: {outcome:?}");
        assert_eq!(self.state, before, "{name} stopped and did something");
    }

    /// Note what was allocated at `address`; nothing if there was no memory.
    fn add(&mut self, kind: Kind, address: u64, frames: Vec<Pfn>) {
        if address != 0 {
            self.objects.push(Object {
                kind,
                address,
                frames,
                live: true,
                mapped: None,
                user: None,
                locked: false,
                pinned: false,
                left: 0,
                block: None,
            });
        }
    }

    /// The frames that are mapped from `address` to the next hole.
    fn frames_at(&self, address: u64) -> Vec<Pfn> {
        (0..)
            .map_while(|page| {
                let at = Gva(address).page_base().0 + page * PAGE_SIZE;
                self.machine.translate(Gva(at)).map(Pfn::from)
            })
            .collect()
    }

    /// One of those that `wanted` says.
    fn pick(&self, which: usize, wanted: impl Fn(&Object) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.objects.len())
            .filter(|&index| wanted(&self.objects[index]))
            .collect();
        (!all.is_empty()).then(|| all[which % all.len()])
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pages(pages) | Step::Partial(pages) => {
                let bytes = pages * PAGE_SIZE;
                let high = match step {
                    Step::Partial(_) => RAM / 4 * PAGE_SIZE - 1,
                    _ => u64::MAX,
                };
                let mdl = self.value("MmAllocatePagesForMdl", &[0, high, 0, bytes]);
                if mdl != 0 {
                    let read = Mdl::read(&self.machine, Gva(mdl)).unwrap();
                    let frames = read.frames(&self.machine).unwrap();
                    let own = self.frames_at(mdl);
                    self.add(Kind::Structure, mdl, own);
                    self.add(Kind::Pages, mdl, frames);
                }
            }
            Step::Pool(bytes) => {
                let at = self.value("ExAllocatePool2", &[0x40, bytes, 1]);
                let frames = self.frames_at(at);
                self.add(Kind::Pool, at, frames);
            }
            Step::Contiguous(bytes) => {
                let at = self.value("MmAllocateContiguousMemory", &[bytes, u64::MAX]);
                let frames = self.frames_at(at);
                self.add(Kind::Contiguous, at, frames);
            }
            Step::ContiguousNode(bytes) => {
                let arguments = [bytes, 0, u64::MAX, 0, 4, ANY_NODE];
                let at = self.value("MmAllocateContiguousNodeMemory", &arguments);
                let frames = self.frames_at(at);
                self.add(Kind::Contiguous, at, frames);
            }
            Step::ContiguousEx(bytes) => {
                let (size, base) = (OWN.0, OWN.0 + 8);
                self.machine.write_u64(Gva(size), bytes).unwrap();
                let arguments = [size, 0, u64::MAX, 0, ANY_NODE, 4, 0, 1, 0, base];
                if self.value("MmAllocateContiguousMemoryEx", &arguments) == 0 {
                    let at = self.machine.read_u64(Gva(base)).unwrap();
                    let frames = self.frames_at(at);
                    self.add(Kind::Contiguous, at, frames);
                }
            }
            Step::PoolMdl(which) => {
                if let Some(block) = self.pick(which, |o| o.kind == Kind::Pool && o.live) {
                    let address = self.objects[block].address;
                    let pages = self.objects[block].frames.len() as u64;
                    let bytes = (pages - 1) * PAGE_SIZE + 1;
                    let mdl = self.value("IoAllocateMdl", &[address, bytes, 0, 0, 0]);
                    let own = self.frames_at(mdl);
                    self.add(Kind::Structure, mdl, own);
                    if mdl != 0 {
                        let object = self.objects.last_mut().unwrap();
                        object.block = Some(block);
                        object.left = pages;
                    }
                }
            }
            Step::Lock(which) => {
                let has_block = |o: &Object| o.block.is_some_and(|b| self.objects[b].live);
                let unlocked = |o: &Object| has_block(o) && o.live && !o.locked;
                if let Some(index) = self.pick(which, unlocked) {
                    let mdl = self.objects[index].address;
                    self.value("MmProbeAndLockPages", &[mdl, 0, 1]);
                    self.objects[index].locked = true;
                }
            }
            Step::Unlock(which) => {
                if let Some(index) = self.pick(which, |o| o.block.is_some() && o.live) {
                    let object = &mut self.objects[index];
                    let (mdl, locked, pinned) = (object.address, object.locked, object.pinned);
                    object.locked = false;
                    object.mapped = None;
                    if locked {
                        let before = self.told();
                        self.value("MmUnlockPages", &[mdl]);
                        assert_eq!(self.told() - before, usize::from(pinned));
                    } else {
                        self.stops("MmUnlockPages", mdl);
                    }
                }
            }
            Step::Advance(which) => {
                if let Some(index) = self.pick(which, |o| o.locked && o.live && o.user.is_none()) {
                    let mdl = self.objects[index].address;
                    let status = self.value("MmAdvanceMdl", &[mdl, PAGE_SIZE]);
                    let object = &mut self.objects[index];
                    if object.left > 1 {
                        assert_eq!(status, 0);
                        object.left -= 1;
                        object.mapped = object.mapped.map(|at| at + PAGE_SIZE);
                    } else {
                        assert_eq!(status, 0xc000_00f0);
                    }
                }
            }
            Step::AdvanceWrongly(which) => {
                let structures: Vec<u64> = self
                    .objects
                    .iter()
                    .filter(|o| o.kind == Kind::Structure && o.live)
                    .map(|o| o.address)
                    .collect();
                let made = |o: &Object| {
                    let there = o.live && structures.contains(&o.address);
                    o.kind == Kind::Pages && there && o.frames.len() > 1
                };
                if let Some(index) = self.pick(which, made) {
                    let (before, mdl) = (self.state.clone(), self.objects[index].address);
                    let outcome = self.call("MmAdvanceMdl", &[mdl, PAGE_SIZE]);
                    assert!(matches!(outcome, Outcome::Stop(_)), "{outcome:?}");
                    assert_eq!(self.state, before);
                }
            }
            Step::Pin(which) => {
                if let Some(index) = self.pick(which, |o| o.locked && o.live && !o.pinned) {
                    let mdl = Gva(self.objects[index].address);
                    let read = Mdl::read(&self.machine, mdl).unwrap();
                    let frames = read.frames(&self.machine).unwrap();
                    self.state.pin_for_device(mdl, &frames);
                    self.objects[index].pinned = true;
                }
            }
            Step::Unpin(which) => {
                if let Some(index) = self.pick(which, |o| o.pinned) {
                    self.unpin(index);
                }
            }
            Step::Map(which) => {
                let unmapped = |o: &Object| {
                    o.live && o.mapped.is_none() && (o.kind == Kind::Pages || o.locked)
                };
                if let Some(index) = self.pick(which, unmapped) {
                    let mdl = self.objects[index].address;
                    let name = "MmMapLockedPagesSpecifyCache";
                    let at = self.value(name, &[mdl, 0, 1, 0, 0, 16]);
                    self.objects[index].mapped = Some(at);
                }
            }
            Step::Unmap(which) => {
                if let Some(index) = self.pick(which, |o| o.mapped.is_some()) {
                    let mdl = self.objects[index].address;
                    let at = self.objects[index].mapped.take().unwrap();
                    self.value("MmUnmapLockedPages", &[at, mdl]);
                }
            }
            Step::MapForUser(which) => {
                let unmapped =
                    |o: &Object| o.live && o.user.is_none() && (o.kind == Kind::Pages || o.locked);
                if let Some(index) = self.pick(which, unmapped) {
                    let mdl = self.objects[index].address;
                    let name = "MmMapLockedPagesSpecifyCache";
                    let at = self.value(name, &[mdl, 1, 1, 0, 0, 16]);
                    self.objects[index].user = Some(at);
                }
            }
            Step::UnmapForUser(which) => {
                if let Some(index) = self.pick(which, |o| o.user.is_some()) {
                    let mdl = self.objects[index].address;
                    let at = self.objects[index].user.take().unwrap();
                    self.value("MmUnmapLockedPages", &[at, mdl]);
                    let again = self.call("MmUnmapLockedPages", &[at, mdl]);
                    assert!(matches!(again, Outcome::Stop(_)), "{again:?}");
                }
            }
            Step::Free(which) => self.free(which),
            Step::FreeStructure(which) => {
                if let Some(index) = self.pick(which, |o| o.kind == Kind::Structure) {
                    self.free_structure(index);
                }
            }
            Step::FreeWrongly(which) => {
                if let Some(index) = self.pick(which, |o| o.kind != Kind::Pages && o.live) {
                    let address = self.objects[index].address;
                    match self.objects[index].kind {
                        Kind::Contiguous => self.stops("ExFreePool", address),
                        _ => self.stops("MmFreeContiguousMemory", address),
                    }
                }
            }
        }
    }

    fn unpin(&mut self, index: usize) {
        let object = &mut self.objects[index];
        object.pinned = false;
        self.state.unpin_for_device(Gva(object.address));
    }

    /// How often it was told that something went which the device reaches.
    fn told(&self) -> usize {
        let told = |event: &Event| matches!(event, Event::Breach(b) if b.rule == PINNED);
        self.machine.events().iter().filter(|&e| told(e)).count()
    }

    fn free(&mut self, which: usize) {
        let Some(index) = self.pick(which, |o| o.kind != Kind::Structure) else {
            return;
        };
        let Object {
            kind,
            address,
            live,
            ..
        } = self.objects[index];
        let used = self
            .objects
            .iter()
            .any(|o| o.block == Some(index) && (o.locked || o.user.is_some()));
        let structure = |o: &Object| o.kind == Kind::Structure && o.address == address && o.live;
        let name = match kind {
            Kind::Pages if !self.objects.iter().any(structure) => return,
            Kind::Pages if self.objects[index].user.is_some() => return,
            Kind::Pages => "MmFreePagesFromMdl",
            Kind::Pool if used => return,
            Kind::Pool => "ExFreePool",
            _ => "MmFreeContiguousMemory",
        };
        // Its address may be another object's by now.
        let again = self.objects.iter().any(|o| o.address == address && o.live);
        if live {
            self.value(name, &[address]);
            self.objects[index].live = false;
            self.objects[index].mapped = None;
        } else if !again || kind == Kind::Pages {
            self.stops(name, address);
        }
    }

    /// The structure of an MDL, when its pages are freed or unlocked.
    fn free_structure(&mut self, index: usize) {
        let Object {
            address,
            live,
            locked,
            block,
            user,
            ..
        } = self.objects[index];
        let name = match block {
            Some(_) => "IoFreeMdl",
            None => "ExFreePool",
        };
        let pages = |o: &Object| o.kind == Kind::Pages && o.address == address && o.live;
        if live && !locked && user.is_some() {
            self.stops(name, address);
        } else if live && !locked && !self.objects.iter().any(pages) {
            if self.objects[index].pinned {
                self.unpin(index);
            }
            self.value(name, &[address]);
            self.objects[index].live = false;
        }
    }

    fn check(&self) {
        let mut owners = BTreeMap::new();
        for (index, object) in self.objects.iter().enumerate().filter(|(_, o)| o.live) {
            for &frame in &object.frames {
                assert_eq!(
                    owners.insert(frame, index),
                    None,
                    "{frame:?} has two owners"
                );
            }
        }
        let mut ids = BTreeMap::new();
        for frame in (FIRST..RAM).map(Pfn) {
            match (self.state.frame(frame), owners.get(&frame)) {
                (Some(Frame::Owned(id)), Some(owner)) => {
                    assert_eq!(ids.entry(id).or_insert(owner), &owner, "one id, two owners");
                }
                (Some(Frame::Free | Frame::Quarantined), None) => {}
                (state, owner) => panic!("{frame:?} is {state:?}, owned by {owner:?}"),
            }
        }
        // Below FIRST lies what the test itself mapped.
        for (frame, _) in self.machine.tables.values() {
            let mapped = frame.0 < FIRST || owners.contains_key(frame);
            assert!(mapped, "{frame:?} is mapped and nobody's");
        }
    }
}

proptest! {
    #[test]
    fn no_frame_is_free_and_owned_or_free_and_mapped(
        steps in prop::collection::vec(any_step(), 1..60),
        quarantine in prop_oneof![Just(0u64), 0u64..200],
    ) {
        let mut rig = Rig {
            state: state_with_quarantine(quarantine),
            machine: TestMachine::new(),
            objects: Vec::new(),
        };
        rig.machine.map(OWN, Pfn(2), crate::Protection::WRITE).unwrap();
        for step in steps {
            rig.step(step);
            rig.check();
        }
    }
}
