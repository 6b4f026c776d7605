//! What a client that keeps to the protocol sees.

use super::*;
use iommu::Mapping;
use memory::{Gpa, Iova};

#[test]
fn the_version_is_agreed_with_our_capabilities() {
    let mut peer = Peer::silent();
    let offer = br#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576}}"#;
    let offer = [&offer[..], b"\0"].concat();
    let body = peer.call(spec::VERSION, &version(0, 0, &offer)).unwrap();
    let text = body[4..].strip_suffix(b"\0").unwrap();
    let ours: serde_json::Value = serde_json::from_slice(text).unwrap();
    assert_eq!(ours["capabilities"]["max_msg_fds"], 16);
}

#[test]
fn the_device_says_what_it_is() {
    let mut peer = Peer::agreed();
    let info = peer.call(spec::DEVICE_GET_INFO, &words(&[16, 0, 0, 0]));
    assert_eq!(info.unwrap(), words(&[16, 3, 9, 5]));
}

#[test]
fn regions_are_three_bars_and_configuration_space() {
    let mut peer = Peer::agreed();
    let sizes: Vec<u64> = (0..9)
        .map(|index| {
            let body = words(&[32, 0, index, 0, 0, 0, 0, 0]);
            let info = peer.call(spec::DEVICE_GET_REGION_INFO, &body).unwrap();
            u64::from_le_bytes(info[16..24].try_into().unwrap())
        })
        .collect();
    assert_eq!(sizes, [0x4000, 0x1000, 0x1000, 0, 0, 0, 0, 256, 0]);
}

#[test]
fn interrupts_are_intx_and_a_vector_a_queue_and_one() {
    let mut peer = Peer::agreed();
    let counts: Vec<u8> = (0..5)
        .map(|index| {
            let body = words(&[16, 0, index, 0]);
            peer.call(spec::DEVICE_GET_IRQ_INFO, &body).unwrap()[12]
        })
        .collect();
    assert_eq!(counts, [1, 0, 3, 0, 0]);
}

#[test]
fn configuration_space_is_read_whole() {
    let mut peer = Peer::agreed();
    let body = peer.call(spec::REGION_READ, &region(0, 7, 256)).unwrap();
    assert_eq!(body.len(), 16 + 256);
    assert_eq!(body[16..20], [0xf4, 0x1a, 0x50, 0x10]);
}

#[test]
fn a_write_that_wants_no_reply_gets_none() {
    let mut peer = Peer::agreed();
    let body = [region(0x14, 0, 1), vec![1]].concat();
    let mut bytes = message::command(7, spec::REGION_WRITE, &body);
    bytes[8] |= spec::NO_REPLY as u8;
    peer.raw(&bytes, &[]);
    // The next reply is that of the next command.
    assert_eq!(peer.read_bar(0x14, 1), 1);
}

#[test]
fn messages_that_come_together_are_all_answered_in_order() {
    let peer = Peer::agreed();
    // More than one look at the socket takes.
    let reset = |id| message::command(id, spec::DEVICE_RESET, &[]);
    let together: Vec<u8> = (0..200).flat_map(reset).collect();
    peer.raw(&together, &[]);
    for id in 0..200 {
        assert_eq!(peer.receive().0.id, id);
    }
}

#[test]
fn a_file_belongs_to_the_message_that_it_came_with_and_to_no_other() {
    let peer = Peer::agreed();
    let file = memory(1);
    let with_file = |id, iova| message::command(id, spec::DMA_MAP, &map(RW, 0, iova, PAGE));
    let reset = |id| message::command(id, spec::DEVICE_RESET, &[]);
    for round in 0..50u16 {
        let id = 4 * round;
        let iova = 0x10000 + u64::from(round) * PAGE;
        peer.raw(&[reset(id), reset(id + 1)].concat(), &[]);
        peer.raw(&with_file(id + 2, iova), &[file.as_fd()]);
        peer.raw(&reset(id + 3), &[]);
    }
    // A file with a reset would be refused.
    for id in 0..200 {
        let (header, _) = peer.receive();
        assert_eq!((header.id, header.failure()), (id, None));
    }
    let mapped = peer.handle.mappings().unwrap();
    assert!(mapped.iter().all(|mapping| mapping.target == Some(Gpa(0))));
    assert_eq!(mapped.len(), 50);
}

#[test]
fn a_reset_brings_the_device_back_to_its_start() {
    let mut peer = Peer::agreed();
    peer.write_bar(0x14, &[1]);
    peer.call(spec::DEVICE_RESET, &[]).unwrap();
    assert_eq!(peer.read_bar(0x14, 1), 0);
}

#[test]
fn what_is_mapped_is_reached_at_its_guest_physical_address() {
    let (mut peer, memory) = Peer::with_memory(4);
    let command = [region(4, 7, 2), vec![6, 0]].concat();
    peer.call(spec::REGION_WRITE, &command).unwrap();
    assert_eq!(peer.handle.device_read(Iova(0x12000), 2).unwrap(), [2, 2]);
    peer.handle.device_write(Iova(0x13000), vec![9]).unwrap();
    let mut byte = [0];
    memory.read_exact_at(&mut byte, 3 * PAGE).unwrap();
    assert_eq!(byte, [9]);
    let wanted = Mapping {
        iova: Iova(0x10000),
        length: 4 * PAGE,
        target: Some(Gpa(0)),
        read: true,
        write: true,
    };
    assert_eq!(peer.handle.mappings().unwrap(), [wanted]);
}

#[test]
fn without_bus_mastering_nothing_is_reached() {
    let (peer, _memory) = Peer::with_memory(1);
    let refused = peer.handle.device_read(Iova(0x10000), 1).unwrap_err();
    assert!(refused.to_string().contains("bus mastering"), "{refused}");
}

fn bus_master(peer: &mut Peer) {
    let command = [region(4, 7, 2), vec![6, 0]].concat();
    peer.call(spec::REGION_WRITE, &command).unwrap();
}

#[test]
fn a_read_only_mapping_refuses_a_write() {
    let mut peer = Peer::agreed();
    bus_master(&mut peer);
    let memory = memory(1);
    peer.call_with(spec::DMA_MAP, &map(1, 0, 0, PAGE), &[memory.as_fd()])
        .unwrap();
    assert!(peer.handle.device_read(Iova(0), 1).is_ok());
    assert!(peer.handle.device_write(Iova(0), vec![1]).is_err());
}

#[test]
fn a_range_without_a_file_is_mapped_to_no_memory() {
    let mut peer = Peer::agreed();
    bus_master(&mut peer);
    peer.call(spec::DMA_MAP, &map(1, 0, 0, PAGE)).unwrap();
    let refused = peer.handle.device_read(Iova(0), 1).unwrap_err();
    assert!(refused.to_string().contains("no memory"), "{refused}");
}

#[test]
fn unmap_all_is_bit_one() {
    let (mut peer, _memory) = Peer::with_memory(4);
    peer.call(spec::DMA_UNMAP, &unmap(2, 0, 0)).unwrap();
    assert!(peer.handle.mappings().unwrap().is_empty());
}

#[test]
fn an_unmap_spans_mappings_and_what_was_never_mapped() {
    let (mut peer, memory) = Peer::with_memory(2);
    peer.call_with(spec::DMA_MAP, &map(RW, 0, 0x20000, PAGE), &[memory.as_fd()])
        .unwrap();
    let body = unmap(0, 0, 1 << 32);
    assert_eq!(peer.call(spec::DMA_UNMAP, &body).unwrap(), body);
    assert!(peer.handle.mappings().unwrap().is_empty());
}

#[test]
fn a_refused_access_is_done_by_the_client_once_more() {
    let mut peer = Peer::agreed();
    bus_master(&mut peer);
    assert!(peer.handle.device_read(Iova(0x5000), 8).is_err());
    let (header, body) = peer.receive();
    assert_eq!((header.command, header.is_reply()), (spec::DMA_READ, false));
    let asked = [0x5000u64.to_le_bytes(), 8u64.to_le_bytes()].concat();
    assert_eq!(body, asked);
    peer.raw(&header.refusal(message::Errno(19)), &[]);
    let events = peer.events();
    assert!(events.iter().any(|e| matches!(e, Event::Fault { .. })));
    assert!(
        !events
            .iter()
            .any(|e| matches!(e, Event::Note { text } if text.contains("let")))
    );
}

#[test]
fn what_the_client_lets_through_after_all_is_told() {
    let mut peer = Peer::agreed();
    bus_master(&mut peer);
    let _ = peer.handle.device_read(Iova(0x5000), 1);
    let (header, body) = peer.receive();
    peer.raw(&header.reply(&[body, vec![0xaa]].concat()), &[]);
    let told = |e: &Event| matches!(e, Event::Note { text } if text.contains("let the device"));
    assert!(peer.events().iter().any(told));
}

#[test]
fn the_client_reads_for_another_thread() {
    let peer = Peer::agreed();
    let handle = peer.handle.clone();
    let asking = std::thread::spawn(move || handle.peer_read(Iova(0x7000), 3));
    let (header, body) = peer.receive();
    peer.raw(&header.reply(&[&body[..], &[1, 2, 3]].concat()), &[]);
    assert_eq!(asking.join().unwrap().unwrap(), [1, 2, 3]);
}

#[test]
fn a_reply_that_is_too_short_is_no_success() {
    let peer = Peer::agreed();
    let handle = peer.handle.clone();
    let asking = std::thread::spawn(move || handle.peer_read(Iova(0x7000), 300));
    let (header, body) = peer.receive();
    peer.raw(&header.reply(&body), &[]);
    assert!(asking.join().unwrap().is_err());
}

#[test]
fn vectors_are_connected_fired_and_disconnected() {
    let mut peer = Peer::agreed();
    let files = [event(), event()];
    let both: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let connect = words(&[20, 4 | 32, 2, 1, 2]);
    peer.call_with(spec::DEVICE_SET_IRQS, &connect, &both)
        .unwrap();
    let fire = words(&[20, 1 | 32, 2, 2, 1]);
    peer.call(spec::DEVICE_SET_IRQS, &fire).unwrap();
    assert_eq!([signals(&files[0]), signals(&files[1])], [0, 1]);
    // One interrupt with files and none there: its file goes.
    let detach = words(&[20, 4 | 32, 2, 2, 1]);
    peer.call(spec::DEVICE_SET_IRQS, &detach).unwrap();
    peer.call(spec::DEVICE_SET_IRQS, &fire).unwrap();
    assert_eq!(signals(&files[1]), 0);
}

#[test]
fn the_journal_begins_and_ends() {
    let events = Peer::agreed().events();
    assert!(matches!(events.first(), Some(Event::Begin(begin)) if begin.domain == "guest"));
    let end = events.last();
    assert!(matches!(
        end,
        Some(Event::End(journal::event::End::Completed))
    ));
}
