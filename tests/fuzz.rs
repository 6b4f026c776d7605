//! `dmasan fuzz` finds a defect that only a malformed Escape shows, and one
//! that only a fault shows; the same driver without them is silent for as many
//! runs.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

mod support;

use scenario::{Plan, SiteKind};
use support::{driver, entries, finding_ids, fuzz, fuzz_for, json, run, told};

/// Runs that are enough for the defect that only a fault shows.
const RUNS: u32 = 400;
/// Where they begin: one life of a picture of four pages.
const LIFE: &str = r#"workload = [
  { do = "create", width = 64, height = 64 },
  { do = "present" },
  { do = "wait" },
  { do = "free" },
]
"#;

/// Fuzzes from there.
fn fuzz_life(defect: &str, out: &std::path::Path) -> (Option<i32>, String) {
    let scenario = out.join("life.toml");
    std::fs::write(&scenario, LIFE).unwrap();
    fuzz_for(
        RUNS,
        defect,
        out,
        &["--scenario", scenario.to_str().unwrap()],
    )
}

#[test]
fn an_escape_whose_size_is_not_looked_at_is_found_and_shown_again() {
    let out = tempfile::tempdir().unwrap();

    let (code, text) = fuzz("escape-size-unchecked", out.path(), &[]);

    assert_eq!(code, Some(1), "{text}");
    let defects = entries(&out.path().join("defects"));
    assert_eq!(defects.len(), 1, "one mistake in one function: {text}");
    assert!(text.contains("escape"), "the function is named: {text}");
    let scenario = defects[0].join("scenario.toml");
    let again = out.path().join("again");
    let arguments = [
        "--set",
        "Defect=escape-size-unchecked",
        "--scenario",
        scenario.to_str().unwrap(),
    ];
    let (code, stdout, stderr) = told(&run(&driver("defects"), &again, &arguments));
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert_eq!(
        std::fs::read(again.join("journal")).unwrap(),
        std::fs::read(defects[0].join("journal")).unwrap()
    );
}

#[test]
fn the_driver_that_looks_at_the_size_is_silent() {
    let out = tempfile::tempdir().unwrap();

    let (code, text) = fuzz("escape-size-unchecked-fixed", out.path(), &[]);

    assert_eq!(code, Some(0), "{text}");
    assert!(entries(&out.path().join("defects")).is_empty());
}

/// No order, no Escape, no answer and no allocation that fails makes a device
/// silent: a fault of the device does.
#[test]
fn a_free_that_times_out_and_frees_twice_is_found_by_a_fault_and_shown_again() {
    let out = tempfile::tempdir().unwrap();

    let (code, text) = fuzz_life("timeout-double-free", out.path());

    assert_eq!(code, Some(1), "{text}");
    let defects = entries(&out.path().join("defects"));
    assert_eq!(defects.len(), 1, "one mistake in one function: {text}");
    assert!(text.contains("double-free"), "{text}");
    let path = defects[0].join("scenario.toml");
    let plan = Plan::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(
        !plan.faults.is_empty() && plan.faults.iter().all(|of| of.at != SiteKind::Call),
        "{plan:?}"
    );
    let shown = |name: &str, scenario: &std::path::Path| {
        let folder = out.path().join(name);
        let setting = ["--set", "Defect=timeout-double-free", "--scenario"];
        let arguments = [&setting[..], &[scenario.to_str().unwrap()]].concat();
        let (code, ..) = told(&run(&driver("defects"), &folder, &arguments));
        (code, finding_ids(&json(&folder)), folder)
    };
    let (code, findings, again) = shown("again", &path);
    assert_eq!((code, findings), (Some(1), vec!["double-free".to_owned()]));
    assert_eq!(
        std::fs::read(again.join("journal")).unwrap(),
        std::fs::read(defects[0].join("journal")).unwrap()
    );
    let healthy = out.path().join("without-faults.toml");
    std::fs::write(&healthy, plan.without_faults().to_toml()).unwrap();
    let (_, findings, _) = shown("without", &healthy);
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn the_driver_that_keeps_what_the_device_does_not_let_go_of_is_silent() {
    let out = tempfile::tempdir().unwrap();

    let (code, text) = fuzz_life("timeout-double-free-fixed", out.path());

    assert_eq!(code, Some(0), "{text}");
    assert!(entries(&out.path().join("defects")).is_empty());
    assert!(text.contains("follows from a fault"), "{text}");
}

/// What the device answers while the driver starts, and power states, are
/// part of inputs: those of an earlier corpus are begun with, and new ones
/// are made.
#[test]
fn what_the_driver_meets_first_is_made_up_too() {
    let out = tempfile::tempdir().unwrap();
    let corpus = out.path().join("corpus");
    std::fs::create_dir(&corpus).unwrap();
    // The first response of all, an EDID's size, and the configuration.
    let seed = r#"name = "seed"
answer = [
  { of = "response", number = 0, at = 24, data = "ffffffff" },
  { of = "configuration", number = 0, data = "ffffffff" },
]
workload = [
  { do = "power", to = "off" }, { do = "power", to = "on" },
  { do = "escape", data = "444d534e" },
]
"#;
    std::fs::write(corpus.join("seed.toml"), seed).unwrap();

    let (code, text) = fuzz("escape-size-unchecked-fixed", out.path(), &[]);

    assert_eq!(code, Some(0), "{text}");
    let kept: Vec<String> = entries(&corpus)
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let with = |what: &str| kept.iter().filter(|text| text.contains(what)).count();
    assert!(with("number = 0") > 1, "early answers were kept: {kept:?}");
    assert!(with("do = \"power\"") > 1, "power states were kept");
    assert!(with("may-fail = true") > 1, "allocations may fail");
}

#[test]
fn one_worker_and_a_seed_find_the_same_each_time() {
    let [first, second] = [(); 2].map(|()| {
        let out = tempfile::tempdir().unwrap();
        fuzz("escape-size-unchecked", out.path(), &[]);
        let names = |folder: &str| {
            let paths = entries(&out.path().join(folder));
            let names = paths
                .iter()
                .map(|path| path.file_name().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        (names("corpus"), names("defects"))
    });

    assert_eq!(first, second);
}
