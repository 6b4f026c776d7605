//! Journals of a small operating system, replayed as they are and tampered
//! with.
#![allow(clippy::unwrap_used)]

use crate::{ReplayError, replay};
use iommu::testing::{Os, READ_WRITE, global};
use journal::event::{Begin, Event, Outcome, Record, Table};
use journal::{Journal, read};
use ledger::Ledger;
use memory::{Gpa, Iova, PAGE_SIZE, RequesterId};
use scenario::{Plan, Scenario};

const DEVICE: RequesterId = RequesterId::new(0, 2, 0);
const SIZE: u64 = 1 << 20;
const DOMAIN: u16 = 7;
/// The device's first address, and the page behind it.
const ADDRESS: Iova = Iova(0x4000_0000);
const PAGE: Gpa = Gpa(0x8_0000);

/// An operating system that tells the journal what it writes, as ours does.
struct Told {
    os: Os,
    /// The leaf entry of [`ADDRESS`].
    leaf: Gpa,
}

impl Told {
    /// One page mapped for the device.
    fn new(plan: Plan) -> Self {
        let os = Os::new(SIZE, Scenario::new(plan, Journal::in_memory()));
        os.scenario.journal().emit(Event::Begin(Begin {
            memory: SIZE,
            device: DEVICE,
            domain: "isolation".into(),
            ..Begin::default()
        }));
        let top = os.attach(DEVICE, DOMAIN, 4);
        let leaf = os.map(top, ADDRESS, PAGE, READ_WRITE);
        let told = Self { os, leaf };
        for at in (0..told.os.next.get()).step_by(8).map(Gpa) {
            let new = told.os.look(at);
            if new != 0 {
                told.tell(at, 0, new);
            }
        }
        told.os.start();
        told
    }

    fn tell(&self, address: Gpa, old: u64, new: u64) {
        let table = if address == self.leaf {
            Table::SecondLevel {
                domain: DOMAIN,
                level: 1,
                iova: ADDRESS,
            }
        } else {
            Table::Queue
        };
        self.os.scenario.journal().emit(Event::TableWrite {
            address,
            old,
            new,
            table,
        });
    }

    fn unmap(&self) {
        self.tell(self.leaf, self.os.look(self.leaf), 0);
        self.os.poke(self.leaf, 0);
    }

    fn invalidate(&self) {
        let at = Gpa(self.os.queue.0 + self.os.tail.get());
        let [low, high] = global(true);
        self.tell(at, self.os.look(at), low);
        self.tell(Gpa(at.0 + 8), self.os.look(Gpa(at.0 + 8)), high);
        self.os.submit(&[[low, high]]);
    }

    fn access(&self) -> bool {
        self.os.dma(DEVICE).read(ADDRESS, &mut [0; 64]).is_ok()
    }

    fn records(&self) -> Vec<Record> {
        read(&self.os.scenario.journal().bytes()[..]).unwrap().0
    }
}

/// Read, read again by the IOTLB, unmap, invalidate, be refused.
fn healthy() -> Vec<Record> {
    let told = Told::new(Plan::default());
    assert!(told.access() && told.access());
    told.unmap();
    told.invalidate();
    assert!(!told.access());
    told.records()
}

fn last_access(records: &[Record]) -> usize {
    let is_access = |record: &Record| matches!(record.event, Event::Access { .. });
    records.iter().rposition(is_access).unwrap()
}

#[test]
fn untouched_journal_comes_out_as_it_went_in() {
    let records = healthy();

    let replayed = replay(&records).unwrap();

    assert_eq!(replayed.differences, []);
    assert_eq!((replayed.differing, replayed.edited), (0, 0));
    assert_eq!(replayed.accesses, 3);
    assert_eq!(replayed.records, records);
}

#[test]
fn findings_are_those_of_the_recorded_run() {
    let records = healthy();
    let mut ledger = Ledger::new();
    records.iter().for_each(|record| ledger.push(record));

    let replayed = replay(&records).unwrap();

    assert_eq!(ledger.findings().len(), 1);
    assert_eq!(replayed.ledger.findings(), ledger.findings());
    assert_eq!(replayed.ledger.facts(), ledger.facts());
}

#[test]
fn journal_without_settings_is_an_error() {
    let mut records = healthy();
    records.remove(0);

    assert!(matches!(replay(&records), Err(ReplayError::NoBegin)));
    assert!(matches!(replay(&[]), Err(ReplayError::NoBegin)));
}

#[test]
fn impossible_memory_is_an_error() {
    for memory in [u64::MAX, (1 << 40) + PAGE_SIZE] {
        let begin = Event::Begin(Begin {
            memory,
            ..Begin::default()
        });
        let records = [Record {
            time: 0,
            event: begin,
        }];

        assert!(matches!(replay(&records), Err(ReplayError::Memory(m)) if m == memory));
    }
}

#[test]
fn forged_outcome_is_told_and_the_right_one_put_in_its_place() {
    let mut records = healthy();
    let at = last_access(&records);
    let Event::Access { outcome, .. } = &mut records[at].event else {
        unreachable!()
    };
    *outcome = Outcome::Done {
        gpa: PAGE,
        generation: 1,
        cached: true,
    };

    let replayed = replay(&records).unwrap();

    assert_eq!(replayed.differing, 1);
    assert_eq!(replayed.differences[0].record, at);
    assert_eq!(
        replayed.differences[0].recorded.as_ref(),
        Some(&records[at].event)
    );
    let again = &replayed.records[at].event;
    assert!(
        matches!(
            again,
            Event::Access {
                outcome: Outcome::Refused,
                ..
            }
        ),
        "{again:?}"
    );
    let told = replayed.differences[0].to_string();
    assert!(told.starts_with(&format!("record {at}: the journal says Access")));
}

#[test]
fn missing_table_write_is_told() {
    let mut records = healthy();
    let unmapped = records
        .iter()
        .position(|record| {
            matches!(
                record.event,
                Event::TableWrite {
                    new: 0,
                    table: Table::SecondLevel { .. },
                    ..
                }
            )
        })
        .unwrap();
    records.remove(unmapped);

    let replayed = replay(&records).unwrap();

    // The access was refused for a reason that the journal no longer has.
    assert!(replayed.differing > 0);
    let last = &replayed.records.last().unwrap().event;
    assert!(
        matches!(
            last,
            Event::Access {
                outcome: Outcome::Done { .. },
                ..
            }
        ),
        "{last:?}"
    );
}

#[test]
fn stale_translation_is_used_again() {
    let told = Told::new(Plan::default());
    assert!(told.access());
    told.unmap();
    assert!(told.access(), "the IOTLB still holds it");
    let records = told.records();

    let replayed = replay(&records).unwrap();

    assert_eq!(replayed.differences, []);
    let last = &replayed.records[last_access(&records)].event;
    assert!(
        matches!(
            last,
            Event::Access {
                outcome: Outcome::Done { cached: true, .. },
                ..
            }
        ),
        "{last:?}"
    );
}

#[test]
fn entry_that_somebody_else_wrote_is_counted() {
    let told = Told::new(Plan::default());
    told.os.poke(told.leaf, (PAGE.0 + PAGE_SIZE) | READ_WRITE);
    assert!(told.access());

    let replayed = replay(&told.records()).unwrap();

    assert_eq!((replayed.edited, replayed.differing), (1, 0));
}

#[test]
fn refusal_without_bus_mastering_is_none_of_the_iommu() {
    let told = Told::new(Plan::default());
    let dma = told.os.unit.dma(told.os.env(), DEVICE, false);
    assert!(dma.read(ADDRESS, &mut [0; 8]).is_err());
    let records = told.records();

    let replayed = replay(&records).unwrap();

    assert_eq!(replayed.differences, []);
    assert_eq!(replayed.records, records);
}

#[test]
fn address_that_leads_out_of_memory_is_refused_again() {
    let told = Told::new(Plan::default());
    told.tell(told.leaf, told.os.look(told.leaf), SIZE | READ_WRITE);
    told.os.poke(told.leaf, SIZE | READ_WRITE);
    assert!(!told.access());
    let records = told.records();

    let replayed = replay(&records).unwrap();

    assert_eq!(replayed.differences, []);
    assert_eq!(replayed.records, records);
}

#[test]
fn access_in_flight_keeps_its_token() {
    let told = Told::new(Plan::parse("part-accesses = \"reads\"").unwrap());
    told.os.dma(DEVICE).issue_read(ADDRESS, 64).unwrap();
    told.unmap();
    told.invalidate();
    let records = told.records();

    let replayed = replay(&records).unwrap();

    assert_eq!(replayed.differences, []);
    let outcome = &replayed.records[last_access(&records)].event;
    assert!(
        matches!(
            outcome,
            Event::Access {
                outcome: Outcome::InFlight { .. },
                ..
            }
        ),
        "{outcome:?}"
    );
}

#[test]
fn differences_are_all_counted_and_few_are_kept() {
    let mut records = healthy();
    let forged = Record {
        time: 0,
        event: Event::WaitDone {
            address: Gpa(0),
            value: 0,
        },
    };
    records.extend(std::iter::repeat_n(forged, 100));

    let replayed = replay(&records).unwrap();

    assert_eq!(replayed.differing, 100);
    assert_eq!(replayed.differences.len(), 16);
    assert_eq!(replayed.differences[0].rebuilt, None);
}

#[test]
fn tail_written_again_and_again_is_an_error() {
    let told = Told::new(Plan::default());
    for _ in 0..300 {
        told.invalidate();
    }
    let mut records = told.records();
    // The queue has 256 entries: nearly a full turn, and the rest of it.
    let tail = |value| Record {
        time: 0,
        event: Event::RegisterWrite {
            offset: iommu::spec::registers::IQT,
            size: 8,
            value,
        },
    };
    records.extend((0..2000).flat_map(|_| [tail(43 << 4), tail(44 << 4)]));

    let error = replay(&records)
        .map(|replayed| replayed.compared)
        .unwrap_err();

    assert!(matches!(error, ReplayError::Runaway { .. }), "{error}");
}

#[test]
fn tables_everywhere_are_an_error() {
    let begin = Event::Begin(Begin {
        memory: 1 << 31,
        ..Begin::default()
    });
    let write = |page| Event::TableWrite {
        address: Gpa(page * PAGE_SIZE),
        old: 0,
        new: 0,
        table: Table::Queue,
    };
    let records: Vec<Record> = std::iter::once(begin)
        .chain((0..=1 << 18).map(write))
        .map(|event| Record { time: 0, event })
        .collect();

    assert!(matches!(replay(&records), Err(ReplayError::Runaway { .. })));
}
