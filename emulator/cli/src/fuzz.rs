//! `dmasan fuzz`.

use crate::args::Subject;
use crate::error::CliError;
use crate::run::{self, Input};
use crate::search::{self, Coverage};
use crate::{files, reproduce};
use ::explore::ExploreError;
use ::explore::fuzz::{Effort, Found, FuzzProgress, Fuzzed, Kept};
use clap::Args;
use scenario::{Plan, Power, Step};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Folders of the results.
const CORPUS: &str = "corpus";
const DEFECTS: &str = "defects";
/// Seed unless told otherwise.
const SEED: u64 = 1;

/// `dmasan fuzz`.
#[derive(Debug, Args)]
pub struct Fuzz {
    /// What to run; its workload is where to begin, its faults are in every
    /// run, its seed is the fuzzer's too.
    #[command(flatten)]
    pub subject: Subject,

    /// End after so many seconds of the host's time
    #[arg(long, value_name = "SECONDS")]
    pub budget: Option<u64>,

    /// End after so many runs; with --jobs 1 and the same seed they find the
    /// same
    #[arg(long, value_name = "N")]
    pub runs: Option<u64>,

    /// Workers (default: one for each processor)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,

    /// Where corpus/ and defects/ go; a corpus that is there is begun with
    #[arg(long, value_name = "DIR", default_value = "dmasan-fuzz")]
    pub out: PathBuf,
}

/// Fuzz a driver; the exit code.
pub fn fuzz(arguments: &Fuzz) -> Result<u8, CliError> {
    let input = Input::read(&arguments.subject)?;
    let (corpus, defects) = (arguments.out.join(CORPUS), arguments.out.join(DEFECTS));
    files::folder(&corpus)?;
    files::folder(&defects)?;
    let seeds = seeds(&corpus)?;
    let stop = run::on_interrupt();
    let started = Instant::now();
    let effort = Effort {
        seed: arguments.subject.seed.unwrap_or(SEED),
        runs: arguments.runs,
        jobs: search::workers(arguments.jobs),
        deadline: search::deadline(arguments.budget),
    };
    let functions = machine::functions(&input.driver).unwrap_or_default();
    let progress = FuzzProgress::of(functions);
    // What cannot be written ends the fuzzing: nothing may be lost.
    let unwritten = Mutex::new(None);
    let halt = AtomicBool::new(false);
    let keep = |kept: Kept<'_>| {
        let written = match kept {
            Kept::Interesting(plan) => {
                let text = plan.to_toml();
                let name = ::explore::digest(text.as_bytes());
                files::write(&corpus.join(format!("{name}.toml")), text.as_bytes())
            }
            Kept::Defect(identity, found) => {
                let folder = folder(&defects, identity, found);
                let text = named(found).to_toml();
                files::folder(&folder)
                    .and_then(|()| files::write(&folder.join(files::SCENARIO), text.as_bytes()))
            }
        };
        if let Err(error) = written
            && let Ok(mut first) = unwritten.lock()
        {
            halt.store(true, Ordering::Relaxed);
            first.get_or_insert(error);
        }
    };
    let (fuzzed, _) = std::thread::scope(|scope| {
        let search = scope.spawn(|| {
            ::explore::fuzz::fuzz(
                (&input.driver, &input.name),
                &input.options,
                effort,
                seeds,
                (&halt, &progress),
                &keep,
            )
        });
        watch(&progress, started, || {
            if stop.load(Ordering::Relaxed) {
                halt.store(true, Ordering::Relaxed);
            }
            search.is_finished()
        });
        search.join().map_err(|_| ExploreError::Worker)?
    })?;
    if let Ok(Some(error)) = unwritten.into_inner() {
        return Err(error);
    }
    // From here on Ctrl-C ends what is left: the runs that show the defects.
    let interrupted = stop.swap(false, Ordering::Relaxed);
    let coverage = Coverage::of(&progress.functions, &fuzzed.places);
    let mut text = told(coverage, &fuzzed, started);
    let symbolizer = search::symbolizer(&arguments.subject.driver);
    for (number, (identity, found)) in (1..).zip(&fuzzed.defects) {
        let folder = folder(&defects, identity, found);
        let scenario = search::reproduce(&input, &arguments.subject, named(found), &folder, &stop)?;
        let _ = writeln!(text, "\n{number}. {}: {}", found.finding, found.summary);
        if let Some(address) = found.function {
            let at = symbolizer.describe(address, false);
            // The last is the function itself, those before it are inlined.
            let name = at.frames.last().map(|frame| frame.function.as_str());
            let _ = writeln!(
                text,
                "   in {} ({address:#x})",
                name.unwrap_or("a function")
            );
        }
        let _ = writeln!(text, "   {}", parts(&found.plan));
        let driver = arguments.subject.driver.to_string_lossy();
        let options = reproduce::options(&input.options.begin(&input.name));
        let again = reproduce::run(&driver, &options, Some(&scenario));
        let _ = writeln!(text, "   {again}");
    }
    files::write(&arguments.out.join("fuzzed.txt"), text.as_bytes())?;
    files::write(Path::new("-"), text.as_bytes())?;
    Ok(match fuzzed.defects.is_empty() {
        _ if interrupted || stop.load(Ordering::Relaxed) => 130,
        true => 0,
        false => 1,
    })
}

/// What an input is made of.
fn parts(plan: &Plan) -> String {
    let escape = |step: &&Step| matches!(step, Step::Escape { .. });
    let off = |step: &&Step| matches!(step, Step::Power { to: Power::Off });
    let parts = [
        (plan.workload.iter().filter(escape).count(), "Escapes"),
        (plan.workload.iter().filter(off).count(), "times in D3"),
        (plan.answers.len(), "answers written over"),
        (plan.choices.len(), "choices"),
        (plan.faults.len(), "faults"),
    ];
    let there = parts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = there.map(|(count, of)| format!("{count} {of}")).collect();
    words.join(", ")
}

/// Where a defect is kept: the same each time it is found.
fn folder(defects: &Path, identity: &str, found: &Found) -> PathBuf {
    let digest = ::explore::digest(identity.as_bytes());
    let short = digest.get(..8).unwrap_or_default();
    defects.join(format!("{}-{short}", found.finding))
}

/// Its scenario, under a name of its own.
fn named(found: &Found) -> Plan {
    Plan {
        name: format!("fuzzed: {}", found.finding),
        ..found.plan.clone()
    }
}

/// The scenarios of an earlier corpus, in the order of their names.
fn seeds(corpus: &Path) -> Result<Vec<Plan>, CliError> {
    let failed = |error| CliError::Read {
        path: corpus.to_owned(),
        error,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(corpus).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = files::read(&path, run::MAX_SCENARIO)?;
            Plan::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|error| CliError::Scenario { path, error })
        })
        .collect()
}

/// Show the progress on a terminal until the search is over.
fn watch(progress: &FuzzProgress, started: Instant, over: impl Fn() -> bool) {
    let get = |of: &AtomicU64| of.load(Ordering::Relaxed);
    search::watch("{spinner} {msg} ({elapsed})", over, |bar| {
        let (runs, elapsed) = (get(&progress.runs), started.elapsed().as_secs_f64());
        bar.set_message(format!(
            "{runs} runs, {:.0} a second, {} inputs, {} places in {} of {} functions, {} defects",
            runs as f64 / elapsed.max(0.001),
            get(&progress.corpus),
            get(&progress.places),
            get(&progress.reached),
            progress.functions.len(),
            get(&progress.defects),
        ));
    });
}

fn told(coverage: Coverage, fuzzed: &Fuzzed, started: Instant) -> String {
    let mut text = format!(
        "{} runs, {} inputs that met something new; {coverage}\n",
        fuzzed.runs, fuzzed.corpus,
    );
    text.push_str(&search::runs(
        fuzzed.given_up,
        "took too long and came to nothing",
    ));
    for (finding, count) in &fuzzed.injected {
        let what = format!("showed {finding} that follows from a fault: no defect");
        text.push_str(&search::runs(*count, &what));
    }
    for lost in &fuzzed.lost {
        let _ = writeln!(text, "not seen again from the driver's load: {lost}");
    }
    log::info!(
        "{:.0} runs a second",
        fuzzed.runs as f64 / started.elapsed().as_secs_f64().max(0.001)
    );
    text.push_str(&search::count(fuzzed.defects.len()));
    text
}
