//! `scripts/bench` without the building: puts the rows of the benchmarks into
//! one file, compares two such files, and makes the documentation's table.
#![forbid(unsafe_code)]

use bench::{Host, Results, Row};
use serde::de::DeserializeOwned;
use std::fs;
use std::process::ExitCode;

const USAGE: &str = "usage: dmasan-bench merge REVISION OUT ROWS...
       dmasan-bench compare BEFORE AFTER
       dmasan-bench markdown FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = match words.as_slice() {
        ["merge", revision, out, files @ ..] if !files.is_empty() => merge(revision, out, files),
        ["compare", before, after] => compare(before, after),
        ["markdown", file] => read::<Results>(file).map(|results| results.markdown()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dmasan-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn read<T: DeserializeOwned>(path: &str) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("{path} is no output of a benchmark: {e}"))
}

fn merge(revision: &str, out: &str, files: &[&str]) -> Result<String, String> {
    let mut results = Results {
        revision: revision.to_owned(),
        host: Host::here(),
        rows: Vec::new(),
    };
    for file in files {
        results.rows.append(&mut read::<Vec<Row>>(file)?);
    }
    let mut text = serde_json::to_string_pretty(&results).map_err(|e| e.to_string())?;
    text.push('\n');
    fs::write(out, text).map_err(|e| format!("cannot write {out}: {e}"))?;
    Ok(results.to_string())
}

fn compare(before: &str, after: &str) -> Result<String, String> {
    Ok(bench::compare(
        &read::<Results>(before)?,
        &read::<Results>(after)?,
    ))
}
