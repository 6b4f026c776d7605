//! The device made to misbehave, by order: it accesses what it pleases, uses
//! what the driver took back, and keeps translations that are void. The
//! journal says of each such access that it was ordered.

use super::Board;
use crate::spec;
use gpu::VirtioGpu;
use iommu::Dma;
use journal::event::{Event, Outcome, Segment};
use memory::{Gpa, Iova, PAGE_SIZE};
use std::collections::BTreeMap;

/// Translations kept at once.
const MAX_HELD: usize = 1 << 12;
/// Backings remembered, and pages of each that are read again.
const MAX_FORMER: usize = 1 << 10;
const MAX_PAGES: usize = 256;
/// Bytes read of each page of a backing.
const READ: usize = 64;
/// Queues of the device.
const QUEUES: std::ops::Range<u16> = 0..2;

type Entries = Vec<(Iova, u32)>;

/// What a device that keeps to no rule remembers.
#[derive(Debug, Default)]
pub(super) struct Rogue {
    /// Backings as they are, and as they were when they were last taken away.
    live: BTreeMap<u32, Entries>,
    former: BTreeMap<u32, Entries>,
    /// The same of rings, by queue.
    rings: BTreeMap<u16, [Segment; 3]>,
    former_rings: BTreeMap<u16, [Segment; 3]>,
    /// Translations that are used whatever was unmapped, by page.
    held: BTreeMap<u64, Gpa>,
    /// It does no work.
    pub stalled: bool,
}

impl Rogue {
    /// The device did something: what the driver took back is remembered.
    pub fn see(&mut self, gpu: &VirtioGpu) {
        let same = {
            let mut live = self.live.iter();
            let known = |(id, mut entries): (u32, _)| {
                live.next().is_some_and(|(&was, old)| {
                    was == id && old.first().copied() == Iterator::next(&mut entries)
                })
            };
            gpu.backings().all(known) && live.next().is_none()
        };
        if !same {
            let now: BTreeMap<u32, Entries> = gpu
                .backings()
                .map(|(id, entries)| (id, entries.collect()))
                .collect();
            for (id, entries) in std::mem::take(&mut self.live) {
                if now.get(&id) != Some(&entries)
                    && (self.former.len() < MAX_FORMER || self.former.contains_key(&id))
                {
                    self.former.insert(id, entries);
                }
            }
            self.live = now;
        }
        for queue in QUEUES {
            let now = gpu.rings(queue);
            let was = self.rings.get(&queue).copied();
            if now == was {
                continue;
            }
            if let Some(was) = was {
                self.former_rings.insert(queue, was);
            }
            match now {
                Some(now) => self.rings.insert(queue, now),
                None => self.rings.remove(&queue),
            };
        }
    }
}

impl Board {
    /// A way to memory for an order.
    fn ordered(&mut self, detail: String) -> Dma<'_> {
        let (gpu, dma) = self.device();
        let context = gpu.order(dma, detail);
        dma.with_context(context)
    }

    /// Let the device do nothing, or work again.
    pub fn stall(&mut self, stalled: bool) {
        self.note(format!(
            "the device was ordered to {}",
            if stalled { "do nothing" } else { "work again" }
        ));
        self.rogue.stalled = stalled;
    }

    /// Access memory as the device does, whether a command asks for it or
    /// not.
    pub fn access(
        &mut self,
        iova: Iova,
        length: u32,
        data: Option<&[u8]>,
    ) -> Result<Vec<u8>, String> {
        let verb = if data.is_some() { "write" } else { "read" };
        let dma = self.ordered(format!("{verb} {length} bytes at {iova}"));
        let done = match data {
            Some(data) => dma.write(iova, data).map(|()| Vec::new()),
            None => {
                let length = (length as usize).min(spec::MAX_TRANSFER);
                let mut bytes = vec![0; length];
                dma.read(iova, &mut bytes).map(|()| bytes)
            }
        };
        done.map_err(|fault| fault.to_string())
    }

    /// Read again what backed a resource before the driver took that away.
    pub fn replay(&mut self, resource: u32) -> Result<String, String> {
        let Some(entries) = self.rogue.former.get(&resource).cloned() else {
            let known: Vec<u32> = self.rogue.former.keys().copied().collect();
            return Err(format!(
                "no backing of resource {resource} was taken away yet (of these: {known:?})"
            ));
        };
        let dma = self.ordered(format!("read the former backing of resource {resource}"));
        let pages = entries.iter().flat_map(|&(iova, length)| {
            let end = iova.0.saturating_add(length.into());
            std::iter::successors(Some(iova.0), |at| {
                (at & !(PAGE_SIZE - 1)).checked_add(PAGE_SIZE)
            })
            .take_while(move |&at| at < end)
        });
        let (mut reached, mut refused) = (0, 0);
        for page in pages.take(MAX_PAGES) {
            let room = (PAGE_SIZE - Iova(page).offset()) as usize;
            let mut bytes = [0; READ];
            let Some(bytes) = bytes.get_mut(..room.min(READ)) else {
                continue;
            };
            match dma.read(Iova(page), bytes) {
                Ok(()) => reached += 1,
                Err(_) => refused += 1,
            }
        }
        Ok(format!("{reached} pages reached, {refused} refused"))
    }

    /// Use the rings of a queue as they were before the driver's last reset:
    /// look for buffers, and write the used index, as it is, again.
    pub fn use_former_rings(&mut self, queue: u16) -> Result<String, String> {
        let Some([_, available, used]) = self.rogue.former_rings.get(&queue).copied() else {
            return Err(format!("queue {queue} has not been reset yet"));
        };
        let dma = self.ordered(format!(
            "use the rings that queue {queue} had before the reset"
        ));
        let at = |area: Segment, offset| area.iova.checked_add(offset);
        let (Some(available), Some(index)) = (at(available, 2), at(used, 2)) else {
            return Err("the rings leave the address space".to_owned());
        };
        let word = |fault: Result<(), iommu::Fault>| match fault {
            Ok(()) => "reached",
            Err(_) => "refused",
        };
        let mut bytes = [0; 2];
        let first = word(dma.read(available, &mut bytes));
        let second = word(dma.read(index, &mut bytes));
        let third = word(dma.write(index, &bytes));
        Ok(format!(
            "available index {first}, used index {second}, write of it {third}"
        ))
    }

    /// Keep the translations of a range, to use them after the driver unmaps
    /// it. How many pages that are.
    pub fn hold(&mut self, iova: Iova, length: u64) -> Result<usize, String> {
        let first = iova.page();
        let last = iova.0.saturating_add(length.saturating_sub(1)) / PAGE_SIZE;
        let mut held = 0;
        for page in (first..=last).take(MAX_HELD) {
            let (_, dma) = self.device();
            let at = Iova(page * PAGE_SIZE);
            let found = [false, true]
                .into_iter()
                .find_map(|write| dma.peek_address(at, write));
            if let Some(found) = found
                && self.rogue.held.len() < MAX_HELD
            {
                self.rogue.held.insert(page, found);
                held += 1;
            }
        }
        match held {
            0 => Err(format!("nothing is mapped at {iova}")),
            _ => Ok(held),
        }
    }

    /// Access memory by a translation that was kept, whatever was unmapped
    /// since; within one page.
    pub fn late(
        &mut self,
        iova: Iova,
        length: u32,
        data: Option<&[u8]>,
    ) -> Result<Vec<u8>, String> {
        if iova.offset() + u64::from(length) > PAGE_SIZE || length == 0 {
            return Err("give bytes of one page".to_owned());
        }
        let Some(held) = self.rogue.held.get(&iova.page()).copied() else {
            return Err(format!("no translation of {iova} was kept: hold it first"));
        };
        let verb = if data.is_some() { "write" } else { "read" };
        let dma = self.ordered(format!(
            "{verb} {length} bytes at {iova} by a translation that was kept"
        ));
        let gpa = Gpa(held.page_base().0 | iova.offset());
        let env = dma.env();
        env.journal().emit(Event::Access {
            context: dma.context(),
            device: dma.device(),
            iova,
            length,
            write: data.is_some(),
            outcome: Outcome::Done {
                gpa,
                // Of the mapping that is no more.
                generation: 0,
                cached: true,
            },
        });
        let mut bytes = vec![0; length as usize];
        let done = match data {
            Some(data) => env.memory.write(gpa, data).map(|()| Vec::new()),
            None => env.memory.read(gpa, &mut bytes).map(|()| bytes),
        };
        done.map_err(|error| error.to_string())
    }
}
