//! Faults as a part of an input: the whole vocabulary of scenarios, but for
//! `name` and `caller`. Whatever bytes or mutations say, [`mend`] makes a
//! fault of it that can be, and that Windows and hardware can show.

use super::program::Reader;
use libafl_bolts::rands::Rand;
use machine::FALLIBLE;
use scenario::fault::{Probability, Status, matches};
use scenario::{Descriptor, Direction, Fault, SiteKind, What};
use std::sync::LazyLock;

/// Routines that a fault can come after.
const AFTER: [&str; 16] = [
    ESCAPE,
    "DxgkDdiStopDevice",
    "DxgkDdiSetPowerState",
    "DxgkDdiInterruptRoutine",
    "DxgkDdiDpcRoutine",
    "DxgkDdiStartDevice",
    "DxgkDdiQueryAdapterInfo",
    "DxgkDdiBeginExclusiveAccess",
    "DxgkDdiEndExclusiveAccess",
    "DxgkDdiRemoveDevice",
    "DxgkCbAllocatePagesForMdl",
    "DxgkCbFreePagesFromMdl",
    "DxgkCbAllocateContiguousMemory",
    "DxgkCbFreeContiguousMemory",
    "DxgkCbMapMdlToIoMmu",
    "DxgkCbUnmapMdlFromIoMmu",
];
/// The one after which all else comes that is no part of the start.
const ESCAPE: &str = "DxgkDdiEscape";
/// Routines that take memory from the device.
const RELEASING: [&str; 5] = [
    "DxgkCbFreePagesFromMdl",
    "DxgkCbFreeContiguousMemory",
    "DxgkCbUnmapMdlFromIoMmu",
    "DxgkCbUnmapFrameBufferPointer",
    "DxgkCbUnpinFrameBufferForSave",
];
/// What a failing routine returns where its documents do not say (ntstatus.h):
/// STATUS_UNSUCCESSFUL, NO_MEMORY, INSUFFICIENT_RESOURCES, DEVICE_NOT_READY,
/// IO_DEVICE_ERROR, DEVICE_REMOVED.
const STATUSES: [u32; 6] = [
    0xC000_0001,
    0xC000_0017,
    0xC000_009A,
    0xC000_00A3,
    0xC000_0185,
    0xC000_02B6,
];
const DESCRIPTORS: [Descriptor; 3] = [Descriptor::Context, Descriptor::Iotlb, Descriptor::Wait];
const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];
/// Queues of a virtio-gpu: control and cursor (virtio 1.2 §5.7.2).
const QUEUES: u16 = 2;
/// Longest delay, virtual nanoseconds: more than a driver waits for a device.
const MAX_DELAY: u64 = 20_000_000_000;
/// Addresses and times lie below; TOML has no larger integers than 2^63 - 1.
const MAX_NUMBER: u64 = 1 << 48;
/// A probability is in millionths.
const CERTAIN: u32 = 1_000_000;

static COMMANDS: LazyLock<Vec<&str>> = LazyLock::new(|| machine::commands().collect());

/// What the driver does, so that faults are where it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clues {
    /// Responses with an EDID, from the start of the run.
    pub edids: Vec<u64>,
    /// Pages that the device accessed: the address of each.
    pub pages: Vec<u64>,
    /// Virtual time at which the driver has started, nanoseconds.
    pub started: u64,
}

/// What may follow from a fault that is nobody's defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Excuse {
    /// Nothing: Windows and hardware do that, and a driver must bear it.
    Nothing,
    /// What the device reaches, and what the IOMMU says of it: there the
    /// fault is. What the driver does then is its own.
    Accesses,
    /// Everything: memory is no longer what the driver wrote.
    Everything,
}

impl Excuse {
    pub fn of(fault: &Fault) -> Self {
        match (fault.at, fault.outcome) {
            // A write that goes astray may change anything.
            (SiteKind::Access, What::Redirect) if fault.direction != Some(Direction::Read) => {
                Self::Everything
            }
            // A device that reads what is not there does what nobody told it.
            (SiteKind::Access, What::Redirect | What::Drop)
            | (
                SiteKind::Unmap | SiteKind::Entry | SiteKind::Descriptor | SiteKind::FaultRecord,
                _,
            ) => Self::Accesses,
            // A slow access keeps its command waiting, and an IOTLB may hold
            // as little as it likes.
            (SiteKind::Access | SiteKind::Fill | SiteKind::Evict, _)
            | (SiteKind::Map | SiteKind::Attach, _)
            | (SiteKind::Interrupt | SiteKind::Queue, _) => Self::Nothing,
            // No document says that it may fail so.
            (SiteKind::Call, What::Fail) if fault.status.is_some() && !returns_status(fault) => {
                Self::Everything
            }
            (SiteKind::Call, _) => Self::Nothing,
        }
    }
}

/// Is it of one routine that gives memory or a mapping, and says by an
/// NTSTATUS whether it could? Others return pointers, or cannot fail.
fn returns_status(fault: &Fault) -> bool {
    let name = fault.function.as_deref();
    name.is_some_and(|name| name.starts_with("DxgkCb") && FALLIBLE.contains(&name))
}

/// Is it not there before this moment: not before virtual time `started`, and
/// not before something happens that is none of the names that `occurred`?
pub(crate) fn begins_after<'n>(
    fault: &Fault,
    started: u64,
    mut occurred: impl Iterator<Item = &'n str>,
) -> bool {
    let after = fault.after.as_ref();
    fault.window.is_some_and(|(from, _)| from > started)
        || after.is_some_and(|pattern| !occurred.any(|name| matches(pattern, name)))
}

/// Is it one that inputs have?
pub(crate) fn is_ours(fault: &Fault) -> bool {
    let mut bytes = Vec::new();
    write(fault, &mut bytes);
    read(&mut Reader::new(&bytes)) == *fault
}

/// What is given of a fault: a bit each.
const FUNCTION: u16 = 1;
const COMMAND: u16 = 1 << 1;
const DESCRIPTOR: u16 = 1 << 2;
const IOVA: u16 = 1 << 3;
const DIRECTION: u16 = 1 << 4;
const QUEUE: u16 = 1 << 5;
const NTH: u16 = 1 << 6;
const EVERY: u16 = 1 << 7;
const AFTERWARDS: u16 = 1 << 8;
const WINDOW: u16 = 1 << 9;
const PROBABILITY: u16 = 1 << 10;
const STATUS: u16 = 1 << 11;
const NS: u16 = 1 << 12;

/// A fault out of the bytes of an input.
pub(crate) fn read(reader: &mut Reader<'_>) -> Fault {
    let at = pick(&SiteKind::ALL, reader.byte());
    let outcome = pick(at.outcomes(), reader.byte());
    let given = reader.word();
    let has = |bit: u16| given & bit != 0;
    let function = pick(functions(at), reader.byte());
    let command = pick(&COMMANDS, reader.byte());
    let small = reader.byte();
    let after = pick(&AFTER, reader.byte());
    let status = Status(pick(&STATUSES, reader.byte()));
    let count = u64::from(reader.word());
    let pages = u64::from(reader.word());
    let chance = f64::from(reader.long() as u32 % CERTAIN + 1) / f64::from(CERTAIN);
    let mut range = || (reader.long() % MAX_NUMBER, reader.long() % MAX_NUMBER);
    let (iova, window, (to, ns)) = (range(), range(), range());
    let end = |(first, more): (u64, u64)| (first, first + more);
    let mut fault = Fault {
        function: has(FUNCTION).then(|| function.to_owned()),
        command: has(COMMAND).then(|| command.to_owned()),
        descriptor: has(DESCRIPTOR).then(|| pick(&DESCRIPTORS, small)),
        iova: has(IOVA).then(|| end(iova)),
        direction: has(DIRECTION).then(|| pick(&DIRECTIONS, small)),
        queue: has(QUEUE).then(|| u16::from(small) % QUEUES),
        nth: has(NTH).then_some(count + 1),
        every: has(EVERY).then_some(count + 1),
        after: has(AFTERWARDS).then(|| after.to_owned()),
        window: has(WINDOW).then(|| end(window)),
        probability: Probability::try_from(chance)
            .ok()
            .filter(|_| has(PROBABILITY)),
        status: has(STATUS).then_some(status),
        pages: Some(pages + 1),
        ns: has(NS).then_some(ns),
        to: Some(to),
        ..Fault::new(at, outcome)
    };
    mend(&mut fault);
    fault
}

/// The bytes that [`read`] takes for it.
pub(crate) fn write(fault: &Fault, bytes: &mut Vec<u8>) {
    let place = |table: &[&str], name: &Option<String>| {
        let name = name.as_deref().unwrap_or_default();
        table.iter().position(|known| *known == name).unwrap_or(0) as u8
    };
    let position = |found: Option<usize>| found.unwrap_or(0) as u8;
    let at = fault.at;
    let outcome = at.outcomes().iter().position(|of| *of == fault.outcome);
    let small = match (fault.descriptor, fault.direction, fault.queue) {
        (Some(descriptor), ..) => {
            position(DESCRIPTORS.iter().position(|known| *known == descriptor))
        }
        (_, Some(direction), _) => {
            position(DIRECTIONS.iter().position(|known| *known == direction))
        }
        (.., queue) => queue.unwrap_or(0) as u8,
    };
    let given = [
        (FUNCTION, fault.function.is_some()),
        (COMMAND, fault.command.is_some()),
        (DESCRIPTOR, fault.descriptor.is_some()),
        (IOVA, fault.iova.is_some()),
        (DIRECTION, fault.direction.is_some()),
        (QUEUE, fault.queue.is_some()),
        (NTH, fault.nth.is_some()),
        (EVERY, fault.every.is_some()),
        (AFTERWARDS, fault.after.is_some()),
        (WINDOW, fault.window.is_some()),
        (PROBABILITY, fault.probability.is_some()),
        (STATUS, fault.status.is_some()),
        (NS, fault.ns.is_some()),
    ];
    let given = given.iter().filter(|(_, is)| *is);
    let given = given.fold(0u16, |bits, (bit, _)| bits | bit);
    let status = STATUSES
        .iter()
        .position(|known| fault.status == Some(Status(*known)));
    bytes.extend([at as u8, position(outcome)]);
    bytes.extend(given.to_le_bytes());
    bytes.extend([
        place(functions(at), &fault.function),
        place(&COMMANDS, &fault.command),
        small,
        place(&AFTER, &fault.after),
        position(status),
    ]);
    let less = |number: Option<u64>| number.map_or(0, |n| n.saturating_sub(1)) as u16;
    bytes.extend(less(fault.nth.or(fault.every)).to_le_bytes());
    bytes.extend(less(fault.pages).to_le_bytes());
    let chance = fault.probability.map_or(1.0, f64::from) * f64::from(CERTAIN);
    let range = |range: Option<(u64, u64)>| {
        let (first, last) = range.unwrap_or_default();
        [first, last.saturating_sub(first)]
    };
    let numbers = [
        range(fault.iova),
        range(fault.window),
        [fault.to.unwrap_or(0), fault.ns.unwrap_or(0)],
    ];
    let chance = (chance.round() as u64).saturating_sub(1);
    for number in std::iter::once(chance).chain(numbers.concat()) {
        bytes.extend(number.to_le_bytes());
    }
}

fn pick<T: Copy>(from: &[T], number: u8) -> T {
    from[usize::from(number) % from.len()]
}

/// Routines that faults at a site can be told apart by.
fn functions(at: SiteKind) -> &'static [&'static str] {
    match at {
        SiteKind::Unmap => &RELEASING,
        _ => FALLIBLE,
    }
}

/// What says nothing here goes, and what must be there comes.
fn mend(fault: &mut Fault) {
    let filters = fault.at.filters();
    let lacks = |name: &str| !filters.contains(&name);
    fault.function.take_if(|_| lacks("function"));
    fault.command.take_if(|_| lacks("command"));
    fault.descriptor.take_if(|_| lacks("descriptor"));
    fault.iova.take_if(|_| lacks("iova"));
    fault.direction.take_if(|_| lacks("direction"));
    fault.queue.take_if(|_| lacks("queue"));
    if fault.nth.is_some() {
        fault.every = None;
    }
    let fails = fault.at == SiteKind::Call && fault.outcome == What::Fail;
    if !fails || !returns_status(fault) {
        fault.status = None;
    }
    let later = [What::Delay, What::Late, What::Spurious].contains(&fault.outcome);
    fault.ns = fault.ns.filter(|_| later).map(|ns| ns % (MAX_DELAY + 1));
    fault.to = (fault.outcome == What::Redirect).then(|| fault.to.unwrap_or(0));
    fault.pages = (fault.outcome == What::Partial).then(|| fault.pages.unwrap_or(1).max(1));
}

/// A fault at random, most of them after the start.
pub(crate) fn invent(clues: &Clues, rand: &mut impl Rand) -> Fault {
    let at = pick(&SiteKind::ALL, rand.next() as u8);
    let mut fault = Fault::new(at, pick(at.outcomes(), rand.next() as u8));
    match rand.below_or_zero(8) {
        0 => {}
        1 => fault.after = Some(pick(&AFTER, rand.next() as u8).to_owned()),
        2 => window(&mut fault, clues, rand),
        _ => fault.after = Some(ESCAPE.to_owned()),
    }
    match rand.below_or_zero(4) {
        0 => {}
        1 => fault.every = Some(few(rand)),
        _ => fault.nth = Some(few(rand)),
    }
    if rand.coinflip(0.5) {
        filter(&mut fault, clues, rand);
    }
    how(&mut fault, clues, rand);
    mend(&mut fault);
    fault
}

/// One field becomes another, or goes.
pub(crate) fn change(fault: &mut Fault, clues: &Clues, rand: &mut impl Rand) {
    match rand.below_or_zero(10) {
        0 => fault.outcome = pick(fault.at.outcomes(), rand.next() as u8),
        1 | 2 => filter(fault, clues, rand),
        3 => {
            fault.function = None;
            fault.command = None;
            fault.iova = None;
        }
        4 => {
            let count = fault.nth.or(fault.every).unwrap_or(0);
            let count = match rand.below_or_zero(3) {
                0 => count + 1,
                1 => count.saturating_sub(1),
                _ => few(rand),
            };
            fault.every = None;
            fault.nth = Some(count.clamp(1, u64::from(u16::MAX)));
        }
        5 if fault.nth.is_some() || fault.every.is_some() => {
            (fault.nth, fault.every) = (None, None);
        }
        5 => fault.every = Some(few(rand)),
        6 => fault.after = Some(pick(&AFTER, rand.next() as u8).to_owned()),
        7 if fault.window.take().is_some() => {}
        7 => window(fault, clues, rand),
        8 if fault.probability.take().is_some() => {}
        8 => {
            let chance = f64::from(rand.next() as u32 % CERTAIN + 1) / f64::from(CERTAIN);
            fault.probability = Probability::try_from(chance).ok();
        }
        _ => how(fault, clues, rand),
    }
    mend(fault);
}

/// One to eight, or more.
fn few(rand: &mut impl Rand) -> u64 {
    match rand.below_or_zero(4) {
        0 => rand.next() % 128 + 1,
        _ => rand.next() % 8 + 1,
    }
}

/// Within some time after the start.
fn window(fault: &mut Fault, clues: &Clues, rand: &mut impl Rand) {
    let from = clues.started + 1 + rand.next() % (1 << (10 + rand.next() % 20));
    let length = rand.next() % (1 << (10 + rand.next() % 25));
    fault.window = Some((from, from + length));
}

/// Somewhere more exactly.
fn filter(fault: &mut Fault, clues: &Clues, rand: &mut impl Rand) {
    let filters = fault.at.filters();
    let name = filters.get(rand.below_or_zero(filters.len()));
    let number = rand.next() as u8;
    match name.copied() {
        Some("function") => fault.function = Some(pick(functions(fault.at), number).to_owned()),
        Some("command") => fault.command = Some(pick(&COMMANDS, number).to_owned()),
        Some("descriptor") => fault.descriptor = Some(pick(&DESCRIPTORS, number)),
        Some("direction") => fault.direction = Some(pick(&DIRECTIONS, number)),
        Some("queue") => fault.queue = Some(u16::from(number) % QUEUES),
        Some("iova") => fault.iova = page(clues, rand).map(|first| (first, first + 0xfff)),
        _ => {}
    }
}

/// What is done, in numbers.
fn how(fault: &mut Fault, clues: &Clues, rand: &mut impl Rand) {
    fault.ns = rand
        .coinflip(0.7)
        .then(|| rand.next() % (1 << (8 + rand.next() % 26)));
    fault.pages = Some(few(rand));
    fault.to = match rand.below_or_zero(3) {
        // Nothing is mapped there.
        0 => Some(0x1_0000),
        _ => page(clues, rand),
    };
    let status = Status(pick(&STATUSES, rand.next() as u8));
    fault.status = rand.coinflip(0.5).then_some(status);
    if fault.status.is_some() && fault.at == SiteKind::Call {
        let name = pick(FALLIBLE, rand.next() as u8);
        fault.function.get_or_insert_with(|| name.to_owned());
    }
}

/// One that the device accesses.
fn page(clues: &Clues, rand: &mut impl Rand) -> Option<u64> {
    let at = rand.below_or_zero(clues.pages.len());
    clues.pages.get(at).copied()
}

/// How many ways there are to make a fault simpler.
pub(crate) const SIMPLER: usize = 13;

/// The fault made simpler in one of the [`SIMPLER`] ways: when it is, then
/// where, then how.
pub(crate) fn simpler(fault: &Fault, way: usize) -> Fault {
    let mut less = fault.clone();
    match way {
        0 => less.probability = None,
        1 => less.window = None,
        2 if less.window.is_some() && less.after.is_none() => {
            less.window = None;
            less.after = Some(ESCAPE.to_owned());
        }
        3 if less.every.take().is_some() => less.nth = Some(1),
        4 => less.nth = less.nth.map(|_| 1),
        5 => less.nth = less.nth.map(|nth| nth.div_ceil(2)),
        6 => less.function = None,
        7 => less.command = None,
        8 => less.iova = None,
        9 => less.direction = None,
        10 => less.descriptor = None,
        11 => less.ns = None,
        12 => less.status = None,
        _ => {}
    }
    mend(&mut less);
    less
}
