//! Memory that the device keeps the address of: backings of resources, areas
//! of queues; and whose it was when the device was told.

use memory::RequesterId;
use std::collections::BTreeMap;

/// Pieces of one owner, of all resources and queues.
const MAX_PIECES: usize = 1 << 16;
/// Resources, and queues.
const MAX_HOLDERS: usize = 1 << 12;

/// A stretch of the device's addresses in memory of one owner.
#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    owner: u32,
}

/// What the device holds, by its first byte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(BTreeMap<u64, Piece>);

impl Held {
    /// Bytes from `first` up to `end` belong to `owner`.
    pub(crate) fn push(&mut self, first: u64, end: u64, owner: u32) {
        if let Some((_, last)) = self.0.range_mut(..=first).next_back()
            && last.end == first
            && last.owner == owner
        {
            last.end = end;
            return;
        }
        if self.0.len() < MAX_PIECES {
            self.0.insert(first, Piece { end, owner });
        }
    }

    fn owner(&self, address: u64) -> Option<u32> {
        let (_, piece) = self.0.range(..=address).next_back()?;
        (address < piece.end).then_some(piece.owner)
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backings {
    resources: BTreeMap<u32, Held>,
    queues: BTreeMap<(RequesterId, u16), Held>,
    pieces: usize,
}

impl Backings {
    pub(crate) fn attach(&mut self, resource: u32, held: Held) {
        self.detach(resource);
        if self.takes(self.resources.len(), &held) {
            self.resources.insert(resource, held);
        }
    }

    pub(crate) fn detach(&mut self, resource: u32) {
        if let Some(held) = self.resources.remove(&resource) {
            self.pieces = self.pieces.saturating_sub(held.0.len());
        }
    }

    pub(crate) fn enable(&mut self, device: RequesterId, queue: u16, held: Held) {
        if let Some(old) = self.queues.remove(&(device, queue)) {
            self.pieces = self.pieces.saturating_sub(old.0.len());
        }
        if self.takes(self.queues.len(), &held) {
            self.queues.insert((device, queue), held);
        }
    }

    fn takes(&mut self, holders: usize, held: &Held) -> bool {
        let room = holders < MAX_HOLDERS && self.pieces + held.0.len() <= MAX_PIECES;
        if room {
            self.pieces += held.0.len();
        }
        room
    }

    /// The device was reset: it has no queues. What it forgets of resources
    /// is told.
    pub(crate) fn reset(&mut self, device: RequesterId) {
        self.queues.retain(|&(of, _), _| of != device);
        let queues = self.queues.values();
        self.pieces = self
            .resources
            .values()
            .chain(queues)
            .map(|held| held.0.len())
            .sum();
    }

    /// Whose the backing at this address was when it was attached.
    pub(crate) fn of_resource(&self, resource: u32, address: u64) -> Option<u32> {
        self.resources.get(&resource)?.owner(address)
    }

    /// Whose a queue's area at this address was when it was enabled.
    pub(crate) fn of_queue(&self, device: RequesterId, address: u64) -> Option<u32> {
        let queues = self.queues.range((device, 0)..=(device, u16::MAX));
        queues.take(16).find_map(|(_, held)| held.owner(address))
    }
}
