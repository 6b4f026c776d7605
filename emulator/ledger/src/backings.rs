//! Memory that the device keeps the address of: backings of resources, areas
//! of queues; and whose it was when the device was told.

use crate::finding::{QueueArea, QueuePart};
use journal::event::{ContextId, Segment, StackId};
use memory::{Iova, RequesterId};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// Pieces of one owner, of all resources and queues.
const MAX_PIECES: usize = 1 << 16;
/// Resources, and queues.
const MAX_HOLDERS: usize = 1 << 12;
/// Bytes of a descriptor (virtio 1.2 §2.7.5).
const DESCRIPTOR: u32 = 16;

/// A stretch of the device's addresses in memory of one owner.
#[derive(Clone, Copy, Debug, Hash)]
struct Piece {
    end: u64,
    /// `None` where it was nobody's.
    owner: Option<u32>,
}

/// What the device holds, by its first byte.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Held(BTreeMap<u64, Piece>);

impl Held {
    /// Bytes from `first` up to `end` belong to `owner`.
    pub(crate) fn push(&mut self, first: u64, end: u64, owner: Option<u32>) {
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

    fn piece(&self, address: u64) -> Option<Piece> {
        let (_, piece) = self.0.range(..=address).next_back()?;
        (address < piece.end).then_some(*piece)
    }

    fn owner(&self, address: u64) -> Option<u32> {
        self.piece(address)?.owner
    }
}

/// Who told the device of a backing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    /// The device that was told.
    pub(crate) device: RequesterId,
    /// The command.
    pub(crate) context: ContextId,
    /// Its doorbell.
    pub(crate) at: Option<(u64, StackId)>,
}

/// A queue that is enabled.
#[derive(Clone, Debug)]
struct Enabled {
    held: Held,
    areas: [Segment; 3],
    at: (u64, StackId),
}

impl Enabled {
    fn part(&self, address: u64) -> Option<QueuePart> {
        let parts = [
            QueuePart::DescriptorTable,
            QueuePart::AvailableRing,
            QueuePart::UsedRing,
        ];
        let within = |area: &Segment| {
            address
                .checked_sub(area.iova.0)
                .is_some_and(|offset| offset < u64::from(area.length))
        };
        let mut areas = self.areas.iter().zip(parts);
        areas.find_map(|(area, part)| within(area).then_some(part))
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backings {
    resources: BTreeMap<u32, (Held, Attached)>,
    queues: BTreeMap<(RequesterId, u16), Enabled>,
    pieces: usize,
}

impl Backings {
    pub(crate) fn attach(&mut self, resource: u32, held: Held, attached: Attached) {
        self.detach(resource);
        if self.takes(self.resources.len(), &held) {
            self.resources.insert(resource, (held, attached));
        }
    }

    pub(crate) fn detach(&mut self, resource: u32) {
        if let Some((held, _)) = self.resources.remove(&resource) {
            self.pieces = self.pieces.saturating_sub(held.0.len());
        }
    }

    pub(crate) fn enable(
        &mut self,
        (device, queue): (RequesterId, u16),
        held: Held,
        areas: [Segment; 3],
        at: (u64, StackId),
    ) {
        if let Some(old) = self.queues.remove(&(device, queue)) {
            self.pieces = self.pieces.saturating_sub(old.held.0.len());
        }
        if self.takes(self.queues.len(), &held) {
            self.queues
                .insert((device, queue), Enabled { held, areas, at });
        }
    }

    fn takes(&mut self, holders: usize, held: &Held) -> bool {
        let room = holders < MAX_HOLDERS && self.pieces + held.0.len() <= MAX_PIECES;
        if room {
            self.pieces += held.0.len();
        }
        room
    }

    /// The device was reset: it has no queues and no resources.
    pub(crate) fn reset(&mut self, device: RequesterId) {
        self.queues.retain(|&(of, _), _| of != device);
        self.resources
            .retain(|_, (_, attached)| attached.device != device);
        let queues = self.queues.values().map(|queue| &queue.held);
        let resources = self.resources.values().map(|(held, _)| held);
        self.pieces = resources.chain(queues).map(|held| held.0.len()).sum();
    }

    /// Whose the backing at this address was when it was attached.
    pub(crate) fn of_resource(&self, resource: u32, address: u64) -> Option<u32> {
        self.resources.get(&resource)?.0.owner(address)
    }

    /// Who told the device that this address is the resource's backing.
    pub(crate) fn attached(&self, resource: u32, address: u64) -> Option<Attached> {
        let (held, attached) = self.resources.get(&resource)?;
        held.piece(address).map(|_| *attached)
    }

    fn queues(&self, device: RequesterId) -> impl Iterator<Item = (u16, &Enabled)> {
        let queues = self.queues.range((device, 0)..=(device, u16::MAX));
        queues
            .take(16)
            .map(|((_, queue), enabled)| (*queue, enabled))
    }

    /// Whose a queue's area at this address was when it was enabled.
    pub(crate) fn of_queue(&self, device: RequesterId, address: u64) -> Option<u32> {
        self.queues(device)
            .find_map(|(_, enabled)| enabled.held.owner(address))
    }

    /// The same of a queue's descriptor table, for an access that is one of a
    /// descriptor.
    pub(crate) fn of_descriptor(
        &self,
        device: RequesterId,
        address: u64,
        length: u32,
    ) -> Option<u32> {
        self.queues(device).find_map(|(_, enabled)| {
            let [table, _, _] = enabled.areas;
            let offset = address.checked_sub(table.iova.0)?;
            let is_it = length == DESCRIPTOR
                && offset < u64::from(table.length)
                && offset.is_multiple_of(DESCRIPTOR.into());
            is_it.then(|| enabled.held.owner(address)).flatten()
        })
    }

    /// Hash what the device holds, and whose it was.
    pub(crate) fn hash_owners(&self, hasher: &mut impl Hasher) {
        let Self {
            resources,
            queues,
            pieces,
        } = self;
        for (resource, (held, attached)) in resources {
            (resource, held, attached.device).hash(hasher);
        }
        for (queue, enabled) in queues {
            let Enabled { held, areas, at: _ } = enabled;
            (queue, held).hash(hasher);
            for area in areas {
                (area.iova, area.length).hash(hasher);
            }
        }
        (resources.len(), queues.len(), pieces).hash(hasher);
    }

    /// The area of a queue that an address is in, and who enabled the queue.
    pub(crate) fn area(
        &self,
        device: RequesterId,
        address: Iova,
    ) -> Option<(QueueArea, (u64, StackId))> {
        self.queues(device).find_map(|(queue, enabled)| {
            let part = enabled.part(address.0)?;
            Some((QueueArea { queue, part }, enabled.at))
        })
    }
}
