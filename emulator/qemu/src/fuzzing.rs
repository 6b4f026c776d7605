//! Entry points for fuzzers: what a hostile client sends.

use crate::board::{Board, Slot};
use crate::message::{Header, Request, dma_data};
use crate::server::ServeConfig;
use crate::spec;
use journal::Journal;
use memory::{Gpa, RequesterId};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::os::fd::OwnedFd;

/// Bytes of the client's memory.
const RAM: u64 = 64 << 10;
/// No command of the protocol's: the guest writes its memory. Offset u16,
/// bytes.
const GUEST_WRITES: u16 = 14;

/// A client's memory, zeroed.
fn guest_memory() -> Option<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("guest", flags).ok()?;
    ftruncate(&file, RAM).ok()?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).ok()?;
    Some(file)
}

/// Messages of any content, one after the other, to the functions of a
/// machine; DMA_MAP comes with the file of guest memory if its id says so, and
/// between the messages the guest writes its memory. Must not panic, hang or grow; an answer is no longer than a
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
    let (Ok(mut board), Some(file)) = (Board::new(&config, Journal::disabled()), guest_memory())
    else {
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
        let command = header.command % 16;
        if command == GUEST_WRITES {
            if let Some((&[low, high], bytes)) = body.split_first_chunk() {
                let at = Gpa(u16::from_le_bytes([low, high]).into());
                // What lies past its end is not written.
                let _ = board.memory().write(at, bytes);
            }
            continue;
        }
        let with_file = command == spec::DMA_MAP && header.id & 0x200 != 0;
        let files = with_file.then(|| file.try_clone().ok()).flatten();
        let files = files.into_iter().collect();
        if let Ok(request) = Request::parse(command, body)
            && let Ok(reply) = board.handle(slot, request, files, None)
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
