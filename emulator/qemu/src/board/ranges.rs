//! DMA_MAP and DMA_UNMAP: the client's memory, and what of it the device may
//! reach.

use super::{Board, Failure, Slot};
use crate::error::ServeError;
use crate::message::Errno;
use crate::spec::uapi;
use iommu::{Mapping, MirrorError};
use memory::{GuestMemory, Iova};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

impl Board {
    pub(super) fn map(
        &mut self,
        slot: Slot,
        (flags, offset, address, size): (u32, u64, u64, u64),
        files: Vec<OwnedFd>,
        peer: Option<i32>,
    ) -> Result<Vec<u8>, Failure> {
        let mapping = Mapping {
            iova: Iova(address),
            length: size,
            target: None,
            read: flags & uapi::VFIO_DMA_MAP_FLAG_READ != 0,
            write: flags & uapi::VFIO_DMA_MAP_FLAG_WRITE != 0,
        };
        let mut files = files.into_iter();
        let pieces = match (files.next(), files.next()) {
            (Some(file), None) => {
                if self.is_memory(file, peer)? {
                    self.ram(mapping, offset)?
                } else {
                    vec![mapping]
                }
            }
            // ROM, or memory of a device: an access finds nothing there.
            (None, _) => vec![mapping],
            _ => return Err(Errno::INVAL.into()),
        };
        // Behind our own remapping unit the GPU reaches what that one says.
        let Some((mirror, env, requester)) = self.mirror(slot) else {
            return Ok(Vec::new());
        };
        for (done, piece) in pieces.iter().enumerate() {
            let Err(error) = mirror.map(env, requester, *piece) else {
                continue;
            };
            for piece in pieces.iter().take(done) {
                let _ = mirror.unmap(env, requester, piece.iova, piece.length);
            }
            log::warn!("DMA_MAP refused: {error}");
            return Err(errno(error).into());
        }
        Ok(Vec::new())
    }

    /// Is this the file of guest RAM? The first that comes is.
    fn is_memory(&mut self, file: OwnedFd, peer: Option<i32>) -> Result<bool, Failure> {
        let file = File::from(file);
        let Ok(meta) = file.metadata() else {
            return Err(Errno::INVAL.into());
        };
        let identity = (meta.dev(), meta.ino());
        if let Some(known) = self.file {
            if known != identity {
                log::warn!("DMA_MAP of a second memory file: the device finds no memory there");
            }
            return Ok(known == identity);
        }
        if peer.is_some_and(|peer| is_private(peer, meta.ino())) {
            return Err(Failure::Fatal(ServeError::PrivateMemory));
        }
        let low = (self.below_4g)(meta.len());
        self.memory =
            GuestMemory::from_file(file, low).map_err(|error| Failure::Fatal(error.into()))?;
        self.file = Some(identity);
        Ok(true)
    }

    /// The guest-physical pieces of a mapping of the memory file: one for the
    /// RAM below 4 GiB, one for the rest.
    fn ram(&self, mapping: Mapping, offset: u64) -> Result<Vec<Mapping>, Errno> {
        if mapping.length == 0 {
            return Err(Errno::INVAL);
        }
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < mapping.length {
            let at = offset.checked_add(done).ok_or(Errno::INVAL)?;
            let (target, room) = self.memory.address_of(at).ok_or(Errno::INVAL)?;
            let length = room.min(mapping.length - done);
            pieces.push(Mapping {
                iova: mapping.iova.checked_add(done).ok_or(Errno::INVAL)?,
                length,
                target: Some(target),
                ..mapping
            });
            done += length;
        }
        Ok(pieces)
    }

    pub(super) fn unmap(
        &mut self,
        slot: Slot,
        flags: u32,
        address: u64,
        size: u64,
    ) -> Result<(), Errno> {
        self.tell_watcher(address, size);
        if flags & uapi::VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP != 0 {
            return Err(Errno::NOTSUP);
        }
        let all = flags & uapi::VFIO_DMA_UNMAP_FLAG_ALL != 0;
        if all && (address, size) != (0, 0) {
            return Err(Errno::INVAL);
        }
        let Some((mirror, env, requester)) = self.mirror(slot) else {
            return Ok(());
        };
        if all {
            mirror.unmap_all(env, requester);
            return Ok(());
        }
        let unmapped = mirror.unmap(env, requester, Iova(address), size);
        unmapped.map(drop).map_err(errno)
    }
}

fn errno(error: MirrorError) -> Errno {
    match error {
        MirrorError::BadRange { .. } => Errno::INVAL,
        MirrorError::Overlap(_) => Errno::EXIST,
        MirrorError::TooMany => Errno::NOSPC,
    }
}

/// Does this process have the file mapped, and only privately? Then what it
/// writes does not reach the file.
fn is_private(process: i32, inode: u64) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"));
    maps.is_ok_and(|maps| only_private(&maps, inode))
}

/// The same, of a process' list of mappings (proc(5)).
pub(crate) fn only_private(maps: &str, inode: u64) -> bool {
    let mut of_file = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let rights = fields.nth(1)?;
        // Offset and device stand between.
        let same = fields.nth(2)?.parse() == Ok(inode);
        same.then(|| rights.ends_with('p'))
    });
    match of_file.next() {
        None => false,
        Some(first) => first && of_file.all(|private| private),
    }
}

/// How much RAM a q35 machine of QEMU's has below 4 GiB: all, or 2 GiB of
/// what is 2.75 GiB or more (`hw/i386/pc_q35.c`).
#[must_use]
pub(crate) fn q35_below_4g(size: u64) -> u64 {
    if size >= 0xb000_0000 { 2 << 30 } else { size }
}
