//! The machines for Windows, without Windows: their firmware, TPM and remapping
//! unit run, and EDK II's own virtio-gpu driver draws on our device. They need
//! QEMU 10.1, OVMF and swtpm: `scripts/test-qemu` gets them.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::guest::{Guest, config};
use support::{dmasan, finding_ids, json, told};
use toml::{Table, Value};

const MACHINES: [&str; 4] = [
    "windows-11-testsign",
    "windows-11-secureboot",
    "windows-server-2022-testsign",
    "windows-server-2022-secureboot",
];

/// A machine's description in `folder`, on a small host without KVM: with an
/// empty disk, and no plain VGA beside our GPU.
fn small(name: &str, folder: &Path) -> PathBuf {
    let text = fs::read_to_string(config(name)).unwrap();
    let mut description: Table = toml::from_str(&text).unwrap();
    let machine = description["machine"].as_table_mut().unwrap();
    for (key, value) in [
        ("memory", Value::Integer(512)),
        ("cpus", Value::Integer(1)),
        ("accelerator", "tcg".into()),
        ("vga", Value::Boolean(false)),
    ] {
        assert!(machine.insert(key.to_owned(), value).is_some(), "{key}");
    }
    let disk = folder.join("empty.img");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let boot = description["boot"].as_table_mut().unwrap();
    boot["disk"] = disk.to_str().unwrap().into();
    boot["cdroms"] = Value::Array(Vec::new());
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, toml::to_string(&description).unwrap()).unwrap();
    path
}

/// Start a machine until its firmware says `text`, and look at the screen; how
/// many pixels of each colour there are.
fn draws(name: &str, text: &str) -> impl Fn(u32) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let guest = Guest::until(&small(name, folder.path()), text);
    let (code, mapped) = guest.ctl(&["mappings"]);
    assert_eq!(code, Some(0), "{mapped}");
    let (width, pixels) = guest.screen().unwrap();
    assert_eq!((width, pixels.len()), (1280, 1280 * 800));
    assert!(guest.out.path().join("swtpm.log").exists(), "a TPM");
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    assert!(finding_ids(&json(out.path())).is_empty(), "{said}");
    move |colour| pixels.iter().filter(|&&pixel| pixel == colour).count()
}

const GREY: u32 = 0x98_9898;
const WHITE: u32 = 0xff_ffff;
const BLACK: u32 = 0;

#[test]
#[ignore = "needs QEMU, OVMF and swtpm: scripts/test-qemu"]
fn without_secure_boot_the_firmware_draws_its_shell() {
    let count = draws("windows-11-testsign", "Shell> ");
    assert!(count(GREY) > 1000, "{} pixels of letters", count(GREY));
    assert!(count(BLACK) > 1_000_000);
}

/// The shell is signed by nobody, so what is left is the logo and two lines.
#[test]
#[ignore = "needs QEMU, OVMF and swtpm: scripts/test-qemu"]
fn with_secure_boot_the_firmware_draws_its_logo_and_starts_nothing() {
    let name = "windows-server-2022-secureboot";
    let count = draws(name, "Press any key to enter the Boot Manager Menu");
    assert!(count(GREY) > 1000, "{} pixels of letters", count(GREY));
    assert!(count(WHITE) > 5000, "{} pixels of the logo", count(WHITE));
}

#[test]
#[ignore = "needs QEMU, OVMF and swtpm: scripts/test-qemu"]
fn each_machine_for_windows_has_a_command_line() {
    let folder = tempfile::tempdir().unwrap();
    for name in MACHINES {
        let output = dmasan()
            .args(["qemu", "--dry-run", "--out"])
            .arg(folder.path().join(name))
            .arg(small(name, folder.path()))
            .output()
            .unwrap();
        let (code, line, said) = told(&output);
        assert_eq!(code, Some(0), "{name}: {said}");
        for part in [
            "caching-mode=on",
            "vfio-user-pci",
            "OVMF_CODE_4M",
            "tpm-crb",
        ] {
            assert!(line.contains(part), "{name}: no {part}: {line}");
        }
        let secure = line.contains("smm=on") && line.contains("OVMF_CODE_4M.ms.fd");
        assert_eq!(secure, name.ends_with("secureboot"), "{line}");
    }
}

#[test]
fn a_machine_for_windows_without_its_disk_says_how_to_make_it() {
    let folder = tempfile::tempdir().unwrap();
    let description = folder.path().join("machine.toml");
    let text = fs::read_to_string(config(MACHINES[0])).unwrap();
    fs::write(&description, text.replace("\"kvm\"", "\"tcg\"")).unwrap();
    let output = dmasan()
        .args(["qemu", "--dry-run"])
        .arg(&description)
        .output()
        .unwrap();
    let (code, _, said) = told(&output);
    assert_ne!(code, Some(0));
    // Where there is no QEMU that serves, that is said first.
    let remedy = said.contains("qemu-img") || said.contains("vfio-user needs");
    assert!(remedy || said.contains("get-qemu"), "{said}");
}
