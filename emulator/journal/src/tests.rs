#![allow(clippy::unwrap_used)]

use super::*;
use crate::event::*;
use memory::{Gpa, Iova, Pfn, RequesterId};
use proptest::prelude::*;

fn sample(n: u64) -> Event {
    match n % 4 {
        0 => Event::TableWrite {
            address: Gpa(n * 8),
            old: 0,
            new: n | 3,
            table: Table::SecondLevel {
                domain: 1,
                level: 1,
                iova: Iova(n << 12),
            },
        },
        1 => Event::Access {
            context: ContextId(n as u32),
            device: RequesterId::new(0, 2, 0),
            iova: Iova(n),
            length: 64,
            write: n.is_multiple_of(2),
            outcome: Outcome::Refused,
        },
        2 => Event::Allocate(Allocation {
            id: AllocationId(1),
            kind: AllocationKind::DxgkMdl,
            handle: n,
            address: n,
            pages: vec![PageRun {
                first: Pfn(n),
                count: 3,
            }],
            requested: 3,
            stack: StackId(0),
        }),
        _ => Event::DebugPrint {
            text: format!("line {n}"),
        },
    }
}

fn journal_of(count: u64) -> (Vec<u8>, Vec<Record>) {
    let journal = Journal::in_memory();
    let mut records = Vec::new();
    for n in 0..count {
        journal.set_time(n * 10);
        journal.emit(sample(n));
        records.push(Record {
            time: n * 10,
            event: sample(n),
        });
    }
    (journal.bytes(), records)
}

#[test]
fn what_is_written_is_read_back() {
    let (bytes, records) = journal_of(40);
    assert_eq!(read(&bytes[..]).unwrap(), (records, Tail::Clean));
}

#[test]
fn names_and_stacks_are_written_once_before_their_use() {
    let journal = Journal::in_memory();
    let a = journal.name("a");
    assert_eq!(journal.name("a"), a);
    assert_eq!(journal.stack(&[]), StackId(0));
    let stack = journal.stack(&[1, 2]);
    assert_eq!(journal.stack(&[1, 2]), stack);
    let (records, _) = read(&journal.bytes()[..]).unwrap();
    assert_eq!(records.len(), 2);
}

#[test]
fn another_file_is_no_journal() {
    for bytes in [&b""[..], b"DMAS", b"MZ\x90\0\x03\0\0\0\x04"] {
        assert!(matches!(read(bytes), Err(ReadError::NotAJournal)));
    }
}

#[test]
fn a_restored_journal_goes_on_as_the_first_time() {
    let journal = Journal::in_memory();
    journal.emit(sample(1));
    let state = journal.save();
    let first = journal.name("later");
    journal.emit(sample(2));
    let bytes = journal.bytes();
    journal.restore(&state).unwrap();
    assert_eq!(journal.name("later"), first);
    journal.emit(sample(2));
    assert_eq!(journal.bytes(), bytes);
}

#[test]
fn a_journal_in_a_file_refuses_to_go_back() {
    let journal = Journal::to_file(tempfile::tempfile().unwrap());
    let state = journal.save();
    assert!(matches!(
        journal.restore(&state),
        Err(JournalError::AppendOnly)
    ));
}

#[test]
fn a_full_disk_is_an_error_and_stays_one() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let journal = Journal::to_file(full);
    journal.emit(sample(3));
    assert!(matches!(journal.flush(), Err(JournalError::Write(e)) if e.raw_os_error() == Some(28)));
    journal.emit(sample(3));
    assert!(journal.flush().is_err());
}

/// Reads of a picture, as a device makes them, with something between.
fn reads(scattered: &[u64]) -> Vec<Record> {
    let access = |n: usize, &page: &u64| Event::Access {
        context: ContextId(n as u32 / 20),
        device: RequesterId::new(0, 2, 0),
        iova: Iova(n as u64 * 4096),
        length: if n.is_multiple_of(7) { 100 } else { 4096 },
        write: n.is_multiple_of(31),
        outcome: if n.is_multiple_of(13) {
            Outcome::Refused
        } else {
            Outcome::Done {
                gpa: Gpa(page),
                generation: page as u32,
                cached: n.is_multiple_of(17),
            }
        },
    };
    let mut records = Vec::new();
    for (n, page) in scattered.iter().enumerate() {
        let time = n as u64 / 50;
        let event = access(n, page);
        records.push(Record { time, event });
        if n % 40 == 3 {
            let event = sample(n as u64);
            records.push(Record { time, event });
        }
    }
    records
}

/// The file of a compact journal of these.
fn compact(records: &[Record]) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut file = tempfile::tempfile().unwrap();
    let journal = Journal::to_file(file.try_clone().unwrap());
    journal.compact();
    for record in records {
        journal.set_time(record.time);
        journal.emit(record.event.clone());
    }
    journal.flush().unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_picture_takes_a_third_of_the_bytes_in_a_compact_journal() {
    let page = |n: u64| Event::Access {
        context: ContextId(1),
        device: RequesterId::new(0, 2, 0),
        iova: Iova(0xffc0_0000 + (n << 12)),
        length: 4096,
        write: false,
        outcome: Outcome::Done {
            gpa: Gpa((n * 7919 % 1000) << 12),
            generation: 1000 + n as u32,
            cached: false,
        },
    };
    let picture: Vec<Record> = (0..768)
        .map(|n| Record {
            time: 1,
            event: page(n),
        })
        .collect();
    let plain = Journal::in_memory();
    plain.set_time(1);
    for record in &picture {
        plain.emit(record.event.clone());
    }
    let bytes = compact(&picture);
    assert_eq!(read(&bytes[..]).unwrap(), (picture, Tail::Clean));
    assert!(bytes.len() * 3 < plain.len(), "{}", bytes.len());
}

#[test]
fn a_journal_in_memory_is_never_compact() {
    let journal = Journal::in_memory();
    journal.compact();
    journal.emit(sample(1));
    assert_eq!(journal.since(8).len(), 1);
}

proptest! {
    #[test]
    fn a_compact_journal_reads_as_it_was_told(pages in prop::collection::vec(any::<u64>(), 0..200)) {
        let records = reads(&pages);
        prop_assert_eq!(read(&compact(&records)[..]).unwrap(), (records, Tail::Clean));
    }

    #[test]
    fn a_damaged_compact_journal_gives_a_prefix(count in 1u64..200, at in 8usize..4000, bit in 0u8..8) {
        let pages: Vec<u64> = (0..count).map(|n| n << 12).collect();
        let records = reads(&pages);
        let mut bytes = compact(&records);
        let at = 8 + at % (bytes.len() - 8);
        bytes[at] ^= 1 << bit;
        let (got, tail) = read(&bytes[..]).unwrap();
        prop_assert!(got.len() < records.len() && tail != Tail::Clean);
        prop_assert_eq!(&got[..], &records[..got.len()]);
    }

    #[test]
    fn a_cut_journal_gives_a_prefix_and_says_so(count in 1u64..30, cut in 0.0f64..1.0) {
        let (bytes, records) = journal_of(count);
        let cut = 8 + ((bytes.len() - 8) as f64 * cut) as usize;
        let (got, tail) = read(&bytes[..cut]).unwrap();
        prop_assert!(got.len() <= records.len());
        prop_assert_eq!(&got[..], &records[..got.len()]);
        let (whole, _) = journal_of(got.len() as u64);
        prop_assert_eq!(tail == Tail::Clean, whole.len() == cut);
    }

    #[test]
    fn a_flipped_bit_never_changes_a_record_in_silence(count in 1u64..20, at in 8usize..4000, bit in 0u8..8) {
        let (mut bytes, records) = journal_of(count);
        let at = 8 + at % (bytes.len() - 8);
        bytes[at] ^= 1 << bit;
        let (got, tail) = read(&bytes[..]).unwrap();
        prop_assert_eq!(&got[..], &records[..got.len()]);
        prop_assert!(got.len() < records.len() && tail != Tail::Clean);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut file = b"DMASANJ1".to_vec();
        file.extend(bytes);
        let _ = read(&file[..]);
    }
}
