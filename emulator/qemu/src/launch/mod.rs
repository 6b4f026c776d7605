//! Starting QEMU from a machine description: what the description says, what
//! must be true before it can start, the command line, the process.

mod checks;
mod command;
mod description;
mod process;
mod viot;

pub use description::{Accelerator, Description, Firmware, Iommu};
pub use process::{Process, vacate};

use crate::server::ServeConfig;
use memory::RequesterId;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Longest path of a Unix socket (`sun_path`, with its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Slot of the machine's virtio-iommu, QEMU's or ours: none that q35 or a GPU
/// takes.
const IOMMU_SLOT: u8 = 30;

/// Why a machine cannot be started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The description cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file for the machine cannot be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The description is none.
    #[error("{path}: {why}")]
    Description {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No QEMU that serves.
    #[error("{0}; scripts/get-qemu puts one into a folder of its own")]
    Qemu(String),
    /// A file that the machine needs is not there.
    #[error("{what} {path} does not exist: {remedy}")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What to do.
        remedy: String,
    },
    /// The host has no KVM, and the machine needs it.
    #[error("{0}")]
    Kvm(String),
    /// A socket's path is too long.
    #[error("{0} is too long for a socket ({MAX_SOCKET_PATH} bytes at most): give a shorter --out")]
    LongPath(PathBuf),
    /// Somebody else serves there.
    #[error("{0} is in use by another dmasan: end that one, or give another --out")]
    InUse(PathBuf),
    /// A program cannot be started.
    #[error("cannot start {program}: {error}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A machine that can be started: every check is passed.
#[derive(Clone, Debug)]
pub struct Plan {
    description: Description,
    qemu: PathBuf,
    version: String,
    /// Can QEMU be told to end when we do, however that comes?
    ends_with_us: bool,
    kvm: bool,
    firmware: Option<(PathBuf, PathBuf)>,
    swtpm: Option<PathBuf>,
    out: PathBuf,
}

impl Plan {
    /// Check what `description` needs. `out` is the folder for sockets and
    /// logs; `qemu` names a program to use and no other.
    ///
    /// # Errors
    /// [`LaunchError`]: the first thing that is missing.
    pub fn new(
        description: Description,
        out: &Path,
        qemu: Option<&Path>,
    ) -> Result<Self, LaunchError> {
        let out = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
        let (qemu, version) = checks::find_qemu(qemu)?;
        let ends_with_us = checks::ends_with_parent(&qemu);
        let kvm = checks::kvm(description.machine.accelerator)?;
        checks::files(&description)?;
        let prefix = qemu.parent().map(Path::to_owned).unwrap_or_default();
        let firmware = checks::firmware(description.machine.firmware, &prefix)?;
        let swtpm = match description.machine.tpm {
            true => Some(checks::find_swtpm(&prefix)?),
            false => None,
        };
        let plan = Self {
            description,
            qemu,
            version,
            ends_with_us,
            kvm,
            firmware,
            swtpm,
            out,
        };
        let sockets = [plan.socket(), plan.control(), plan.qmp(), plan.serial()];
        for socket in sockets.into_iter().chain(plan.iommu_socket()) {
            if socket.as_os_str().len() > MAX_SOCKET_PATH {
                return Err(LaunchError::LongPath(socket));
            }
        }
        Ok(plan)
    }

    /// What it is a plan of.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What QEMU says its version is, and how it will run the guest.
    #[must_use]
    pub fn summary(&self) -> String {
        let accelerator = if self.kvm { "KVM" } else { "TCG" };
        format!("QEMU {}, {accelerator}", self.version)
    }

    /// The vfio-user socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.out.join("gpu.sock")
    }

    /// That of our virtio-iommu, if the machine has it.
    #[must_use]
    pub fn iommu_socket(&self) -> Option<PathBuf> {
        self.iommu().map(|_| self.out.join("iommu.sock"))
    }

    /// Requester id of our virtio-iommu, if the machine has it.
    fn iommu(&self) -> Option<RequesterId> {
        let ours = self.description.iommu == Iommu::OurVirtio;
        ours.then_some(RequesterId::new(0, IOMMU_SLOT, 0))
    }

    fn gpu(&self) -> RequesterId {
        RequesterId::new(0, self.description.gpu.slot, 0)
    }

    /// The ACPI table that tells the guest of our virtio-iommu: its file and
    /// its content.
    fn viot(&self) -> Option<(PathBuf, Vec<u8>)> {
        let table = viot::table(self.iommu()?, self.gpu());
        Some((self.out.join("viot.bin"), table))
    }

    /// The control socket: see [`crate::control`].
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.out.join("control.sock")
    }

    /// QEMU's own control socket.
    #[must_use]
    pub fn qmp(&self) -> PathBuf {
        self.out.join("qmp.sock")
    }

    /// Where an audit looks.
    #[must_use]
    pub fn place(&self) -> crate::audit::Place {
        crate::audit::Place {
            monitor: self.qmp(),
            iommu: self.description.iommu,
        }
    }

    /// The guest's serial console; what it prints is in `serial.log` too.
    #[must_use]
    pub fn serial(&self) -> PathBuf {
        self.out.join("serial.sock")
    }

    /// What to serve it.
    #[must_use]
    pub fn serve_config(&self) -> ServeConfig {
        let gpu = &self.description.gpu;
        ServeConfig {
            name: self.description.name.clone(),
            device: self.gpu(),
            iommu: self.iommu(),
            displays: gpu.displays.iter().map(|&[x, y]| (x, y)).collect(),
            memory: self.description.machine.memory << 20,
            require_access_platform: self.description.iommu != Iommu::None,
            blobs: gpu.blobs,
            ..ServeConfig::default()
        }
    }

    /// The command line, program first.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        command::line(self)
    }

    /// The command line as a shell reads it.
    #[must_use]
    pub fn shell_line(&self) -> String {
        let words = self.command();
        let words: Vec<String> = words.iter().map(|word| command::quoted(word)).collect();
        words.join(" ")
    }

    /// The end of what QEMU said, for who asks why it ended.
    #[must_use]
    pub fn last_words(&self) -> String {
        const LINES: usize = 8;
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(LINES)..)
            .unwrap_or_default()
            .join("\n")
    }

    fn log(&self) -> PathBuf {
        self.out.join("qemu.log")
    }

    /// Start it. Its own messages go to `qemu.log` in the folder.
    ///
    /// # Errors
    /// [`LaunchError::Start`], [`LaunchError::InUse`].
    pub fn start(&self) -> Result<Process, LaunchError> {
        Process::start(self)
    }
}
