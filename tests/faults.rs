//! Fault plans: each place and outcome in a run that shows it acting, and the
//! same run without the fault, which is silent. What the runs give is the
//! table of `docs/faults.md`; `DMASAN_UPDATE=1` writes it anew.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

#[path = "faults/cases.rs"]
mod cases;
mod support;

use cases::{CASES, Case, ONCE, PLAIN, TWICE};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use support::table::{bug_checks, compare, each};
use support::{dmasan, driver, finding_ids, json, run, told};

/// What a run gave.
struct Seen {
    code: Option<i32>,
    report: Value,
    text: String,
}

fn seen(case: &Case, plan: &str, folder: &Path, name: &str) -> Seen {
    let scenario = folder.join(format!("{name}.toml"));
    std::fs::write(&scenario, plan).unwrap();
    let out = folder.join(name);
    let common = ["--verbose", "--scenario", scenario.to_str().unwrap()];
    let arguments = [&common[..], case.arguments].concat();
    let output = run(&driver(case.driver), &out, &arguments);
    let (code, stdout, stderr) = told(&output);
    let made = out.join("report.json").exists();
    Seen {
        code,
        report: if made { json(&out) } else { Value::Null },
        text: format!("{stdout}{stderr}"),
    }
}

/// Where a picture and the device's answers lie: from the accesses of a
/// transfer, each told as it is repeated.
fn places(case: &Case, folder: &Path, name: &str) -> (String, String) {
    let probe = "\n[[fault]]\nat = \"access\"\ndo = \"repeat\"\ncommand = \"TRANSFER*\"\n";
    let seen = seen(case, &format!("{}{probe}", case.workload), folder, name);
    let address = |line: &str| {
        let (_, range) = line.rsplit_once(' ').unwrap();
        let (first, _) = range.split_once('-').unwrap();
        let first = u64::from_str_radix(first.trim_start_matches("0x"), 16).unwrap();
        first & !0xfff
    };
    let told = |what: &str| -> Vec<u64> {
        let lines = seen.text.lines().filter(|line| line.contains(what));
        lines.map(address).collect()
    };
    let (reads, writes) = (
        told("repeat at access read "),
        told("repeat at access write "),
    );
    let answers = format!("{:#x}, {:#x}", writes[0], writes[0] | 0xfff);
    (format!("{:#x}", reads[2]), answers)
}

/// The scenario of a case.
fn plan(case: &Case, folder: &Path, name: &str) -> String {
    let mut fault = case.fault.to_owned();
    if fault.contains('{') {
        let (page, response) = places(case, folder, &format!("{name}-places"));
        fault = fault
            .replace("{page}", &page)
            .replace("{response}", &response);
    }
    let verify = match case.verify {
        "" => String::new(),
        verify => format!("\n[verify]\n{verify}\n"),
    };
    format!(
        "name = \"{name}\"\n{}\n[[fault]]\nat = \"{}\"\ndo = \"{}\"\n{fault}\n{verify}",
        case.workload, case.at, case.does
    )
}

/// What is wrong with a case, and its row of the table.
fn judge(index: usize, case: &Case, folder: &Path) -> (Vec<String>, String) {
    let mut wrong = Vec::new();
    let name = format!("{}-{}-{index}", case.at, case.does);
    let twin = seen(case, case.workload, folder, &format!("{name}-twin"));
    if twin.code != Some(0) || !finding_ids(&twin.report).is_empty() {
        wrong.push(format!("{name}: the twin is not silent\n{}", twin.text));
    }
    let plan = plan(case, folder, &name);
    let seen = seen(case, &plan, folder, &name);
    if seen.report.is_null() {
        wrong.push(format!("{name}: no report\n{}\n{plan}", seen.text));
        return (wrong, String::new());
    }
    let mut found = finding_ids(&seen.report);
    found.sort_unstable();
    found.dedup();
    let code = if case.verify.is_empty() { 1 } else { 0 };
    if found != case.findings || seen.code != Some(code) {
        wrong.push(format!(
            "{name}: {found:?}, exit {:?}, instead of {:?}, {code}\n{}\n{plan}",
            seen.code, case.findings, seen.text
        ));
    }
    let injected = format!(": {} at {}", case.does, case.at);
    let acted = |line: &str| line.contains("INJECTED") && line.contains(&injected);
    if !seen.text.lines().any(acted) {
        wrong.push(format!("{name}: it does not act\n{}", seen.text));
    }
    for words in case
        .says
        .iter()
        .filter(|words| !seen.text.contains(**words))
    {
        wrong.push(format!("{name}: {words:?} is not said\n{}", seen.text));
    }
    for finding in seen.report["findings"].as_array().into_iter().flatten() {
        if finding["blame"][0]["party"] != case.blamed {
            wrong.push(format!("{name}: {}", finding["blame"]));
        }
    }
    let row = format!(
        "| `{}` | `{}` | {} | {} |\n",
        case.at,
        case.does,
        case.run,
        shown(case, &found, &seen)
    );
    (wrong, row)
}

/// What a run came to, in the words of the table.
fn shown(case: &Case, found: &[String], seen: &Seen) -> String {
    let mut words: Vec<String> = found.iter().map(|id| format!("`{id}`")).collect();
    words.extend(bug_checks(&seen.report));
    let end = &seen.report["end"];
    match (end["state"].as_str(), end["status_name"].as_str()) {
        (Some("start-failed"), Some(status)) => {
            words.push(format!("the adapter does not start: {status}"));
        }
        _ => {
            if let Some(line) = seen.text.lines().find(|line| line.contains("REFUSED")) {
                let (_, refused) = line.split_once("REFUSED ").unwrap();
                words.push(format!("the driver refuses {refused}"));
            }
        }
    }
    for (key, word) in [
        ("\"unchanged\"", "the frame is the same"),
        ("\"changed\"", "the frame is another"),
        ("released = true", "all is released"),
    ] {
        if case.verify.contains(key) {
            words.push(word.to_owned());
        }
    }
    words.join("; ")
}

#[test]
fn each_fault_acts_and_the_documented_table_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let numbered: Vec<(usize, &Case)> = CASES.iter().enumerate().collect();
    let rows = each(&numbered, |(index, case)| {
        judge(*index, case, folder.path())
    });
    let mut table = "| at | do | in this run | what is seen |\n|---|---|---|---|\n".to_owned();
    for (case, (_, row)) in CASES.iter().zip(&rows) {
        if case.at == "descriptor" && case.does == "drop" {
            // 256 MiB of pages share no more than the ways of one set.
            writeln!(
                table,
                "| `evict` | `never` | `emulator/iommu/src/tests/injected.rs`: the IOTLB holds more \
                 than a run of a driver fills | the old translations answer on |"
            )
            .unwrap();
        }
        table.push_str(row);
    }
    let wrong: Vec<&str> = rows
        .iter()
        .flat_map(|(wrong, _)| wrong)
        .map(String::as_str)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} things are not as they should be:\n{}\n{table}",
        wrong.len(),
        wrong.join("\n")
    );
    compare("faults", &table);
}

#[test]
fn every_place_and_outcome_has_a_case() {
    for at in scenario::SiteKind::ALL {
        for outcome in at.outcomes() {
            let shown = CASES
                .iter()
                .any(|case| case.at == at.name() && case.does == outcome.name());
            let by_a_unit = at.name() == "evict";
            assert!(shown || by_a_unit, "{} {}", at.name(), outcome.name());
        }
    }
}

#[test]
fn the_driver_fails_cleanly_whichever_allocation_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = 0;
    for n in 1..100 {
        let plan = format!(
            "{TWICE}\n[[fault]]\nat = \"call\"\ndo = \"fail\"\nnth = {n}\n\
             [verify]\nfindings = []\nreleased = true\n"
        );
        let seen = seen(&PLAIN, &plan, folder.path(), "nth");
        if seen.text.contains("never fired") {
            assert_eq!(seen.code, Some(1), "{}", seen.text);
            break;
        }
        assert_eq!(seen.code, Some(0), "allocation {n}\n{}", seen.text);
        failed = n;
    }
    // Buffers and rings, two pictures with their mappings.
    assert!((10..50).contains(&failed), "{failed}");
}

#[test]
fn an_exploration_lets_each_allocation_fail() {
    let folder = tempfile::tempdir().unwrap();
    let explored = |more: &[&str]| {
        let out = folder.path().join(format!("out-{}", more.len()));
        let output = dmasan()
            .arg("explore")
            .arg(driver("plain"))
            .args(["--bound", "1", "--json", "-", "--out"])
            .arg(out)
            .args(more)
            .output()
            .unwrap();
        let (code, stdout, stderr) = told(&output);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        let results: Value = serde_json::from_str(&stdout).unwrap();
        results["runs"].as_u64().unwrap()
    };
    assert!(explored(&["--fail-nth"]) >= explored(&[]) + 10);
}

#[test]
fn a_listed_choice_fails_its_allocation_where_that_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |choice: &str| format!("may-fail = true\n{choice}\n{ONCE}");
    let whole = seen(&PLAIN, &plan(""), folder.path(), "whole");
    assert_eq!(whole.code, Some(0), "{}", whole.text);
    // The first choices are of random bytes, if any; then the first
    // allocation.
    let refused = (0..16).find_map(|number| {
        let choice = format!("choice = [{{ number = {number}, take = 1 }}]");
        let seen = seen(&PLAIN, &plan(&choice), folder.path(), "one");
        let fails = seen
            .text
            .contains(&format!("choice {number} (fail): 1 of 2"));
        fails.then_some(seen)
    });
    let refused = refused.unwrap();
    assert_eq!(refused.report["end"]["state"], "start-failed");
    assert!(finding_ids(&refused.report).is_empty());
}

#[test]
fn what_is_verified_and_not_so_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let drop = "[[fault]]\nat = \"access\"\ndo = \"drop\"\ncommand = \"TRANSFER*\"\nnth = 1\n";
    let unmap = "[[fault]]\nat = \"unmap\"\ndo = \"fail\"\nfunction = \"*FromMdl\"\n";
    for (fault, verify, says) in [
        (
            "",
            "findings = [\"stale-iotlb\"]",
            "there is no finding stale-iotlb",
        ),
        (
            unmap,
            "findings = []",
            "there is a finding mapped-after-free",
        ),
        (
            drop,
            "frame = \"unchanged\"",
            "verify: the last frame is CRC",
        ),
        ("", "frame = \"changed\"", "verify: the last frame is CRC"),
        ("", "released = false", "everything was released"),
        (
            "",
            "status = [{ function = \"DxgkCb*\", returns = \"STATUS_NO_MEMORY\" }]",
            "DxgkCb* never returned STATUS_NO_MEMORY",
        ),
        (
            "[[fault]]\nname = \"thousandth\"\nat = \"call\"\ndo = \"fail\"\nnth = 1000\n",
            "findings = []",
            "fault 1 (thousandth) never fired",
        ),
    ] {
        let plan = format!("{ONCE}\n{fault}\n[verify]\n{verify}\n");
        let seen = seen(&PLAIN, &plan, folder.path(), "verified");
        assert_eq!(seen.code, Some(1), "{plan}\n{}", seen.text);
        assert!(seen.text.contains(says), "{says:?}: {}", seen.text);
    }
    let plan = format!("{ONCE}\n{unmap}\n[verify]\nfindings = [\"mapped-after-free\"]\n");
    let seen = seen(&PLAIN, &plan, folder.path(), "expected");
    assert_eq!(seen.code, Some(0), "{}", seen.text);
}

#[test]
fn a_plan_that_names_what_is_not_there_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.toml");
    for (plan, says) in [
        (
            "\n[[fault]]\nat = \"call\"\ndo = \"fail\"\nfunction = \"DxgkCbAllocate\"",
            "line 2: fault 1: function",
        ),
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\nfunction = \"KeSetEvent\"",
            "no document says how it fails",
        ),
        (
            "[[fault]]\nat = \"call\"\ndo = \"fail\"\nafter = \"DxgkDdiStopDevcie\"",
            "after",
        ),
        (
            "[[fault]]\nat = \"access\"\ndo = \"drop\"\ncommand = \"TRANSFER_TO_HOST_4D\"",
            "command",
        ),
        (
            "[verify]\nstatus = [{ function = \"DxgkDdiNo\", returns = 0 }]",
            "there is no routine \"DxgkDdiNo\"",
        ),
        ("[[fault]]\nat = \"call\"\ndo = \"explode\"", "line 3"),
        ("[verify]\nfindings = [\"late-iotlb\"]", "late-iotlb"),
    ] {
        std::fs::write(&file, plan).unwrap();
        let checked = dmasan().args(["scenario", "check"]).arg(&file).output();
        let (code, _, stderr) = told(&checked.unwrap());
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(says), "{says:?}: {stderr}");
        let seen = seen(&PLAIN, plan, folder.path(), "bad");
        assert_eq!(seen.code, Some(2), "{}", seen.text);
        assert!(seen.text.contains(says), "{says:?}: {}", seen.text);
    }
    let caller = "[[fault]]\nat = \"call\"\ndo = \"fail\"\ncaller = \"*!nobody\"";
    std::fs::write(&file, caller).unwrap();
    let check = |more: &[&Path]| {
        let mut command = dmasan();
        command.args(["scenario", "check"]).arg(&file).args(more);
        told(&command.output().unwrap())
    };
    assert_eq!(check(&[]).0, Some(0));
    let (code, _, stderr) = check(&[Path::new("--driver"), &driver("plain")]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("names no function"), "{stderr}");
}

#[test]
fn a_run_with_faults_gives_the_same_journal_twice() {
    let folder = tempfile::tempdir().unwrap();
    let plan = format!(
        "seed = 5\n{TWICE}\n[[fault]]\nat = \"access\"\ndo = \"delay\"\nprobability = 0.3\n\
         [[fault]]\nat = \"interrupt\"\ndo = \"late\"\nprobability = 0.5\n"
    );
    let journals = ["first", "second"].map(|name| {
        let seen = seen(&PLAIN, &plan, folder.path(), name);
        assert_eq!(seen.code, Some(0), "{}", seen.text);
        std::fs::read(folder.path().join(name).join("journal")).unwrap()
    });
    assert!(journals[0] == journals[1]);
}

#[test]
fn a_replay_does_not_judge_an_iommu_that_was_made_to_err() {
    let folder = tempfile::tempdir().unwrap();
    let plan = format!("{ONCE}\n[[fault]]\nat = \"fill\"\ndo = \"none-cached\"\n");
    let _ = seen(&PLAIN, &plan, folder.path(), "run");
    let journal = folder.path().join("run/journal");
    let output = dmasan().arg("replay").arg(&journal).output().unwrap();
    let (code, _, stderr) = told(&output);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("made the IOMMU err"), "{stderr}");
}
