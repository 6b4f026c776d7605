//! Machine descriptions: TOML files that a person writes.

use super::LaunchError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Longest description, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Guest memory, MiB.
const MEMORY: std::ops::RangeInclusive<u64> = 64..=1 << 20;
/// Slots of bus 0 that q35 leaves to others.
const SLOTS: std::ops::RangeInclusive<u8> = 1..=29;

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// Its name, for journal and reports.
    pub name: String,
    /// The guest's IOMMU.
    pub iommu: Iommu,
    /// The board.
    #[serde(default)]
    pub machine: Machine,
    /// The device under test.
    #[serde(default)]
    pub gpu: Gpu,
    /// What it boots.
    #[serde(default)]
    pub boot: Boot,
    /// Options that are passed to QEMU as they are.
    #[serde(default)]
    pub extra: Vec<String>,
}

/// Which IOMMU the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Iommu {
    /// QEMU's VT-d.
    Intel,
    /// QEMU's virtio-iommu.
    Virtio,
    /// Our own virtio-iommu: the guest finds it by an ACPI table, which Linux
    /// reads and Windows does not.
    OurVirtio,
    /// None: the device reaches all of memory.
    None,
}

impl Iommu {
    /// Its name.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Intel => "QEMU's VT-d",
            Self::Virtio => "QEMU's virtio-iommu",
            Self::OurVirtio => "dmasan's virtio-iommu",
            Self::None => "none",
        }
    }
}

/// How QEMU runs the guest's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// KVM where it can be used, else TCG.
    #[default]
    Auto,
    /// KVM and nothing else.
    Kvm,
    /// QEMU's own translator: slow, and works everywhere.
    Tcg,
}

/// What starts the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// QEMU's SeaBIOS.
    #[default]
    Bios,
    /// UEFI, Secure Boot off.
    Uefi,
    /// UEFI with Microsoft's keys, Secure Boot on.
    UefiSecure,
}

/// The board.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Machine {
    /// Guest memory, MiB.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// CPU model; QEMU's default if empty.
    pub cpu: String,
    /// Keep QEMU and the device on one CPU of the host? Unless it is said:
    /// where their threads take turns anyway ([`Description::takes_turns`]),
    /// because they hand over faster there.
    pub one_cpu: Option<bool>,
    /// How the guest's code runs.
    pub accelerator: Accelerator,
    /// What starts it.
    pub firmware: Firmware,
    /// A TPM 2.0, by swtpm?
    pub tpm: bool,
    /// A plain VGA beside our GPU, for the installation?
    pub vga: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            memory: 512,
            cpus: 1,
            cpu: String::new(),
            one_cpu: None,
            accelerator: Accelerator::Auto,
            firmware: Firmware::Bios,
            tpm: false,
            vga: false,
        }
    }
}

/// The device under test.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Gpu {
    /// Its slot on bus 0: device 00:SLOT.0.
    pub slot: u8,
    /// Preferred sizes of its displays, pixels.
    pub displays: Vec<[u32; 2]>,
    /// Offer blob resources, whose pictures the device reads by itself?
    pub blobs: bool,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            slot: 1,
            displays: vec![[1024, 768]],
            blobs: true,
        }
    }
}

/// What a machine boots. Paths are relative to the description's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Boot {
    /// A Linux kernel.
    pub kernel: Option<PathBuf>,
    /// Its initramfs.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub append: String,
    /// A disk image (qcow2).
    pub disk: Option<PathBuf>,
    /// Images for CD drives.
    pub cdroms: Vec<PathBuf>,
    /// How to get these files, for who has not.
    pub remedy: String,
}

impl Description {
    /// Does one thread wait for the other nearly always? So it is without KVM,
    /// with one virtual CPU, behind a remapping unit of QEMU's: that CPU waits
    /// for the answer to each mapping, which QEMU has a thread of its own for.
    #[must_use]
    pub fn takes_turns(&self, kvm: bool) -> bool {
        let told = matches!(self.iommu, Iommu::Intel | Iommu::Virtio);
        told && !kvm && self.machine.cpus == 1
    }

    /// Read a description.
    ///
    /// # Errors
    /// [`LaunchError::Read`], [`LaunchError::Description`].
    pub fn read(path: &Path) -> Result<Self, LaunchError> {
        let failed = |error| LaunchError::Read {
            path: path.to_owned(),
            error,
        };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MAX_FILE {
            return Err(LaunchError::Description {
                path: path.to_owned(),
                why: format!("{size} bytes are no machine description"),
            });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|why| LaunchError::Description {
            path: path.to_owned(),
            why,
        })
    }

    /// Parse one; its paths are relative to `folder`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let mut machine: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if !MEMORY.contains(&machine.machine.memory) {
            return Err(format!(
                "memory of {} MiB: give {} to {}",
                machine.machine.memory,
                MEMORY.start(),
                MEMORY.end()
            ));
        }
        if !(1..=64).contains(&machine.machine.cpus) {
            return Err(format!("{} CPUs: give 1 to 64", machine.machine.cpus));
        }
        if !SLOTS.contains(&machine.gpu.slot) {
            return Err(format!(
                "slot {}: give {} to {}",
                machine.gpu.slot,
                SLOTS.start(),
                SLOTS.end()
            ));
        }
        let side = 1..=gpu::MAX_SCANOUT_SIDE;
        let sizes = &machine.gpu.displays;
        if sizes.is_empty() || sizes.len() > 16 || !sizes.iter().flatten().all(|n| side.contains(n))
        {
            return Err(format!(
                "displays: give 1 to 16, each side 1 to {}",
                side.end()
            ));
        }
        let boot = &mut machine.boot;
        let paths = [&mut boot.kernel, &mut boot.initrd, &mut boot.disk];
        for path in paths.into_iter().flatten().chain(&mut boot.cdroms) {
            *path = folder.join(&*path);
        }
        Ok(machine)
    }
}
