//! The faults of a scenario: their names checked before a run, and after it
//! what was to be verified.

use crate::args::ScenarioCommand;
use crate::error::CliError;
use crate::files;
use crate::run::{self, Input};
use crate::show::Shown;
use journal::event::{End, Event};
use journal::{Journal, Record};
use machine::Machine;
use machine::vm::RunLimit;
use report::PAGES;
use scenario::fault::matches;
use scenario::{Frame, Plan, PlanError, Returned};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use symbols::{SymbolTable, Symbolizer};
use windows::{injected, layout};

/// `dmasan scenario`; the exit code.
pub fn scenario(command: &ScenarioCommand) -> Result<u8, CliError> {
    let ScenarioCommand::Check { file, driver } = command;
    let failed = |error| CliError::Scenario {
        path: file.clone(),
        error,
    };
    let bytes = files::read(file, run::MAX_SCENARIO)?;
    let mut plan = Plan::parse(&String::from_utf8_lossy(&bytes)).map_err(failed)?;
    check(&plan).map_err(failed)?;
    if let Some(path) = driver {
        let bytes = files::read(path, windows::loader::MAX_FILE)?;
        resolve(&mut plan, &bytes, path).map_err(failed)?;
    }
    println!(
        "{}: {} steps, {} choices, {} faults",
        plan.name,
        plan.workload.len(),
        plan.choices.len(),
        plan.faults.len()
    );
    Ok(0)
}

/// Are there the routines and findings that a plan names?
pub fn check(plan: &Plan) -> Result<(), PlanError> {
    plan.check_faults(injected::check)?;
    let Some(verify) = &plan.verify else {
        return Ok(());
    };
    let known = |id: &str| PAGES.iter().any(|(page, _)| *page == id);
    let findings = verify.findings.iter().flatten();
    match findings.into_iter().find(|id| !known(id)) {
        Some(id) => Err(PlanError::Verify(format!(
            "there is no finding {id:?}: dmasan explain lists them"
        ))),
        None => Ok(()),
    }
}

/// Find the functions of the driver that faults name as callers.
pub fn resolve(plan: &mut Plan, driver: &[u8], path: &Path) -> Result<(), PlanError> {
    if plan.faults.iter().all(|fault| fault.caller.is_none()) {
        return Ok(());
    }
    let functions = machine::functions(driver).unwrap_or_default();
    let name = files::name(path);
    let mut symbolizer = Symbolizer::new();
    symbolizer.add_module(symbols::Module {
        name: name.clone(),
        base: layout::IMAGES.0,
        size: 1 << 30,
        symbols: SymbolTable::from_pdb_file(&path.with_extension("pdb")).ok(),
    });
    let module = name
        .rsplit_once('.')
        .map_or(name.as_str(), |(stem, _)| stem);
    plan.resolve_callers(|pattern| {
        let Some((of, function)) = pattern.split_once('!') else {
            return Vec::new();
        };
        if !matches(of, module) && !matches(of, &name) {
            return Vec::new();
        }
        let named = |range: &&Range<u64>| {
            let described = symbolizer.describe(range.start, false);
            // The last is the function itself, those before it are inlined.
            let own = described.frames.last();
            own.is_some_and(|frame| matches(function, &frame.function))
        };
        functions.iter().filter(named).cloned().collect()
    })
}

/// What of a run is not as its plan says; nothing if all is.
pub fn judge(
    machine: &Machine,
    shown: &Shown,
    records: &[Record],
    (input, limit): (&Input, &RunLimit<'_>),
) -> Result<Vec<String>, CliError> {
    let mut problems = Vec::new();
    for (number, (name, fired)) in (1..).zip(machine.faults()) {
        if fired == 0 {
            problems.push(format!(
                "fault {number} ({name}) never fired: a test that tested nothing"
            ));
        }
    }
    let plan = machine.plan();
    let Some(verify) = &plan.verify else {
        return Ok(problems);
    };
    if let Some(wanted) = &verify.findings {
        let found = shown.findings();
        for id in wanted.iter().filter(|id| !found.contains(&id.as_str())) {
            problems.push(format!("verify: there is no finding {id}"));
        }
        for id in found.iter().filter(|id| !wanted.iter().any(|w| w == *id)) {
            problems.push(format!("verify: there is a finding {id}"));
        }
    }
    problems.extend(statuses(&verify.status, records));
    if let Some(released) = verify.released
        && released != shown.released()
    {
        let what = if released {
            "not everything"
        } else {
            "everything"
        };
        problems.push(format!("verify: {what} was released in the end"));
    }
    if let Some(wanted) = verify.frame {
        let seen = frame(machine);
        let without = without_faults(input, limit)?;
        if (wanted == Frame::Unchanged) != (seen == without) {
            let words = |crc: Option<u32>| {
                crc.map_or_else(|| "none".to_owned(), |crc| format!("CRC {crc:08x}"))
            };
            problems.push(format!(
                "verify: the last frame is {}, without faults {}",
                words(seen),
                words(without)
            ));
        }
    }
    Ok(problems)
}

/// The last frame on scanout 0.
fn frame(machine: &Machine) -> Option<u32> {
    machine.frame(0).map(|frame| frame.crc())
}

/// The last frame of the same run without faults.
fn without_faults(input: &Input, limit: &RunLimit<'_>) -> Result<Option<u32>, CliError> {
    let mut options = input.options.clone();
    options.plan = options.plan.without_faults();
    let journal = Journal::disabled();
    let mut machine =
        Machine::new(&input.driver, &input.name, &options, journal).map_err(CliError::Machine)?;
    while machine.step(limit).map_err(CliError::Machine)?.is_none() {}
    Ok(frame(&machine))
}

/// Statuses that no routine returned.
fn statuses(wanted: &[Returned], records: &[Record]) -> Vec<String> {
    let mut names = BTreeMap::new();
    let mut left: Vec<&Returned> = wanted.iter().collect();
    for record in records {
        match &record.event {
            Event::Name { id, text } => {
                names.insert(*id, text.as_str());
            }
            Event::Return {
                function: id,
                value,
            }
            | Event::Leave { routine: id, value } => {
                let name = names.get(id).copied().unwrap_or_default();
                left.retain(|wanted| {
                    wanted.returns.0 != *value as u32 || !matches(&wanted.function, name)
                });
            }
            _ => {}
        }
    }
    let told = |wanted: &Returned| {
        format!(
            "verify: {} never returned {}",
            wanted.function, wanted.returns
        )
    };
    left.into_iter().map(told).collect()
}

/// The exit code of a run by a plan: that of its report, unless the plan says
/// what is to be found.
pub fn exit_code(machine: &Machine, end: &End, code: u8, problems: &[String]) -> u8 {
    let verify = machine.plan().verify.as_ref();
    let decides = verify.is_some_and(|verify| verify.findings.is_some());
    match end {
        End::Interrupted | End::Unsupported { .. } => code,
        _ if !problems.is_empty() => 1,
        _ if decides => 0,
        _ => code,
    }
}
