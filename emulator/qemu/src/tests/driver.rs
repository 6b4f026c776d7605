//! A driver's few steps: to its interrupts, and to a fault of a ring.

use super::*;

const STATUS: u64 = 0x14;
const CONFIG_VECTOR: u64 = 0x10;
const NOTIFY: u64 = 0x3000;

/// Bring the device to DRIVER_OK, with queue 0 at pages that are mapped or
/// not, and configuration changes at vector 0.
fn start(peer: &mut Peer, rings: u64) {
    let command = [region(4, 7, 2), vec![6, 0]].concat();
    peer.call(spec::REGION_WRITE, &command).unwrap();
    for status in [1u8, 3] {
        peer.write_bar(STATUS, &[status]);
    }
    // Features: VERSION_1 and ACCESS_PLATFORM are bits 0 and 1 of the upper
    // half.
    peer.write_bar(0x08, &1u32.to_le_bytes());
    peer.write_bar(0x0c, &3u32.to_le_bytes());
    peer.write_bar(STATUS, &[11]);
    peer.write_bar(CONFIG_VECTOR, &[0, 0]);
    for (offset, address) in [
        (0x20, rings),
        (0x28, rings + 0x1000),
        (0x30, rings + 0x2000),
    ] {
        peer.write_bar(offset, &address.to_le_bytes());
    }
    peer.write_bar(0x1c, &[1, 0]);
    peer.write_bar(STATUS, &[15]);
    assert_eq!(peer.read_bar(STATUS, 1), 15);
}

/// Wait until an event file was signalled.
fn signalled(file: &OwnedFd) -> bool {
    for _ in 0..500 {
        if signals(file) != 0 {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn msix(peer: &mut Peer, enabled: bool) {
    // The MSI-X capability is the first; its control register holds the bit.
    let control = [region(0x42, 7, 2), vec![0, if enabled { 0x80 } else { 0 }]].concat();
    peer.call(spec::REGION_WRITE, &control).unwrap();
}

/// The doorbell of queue 0, by a message that wants no reply.
fn ring(peer: &Peer) {
    let doorbell = [region(NOTIFY, 0, 2), vec![0, 0]].concat();
    let mut bytes = message::command(1, spec::REGION_WRITE, &doorbell);
    bytes[8] |= spec::NO_REPLY as u8;
    peer.raw(&bytes, &[]);
}

#[test]
fn a_ring_that_is_not_mapped_stops_the_device_and_interrupts_by_its_vector() {
    let mut peer = Peer::agreed();
    let file = event();
    let connect = words(&[20, 4 | 32, 2, 0, 1]);
    peer.call_with(spec::DEVICE_SET_IRQS, &connect, &[file.as_fd()])
        .unwrap();
    msix(&mut peer, true);
    start(&mut peer, 0x9_0000);
    ring(&peer);
    // The client is asked to read the ring, so that the guest hears of it.
    let (header, body) = peer.receive();
    assert_eq!(header.command, spec::DMA_READ);
    assert_eq!(body[1..3], [0x10, 0x09], "the available ring");
    assert!(signalled(&file));
    assert_eq!(peer.read_bar(STATUS, 1) & 0x40, 0x40, "DEVICE_NEEDS_RESET");
}

#[test]
fn intx_fires_once_until_it_is_unmasked() {
    let mut peer = Peer::agreed();
    let file = event();
    let connect = words(&[20, 4 | 32, 0, 0, 1]);
    peer.call_with(spec::DEVICE_SET_IRQS, &connect, &[file.as_fd()])
        .unwrap();
    start(&mut peer, 0x9_0000);
    ring(&peer);
    assert_eq!(peer.receive().0.command, spec::DMA_READ);
    assert!(signalled(&file));
    assert_eq!(signals(&file), 0);
    // Still asserted: the guest has not read the status.
    let unmask = words(&[20, 1 | 16, 0, 0, 1]);
    peer.call(spec::DEVICE_SET_IRQS, &unmask).unwrap();
    assert!(signalled(&file));
}

#[test]
fn intx_fires_again_when_its_file_says_that_it_was_seen() {
    let mut peer = Peer::agreed();
    let (file, unmask) = (event(), event());
    for (action, file) in [(32, &file), (16, &unmask)] {
        let connect = words(&[20, 4 | action, 0, 0, 1]);
        peer.call_with(spec::DEVICE_SET_IRQS, &connect, &[file.as_fd()])
            .unwrap();
    }
    start(&mut peer, 0x9_0000);
    ring(&peer);
    assert!(signalled(&file));
    rustix::io::write(&unmask, &1u64.to_ne_bytes()).unwrap();
    assert!(signalled(&file));
}

/// Connect vector 0, let the device take a ring that is not mapped, and hear
/// whether it interrupts, under one fault.
fn interrupts_under(fault: &str) -> (Peer, OwnedFd) {
    let plan = scenario::Plan::parse(&format!("[[fault]]\nat = \"interrupt\"\n{fault}"));
    let config = ServeConfig {
        plan: Some(plan.unwrap()),
        ..ServeConfig::default()
    };
    let mut peer = Peer::of(config, |server, stream, stop| server.serve(stream, stop));
    peer.call(spec::VERSION, &version(0, 0, b"{}\0")).unwrap();
    let file = event();
    let connect = words(&[20, 4 | 32, 2, 0, 1]);
    peer.call_with(spec::DEVICE_SET_IRQS, &connect, &[file.as_fd()])
        .unwrap();
    msix(&mut peer, true);
    start(&mut peer, 0x9_0000);
    ring(&peer);
    // Once the client is asked, the device has come to its end.
    assert_eq!(peer.receive().0.command, spec::DMA_READ);
    assert_eq!(peer.read_bar(STATUS, 1) & 0x40, 0x40, "DEVICE_NEEDS_RESET");
    (peer, file)
}

#[test]
fn an_interrupt_that_the_scenario_loses_does_not_come() {
    let (mut peer, file) = interrupts_under("do = \"lost\"");
    // Two more rounds of the server.
    peer.read_bar(STATUS, 1);
    peer.read_bar(STATUS, 1);
    assert_eq!(signals(&file), 0);
    assert_eq!(injections(peer), 1);
}

#[test]
fn a_late_interrupt_comes_of_its_own_accord() {
    let (peer, file) = interrupts_under("do = \"late\"\nns = 20_000_000");
    assert!(signalled(&file));
    assert_eq!(injections(peer), 1);
}

/// How many faults were injected, by the journal.
fn injections(peer: Peer) -> usize {
    let injected = |event: &&Event| matches!(event, Event::Injected { .. });
    peer.events().iter().filter(injected).count()
}

/// The notes at the end of a client's time.
fn notes(peer: Peer) -> Vec<String> {
    let note = |event| match event {
        Event::Note { text } => Some(text),
        _ => None,
    };
    peer.events().into_iter().filter_map(note).collect()
}

#[test]
fn a_device_that_nobody_started_is_told() {
    let (peer, _memory) = Peer::with_memory(4);
    let notes = notes(peer);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("never started the GPU"), "{notes:?}");
}

#[test]
fn a_device_that_is_isolated_says_nothing_of_it() {
    let (mut peer, _memory) = Peer::with_memory(4);
    start(&mut peer, 0x10000);
    assert_eq!(notes(peer), [""; 0]);
}

#[test]
fn a_device_that_reaches_all_of_memory_where_it_is_is_told() {
    let mut peer = Peer::agreed();
    let memory = memory(4);
    let all = map(RW, 0, 0, 4 * PAGE);
    peer.call_with(spec::DMA_MAP, &all, &[memory.as_fd()])
        .unwrap();
    start(&mut peer, 0);
    let notes = notes(peer);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("is not isolated"), "{notes:?}");
}
