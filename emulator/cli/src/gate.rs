//! What a CI job asks of a report: other formats, suppressions, a baseline,
//! a trace.

use crate::args::Gate;
use crate::error::CliError;
use crate::files;
use crate::show::Shown;
use journal::Record;
use report::{Baseline, Suppression};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

/// Longest suppressions file, bytes.
const MAX_SUPPRESSIONS: u64 = 1 << 20;
/// Longest baseline, bytes.
const MAX_BASELINE: u64 = 64 << 20;

/// A gate with its files read.
pub struct Ready<'a> {
    gate: &'a Gate,
    json: Option<&'a Path>,
    suppressions: Vec<Suppression>,
    baseline: Option<Baseline>,
}

impl<'a> Ready<'a> {
    /// Read the files that the gate names: a mistake in them is told before
    /// anything runs.
    pub fn new(gate: &'a Gate, json: Option<&'a Path>) -> Result<Self, CliError> {
        let outputs = [json, gate.junit.as_deref(), gate.sarif.as_deref()];
        if outputs.iter().filter(|path| is_stdout(**path)).count() > 1 {
            return Err(CliError::OneOutput);
        }
        let suppressions = match &gate.suppressions {
            None => Vec::new(),
            Some(path) => {
                let bytes = files::read(path, MAX_SUPPRESSIONS)?;
                let text = String::from_utf8_lossy(&bytes);
                report::parse_suppressions(&text).map_err(|error| CliError::Suppressions {
                    path: path.clone(),
                    error,
                })?
            }
        };
        let baseline = match &gate.baseline {
            None => None,
            Some(path) => {
                let bytes = files::read(path, MAX_BASELINE)?;
                let baseline = Baseline::parse(&bytes).map_err(|error| CliError::Baseline {
                    path: path.clone(),
                    error,
                })?;
                Some(baseline)
            }
        };
        Ok(Self {
            gate,
            json,
            suppressions,
            baseline,
        })
    }

    /// Let suppressions and baseline say what they have to say.
    pub fn judge(&self, shown: &mut Shown) {
        if self.baseline.is_some() || !self.suppressions.is_empty() {
            shown.triage(self.suppressions.clone(), self.baseline.as_ref());
        }
    }

    /// Write every document that was asked for; the trace and the text go to
    /// standard output if none of them does.
    pub fn tell(&self, shown: &Shown, records: &[Record]) -> Result<(), CliError> {
        let taken = [
            self.json,
            self.gate.junit.as_deref(),
            self.gate.sarif.as_deref(),
        ]
        .into_iter()
        .any(is_stdout);
        if self.gate.verbose {
            let traced = if taken {
                trace(shown, records, &mut BufWriter::new(io::stderr().lock()))
            } else {
                trace(shown, records, &mut BufWriter::new(io::stdout().lock()))
            };
            match traced {
                // Whoever read it has read enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => {
                    return Err(CliError::Write {
                        path: "the trace".into(),
                        error,
                    });
                }
                Ok(()) => {}
            }
        }
        if let Some(path) = self.json {
            files::write(path, shown.json().as_bytes())?;
        }
        if let Some(path) = &self.gate.junit {
            files::write(path, shown.junit().as_bytes())?;
        }
        if let Some(path) = &self.gate.sarif {
            files::write(path, shown.sarif().as_bytes())?;
        }
        if !taken {
            shown.print();
        }
        Ok(())
    }
}

fn is_stdout(path: Option<&Path>) -> bool {
    path == Some(Path::new("-"))
}

fn trace(shown: &Shown, records: &[Record], out: &mut impl Write) -> io::Result<()> {
    for line in shown.trace(records) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    out.flush()
}
