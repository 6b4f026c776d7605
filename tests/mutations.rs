//! Each call of the guest driver that gives something back, left out: a run
//! says so, in the way that the driver's list expects, or the list has the
//! reason why none can. What the runs gave is the table of
//! `docs/mutations.md`; `DMASAN_UPDATE=1` writes it anew.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

mod support;

use interface::mutations::{ALL, Mutation, Run, Shows};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use support::table::{bug_checks, compare, each};
use support::{driver, finding_ids, json, run, told, top};

/// The run in which a call is left out that shows by the end of any.
const FEATURES: Run = Run {
    scenario: "all-features",
    arguments: &[],
};

/// What a run gave.
struct Seen {
    code: Option<i32>,
    report: Value,
    text: String,
}

impl Seen {
    /// The findings, each kind once.
    fn findings(&self) -> Vec<String> {
        let mut found = finding_ids(&self.report);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn ended(&self) -> &str {
        self.report["end"]["state"].as_str().unwrap()
    }

    /// The step of the workload that the driver refused, as the report says
    /// it.
    fn refused(&self) -> Option<String> {
        let notes = self.report["notes"].as_array().into_iter().flatten();
        let mut notes = notes.filter_map(Value::as_str);
        let note = notes.find_map(|note| note.strip_prefix("the driver refused "))?;
        Some(note.split_once(" of the workload")?.0.to_owned())
    }

    /// What the scenario verifies and is not so, in the words of the run.
    fn not_so(&self) -> Vec<String> {
        let checks = self.report["checks"].as_array().into_iter().flatten();
        let told = |check: &Value| {
            let verified = check["name"].as_str()?.starts_with("verify: ");
            let why = check["failure"].as_str()?;
            verified.then(|| why.to_owned())
        };
        checks.filter_map(told).collect()
    }
}

fn seen(mutation: &Mutation, how: &Run, folder: &Path) -> Seen {
    let out = folder.join(mutation.name);
    let scenario = top().join(format!("tests/scenarios/{}.toml", how.scenario));
    let setting = format!("Mutation={}", mutation.name);
    let common = [
        "--set",
        &setting,
        "--scenario",
        scenario.to_str().unwrap(),
        "--timeout",
        "120",
    ];
    let arguments = [&common[..], how.arguments].concat();
    let (code, stdout, stderr) = told(&run(&driver("mutations"), &out, &arguments));
    let text = format!("{stdout}{stderr}");
    assert!(out.join("report.json").exists(), "no report: {text}");
    Seen {
        code,
        report: json(&out),
        text,
    }
}

/// The run that `mutation` shows in.
fn run_of(mutation: &Mutation) -> Run {
    match mutation.shows {
        Shows::Finding(_, how)
        | Shows::Refusal(how)
        | Shows::Verify(how)
        | Shows::Nothing(_, how) => how,
        Shows::End => FEATURES,
    }
}

/// What is wrong with a mutation's run, and its row of the table.
fn judge(mutation: &Mutation, folder: &Path) -> (Option<String>, String) {
    let how = run_of(mutation);
    let seen = seen(mutation, &how, folder);
    let found = seen.findings();
    let codes = bug_checks(&seen.report);
    let (right, said) = match mutation.shows {
        Shows::Finding(expected, _) => {
            let names = found.iter().map(|id| format!("`{id}`"));
            let said: Vec<String> = names.chain(codes).collect();
            let right = seen.code == Some(1) && found.iter().any(|id| id == expected);
            (right, said.join(", "))
        }
        Shows::Refusal(_) => {
            let refused = seen.refused();
            let right = seen.code == Some(1) && found.is_empty() && refused.is_some();
            let step = refused.unwrap_or_default();
            (right, format!("the driver refuses {step}"))
        }
        Shows::Verify(_) => {
            let not_so = seen.not_so();
            let right = seen.code == Some(1) && found.is_empty() && !not_so.is_empty();
            (right, format!("verify: {}", not_so.join("; ")))
        }
        Shows::End => {
            let right = seen.code == Some(1) && seen.ended() != "completed";
            (right, format!("the run ends: {}", codes.join(", ")))
        }
        Shows::Nothing(reason, _) => {
            let silent = seen.code == Some(0) && found.is_empty();
            (silent, format!("nothing: {reason}"))
        }
    };
    let row = format!(
        "| `{}` | `{}`{} | {said} |\n",
        mutation.name,
        how.scenario,
        how.arguments
            .chunks(2)
            .fold(String::new(), |mut text, pair| {
                write!(text, ", `{}`", pair.join(" ")).unwrap();
                text
            }),
    );
    let wrong = (!right).then(|| {
        format!(
            "{}: expected {:?}, got {found:?}, exit {:?}\n{}",
            mutation.name, mutation.shows, seen.code, seen.text
        )
    });
    (wrong, row)
}

#[test]
fn each_call_left_out_shows_as_the_driver_says_and_the_documented_table_too() {
    let folder = tempfile::tempdir().unwrap();
    let rows = each(ALL, |mutation| judge(mutation, folder.path()));
    let wrong: Vec<&str> = rows
        .iter()
        .filter_map(|(wrong, _)| wrong.as_deref())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut table = "| left out | run | what shows |\n|---|---|---|\n".to_owned();
    table.extend(rows.into_iter().map(|(_, row)| row));
    compare("mutations", &table);
}

#[test]
fn the_mutations_build_without_a_choice_is_silent_in_every_run_of_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let mut runs: Vec<Run> = ALL.iter().map(run_of).collect();
    runs.sort_unstable_by_key(|how| (how.scenario, how.arguments));
    runs.dedup();
    assert!(runs.len() > 3, "{runs:?}");
    let none = Mutation {
        name: "none",
        shows: Shows::Nothing("nothing is left out", FEATURES),
    };
    for how in runs {
        let seen = seen(&none, &how, folder.path());
        assert_eq!(seen.code, Some(0), "{how:?}: {}", seen.text);
        assert!(seen.findings().is_empty(), "{how:?}: {}", seen.text);
    }
}
