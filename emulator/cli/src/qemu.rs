//! `dmasan qemu` and `dmasan ctl`.

use crate::error::CliError;
use crate::gate::Ready;
use crate::{args::Gate, faults, files, show};
use ::qemu::audit::Place;
use ::qemu::launch::{Description, Iommu, Plan, Process};
use ::qemu::{Ended, Handle, ServeConfig, ServeError, Server, control};
use clap::Args;
use journal::Journal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the end of the time is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// The last picture.
const PICTURE: &str = "scanout-0.png";

/// `dmasan qemu`.
#[derive(Debug, Args)]
pub struct Qemu {
    /// The machine: a description from qemu-configs
    #[arg(value_name = "CONFIG.toml")]
    pub config: PathBuf,

    /// Check what the machine needs, print QEMU's command line, start nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Inject the faults of a scenario file, and judge the findings by what it
    /// verifies (docs/faults.md)
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,

    /// The QEMU to use (default: $DMASAN_QEMU, that of scripts/get-qemu, the
    /// system's)
    #[arg(long, value_name = "PROGRAM")]
    pub qemu: Option<PathBuf>,

    /// End the guest after so many seconds (default: when it powers off)
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub seconds: Option<u64>,

    /// Where journal, reports, logs, pictures and sockets go
    #[arg(long, value_name = "DIR", default_value = "dmasan-out")]
    pub out: PathBuf,

    /// Write the report as JSON there too (- for standard output)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// For CI.
    #[command(flatten)]
    pub gate: Gate,
}

/// `dmasan ctl`.
#[derive(Debug, Args)]
pub struct Ctl {
    /// The control socket: control.sock in the folder of a running machine
    #[arg(value_name = "SOCKET")]
    pub socket: PathBuf,

    /// What to do. The device accesses memory, whether it may or not: read
    /// IOVA LENGTH, write IOVA HEX; QEMU does it for the device: peer-read,
    /// peer-write. It uses what the driver took back: replay RESOURCE (a
    /// former backing), former-rings QUEUE (the rings before the last reset),
    /// hold IOVA LENGTH and then late-read, late-write (a translation that was
    /// unmapped). stall: it does nothing until resume. Lists: domains, mappings, resources, findings. frame SCANOUT
    /// FILE (a PNG file), qmp JSON
    #[arg(value_name = "WORD", required = true)]
    pub words: Vec<String>,
}

/// Ask a running machine.
pub fn ctl(arguments: &Ctl) -> Result<u8, CliError> {
    if arguments.words == ["findings"] {
        return findings(&arguments.socket);
    }
    let answer =
        control::ask(&arguments.socket, &arguments.words).map_err(|error| CliError::Control {
            path: arguments.socket.clone(),
            error,
        })?;
    print!("{answer}");
    Ok(u8::from(answer.starts_with("error: ")))
}

/// What the journal of a running machine shows so far.
fn findings(socket: &Path) -> Result<u8, CliError> {
    let folder = socket.parent().unwrap_or(Path::new(""));
    let (records, tail) = show::read(&folder.join("journal"))?;
    let shown = show::judge(&records, tail, folder, Path::new("guest"), None);
    shown.print();
    Ok(0)
}

/// Start a machine and serve its GPU; the exit code.
pub fn qemu(arguments: &Qemu) -> Result<u8, CliError> {
    let ready = Ready::new(&arguments.gate, arguments.json.as_deref())?;
    let description = Description::read(&arguments.config).map_err(CliError::Launch)?;
    let plan = Plan::new(description, &arguments.out, arguments.qemu.as_deref())
        .map_err(CliError::Launch)?;
    let scenario = Scenario::read(arguments.scenario.as_deref(), &plan)?;
    if arguments.dry_run {
        println!("{}", plan.shell_line());
        return Ok(0);
    }
    files::folder(&arguments.out)?;
    // First: what lies there may be a running machine's.
    let sockets = Sockets::new(&plan)?;
    let kept = Scenario::keep(scenario.as_ref(), &arguments.out)?;
    let journal_path = arguments.out.join("journal");
    let file = File::create(&journal_path).map_err(|error| CliError::Write {
        path: journal_path.clone(),
        error,
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::new(AtomicBool::new(false));
    let (flag, why) = (stop.clone(), interrupted.clone());
    if let Err(error) = ctrlc::set_handler(move || {
        why.store(true, Ordering::Relaxed);
        flag.store(true, Ordering::Relaxed);
    }) {
        log::warn!("Ctrl-C will end the run without a report: {error}");
    }
    let config = ServeConfig {
        plan: scenario.as_ref().map(|scenario| scenario.plan.clone()),
        ..plan.serve_config()
    };
    let mut server = Server::new(&config, Journal::to_file(file)).map_err(CliError::Serve)?;
    let served = run(&plan, &sockets, &mut server, arguments.seconds, &stop);
    if let Some(frame) = server.frame(0) {
        let png = frame.png().map_err(|e| CliError::Report(e.to_string()))?;
        files::write(&arguments.out.join(PICTURE), &png)?;
    }
    let (records, tail) = show::read(&journal_path)?;
    let machine = &arguments.config;
    let mut shown = show::judge(&records, tail, &arguments.out, machine, kept.as_deref());
    if let Some(scenario) = &scenario {
        faults::ask_of(&mut shown, &scenario.plan, &records, None);
    }
    ready.judge(&mut shown);
    files::write(&arguments.out.join("report.txt"), shown.plain().as_bytes())?;
    files::write(&arguments.out.join("report.json"), shown.json().as_bytes())?;
    files::write(&arguments.out.join("report.svg"), shown.svg().as_bytes())?;
    ready.tell(&shown, &records)?;
    // What was found is told even if the guest came to a bad end.
    served?;
    Ok(if interrupted.load(Ordering::Relaxed) {
        130
    } else {
        u8::from(!shown.passes())
    })
}

/// A scenario, and its text.
struct Scenario {
    plan: scenario::Plan,
    text: String,
}

impl Scenario {
    /// Read one, and see whether it can be a guest's.
    fn read(path: Option<&Path>, machine: &Plan) -> Result<Option<Self>, CliError> {
        let Some(path) = path else {
            return Ok(None);
        };
        let bytes = files::read(path, crate::run::MAX_SCENARIO)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let ours = machine.description().iommu == Iommu::OurVirtio;
        let plan = scenario::Plan::parse(&text).and_then(|plan| {
            faults::check(&plan)?;
            ::qemu::check_plan(&plan, ours)?;
            Ok(plan)
        });
        let plan = plan.map_err(|error| CliError::Scenario {
            path: path.to_owned(),
            error,
        })?;
        Ok(Some(Self { plan, text }))
    }

    /// Keep it beside the journal; where.
    fn keep(scenario: Option<&Self>, out: &Path) -> Result<Option<PathBuf>, CliError> {
        let path = out.join(files::SCENARIO);
        match scenario {
            Some(scenario) => {
                files::write(&path, scenario.text.as_bytes())?;
                Ok(Some(path))
            }
            None => {
                files::forget(&path)?;
                Ok(None)
            }
        }
    }
}

/// From the start of QEMU to its end.
fn run(
    plan: &Plan,
    sockets: &Sockets,
    server: &mut Server,
    seconds: Option<u64>,
    stop: &Arc<AtomicBool>,
) -> Result<(), CliError> {
    let gpu = Server::listen(&sockets.device).map_err(CliError::Serve)?;
    // QEMU comes to the IOMMU first, and to the GPU while it talks to that.
    let iommu = match &sockets.iommu {
        Some(path) => Some(Server::listen(path).map_err(CliError::Serve)?),
        None => None,
    };
    let mut process = plan.start().map_err(CliError::Launch)?;
    eprintln!("{}, process {}", plan.summary(), process.id());
    let stream = {
        let mut alive = || process.is_alive() && !stop.load(Ordering::Relaxed);
        let first = iommu.as_ref().unwrap_or(&gpu);
        Server::accept(first, &mut alive).map_err(CliError::Serve)?
    };
    let Some(stream) = stream else {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        return Err(ended_early(plan, &mut process));
    };
    listen_for_orders(&sockets.control, server.handle(), plan.place());
    if let Some(seconds) = seconds {
        end_after(Duration::from_secs(seconds), stop.clone());
    }
    eprintln!("serial console: {}", plan.serial().display());
    // A second QEMU finds nobody to talk to.
    let served = if iommu.is_some() {
        drop(iommu);
        server.serve_both(stream, gpu, stop)
    } else {
        drop(gpu);
        server.serve(stream, stop)
    };
    match served {
        Ok(Ended::Stopped) => Ok(()),
        Ok(Ended::Closed) => match process.wait() {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(ended_early(plan, &mut process)),
            None => Ok(()),
        },
        Err(error @ ServeError::Torn { .. }) if process.wait().is_some() => {
            log::warn!("{error}");
            Err(ended_early(plan, &mut process))
        }
        Err(error) => Err(CliError::Serve(error)),
    }
}

fn listen_for_orders(path: &Path, handle: Handle, place: Place) {
    if let Err(error) = control::serve(path, handle, place) {
        log::warn!("{}: {error}: dmasan ctl will not work", path.display());
    }
}

fn end_after(time: Duration, stop: Arc<AtomicBool>) {
    let until = Instant::now() + time;
    std::thread::spawn(move || {
        while Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// QEMU ended with a failure: its own last words say why.
fn ended_early(plan: &Plan, process: &mut Process) -> CliError {
    let status = process.end().map_or_else(
        || "without a status".to_owned(),
        |status| status.to_string(),
    );
    CliError::QemuEnded {
        status,
        words: plan.last_words(),
    }
}

/// The sockets that dmasan serves; they go with it.
struct Sockets {
    device: PathBuf,
    iommu: Option<PathBuf>,
    control: PathBuf,
}

impl Sockets {
    /// None of them is anybody's by now.
    fn new(plan: &Plan) -> Result<Self, CliError> {
        let sockets = (plan.socket(), plan.iommu_socket(), plan.control());
        let (device, iommu, control) = sockets;
        // That of a device that is served has no listener any more: whether
        // somebody serves says the other.
        for socket in [&control, &device].into_iter().chain(&iommu) {
            ::qemu::launch::vacate(socket).map_err(CliError::Launch)?;
        }
        Ok(Self {
            device,
            iommu,
            control,
        })
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for socket in [&self.device].into_iter().chain(&self.iommu) {
            let _ = std::fs::remove_file(socket);
        }
        let _ = std::fs::remove_file(&self.control);
    }
}
