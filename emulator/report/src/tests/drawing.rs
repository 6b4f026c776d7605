//! What is drawn of findings.

use super::*;
use crate::{json, svg};
use journal::event::End;
use serde_json::Value;

/// Where the texts are in `whole`, which must have them in this order.
fn assert_in_order(whole: &str, parts: &[&str]) {
    let mut from = 0;
    for part in parts {
        match whole[from..].find(part) {
            Some(at) => from += at + part.len(),
            None => panic!("{part:?} is not in (or not in order):\n{whole}"),
        }
    }
}

#[test]
fn use_after_free_tells_its_whole_story() {
    let text = plain(&named(&Sample::use_after_free()));

    assert_in_order(
        &text,
        &[
            "==dmasan== ERROR: dma-use-after-free at IOVA 0x40001000",
            "Device 00:02.0: read of 4096 bytes refused",
            "(3 such accesses",
            "physical 0x1a41000, domain 1, mapping generation 1",
            "TRANSFER_TO_HOST_2D resource 1, 64x192 at 0,0",
            "page 2 of 12, DxgkCbAllocatePagesForMdl",
            "fault reason 0x6: no read permission",
            "used: the command was submitted here",
            "#0  dmasan-gpu!dmasan_gpu::resource::Resource::free_backing+0x4c",
            "guest-driver/driver/src/resource.rs:214",
            "freed here",
            "allocated here",
            "life of the page",
            "mapped",
            "read          2 times until",
            "first by TRANSFER_TO_HOST_2D (command 1)",
            "invalidated   IOTLB: domain 1, reads and writes drained",
            "=> ",
            "read refused",
            "[F-]F-",
            "bug check 0xE6 DRIVER_VERIFIER_DMA_VIOLATION (0x26, 0x0, 0x40001000, 0x6); the run",
            "the driver: the command was submitted",
            "to mend",
            "dmasan run dmasan-gpu.sys --set UseAfterFree=1",
            "==dmasan== SUMMARY: dma-use-after-free guest-driver/driver/src/resource.rs:214 in dmasan_gpu::resource::Resource::free_backing",
        ],
    );
}

#[test]
fn stale_access_shows_the_missing_invalidation_and_both_owners() {
    let text = plain(&report(&Sample::stale()));

    assert_in_order(
        &text,
        &[
            "ERROR: missing-invalidation",
            "(1 of 3)",
            "stale-iotlb (number 2)",
            "ERROR: stale-iotlb",
            "(2 of 3)",
            "see also",
            "dma-use-after-free (number 3)",
            "not invalidated: the IOTLB was left as it was",
            "does not notice",
            "the operating system: the table entry was changed, but the address was never",
            "the driver:",
            "ERROR: dma-use-after-free",
            "SUMMARY: missing-invalidation in dmasan-gpu.sys+0x2230 (and 2 more)",
        ],
    );
}

#[test]
fn late_landing_marks_the_landing() {
    let text = plain(&report(&Sample::late()));

    assert_in_order(
        &text,
        &["ERROR: free-in-flight", "read issued", " => ", "landed"],
    );
}

#[test]
fn lines_fit_their_width() {
    for records in [Sample::use_after_free(), Sample::stale(), Sample::late()] {
        for width in [0, 60, 80, 100, usize::MAX] {
            let style = Style {
                color: false,
                width,
            };
            let text = text::render(&named(&records), style);
            let limit = width.clamp(60, 100);
            // But the summary, which is one line for whoever searches a log.
            let lines = text.lines().filter(|line| !line.contains("SUMMARY"));
            for line in lines {
                assert!(line.chars().count() <= limit, "{width}: {line}");
            }
        }
    }
}

#[test]
fn colour_is_only_where_it_is_asked_for() {
    let report = named(&Sample::use_after_free());
    let colored = text::render(
        &report,
        Style {
            color: true,
            width: 100,
        },
    );

    assert!(!plain(&report).contains('\x1b'));
    assert!(colored.contains("\x1b[1;31mERROR: dma-use-after-free"));
    let mut stripped = String::new();
    for (index, part) in colored.split("\x1b[").enumerate() {
        let text = if index == 0 {
            part
        } else {
            part.split_once('m').unwrap().1
        };
        stripped.push_str(text);
    }
    let trimmed: Vec<_> = stripped.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, plain(&report).lines().collect::<Vec<_>>());
}

#[test]
fn json_has_what_the_text_has_and_is_the_same_each_time() {
    let records = Sample::use_after_free();
    let text = json::render(&report(&records));

    assert_eq!(text, json::render(&report(&records)));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["format"], "dmasan-report");
    assert_eq!(value["version"], 1);
    assert_eq!(value["clean"], false);
    assert_eq!(value["end"]["state"], "bug-check");
    let found = &value["findings"][0];
    assert_eq!(found["id"], "dma-use-after-free");
    assert_eq!(found["iova"], "0x40001000");
    assert_eq!(found["count"], 3);
    assert_eq!(found["bug_check"]["seen"], true);
    assert_eq!(found["command"]["name"], "TRANSFER_TO_HOST_2D");
    assert_eq!(
        found["allocation"]["freed"]["stack"][0]["module"],
        "dmasan-gpu.sys"
    );
    assert_eq!(found["surroundings"]["pages"].as_array().unwrap().len(), 80);
    assert_eq!(value["bug_checks"][0]["finding"], 0);
    assert_eq!(value["facts"]["faults"], 3);
}

#[test]
fn every_key_of_the_json_is_in_the_schema() {
    fn keys(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    into.push(key.clone());
                    keys(value, into);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| keys(value, into)),
            _ => {}
        }
    }
    let schema = include_str!("../../SCHEMA.md");
    let mut found = Vec::new();
    for records in [Sample::use_after_free(), Sample::stale(), Sample::late()] {
        let text = json::render(&report(&records));
        keys(&serde_json::from_str(&text).unwrap(), &mut found);
    }

    for key in found {
        assert!(
            schema.contains(&format!("`{key}`")),
            "{key} is not described"
        );
    }
}

#[test]
fn inlined_library_frames_are_in_the_json_alone() {
    let mut report = named(&Sample::use_after_free());
    let frames = &mut report.findings[0].freed;
    let inlined = Frame {
        function: Some("core::ptr::write_volatile".into()),
        inlined: true,
        ..frames[0].clone()
    };
    frames.insert(0, inlined);
    let text = plain(&report);

    assert!(!text.contains("write_volatile"), "{text}");
    assert!(text.contains("#0  dmasan-gpu!dmasan_gpu::resource::Resource::free_backing"));
    assert!(json::render(&report).contains("core::ptr::write_volatile"));
}

#[test]
fn summary_is_one_whole_line_at_any_width() {
    let style = Style {
        color: false,
        width: 60,
    };
    let text = text::render(&named(&Sample::use_after_free()), style);

    assert!(text.ends_with("in dmasan_gpu::resource::Resource::free_backing\n"));
}

#[test]
fn picture_is_a_short_report() {
    let mut report = named(&Sample::use_after_free());
    let deep = report.findings[0].freed[0].clone();
    report.findings[0].freed = vec![deep; 20];
    let picture = svg::render(&report);

    assert_eq!(picture.matches("Resource::free_backing").count(), 4 + 2);
    for part in ["SUMMARY", "pages around"] {
        assert!(!picture.contains(part), "{part}");
    }
    for part in ["at fault", "to mend", "dmasan run dmasan-gpu.sys"] {
        assert!(picture.contains(part), "{part}");
    }
}

#[test]
fn picture_is_well_formed_and_shows_text_and_lanes() {
    for (records, lanes) in [(Sample::use_after_free(), true), (Sample::healthy(), false)] {
        let picture = svg::render(&named(&records));

        assert!(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(picture.ends_with("</svg>\n"));
        assert_eq!(picture.contains("IOTLB holds"), lanes);
        for tag in ["text", "title"] {
            let opened = picture.matches(&format!("<{tag}")).count();
            assert_eq!(opened, picture.matches(&format!("</{tag}>")).count());
        }
        assert!(!picture.contains("url("));
    }
}

#[test]
fn remedy_is_of_the_reason_of_the_refusal() {
    let rows = [
        (0xf0, "leave Bus Master Enable set"),
        (2, "before its domain is detached"),
        (6, "keep the memory mapped until"),
    ];
    for (reason, remedy) in rows {
        let records = Sample::new()
            .used()
            .unmapped_while_owned(reason != 6, reason)
            .end(End::Completed);
        let text = plain(&report(&records));

        assert!(text.contains("ERROR: dma-unmapped"), "{text}");
        assert!(text.contains(remedy), "{reason}: {text}");
    }
}
