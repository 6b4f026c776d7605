//! Snapshots, resets, and what a step is.

use super::{Guest, create, flush, transfer};
use crate::Stepped;
use crate::spec::command as code;
use journal::event::Event;
use pci::spec::virtio::common;
use scenario::Part;

/// Two commands queued at once, so that a snapshot may fall between them.
fn busy(part: Part) -> Guest {
    let mut guest = Guest::isolated(part);
    guest.show(7, 64, 64);
    guest.draw(1, 64, 64);
    guest.queue(0, &transfer(7, (3, 5, 40, 50), 64), 24);
    guest
}

/// One step; an access that waits is made to land.
fn step(guest: &mut Guest) -> Stepped {
    match guest.step() {
        Stepped::Waiting => {
            let dma = guest.os.dma(guest.gpu.requester());
            guest.gpu.step_landing(dma)
        }
        other => other,
    }
}

#[test]
fn restored_at_any_step_the_journal_goes_on_the_same() {
    for part in [Part::None, Part::All] {
        let mut guest = busy(part);
        let mut points = Vec::new();
        loop {
            points.push((
                guest.gpu.save(),
                guest.os.unit.save(),
                guest.os.scenario.save(),
                guest.os.scenario.journal().save(),
                guest.os.memory.save().unwrap(),
            ));
            if step(&mut guest) == Stepped::Idle {
                break;
            }
        }
        let whole = guest.os.scenario.journal().bytes();
        assert!(points.len() > 50);

        for (gpu, unit, scenario, journal, memory) in points.iter().rev().step_by(3) {
            guest.gpu.restore(gpu);
            guest.os.unit.restore(unit);
            guest.os.scenario.restore(scenario);
            guest.os.scenario.journal().restore(journal).unwrap();
            guest.os.memory.restore(memory).unwrap();
            while step(&mut guest) != Stepped::Idle {}

            assert_eq!(guest.os.scenario.journal().bytes(), whole);
        }
    }
}

#[test]
fn a_step_makes_at_most_one_access_outside_the_rings() {
    let mut guest = busy(Part::None);
    loop {
        let before = guest.events().len();
        if guest.step() == Stepped::Idle {
            break;
        }
        let made = guest.events()[before..]
            .iter()
            .filter(|e| matches!(e, Event::Access { iova, .. } if iova.0 >= super::COMMAND))
            .count();
        assert!(made <= 1);
    }
    assert_eq!(guest.code(), code::OK_NODATA);
}

#[test]
fn each_row_piece_of_backing_is_a_step() {
    let mut guest = busy(Part::None);

    let steps = guest.run();

    // pop, command, 50 rows of which those that cross a page take two,
    // response, used, ask, interrupt, and the empty ring.
    let crossing = (0..50u64)
        .filter(|row| {
            let start = 64 + row * 256;
            start / 4096 != (start + 159) / 4096
        })
        .count();
    assert_eq!(steps, 2 + 50 + crossing + 4 + 1);
}

#[test]
fn whole_rows_are_read_by_pages() {
    for part in [Part::None, Part::Reads] {
        let mut guest = Guest::isolated(part);
        guest.show(7, 64, 64);
        let before = guest.events().len();

        guest.ask(&transfer(7, (0, 0, 64, 64), 0));

        let pieces: Vec<(u64, u32)> = guest.events()[before..]
            .iter()
            .filter_map(|e| match e {
                Event::Access { iova, length, .. } if iova.0 >= super::BACKING => {
                    Some((iova.0 - super::BACKING, *length))
                }
                _ => None,
            })
            .collect();
        let page = 0x1000;
        assert_eq!(pieces, [0, 1, 2, 3].map(|n| (n * u64::from(page), page)));
    }
}

#[test]
fn a_piece_ends_with_its_page() {
    let mut guest = Guest::new();
    guest.ask(&create(7, 2, 16, 16));
    guest.ask(&super::attach(7, &[(super::BACKING + 0xf00, 1024)]));
    guest.queue(0, &transfer(7, (0, 0, 16, 16), 0), 24);

    let steps = guest.run();

    // pop, command, two pieces, response, used, ask, interrupt, empty ring.
    assert_eq!(steps, 9);
}

#[test]
fn reset_in_mid_command_cancels_what_is_in_flight() {
    let mut guest = busy(Part::Reads);
    while guest.step() != Stepped::Waiting {}
    assert_eq!(guest.os.unit.in_flight(), 1);

    guest.set(common::DEVICE_STATUS, 0);

    assert_eq!(guest.os.unit.in_flight(), 0);
    assert!(!guest.gpu.has_work());
    assert_eq!(guest.step(), Stepped::Idle);
    let cancelled = |e: &Event| matches!(e, Event::Cancelled { .. });
    assert_eq!(guest.events().iter().filter(|e| cancelled(e)).count(), 1);
    assert_eq!(guest.told().last().unwrap(), "RESET");
}

#[test]
fn reset_at_any_step_forgets_resources_and_leaves_a_working_device() {
    for count in 0..60 {
        let mut guest = busy(Part::None);
        for _ in 0..count {
            guest.step();
        }

        guest.set(common::DEVICE_STATUS, 0);
        guest.start();

        assert_eq!(
            guest.ask(&flush(7, (0, 0, 1, 1))),
            code::ERR_INVALID_RESOURCE_ID
        );
        assert_eq!(guest.ask(&create(7, 2, 16, 16)), code::OK_NODATA);
    }
}

#[test]
fn a_doorbell_before_driver_ok_waits_for_it() {
    let mut guest = Guest::new();
    guest.set(common::DEVICE_STATUS, 0);
    guest.prepare();
    guest.queue(0, &create(7, 2, 16, 16), 24);
    assert!(!guest.gpu.has_work());
    assert_eq!(guest.step(), Stepped::Idle);

    guest.set(common::DEVICE_STATUS, 0xf);
    guest.run();

    assert_eq!(guest.used(0), (1, 0, 24));
}

#[test]
fn without_a_doorbell_the_device_rests() {
    let mut guest = Guest::new();
    guest.run();

    assert!(!guest.gpu.has_work());
    assert_eq!(guest.step(), Stepped::Idle);
}

#[test]
fn what_the_device_may_write_shrinks_as_it_works() {
    let mut guest = busy(Part::None);
    let responses = |guest: &Guest| {
        let dma = super::dma(&guest.os, &guest.gpu);
        let writes = guest.gpu.may_write(dma);
        writes
            .iter()
            .filter(|s| s.iova.0 == super::RESPONSE)
            .count()
    };
    assert_eq!(responses(&guest), 1);
    guest.step();
    assert_eq!(responses(&guest), 1);

    guest.run();

    assert_eq!(responses(&guest), 0);
}
