//! `dmasan replay`: the same findings from the journal alone.
#![allow(clippy::unwrap_used)]

mod support;

use support::{dmasan, driver, finding_ids, run, told, top};

fn replayed(out: &std::path::Path, arguments: &[&str], variant: &str) -> (Option<i32>, String) {
    let first = run(&driver(variant), out, arguments);
    assert!(matches!(first.status.code(), Some(0 | 1)));
    let json = out.join("replayed.json");
    let output = dmasan()
        .arg("replay")
        .arg(out.join("journal"))
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let (code, stdout, stderr) = told(&output);
    let original = support::json(out);
    let again: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(
        original["findings"], again["findings"],
        "{stdout}\n{stderr}"
    );
    assert_eq!(code, first.status.code(), "{stdout}\n{stderr}");
    (code, stdout + &stderr)
}

#[test]
fn a_healthy_run_replays_without_a_difference() {
    let out = tempfile::tempdir().unwrap();
    let scenario = top().join("tests/scenarios/all-features.toml");
    let scenario = ["--scenario", scenario.to_str().unwrap()];
    for domain in ["passthrough", "isolation", "isolation-forced"] {
        for more in [&[][..], &scenario] {
            let arguments = [&["--domain", domain], more].concat();
            let (code, text) = replayed(out.path(), &arguments, "plain");
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains("no difference"), "{text}");
        }
    }
}

#[test]
fn a_finding_is_found_again() {
    for domain in ["isolation", "passthrough", "isolation-forced"] {
        let out = tempfile::tempdir().unwrap();
        let arguments = ["--set", "Defect=free-before-detach", "--domain", domain];
        let (code, text) = replayed(out.path(), &arguments, "defects");
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("no difference"), "{text}");
        assert_eq!(
            finding_ids(&support::json(out.path())),
            ["dma-use-after-free"]
        );
    }
}

#[test]
fn a_journal_whose_access_is_changed_is_told_to_differ() {
    // Cut out one table write: what the device reached is then inexplicable.
    let out = tempfile::tempdir().unwrap();
    run(&driver("plain"), out.path(), &[]);
    let path = out.path().join("journal");
    let (records, _) = journal::read(&std::fs::read(&path).unwrap()[..]).unwrap();
    let victim = records
        .iter()
        .rposition(|r| {
            matches!(
                r.event,
                journal::Event::Access {
                    outcome: journal::event::Outcome::Done { cached: true, .. },
                    ..
                }
            )
        })
        .unwrap();
    let again = journal::Journal::in_memory();
    for (index, record) in records.iter().enumerate() {
        let mut record = record.clone();
        if index == victim
            && let journal::Event::Access { outcome, .. } = &mut record.event
        {
            *outcome = journal::event::Outcome::Refused;
        }
        again.set_time(record.time);
        again.emit(record.event);
    }
    std::fs::write(&path, again.bytes()).unwrap();
    let output = dmasan().arg("replay").arg(&path).output().unwrap();
    let (_, stdout, stderr) = told(&output);
    assert!(
        format!("{stdout}{stderr}").contains("1 of"),
        "{stdout}\n{stderr}"
    );
}
