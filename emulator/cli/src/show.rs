//! `dmasan report` and `dmasan replay`, and the report at the end of a run.

use crate::args::Show;
use crate::error::CliError;
use crate::gate::Ready;
use crate::{faults, files, reproduce, run};
use journal::event::Event;
use journal::{Record, Tail};
use report::text::Style;
use report::{Baseline, Check, Ending, Meta, Report, Suppression};
use scenario::Plan;
use std::fs::File;
use std::io::{BufReader, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use symbols::{SymbolTable, Symbolizer};

/// Columns of a report that goes to a file or a pipe.
const WIDTH: usize = 100;

/// A journal, read and judged.
pub struct Shown {
    report: Report,
    symbolizer: Symbolizer,
}

impl Shown {
    /// 1 if there is something that a developer must look at, 3 if the driver
    /// needs what the machine does not have, 0 otherwise: what a run returns,
    /// but that a journal which is cut off is no finding.
    pub fn exit_code(&self) -> u8 {
        match self.report.ending {
            Ending::Unsupported { .. } => 3,
            _ => u8::from(!self.passes()),
        }
    }

    /// Is there nothing that a developer must look at?
    pub fn passes(&self) -> bool {
        self.report.passes()
    }

    /// Does the journal say how the run ended?
    pub fn is_whole(&self) -> bool {
        self.report.meta.tail == Tail::Clean && self.report.ending != Ending::Unknown
    }

    /// The driver refused a step of the workload.
    pub fn refused(&mut self) {
        self.report.refused = true;
    }

    /// Identifiers of what was found, each once.
    pub fn findings(&self) -> Vec<&'static str> {
        let findings = self.report.findings.iter();
        let mut ids: Vec<_> = findings.map(|found| found.finding.kind.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Is everything released that the driver was given, and did the driver do
    /// that?
    pub fn released(&self) -> bool {
        let leaks = ["handle-leak", "mdl-not-released", "memory-leak"];
        self.report.live.is_empty() && !self.findings().iter().any(|id| leaks.contains(id))
    }

    /// Add what the scenario asks, and which findings it lists, if it does.
    pub fn ask(&mut self, checks: Vec<Check>, findings: Option<Vec<String>>) {
        self.report.ask(checks, findings);
    }

    /// Add what a reader must know.
    pub fn note(&mut self, text: &str) {
        self.report.notes.push(text.to_owned());
    }

    /// Take out what suppressions and a baseline say.
    pub fn triage(&mut self, suppressions: Vec<Suppression>, baseline: Option<&Baseline>) {
        self.report.triage(suppressions, baseline);
    }

    /// What happened, line by line; `records` are those that were judged.
    pub fn trace<'a>(&'a self, records: &'a [Record]) -> impl Iterator<Item = String> + 'a {
        report::trace::lines(records, &self.symbolizer)
    }

    /// The report as JUnit XML.
    pub fn junit(&self) -> String {
        report::junit::render(&self.report)
    }

    /// The report as SARIF.
    pub fn sarif(&self) -> String {
        report::sarif::render(&self.report)
    }

    /// The report without colours.
    pub fn plain(&self) -> String {
        let style = Style {
            color: false,
            width: WIDTH,
        };
        report::text::render(&self.report, style)
    }

    /// The report as JSON.
    pub fn json(&self) -> String {
        report::json::render(&self.report)
    }

    /// The first finding as a picture.
    pub fn svg(&self) -> String {
        report::svg::render(&self.report)
    }

    /// To standard output, in colour on a terminal.
    pub fn print(&self) {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let style = Style {
            color,
            width: WIDTH,
        };
        let text = report::text::render(&self.report, style);
        match std::io::stdout().write_all(text.as_bytes()) {
            // Whoever read it has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => log::warn!("the report could not be shown: {error}"),
            Ok(()) => {}
        }
    }
}

/// Judge the records of a journal. Images and symbols are looked for in
/// `folder`; `driver` and `scenario` are for the line that repeats the run.
pub fn judge(
    records: &[Record],
    tail: Tail,
    folder: &Path,
    driver: &Path,
    scenario: Option<&Path>,
) -> Shown {
    let mut symbolizer = Symbolizer::new();
    for record in records {
        if let Event::Module(module) = &record.event {
            symbolizer.add_module(symbols::Module {
                name: module.name.clone(),
                base: module.base,
                size: u64::from(module.size),
                symbols: symbols_of(module, folder),
            });
        }
    }
    let repeat = records.iter().find_map(|record| match &record.event {
        Event::Begin(begin) => Some(reproduce::line(begin, driver, scenario)),
        _ => None,
    });
    let meta = Meta {
        reproduce: repeat,
        tail,
    };
    Shown {
        report: Report::build(records, &symbolizer, meta),
        symbolizer,
    }
}

/// The symbols of an image, if its PDB lies in `folder`, by the name that
/// the image gives it or by the image's own.
fn symbols_of(module: &journal::event::Module, folder: &Path) -> Option<SymbolTable> {
    let wanted = module.pdb.as_ref()?;
    // Names come from a journal: only their last part is a name.
    let own = Path::new(&module.name).file_name()?;
    let theirs = Path::new(&wanted.name).file_name()?;
    for path in [folder.join(theirs), folder.join(own).with_extension("pdb")] {
        if !path.is_file() {
            continue;
        }
        match SymbolTable::from_pdb_file(&path) {
            Ok(table) if table.pdb_id() == (wanted.guid, wanted.age) => return Some(table),
            Ok(_) => log::warn!(
                "{} belongs to another build of {}: stacks have no names",
                path.display(),
                module.name
            ),
            Err(error) => log::warn!("{}: {error}: stacks have no names", path.display()),
        }
    }
    None
}

/// Read a journal whole; a torn one up to its tear.
pub fn read(path: &Path) -> Result<(Vec<Record>, Tail), CliError> {
    if path.is_dir() {
        return Err(CliError::Directory(path.to_owned()));
    }
    let file = File::open(path).map_err(|error| CliError::Read {
        path: path.to_owned(),
        error,
    })?;
    let (records, tail) =
        journal::read(BufReader::new(file)).map_err(|error| CliError::Journal {
            path: path.to_owned(),
            error,
        })?;
    if let Tail::Torn { at, lost, why } = &tail {
        log::warn!(
            "{}: torn at byte {at}: {why}; {lost} bytes are left aside",
            path.display()
        );
    }
    Ok((records, tail))
}

/// Where images, symbols and the scenario of a journal are.
fn folder(arguments: &Show) -> PathBuf {
    match &arguments.symbols {
        Some(folder) => folder.clone(),
        None => arguments
            .journal
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default(),
    }
}

fn shown(arguments: &Show, records: &[Record], tail: Tail) -> Shown {
    let folder = folder(arguments);
    let name = records.iter().find_map(|record| match &record.event {
        Event::Begin(begin) => Path::new(&begin.driver).file_name().map(PathBuf::from),
        _ => None,
    });
    let driver = folder.join(name.unwrap_or_else(|| PathBuf::from("driver.sys")));
    let scenario = folder.join(files::SCENARIO);
    let scenario = scenario.is_file().then_some(scenario);
    let mut shown = judge(records, tail, &folder, &driver, scenario.as_deref());
    if let Some(plan) = scenario.and_then(|path| plan_of(&path, records)) {
        faults::ask_of(&mut shown, &plan, records, None);
    }
    shown
}

/// The scenario beside a journal, if it is the one that was run.
fn plan_of(path: &Path, records: &[Record]) -> Option<Plan> {
    let begin = records.iter().find_map(|record| match &record.event {
        Event::Begin(begin) => Some(begin),
        _ => None,
    })?;
    let bytes = files::read(path, run::MAX_SCENARIO).ok()?;
    let plan = Plan::parse(&String::from_utf8_lossy(&bytes)).ok()?;
    (plan.name == begin.scenario && plan.seed == begin.seed).then_some(plan)
}

fn finish(
    arguments: &Show,
    ready: &Ready<'_>,
    records: &[Record],
    tail: Tail,
) -> Result<u8, CliError> {
    let mut shown = shown(arguments, records, tail);
    ready.judge(&mut shown);
    ready.tell(&shown, records)?;
    Ok(shown.exit_code())
}

/// Show the findings of a journal.
pub fn report(arguments: &Show) -> Result<u8, CliError> {
    let ready = Ready::new(&arguments.gate, arguments.json.as_deref())?;
    let (records, tail) = read(&arguments.journal)?;
    finish(arguments, &ready, &records, tail)
}

/// Check a journal against a rebuilt IOMMU, and show the findings of what
/// that one does.
pub fn replay(arguments: &Show) -> Result<u8, CliError> {
    let ready = Ready::new(&arguments.gate, arguments.json.as_deref())?;
    let (records, tail) = read(&arguments.journal)?;
    let replayed = replay::replay(&records).map_err(|error| CliError::Replay {
        path: arguments.journal.clone(),
        error,
    })?;
    let code = finish(arguments, &ready, &replayed.records, tail)?;
    let verdict = if replayed.differing == 0 {
        "no difference".to_owned()
    } else {
        format!("{} of them differ", replayed.differing)
    };
    eprintln!(
        "replay: {} accesses translated anew, {} words of the IOMMU compared: {verdict}",
        replayed.accesses, replayed.compared
    );
    if replayed.edited != 0 {
        eprintln!(
            "replay: {} table entries were not what the operating system had last written",
            replayed.edited
        );
    }
    for difference in &replayed.differences {
        eprintln!("replay: {difference}");
    }
    // A journal that its own inputs do not explain proves nothing.
    Ok(if replayed.differing == 0 { code } else { 1 })
}
