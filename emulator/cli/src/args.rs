//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use windows::dxgk::IommuFlags;

/// Catches a GPU driver's device touching memory that the driver no longer
/// owns.
///
/// Exit codes: 0 clean; 1 findings that are neither suppressed nor known, or
/// the driver failed to start, refused a step of the workload, stopped Windows
/// or hung; 2 bad usage or input; 3 could not run; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "dmasan", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a display driver in a small KVM machine against a virtio-gpu
    /// behind an emulated VT-d, and report what its device must not do
    Run(Run),
    /// Run a driver in every order of device against driver, up to a bound on
    /// deviations from the default, and give the shortest that shows a defect
    Explore(Explore),
    /// Run a driver again and again, with what programs send it, what the
    /// device answers and the faults of Windows, IOMMU and device mutated, and
    /// keep what shows a defect
    Fuzz(crate::fuzz::Fuzz),
    /// Join the results of explorations that were shared among machines, and
    /// say which parts are missing or not whole
    Merge(Merge),
    /// Show the findings of a journal
    Report(Show),
    /// Rebuild the IOMMU from a journal, without driver or KVM, check every
    /// access against it, and show the findings
    Replay(Show),
    /// Say what can be said of a driver without provoking its defects: the
    /// HLK's import gate, sections, what dmasan lacks, its INF, its caps
    Lint(Lint),
    /// Print the rules that a driver is held to: source, how sure, what Windows
    /// does on a breach
    Rules {
        /// One rule; without it all, as a Markdown table
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Say what a finding means, why it matters and how to mend it
    Explain {
        /// The finding; without one they are listed
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Start a QEMU guest with our GPU as a vfio-user device, and report what
    /// the device did that the guest's IOMMU forbids
    Qemu(crate::qemu::Qemu),
    /// Ask a running QEMU machine: make its GPU misbehave, list what it may
    /// reach, take a picture
    Ctl(crate::qemu::Ctl),
    /// Look at scenario files
    Scenario {
        /// What to do.
        #[command(subcommand)]
        command: ScenarioCommand,
    },
    /// Look at a running QEMU machine: which pages its GPU can reach, which of
    /// them are its business, and whether anything else is really refused
    Audit(crate::audit::Audit),
    /// Check that this host can run dmasan
    Doctor,
}

/// `dmasan scenario`.
#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Say what is wrong with a scenario file, with the line
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// The driver, in whose PDB callers are looked up
        #[arg(long, value_name = "DRIVER.sys")]
        driver: Option<PathBuf>,
    },
}

/// What the device may reach.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Domain {
    /// Everything: no isolation
    Passthrough,
    /// Only what the driver was given for it, as WDDM 2.4 isolation does
    Isolation,
    /// All of RAM, through the tables of a domain: isolation forced at start
    /// by IOMMUFlags 7
    IsolationForced,
}

/// Whether memory to save the frame buffer to is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FramebufferPin {
    /// It can be pinned whole
    Succeed,
    /// It cannot: the driver has to map it piece by piece
    Fail,
}

/// A driver, and everything that shapes a run of it.
#[derive(Clone, Debug, Args)]
pub struct Subject {
    /// The driver: a native x64 .sys file
    #[arg(value_name = "DRIVER.sys")]
    pub driver: PathBuf,

    /// Set a registry value of the device's software key (a number becomes
    /// REG_DWORD, anything else REG_SZ)
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,

    /// What the device may reach (default: isolation, or what --iommu-flags
    /// comes to)
    #[arg(long, value_enum)]
    pub domain: Option<Domain>,

    /// The registry value IOMMUFlags: 1 make a domain, 2 map all of RAM in it,
    /// 4 attach it, 8 although the driver does not report the cap, 16 go on if
    /// that fails
    ///
    /// The bits 8 and 16 go with any --domain; the others say what the domain
    /// is.
    #[arg(long, value_name = "N", value_parser = iommu_flags)]
    pub iommu_flags: Option<u32>,

    /// Does DxgkCbPinFrameBufferForSave find the memory?
    #[arg(long, value_enum, default_value = "succeed")]
    pub framebuffer_pin: FramebufferPin,

    /// Seed of the frames drawn and of the driver's random bytes (below 2^63,
    /// as TOML has it)
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,

    /// Choices and workload, as a TOML file
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,

    /// Record what Windows would stop at, and go on
    #[arg(long)]
    pub keep_going: bool,

    /// Freed pages held back from reuse (0: reused at once)
    #[arg(long, value_name = "PAGES", default_value_t = machine::DEFAULT_QUARANTINE)]
    pub quarantine: u64,

    /// Guest memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = machine::DEFAULT_MEMORY >> 20,
          value_parser = clap::value_parser!(u64).range(16..=65536))]
    pub memory: u64,
}

/// `dmasan run`.
#[derive(Debug, Args)]
pub struct Run {
    /// What to run.
    #[command(flatten)]
    pub subject: Subject,

    /// Seconds of the host's time after which a run that does not end is a
    /// hang
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub timeout: u64,

    /// Where journal, reports and pictures go
    #[arg(long, value_name = "DIR", default_value = "dmasan-out")]
    pub out: PathBuf,

    /// Write the report as JSON there too (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// For CI.
    #[command(flatten)]
    pub gate: Gate,
}

/// `dmasan explore`.
#[derive(Debug, Args)]
pub struct Explore {
    /// What to run.
    #[command(flatten)]
    pub subject: Subject,

    /// Most deviations of a schedule from the default order
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=8))]
    pub bound: u32,

    /// Workers (default: one for each processor)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,

    /// End after so many seconds of the host's time, with what was found
    #[arg(long, value_name = "SECONDS")]
    pub budget: Option<u64>,

    /// Explore the I-th of N parts, I from 0; `dmasan merge` joins their
    /// results
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub shard: Option<(u32, u32)>,

    /// Let each allocation and mapping fail too
    #[arg(long)]
    pub fail_nth: bool,

    /// Run equivalent schedules too
    #[arg(long)]
    pub no_reduction: bool,

    /// Where results go, and whence they are taken up again: a run that was
    /// interrupted goes on
    #[arg(long, value_name = "DIR", default_value = "dmasan-explore")]
    pub out: PathBuf,

    /// Write the results as JSON there too (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the results as JUnit XML there (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// `dmasan merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// Folders of `dmasan explore --shard`, one for each shard
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,

    /// Where each defect's scenario goes
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Write the results as JSON there too (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the results as JUnit XML there (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// What a CI job asks of a report.
#[derive(Debug, Args)]
pub struct Gate {
    /// Write the report as JUnit XML there (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Write the report as SARIF 2.1.0 there (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub sarif: Option<PathBuf>,

    /// Findings that may be, as a TOML file of `suppress` tables, each with
    /// finding, function (a name or a pattern with * and ?) and reason
    ///
    /// What they cover does not fail the run, and is told in a line; those
    /// that cover nothing are told too. A bug check that ended the run fails
    /// it all the same.
    #[arg(long, value_name = "FILE")]
    pub suppressions: Option<PathBuf>,

    /// Findings that are known: an earlier report.json; only others fail
    #[arg(long, value_name = "JSON")]
    pub baseline: Option<PathBuf>,

    /// Tell first what driver, Windows and device did, in virtual time
    #[arg(short, long, visible_alias = "trace")]
    pub verbose: bool,
}

/// `dmasan report` and `dmasan replay`.
#[derive(Debug, Args)]
pub struct Show {
    /// The journal, as a run left it
    #[arg(value_name = "JOURNAL")]
    pub journal: PathBuf,

    /// Where the driver's .pdb is (default: beside the journal)
    #[arg(long, value_name = "DIR")]
    pub symbols: Option<PathBuf>,

    /// Write the report as JSON there (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// For CI.
    #[command(flatten)]
    pub gate: Gate,
}

/// `dmasan lint`.
#[derive(Debug, Args)]
pub struct Lint {
    /// The driver: a native x64 .sys file
    #[arg(value_name = "DRIVER.sys")]
    pub driver: PathBuf,

    /// Its INF (default: the one with the driver's name beside it)
    #[arg(long, value_name = "FILE")]
    pub inf: Option<PathBuf>,
}

fn iommu_flags(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").map(|hex| (hex, 16));
    let (digits, radix) = digits.unwrap_or((text, 10));
    match u32::from_str_radix(digits, radix) {
        Ok(flags) if flags & !IommuFlags::ALL == 0 => Ok(flags),
        _ => Err(format!("write a number up to {}", IommuFlags::ALL)),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn shard(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('/').and_then(|(index, of)| {
        let (index, of) = (index.parse().ok()?, of.parse().ok()?);
        (index < of && of <= 1 << 20).then_some((index, of))
    });
    parts.ok_or_else(|| "write I/N with I from 0 to N-1".to_owned())
}
