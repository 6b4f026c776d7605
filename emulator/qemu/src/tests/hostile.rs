//! Clients that do not keep to the protocol: each has its clear end, and none
//! takes the server down or makes it read what it may not.

use super::*;
use memory::Iova;
use proptest::prelude::*;

const INVAL: u32 = 22;

#[test]
fn garbage_ends_the_connection_with_an_error() {
    let peer = Peer::silent();
    peer.raw(&[0xff; 64], &[]);
    assert!(matches!(peer.ended(), Err(ServeError::NotAMessage(_))));
}

#[test]
fn sizes_that_no_message_has_end_the_connection() {
    for size in [0u32, 15, 2 << 20, u32::MAX] {
        let peer = Peer::agreed();
        let mut bytes = message::command(1, spec::DEVICE_RESET, &[]);
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
        peer.raw(&bytes, &[]);
        assert!(matches!(peer.ended(), Err(ServeError::BadSize(s)) if s == size as usize));
    }
}

#[test]
fn a_client_that_dies_in_a_message_is_told_of() {
    for length in [7, 16, 20] {
        let peer = Peer::agreed();
        let bytes = message::command(1, spec::REGION_READ, &region(0, 7, 4));
        peer.raw(&bytes[..length], &[]);
        assert!(matches!(peer.end(), Err(ServeError::Torn { bytes }) if bytes == length));
    }
}

#[test]
fn a_client_that_dies_between_messages_ends_the_run() {
    assert_eq!(Peer::agreed().end().unwrap(), Ended::Closed);
}

#[test]
fn half_a_message_keeps_nobody_from_working() {
    let peer = Peer::agreed();
    let bytes = message::command(1, spec::REGION_READ, &region(0, 7, 4));
    peer.raw(&bytes[..20], &[]);
    assert!(peer.handle.mappings().unwrap().is_empty());
    peer.raw(&bytes[20..], &[]);
    assert_eq!(peer.receive().1.len(), 20);
}

#[test]
fn a_message_in_single_bytes_is_understood() {
    let peer = Peer::agreed();
    for byte in message::command(1, spec::REGION_READ, &region(0, 7, 4)) {
        peer.raw(&[byte], &[]);
    }
    assert_eq!(peer.receive().1[16..], [0xf4, 0x1a, 0x50, 0x10]);
}

#[test]
fn nothing_is_said_before_the_version() {
    let mut peer = Peer::silent();
    let early = peer.call(spec::DEVICE_GET_INFO, &words(&[16, 0, 0, 0]));
    assert_eq!(early, Err(INVAL));
    assert!(peer.call(spec::VERSION, &version(0, 0, b"{}\0")).is_ok());
}

#[test]
fn another_version_ends_with_its_number() {
    let mut peer = Peer::silent();
    assert_eq!(peer.call(spec::VERSION, &version(3, 1, b"\0")), Err(INVAL));
    assert!(matches!(peer.ended(), Err(ServeError::Version(3, 1))));
}

#[test]
fn capabilities_that_are_no_json_are_refused() {
    let mut peer = Peer::silent();
    assert_eq!(peer.call(spec::VERSION, &version(0, 0, b"{\0")), Err(INVAL));
}

#[test]
fn every_command_with_too_short_a_body_is_refused_and_the_next_is_served() {
    let mut peer = Peer::agreed();
    for command in 2..=12 {
        let refused = peer.call(command, &[0; 3]);
        assert!(refused.is_err(), "command {command}");
    }
    assert_eq!(peer.read_bar(0x14, 1), 0);
}

#[test]
fn an_unknown_command_is_refused_whole() {
    let mut peer = Peer::agreed();
    assert_eq!(peer.call(77, &[0xff; 5000]), Err(38));
    assert_eq!(peer.read_bar(0x14, 1), 0);
}

#[test]
fn an_access_outside_of_a_region_is_refused() {
    let mut peer = Peer::agreed();
    for (offset, index, count) in [
        (0, 0, 0),
        (0x3fff, 0, 2),
        (u64::MAX, 0, 1),
        (256, 7, 1),
        (0, 3, 4),
        (0, 8, 4),
        (0, u32::MAX, 4),
        (0, 7, u32::MAX),
    ] {
        let refused = peer.call(spec::REGION_READ, &region(offset, index, count));
        assert_eq!(refused, Err(INVAL), "{offset:#x} of region {index}");
    }
}

#[test]
fn a_write_whose_count_contradicts_its_size_is_refused() {
    let mut peer = Peer::agreed();
    for count in [0, 3, 5, u32::MAX] {
        let body = [region(0x14, 0, count), vec![1; 4]].concat();
        assert_eq!(peer.call(spec::REGION_WRITE, &body), Err(INVAL));
    }
}

#[test]
fn more_files_than_agreed_end_the_connection() {
    let peer = Peer::agreed();
    let files: Vec<OwnedFd> = (0..20).map(|_| event()).collect();
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let body = words(&[20, 4 | 32, 2, 0, 20]);
    let bytes = message::command(1, spec::DEVICE_SET_IRQS, &body);
    peer.raw(&bytes, &files);
    assert!(matches!(peer.ended(), Err(ServeError::TooManyFiles)));
}

#[test]
fn files_that_belong_to_nothing_are_refused() {
    let mut peer = Peer::agreed();
    let file = event();
    let info = words(&[16, 0, 0, 0]);
    for (command, body) in [
        (spec::DEVICE_GET_INFO, info),
        (spec::DEVICE_SET_IRQS, words(&[20, 1 | 32, 2, 0, 1])),
        (spec::DEVICE_SET_IRQS, words(&[20, 4 | 32, 2, 0, 2])),
    ] {
        let refused = peer.call_with(command, &body, &[file.as_fd()]);
        assert_eq!(refused, Err(INVAL));
    }
}

#[test]
fn an_interrupt_file_that_could_stop_us_is_refused() {
    let mut peer = Peer::agreed();
    let (_reader, writer) = std::io::pipe().unwrap();
    let body = words(&[20, 4 | 32, 2, 0, 1]);
    let refused = peer.call_with(spec::DEVICE_SET_IRQS, &body, &[writer.as_fd()]);
    assert_eq!(refused, Err(INVAL));
}

#[test]
fn interrupts_that_are_not_there_are_refused() {
    let mut peer = Peer::agreed();
    for (index, start, count) in [(2, 0, 4), (2, 3, 1), (2, u32::MAX, 2), (0, 1, 1), (9, 0, 0)] {
        let body = words(&[20, 1 | 32, index, start, count]);
        assert_eq!(peer.call(spec::DEVICE_SET_IRQS, &body), Err(INVAL));
    }
}

#[test]
fn memory_that_can_be_cut_short_ends_with_its_remedy() {
    let peer = Peer::agreed();
    let plain = tempfile::tempfile().unwrap();
    plain.set_len(PAGE).unwrap();
    let bytes = message::command(1, spec::DMA_MAP, &map(RW, 0, 0, PAGE));
    peer.raw(&bytes, &[plain.as_fd()]);
    let error = peer.ended().unwrap_err();
    assert!(error.to_string().contains("seal=on"), "{error}");
}

#[test]
fn private_memory_is_told_from_shared() {
    let private = "7f00-7f10 rw-p 00000000 00:01 42  /memfd:ram (deleted)\n";
    let shared = "7f20-7f30 rw-s 00000000 00:01 42  /memfd:ram (deleted)\n";
    let both = [private, shared].concat();
    for (maps, inode, expected) in [
        (private, 42, true),
        (shared, 42, false),
        (&both, 42, false),
        (private, 43, false),
        ("", 42, false),
        ("nonsense\n", 42, false),
    ] {
        assert_eq!(crate::board::only_private(maps, inode), expected, "{maps}");
    }
}

#[test]
fn mappings_that_can_be_none_are_refused_and_map_nothing() {
    let (mut peer, memory) = Peer::with_memory(4);
    let before = peer.handle.mappings().unwrap();
    for (offset, address, size) in [
        (0, 0, 0),
        (0, 1, PAGE),
        (0, 0, PAGE + 1),
        (1, 0, PAGE),
        (0, 0, 5 * PAGE),
        (4 * PAGE, 0, PAGE),
        (u64::MAX - 4095, 0, PAGE),
        (0, u64::MAX - 4095, 2 * PAGE),
        (PAGE, 0x10000, PAGE),
    ] {
        let body = map(RW, offset, address, size);
        let refused = peer.call_with(spec::DMA_MAP, &body, &[memory.as_fd()]);
        assert!(refused.is_err(), "{offset:#x} {address:#x} {size:#x}");
    }
    assert_eq!(peer.handle.mappings().unwrap(), before);
}

#[test]
fn a_second_memory_file_is_never_read() {
    let (mut peer, _first) = Peer::with_memory(1);
    let command = [region(4, 7, 2), vec![6, 0]].concat();
    peer.call(spec::REGION_WRITE, &command).unwrap();
    let second = memory(1);
    peer.call_with(spec::DMA_MAP, &map(RW, 0, 0x80000, PAGE), &[second.as_fd()])
        .unwrap();
    let refused = peer.handle.device_read(Iova(0x80000), 1).unwrap_err();
    assert!(refused.to_string().contains("no memory"), "{refused}");
}

#[test]
fn a_reply_to_nothing_is_left_aside() {
    let mut peer = Peer::agreed();
    let mut bytes = message::command(9, spec::DMA_READ, &[0; 40]);
    bytes[8] = spec::TYPE_REPLY as u8;
    peer.raw(&bytes, &[]);
    assert_eq!(peer.read_bar(0x14, 1), 0);
}

#[test]
fn a_client_that_answers_nothing_stops_nobody() {
    let mut peer = Peer::agreed();
    let command = [region(4, 7, 2), vec![6, 0]].concat();
    peer.call(spec::REGION_WRITE, &command).unwrap();
    for _ in 0..40 {
        assert!(peer.handle.device_read(Iova(0x5000), 8).is_err());
    }
    // 16 of them were sent; the rest waits.
    for _ in 0..16 {
        assert_eq!(peer.receive().0.command, spec::DMA_READ);
    }
    assert_eq!(peer.read_bar(0x14, 1), 0);
}

#[test]
fn stopping_ends_the_run() {
    let peer = Peer::agreed();
    peer.stop.store(true, Ordering::Relaxed);
    assert_eq!(peer.ended().unwrap(), Ended::Stopped);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_message_hurts(messages in prop::collection::vec(
        (0u16..16, prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(32), any::<u8>()], 0..48)), 0..24))
    {
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|(command, body)| message::command(0, *command, body))
            .collect();
        crate::fuzzing::fuzz_messages(&bytes);
    }
}
