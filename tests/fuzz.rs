//! `dmasan fuzz` finds a defect that only a malformed Escape shows, and the
//! same driver without it is silent for as many runs.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

mod support;

use support::{driver, entries, fuzz, run, told};

#[test]
fn an_escape_whose_size_is_not_looked_at_is_found_and_shown_again() {
    let out = tempfile::tempdir().unwrap();

    let (code, text) = fuzz("escape-size-unchecked", out.path(), &[]);

    assert_eq!(code, Some(1), "{text}");
    let defects = entries(&out.path().join("defects"));
    assert!(!defects.is_empty(), "{text}");
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
