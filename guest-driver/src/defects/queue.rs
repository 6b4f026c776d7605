//! What only a planted bug does to the [`queue`](super).

use core::sync::atomic::Ordering;

use super::Queue;
use crate::memory::Contiguous;
use crate::ring::{Layout, Ring};

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
