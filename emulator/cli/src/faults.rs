//! The faults of a scenario: their names checked before a run, and after it
//! what was to be verified.

use crate::args::ScenarioCommand;
use crate::error::CliError;
use crate::files;
use crate::run::{self, Input};
use crate::search;
use crate::show::Shown;
use journal::event::Event;
use journal::{Journal, Record};
use machine::Machine;
use machine::vm::RunLimit;
use report::{Check, PAGES};
use scenario::fault::matches;
use scenario::{Frame, Plan, PlanError, Returned};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use windows::injected;

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
    plan.check_faults(|fault| {
        injected::check(fault)?;
        match &fault.command {
            Some(pattern) if !machine::commands().any(|name| matches(pattern, name)) => Err(
                format!("command = {pattern:?} names no command of virtio-gpu"),
            ),
            _ => Ok(()),
        }
    })?;
    let Some(verify) = &plan.verify else {
        return Ok(());
    };
    for wanted in &verify.status {
        if !injected::is_routine(&wanted.function) {
            return Err(PlanError::Verify(format!(
                "status: there is no routine {:?}",
                wanted.function
            )));
        }
    }
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
    let symbolizer = search::symbolizer(path);
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

/// Ask a run what its plan asks: that each fault was injected, and what is to
/// be verified.
pub fn ask(
    shown: &mut Shown,
    machine: &Machine,
    records: &[Record],
    (input, limit): (&Input, &RunLimit<'_>),
) -> Result<(), CliError> {
    let plan = machine.plan();
    let verify = plan.verify.as_ref();
    let frames = match verify.and_then(|verify| verify.frame) {
        Some(_) => Some((frame(machine), without_faults(input, limit)?)),
        None => None,
    };
    ask_of(shown, plan, records, frames);
    Ok(())
}

/// The same of a journal; `frames` is the last frame of this run and of one
/// without faults, if that is known.
pub fn ask_of(
    shown: &mut Shown,
    plan: &Plan,
    records: &[Record],
    frames: Option<(Option<u32>, Option<u32>)>,
) {
    let mut checks = fired(plan, records);
    checks.extend(met(plan, records));
    let Some(verify) = &plan.verify else {
        shown.ask(checks, None);
        return;
    };
    checks.extend(statuses(&verify.status, records));
    if let Some(released) = verify.released {
        let (name, what) = match released {
            true => ("verify: all is released", "not everything"),
            false => ("verify: not all is released", "everything"),
        };
        let failure = format!("{what} was released in the end");
        let failure = (released != shown.released()).then_some(failure);
        checks.push(Check::new(name, failure));
    }
    match (verify.frame, frames) {
        (Some(wanted), Some((seen, without))) => {
            let name = match wanted {
                Frame::Unchanged => "verify: the last frame is as without faults",
                Frame::Changed => "verify: the last frame is another than without faults",
            };
            let words = |crc: Option<u32>| {
                crc.map_or_else(|| "none".to_owned(), |crc| format!("CRC {crc:08x}"))
            };
            let failure = format!(
                "verify: the last frame is {}, without faults {}",
                words(seen),
                words(without)
            );
            let failure = ((wanted == Frame::Unchanged) != (seen == without)).then_some(failure);
            checks.push(Check::new(name, failure));
        }
        (Some(_), None) => shown.note("the last frame was not verified: dmasan run does that"),
        (None, _) => {}
    }
    shown.ask(checks, verify.findings.clone());
}

/// Was each fault injected, and each answer written over?
fn fired(plan: &Plan, records: &[Record]) -> Vec<Check> {
    let mut fired = BTreeSet::new();
    for record in records {
        if let Event::Injected { fault, .. } = &record.event {
            fired.insert(*fault);
        }
    }
    let faults = plan.faults.iter().map(scenario::Fault::title);
    let answers = plan.answers.iter().map(scenario::Answer::title);
    let check = |(index, title): (u32, String)| {
        let name = format!("fault {} ({title})", index + 1);
        let never = || format!("{name} never fired: a test that tested nothing");
        let failure = (!fired.contains(&index)).then(never);
        Check::new(name, failure)
    };
    (0..).zip(faults.chain(answers)).map(check).collect()
}

/// Was each choice that the plan decides come to, with that way open? One
/// check for each that was not: a driver that has changed since makes others.
fn met<'a>(plan: &'a Plan, records: &[Record]) -> impl Iterator<Item = Check> + 'a {
    let mut open: BTreeMap<u64, u32> = BTreeMap::new();
    for record in records {
        if let Event::Choice {
            number, options, ..
        } = &record.event
        {
            open.insert(*number, *options);
        }
    }
    plan.choices.iter().filter_map(move |(number, take)| {
        let name = format!("choice {number} ({take})");
        let failure = match open.get(number) {
            Some(options) if take < options => return None,
            Some(options) => format!("{name}: there were {options} ways only, from 0"),
            None => format!("{name} was never come to: a test that tested nothing"),
        };
        Some(Check::new(name, Some(failure)))
    })
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

/// Was each status returned?
fn statuses(wanted: &[Returned], records: &[Record]) -> Vec<Check> {
    let mut names = BTreeMap::new();
    let mut seen = vec![false; wanted.len()];
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
                for (wanted, seen) in wanted.iter().zip(&mut seen) {
                    *seen |= wanted.returns.0 == *value as u32 && matches(&wanted.function, name);
                }
            }
            _ => {}
        }
    }
    let check = |(wanted, seen): (&Returned, bool)| {
        let name = format!("verify: {} returns {}", wanted.function, wanted.returns);
        let never = || format!("{} never returned {}", wanted.function, wanted.returns);
        Check::new(name, (!seen).then(never))
    };
    wanted.iter().zip(seen).map(check).collect()
}
