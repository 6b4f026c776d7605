//! The IOMMU refuses, or accesses stay in flight.

use super::{BACKING, COMMAND, Guest, RESPONSE, RINGS, create, flush, pixel, transfer, unref};
use crate::Stepped;
use crate::spec::command as code;
use iommu::testing::global;
use journal::event::Event;
use memory::{Gpa, Iova};
use pci::RingError;
use pci::spec::virtio::{STATUS_NEEDS_RESET, common};
use scenario::Part;

/// Take a page away from the device, as an OS does.
fn unmap(guest: &Guest, page: u64, drain: bool) {
    guest.os.map(guest.top.unwrap(), Iova(page), Gpa(0), 0);
    assert!(guest.os.run(global(drain)));
}

fn faults(guest: &Guest) -> Vec<Iova> {
    let events = guest.events();
    events
        .iter()
        .filter_map(|e| match e {
            Event::Fault { iova, .. } => Some(*iova),
            _ => None,
        })
        .collect()
}

#[test]
fn behind_the_iommu_a_frame_arrives() {
    let mut guest = Guest::isolated(Part::None);
    guest.show(7, 100, 60);
    guest.draw(1, 100, 60);

    guest.ask(&transfer(7, (0, 0, 100, 60), 0));
    guest.ask(&flush(7, (0, 0, 100, 60)));

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!(frame.pixel(99, 59), Some(pixel(1, 99, 59)));
    assert!(faults(&guest).is_empty());
}

#[test]
fn a_transfer_that_faults_answers_unspec() {
    let mut guest = Guest::isolated(Part::None);
    guest.show(7, 64, 64);
    unmap(&guest, BACKING + 0x2000, true);

    let code = guest.ask(&transfer(7, (0, 0, 64, 64), 0));

    assert_eq!(code, code::ERR_UNSPEC);
    assert_eq!(faults(&guest), [Iova(BACKING + 0x2000)]);
    // The device goes on.
    assert_eq!(guest.ask(&unref(7)), code::OK_NODATA);
}

#[test]
fn backing_is_translated_at_each_transfer() {
    let mut guest = Guest::isolated(Part::None);
    guest.show(7, 16, 16);
    guest.draw(1, 16, 16);
    let elsewhere = Gpa(BACKING + 0x8000);
    guest.draw(1, 16, 16);
    guest.poke(elsewhere.0, &[0x55; 1024]);
    guest.ask(&transfer(7, (0, 0, 16, 16), 0));

    let rights = iommu::testing::READ_WRITE;
    guest
        .os
        .map(guest.top.unwrap(), Iova(BACKING), elsewhere, rights);
    assert!(guest.os.run(global(true)));
    guest.ask(&transfer(7, (0, 0, 16, 16), 0));
    guest.ask(&flush(7, (0, 0, 16, 16)));

    let frame = guest.gpu.frame(0).unwrap();
    assert_eq!(frame.pixel(3, 3), Some(0x0055_5555));
}

#[test]
fn a_fault_in_a_ring_needs_a_reset() {
    // Descriptors and available ring, read; used ring, written.
    for page in [RINGS, RINGS + 0x1000, RINGS + 0x2000] {
        let mut guest = Guest::isolated(Part::None);
        unmap(&guest, page, true);

        guest.queue(0, &create(7, 2, 16, 16), 24);
        guest.run();

        let transport = guest.gpu.function().transport();
        assert_ne!(transport.status() & STATUS_NEEDS_RESET, 0);
        assert_eq!(transport.failure(), Some(&RingError::Fault(0)));
        assert!(!guest.gpu.has_work());
        // The configuration change interrupt.
        let messages = guest.os.unit.take_messages();
        assert_eq!(messages.iter().filter(|m| m.data == 0x40).count(), 1);
    }
}

#[test]
fn after_a_reset_the_device_works_again() {
    let mut guest = Guest::isolated(Part::None);
    unmap(&guest, RINGS, true);
    guest.queue(0, &create(7, 2, 16, 16), 24);
    guest.run();
    let rights = iommu::testing::READ_WRITE;
    guest
        .os
        .map(guest.top.unwrap(), Iova(RINGS), Gpa(RINGS), rights);

    guest.set(common::DEVICE_STATUS, 0);
    guest.start();

    assert_eq!(guest.ask(&create(7, 2, 16, 16)), code::OK_NODATA);
}

#[test]
fn a_command_that_cannot_be_read_answers_unspec() {
    let mut guest = Guest::isolated(Part::None);
    unmap(&guest, COMMAND, true);

    let code = guest.ask(&create(7, 2, 16, 16));

    assert_eq!(code, code::ERR_UNSPEC);
    assert_eq!(guest.told(), ["UNREAD", "ERR_UNSPEC"]);
}

#[test]
fn a_response_that_cannot_be_written_is_used_with_length_0() {
    let mut guest = Guest::isolated(Part::None);
    unmap(&guest, RESPONSE, true);

    guest.queue(0, &create(7, 2, 16, 16), 24);
    guest.run();

    assert_eq!(guest.used(0), (1, 0, 0));
    assert_eq!(guest.peek(RESPONSE, 1), [0xee]);
}

#[test]
fn without_bus_mastering_the_rings_fault() {
    let mut guest = Guest::new();
    let dma = super::dma(&guest.os, &guest.gpu);
    guest.gpu.config_write(dma, 0x04, 2, 0x2);

    guest.queue(0, &create(7, 2, 16, 16), 24);
    guest.run();

    let failure = guest.gpu.function().transport().failure().copied();
    assert_eq!(failure, Some(RingError::Fault(0)));
}

/// Step until the device waits.
fn until_waiting(guest: &mut Guest) {
    for _ in 0..1000 {
        match guest.step() {
            Stepped::Waiting => return,
            Stepped::Progress => {}
            Stepped::Idle => break,
        }
    }
    panic!("the device never waited");
}

#[test]
fn a_parted_write_is_not_passed_by_the_used_ring() {
    let mut guest = Guest::isolated(Part::Writes);
    guest.queue(0, &create(7, 2, 16, 16), 24);

    until_waiting(&mut guest);

    assert_eq!(guest.os.unit.in_flight(), 1);
    assert_eq!(guest.used(0).0, 0);
    assert_eq!(guest.peek(RESPONSE, 1), [0xee]);
    guest.run();
    assert_eq!((guest.code(), guest.used(0)), (code::OK_NODATA, (1, 0, 24)));
}

#[test]
fn a_read_in_flight_sees_what_came_after_it_was_issued() {
    let mut guest = Guest::isolated(Part::Reads);
    guest.show(7, 16, 16);
    guest.draw(1, 16, 16);
    guest.queue(0, &transfer(7, (0, 0, 16, 16), 0), 24);
    until_waiting(&mut guest); // the command
    let dma = guest.os.dma(guest.gpu.requester());
    guest.gpu.step_landing(dma);
    until_waiting(&mut guest); // the backing
    unmap(&guest, BACKING, false);

    guest.draw(2, 16, 16);
    guest.run();
    guest.ask(&flush(7, (0, 0, 16, 16)));

    assert_eq!(
        guest.gpu.frame(0).unwrap().pixel(1, 1),
        Some(pixel(2, 1, 1))
    );
    assert!(faults(&guest).is_empty());
}

#[test]
fn a_draining_invalidation_takes_the_bytes_of_that_moment() {
    let mut guest = Guest::isolated(Part::Reads);
    guest.show(7, 16, 16);
    guest.draw(1, 16, 16);
    guest.queue(0, &transfer(7, (0, 0, 16, 16), 0), 24);
    until_waiting(&mut guest);
    let dma = guest.os.dma(guest.gpu.requester());
    guest.gpu.step_landing(dma);
    until_waiting(&mut guest);
    unmap(&guest, BACKING, true);

    guest.draw(2, 16, 16);
    guest.run();
    guest.ask(&flush(7, (0, 0, 16, 16)));

    assert_eq!(
        guest.gpu.frame(0).unwrap().pixel(1, 1),
        Some(pixel(1, 1, 1))
    );
}
