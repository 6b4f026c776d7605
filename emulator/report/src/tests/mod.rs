#![allow(clippy::unwrap_used)]

mod checks;
mod clues;
mod drawing;
mod endings;
mod hostile;
mod kinds;
mod sample;
mod tracing;
mod triage;

use crate::model::{Frame, Meta, Report};
use crate::text::{self, Style};
use journal::{Record, Tail};
use sample::{Sample, symbolizer};

fn meta() -> Meta {
    Meta {
        reproduce: Some("dmasan run dmasan-gpu.sys --set UseAfterFree=1".into()),
        tail: Tail::Clean,
    }
}

fn report(records: &[Record]) -> Report {
    Report::build(records, &symbolizer(), meta())
}

/// The same with functions, files and lines, as symbols would give them.
fn named(records: &[Record]) -> Report {
    let mut report = report(records);
    let names = [
        (
            "dmasan_gpu::resource::Resource::free_backing",
            "resource.rs",
            214,
        ),
        (
            "dmasan_gpu::present::stop_device_and_release_post_display_ownership",
            "present.rs",
            77,
        ),
        ("dmasan_gpu::entry::dispatch", "entry.rs", 41),
    ];
    for found in &mut report.findings {
        for stack in [&mut found.used, &mut found.freed, &mut found.allocated] {
            for (frame, (function, file, line)) in stack.iter_mut().zip(names) {
                *frame = Frame {
                    function: Some(function.into()),
                    offset: 0x4c,
                    file: Some(format!("guest-driver/driver/src/{file}")),
                    line: Some(line),
                    ..frame.clone()
                };
            }
        }
    }
    report
}

fn plain(report: &Report) -> String {
    text::render(report, Style::default())
}
