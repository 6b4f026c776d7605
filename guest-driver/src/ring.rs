//! The split virtqueue (virtio 1.2 §2.7), driver side, over memory it is
//! given. It knows nothing of Windows, so its tests run on the host.
//!
//! Descriptors are not chained through a free list: request slot `i` owns
//! descriptors `2i` (what the device reads) and `2i + 1` (what it writes),
//! so a used element's id says which slot it is.

use core::ptr;
use core::sync::atomic::{Ordering, fence};

/// Descriptor flag: `next` is valid (§2.7.5).
pub const DESC_NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const DESC_WRITE: u16 = 2;
/// Available ring flag: do not interrupt (§2.7.7).
pub const AVAIL_NO_INTERRUPT: u16 = 1;
/// Used ring flag: do not notify (§2.7.10).
pub const USED_NO_NOTIFY: u16 = 1;

/// Bytes of a descriptor: address u64, length u32, flags u16, next u16.
const DESCRIPTOR: usize = 16;
/// Bytes of flags and index before either ring's elements.
const RING_HEADER: usize = 4;
/// Bytes of a used element: id u32, length u32.
const USED_ELEMENT: usize = 8;

/// Where the three areas of a queue lie in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Entries of the queue, a power of two.
    pub size: u16,
    /// Offset of the available ring; the descriptor table is at 0.
    pub avail: usize,
    /// Offset of the used ring.
    pub used: usize,
    /// Bytes in all.
    pub bytes: usize,
}

impl Layout {
    /// The layout of a queue of `size` entries, or `None` when `size` is no
    /// power of two of at least 2 (§2.7: at most 32768).
    #[must_use]
    pub const fn new(size: u16) -> Option<Self> {
        if !size.is_power_of_two() || size < 2 {
            return None;
        }
        let entries = size as usize;
        let avail = entries * DESCRIPTOR;
        // The used ring is aligned to 4 (§2.7). It starts a cache line of
        // its own: the two sides write to different lines.
        let used = (avail + RING_HEADER + 2 * entries).next_multiple_of(64);
        Some(Self {
            size,
            avail,
            used,
            bytes: used + RING_HEADER + USED_ELEMENT * entries,
        })
    }

    /// Request slots: two descriptors each.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.size as usize / 2
    }
}

/// What the device reads for one request and where it may answer.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// Device address of the request.
    pub request: u64,
    /// Its bytes.
    pub request_bytes: u32,
    /// Device address of the response.
    pub response: u64,
    /// Its bytes.
    pub response_bytes: u32,
}

/// The driver's side of a queue.
#[derive(Debug)]
pub struct Ring {
    base: *mut u8,
    layout: Layout,
    /// Next index of the available ring, not yet published.
    next_avail: u16,
    /// Used elements taken so far, modulo 2^16.
    last_used: u16,
}

impl Ring {
    /// A queue over zeroed memory.
    ///
    /// # Safety
    /// `base` must be aligned to 16 and valid for `layout.bytes` bytes of
    /// reads and writes for as long as the ring lives; only the device and
    /// this ring touch them.
    #[must_use]
    pub const unsafe fn new(base: *mut u8, layout: Layout) -> Self {
        Self {
            base,
            layout,
            next_avail: 0,
            last_used: 0,
        }
    }

    /// The queue's layout.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Used elements taken so far, modulo 2^16.
    #[must_use]
    pub const fn last_used(&self) -> u16 {
        self.last_used
    }

    /// Address of the used ring's index, for those who only look.
    #[must_use]
    pub const fn used_index(&self) -> *mut u16 {
        self.base.wrapping_add(self.layout.used + 2).cast()
    }

    /// Fills slot `slot`'s two descriptors and puts them into the available
    /// ring; the device sees nothing before [`publish`](Self::publish).
    ///
    /// `slot` must be less than [`Layout::slots`] and not be in flight.
    pub fn offer(&mut self, slot: usize, buffers: &Buffers) {
        let slot = slot % self.layout.slots();
        // Below 32768: `size` is a u16 power of two.
        let head = (slot * 2) as u16;
        self.descriptor(
            head,
            buffers.request,
            buffers.request_bytes,
            DESC_NEXT,
            head + 1,
        );
        self.descriptor(
            head + 1,
            buffers.response,
            buffers.response_bytes,
            DESC_WRITE,
            0,
        );
        let at = usize::from(self.next_avail % self.layout.size);
        self.store(self.layout.avail + RING_HEADER + 2 * at, head);
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Lets the device see what was offered (§2.7.13.3).
    pub fn publish(&mut self) {
        // Descriptors, ring entries and request bytes first (§2.7.13.3.1).
        fence(Ordering::Release);
        self.store(self.layout.avail + 2, self.next_avail);
    }

    /// Whether the device wants a notification for what was published
    /// (§2.7.13.4.1).
    #[must_use]
    pub fn wants_notification(&self) -> bool {
        // The index must be visible before the flags are read, or both sides
        // may go to sleep on each other: a full barrier.
        fence(Ordering::SeqCst);
        self.load_u16(self.layout.used) & USED_NO_NOTIFY == 0
    }

    /// Asks the device not to interrupt; a hint (§2.7.7.1).
    pub fn suppress_interrupts(&mut self) {
        self.store(self.layout.avail, AVAIL_NO_INTERRUPT);
    }

    /// The next request that the device completed: the slot, or the id that
    /// is no slot of this queue.
    pub fn take_used(&mut self) -> Option<Result<usize, u32>> {
        let index = self.load_u16(self.layout.used + 2);
        if index == self.last_used {
            return None;
        }
        // The element and the response after the index (§2.7.14).
        fence(Ordering::Acquire);
        let at = usize::from(self.last_used % self.layout.size);
        let id = self.load_u32(self.layout.used + RING_HEADER + USED_ELEMENT * at);
        self.last_used = self.last_used.wrapping_add(1);
        if id.is_multiple_of(2) && id < u32::from(self.layout.size) {
            Some(Ok(id as usize / 2))
        } else {
            Some(Err(id))
        }
    }

    fn descriptor(&mut self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = usize::from(index) * DESCRIPTOR;
        self.store(at, address);
        self.store(at + 8, length);
        self.store(at + 12, flags);
        self.store(at + 14, next);
    }

    fn store<T>(&mut self, offset: usize, value: T) {
        // SAFETY: every offset computed here lies within `layout.bytes` and
        // is a multiple of T's size; `new` promises the memory.
        unsafe { ptr::write_volatile(self.base.add(offset).cast(), value) }
    }

    fn load_u16(&self, offset: usize) -> u16 {
        // SAFETY: as in `store`.
        unsafe { ptr::read_volatile(self.base.add(offset).cast()) }
    }

    fn load_u32(&self, offset: usize) -> u32 {
        // SAFETY: as in `store`.
        unsafe { ptr::read_volatile(self.base.add(offset).cast()) }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// A ring over memory of its own, 8-byte cells for alignment.
    fn ring(size: u16) -> (Vec<u128>, Ring) {
        let layout = Layout::new(size).unwrap();
        let mut memory = vec![0u128; layout.bytes.div_ceil(16)];
        // SAFETY: the vector outlives the ring in every test and is not
        // moved out of its heap block.
        let ring = unsafe { Ring::new(memory.as_mut_ptr().cast(), layout) };
        (memory, ring)
    }

    fn bytes(memory: &[u128]) -> Vec<u8> {
        memory.iter().flat_map(|cell| cell.to_le_bytes()).collect()
    }

    /// What a device does to complete `id`.
    fn complete(ring: &mut Ring, id: u32) {
        let index = ring.load_u16(ring.layout.used + 2);
        let at = usize::from(index % ring.layout.size);
        ring.store(ring.layout.used + RING_HEADER + USED_ELEMENT * at, id);
        ring.store(ring.layout.used + 2, index.wrapping_add(1));
    }

    const BUFFERS: Buffers = Buffers {
        request: 0x1234_5000,
        request_bytes: 40,
        response: 0x1234_5200,
        response_bytes: 24,
    };

    #[test]
    fn a_size_that_is_no_power_of_two_has_no_layout() {
        assert_eq!(Layout::new(0), None);
        assert_eq!(Layout::new(1), None);
        assert_eq!(Layout::new(48), None);
    }

    #[test]
    fn sixty_four_entries_fit_a_page() {
        let layout = Layout::new(64).unwrap();
        assert_eq!(layout.avail, 1024);
        assert_eq!(layout.used % 4, 0);
        assert!(layout.used >= layout.avail + 4 + 128);
        assert!(layout.bytes <= 4096);
    }

    #[test]
    fn an_offer_is_invisible_until_published() {
        let (memory, mut ring) = ring(8);
        ring.offer(3, &BUFFERS);
        assert_eq!(ring.load_u16(ring.layout.avail + 2), 0);
        ring.publish();
        assert_eq!(ring.load_u16(ring.layout.avail + 2), 1);
        let memory = bytes(&memory);
        assert_eq!(memory[6 * 16..6 * 16 + 8], 0x1234_5000u64.to_le_bytes());
        assert_eq!(memory[6 * 16 + 12..6 * 16 + 16], [1, 0, 7, 0]);
        assert_eq!(memory[7 * 16 + 12..7 * 16 + 16], [2, 0, 0, 0]);
        assert_eq!(memory[ring.layout.avail + 4..][..2], [6, 0]);
    }

    #[test]
    fn completions_come_back_in_order_past_the_index_wrap() {
        let (_memory, mut ring) = ring(4);
        for round in 0..70_000u32 {
            let slot = (round % 2) as usize;
            ring.offer(slot, &BUFFERS);
            ring.publish();
            complete(&mut ring, slot as u32 * 2);
            assert_eq!(ring.take_used(), Some(Ok(slot)));
            assert_eq!(ring.take_used(), None);
        }
    }

    #[test]
    fn an_id_that_is_no_slot_is_reported() {
        let (_memory, mut ring) = ring(4);
        complete(&mut ring, 4);
        complete(&mut ring, 1);
        assert_eq!(ring.take_used(), Some(Err(4)));
        assert_eq!(ring.take_used(), Some(Err(1)));
    }

    #[test]
    fn the_device_may_decline_notifications() {
        let (_memory, mut ring) = ring(4);
        assert!(ring.wants_notification());
        ring.store(ring.layout.used, USED_NO_NOTIFY);
        assert!(!ring.wants_notification());
    }
}
