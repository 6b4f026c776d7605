//! What only a planted bug does to the [`queue`](super).

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{GROUPS, Group, Queue, TIMEOUT};
use crate::defects::{Defect, is_chosen, shows};
use crate::memory::Contiguous;
use crate::ring::{Layout, Ring};
use crate::spec::gpu::CURSOR_QUEUE;

impl Queue {
    /// Goes on in other memory, of which the device knows nothing.
    #[inline(never)]
    pub fn move_rings(&self, layout: Layout, rings: &Contiguous) {
        let mut flight = self.flight.lock();
        let Some(flight) = flight.as_mut() else {
            return;
        };
        // SAFETY: page-aligned, zeroed, as long as the layout says.
        flight.ring = unsafe { Ring::new(rings.base, layout) };
        self.last_used.store(0, Ordering::Relaxed);
        self.used_index
            .store(flight.ring.used_index(), Ordering::Release);
    }
}

/// A group of the control queue became idle since the DPC last ran.
static COMPLETED: AtomicBool = AtomicBool::new(false);

impl Queue {
    /// Nothing of `group` is outstanding.
    pub fn is_idle(&self, group: usize) -> bool {
        self.groups[group % GROUPS]
            .outstanding
            .load(Ordering::Acquire)
            == 0
    }

    /// By its index the device is done with `group`, whatever the DPC knows;
    /// nothing else is outstanding.
    pub fn is_device_done(&self, group: usize) -> bool {
        let index = self.used_index.load(Ordering::Acquire);
        if index.is_null() {
            return true;
        }
        // SAFETY: the ring's memory while it is not null.
        let index = unsafe { ptr::read_volatile(index) };
        let new = index.wrapping_sub(self.last_used.load(Ordering::Relaxed));
        let outstanding = &self.groups[group % GROUPS].outstanding;
        u32::from(new) == outstanding.load(Ordering::Acquire)
    }

    /// Is the event of a group that became idle left to the DPC?
    pub(super) fn leaves_signal(&self) -> bool {
        let leaves = is_chosen(Defect::StaleSignal) && self.number != CURSOR_QUEUE;
        if leaves {
            COMPLETED.store(true, Ordering::Relaxed);
        }
        leaves
    }

    /// The DPC wakes whoever waits, though a thread that looked at the ring
    /// may have taken what was completed long ago.
    #[inline(never)]
    pub fn signal_completed(&self) {
        if COMPLETED.swap(false, Ordering::Relaxed) {
            for group in &self.groups {
                group.idle.set();
            }
        }
    }

    /// Waits for a group, and looks at the ring first: most commands are done
    /// by then. The planted bug: the signal may be that of commands which
    /// were taken in that way.
    #[inline(never)]
    pub(super) fn wait_for_signal(&self, group: &Group) {
        self.complete();
        while group.outstanding.load(Ordering::Acquire) != 0 {
            if !group.idle.wait(Some(TIMEOUT)) || shows(Defect::StaleSignal) {
                return;
            }
            group.idle.clear();
            self.complete();
        }
    }
}
