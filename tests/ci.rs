//! What a CI job uses: JUnit, SARIF, suppressions, baselines, the trace.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::path::Path;
use support::{dmasan, driver, image, json, run, told};

const DEFECT: &[&str] = &["--set", "Defect=free-before-detach"];
/// 64 MiB of backing, for a machine of 24 MiB.
const REFUSED: &str =
    "workload = [{ do = \"create\", width = 4096, height = 4096 }, { do = \"free\" }]\n";
const PASSING: &[&str] = &["--domain", "passthrough"];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn parsed(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

/// A file of one suppression of the defect.
fn suppressions(folder: &Path, function: &str) -> String {
    let path = folder.join("suppressions.toml");
    let text = format!(
        "[[suppress]]\nfinding = \"dma-use-after-free\"\nfunction = \"{function}\"\n\
         reason = \"ticket 4711\"\n"
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn junit_and_sarif_of_a_run_and_of_its_journal_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let [junit, sarif, again] =
        ["a.xml", "a.sarif", "b.sarif"].map(|name| folder.path().join(name));
    let files = [
        "--junit",
        junit.to_str().unwrap(),
        "--sarif",
        sarif.to_str().unwrap(),
    ];
    let output = run(&driver("defects"), &out, &[DEFECT, &files].concat());
    assert_eq!(told(&output).0, Some(1), "{:?}", told(&output));

    let xml = read(&junit);
    assert!(
        xml.contains("failures=\"1\" errors=\"0\"") || xml.contains("failures=\"1\""),
        "{xml}"
    );
    assert!(xml.contains("type=\"dma-use-after-free\""), "{xml}");
    let value = parsed(&sarif);
    let result = &value["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "dma-use-after-free");
    let place = &result["locations"][0]["physicalLocation"];
    let uri = place["artifactLocation"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("guest-driver/src/"), "{uri}");
    assert!(place["region"]["startLine"].as_u64().unwrap() > 0);
    assert_eq!(result["relatedLocations"].as_array().unwrap().len(), 2);

    let output = dmasan()
        .arg("report")
        .arg(out.join("journal"))
        .args(["--junit", "-", "--sarif"])
        .arg(&again)
        .output()
        .unwrap();
    let (code, stdout, _) = told(&output);
    assert_eq!(code, Some(1));
    // The line that repeats a run names the driver where it is now.
    let cut = |text: &str| -> String {
        let lines = text.lines().filter(|line| !line.contains("dmasan run"));
        let lines = lines.filter(|line| !line.trim_start().starts_with("--"));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(cut(&stdout), cut(&xml));
    assert_eq!(
        parsed(&again)["runs"][0]["results"],
        value["runs"][0]["results"]
    );
}

#[test]
fn healthy_driver_is_green_in_junit() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        &driver("plain"),
        &folder.path().join("out"),
        &["--junit", "-"],
    );
    let (code, stdout, stderr) = told(&output);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    assert!(stdout.starts_with("<?xml"), "{stdout}");
    assert!(
        stdout.contains("failures=\"0\" errors=\"0\"")
            || stdout.contains("errors=\"0\" failures=\"0\""),
        "{stdout}"
    );
}

#[test]
fn start_failures_and_hangs_fail_in_junit_and_in_the_report() {
    for (bytes, says) in [
        (image::returns(0xc000_009a), "type=\"start-failed\""),
        (image::spins(), "type=\"hang\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("driver.sys");
        std::fs::write(&path, bytes).unwrap();
        let out = folder.path().join("out");
        let output = run(&path, &out, &["--junit", "-", "--timeout", "2"]);
        let (code, stdout, stderr) = told(&output);
        assert_eq!(code, Some(1), "{stdout}\n{stderr}");
        assert!(stdout.contains(says), "{stdout}");

        let mut report = dmasan();
        let output = report
            .arg("report")
            .arg(out.join("journal"))
            .output()
            .unwrap();
        assert_eq!(told(&output).0, Some(1), "{:?}", told(&output));
    }
}

#[test]
fn refused_step_of_the_workload_fails_in_junit() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("scenario.toml");
    std::fs::write(&scenario, REFUSED).unwrap();
    let out = folder.path().join("out");
    let arguments = [
        "--scenario",
        scenario.to_str().unwrap(),
        "--junit",
        "-",
        "--memory",
        "24",
    ];
    let (code, stdout, stderr) = told(&run(&driver("plain"), &out, &arguments));
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    assert!(stdout.contains("type=\"workload-refused\""), "{stdout}");
    assert_eq!(json(&out)["passes"], false);
}

#[test]
fn suppressed_finding_passes_where_nothing_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = suppressions(
        folder.path(),
        "dmasan_gpu::resource::planted::free_before_detach",
    );
    let arguments = [DEFECT, PASSING, &["--suppressions", &file]].concat();
    let output = run(&driver("defects"), &out, &arguments);
    let (code, stdout, stderr) = told(&output);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    assert!(
        stdout.contains("suppressed: 1: dma-use-after-free"),
        "{stdout}"
    );
    assert!(stdout.contains("ticket 4711"), "{stdout}");
    assert!(!stdout.contains("unused"), "{stdout}");
    assert_eq!(json(&out)["findings"][0]["standing"], "suppressed");
    assert_eq!(json(&out)["passes"], true);
}

#[test]
fn suppression_covers_no_bug_check_unless_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = suppressions(folder.path(), "*::free_before_detach");
    for (more, expected) in [(&[][..], 1), (&["--keep-going"][..], 0)] {
        let arguments = [DEFECT, &["--suppressions", &file], more].concat();
        let output = run(&driver("defects"), &out, &arguments);
        let (code, stdout, stderr) = told(&output);
        assert_eq!(code, Some(expected), "{more:?}: {stdout}\n{stderr}");
        assert_eq!(
            stdout.contains("it ended the run"),
            expected == 1,
            "{stdout}"
        );
    }
}

#[test]
fn unused_suppressions_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = suppressions(folder.path(), "*::no_such_function");
    let output = run(&driver("plain"), &out, &["--suppressions", &file]);
    let (code, stdout, _) = told(&output);
    assert_eq!(code, Some(0), "{stdout}");
    let says = "unused suppression: dma-use-after-free in *::no_such_function (line 1)";
    assert!(stdout.contains(says), "{stdout}");
    assert_eq!(json(&out)["unused_suppressions"][0]["line"], 1);

    let mut report = dmasan();
    report
        .arg("report")
        .arg(out.join("journal"))
        .args(["--suppressions", &file]);
    let (code, stdout, _) = told(&report.output().unwrap());
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains(says), "{stdout}");
}

#[test]
fn bad_suppressions_and_baselines_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad");
    let name = file.to_str().unwrap();
    for (option, text, says) in [
        (
            "--suppressions",
            "[[suppress]]\nfinding = 3\n",
            "line 2, column 11",
        ),
        (
            "--suppressions",
            "[[suppress]]\nfinding = \"x\"\nfunction = \"f\"\nreason = \"r\"",
            "line 2, column 11",
        ),
        (
            "--suppressions",
            "[[suppress]]\nfinding = \"stale-iotlb\"\nfunction = \"f\"\n",
            "reason",
        ),
        ("--baseline", "{\"format\": 3}", "no report of dmasan"),
        ("--baseline", "{\n!", "line 2 column 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let out = folder.path().join("out");
        let output = run(&driver("plain"), &out, &[option, name]);
        let (code, _, stderr) = told(&output);
        assert_eq!(code, Some(2), "{text}: {stderr}");
        assert!(stderr.contains(says), "{says}: {stderr}");
        assert!(!out.exists(), "something ran");
    }
    let output = run(
        &driver("plain"),
        folder.path(),
        &["--json", "-", "--junit", "-"],
    );
    assert_eq!(told(&output).0, Some(2));
}

#[test]
fn only_what_the_baseline_lacks_fails() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    assert_eq!(told(&run(&driver("defects"), &old, DEFECT)).0, Some(1));
    let known = old.join("report.json");
    let baseline = ["--baseline", known.to_str().unwrap()];

    // The same cause with other frames and in another memory.
    let arguments = [DEFECT, &baseline, &["--seed", "77", "--quarantine", "9"]].concat();
    let (code, stdout, stderr) = told(&run(&driver("defects"), &new, &arguments));
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    assert!(stdout.contains("known: dma-use-after-free"), "{stdout}");
    assert_eq!(json(&new)["findings"][0]["standing"], "known");

    let (code, stdout, _) = told(&run(&driver("plain"), &new, &baseline));
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("fixed: dma-use-after-free"), "{stdout}");

    // A healthy run knows of nothing.
    let known = new.join("report.json").to_str().unwrap().to_owned();
    let copy = folder.path().join("healthy.json");
    std::fs::copy(known, &copy).unwrap();
    let arguments = [DEFECT, &["--baseline", copy.to_str().unwrap()]].concat();
    assert_eq!(told(&run(&driver("defects"), &new, &arguments)).0, Some(1));
}

#[test]
fn trace_tells_calls_commands_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = run(&driver("defects"), &out, &[DEFECT, &["-v"]].concat());
    let (code, traced, stderr) = told(&output);
    assert_eq!(code, Some(1), "{stderr}");
    for says in [
        "-> DriverEntry(",
        "DxgkCbAllocatePagesForMdl(",
        "<- ",
        "+ allocation 1",
        "freed  at guest-driver/src/",
        "doorbell: queue 0",
        ": TRANSFER_TO_HOST_2D",
        "= OK_NODATA",
        "FAULT 00:02.0",
        "BUG CHECK 0xe6",
        "end: bug check",
    ] {
        assert!(traced.contains(says), "{says:?} is not in\n{traced}");
    }
    let end = traced
        .lines()
        .position(|line| line.contains("end: bug check"))
        .unwrap();
    for line in traced.lines().take(end) {
        assert!(line.chars().count() <= 160, "{line}");
    }

    let mut report = dmasan();
    report.arg("report").arg(out.join("journal")).arg("--trace");
    let (_, again, _) = told(&report.output().unwrap());
    let trace = |text: &str| {
        text.lines()
            .take(end)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(trace(&again), trace(&traced));
}

#[test]
fn trace_leaves_standard_output_to_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(
        &driver("plain"),
        &folder.path().join("out"),
        &["-v", "--sarif", "-"],
    );
    let (code, stdout, stderr) = told(&output);
    assert_eq!(code, Some(0), "{stderr}");
    let value: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(value["runs"][0]["results"], serde_json::json!([]));
    assert!(stderr.contains("end: completed"), "{stderr}");
}
