//! A device that misbehaves by order.

use super::*;
use memory::Iova;

const AT: Iova = Iova(0x10000);

/// A client with memory, and a device that may master the bus.
fn peer() -> (Peer, File) {
    let (mut peer, memory) = Peer::with_memory(4);
    let command = [region(4, 7, 2), vec![6, 0]].concat();
    peer.call(spec::REGION_WRITE, &command).unwrap();
    (peer, memory)
}

fn take_away(peer: &mut Peer) {
    let body = unmap(0, AT.0, 4 * PAGE);
    peer.call(spec::DMA_UNMAP, &body).unwrap();
}

#[test]
fn a_translation_that_is_kept_outlives_its_mapping() {
    let (mut peer, _memory) = peer();
    assert_eq!(peer.handle.hold(AT, 2 * PAGE), Ok(2));
    peer.handle.late_write(AT, b"late".to_vec()).unwrap();
    take_away(&mut peer);
    assert!(peer.handle.device_read(AT, 4).is_err());
    assert_eq!(peer.handle.late_read(AT, 4).unwrap(), b"late");
}

#[test]
fn what_is_not_mapped_cannot_be_kept_and_what_was_not_kept_not_used() {
    let (peer, _memory) = peer();
    assert!(peer.handle.hold(Iova(0x9_0000), PAGE).is_err());
    assert!(peer.handle.late_read(AT, 4).is_err());
    assert_eq!(peer.handle.hold(AT, 1), Ok(1));
    assert!(peer.handle.late_read(Iova(AT.0 + PAGE - 2), 4).is_err());
}

#[test]
fn nothing_is_replayed_that_was_not_taken_away() {
    let (peer, _memory) = peer();
    assert!(peer.handle.replay(1).is_err());
    assert!(peer.handle.use_former_rings(0).is_err());
    assert!(peer.handle.use_former_rings(7).is_err());
}

#[test]
fn who_watches_is_told_of_each_unmap() {
    let (mut peer, _memory) = peer();
    let unmaps = peer.handle.unmaps().unwrap();
    take_away(&mut peer);
    let told = unmaps.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((told.address, told.size), (AT.0, 4 * PAGE));
}
