//! Reading input with its bounds, writing results.

use crate::error::CliError;
use scenario::MAX_SCANOUTS;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Name of the scenario that a run keeps beside its journal.
pub const SCENARIO: &str = "scenario.toml";

/// Names of what a run writes, its pictures aside.
const RESULTS: [&str; 6] = [
    "journal",
    "journal.pdb",
    "report.txt",
    "report.json",
    "report.svg",
    SCENARIO,
];

/// Name of the picture of what a scanout showed last.
pub fn picture(scanout: u32) -> String {
    format!("scanout-{scanout}.png")
}

/// Does a run write a file of this name? A driver called so would lie over
/// it.
pub fn is_result(name: &str) -> bool {
    RESULTS.contains(&name) || (0..MAX_SCANOUTS).any(|scanout| name == picture(scanout))
}

/// Read a whole file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::Read {
        path: path.to_owned(),
        error,
    };
    let meta = fs::metadata(path).map_err(failed)?;
    if meta.is_dir() {
        return Err(CliError::Directory(path.to_owned()));
    }
    if meta.len() > limit {
        return Err(CliError::TooLong {
            path: path.to_owned(),
            size: meta.len(),
            limit,
        });
    }
    fs::read(path).map_err(failed)
}

/// The file name of a path, for people.
pub fn name(path: &Path) -> String {
    path.file_name().map_or_else(
        || "driver.sys".to_owned(),
        |n| n.to_string_lossy().into_owned(),
    )
}

/// Write a whole file; `-` is standard output.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    let result = if path == Path::new("-") {
        std::io::stdout().write_all(bytes)
    } else {
        fs::write(path, bytes)
    };
    result.map_err(|error| CliError::Write {
        path: path.to_owned(),
        error,
    })
}

/// Remove a file of an earlier run that would be taken for this one's.
pub fn forget(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(CliError::Write {
            path: path.to_owned(),
            error,
        }),
        _ => Ok(()),
    }
}

/// Make a folder and those above it.
pub fn folder(path: &Path) -> Result<(), CliError> {
    fs::create_dir_all(path).map_err(|error| CliError::Write {
        path: path.to_owned(),
        error,
    })
}
