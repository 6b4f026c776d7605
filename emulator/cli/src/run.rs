//! `dmasan run`.

use crate::args::{Domain, FramebufferPin, Run, Subject};
use crate::error::CliError;
use crate::gate::Ready;
use crate::show::Shown;
use crate::{faults, files, show};
use indicatif::{ProgressBar, ProgressStyle};
use journal::event::End;
use journal::{Journal, Record};
use machine::vm::RunLimit;
use machine::{Machine, MachineError, Options};
use scenario::{MAX_SCANOUTS, Plan};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use windows::dxgk::{DomainMode, IommuFlags};
use windows::loader::MAX_FILE;

/// Longest scenario file, bytes.
pub const MAX_SCENARIO: u64 = 16 << 20;
/// Traps between two looks at the progress bar.
const TICK: u64 = 256;

/// Run a driver; the exit code.
pub fn run(arguments: &Run) -> Result<u8, CliError> {
    let ready = Ready::new(&arguments.gate, arguments.json.as_deref())?;
    let input = Input::read(&arguments.subject)?;
    let stop = on_interrupt();
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_secs(arguments.timeout)),
        stop: Some(&stop),
    };
    let mut done = once(&input, &arguments.subject, &arguments.out, &limit)?;
    ready.judge(&mut done.shown);
    done.write(&arguments.out)?;
    ready.tell(&done.shown, &done.records)?;
    Ok(match done.end {
        End::Interrupted => 130,
        End::Unsupported { .. } => 3,
        _ if done.shown.passes() && done.shown.is_whole() => 0,
        _ => 1,
    })
}

/// A flag that Ctrl-C sets.
pub fn on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)) {
        log::warn!("Ctrl-C will end the run without a report: {error}");
    }
    stop
}

/// What a run is made of, read and checked.
pub struct Input {
    /// The driver's file.
    pub driver: Vec<u8>,
    /// Its name.
    pub name: String,
    /// Everything else.
    pub options: Options,
    /// Text of the scenario file, if there is one.
    pub scenario: Option<String>,
}

impl Input {
    /// Read the files that are named.
    pub fn read(subject: &Subject) -> Result<Self, CliError> {
        let driver = files::read(&subject.driver, MAX_FILE)?;
        let scenario = match &subject.scenario {
            Some(path) => {
                let bytes = files::read(path, MAX_SCENARIO)?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            None => None,
        };
        let mut options = options(subject, scenario.as_deref())?;
        let refused = |error| CliError::Scenario {
            path: subject.scenario.clone().unwrap_or_default(),
            error,
        };
        faults::check(&options.plan).map_err(refused)?;
        faults::resolve(&mut options.plan, &driver, &subject.driver).map_err(refused)?;
        let name = files::name(&subject.driver);
        if files::is_result(&name) {
            return Err(CliError::ReservedName(name));
        }
        Ok(Self {
            driver,
            name,
            options,
            scenario,
        })
    }
}

/// A run that was made, and what it says.
pub struct Done {
    /// Its report.
    pub shown: Shown,
    /// Its journal.
    pub records: Vec<Record>,
    /// How it ended.
    pub end: End,
}

impl Done {
    /// The report's files.
    pub fn write(&self, out: &Path) -> Result<(), CliError> {
        let shown = &self.shown;
        files::write(&out.join("report.txt"), shown.plain().as_bytes())?;
        files::write(&out.join("report.json"), shown.json().as_bytes())?;
        files::write(&out.join("report.svg"), shown.svg().as_bytes())
    }
}

/// Run a driver once, its journal and pictures into `out`.
pub fn once(
    input: &Input,
    subject: &Subject,
    out: &Path,
    limit: &RunLimit<'_>,
) -> Result<Done, CliError> {
    files::folder(out)?;
    let journal_path = out.join("journal");
    let file = File::create(&journal_path).map_err(|error| CliError::Write {
        path: journal_path.clone(),
        error,
    })?;
    keep_inputs(input, &subject.driver, out)?;
    let mut machine = Machine::new(
        &input.driver,
        &input.name,
        &input.options,
        Journal::to_file(file),
    )
    .map_err(|error| of_machine(&subject.driver, error))?;
    let end = to_the_end(&mut machine, limit);
    keep_pictures(&machine, out)?;
    log::info!("{} traps, {} exits", machine.traps(), machine.exits());
    // If the host failed, what was found so far is still told.
    if let Err(error) = end {
        if let Ok((records, tail)) = show::read(&journal_path) {
            show::judge(&records, tail, out, &subject.driver, None).print();
        }
        return Err(error);
    }
    let end = end?;
    let (records, tail) = show::read(&journal_path)?;
    let scenario = subject.scenario.as_deref();
    let mut shown = show::judge(&records, tail, out, &subject.driver, scenario);
    if machine.workload_refused() {
        shown.refused();
    }
    if end != End::Interrupted {
        faults::ask(&mut shown, &machine, &records, (input, limit))?;
    }
    Ok(Done {
        shown,
        records,
        end,
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

fn options(arguments: &Subject, scenario: Option<&str>) -> Result<Options, CliError> {
    let mut plan = match (&arguments.scenario, scenario) {
        (Some(path), Some(text)) => Plan::parse(text).map_err(|error| CliError::Scenario {
            path: path.clone(),
            error,
        })?,
        _ => Plan::default(),
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
fn domain(arguments: &Subject) -> DomainMode {
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
pub fn of_machine(driver: &Path, error: MachineError) -> CliError {
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
fn keep_inputs(input: &Input, driver: &Path, out: &Path) -> Result<(), CliError> {
    let kept = out.join(&input.name);
    let same = |a: &Path, b: &Path| matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b);
    if !same(driver, &kept) {
        files::write(&kept, &input.driver)?;
        if let Ok(bytes) = fs::read(driver.with_extension("pdb")) {
            files::write(&kept.with_extension("pdb"), &bytes)?;
        }
    }
    let scenario = out.join(files::SCENARIO);
    match &input.scenario {
        // It was read before: even if it is this very file, it stays as it is.
        Some(text) => files::write(&scenario, text.as_bytes()),
        None => files::forget(&scenario),
    }
}

/// Write what each scanout showed last.
fn keep_pictures(machine: &Machine, out: &Path) -> Result<(), CliError> {
    (0..MAX_SCANOUTS).try_for_each(|scanout| {
        let path = out.join(files::picture(scanout));
        match machine.frame(scanout) {
            Some(frame) => {
                let png = frame.png().map_err(|e| CliError::Report(e.to_string()))?;
                files::write(&path, &png)
            }
            None => files::forget(&path),
        }
    })
}
