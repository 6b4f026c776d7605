//! The region by which a guest tells of its memory.

use super::*;
use crate::board::{Board, Slot};
use crate::message::Request;
use crate::spec::guest::{self as layout, op, result};
use journal::event::{Claim, ClaimStep, PageRun};
use memory::Pfn;
use proptest::prelude::*;

const BAR: u32 = layout::BAR as u32;

impl Peer {
    fn told(&mut self, cookie: u64, doorbell: u32, entries: &[u64]) -> u32 {
        self.write_region(BAR, layout::REG_COOKIE, &cookie.to_le_bytes());
        for (at, entry) in entries.iter().enumerate() {
            let at = layout::WINDOW.start + 8 * at as u64;
            self.write_region(BAR, at, &entry.to_le_bytes());
        }
        let doorbell = doorbell | (entries.len() as u32) << 16;
        self.write_region(BAR, layout::REG_DOORBELL, &doorbell.to_le_bytes());
        self.read_region(BAR, layout::REG_RESULT, 4) as u32
    }
}

fn claims(events: Vec<Event>) -> Vec<Claim> {
    let claim = |event| match event {
        Event::Claim(claim) => Some(claim),
        _ => None,
    };
    events.into_iter().filter_map(claim).collect()
}

fn runs(runs: &[(u64, u64)]) -> Vec<PageRun> {
    let run = |&(first, count): &(u64, u64)| PageRun {
        first: Pfn(first),
        count,
    };
    runs.iter().map(run).collect()
}

#[test]
fn a_driver_finds_the_region_by_its_capability() {
    let mut peer = Peer::agreed();
    let config = |peer: &mut Peer, at: u64, size| peer.read_region(7, at, size);
    let mut at = config(&mut peer, 0x34, 1);
    while config(&mut peer, at, 1) != 9
        || config(&mut peer, at + 3, 1) != 9
        || config(&mut peer, at + 4, 2) != 0xd3a5
    {
        at = config(&mut peer, at + 1, 1);
        assert_ne!(at, 0, "no such capability");
    }
    assert_eq!(config(&mut peer, at + 2, 1), 24);
    assert_eq!(config(&mut peer, at + 6, 2), 1);
    assert_eq!(config(&mut peer, at + 8, 4), u64::from(layout::MAGIC));
    assert_eq!(config(&mut peer, at + 12, 1), u64::from(BAR));
    assert_eq!(config(&mut peer, at + 16, 4), 0);
    assert_eq!(config(&mut peer, at + 20, 4), 0x1000);
    let magic = peer.read_region(BAR, layout::REG_MAGIC, 4);
    assert_eq!(magic, u64::from(layout::MAGIC));
}

#[test]
fn what_a_guest_tells_is_in_the_journal() {
    let (mut peer, _memory) = Peer::with_memory(8);
    peer.write_region(BAR, layout::REG_TAG, &0x99u32.to_le_bytes());
    // Pages 1 and 2, in a row; then page 5.
    assert_eq!(peer.told(7, op::ALLOCATE, &[0x1000, 0x2000]), result::TAKEN);
    assert_eq!(peer.told(7, op::EXTEND, &[0x5001]), result::TAKEN);
    assert_eq!(peer.told(7, op::RETIRE, &[]), result::TAKEN);
    assert_eq!(peer.told(7, op::FREE, &[]), result::TAKEN);
    assert_eq!(peer.read_region(BAR, layout::REG_TAKEN, 4), 4);
    let told = claims(peer.events());
    let steps: Vec<_> = told.iter().map(|claim| claim.step).collect();
    let all = [
        ClaimStep::Allocated,
        ClaimStep::Extended,
        ClaimStep::Retired,
        ClaimStep::Freed,
    ];
    assert_eq!(steps, all);
    assert!(
        told.iter()
            .all(|claim| (claim.cookie, claim.tag) == (7, 0x99))
    );
    assert_eq!(told[0].pages, runs(&[(1, 2)]));
    assert_eq!(told[1].pages, runs(&[(5, 2)]));
}

#[test]
fn addresses_of_the_devices_are_translated_when_they_are_told() {
    let (mut peer, _memory) = Peer::with_memory(8);
    // A device that is no bus master reaches nothing.
    peer.write_region(7, 4, &[6, 0]);
    let doorbell = op::ALLOCATE | layout::DEVICE_ADDRESSES;
    assert_eq!(peer.told(7, doorbell, &[0x12001]), result::TAKEN);
    assert_eq!(peer.told(8, doorbell, &[0x5000_0000]), result::BAD_LIST);
    let told = claims(peer.events());
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].pages, runs(&[(2, 2)]));
}

#[test]
fn nonsense_is_refused_and_said_so() {
    let (mut peer, _memory) = Peer::with_memory(8);
    assert_eq!(peer.told(7, op::FREE, &[]), result::NO_COOKIE);
    assert_eq!(peer.told(7, op::RETIRE, &[]), result::NO_COOKIE);
    assert_eq!(peer.told(7, op::EXTEND, &[0]), result::NO_COOKIE);
    assert_eq!(peer.told(7, op::ALLOCATE, &[]), result::BAD_LIST);
    assert_eq!(
        peer.told(7, op::ALLOCATE | 257 << 16, &[]),
        result::BAD_LIST
    );
    assert_eq!(peer.told(7, op::ALLOCATE, &[0x9000]), result::BAD_LIST);
    assert_eq!(peer.told(7, op::ALLOCATE, &[u64::MAX]), result::BAD_LIST);
    assert_eq!(peer.told(7, 0, &[]), result::NO_OPERATION);
    assert_eq!(peer.told(7, 0xff, &[]), result::NO_OPERATION);
    assert_eq!(peer.read_region(BAR, layout::REG_REFUSED, 4), 9);
    assert_eq!(claims(peer.events()), []);
}

#[test]
fn a_reset_of_the_machine_makes_void_what_was_told() {
    let (mut peer, _memory) = Peer::with_memory(8);
    peer.told(7, op::ALLOCATE, &[0x1000]);
    peer.call(spec::DEVICE_RESET, &[]).unwrap();
    assert_eq!(peer.told(7, op::FREE, &[]), result::NO_COOKIE);
    let told = claims(peer.events());
    assert_eq!(told.last().unwrap().step, ClaimStep::Forgotten);
}

/// A board that nobody but the test drives.
fn board() -> Board {
    Board::new(&ServeConfig::default(), Journal::disabled()).unwrap()
}

fn write(board: &mut Board, offset: u64, data: &[u8]) {
    let request = Request::RegionWrite {
        offset,
        region: BAR,
        data,
    };
    board.handle(Slot::Gpu, request, Vec::new(), None).unwrap();
}

fn read(board: &mut Board, offset: u64) -> u32 {
    let request = Request::RegionRead {
        offset,
        region: BAR,
        count: 4,
    };
    let body = board.handle(Slot::Gpu, request, Vec::new(), None).unwrap();
    u32::from_le_bytes(body[16..].try_into().unwrap())
}

#[test]
fn a_flood_is_listened_to_for_a_while_only() {
    let mut board = board();
    for cookie in 0..20_000u64 {
        write(&mut board, layout::REG_COOKIE, &cookie.to_le_bytes());
        write(
            &mut board,
            layout::REG_DOORBELL,
            &(op::FORGET).to_le_bytes(),
        );
    }
    // Time stands still for a board that is not ticked.
    assert_eq!(read(&mut board, layout::REG_TAKEN), 10_000);
    assert_eq!(read(&mut board, layout::REG_RESULT), result::TOO_FAST);
}

#[test]
fn what_is_live_is_bounded() {
    let mut board = board();
    let mut results = std::collections::BTreeMap::new();
    for cookie in 0..5000u64 {
        write(&mut board, layout::REG_COOKIE, &cookie.to_le_bytes());
        let doorbell = op::ALLOCATE | 1 << 16;
        write(&mut board, layout::REG_DOORBELL, &doorbell.to_le_bytes());
        *results
            .entry(read(&mut board, layout::REG_RESULT))
            .or_insert(0) += 1;
    }
    let expected = [(result::TAKEN, 4096), (result::NO_ROOM, 904)];
    assert_eq!(results, expected.into_iter().collect());
}

proptest! {
    /// Whatever is written, each doorbell is counted, and nothing else is.
    #[test]
    fn any_writes_are_taken_or_refused(
        writes in proptest::collection::vec(
            (prop_oneof![Just(0x20u64), Just(0x30), Just(0x800), 0u64..0x20, 0x38u64..0xff8],
             prop_oneof![Just(4usize), Just(8), 1usize..9],
             prop_oneof![(0u64..6, 0u64..4).prop_map(|(op, n)| op | n << 16), any::<u64>()]),
            0..200),
    ) {
        let mut board = board();
        let mut rung = 0;
        for (at, size, value) in writes {
            write(&mut board, at, &value.to_le_bytes()[..size]);
            rung += u32::from(at == layout::REG_DOORBELL && (4..8).contains(&size));
        }
        let taken = read(&mut board, layout::REG_TAKEN);
        prop_assert_eq!(taken + read(&mut board, layout::REG_REFUSED), rung);
    }
}
