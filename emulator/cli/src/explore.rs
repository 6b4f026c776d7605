//! `dmasan explore` and `dmasan merge`.

use crate::args::{Explore, Merge};
use crate::error::CliError;
use crate::run::{self, Input};
use crate::search::{self, Coverage};
use crate::{files, reproduce};
use explore::{Bounds, Defect, Explored, Extent, Header, Progress, Results};
use scenario::Plan;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Name of the file of results.
const RESULTS: &str = "explored.jsonl";

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
    let header = header(&input, bounds);
    let mut results = Results::open(&arguments.out.join(RESULTS), header)?;
    let stop = run::on_interrupt();
    let started = Instant::now();
    let deadline = search::deadline(arguments.budget);
    let workers = search::workers(arguments.jobs);
    let functions = machine::functions(&input.driver).unwrap_or_default();
    let progress = Progress::of(functions, results.total());
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
    // From here on Ctrl-C ends what is left: the runs that show the defects.
    let mut interrupted = !whole && stop.swap(false, Ordering::Relaxed);
    let total = results.total();
    let coverage = Coverage::of(&progress.functions, &total.places);
    let extent = if whole { Extent::Whole } else { Extent::Cut };
    let mut text = told(results.header(), total, &coverage, extent);
    let driver = arguments.subject.driver.to_string_lossy();
    let options = &results.header().arguments;
    clear(&arguments.out)?;
    for (number, defect) in shortest(total) {
        let folder = arguments.out.join(folder(number, defect));
        let plan = plan(&input.options.plan, defect);
        let scenario = search::reproduce(&input, &arguments.subject, plan, &folder, &stop)?;
        interrupted |= stop.load(Ordering::Relaxed);
        text += &defect_told(number, defect);
        let again = reproduce::run(&driver, options, Some(&scenario));
        let _ = writeln!(text, "   {again}");
    }
    files::write(&arguments.out.join("explored.txt"), text.as_bytes())?;
    tell(
        &text,
        (results.header(), total, &coverage, extent),
        (arguments.json.as_deref(), arguments.junit.as_deref()),
    )?;
    if interrupted {
        return Ok(130);
    }
    let clean =
        total.defects.is_empty() && explore::idle(results.header(), total, extent).is_empty();
    Ok(match (clean, total.open.is_empty()) {
        (false, _) => 1,
        (true, true) => 0,
        // What was not followed to its end cannot be clean.
        (true, false) => 2,
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
    // Which functions there are says the driver, which is not here.
    let coverage = Coverage::of(&[], &merged.total.places);
    let whole = merged.gaps.is_empty();
    let extent = match whole {
        true => Extent::Whole,
        false => Extent::Lacking(&merged.gaps),
    };
    let mut text = told(&merged.header, &merged.total, &coverage, extent);
    let Header {
        driver,
        arguments: options,
        scenario: origin,
        ..
    } = &merged.header;
    let origin = Plan::parse(origin).map_err(|error| CliError::Scenario {
        path: paths.first().cloned().unwrap_or_default(),
        error,
    })?;
    if let Some(out) = &arguments.out {
        clear(out)?;
    }
    for (number, defect) in shortest(&merged.total) {
        text += &defect_told(number, defect);
        let Some(out) = &arguments.out else { continue };
        let folder = out.join(folder(number, defect));
        files::folder(&folder)?;
        let scenario = folder.join(files::SCENARIO);
        files::write(&scenario, plan(&origin, defect).to_toml().as_bytes())?;
        let again = reproduce::run(driver, options, Some(&scenario));
        let _ = writeln!(text, "   {}", report::clean(&again));
    }
    tell(
        &text,
        (&merged.header, &merged.total, &coverage, extent),
        (arguments.json.as_deref(), arguments.junit.as_deref()),
    )?;
    let total = &merged.total;
    let clean = total.defects.is_empty() && explore::idle(&merged.header, total, extent).is_empty();
    Ok(match (clean, whole && total.open.is_empty()) {
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
fn header(input: &Input, bounds: Bounds) -> Header {
    Header {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        driver: input.name.clone(),
        digest: explore::digest(&input.driver),
        arguments: reproduce::options(&input.options.begin(&input.name)),
        scenario: input.options.plan.to_toml(),
        bounds,
    }
}

/// Show the progress on a terminal until the search is over.
fn watch(progress: &Progress, started: Instant, over: impl Fn() -> bool) {
    let get = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
    search::watch("{bar:24} {msg}", over, |bar| {
        let elapsed = started.elapsed().as_secs_f64();
        // Those of an earlier call took no time of this one's.
        let runs = get(&progress.runs);
        let own = runs.saturating_sub(get(&progress.earlier));
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
            "bound {}: {runs} runs ({} cut off), {:.0} a second, {} states, {} of {} functions, \
             {} defects{left}",
            get(&progress.bound),
            get(&progress.cut),
            own as f64 / elapsed.max(0.001),
            get(&progress.states),
            get(&progress.reached),
            progress.functions.len(),
            get(&progress.defects),
        ));
    });
}

fn told(header: &Header, total: &Explored, coverage: &Coverage, extent: Extent<'_>) -> String {
    let bounds = header.bounds;
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
        "{} steps, {} choices; {coverage}",
        total.steps, total.choices,
    );
    for (why, open) in &total.open {
        let _ = writeln!(text, "ERROR: {}", report::clean(&open.words(why)));
    }
    for why in explore::idle(header, total, extent) {
        let _ = writeln!(text, "ERROR: {}", report::clean(&why));
    }
    match extent {
        Extent::Whole => {}
        Extent::Cut => {
            text.push_str("not all was explored: the same command goes on where it was left\n");
        }
        Extent::Lacking(gaps) => {
            text.push_str("not all was explored:\n");
            for what in gaps.words() {
                let _ = writeln!(text, "   {what}");
            }
        }
    }
    text.push_str(&search::count(total.defects.len()));
    text
}

/// The defects from 1 on, those with the shortest schedules first.
fn shortest(total: &Explored) -> impl Iterator<Item = (usize, &Defect)> {
    let mut shortest: Vec<(&String, &Defect)> = total.defects.iter().collect();
    shortest.sort_by_key(|(key, defect)| (defect.order(), *key));
    (1..).zip(shortest.into_iter().map(|(_, defect)| defect))
}

/// Where what shows a defect goes.
fn folder(number: usize, defect: &Defect) -> String {
    format!("{number}-{}", defect.finding)
}

/// Remove the folders of an earlier call: it may have counted the defects
/// otherwise. Nobody else's have such a name and a scenario in them.
fn clear(out: &Path) -> Result<(), CliError> {
    let failed = |error| CliError::Write {
        path: out.to_owned(),
        error,
    };
    let Ok(entries) = std::fs::read_dir(out) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = files::name(&path);
        let number = name.split_once('-').map_or("", |(number, _)| number);
        let counted = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if counted && path.join(files::SCENARIO).is_file() {
            std::fs::remove_dir_all(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// The plan of the run that shows a defect, which deviates from `origin`.
fn plan(origin: &Plan, defect: &Defect) -> Plan {
    let mut plan = origin.clone();
    plan.name = format!("explored: {}", defect.finding);
    for deviation in &defect.schedule {
        plan = plan.with_choice(deviation.number, deviation.take);
    }
    plan
}

fn defect_told(number: usize, defect: &Defect) -> String {
    // It may come from a file.
    let summary = report::clean(&defect.summary);
    let mut text = format!("\n{number}. {}: {summary}\n", defect.finding);
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
    text
}

fn tell(
    text: &str,
    (header, total, coverage, extent): (&Header, &Explored, &Coverage, Extent<'_>),
    (json, junit): (Option<&Path>, Option<&Path>),
) -> Result<(), CliError> {
    let standard = Some(Path::new("-"));
    if let Some(path) = json {
        let coverage = (coverage.reached, coverage.functions, total.places.len());
        let document = explore::json(header, total, coverage, extent);
        files::write(path, document.as_bytes())?;
    }
    if let Some(path) = junit {
        files::write(path, explore::junit(header, total, extent).as_bytes())?;
    }
    if json != standard && junit != standard {
        files::write(Path::new("-"), text.as_bytes())?;
    }
    Ok(())
}
