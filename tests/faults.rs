//! Fault plans: each place and outcome in a run that shows it acting, and the
//! same run without the fault, which is silent. What the runs give is the
//! table of `docs/faults.md`; `DMASAN_UPDATE=1` writes it anew.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use support::table::{bug_checks, compare, each};
use support::{dmasan, driver, finding_ids, json, run, told};

/// A fault, and what a run with it must say.
struct Case {
    at: &'static str,
    does: &'static str,
    /// Its filters and triggers, and further faults. `{page}` is a page of
    /// the first picture, `{response}` the ends of the page of the device's
    /// answers.
    fault: &'static str,
    /// What the run is, for the table.
    run: &'static str,
    driver: &'static str,
    arguments: &'static [&'static str],
    workload: &'static str,
    /// What `[verify]` says; it must hold.
    verify: &'static str,
    findings: &'static [&'static str],
    /// Who is blamed first for each finding.
    blamed: &'static str,
    /// What the trace or report must say.
    says: &'static [&'static str],
}

const PLAIN: Case = Case {
    at: "",
    does: "",
    fault: "",
    run: "",
    driver: "plain",
    arguments: &[],
    workload: ONCE,
    verify: "findings = []\nreleased = true",
    findings: &[],
    blamed: "injected",
    says: &[],
};

/// One life of a picture of four pages.
const ONCE: &str = r#"workload = [
  { do = "create", width = 64, height = 64 },
  { do = "present" },
  { do = "wait" },
  { do = "free" },
]
"#;

/// Two lives, one after the other, in different pages.
const TWICE: &str = r#"workload = [
  { do = "create", width = 64, height = 64 },
  { do = "present" },
  { do = "wait" },
  { do = "free" },
  { do = "create", width = 64, height = 64 },
  { do = "present", resource = 1, frame = 1 },
  { do = "wait", resource = 1 },
  { do = "free", resource = 1 },
]
"#;

/// A picture of one page, freed with its frame outstanding.
const PAGE: &str = r#"workload = [
  { do = "create", width = 32, height = 32 },
  { do = "present" },
  { do = "free" },
]
"#;

const SAME: &str = "findings = []\nreleased = true\nframe = \"unchanged\"";
const IN_TRANSFER: &str = "command = \"TRANSFER*\"\ndirection = \"read\"\nnth = 1";

/// A command that reads a page which was freed.
macro_rules! astray {
    () => {
        "\n[[fault]]\nname = \"astray\"\nat = \"access\"\ndo = \"redirect\"\nto = {page}\n\
         command = \"TRANSFER*\"\nafter = \"DxgkCbFreePagesFromMdl\"\nnth = 1\n"
    };
}

/// A command that reads where nothing is mapped.
macro_rules! into_nothing {
    () => {
        "\n[[fault]]\nname = \"astray\"\nat = \"access\"\ndo = \"redirect\"\nto = 65536\n\
         command = \"TRANSFER*\"\nnth = 1\n"
    };
}

/// A read that is under way as its page is freed.
macro_rules! under_way {
    () => {
        "\n[[fault]]\nat = \"access\"\ndo = \"delay\"\nns = 1000000000\ncommand = \"TRANSFER*\"\n\
         direction = \"read\"\n"
    };
}

const CASES: &[Case] = &[
    Case {
        at: "call",
        does: "fail",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"\nnth = 1",
        run: "the pages of a picture",
        verify: "findings = []\nreleased = true\nstatus = [\
                 { function = \"DxgkCbAllocatePagesForMdl\", returns = \"STATUS_NO_MEMORY\" }]",
        says: &["REFUSED step 1 (create): 0xc0000017"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "fail",
        fault: "function = \"DxgkCb*\"\ncaller = \"dmasan-gpu!*resource::build*\"\nnth = 1\n\
                status = 0xC0000185",
        run: "the first callback below a function of the driver, with a status",
        says: &["REFUSED step 1 (create): 0xc0000185"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "partial",
        fault: "function = \"MmAllocatePagesForMdl*\"\npages = 1",
        run: "a driver that takes what it gets",
        driver: "defects",
        arguments: &["--set", "Defect=partial-as-whole-fixed"],
        verify: "",
        findings: &["partial-allocation-ignored"],
        blamed: "driver",
        ..PLAIN
    },
    Case {
        at: "call",
        does: "low-memory",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"",
        run: "from the first picture on",
        says: &["REFUSED step 1 (create): 0xc0000017"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "scattered",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"",
        run: "the pages of a picture",
        verify: SAME,
        says: &["4 entries"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "above-4g",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"\n\
                [[fault]]\nname = \"reached\"\nat = \"access\"\ndo = \"repeat\"\n\
                iova = [0x100000000, 0xffffffffff]",
        run: "the pages of a picture, in a machine of 6 GiB",
        arguments: &["--memory", "6144"],
        verify: SAME,
        says: &["repeat at access read 0x1000"],
        ..PLAIN
    },
    Case {
        at: "map",
        does: "fail",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"",
        run: "the pages of a picture",
        says: &["REFUSED step 1 (create): 0xc0000017"],
        ..PLAIN
    },
    Case {
        at: "unmap",
        does: "fail",
        fault: "function = \"DxgkCbFreePagesFromMdl\"",
        run: "the pages of a picture",
        verify: "",
        findings: &["mapped-after-free"],
        ..PLAIN
    },
    Case {
        at: "attach",
        does: "fail",
        run: "the adapter's start",
        says: &["isolation could not be enabled"],
        ..PLAIN
    },
    Case {
        at: "entry",
        does: "not-present",
        fault: IN_TRANSFER,
        run: "a transfer's first page",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "entry",
        does: "read-only",
        fault: "iova = [{response}]",
        run: "the page that the device answers into",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "entry",
        does: "reserved-bits",
        fault: IN_TRANSFER,
        run: "a transfer's first page",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "fill",
        does: "none-cached",
        fault: "iova = [{response}]\nevery = 1",
        run: "the page that the device answers into",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "fill",
        does: "one-entry",
        run: "every fill",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "drop",
        fault: concat!(
            "descriptor = \"iotlb\"\nafter = \"DxgkCbFreePagesFromMdl\"\n\
             iova = [{page}, {page}]\nnth = 1",
            astray!()
        ),
        run: "the invalidation of a freed page, which a command then reads",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free", "missing-invalidation", "stale-iotlb"],
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "delay",
        fault: concat!(
            "descriptor = \"iotlb\"\nafter = \"DxgkCbFreePagesFromMdl\"\n\
             iova = [{page}, {page}]\nnth = 1\nns = 1000000",
            astray!()
        ),
        run: "the same invalidation, a millisecond",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free", "missing-invalidation", "stale-iotlb"],
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "wrong-granularity",
        fault: concat!("after = \"DxgkCbFreePagesFromMdl\"\nnth = 1", astray!()),
        run: "one page of two, the other of which a command then reads",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free", "missing-invalidation", "stale-iotlb"],
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "complete-early",
        fault: concat!("after = \"DxgkCbFreePagesFromMdl\"", under_way!()),
        run: "the invalidation of a page that a read is under way to",
        driver: "defects",
        arguments: &["--set", "Defect=free-before-detach"],
        workload: PAGE,
        verify: "",
        findings: &["free-in-flight"],
        ..PLAIN
    },
    Case {
        at: "fault-record",
        does: "overflow",
        fault: into_nothing!(),
        run: "a read of what is not mapped",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["REFUSED step 3 (wait)"],
        ..PLAIN
    },
    Case {
        at: "fault-record",
        does: "interrupt-lost",
        fault: into_nothing!(),
        run: "a read of what is not mapped",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["REFUSED step 3 (wait)"],
        ..PLAIN
    },
    Case {
        at: "access",
        does: "drop",
        fault: IN_TRANSFER,
        run: "a transfer's first read",
        verify: "findings = []\nreleased = true\nframe = \"changed\"",
        ..PLAIN
    },
    Case {
        at: "access",
        does: "delay",
        fault: IN_TRANSFER,
        run: "a transfer's first read, a millisecond",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "access",
        does: "repeat",
        fault: "command = \"TRANSFER*\"",
        run: "a transfer's accesses",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "access",
        does: "torn",
        fault: "command = \"TRANSFER*\"",
        run: "a transfer's accesses",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "access",
        does: "redirect",
        fault: "to = {page}\ncommand = \"TRANSFER*\"\nafter = \"DxgkCbFreePagesFromMdl\"\nnth = 1",
        run: "a transfer's read, to a page that was freed",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "interrupt",
        does: "spurious",
        fault: "nth = 2",
        run: "the second interrupt",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "interrupt",
        does: "lost",
        fault: "nth = 2",
        run: "the second interrupt",
        ..PLAIN
    },
    Case {
        at: "interrupt",
        does: "late",
        fault: "nth = 2\nns = 5000000",
        run: "the second interrupt, five milliseconds",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "queue",
        does: "device-reset",
        fault: "queue = 0\nafter = \"DxgkCbAllocatePagesForMdl\"\nnth = 1",
        run: "the first command of a picture",
        says: &["REFUSED step 1 (create): 0xc00000b5"],
        ..PLAIN
    },
    Case {
        at: "queue",
        does: "unplug",
        fault: "queue = 0\nafter = \"DxgkCbAllocatePagesForMdl\"\nnth = 1",
        run: "the first command of a picture; the driver waits for ever for the reset",
        arguments: &["--timeout", "3"],
        verify: "",
        findings: &["hang"],
        blamed: "driver",
        says: &["REFUSED step 1 (create): 0xc00000b5"],
        ..PLAIN
    },
];

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
            "give a status",
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
