//! Every defect that can be planted in the guest driver, in every domain
//! mode: what is found, what Windows stops with, and that the same code
//! without the mistake is silent. What the runs give is the table of
//! `docs/defects.md`; `DMASAN_UPDATE=1` writes it anew.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use support::table::{bug_checks, compare, each};
use support::{dmasan, driver, finding_ids, json, run, told};

/// A defect, and what a run must say of it.
struct Planted {
    /// Value of `Defect`.
    name: &'static str,
    /// The mistake, for the table.
    mistake: &'static str,
    /// What it is called in a report.
    finding: &'static str,
    /// The planted function, or the one in which the mistake shows: on one
    /// of the finding's stacks.
    function: &'static str,
    /// What the driver is made to do; `COMMON` if empty.
    workload: &'static str,
    /// Further arguments of the run.
    arguments: &'static [&'static str],
    /// Modes in which nothing can be found, and why.
    silent: &'static [(&'static str, &'static str)],
}

const PLAIN: Planted = Planted {
    name: "",
    mistake: "",
    finding: "",
    function: "",
    workload: COMMON,
    arguments: &[],
    silent: &[],
};

/// Two lives of a picture of more pages than a command has room for, the
/// first freed with a frame outstanding.
const COMMON: &str = r#"
  { do = "create", width = 320, height = 200 },
  { do = "present" },
  { do = "free" },
  { do = "create", width = 320, height = 200 },
  { do = "present", resource = 1, frame = 1 },
  { do = "wait", resource = 1 },
  { do = "free", resource = 1 },
"#;

/// A picture that grows.
const RESIZE: &str = r#"
  { do = "create", width = 64, height = 64 },
  { do = "present" },
  { do = "wait" },
  { do = "resize", width = 320, height = 200 },
  { do = "present", frame = 1 },
  { do = "wait" },
  { do = "free" },
"#;

const NOT_ATTACHED: &str = "the device is never attached to a domain: no exclusive access";
const NO_RIGHTS: &str = "no IOMMU holds the device to the rights of a mapping";
const ALL_RIGHTS: &str = "all memory is mapped for writing too";

const PLANTED: &[Planted] = &[
    Planted {
        name: "free-before-detach",
        mistake: "pages go back first; only then the driver waits and detaches",
        finding: "dma-use-after-free",
        function: "planted::free_before_detach",
        ..PLAIN
    },
    Planted {
        name: "free-in-flight",
        mistake: "pages go back after a detach that was queued, not acknowledged",
        finding: "dma-use-after-free",
        function: "planted::free_in_flight",
        ..PLAIN
    },
    Planted {
        name: "double-free",
        mistake: "the table keeps a freed resource, and StopDevice frees it again",
        finding: "double-free",
        function: "planted::free_and_keep",
        ..PLAIN
    },
    Planted {
        name: "free-foreign-mdl",
        mistake: "MmFreePagesFromMdl and ExFreePool of dxgkrnl's MDL",
        finding: "foreign-mdl",
        function: "pages::free_foreign_mdl",
        ..PLAIN
    },
    Planted {
        name: "free-copied-pfns",
        mistake: "MmFreePagesFromMdl of a copy of the MDL",
        finding: "foreign-mdl",
        function: "pages::free_copied_pfns",
        ..PLAIN
    },
    Planted {
        name: "mdl-dies-mapped",
        mistake: "an MDL and its pages are freed before UnmapMdlFromIoMmu",
        finding: "mdl-use-after-free",
        function: "pages::mdl_dies_mapped",
        ..PLAIN
    },
    Planted {
        name: "no-exfreepool",
        mistake: "MmFreePagesFromMdl without ExFreePool of the MDL",
        finding: "mdl-not-released",
        function: "pages::allocate_own",
        ..PLAIN
    },
    Planted {
        name: "exfreepool-first",
        mistake: "ExFreePool of the MDL before MmFreePagesFromMdl",
        finding: "mdl-use-after-free",
        function: "pages::ex_free_pool_first",
        ..PLAIN
    },
    Planted {
        name: "partial-as-whole",
        mistake: "an allocation that came short is used to the length asked for",
        finding: "partial-allocation-ignored",
        function: "pages::allocate_in_window",
        ..PLAIN
    },
    Planted {
        name: "physical-address",
        mistake: "MmGetPhysicalAddress of pool as a backing",
        finding: "dma-raw-physical-address",
        function: "pages::list_physical_pages",
        ..PLAIN
    },
    Planted {
        name: "irql-allocate",
        mistake: "DxgkCbAllocatePagesForMdl under a spin lock",
        finding: "wrong-irql",
        function: "Pages::allocate",
        ..PLAIN
    },
    Planted {
        name: "irql-free",
        mistake: "DxgkCbFreePagesFromMdl under a spin lock",
        finding: "wrong-irql",
        function: "Pages::release",
        ..PLAIN
    },
    Planted {
        name: "irql-contiguous",
        mistake: "DxgkCbAllocateContiguousMemory under a spin lock",
        finding: "wrong-irql",
        function: "Contiguous::allocate",
        ..PLAIN
    },
    Planted {
        name: "irql-map",
        mistake: "DxgkCbMapMdlToIoMmu under a spin lock",
        finding: "wrong-irql",
        function: "pages::map_to_device",
        ..PLAIN
    },
    Planted {
        name: "irql-mm",
        mistake: "MmAllocatePagesForMdlEx in the interrupt routine",
        finding: "wrong-irql",
        function: "irql::note_in_pages",
        ..PLAIN
    },
    Planted {
        name: "irql-pool",
        mistake: "ExAllocatePoolWithTag in the interrupt routine",
        finding: "wrong-irql",
        function: "irql::note_in_pool",
        ..PLAIN
    },
    Planted {
        name: "irql-wait",
        mistake: "KeWaitForSingleObject under a spin lock",
        finding: "wrong-irql",
        function: "Queue::wait",
        ..PLAIN
    },
    Planted {
        name: "dma-in-exclusive-access",
        mistake: "BeginExclusiveAccess sends a command after it waited",
        finding: "exclusive-access-violation",
        function: "life::refresh_displays",
        silent: &[("passthrough", NOT_ATTACHED)],
        ..PLAIN
    },
    Planted {
        name: "leak-handle",
        mistake: "StopDevice keeps the command buffer",
        finding: "handle-leak",
        function: "Contiguous::allocate",
        ..PLAIN
    },
    Planted {
        name: "ring-freed-on-resize",
        mistake: "a resize makes new rings, and the device keeps the old ones",
        finding: "dma-use-after-free",
        function: "Adapter::renew_rings",
        workload: RESIZE,
        ..PLAIN
    },
    Planted {
        name: "read-only-mapping",
        mistake: "a buffer that the device writes is locked with IoReadAccess",
        finding: "dma-permission",
        function: "buffers::allocate_locked",
        silent: &[("passthrough", NO_RIGHTS), ("isolation-forced", ALL_RIGHTS)],
        ..PLAIN
    },
    Planted {
        name: "ring-in-interrupt-range",
        mistake: "the used ring lies where interrupt messages go",
        finding: "dma-interrupt-range",
        function: "Adapter::bring_up",
        ..PLAIN
    },
    Planted {
        name: "free-user-mapped",
        mistake: "pages are freed while a program has them mapped",
        finding: "mapped-after-free",
        function: "pages::free_user_mapped",
        ..PLAIN
    },
    Planted {
        name: "reuse-old-backing",
        mistake: "a cached resource gets new pages, and the device keeps the old ones",
        finding: "dma-reused-memory",
        function: "planted::renew",
        arguments: &["--quarantine", "0"],
        ..PLAIN
    },
    Planted {
        name: "cpu-freed-pool",
        mistake: "a pool block is wiped after ExFreePoolWithTag",
        finding: "cpu-use-after-free",
        function: "cpu::wipe_freed",
        ..PLAIN
    },
    Planted {
        name: "cpu-unmapped-address",
        mistake: "a picture is wiped after MmUnmapLockedPages",
        finding: "cpu-use-after-free",
        function: "pages::unmap_and_wipe",
        ..PLAIN
    },
];

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
    let wrong: Vec<&str> = rows
        .iter()
        .flat_map(|(wrong, _)| wrong)
        .map(String::as_str)
        .collect();
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
