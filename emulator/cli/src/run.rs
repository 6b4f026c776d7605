//! `dmasan run`.

use crate::args::{Domain, FramebufferPin, Run};
use crate::error::CliError;
use crate::gate::Ready;
use crate::{files, show};
use indicatif::{ProgressBar, ProgressStyle};
use journal::Journal;
use journal::event::End;
use machine::vm::RunLimit;
use machine::{Machine, MachineError, Options};
use scenario::Plan;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use windows::dxgk::{DomainMode, IommuFlags};
use windows::loader::MAX_FILE;

/// Longest scenario file, bytes.
const MAX_SCENARIO: u64 = 16 << 20;
/// Traps between two looks at the progress bar.
const TICK: u64 = 256;

/// Run a driver; the exit code.
pub fn run(arguments: &Run) -> Result<u8, CliError> {
    let ready = Ready::new(&arguments.gate, arguments.json.as_deref())?;
    let driver = files::read(&arguments.driver, MAX_FILE)?;
    let options = options(arguments)?;
    let name = files::name(&arguments.driver);
    if files::RESULTS.contains(&name.as_str()) {
        return Err(CliError::ReservedName(name));
    }
    files::folder(&arguments.out)?;
    let journal_path = arguments.out.join("journal");
    let file = File::create(&journal_path).map_err(|error| CliError::Write {
        path: journal_path.clone(),
        error,
    })?;
    keep_inputs(arguments, &driver, &name)?;

    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)) {
        log::warn!("Ctrl-C will end the run without a report: {error}");
    }
    let mut machine = Machine::new(&driver, &name, &options, Journal::to_file(file))
        .map_err(|error| of_machine(&arguments.driver, error))?;
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_secs(arguments.timeout)),
        stop: Some(&stop),
    };
    let end = to_the_end(&mut machine, &limit);
    if let Some(frame) = machine.frame(0) {
        let png = frame.png().map_err(|e| CliError::Report(e.to_string()))?;
        files::write(&arguments.out.join("scanout-0.png"), &png)?;
    }
    log::info!("{} traps, {} exits", machine.traps(), machine.exits());
    // If the host failed, what was found so far is still told.
    if let Err(error) = end {
        if let Ok((records, tail)) = show::read(&journal_path) {
            show::judge(&records, tail, &arguments.out, &arguments.driver, None).print();
        }
        return Err(error);
    }
    let end = end?;
    let (records, tail) = show::read(&journal_path)?;
    let mut shown = show::judge(
        &records,
        tail,
        &arguments.out,
        &arguments.driver,
        arguments.scenario.as_deref(),
    );
    if machine.workload_refused() {
        shown.refused();
    }
    ready.judge(&mut shown);
    files::write(&arguments.out.join("report.txt"), shown.plain().as_bytes())?;
    files::write(&arguments.out.join("report.json"), shown.json().as_bytes())?;
    files::write(&arguments.out.join("report.svg"), shown.svg().as_bytes())?;
    ready.tell(&shown, &records)?;
    Ok(match end {
        End::Interrupted => 130,
        End::Unsupported { .. } => 3,
        End::Completed | End::BugCheck if shown.passes() && shown.is_whole() => 0,
        _ => 1,
    })
}

/// Step to the end, with a spinner on a terminal if it takes long.
fn to_the_end(machine: &mut Machine, limit: &RunLimit<'_>) -> Result<End, CliError> {
    let started = Instant::now();
    let mut bar: Option<ProgressBar> = None;
    let mut steps = 0u64;
    loop {
        if let Some(end) = machine.step(limit).map_err(CliError::Machine)? {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            return Ok(end);
        }
        steps += 1;
        if !steps.is_multiple_of(TICK) || started.elapsed() < Duration::from_secs(1) {
            continue;
        }
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            ProgressBar::new_spinner()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        bar.set_message(format!("{} traps", machine.traps()));
        bar.tick();
    }
}

fn options(arguments: &Run) -> Result<Options, CliError> {
    let mut plan = match &arguments.scenario {
        None => Plan::default(),
        Some(path) => {
            let bytes = files::read(path, MAX_SCENARIO)?;
            Plan::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| CliError::Scenario {
                path: path.clone(),
                error,
            })?
        }
    };
    if let Some(seed) = arguments.seed {
        plan.seed = seed;
    }
    Ok(Options {
        domain: domain(arguments),
        iommu_flags: IommuFlags(arguments.iommu_flags.unwrap_or(0)),
        framebuffer_pin: arguments.framebuffer_pin == FramebufferPin::Succeed,
        settings: arguments.settings.clone(),
        plan,
        keep_going: arguments.keep_going,
        quarantine: arguments.quarantine,
        memory: arguments.memory << 20,
        ..Options::default()
    })
}

/// What the device may reach: as named, or as IOMMUFlags says. Flags that
/// enable nothing go with the default.
fn domain(arguments: &Run) -> DomainMode {
    let flags = arguments.iommu_flags.map(IommuFlags);
    match (arguments.domain, flags) {
        (Some(Domain::Passthrough), _) => DomainMode::Passthrough,
        (Some(Domain::Isolation), _) => DomainMode::Isolation,
        (Some(Domain::IsolationForced), _) => DomainMode::Forced,
        (None, Some(flags)) if flags.has(IommuFlags::FORCE) => flags.mode(),
        (None, _) => DomainMode::Isolation,
    }
}

/// A bad driver file is bad input; anything else could not run.
fn of_machine(driver: &Path, error: MachineError) -> CliError {
    match error {
        MachineError::Load(_) | MachineError::TooLittleMemory(_) => CliError::Driver {
            path: driver.to_owned(),
            error,
        },
        _ => CliError::Machine(error),
    }
}

/// Keep the driver, its PDB and the scenario beside the journal, so that the
/// report, and the run, can be made again from that folder alone.
fn keep_inputs(arguments: &Run, driver: &[u8], name: &str) -> Result<(), CliError> {
    let kept = arguments.out.join(name);
    let same = |a: &Path, b: &Path| matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b);
    if !same(&arguments.driver, &kept) {
        files::write(&kept, driver)?;
        if let Ok(bytes) = fs::read(arguments.driver.with_extension("pdb")) {
            files::write(&kept.with_extension("pdb"), &bytes)?;
        }
    }
    let scenario = arguments.out.join(files::SCENARIO);
    match &arguments.scenario {
        Some(path) if same(path, &scenario) => Ok(()),
        Some(path) => files::write(&scenario, &files::read(path, MAX_SCENARIO)?),
        // One of an earlier run would be taken for this one's.
        None => match fs::remove_file(&scenario) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CliError::Write {
                path: scenario,
                error,
            }),
            _ => Ok(()),
        },
    }
}
