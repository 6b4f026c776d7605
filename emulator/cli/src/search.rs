//! What `dmasan explore` and `dmasan fuzz` have in common.

use crate::args::Subject;
use crate::error::CliError;
use crate::files;
use crate::run::{self, Input};
use indicatif::{ProgressBar, ProgressStyle};
use machine::vm::RunLimit;
use scenario::Plan;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use symbols::{SymbolTable, Symbolizer};
use windows::layout;

/// Between two looks at the progress.
const TICK: Duration = Duration::from_millis(200);
/// The run that shows a defect ends after so long, whatever it does.
const SHOW_TIME: Duration = Duration::from_secs(60);

/// How many workers: as asked, or one for each processor.
pub fn workers(jobs: Option<u32>) -> usize {
    match jobs {
        Some(jobs) => jobs as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// When a budget of seconds that begins now is spent.
pub fn deadline(budget: Option<u64>) -> Option<Instant> {
    // One that is longer than the clock goes is none.
    Instant::now().checked_add(Duration::from_secs(budget?))
}

/// Show the progress on a terminal until the search is over; hidden where
/// standard error is none.
pub fn watch(template: &str, over: impl Fn() -> bool, show: impl Fn(&ProgressBar)) {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while !over() {
        std::thread::sleep(TICK);
        show(&bar);
        bar.tick();
    }
    bar.finish_and_clear();
}

/// Functions of the driver that were reached, by what trapped in them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// How many there are; 0 if that is not known.
    pub functions: usize,
    /// How many were reached.
    pub reached: usize,
    /// Places of code seen.
    pub places: usize,
}

impl Coverage {
    /// Of these functions by these places.
    pub fn of(functions: &[Range<u64>], places: &BTreeSet<u64>) -> Self {
        Self {
            reached: explore::reached(functions, places),
            functions: functions.len(),
            places: places.len(),
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} places of driver code", self.places)?;
        match self.functions {
            0 => Ok(()),
            all => write!(f, " in {} of {all} functions", self.reached),
        }
    }
}

/// Names of the driver's functions, if its PDB is beside it.
pub fn symbolizer(driver: &Path) -> Symbolizer {
    let mut symbolizer = Symbolizer::new();
    symbolizer.add_module(symbols::Module {
        name: files::name(driver),
        base: layout::IMAGES.0,
        size: 1 << 30,
        symbols: SymbolTable::from_pdb_file(&driver.with_extension("pdb")).ok(),
    });
    symbolizer
}

/// A line of what some runs came to; nothing of none.
pub fn runs(count: u64, came_to: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!("1 run {came_to}\n"),
        many => format!("{many} runs {came_to}\n"),
    }
}

/// How many defects, as a line.
pub fn count(defects: usize) -> String {
    match defects {
        0 => "no defect\n".to_owned(),
        1 => "1 defect\n".to_owned(),
        many => format!("{many} defects\n"),
    }
}

/// Make the run that shows a defect, with all that `dmasan run` writes, and
/// the scenario that gives it again; the path of that. A run that `stop` ends
/// is not whole, and says so.
pub fn reproduce(
    input: &Input,
    subject: &Subject,
    plan: Plan,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<PathBuf, CliError> {
    let path = folder.join(files::SCENARIO);
    let again = Input {
        driver: input.driver.clone(),
        name: input.name.clone(),
        scenario: Some(plan.to_toml()),
        options: machine::Options {
            plan,
            ..input.options.clone()
        },
    };
    let subject = Subject {
        scenario: Some(path.clone()),
        ..subject.clone()
    };
    let limit = RunLimit {
        deadline: Some(Instant::now() + SHOW_TIME),
        stop: Some(stop),
    };
    run::once(&again, &subject, folder, &limit)?.write(folder)?;
    Ok(path)
}
