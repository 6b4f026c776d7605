//! Every defect that can be planted in the guest driver, in every domain
//! mode: what is found, what Windows stops with, and that the same code
//! without the mistake is silent. What the runs give is the table of
//! `docs/defects.md`; `DMASAN_UPDATE=1` writes it anew.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

#[path = "defects/planted.rs"]
mod planted;
mod support;

use planted::{COMMON, FUZZED, Fuzzed, PLANTED, Planted};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use support::table::{bug_checks, compare, each};
use support::{dmasan, driver, entries, finding_ids, fuzz, json, run, told};

/// The domain modes that the binary has.
fn modes() -> Vec<&'static str> {
    let help = dmasan().args(["run", "--help"]).output().unwrap();
    let help = told(&help).1;
    ["passthrough", "isolation", "isolation-forced"]
        .into_iter()
        .filter(|mode| help.contains(&format!("- {mode}:")))
        .collect()
}

/// What a run gave.
struct Seen {
    code: Option<i32>,
    report: Value,
    text: String,
}

/// Runs the defects build with `defect` set.
fn seen(planted: &Planted, defect: &str, mode: &str, folder: &Path) -> Seen {
    let scenario = folder.join(format!("{defect}-{mode}.toml"));
    let workload = planted.workload;
    let text = format!("name = \"{defect}\"\nworkload = [{workload}]\n");
    std::fs::write(&scenario, text).unwrap();
    let out = folder.join(format!("{defect}-{mode}"));
    let setting = format!("Defect={defect}");
    let common = [
        "--set",
        &setting,
        "--domain",
        mode,
        "--scenario",
        scenario.to_str().unwrap(),
    ];
    let arguments = [&common[..], planted.arguments].concat();
    let output = run(&driver("defects"), &out, &arguments);
    let (code, stdout, stderr) = told(&output);
    let report = out.join("report.json");
    Seen {
        code,
        report: if report.exists() {
            json(&out)
        } else {
            Value::Null
        },
        text: format!("{stdout}{stderr}"),
    }
}

/// Names of all functions on all stacks below `value`.
fn functions(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|v| functions(v, names)),
        Value::Object(fields) => {
            if let Some(name) = fields.get("function").and_then(Value::as_str) {
                names.push(name.to_owned());
            }
            fields.values().for_each(|v| functions(v, names));
        }
        _ => {}
    }
}

/// What is wrong with a defect's run in `mode`, and its cell of the table.
fn judge(planted: &Planted, mode: &str, folder: &Path) -> (Vec<String>, String) {
    let mut wrong = Vec::new();
    let seen = seen(planted, planted.name, mode, folder);
    let place = format!("{} in {mode}", planted.name);
    if seen.report.is_null() {
        return (
            vec![format!("{place}: no report\n{}", seen.text)],
            String::new(),
        );
    }
    let mut found = finding_ids(&seen.report);
    found.sort_unstable();
    found.dedup();
    let because = planted.silent.iter().find(|(silent, _)| *silent == mode);
    if let Some((_, because)) = because {
        if !found.is_empty() || seen.code != Some(0) {
            wrong.push(format!(
                "{place}: {found:?}, exit {:?}, where silence was expected\n{}",
                seen.code, seen.text
            ));
        }
        return (wrong, format!("silent: {because}"));
    }
    if !found.iter().any(|id| id == planted.finding) || seen.code != Some(1) {
        wrong.push(format!(
            "{place}: {found:?}, exit {:?}, instead of {}\n{}",
            seen.code, planted.finding, seen.text
        ));
    }
    let mut names = Vec::new();
    functions(&seen.report["findings"], &mut names);
    if wrong.is_empty() && !names.iter().any(|name| name.contains(planted.function)) {
        wrong.push(format!(
            "{place}: no stack names {}: {names:?}",
            planted.function
        ));
    }
    let found = found.iter().map(|id| format!("`{id}`"));
    let cell: Vec<String> = found.chain(bug_checks(&seen.report)).collect();
    (wrong, cell.join(", "))
}

/// The same for a defect that is fuzzed for.
fn judge_fuzzed(fuzzed: &Fuzzed, mode: &str, folder: &Path) -> (Vec<String>, String) {
    let out = folder.join(format!("{}-{mode}", fuzzed.name));
    let (code, text) = fuzz(fuzzed.name, &out, &["--domain", mode]);
    let reports: Vec<Value> = entries(&out.join("defects"))
        .iter()
        .map(|defect| json(defect))
        .collect();
    let right = |report: &Value| {
        let mut names = Vec::new();
        functions(&report["bug_checks"], &mut names);
        bug_checks(report) == [fuzzed.bug_check]
            && names.iter().any(|name| name.contains(fuzzed.function))
    };
    let mut wrong = Vec::new();
    if code != Some(1) || reports.is_empty() || !reports.iter().all(right) {
        wrong.push(format!(
            "{} in {mode}: exit {code:?} instead of {} in {}\n{text}",
            fuzzed.name, fuzzed.bug_check, fuzzed.function
        ));
    }
    (wrong, fuzzed.bug_check.to_owned())
}

#[test]
fn each_defect_is_found_and_the_documented_table_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let modes = modes();
    let rows = each(PLANTED, |planted| {
        let judged = modes.iter().map(|mode| judge(planted, mode, folder.path()));
        let (wrong, cells): (Vec<Vec<String>>, Vec<String>) = judged.unzip();
        (wrong.concat(), cells)
    });
    let mut table = format!("| defect | mistake | {} |\n", modes.join(" | "));
    writeln!(table, "|---|---|{}", "---|".repeat(modes.len())).unwrap();
    for (planted, (_, cells)) in PLANTED.iter().zip(&rows) {
        let arguments = match planted.arguments {
            [] => String::new(),
            more => format!(" (with `{}`)", more.join(" ")),
        };
        writeln!(
            table,
            "| `{}` | {}{arguments} | {} |",
            planted.name,
            planted.mistake,
            cells.join(" | ")
        )
        .unwrap();
    }
    let mut wrong: Vec<String> = rows.into_iter().flat_map(|(wrong, _)| wrong).collect();
    for fuzzed in FUZZED {
        let judged = each(&modes, |mode| judge_fuzzed(fuzzed, mode, folder.path()));
        let (not_so, cells): (Vec<Vec<String>>, Vec<String>) = judged.into_iter().unzip();
        wrong.extend(not_so.concat());
        writeln!(
            table,
            "| `{}` | {} (by `dmasan fuzz`) | {} |",
            fuzzed.name,
            fuzzed.mistake,
            cells.join(" | ")
        )
        .unwrap();
    }
    assert!(
        wrong.is_empty(),
        "{} of the runs are not as they should be:\n{}\n{table}",
        wrong.len(),
        wrong.join("\n")
    );
    compare("defects", &table);
}

#[test]
fn each_healthy_twin_is_silent_in_every_mode() {
    let folder = tempfile::tempdir().unwrap();
    let modes = modes();
    let wrong = each(PLANTED, |planted| {
        let twin = format!("{}-fixed", planted.name);
        let runs = modes.iter().map(|mode| {
            let seen = seen(planted, &twin, mode, folder.path());
            let clean = seen.code == Some(0) && finding_ids(&seen.report).is_empty();
            (!clean).then(|| format!("{twin} in {mode}: {:?}\n{}", seen.code, seen.text))
        });
        runs.flatten().collect::<Vec<String>>()
    })
    .concat();
    let fuzzed = FUZZED.iter().flat_map(|fuzzed| {
        let name = format!("{}-fixed", fuzzed.name);
        each(&modes, |mode| {
            let out = folder.path().join(format!("{name}-{mode}"));
            let (code, text) = fuzz(&name, &out, &["--domain", mode]);
            (code != Some(0)).then(|| format!("{name} in {mode}: {code:?}\n{text}"))
        })
    });
    let wrong: Vec<String> = wrong.into_iter().chain(fuzzed.flatten()).collect();
    assert!(
        wrong.is_empty(),
        "{} twins are not silent:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_name_that_is_no_defect_keeps_the_driver_from_starting() {
    let out = tempfile::tempdir().unwrap();
    for name in ["free-before-detatch", "-fixed", "free-before-detach-fixe"] {
        let setting = format!("Defect={name}");
        let output = run(&driver("defects"), out.path(), &["--set", &setting]);
        let (code, stdout, _) = told(&output);
        assert_eq!(code, Some(1), "{stdout}");
        let report = json(out.path());
        assert_eq!(report["end"]["state"], "start-failed", "{stdout}");
        assert!(
            report["printed"].to_string().contains("names no defect"),
            "{stdout}"
        );
    }
}

/// A hundred runs: seeds, both orders, accesses whole and parted.
fn a_hundred_are_silent(variant: &str) {
    let folder = tempfile::tempdir().unwrap();
    let driver = driver(variant);
    let modes = modes();
    for n in 0..100 {
        let scenario = folder.path().join("scenario.toml");
        let order = ["default", "lazy"][n % 2];
        let part = ["none", "reads", "writes", "all"][n / 2 % 4];
        let text = format!(
            "name = \"{n}\"\norder = \"{order}\"\npart-accesses = \"{part}\"\n\
             workload = [{COMMON}]\n"
        );
        std::fs::write(&scenario, text).unwrap();
        let arguments = [
            "--seed",
            &n.to_string(),
            "--scenario",
            scenario.to_str().unwrap(),
            "--domain",
            modes[n / 8 % modes.len()],
        ];
        let out = folder.path().join("out");
        let (code, stdout, stderr) = told(&run(&driver, &out, &arguments));
        assert_eq!(code, Some(0), "{variant}, {arguments:?}\n{stdout}{stderr}");
        assert!(finding_ids(&json(&out)).is_empty(), "{stdout}");
    }
}

#[test]
fn the_plain_driver_is_silent_a_hundred_times() {
    a_hundred_are_silent("plain");
}

#[test]
fn the_defects_build_without_a_choice_is_silent_a_hundred_times() {
    a_hundred_are_silent("defects");
}
