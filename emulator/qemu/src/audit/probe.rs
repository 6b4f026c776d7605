//! The device tries to read what is not mapped, through the guest's IOMMU as
//! QEMU emulates it, whatever we believe is mapped.

use super::pieces::Piece;
use super::{Iommu, Place};
use crate::handle::{Handle, HandleError};
use memory::{Iova, PAGE_SIZE};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// End of the addresses that are tried: what 48 bits hold.
const END: u64 = 1 << 48;
/// Where interrupts are sent to (VT-d 3.14): a read there is not one of
/// memory.
const INTERRUPTS: (u64, u64) = (0xfee0_0000, 0xfef0_0000);
/// A domain that maps so much at once isolates from nothing, and what is left
/// of the address space is devices.
const ALL_OF_MEMORY: u64 = 64 << 20;
/// Bytes of each read.
const LENGTH: u32 = 4;
/// Reads of one range, at least and at most.
const LEAST: usize = 3;
const MOST: usize = 64;

/// How often a read that got through is tried again, and what lies between.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Reads of what is not mapped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Probe {
    /// Why there were none.
    pub why_not: Option<String>,
    /// Ranges that are not mapped.
    pub ranges: u64,
    /// Ranges of which something was tried.
    pub tried_ranges: u64,
    /// Reads that were tried, and that were refused.
    pub tried: u64,
    /// See `tried`.
    pub refused: u64,
    /// Addresses that were read although nothing is mapped there.
    pub reached: Vec<u64>,
}

/// Try it: pages of each range that is not mapped, evenly, its first and its
/// last among them; about `tries` in all. `ram` is where guest RAM lies: what
/// of a range is an address of RAM, which a device that is not isolated would
/// reach, counts as a range of its own.
pub(super) fn probe(
    handle: &Handle,
    place: &Place,
    reach: &[Piece],
    ram: &[(u64, u64)],
    tries: usize,
) -> Result<Probe, HandleError> {
    let mut probe = Probe::default();
    let all = |piece: &Piece| piece.is_identity() && piece.length >= ALL_OF_MEMORY;
    if place.iommu == Iommu::None || reach.iter().any(all) {
        probe.why_not = Some("the device is not isolated: all of memory is in reach".to_owned());
        return Ok(probe);
    }
    if tries == 0 {
        probe.why_not = Some("not asked for".to_owned());
        return Ok(probe);
    }
    let gaps = gaps(reach, ram);
    probe.ranges = gaps.len() as u64;
    let each = (tries / gaps.len().max(1)).clamp(LEAST, MOST);
    let step = (gaps.len() * LEAST).div_ceil(tries).max(1);
    let chosen: Vec<(u64, u64)> = gaps.into_iter().step_by(step).collect();
    probe.tried_ranges = chosen.len() as u64;
    handle.note(format!(
        "an audit reads a sample of {} ranges that are not mapped: the guest's faults at them are \
         its own",
        chosen.len()
    ))?;
    for (start, end) in chosen {
        for at in samples(start, end, each) {
            probe.tried += 1;
            match handle.peer_read(Iova(at), LENGTH) {
                Err(HandleError::Refused(_)) => probe.refused += 1,
                Err(error) => return Err(error),
                Ok(_) => probe.reached.push(at),
            }
        }
    }
    for at in std::mem::take(&mut probe.reached) {
        match again(handle, at)? {
            Again::Mapped => probe.tried -= 1,
            Again::Refused => probe.refused += 1,
            Again::Reached => probe.reached.push(at),
        }
    }
    Ok(probe)
}

/// What became of an address that was read although nothing was mapped there.
enum Again {
    /// The guest mapped it meanwhile, which is no breach.
    Mapped,
    /// It had mapped it for a moment: a driver maps each command.
    Refused,
    Reached,
}

/// Try it some more times: what should not be in reach and is, stays so.
fn again(handle: &Handle, at: u64) -> Result<Again, HandleError> {
    for _ in 0..TRIES {
        let now = handle.mappings()?;
        if now
            .iter()
            .any(|m| at >= m.iova.0 && at - m.iova.0 < m.length)
        {
            return Ok(Again::Mapped);
        }
        match handle.peer_read(Iova(at), LENGTH) {
            Err(HandleError::Refused(_)) => return Ok(Again::Refused),
            Err(error) => return Err(error),
            Ok(_) => std::thread::sleep(PAUSE),
        }
    }
    Ok(Again::Reached)
}

/// What is not mapped, without where interrupts go, cut where RAM begins and
/// ends.
fn gaps(reach: &[Piece], ram: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut taken: Vec<(u64, u64)> = reach.iter().map(|p| (p.iova, p.end())).collect();
    taken.push(INTERRUPTS);
    taken.sort_unstable();
    let mut gaps = Vec::new();
    let mut at = 0;
    for (start, end) in taken.into_iter().chain([(END, END)]) {
        let start = start.min(END);
        if start > at {
            gaps.push((at, start));
        }
        at = at.max(end);
    }
    for edge in ram
        .iter()
        .flat_map(|&(base, size)| [base, base.saturating_add(size)])
    {
        if let Some(gap) = gaps.iter_mut().find(|(a, b)| *a < edge && edge < *b) {
            let end = std::mem::replace(&mut gap.1, edge);
            gaps.push((edge, end));
        }
    }
    gaps.sort_unstable();
    gaps
}

/// `count` pages of a range, evenly, first and last among them; all, if there
/// are no more.
fn samples(start: u64, end: u64, count: usize) -> impl Iterator<Item = u64> {
    let pages = (end - start) / PAGE_SIZE;
    let count = (count as u64).min(pages);
    (0..count).map(move |number| {
        let page = (pages - 1) * number / (count - 1).max(1);
        start + page * PAGE_SIZE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(iova: u64, length: u64) -> Piece {
        Piece {
            iova,
            length,
            target: None,
            read: true,
            write: true,
        }
    }

    #[test]
    fn gaps_lie_between_mappings_and_end_where_ram_does() {
        let found = gaps(
            &[piece(0x1000, 0x1000), piece(0x2000, 0x1000)],
            &[(0, 0x9000)],
        );
        assert_eq!(
            found,
            [
                (0, 0x1000),
                (0x3000, 0x9000),
                (0x9000, INTERRUPTS.0),
                (INTERRUPTS.1, END)
            ]
        );
    }

    #[test]
    fn samples_are_pages_of_the_range() {
        assert_eq!(samples(0x1000, 0x2000, 3).collect::<Vec<_>>(), [0x1000]);
        let all: Vec<u64> = samples(0, 0x5000, 3).collect();
        assert_eq!(all, [0, 0x2000, 0x4000]);
    }
}
