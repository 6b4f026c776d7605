//! What a scenario asks of its run is told in each format, by `dmasan run` and
//! by `dmasan report` of its journal: a test that tested nothing is no success
//! anywhere.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use support::{dmasan, driver, run, told};

/// A fault at an address that nothing touches.
const NEVER: &str = r#"
[[fault]]
name = "a read of nothing"
at = "access"
do = "drop"
iova = [0x10, 0x20]
"#;
/// A fault that fires.
const FIRES: &str = r#"
[[fault]]
name = "one more interrupt"
at = "interrupt"
do = "spurious"
nth = 2
"#;

/// A run's code, and its text, JSON, JUnit and SARIF.
struct Told {
    code: Option<i32>,
    text: String,
    json: Value,
    junit: String,
    sarif: Value,
}

/// The command, then its documents in `folder`.
fn tell(folder: &Path, command: &[&str]) -> Told {
    let at = |name: &str| folder.join(name);
    let output = dmasan()
        .args(command)
        .arg("--json")
        .arg(at("a.json"))
        .arg("--junit")
        .arg(at("a.xml"))
        .arg("--sarif")
        .arg(at("a.sarif"))
        .output()
        .unwrap();
    let (code, text, errors) = told(&output);
    let read = |name: &str| fs::read_to_string(at(name)).expect(&errors);
    Told {
        code,
        text,
        json: serde_json::from_str(&read("a.json")).unwrap(),
        junit: read("a.xml"),
        sarif: serde_json::from_str(&read("a.sarif")).unwrap(),
    }
}

/// A short run by a plan; and what `dmasan report` says of its journal.
fn both(folder: &Path, asked: &str) -> [Told; 2] {
    let plan = folder.join("plan.toml");
    let workload = "{ do = \"create\", width = 16, height = 16 }, { do = \"free\" }";
    fs::write(
        &plan,
        format!("name = \"asked\"\nworkload = [{workload}]\n{asked}"),
    )
    .unwrap();
    let out = folder.join("out");
    let (plain, out, plan) = (
        driver("plain"),
        out.to_str().unwrap(),
        plan.to_str().unwrap(),
    );
    let run = [
        "run",
        plain.to_str().unwrap(),
        "--out",
        out,
        "--scenario",
        plan,
    ];
    let journal = format!("{out}/journal");
    [tell(folder, &run), tell(folder, &["report", &journal])]
}

#[test]
fn a_fault_that_never_fired_and_what_is_not_so_fail_everywhere() {
    let rows = [
        (NEVER.to_owned(), "never fired"),
        (
            "choice = [{ number = 99999, take = 1 }]\n".to_owned(),
            "was never come to",
        ),
        (
            "choice = [{ number = 4, take = 77 }]\n".to_owned(),
            "ways only",
        ),
        (
            format!("{FIRES}[verify]\nfindings = [\"hang\"]\n"),
            "there is no finding hang",
        ),
        (
            format!("{FIRES}[verify]\nreleased = false\n"),
            "everything was released",
        ),
        (
            format!(
                "{FIRES}[verify]\nstatus = [{{ function = \"DxgkDdiStartDevice\", \
                 returns = \"STATUS_NO_MEMORY\" }}]\n"
            ),
            "never returned STATUS_NO_MEMORY",
        ),
    ];
    for (asked, says) in rows {
        let folder = tempfile::tempdir().unwrap();
        for (told, by) in both(folder.path(), &asked).iter().zip(["run", "report"]) {
            assert_eq!(told.code, Some(1), "{by}, {says}: {}", told.text);
            assert!(told.text.contains(says), "{by}, {says}: {}", told.text);
            assert!(!told.text.contains("no findings"), "{by}: {}", told.text);
            assert_eq!(told.json["passes"], false, "{by}, {says}");
            let checks = told.json["checks"].as_array().unwrap();
            let failed = checks.iter().filter(|check| check["passes"] == false);
            assert_eq!(failed.count(), 1, "{by}, {says}");
            assert!(
                told.junit.contains("failures=\"1\""),
                "{by}: {}",
                told.junit
            );
            assert!(told.junit.contains(says), "{by}: {}", told.junit);
            let results = told.sarif["runs"][0]["results"].as_array().unwrap();
            assert_eq!(results.len(), 1, "{by}, {says}");
            assert_eq!(results[0]["ruleId"], "scenario-check", "{by}");
        }
    }
}

#[test]
fn what_is_so_is_told_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let asked = format!("{FIRES}[verify]\nfindings = []\nreleased = true\nframe = \"unchanged\"\n");

    for told in both(folder.path(), &asked) {
        assert_eq!(told.code, Some(0), "{}", told.text);
        assert!(told.text.contains("as asked"), "{}", told.text);
        assert_eq!(told.json["passes"], true);
        assert!(told.json["checks"].as_array().unwrap().len() >= 3);
        assert!(told.junit.contains("failures=\"0\""), "{}", told.junit);
        assert_eq!(
            told.sarif["runs"][0]["results"].as_array().unwrap().len(),
            0
        );
    }
}

#[test]
fn a_scenario_of_another_run_asks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (code, stdout, stderr) = told(&run(&driver("plain"), &out, &[]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    fs::write(
        out.join("scenario.toml"),
        format!("name = \"other\"\n{NEVER}"),
    )
    .unwrap();

    let journal = out.join("journal");
    let told = tell(folder.path(), &["report", journal.to_str().unwrap()]);

    assert_eq!(told.code, Some(0), "{}", told.text);
    assert_eq!(told.json["checks"].as_array().unwrap().len(), 0);
}
