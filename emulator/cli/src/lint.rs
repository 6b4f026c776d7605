//! `dmasan lint`.

use crate::args::Lint;
use crate::error::CliError;
use crate::files;
use machine::lint::{self, Inf, MAX_INF, Severity};
use machine::vm::RunLimit;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use windows::loader::MAX_FILE;

/// Seconds that a start and a stop may take.
const PATIENCE: u64 = 20;

/// Say what can be said of a driver; 1 if there is an error among it.
pub fn lint(arguments: &Lint) -> Result<u8, CliError> {
    let driver = files::read(&arguments.driver, MAX_FILE)?;
    let name = files::name(&arguments.driver);
    let inf = match &arguments.inf {
        Some(path) => Some(Inf::parse(&files::read(path, MAX_INF)?)),
        None => inf_beside(arguments)
            .and_then(|path| files::read(&path, MAX_INF).ok())
            .map(|bytes| Inf::parse(&bytes)),
    };
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_secs(PATIENCE)),
        stop: None,
    };
    let bad = |error| CliError::Driver {
        path: arguments.driver.clone(),
        error,
    };
    // A bad file is bad whether or not there is a KVM to start it in.
    let static_only = lint::lint(&driver, &name, None, inf.as_ref()).map_err(bad)?;
    let remarks = match lint::start(&driver, &name, &limit) {
        Ok(started) => lint::lint(&driver, &name, Some(&started), inf.as_ref()).map_err(bad)?,
        Err(error) => {
            log::warn!("the driver was not started: {error}");
            static_only
        }
    };
    for remark in &remarks {
        let severity = match remark.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        println!("{name}: {severity}: {} [{}]", remark.text, remark.id);
    }
    let worst = remarks.iter().map(|remark| remark.severity).max();
    Ok(u8::from(worst == Some(Severity::Error)))
}

/// The INF with the driver's name, in its folder.
fn inf_beside(arguments: &Lint) -> Option<PathBuf> {
    ["inf", "INF"]
        .iter()
        .map(|extension| arguments.driver.with_extension(extension))
        .find(|path| path.is_file())
}
