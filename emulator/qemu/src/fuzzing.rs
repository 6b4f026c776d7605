//! Entry points for fuzzers: what a hostile client sends.

use crate::board::{Board, Slot};
use crate::message::{Header, Request, dma_data};
use crate::server::ServeConfig;
use crate::spec;
use journal::Journal;
use memory::RequesterId;

/// Messages of any content, one after the other, to the functions of a
/// machine. Must not panic, hang or grow; an answer is no longer than a
/// message may be.
pub fn fuzz_messages(data: &[u8]) {
    // The id of a command means nothing to us: it says whom it is for, and the
    // first one whether there is a remapping unit of ours.
    let second = |id: u16| id & 0x100 != 0;
    let ours = data
        .first_chunk()
        .is_some_and(|id| second(u16::from_le_bytes(*id)));
    let config = ServeConfig {
        iommu: ours.then_some(RequesterId::new(0, 30, 0)),
        ..ServeConfig::default()
    };
    let Ok(mut board) = Board::new(&config, Journal::disabled()) else {
        return;
    };
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first_chunk::<{ spec::HEADER }>() {
        let header = Header::parse(head);
        let size = (header.size as usize).saturating_sub(spec::HEADER);
        let (body, later) = tail.split_at(size.min(tail.len()));
        rest = later;
        let _ = dma_data(body, header.error);
        let slot = if ours && second(header.id) {
            Slot::Iommu
        } else {
            Slot::Gpu
        };
        // Commands beyond the known ones are one case.
        if let Ok(request) = Request::parse(header.command % 16, body)
            && let Ok(reply) = board.handle(slot, request, Vec::new(), None)
        {
            assert!(reply.len() <= spec::MAX_MESSAGE, "an answer too long");
        }
        for _ in 0..8 {
            board.step();
        }
        board.remap();
        board.interrupt();
    }
}
