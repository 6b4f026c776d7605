//! The defects of the guest driver that a usual run never shows, because they
//! need another order, or an allocation that fails: a run is silent on each,
//! and `dmasan explore` finds it, with a schedule of which nothing can be left
//! out. What it finds are the tables of `docs/ordering.md`; `DMASAN_UPDATE=1`
//! writes them anew.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

#[path = "support/explore.rs"]
mod exploring;
mod support;

use exploring::{Explored, explore, planted, scenario, strs};
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use support::table::{compare, each};
use support::{driver, finding_ids, json, run, told};

/// A defect, and what an exploration must say of it.
struct Racy {
    /// Value of `Defect`.
    name: &'static str,
    /// The mistake, for the table.
    mistake: &'static str,
    /// What each of its defects is called in a report.
    finding: &'static str,
    workload: &'static str,
    /// Arguments of the exploration.
    explored: &'static [&'static str],
}

/// Start and stop alone.
const NOTHING: &str = "";
const ONE_LIFE: &str = r#"
  { do = "create", width = 16, height = 16 },
  { do = "free" },
"#;
/// A frame of enough pages to be on its way for long.
const LONG_FRAME: &str = r#"
  { do = "create", width = 256, height = 32 },
  { do = "present" },
  { do = "free" },
"#;
const RESIZE: &str = r#"
  { do = "create", width = 16, height = 16 },
  { do = "present" },
  { do = "resize", width = 32, height = 32 },
"#;
/// What the healthy driver does.
const FRAME: &str = r#"
  { do = "create", width = 16, height = 16 },
  { do = "present" },
  { do = "free" },
"#;

/// At most two deviations from the usual order.
const TWO: &[&str] = &["--bound", "2"];
/// One, which may be an allocation that fails.
const FAILING: &[&str] = &["--fail-nth", "--bound", "1"];

/// The two halves take about as long.
const RACY: &[Racy] = &[
    Racy {
        name: "stale-signal",
        mistake: "a wait looks at the ring first; the signal of what it finds there comes late, \
                  and a later wait takes it for its own: pages are freed between doorbell and \
                  completion",
        finding: "dma-use-after-free",
        workload: LONG_FRAME,
        explored: TWO,
    },
    Racy {
        name: "exclusive-in-flight",
        mistake: "the flag that exclusive access goes by is set before the command is counted, \
                  and a DPC in between clears it: neither wait nor reset",
        finding: "exclusive-access-violation",
        workload: NOTHING,
        explored: TWO,
    },
    Racy {
        name: "error-path-leak",
        mistake: "the pages of a picture are forgotten when there is no memory for its command \
                  block",
        finding: "handle-leak",
        workload: ONE_LIFE,
        explored: FAILING,
    },
    Racy {
        name: "error-path-double-free",
        mistake: "the pages of a picture are freed when there is no memory for its command block, \
                  and once more by what frees all that it has",
        finding: "double-free",
        workload: ONE_LIFE,
        explored: FAILING,
    },
    Racy {
        name: "freed-by-two-threads",
        mistake: "a worker and StopDevice look at the pages that wait to be freed under a lock, \
                  and forget them under it, but let go of it while they free them",
        finding: "double-free",
        workload: ONE_LIFE,
        explored: TWO,
    },
    Racy {
        name: "reset-outstanding",
        mistake: "StopDevice resets the device with a command outstanding, and frees the rings \
                  that the DPC of it looks into",
        finding: "cpu-use-after-free",
        workload: NOTHING,
        explored: TWO,
    },
    Racy {
        name: "resize-races-dpc",
        mistake: "a resize looks at the device's index and frees the command block of the old \
                  frames, to which the DPC has yet to write",
        finding: "cpu-use-after-free",
        workload: RESIZE,
        explored: TWO,
    },
];

/// Explores the defects build with `name` chosen, one of two explorations at
/// a time.
fn explored(name: &str, racy: &Racy, arguments: &[&str], folder: &Path) -> Explored {
    let plan = scenario(folder, name, racy.workload);
    let arguments = planted(name, &plan, &[arguments, &["--jobs", "1"]].concat());
    let seen = explore(
        &driver("defects"),
        &folder.join("explored"),
        &strs(&arguments),
    );
    assert_eq!(seen.results["whole"], true, "{name}: {}", seen.text);
    assert_eq!(seen.results["timeouts"], 0, "{name}: {}", seen.text);
    seen
}

/// What a healthy twin's exploration said, if that is not nothing.
fn twin(racy: &Racy, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let name = format!("{}-fixed", racy.name);
    let folder = folder.join(&name);
    fs::create_dir(&folder).unwrap();
    let seen = explored(&name, racy, arguments, &folder);
    match seen.code {
        Some(0) => Ok(()),
        code => Err(format!("{name}: {code:?}\n{}", seen.text)),
    }
}

/// All that went well; or else a panic with all that did not.
fn all_well<T>(rows: Vec<Result<T, String>>) -> Vec<T> {
    let (right, wrong): (Vec<_>, Vec<_>) = rows.into_iter().partition(Result::is_ok);
    let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    right.into_iter().flatten().collect()
}

/// A run in which nothing is wrong with the driver. Where one deviation is
/// left out, another may never be come to, which alone fails the run.
fn silent_run(name: &str, scenario: &Path, out: &Path) -> Result<(), String> {
    let arguments = planted(name, scenario, &[]);
    let output = run(&driver("defects"), out, &strs(&arguments));
    let (code, stdout, stderr) = told(&output);
    let report = json(out);
    let checks = report["checks"].as_array();
    let failed = checks
        .into_iter()
        .flatten()
        .filter(|c| c["passes"] == false);
    let own = failed.filter(|check| !check["name"].as_str().unwrap().starts_with("choice "));
    let whole = report["end"]["state"] == "completed";
    match (
        code,
        whole && finding_ids(&report).is_empty() && own.count() == 0,
    ) {
        (Some(0 | 1), true) => Ok(()),
        _ => Err(format!("{name}: {code:?}\n{stdout}{stderr}")),
    }
}

/// The scenario without its `left_out`th deviation.
fn without(scenario: &str, left_out: usize) -> String {
    let mut parts: Vec<&str> = scenario.split("[[choice]]\n").collect();
    let rest = parts.pop().unwrap();
    let (choice, workload) = rest.split_at(rest.find("[[workload]]").unwrap_or(rest.len()));
    parts.push(choice);
    parts.remove(1 + left_out);
    let mut text = parts.join("[[choice]]\n");
    text.push_str(workload);
    text
}

/// What the journal in a folder of results says.
fn journal(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("journal")).unwrap()
}

/// Check a defect; its row of the table.
fn check(racy: &Racy, folder: &Path) -> Result<String, String> {
    let folder = folder.join(racy.name);
    fs::create_dir(&folder).unwrap();
    let plan = scenario(&folder, racy.name, racy.workload);
    silent_run(racy.name, &plan, &folder.join("run"))?;
    let fixed = format!("{}-fixed", racy.name);
    silent_run(&fixed, &plan, &folder.join("twin"))?;
    let seen = explored(racy.name, racy, racy.explored, &folder);
    let out = folder.join("explored");
    let wrong = |why: &str| Err(format!("{}: {why}\n{}", racy.name, seen.text));
    let results = &seen.results;
    let defects = results["defects"].as_array().map_or(&[][..], Vec::as_slice);
    if seen.code != Some(1) {
        return wrong(&format!("exit {:?}", seen.code));
    }
    if defects.is_empty() || defects.iter().any(|d| d["finding"] != racy.finding) {
        return wrong(&format!("not {} alone", racy.finding));
    }
    // The first folder is the shortest schedule's.
    let first = out.join(format!("1-{}", racy.finding));
    let text = fs::read_to_string(first.join("scenario.toml")).unwrap();
    let deviations = text.matches("[[choice]]").count();
    let shortest = defects
        .iter()
        .map(|d| d["schedule"].as_array().unwrap())
        .min_by_key(|schedule| {
            let by = |key| schedule.iter().map(|d| d[key].as_u64()).collect::<Vec<_>>();
            (schedule.len(), by("number"), by("take"))
        })
        .unwrap();
    if deviations == 0 || deviations != shortest.len() {
        return wrong(&format!("{deviations} deviations in {text}"));
    }
    // It gives the same run again, byte for byte.
    let again = folder.join("again");
    let replay = planted(racy.name, &first.join("scenario.toml"), &[]);
    let output = run(&driver("defects"), &again, &strs(&replay));
    if told(&output).0 != Some(1) || journal(&again) != journal(&first) {
        return wrong(&format!("another run: {:?}", told(&output)));
    }
    // Nothing can be left out of it.
    for left_out in 0..deviations {
        let path = folder.join(format!("without-{left_out}.toml"));
        fs::write(&path, without(&text, left_out)).unwrap();
        silent_run(racy.name, &path, &folder.join("less"))
            .map_err(|why| format!("not minimal: {why}"))?;
    }
    let words: Vec<&str> = shortest
        .iter()
        .map(|deviation| deviation["what"].as_str().unwrap())
        .collect();
    Ok(format!(
        "| `{}` | {} | `{}` | `{}` | {} | {} |",
        racy.name,
        racy.mistake,
        racy.explored.join(" "),
        racy.finding,
        results["runs"],
        words.join("; then ")
    ))
}

#[test]
fn each_is_found_with_a_minimal_schedule_and_the_documented_table_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let rows = each(RACY, |racy| check(racy, folder.path()));
    let mut table = "| defect | mistake | explored with | finding | schedules | shortest schedule \
                     |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for row in all_well(rows) {
        writeln!(table, "{row}").unwrap();
    }
    let healthy = healthy(folder.path(), FRAME);
    writeln!(
        table,
        "| none | the healthy driver: a picture, a frame of it, and its end | `{}` | silent \
         | {healthy} | |",
        TWO.join(" ")
    )
    .unwrap();
    compare("ordering", &table);
}

/// How many schedules the healthy driver has, on all of which it is silent.
fn healthy(folder: &Path, workload: &str) -> Value {
    let plan = scenario(folder, "healthy", workload);
    let arguments = [&["--scenario", plan.to_str().unwrap()], TWO].concat();
    let seen = explore(&driver("plain"), &folder.join("healthy"), &arguments);
    assert_eq!(seen.code, Some(0), "{}", seen.text);
    assert_eq!(seen.results["whole"], true, "{}", seen.text);
    assert_eq!(seen.results["timeouts"], 0, "{}", seen.text);
    seen.results["runs"].clone()
}

#[test]
fn each_healthy_twin_is_silent_whichever_allocation_fails() {
    let folder = tempfile::tempdir().unwrap();
    let racy: Vec<&Racy> = RACY.iter().filter(|r| r.explored == FAILING).collect();
    assert_eq!(racy.len(), 2);
    all_well(each(&racy, |racy| twin(racy, FAILING, folder.path())));
}

#[test]
fn each_healthy_twin_is_silent_on_every_schedule() {
    let folder = tempfile::tempdir().unwrap();
    all_well(each(RACY, |racy| twin(racy, racy.explored, folder.path())));
}
