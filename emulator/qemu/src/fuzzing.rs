//! Entry points for fuzzers: what a hostile client sends.

use crate::board::Board;
use crate::message::{Header, Request, dma_data};
use crate::server::ServeConfig;
use crate::spec;
use journal::Journal;

/// Messages of any content, one after the other, to a device. Must not panic,
/// hang or grow; an answer is no longer than a message may be.
pub fn fuzz_messages(data: &[u8]) {
    let Ok(mut board) = Board::new(&ServeConfig::default(), Journal::disabled()) else {
        return;
    };
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first_chunk::<{ spec::HEADER }>() {
        let header = Header::parse(head);
        let size = (header.size as usize).saturating_sub(spec::HEADER);
        let (body, later) = tail.split_at(size.min(tail.len()));
        rest = later;
        let _ = dma_data(body, header.error);
        // Commands beyond the known ones are one case.
        if let Ok(request) = Request::parse(header.command % 16, body)
            && let Ok(reply) = board.handle(request, Vec::new(), None)
        {
            assert!(reply.len() <= spec::MAX_MESSAGE, "an answer too long");
        }
        for _ in 0..8 {
            board.step();
        }
        board.interrupt();
    }
}
