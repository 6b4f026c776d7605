//! What the device may yet read and write, seen without a trace: for a
//! machine that lets a driver poll such memory, and must know when it looks,
//! and for who asks what memory the device has any business with.

use super::Transport;
use super::queue::Segment;
use crate::spec::virtio::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};
use iommu::Dma;
use memory::Iova;

/// Bytes of a descriptor (virtio 1.2 §2.7.5).
const DESCRIPTOR: u64 = 16;
/// Bytes of a used ring besides its elements, and of an element (§2.7.8).
const USED_HEADER: u32 = 6;
const USED_ELEMENT: u32 = 8;

impl Transport {
    /// The used ring of `queue`, and the writable buffers in it that the
    /// device has not taken yet. At most `limit` descriptors are looked at.
    #[must_use]
    pub fn foresee_writes(&self, dma: Dma<'_>, queue: u16, limit: usize) -> Vec<Segment> {
        let Some(state) = self.queues.get(usize::from(queue)).map(|q| q.state) else {
            return Vec::new();
        };
        if !state.ready {
            return Vec::new();
        }
        let mut found = Found {
            segments: vec![Segment {
                iova: Iova(state.used_ring),
                length: USED_HEADER + USED_ELEMENT * u32::from(state.size),
            }],
            left: limit,
            reads: false,
        };
        self.foresee(dma, queue, &mut found);
        found.segments
    }

    /// Every buffer in `queue` that the device has not taken yet, and the
    /// indirect tables of descriptors among them. At most `limit` descriptors
    /// are looked at.
    #[must_use]
    pub fn foresee_buffers(&self, dma: Dma<'_>, queue: u16, limit: usize) -> Vec<Segment> {
        let mut found = Found {
            segments: Vec::new(),
            left: limit,
            reads: true,
        };
        self.foresee(dma, queue, &mut found);
        found.segments
    }

    fn foresee(&self, dma: Dma<'_>, queue: u16, found: &mut Found) {
        let Some(state) = self.queues.get(usize::from(queue)).map(|q| q.state) else {
            return;
        };
        let Some(available) = self.peek_available(dma, queue).filter(|_| state.ready) else {
            return;
        };
        let waiting = available.wrapping_sub(state.next_avail).min(state.size);
        for ahead in 0..waiting {
            let slot = state.next_avail.wrapping_add(ahead) % state.size.max(1);
            let at = state.avail_ring.saturating_add(4 + 2 * u64::from(slot));
            let mut head = [0; 2];
            if dma.peek(Iova(at), &mut head) {
                let table = Table {
                    base: state.desc_table,
                    entries: state.size.into(),
                    direct: true,
                };
                follow(dma, table, u16::from_le_bytes(head), found);
            }
        }
    }
}

/// What was seen so far.
struct Found {
    segments: Vec<Segment>,
    /// Descriptors that may yet be looked at.
    left: usize,
    /// Does what is only read count too?
    reads: bool,
}

/// A descriptor table, of the queue (direct) or of one buffer.
struct Table {
    base: u64,
    entries: u32,
    direct: bool,
}

/// Follow a chain, and an indirect table from a direct one only (§2.7.5.3.1).
fn follow(dma: Dma<'_>, table: Table, head: u16, found: &mut Found) {
    let mut index = head;
    while found.left > 0 && u32::from(index) < table.entries {
        found.left -= 1;
        let mut bytes = [0u8; DESCRIPTOR as usize];
        let at = table.base.saturating_add(DESCRIPTOR * u64::from(index));
        if !dma.peek(Iova(at), &mut bytes) {
            return;
        }
        let [a, b, c, d, e, f, g, h, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let flags = u16::from_le_bytes([f0, f1]);
        if flags & DESC_INDIRECT != 0 {
            if table.direct {
                if found.reads && length != 0 {
                    found.segments.push(Segment {
                        iova: Iova(address),
                        length,
                    });
                }
                let indirect = Table {
                    base: address,
                    entries: length / DESCRIPTOR as u32,
                    direct: false,
                };
                follow(dma, indirect, 0, found);
            }
            return;
        }
        if (found.reads || flags & DESC_WRITE != 0) && length != 0 {
            found.segments.push(Segment {
                iova: Iova(address),
                length,
            });
        }
        if flags & DESC_NEXT == 0 {
            return;
        }
        index = u16::from_le_bytes([n0, n1]);
    }
}
