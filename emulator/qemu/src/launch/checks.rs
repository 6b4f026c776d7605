//! What must be true before a machine is started. Each failure says what to
//! install or change.

use super::{Accelerator, Description, Firmware, LaunchError};
use std::env;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "qemu-system-x86_64";
/// The first version with the device.
const OLDEST: (u32, u32) = (10, 1);
/// Where distributions put UEFI firmware.
const FIRMWARE_FOLDERS: [&str; 3] = [
    "/usr/share/OVMF",
    "/usr/share/edk2/x64",
    "/usr/share/edk2/ovmf",
];

/// A QEMU that has the device, and its version: the one that was named, or
/// else `DMASAN_QEMU`, the one of scripts/get-qemu, or the system's.
pub(super) fn find_qemu(named: Option<&Path>) -> Result<(PathBuf, String), LaunchError> {
    let named = named
        .map(Path::to_owned)
        .or_else(|| env::var_os("DMASAN_QEMU").map(PathBuf::from));
    if let Some(program) = named {
        return examine(&program)
            .map(|version| (program, version))
            .map_err(LaunchError::Qemu);
    }
    let mut reasons = Vec::new();
    let candidates = own_qemu().into_iter().chain([PathBuf::from(PROGRAM)]);
    for program in candidates {
        match examine(&program) {
            Ok(version) => return Ok((program, version)),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(LaunchError::Qemu(reasons.join("; ")))
}

/// Where scripts/get-qemu puts it, if it did.
fn own_qemu() -> Option<PathBuf> {
    let data = env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))?;
    let program = data.join("dmasan/qemu").join(PROGRAM);
    program.is_file().then_some(program)
}

/// The version of a QEMU that has the device.
fn examine(program: &Path) -> Result<String, String> {
    let shown = program.display();
    let run = |arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .map_err(|error| format!("{shown} cannot be run ({error})"))
    };
    let text = run(&["--version"])?;
    let version = text
        .split_ascii_whitespace()
        .nth(3)
        .unwrap_or("of no version")
        .to_owned();
    let number = parse_version(&version);
    if number.is_none_or(|number| number < OLDEST) {
        let (major, minor) = OLDEST;
        return Err(format!(
            "{shown} is QEMU {version}, and vfio-user needs {major}.{minor}"
        ));
    }
    let help = run(&[
        "-machine",
        "none",
        "-display",
        "none",
        "-device",
        "vfio-user-pci,help",
    ])?;
    if help.lines().any(|line| line.trim().starts_with("socket=")) {
        Ok(version)
    } else {
        Err(format!(
            "{shown} (QEMU {version}) was built without the device vfio-user-pci"
        ))
    }
}

/// Does this QEMU know how to end with the process that started it? Newer
/// than the device.
pub(super) fn ends_with_parent(program: &Path) -> bool {
    let output = Command::new(program).arg("-help").output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).contains("exit-with-parent=on|off")
    })
}

/// Major and minor of a version.
pub(super) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Will KVM be used?
pub(super) fn kvm(wanted: Accelerator) -> Result<bool, LaunchError> {
    let usable = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match (wanted, usable) {
        (Accelerator::Tcg, _) => Ok(false),
        (_, Ok(_)) => Ok(true),
        (Accelerator::Auto, Err(_)) => Ok(false),
        (Accelerator::Kvm, Err(error)) => Err(LaunchError::Kvm(format!(
            "/dev/kvm cannot be opened ({error}): load kvm_intel or kvm_amd, join the group kvm, \
             or write accelerator = \"tcg\""
        ))),
    }
}

/// Are all files there?
pub(super) fn files(description: &Description) -> Result<(), LaunchError> {
    let boot = &description.boot;
    let named = [
        ("the kernel", &boot.kernel),
        ("the initramfs", &boot.initrd),
        ("the disk image", &boot.disk),
    ];
    let drives = boot.cdroms.iter().map(|path| ("the CD image", path));
    let named = named
        .into_iter()
        .filter_map(|(what, path)| Some((what, path.as_ref()?)));
    for (what, path) in named.chain(drives) {
        if path.is_file() {
            continue;
        }
        let remedy = match boot.remedy.as_str() {
            "" => "change the machine description".to_owned(),
            remedy => remedy.to_owned(),
        };
        return Err(LaunchError::Missing {
            what,
            path: path.clone(),
            remedy,
        });
    }
    Ok(())
}

/// UEFI's code and its variables as they are at first.
pub(super) fn firmware(
    wanted: Firmware,
    prefix: &Path,
) -> Result<Option<(PathBuf, PathBuf)>, LaunchError> {
    let (code, variables) = match wanted {
        Firmware::Bios => return Ok(None),
        Firmware::Uefi => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        Firmware::UefiSecure => ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
    };
    let folders = [prefix.join("usr/share/OVMF")]
        .into_iter()
        .chain(FIRMWARE_FOLDERS.map(PathBuf::from));
    for folder in folders {
        let pair = (folder.join(code), folder.join(variables));
        if pair.0.is_file() && pair.1.is_file() {
            return Ok(Some(pair));
        }
    }
    Err(LaunchError::Missing {
        what: "UEFI firmware",
        path: Path::new(FIRMWARE_FOLDERS[0]).join(code),
        remedy: "install OVMF (Debian package: ovmf), or run scripts/get-qemu".to_owned(),
    })
}

pub(super) fn find_swtpm(prefix: &Path) -> Result<PathBuf, LaunchError> {
    let own = prefix.join("swtpm");
    for program in [own, PathBuf::from("swtpm")] {
        if Command::new(&program).arg("--version").output().is_ok() {
            return Ok(program);
        }
    }
    Err(LaunchError::Missing {
        what: "the TPM emulator",
        path: PathBuf::from("swtpm"),
        remedy: "install it (Debian package: swtpm), or run scripts/get-qemu".to_owned(),
    })
}
