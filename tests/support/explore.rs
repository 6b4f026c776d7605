//! Explorations, for the tests of them.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use crate::support::{dmasan, told};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

/// What an exploration, or a merge of several, gave.
pub struct Explored {
    pub code: Option<i32>,
    /// The results as JSON.
    pub results: Value,
    /// All that was printed.
    pub text: String,
}

impl Explored {
    pub fn of(output: &Output) -> Self {
        let (code, stdout, stderr) = told(output);
        Self {
            code,
            results: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            text: format!("{stdout}{stderr}"),
        }
    }
}

/// Explores `driver`; results go to `out`.
pub fn explore(driver: &Path, out: &Path, arguments: &[&str]) -> Explored {
    let output = dmasan()
        .arg("explore")
        .arg(driver)
        .arg("--out")
        .arg(out)
        .args(["--json", "-"])
        .args(arguments)
        .output()
        .unwrap();
    Explored::of(&output)
}

/// Writes a scenario file of this workload.
pub fn scenario(folder: &Path, name: &str, workload: &str) -> PathBuf {
    let path = folder.join(format!("{name}.toml"));
    let text = format!("name = \"{name}\"\nworkload = [{workload}]\n");
    std::fs::write(&path, text).unwrap();
    path
}

/// `arguments`, and those that choose a defect and a scenario.
pub fn planted(defect: &str, scenario: &Path, arguments: &[&str]) -> Vec<String> {
    let mut all = vec![
        "--set".to_owned(),
        format!("Defect={defect}"),
        "--scenario".to_owned(),
        scenario.to_str().unwrap().to_owned(),
    ];
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    all
}

/// As arguments are taken.
pub fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}
