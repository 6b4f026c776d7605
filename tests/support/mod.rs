//! What the end-to-end tests share: the binary, the drivers, small images.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

pub mod assembler;
#[macro_use]
pub mod guest;
pub mod image;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The guest driver: `plain`, `defects` or `mutations`.
///
/// # Panics
/// If it has not been built.
pub fn driver(variant: &str) -> PathBuf {
    let path = top().join(format!("out/driver/{variant}/dmasan-gpu.sys"));
    assert!(
        path.exists(),
        "{} is missing: run scripts/build-driver first",
        path.display()
    );
    path
}

/// The binary under test, quiet and without colour.
pub fn dmasan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dmasan"));
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// One run of a driver with further arguments; results go to `out`.
pub fn run(driver: &Path, out: &Path, arguments: &[&str]) -> Output {
    dmasan()
        .arg("run")
        .arg(driver)
        .arg("--out")
        .arg(out)
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs that are enough for the defect that only a malformed Escape shows, with
/// this seed.
const FUZZ_RUNS: u32 = 400;
const FUZZ: [&str; 4] = ["--seed", "1", "--jobs", "1"];

/// Fuzzes the defects build with `defect` chosen: exit code and output.
pub fn fuzz(defect: &str, out: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    fuzz_for(FUZZ_RUNS, defect, out, arguments)
}

/// The same with so many runs.
pub fn fuzz_for(runs: u32, defect: &str, out: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let setting = format!("Defect={defect}");
    let output = dmasan()
        .arg("fuzz")
        .arg(driver("defects"))
        .args(["--set", &setting])
        .args(FUZZ)
        .args(["--runs", &runs.to_string()])
        .arg("--out")
        .arg(out)
        .args(arguments)
        .output()
        .unwrap();
    let (code, stdout, stderr) = told(&output);
    (code, stdout + &stderr)
}

/// What a folder holds, by name.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// Exit code, standard output and standard error, for assertions.
pub fn told(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// The report that a run left as JSON.
pub fn json(out: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(out.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Identifiers of the findings in a JSON report.
pub fn finding_ids(report: &serde_json::Value) -> Vec<String> {
    report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["id"].as_str().unwrap().to_owned())
        .collect()
}
