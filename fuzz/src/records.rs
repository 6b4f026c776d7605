//! Bytes as journal records, without frames: a fuzzer does not guess
//! checksums.

use journal::event::Event;
use journal::{Journal, Record, Tail};
use report::text::Style;
use report::{Meta, Report};
use symbols::{Module, Symbolizer};

/// Records taken from one input.
const MAX_RECORDS: usize = 4096;

/// Frames from here on are not walked by the ledger, so that their number may
/// be any.
const UNTRACKED: u64 = 1 << 28;

/// The records whose encodings follow each other in `data`, up to the first
/// that is none. Runs of pages are short: the ledger bounds its work, but at
/// a million pages, and a fuzzer finds nothing but those.
#[must_use]
pub fn records(mut data: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !data.is_empty()
        && records.len() < MAX_RECORDS
        && let Ok((mut record, rest)) = postcard::take_from_bytes::<Record>(data)
    {
        let runs = match &mut record.event {
            Event::Allocate(allocation) => &mut allocation.pages[..],
            Event::Recycle { pages } => &mut pages[..],
            Event::Claim(claim) => &mut claim.pages[..],
            _ => &mut [],
        };
        for run in runs.iter_mut().filter(|run| run.first.0 < UNTRACKED) {
            run.count &= 0xff;
        }
        records.push(record);
        data = rest;
    }
    records
}

/// The journal of `records`, framed.
#[must_use]
pub fn framed(records: &[Record]) -> Vec<u8> {
    let journal = Journal::in_memory();
    for record in records {
        journal.set_time(record.time);
        journal.emit(record.event.clone());
    }
    journal.bytes()
}

/// Draw the report of `records` in every way there is.
///
/// # Panics
/// If a text that the journal's writer made up reaches a terminal unclean.
pub fn show(records: &[Record], tail: Tail) {
    let mut symbols = Symbolizer::new();
    for record in records {
        if let Event::Module(module) = &record.event {
            symbols.add_module(Module {
                name: module.name.clone(),
                base: module.base,
                size: u64::from(module.size),
                symbols: None,
            });
        }
    }
    let meta = Meta {
        reproduce: None,
        tail,
    };
    let report = Report::build(records, &symbols, meta);
    for width in [0, 60, 100, usize::MAX] {
        let style = Style {
            color: false,
            width,
        };
        let text = report::text::render(&report, style);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "a control character in the text: {text:?}"
        );
    }
    let style = Style {
        color: true,
        ..Style::default()
    };
    let _ = report::text::render(&report, style);
    let _ = report::json::render(&report);
    let picture = report::svg::render(&report);
    assert!(
        picture.chars().all(|c| c == '\n' || !c.is_control()),
        "a control character in the picture"
    );
}
