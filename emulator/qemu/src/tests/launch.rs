//! Machine descriptions and command lines. No QEMU is started.

use crate::launch::{Accelerator, Description, Firmware, Iommu};
use std::path::{Path, PathBuf};

const LEAST: &str = "name = \"a\"\niommu = \"intel\"\n";

fn parse(text: &str) -> Result<Description, String> {
    Description::parse(text, Path::new("folder"))
}

#[test]
fn the_least_description_has_defaults() {
    let machine = parse(LEAST).unwrap();
    assert_eq!(machine.iommu, Iommu::Intel);
    assert_eq!(machine.machine.accelerator, Accelerator::Auto);
    assert_eq!(machine.machine.firmware, Firmware::Bios);
    assert_eq!((machine.gpu.slot, machine.machine.memory), (1, 512));
}

#[test]
fn paths_are_relative_to_the_description() {
    let text = format!("{LEAST}[boot]\nkernel = \"../k\"\ndisk = \"/d\"\n");
    let boot = parse(&text).unwrap().boot;
    assert_eq!(boot.kernel, Some(PathBuf::from("folder/../k")));
    assert_eq!(boot.disk, Some(PathBuf::from("/d")));
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    for (wrong, word) in [
        ("name = 1", "name"),
        ("name = \"a\"\niommu = \"amd\"", "amd"),
        (&format!("{LEAST}colour = 1"), "colour"),
        (&format!("{LEAST}[machine]\nmemory = 1"), "memory"),
        (&format!("{LEAST}[machine]\ncpus = 0"), "CPU"),
        (&format!("{LEAST}[gpu]\nslot = 31"), "slot"),
        (&format!("{LEAST}[gpu]\ndisplays = []"), "displays"),
        (&format!("{LEAST}[gpu]\ndisplays = [[0, 1]]"), "displays"),
    ] {
        let error = parse(wrong).unwrap_err();
        assert!(error.contains(word), "{wrong}: {error}");
    }
}

#[test]
fn every_description_of_the_house_can_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../qemu-configs");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let machine = Description::read(&path).unwrap();
            let stem = path.file_stem().unwrap().to_string_lossy();
            assert_eq!(machine.name, stem);
            read += 1;
        }
    }
    assert_ne!(read, 0);
}
