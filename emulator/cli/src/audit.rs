//! `dmasan audit`.

use crate::error::CliError;
use crate::files;
use ::qemu::audit::{self, Audit as Audited, Watched};
use ::qemu::control;
use clap::Args;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// `dmasan audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// The control socket: control.sock in the folder of a running machine
    #[arg(value_name = "SOCKET")]
    pub socket: PathBuf,

    /// Draw guest memory, a pixel a page, as a PNG file
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,

    /// Write what was found as JSON (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Reads of addresses that are not mapped, at most; the guest sees a fault
    /// for each
    #[arg(long, value_name = "COUNT", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub tries: u64,

    /// Make no such reads: Windows may stop at the first
    #[arg(long)]
    pub no_probe: bool,

    /// Watch for so many seconds how long memory stays in reach after the
    /// guest's driver gave it up
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

/// Look at a running machine; 1 if isolation does not hold.
pub fn audit(arguments: &Audit) -> Result<u8, CliError> {
    if let Some(seconds) = arguments.watch {
        let watched: Watched = ask(arguments, &["watch".to_owned(), seconds.to_string()])?;
        tell(arguments, &watched, &watched.to_string())?;
        return Ok(0);
    }
    let tries = if arguments.no_probe {
        0
    } else {
        arguments.tries
    };
    let audited: Audited = ask(arguments, &["audit".to_owned(), tries.to_string()])?;
    if let Some(path) = &arguments.png {
        let (frame, _) = audit::picture(&audited);
        let png = frame.png().map_err(|e| CliError::Report(e.to_string()))?;
        files::write(path, &png)?;
    }
    tell(arguments, &audited, &audit::render(&audited))?;
    Ok(u8::from(audited.is_breach()))
}

fn tell(arguments: &Audit, value: &impl serde::Serialize, text: &str) -> Result<(), CliError> {
    let json =
        || serde_json::to_string_pretty(value).map_err(|error| CliError::Report(error.to_string()));
    match &arguments.json {
        Some(path) if path.as_os_str() == "-" => {
            println!("{}", json()?);
            return Ok(());
        }
        Some(path) => files::write(path, json()?.as_bytes())?,
        None => {}
    }
    print!("{text}");
    Ok(())
}

fn ask<T: DeserializeOwned>(arguments: &Audit, words: &[String]) -> Result<T, CliError> {
    let answer = control::ask(&arguments.socket, words).map_err(|error| CliError::Control {
        path: arguments.socket.clone(),
        error,
    })?;
    serde_json::from_str(&answer).map_err(|_| CliError::Report(answer.trim().to_owned()))
}
