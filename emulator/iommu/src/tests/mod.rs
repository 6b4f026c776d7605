//! Tests of the crate as its users see it.
#![allow(clippy::unwrap_used)]

mod faults;
mod flight;
mod hostile;
mod injected;
mod model;
mod queue;
mod registers;
mod ring;
mod staleness;
mod state;
mod walk;

use crate::testing::{Os, READ_WRITE};
use crate::{Dma, FaultReason};
use journal::Event;
use memory::{Gpa, Iova, RequesterId};

const RAM: u64 = 4 << 20;
const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
const OTHER: RequesterId = RequesterId::new(0, 3, 0);
const DOMAIN: u16 = 7;
/// A mapped address, and pages to map it to.
const IOVA: Iova = Iova(0x12_3456_7000);
const PAGE_A: Gpa = Gpa(0x30_0000);
const PAGE_B: Gpa = Gpa(0x30_1000);

/// One device in one domain, [`IOVA`] mapped to [`PAGE_A`]; the pages hold
/// `a` and `b`.
fn one_page() -> (Os, Gpa, Gpa) {
    let os = Os::started(RAM);
    let top = os.attach(DEVICE, DOMAIN, 4);
    let leaf = os.map(top, IOVA, PAGE_A, READ_WRITE);
    os.memory.fill(PAGE_A, 4096, b'a').unwrap();
    os.memory.fill(PAGE_B, 4096, b'b').unwrap();
    (os, top, leaf)
}

/// The byte that a read gives, or why it gives none.
fn byte(dma: &Dma<'_>, iova: Iova) -> Result<u8, FaultReason> {
    let mut byte = [0];
    dma.read(iova, &mut byte).map_err(|fault| fault.reason)?;
    Ok(byte[0])
}

fn poke(dma: &Dma<'_>, iova: Iova) -> Result<(), FaultReason> {
    dma.write(iova, b"x").map_err(|fault| fault.reason)
}

/// What the journal of `os` holds.
fn events(os: &Os) -> Vec<Event> {
    let bytes = os.scenario.journal().bytes();
    journal::read(bytes.as_slice())
        .unwrap()
        .0
        .into_iter()
        .map(|record| record.event)
        .collect()
}
