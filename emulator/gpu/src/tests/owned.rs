//! What memory the device has any business with.

use super::{BACKING, COMMAND, Guest, RESPONSE, create, detach, dma};
use crate::{Owned, Use};
use journal::event::{Event, ORDERED};
use memory::Iova;

fn owned(guest: &Guest) -> Vec<Owned> {
    guest.gpu.owned(dma(&guest.os, &guest.gpu))
}

fn ranges(guest: &Guest, what: Use) -> Vec<(Iova, u32)> {
    let all = owned(guest).into_iter().filter(|o| o.what == what);
    all.map(|o| (o.iova, o.length)).collect()
}

#[test]
fn rings_and_backing_are_its_business_until_they_are_taken_away() {
    let mut guest = Guest::new();
    guest.show(7, 8, 8);
    assert_eq!(ranges(&guest, Use::Ring(0)).len(), 3);
    assert_eq!(ranges(&guest, Use::Backing(7)), [(Iova(BACKING), 256)]);
    assert!(ranges(&guest, Use::Buffer(0)).is_empty());
    guest.ask(&detach(7));
    assert!(ranges(&guest, Use::Backing(7)).is_empty());
}

#[test]
fn a_buffer_that_waits_is_its_business_before_and_while_it_is_worked_on() {
    let mut guest = Guest::new();
    let command = create(7, 2, 8, 8);
    let buffer = [(Iova(COMMAND), command.len() as u32), (Iova(RESPONSE), 64)];
    guest.queue(0, &command, 64);
    assert_eq!(ranges(&guest, Use::Buffer(0)), buffer);
    guest.step();
    assert_eq!(ranges(&guest, Use::Buffer(0)), buffer);
    guest.run();
    assert!(ranges(&guest, Use::Buffer(0)).is_empty());
}

#[test]
fn looking_is_in_no_journal_and_an_order_is() {
    let mut guest = Guest::new();
    let before = guest.events().len();
    owned(&guest);
    assert_eq!(guest.events().len(), before);
    let context = {
        let dma = dma(&guest.os, &guest.gpu);
        guest.gpu.order(dma, "read".to_owned())
    };
    let said = guest.events().iter().any(|event| {
        matches!(event, Event::Command { context: of, detail, .. }
            if *of == context && detail == "read")
    });
    assert!(said);
    assert!(guest.told().contains(&ORDERED.to_owned()));
}
