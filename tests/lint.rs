//! `dmasan lint`: what is said of a driver before it does anything wrong.
#![allow(clippy::unwrap_used)]

mod support;

use support::{dmasan, driver, image, told, top};

fn lint(bytes: &[u8]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("driver.sys");
    std::fs::write(&path, bytes).unwrap();
    let output = dmasan().arg("lint").arg(&path).output().unwrap();
    let (code, stdout, stderr) = told(&output);
    (code, stdout + &stderr)
}

#[test]
fn our_own_driver_passes_with_its_inf_and_its_caps() {
    for variant in ["plain", "defects"] {
        let inf = top().join("guest-driver/dmasan-gpu.inf");
        let mut command = dmasan();
        command
            .arg("lint")
            .arg(driver(variant))
            .arg("--inf")
            .arg(inf);
        let (code, stdout, stderr) = told(&command.output().unwrap());
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(stdout.contains("IoMmuSecureModeSupported: yes"), "{stdout}");
        assert!(stdout.contains("SUBSYS_D3A51AF4"), "{stdout}");
        assert!(!stdout.contains("warning"), "{stdout}");
    }
}

#[test]
fn a_forbidden_import_is_a_warning_for_a_driver_that_does_not_opt_in() {
    let bytes = image::driver("MmFreePagesFromMdl", &[0x31, 0xC0, 0xC3]);
    let (code, text) = lint(&bytes);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("warning: ntoskrnl.exe!MmFreePagesFromMdl"),
        "{text}"
    );
}

#[test]
fn a_missing_import_and_a_driver_that_is_no_miniport_are_told() {
    let (code, text) = lint(&image::calls("ExNobodyKnowsThis"));
    assert_eq!(code, Some(0), "{text}");
    for id in [
        "import-missing",
        "not-a-miniport",
        "no-unwind-data",
        "inf-missing",
    ] {
        assert!(text.contains(id), "{id} is not in {text}");
    }
}

#[test]
fn instructions_that_do_not_trap_are_counted() {
    // rdtsc; xor eax, eax; ret
    let (_, text) = lint(&image::driver(
        "KeBugCheck",
        &[0x0F, 0x31, 0x31, 0xC0, 0xC3],
    ));
    assert!(text.contains("1 rdtsc"), "{text}");
}

#[test]
fn what_is_no_driver_is_bad_input() {
    assert_eq!(lint(b"MZ").0, Some(2));
}
