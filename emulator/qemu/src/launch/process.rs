//! QEMU's process, and those it needs.

use super::{Firmware, LaunchError, Plan};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

impl Plan {
    pub(super) fn is_secure(&self) -> bool {
        self.description.machine.firmware == Firmware::UefiSecure
    }

    /// This machine's own UEFI variables.
    pub(super) fn variables(&self) -> PathBuf {
        self.out.join("uefi-variables.fd")
    }

    pub(super) fn tpm(&self) -> PathBuf {
        self.out.join("tpm.sock")
    }
}

/// A running QEMU. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    qemu: Child,
    tpm: Option<Child>,
    sockets: Vec<PathBuf>,
}

impl Process {
    pub(super) fn start(plan: &Plan) -> Result<Self, LaunchError> {
        let sockets = vec![plan.qmp(), plan.serial(), plan.tpm()];
        for socket in &sockets {
            vacate(socket)?;
        }
        if let Some((_, variables)) = &plan.firmware
            && !plan.variables().exists()
        {
            fs::copy(variables, plan.variables()).map_err(|error| LaunchError::Read {
                path: variables.clone(),
                error,
            })?;
        }
        if let Some((path, table)) = plan.viot() {
            fs::write(&path, table).map_err(|error| LaunchError::Write { path, error })?;
        }
        let tpm = match &plan.swtpm {
            Some(program) => Some(start_tpm(program, plan)?),
            None => None,
        };
        let machine = &plan.description.machine;
        let takes_turns = plan.description.takes_turns(plan.kvm);
        if machine.one_cpu.unwrap_or(takes_turns) {
            stay();
        }
        let line = plan.command();
        let (program, arguments) = line
            .split_first()
            .map_or((&line[..], &[][..]), |(p, a)| (std::slice::from_ref(p), a));
        let program = program.first().map(PathBuf::from).unwrap_or_default();
        let qemu = spawn(&program, arguments, &plan.log())?;
        // For who must end it by hand; nothing here needs it.
        let _ = fs::write(plan.out.join("qemu.pid"), format!("{}\n", qemu.id()));
        Ok(Self { qemu, tpm, sockets })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.qemu.id()
    }

    /// Does it run?
    pub fn is_alive(&mut self) -> bool {
        matches!(self.qemu.try_wait(), Ok(None))
    }

    /// How it ended; a QEMU that does not end by itself within some seconds
    /// is made to.
    pub fn end(&mut self) -> Option<ExitStatus> {
        end(&mut self.qemu)
    }

    /// Wait a moment for it to end by itself.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.qemu.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.qemu);
        if let Some(tpm) = &mut self.tpm {
            end(tpm);
        }
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Keep this thread, which will serve, and what it starts on the CPU where it
/// is: to wake a thread there is a switch, on another CPU an interrupt, which
/// in a virtual machine costs ten times as much.
fn stay() {
    let (here, mut only) = (sched_getcpu(), CpuSet::new());
    if here >= CpuSet::MAX_CPU {
        return;
    }
    only.set(here);
    if let Err(error) = sched_setaffinity(None, &only) {
        log::debug!("QEMU and its device cannot be kept on one CPU: {error}");
    }
}

/// Ask it to end, then make it.
fn end(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    if let Some(pid) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    child.wait().ok()
}

fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Child, LaunchError> {
    let failed = |error| LaunchError::Start {
        program: program.to_owned(),
        error,
    };
    let log = File::create(log).map_err(failed)?;
    let other = log.try_clone().map_err(failed)?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(other)
        .spawn()
        .map_err(failed)
}

fn start_tpm(program: &Path, plan: &Plan) -> Result<Child, LaunchError> {
    let state = plan.out.join("tpm");
    fs::create_dir_all(&state).map_err(|error| LaunchError::Read {
        path: state.clone(),
        error,
    })?;
    let arguments = [
        "socket".to_owned(),
        "--tpm2".to_owned(),
        "--terminate".to_owned(),
        "--tpmstate".to_owned(),
        format!("dir={}", state.display()),
        "--ctrl".to_owned(),
        format!("type=unixio,path={}", plan.tpm().display()),
    ];
    let child = spawn(program, &arguments, &plan.out.join("swtpm.log"))?;
    let until = Instant::now() + PATIENCE;
    while !plan.tpm().exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

/// Take away the socket that a run left that was killed; not one that
/// somebody serves.
///
/// # Errors
/// [`LaunchError::InUse`].
pub fn vacate(socket: &Path) -> Result<(), LaunchError> {
    if UnixStream::connect(socket).is_ok() {
        return Err(LaunchError::InUse(socket.to_owned()));
    }
    let _ = fs::remove_file(socket);
    Ok(())
}
