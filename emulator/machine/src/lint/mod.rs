//! `dmasan lint`: what can be said of a driver without its defects being
//! provoked: from its image, from the INF beside it, and from a start.

mod inf;
#[cfg(test)]
mod tests;

pub use inf::{Inf, MAX_INF};

use crate::error::MachineError;
use crate::options::Options;
use crate::run::Machine;
use crate::vm::{RunLimit, helpers, patch};
use journal::Journal;
use journal::event::End;
use scenario::Plan;
use std::collections::BTreeMap;
use windows::Windows;
use windows::dxgk::spec::HLK_FORBIDDEN;
use windows::loader::{Image, LoadedImage};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Will be in the way of somebody.
    Warning,
    /// A test of Microsoft's, or Windows itself, refuses it.
    Error,
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remark {
    /// How bad it is.
    pub severity: Severity,
    /// A stable identifier.
    pub id: &'static str,
    /// What, where, and what to do about it.
    pub text: String,
}

/// What a start of the driver told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Started {
    /// Version of the interface that it registered with; `None` if it did
    /// not register.
    pub version: Option<u32>,
    /// Did it register as display-only?
    pub display_only: bool,
    /// Does it report IoMmuSecureModeSupported?
    pub secure_mode: bool,
    /// How the start, and the stop right after it, ended.
    pub end: End,
}

/// Start the driver and stop it again.
///
/// # Errors
/// [`MachineError`]: no driver, or no KVM.
pub fn start(driver: &[u8], name: &str, limit: &RunLimit<'_>) -> Result<Started, MachineError> {
    let options = Options {
        plan: Plan {
            workload: Vec::new(),
            ..Plan::default()
        },
        ..Options::default()
    };
    let mut machine = Machine::new(driver, name, &options, Journal::disabled())?;
    let end = loop {
        if let Some(end) = machine.step(limit)? {
            break end;
        }
    };
    let adapter = &machine.windows().dxgk;
    Ok(Started {
        version: adapter.interface_version(),
        display_only: adapter.is_display_only(),
        secure_mode: adapter.reports_secure_mode(),
        end,
    })
}

/// All remarks about a driver, worst first. `started` is what a start told,
/// `inf` the INF that was found.
///
/// # Errors
/// [`MachineError::Load`]: it is no driver.
pub fn lint(
    driver: &[u8],
    name: &str,
    started: Option<&Started>,
    inf: Option<&Inf>,
) -> Result<Vec<Remark>, MachineError> {
    let image = Image::parse(driver)?.load(name, windows::layout::IMAGES)?;
    let mut remarks = Vec::new();
    imports(&image, started, &mut remarks);
    sections(&image, &mut remarks);
    code(&image, &mut remarks);
    if let Some(started) = started {
        caps(started, &mut remarks);
    }
    match inf {
        Some(inf) => inf.remarks(started.is_some_and(|s| s.secure_mode), &mut remarks),
        None => remarks.push(note(
            "inf-missing",
            "no INF lies beside the driver".to_owned(),
        )),
    }
    remarks.sort_by_key(|remark| std::cmp::Reverse(remark.severity));
    Ok(remarks)
}

fn note(id: &'static str, text: String) -> Remark {
    Remark {
        severity: Severity::Note,
        id,
        text,
    }
}

fn warning(id: &'static str, text: String) -> Remark {
    Remark {
        severity: Severity::Warning,
        id,
        text,
    }
}

fn imports(image: &LoadedImage, started: Option<&Started>, remarks: &mut Vec<Remark>) {
    let helpers = helpers::image().map_or_else(|_| Vec::new(), |image| image.symbols);
    for import in &image.imports {
        let symbol = import.symbol.to_string();
        if HLK_FORBIDDEN.contains(&symbol.as_str()) {
            // The gate is for drivers that opt in; of one that was not
            // started, nobody knows.
            let opted_out = started.is_some_and(|s| !s.secure_mode);
            let (severity, who) = if opted_out {
                (
                    Severity::Warning,
                    "would fail in the HLK if it reported IoMmuSecureModeSupported",
                )
            } else {
                (
                    Severity::Error,
                    "fails in the HLK when it reports IoMmuSecureModeSupported",
                )
            };
            remarks.push(Remark {
                severity,
                id: "import-forbidden",
                text: format!(
                    "{}!{symbol}: a driver with this import {who}; use dxgkrnl's callbacks",
                    import.dll
                ),
            });
        }
        let known = Windows::knows(&symbol) || helpers.iter().any(|(name, _)| *name == symbol);
        if !known {
            remarks.push(warning(
                "import-missing",
                format!(
                    "{}!{symbol}: dmasan does not implement it; a run ends where the driver \
                     uses it",
                    import.dll
                ),
            ));
        }
    }
}

fn sections(image: &LoadedImage, remarks: &mut Vec<Remark>) {
    for section in &image.sections {
        if section.protection.write && section.protection.execute {
            remarks.push(Remark {
                severity: Severity::Error,
                id: "section-writable-code",
                text: format!(
                    "section {}: writable and executable; with memory integrity (HVCI) Windows \
                     does not load it",
                    section.name
                ),
            });
        }
    }
    if image.functions.is_empty() {
        remarks.push(warning(
            "no-unwind-data",
            "no .pdata: stacks cannot be walked, by dmasan or by a debugger".to_owned(),
        ));
    }
}

fn code(image: &LoadedImage, remarks: &mut Vec<Remark>) {
    let functions: Vec<_> = image.functions.iter().map(|&(a, b)| a..b).collect();
    let entry = [(image.entry.0 - image.base.0) as u32];
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    let mut undecoded = 0u64;
    for (start, end) in image.code_ranges() {
        let range = start as usize..(end as usize).min(image.bytes.len());
        let Some(code) = image.bytes.get(range) else {
            continue;
        };
        let found = patch::scan(code, start, &functions, &entry);
        for site in found.sites {
            *kinds.entry(format!("{:?}", site.kind)).or_default() += 1;
        }
        undecoded += found
            .undecoded
            .iter()
            .map(|g| u64::from(g.length))
            .sum::<u64>();
    }
    if !kinds.is_empty() {
        let list: Vec<String> = kinds
            .iter()
            .map(|(kind, count)| format!("{count} {}", kind.to_lowercase()))
            .collect();
        remarks.push(note(
            "patched",
            format!(
                "{}: instructions that do not trap at CPL 3; a run overlays each with hlt and \
                 emulates it",
                list.join(", ")
            ),
        ));
    }
    if undecoded > 0 {
        remarks.push(warning(
            "undecoded",
            format!(
                "{undecoded} bytes in executable sections could not be told from data; an \
                 instruction there that reads flags or time goes unseen"
            ),
        ));
    }
}

fn caps(started: &Started, remarks: &mut Vec<Remark>) {
    match &started.end {
        End::Completed => {}
        end => remarks.push(warning(
            "start-failed",
            format!("a start and stop of the driver did not end well: {end:?}"),
        )),
    }
    let Some(version) = started.version else {
        remarks.push(warning(
            "not-a-miniport",
            "it does not register as a display miniport".to_owned(),
        ));
        return;
    };
    let kind = if started.display_only {
        "display-only"
    } else {
        "full"
    };
    remarks.push(note(
        "caps",
        format!(
            "registers as a {kind} miniport, interface version {version:#x}; \
             IoMmuSecureModeSupported: {}",
            if started.secure_mode { "yes" } else { "no" }
        ),
    ));
    if started.display_only {
        remarks.push(warning(
            "no-exclusive-access",
            "a display-only driver has no slots for Begin- and EndExclusiveAccess: it cannot \
             take part in isolation"
                .to_owned(),
        ));
    }
}
