//! Journals and texts that mean harm.

use super::*;
use crate::{clean, json, junit, sarif, svg, trace};
use journal::event::{
    ContextId, End, Event, NameId, Outcome, PageRun, Scope, StackId, Table, TokenId,
};
use memory::{Gpa, Iova, Pfn, RequesterId};
use proptest::collection::vec;
use proptest::prelude::*;

const EVIL: &str = "\x1b[2J\x1b]0;owned\x07<script>&\u{202e}gpj\u{9b}31m\r\n\0\u{2028}\u{feff}";

/// Characters that no drawing may let through.
fn harmless(text: &str) -> bool {
    !text
        .chars()
        .any(|c| (c.is_control() && c != '\n') || "\u{202e}\u{2028}\u{feff}\u{200b}".contains(c))
}

#[test]
fn harmful_characters_become_escapes() {
    let rows = [
        ("plain text", "plain text"),
        ("a\tb", "a b"),
        ("\x1b[31m", "\\u{1b}[31m"),
        ("a\nb", "a\\nb"),
        ("\u{9b}", "\\u{9b}"),
        ("\u{202e}", "\\u{202e}"),
        ("größe µs", "größe µs"),
    ];
    for (text, cleaned) in rows {
        assert_eq!(clean(text), cleaned);
    }
}

#[test]
fn drivers_texts_are_harmless_in_every_drawing() {
    let mut records = Sample::new()
        .print(EVIL)
        .used()
        .freed(true)
        .faulting()
        .bug_check(0xc4, [1, 2, 3, 4], EVIL)
        .end(End::Unsupported {
            reason: EVIL.into(),
            stack: StackId(1),
        });
    for record in &mut records {
        match &mut record.event {
            Event::Begin(begin) => {
                begin.driver = EVIL.into();
                begin.scenario = EVIL.into();
            }
            Event::Name { text, .. } => *text = EVIL.into(),
            Event::Command { detail, .. } => *detail = EVIL.into(),
            _ => {}
        }
    }
    let mut symbolizer = symbolizer();
    symbolizer.add_module(symbols::Module {
        name: EVIL.into(),
        base: sample::BASE,
        size: 0x10000,
        symbols: None,
    });
    let report = Report::build(
        &records,
        &symbolizer,
        Meta {
            reproduce: Some(EVIL.into()),
            tail: Tail::Clean,
        },
    );

    for drawn in [
        plain(&report),
        json::render(&report),
        svg::render(&report),
        junit::render(&report),
        sarif::render(&report),
    ] {
        assert!(harmless(&drawn), "{drawn:?}");
    }
    assert!(!svg::render(&report).contains("<script"));
}

#[test]
fn endless_texts_are_cut() {
    let records = Sample::new()
        .print(&"x".repeat(1 << 20))
        .end(End::StartFailed {
            routine: "y".repeat(1 << 20),
            status: 1,
        });

    assert!(plain(&report(&records)).len() < 10_000);
}

fn event() -> impl Strategy<Value = Event> {
    let address = || prop_oneof![4 => (0u64..8).prop_map(|page| page << 12), 1 => any::<u64>()];
    prop_oneof![
        (0u32..4, address(), any::<u64>()).prop_map(|(id, first, count)| Event::Allocate(
            journal::event::Allocation {
                id: journal::event::AllocationId(id),
                kind: journal::event::AllocationKind::Pool,
                handle: 0,
                address: 0,
                pages: vec![PageRun {
                    first: Pfn(first >> 12),
                    count: count % 16
                }],
                requested: count % 16,
                stack: StackId(id),
            }
        )),
        (0u32..4).prop_map(|id| Event::Free {
            allocation: journal::event::AllocationId(id),
            stack: StackId(id)
        }),
        (address(), address()).prop_map(|(iova, page)| Event::TableWrite {
            address: Gpa(0),
            old: 0,
            new: page | 3,
            table: Table::SecondLevel {
                domain: 1,
                level: 1,
                iova: Iova(iova)
            },
        }),
        (address(), any::<u64>()).prop_map(|(iova, count)| Event::Invalidate {
            scope: Scope::Pages {
                domain: 1,
                iova: Iova(iova),
                count
            },
            drain_reads: true,
            drain_writes: false,
            dropped: 0
        }),
        (0u32..3, address(), address(), 0u8..3).prop_map(|(context, iova, gpa, how)| {
            Event::Access {
                context: ContextId(context),
                device: RequesterId(16),
                iova: Iova(iova),
                length: 8,
                write: how == 1,
                outcome: match how {
                    0 => Outcome::Refused,
                    1 => Outcome::InFlight {
                        token: TokenId(context),
                        gpa: Gpa(gpa),
                        generation: 0,
                        cached: true,
                    },
                    _ => Outcome::Done {
                        gpa: Gpa(gpa),
                        generation: 0,
                        cached: true,
                    },
                },
            }
        }),
        (0u32..3).prop_map(|token| Event::Landed {
            token: TokenId(token),
            drained: false
        }),
        ".*".prop_map(|text| Event::DebugPrint { text }),
        (0u32..3, ".*").prop_map(|(id, text)| Event::Name {
            id: NameId(id),
            text
        }),
        (0u32..4, vec(any::<u64>(), 0..4)).prop_map(|(id, frames)| Event::Stack {
            id: StackId(id),
            frames
        }),
        (0u32..3, ".*").prop_map(|(id, detail)| Event::Command {
            context: ContextId(id),
            name: NameId(id),
            detail,
            resource: None,
        }),
        Just(Event::End(End::Hang {
            reason: String::new(),
            stack: StackId(1)
        })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_journal_is_drawn(events in vec((any::<u64>(), event()), 0..60)) {
        let records: Vec<Record> = events
            .into_iter()
            .map(|(time, event)| Record { time, event })
            .collect();
        let report = report(&records);
        let text = plain(&report);

        prop_assert!(text.lines().all(|line| line.chars().count() <= 100));
        prop_assert!(harmless(&text));
        prop_assert!(harmless(&svg::render(&report)));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json::render(&report)).is_ok());
        prop_assert!(serde_json::from_str::<serde_json::Value>(&sarif::render(&report)).is_ok());
        prop_assert!(harmless(&junit::render(&report)));
        for line in trace::lines(&records, &symbolizer()) {
            prop_assert!(line.chars().count() <= trace::MAX_WIDTH);
            prop_assert!(harmless(&line));
        }
    }

    #[test]
    fn any_suppressions_and_baseline_are_read_or_refused(text in ".*", at in any::<usize>()) {
        let good = json::render(&report(&Sample::use_after_free()));
        let cut = (at % good.len()..).find(|cut| good.is_char_boundary(*cut)).unwrap();
        let bent = format!("{}{text}{}", &good[..cut], &good[cut..]);
        for file in [&text, &bent] {
            let _ = crate::Baseline::parse(file.as_bytes());
        }
        let rule = "[[suppress]]\nfinding = \"stale-iotlb\"\nfunction = \"f\"\nreason = \"r\"\n";
        let at = at % rule.len();
        let bent = format!("{}{text}{}", &rule[..at], &rule[at..]);
        for file in [&text, &bent] {
            if let Err(error) = crate::parse_suppressions(file) {
                prop_assert!(error.line >= 1 && error.line <= file.split('\n').count());
                prop_assert!(harmless(&error.why), "{error:?}");
            }
        }
    }
}
