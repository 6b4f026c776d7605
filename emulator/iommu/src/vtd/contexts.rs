//! The context cache: an entry answers until it is invalidated, as an IOTLB
//! entry does (VT-d 6.2.2).

use memory::RequesterId;

/// What hardware keeps of a present and valid context entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Context {
    pub domain: u16,
    /// Levels of second-level tables; they are not walked for pass-through.
    pub levels: u8,
    /// Bits of address that it translates.
    pub bits: u8,
    pub pass_through: bool,
    /// FPD: its faults are not recorded.
    pub silent: bool,
    /// The top table.
    pub table: u64,
}

/// Direct-mapped by requester.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Contexts {
    slots: Vec<Option<(RequesterId, Context)>>,
}

const SLOTS: usize = 256;

impl Default for Contexts {
    fn default() -> Self {
        Self {
            slots: vec![None; SLOTS],
        }
    }
}

#[inline]
fn index(device: RequesterId) -> usize {
    usize::from(device.devfn() ^ device.bus())
}

impl Contexts {
    #[inline]
    pub fn find(&self, device: RequesterId) -> Option<&Context> {
        match self.slots.get(index(device)) {
            Some(Some((owner, context))) if *owner == device => Some(context),
            _ => None,
        }
    }

    pub fn insert(&mut self, device: RequesterId, context: Context) {
        if let Some(slot) = self.slots.get_mut(index(device)) {
            *slot = Some((device, context));
        }
    }

    /// Drop the entries that `doomed` picks; how many that was.
    pub fn drop_where(&mut self, doomed: impl Fn(RequesterId, &Context) -> bool) -> u32 {
        let mut dropped = 0;
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|(device, c)| doomed(*device, c)) {
                *slot = None;
                dropped += 1;
            }
        }
        dropped
    }
}
