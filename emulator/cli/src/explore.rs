//! `dmasan explore` and `dmasan merge`.

use crate::args::{Explore, Merge, Subject};
use crate::error::CliError;
use crate::files;
use crate::run::{self, Input};
use explore::{Bounds, Defect, Explored, Header, Progress, Results};
use indicatif::{ProgressBar, ProgressStyle};
use machine::vm::RunLimit;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Name of the file of results.
const RESULTS: &str = "explored.jsonl";
/// Between two looks at the progress.
const TICK: Duration = Duration::from_millis(200);

/// Explore a driver; the exit code.
pub fn explore(arguments: &Explore) -> Result<u8, CliError> {
    check_outputs(arguments.json.as_deref(), arguments.junit.as_deref())?;
    let mut input = Input::read(&arguments.subject)?;
    input.options.plan.may_fail |= arguments.fail_nth;
    let bounds = Bounds {
        deviations: arguments.bound,
        reduce: !arguments.no_reduction,
        shard: arguments.shard.unwrap_or((0, 1)),
    };
    files::folder(&arguments.out)?;
    let header = header(&input, &arguments.subject, bounds);
    let mut results = Results::open(&arguments.out.join(RESULTS), header)?;
    let stop = run::on_interrupt();
    let started = Instant::now();
    let deadline = arguments
        .budget
        .map(|seconds| started + Duration::from_secs(seconds));
    let workers = match arguments.jobs {
        Some(jobs) => jobs as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let progress = Progress::default();
    let whole = std::thread::scope(|scope| {
        let search = scope.spawn(|| {
            explore::explore(
                (&input.driver, &input.name),
                &input.options,
                bounds,
                workers,
                (deadline, &stop),
                &mut results,
                &progress,
            )
        });
        watch(&progress, started, || search.is_finished());
        search.join().map_err(|_| explore::ExploreError::Worker)?
    })?;
    let total = results.total();
    let coverage = Coverage::of(&input, total);
    let mut text = told(total, bounds, &coverage, whole);
    let mut shortest: Vec<(&String, &Defect)> = total.defects.iter().collect();
    shortest.sort_by_key(|(key, defect)| (defect.order(), *key));
    for (number, (_, defect)) in shortest.iter().enumerate() {
        let folder = arguments
            .out
            .join(format!("{}-{}", number + 1, defect.finding));
        let scenario = reproduce(&input, &arguments.subject, defect, &folder, &stop)?;
        let _ = write!(text, "{}", defect_told(number + 1, defect, Some(&scenario)));
    }
    files::write(&arguments.out.join("explored.txt"), text.as_bytes())?;
    let document = document(results.header(), total, &coverage, whole);
    tell(
        &text,
        &document,
        (results.header(), total),
        (arguments.json.as_deref(), arguments.junit.as_deref()),
    )?;
    Ok(match (total.defects.is_empty(), whole) {
        (_, false) if stop.load(Ordering::Relaxed) => 130,
        (true, _) => 0,
        (false, _) => 1,
    })
}

/// Join the results of shards; the exit code.
pub fn merge(arguments: &Merge) -> Result<u8, CliError> {
    check_outputs(arguments.json.as_deref(), arguments.junit.as_deref())?;
    let paths: Vec<PathBuf> = arguments
        .folders
        .iter()
        .map(|folder| folder.join(RESULTS))
        .collect();
    let merged = explore::merge(&paths)?;
    let coverage = Coverage::default();
    let whole = merged.missing.is_empty();
    let mut text = told(&merged.total, merged.header.bounds, &coverage, whole);
    if !whole {
        let _ = writeln!(text, "shards that are missing: {:?}", merged.missing);
    }
    let mut shortest: Vec<&Defect> = merged.total.defects.values().collect();
    shortest.sort_by_key(|defect| defect.order());
    for (number, defect) in shortest.iter().enumerate() {
        let _ = write!(text, "{}", defect_told(number + 1, defect, None));
    }
    let document = document(&merged.header, &merged.total, &coverage, whole);
    tell(
        &text,
        &document,
        (&merged.header, &merged.total),
        (arguments.json.as_deref(), arguments.junit.as_deref()),
    )?;
    Ok(match (merged.total.defects.is_empty(), whole) {
        (false, _) => 1,
        (true, true) => 0,
        // What is not there cannot be clean.
        (true, false) => 2,
    })
}

fn check_outputs(json: Option<&Path>, junit: Option<&Path>) -> Result<(), CliError> {
    let standard = Some(Path::new("-"));
    if json == standard && junit == standard {
        return Err(CliError::OneOutput);
    }
    Ok(())
}

/// What is searched: everything that the runs depend on.
fn header(input: &Input, subject: &Subject, bounds: Bounds) -> Header {
    let options = &input.options;
    let mut arguments: Vec<String> = subject
        .settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    arguments.push(format!(
        "{:?} {:?} pin {} keep going {} quarantine {} memory {}",
        options.domain,
        options.iommu_flags,
        options.framebuffer_pin,
        options.keep_going,
        options.quarantine,
        options.memory
    ));
    Header {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        driver: input.name.clone(),
        digest: explore::digest(&input.driver),
        arguments,
        scenario: options.plan.to_toml(),
        bounds,
    }
}

/// Show the progress on a terminal until the search is over.
fn watch(progress: &Progress, started: Instant, over: impl Fn() -> bool) {
    let get = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:24} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while !over() {
        std::thread::sleep(TICK);
        let (runs, elapsed) = (get(&progress.runs), started.elapsed().as_secs_f64());
        bar.set_length(get(&progress.of));
        bar.set_position(get(&progress.units));
        let left = match (get(&progress.units), get(&progress.of)) {
            (0, _) => String::new(),
            (done, of) => {
                let left =
                    progress.pass_seconds(started) * (of - done.min(of)) as f64 / done as f64;
                format!(", {left:.0} s left in this pass")
            }
        };
        bar.set_message(format!(
            "bound {}: {runs} runs ({} cut off), {:.0} a second, {} states, {} places, {} defects{left}",
            get(&progress.bound),
            get(&progress.cut),
            runs as f64 / elapsed.max(0.001),
            get(&progress.states),
            get(&progress.places),
            get(&progress.defects),
        ));
    }
    bar.finish_and_clear();
}

/// Functions of the driver that were reached, by what trapped in them.
#[derive(Clone, Copy, Debug, Default)]
struct Coverage {
    functions: usize,
    reached: usize,
    places: usize,
}

impl Coverage {
    fn of(input: &Input, total: &Explored) -> Self {
        let functions = machine::functions(&input.driver).unwrap_or_default();
        let reached = functions
            .iter()
            .filter(|function| total.places.range((*function).clone()).next().is_some());
        Self {
            reached: reached.count(),
            functions: functions.len(),
            places: total.places.len(),
        }
    }
}

fn told(total: &Explored, bounds: Bounds, coverage: &Coverage, whole: bool) -> String {
    let mut text = format!(
        "explored {} schedules of at most {} deviations: {} run to their end, {} cut off as \
         equivalent to others\n",
        total.runs,
        bounds.deviations,
        total.runs.saturating_sub(total.cut),
        total.cut
    );
    let _ = writeln!(
        text,
        "{} steps, {} choices; {} places of driver code{}",
        total.steps,
        total.choices,
        total.places.len(),
        match coverage.functions {
            0 => String::new(),
            all => format!(" in {} of {all} functions", coverage.reached),
        }
    );
    if total.timeouts > 0 {
        let _ = writeln!(
            text,
            "{} runs took too long by the host's clock and say nothing",
            total.timeouts
        );
    }
    if !whole {
        text.push_str("not all was explored: the same command goes on where it was left\n");
    }
    match total.defects.len() {
        0 => text.push_str("no defect\n"),
        1 => text.push_str("1 defect\n"),
        many => {
            let _ = writeln!(text, "{many} defects");
        }
    }
    text
}

fn defect_told(number: usize, defect: &Defect, scenario: Option<&Path>) -> String {
    let mut text = format!("\n{number}. {}: {}\n", defect.finding, defect.summary);
    match defect.schedule.as_slice() {
        [] => text.push_str("   in the default order\n"),
        schedule => {
            for deviation in schedule {
                let _ = writeln!(
                    text,
                    "   choice {}{}: {}",
                    deviation.number,
                    deviation
                        .at
                        .map_or_else(String::new, |time| format!(" at {}", ledger::span(time))),
                    deviation.words(),
                );
            }
        }
    }
    if let Some(scenario) = scenario {
        let _ = writeln!(text, "   dmasan run ... --scenario {}", scenario.display());
    }
    text
}

/// Make the run that shows a defect, with all that `dmasan run` writes, and
/// the scenario that gives it again; the path of that.
fn reproduce(
    input: &Input,
    subject: &Subject,
    defect: &Defect,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<PathBuf, CliError> {
    let mut options = input.options.clone();
    options.plan.name = format!("explored: {}", defect.finding);
    for deviation in &defect.schedule {
        options.plan = options.plan.with_choice(deviation.number, deviation.take);
    }
    let path = folder.join(files::SCENARIO);
    let again = Input {
        driver: input.driver.clone(),
        name: input.name.clone(),
        scenario: Some(options.plan.to_toml()),
        options,
    };
    let subject = Subject {
        scenario: Some(path.clone()),
        ..subject.clone()
    };
    let limit = RunLimit {
        deadline: Some(Instant::now() + Duration::from_secs(60)),
        stop: Some(stop),
    };
    run::once(&again, &subject, folder, &limit)?.write(folder)?;
    Ok(path)
}

fn document(header: &Header, total: &Explored, coverage: &Coverage, whole: bool) -> String {
    explore::json(
        header,
        total,
        (coverage.reached, coverage.functions, coverage.places),
        whole,
    )
}

fn tell(
    text: &str,
    document: &str,
    (header, total): (&Header, &Explored),
    (json, junit): (Option<&Path>, Option<&Path>),
) -> Result<(), CliError> {
    let standard = Some(Path::new("-"));
    if let Some(path) = json {
        files::write(path, document.as_bytes())?;
    }
    if let Some(path) = junit {
        files::write(path, explore::junit(header, total).as_bytes())?;
    }
    if json != standard && junit != standard {
        files::write(Path::new("-"), text.as_bytes())?;
    }
    Ok(())
}
