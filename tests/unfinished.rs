//! What `dmasan explore` says of runs that do not end as they should: loops
//! for ever, refusals, what dmasan lacks, and what a scenario asks.
//!
//! Needs KVM; where it says so, `scripts/build-driver` too.
#![allow(clippy::unwrap_used)]

#[path = "support/explore.rs"]
mod exploring;
mod support;

use exploring::{Explored, explore, planted, strs};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, *};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::assembler::call_import;
use support::{dmasan, driver, image, run, told};

/// DriverEntry starts a thread, sets a flag at RSP+0x60, and lets the thread
/// run, which says at RSP+0x68 whether it saw the flag. It does not if it gets
/// the processor too early: then `lost` is what DriverEntry goes on with.
fn racy(folder: &Path, lost: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> PathBuf {
    let imports = [
        "PsCreateSystemThread",
        "KeDelayExecutionThread",
        "PsTerminateSystemThread",
    ];
    let code = |a: &mut CodeAssembler| {
        let (mut thread, mut seen) = (a.create_label(), a.create_label());
        a.sub(rsp, 0x88)?;
        a.mov(qword_ptr(rsp + 0x60), 0)?;
        a.mov(qword_ptr(rsp + 0x68), 0)?;
        a.lea(rcx, ptr(rsp + 0x40))?;
        a.mov(edx, 0x001F_FFFF)?;
        a.xor(r8d, r8d)?;
        a.xor(r9d, r9d)?;
        a.mov(qword_ptr(rsp + 0x20), 0)?;
        a.lea(rax, ptr(thread))?;
        a.mov(qword_ptr(rsp + 0x28), rax)?;
        a.lea(rax, ptr(rsp + 0x60))?;
        a.mov(qword_ptr(rsp + 0x30), rax)?;
        call_import(a, 0)?;
        a.mov(rax, cr8)?;
        a.mov(qword_ptr(rsp + 0x60), 1)?;
        a.mov(qword_ptr(rsp + 0x70), -10)?;
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.lea(r8, ptr(rsp + 0x70))?;
        call_import(a, 1)?;
        a.cmp(qword_ptr(rsp + 0x68), 0)?;
        a.jne(seen)?;
        lost(a)?;
        a.set_label(&mut seen)?;
        a.xor(eax, eax)?;
        a.add(rsp, 0x88)?;
        a.ret()?;
        a.set_label(&mut thread)?;
        a.sub(rsp, 0x28)?;
        a.mov(rax, qword_ptr(rcx))?;
        a.mov(qword_ptr(rcx + 8), rax)?;
        a.xor(ecx, ecx)?;
        call_import(a, 2)?;
        a.int3()
    };
    let mut assembler = CodeAssembler::new(64).unwrap();
    code(&mut assembler).unwrap();
    let code = assembler.assemble(0xFFFF_F800_1000_1000).unwrap();
    let path = folder.join("racy.sys");
    fs::write(&path, image::driver_with(&imports, &code)).unwrap();
    path
}

/// Explores it up to one deviation.
fn explored(folder: &Path, driver: &Path) -> Explored {
    explore(driver, &folder.join("out"), &["--bound", "1"])
}

#[test]
fn a_driver_that_spins_on_one_schedule_hangs_there_and_in_the_run_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let spins = |a: &mut CodeAssembler| {
        let mut top = a.create_label();
        a.set_label(&mut top)?;
        a.mov(rax, cr8)?;
        a.cmp(qword_ptr(rsp + 0x68), 0)?;
        a.je(top)
    };
    let driver = racy(folder.path(), spins);
    let silent = run(&driver, &folder.path().join("run"), &[]);
    assert_eq!(told(&silent).0, Some(0), "{:?}", told(&silent));

    let seen = explored(folder.path(), &driver);

    assert_eq!(seen.code, Some(1), "{}", seen.text);
    assert_eq!(seen.results["whole"], true, "{}", seen.text);
    assert_eq!(seen.results["timeouts"], 0, "{}", seen.text);
    assert_eq!(seen.results["defects"][0]["finding"], "hang");
    let first = folder.path().join("out/1-hang");
    let scenario = first.join("scenario.toml");
    let again = folder.path().join("again");
    let output = run(&driver, &again, &["--scenario", scenario.to_str().unwrap()]);
    let (code, stdout, _) = told(&output);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("goes round in a loop"), "{stdout}");
    let journal = |folder: &Path| fs::read(folder.join("journal")).unwrap();
    assert_eq!(journal(&again), journal(&first));
}

#[test]
fn a_long_loop_that_counts_is_no_hang() {
    let folder = tempfile::tempdir().unwrap();
    let counts = |a: &mut CodeAssembler| {
        let mut top = a.create_label();
        a.mov(ecx, 20_000)?;
        a.set_label(&mut top)?;
        a.mov(rax, cr8)?;
        a.dec(ecx)?;
        a.jne(top)
    };
    let driver = racy(folder.path(), counts);

    let seen = explored(folder.path(), &driver);

    assert_eq!(seen.code, Some(0), "{}", seen.text);
    assert_eq!(seen.results["whole"], true, "{}", seen.text);
}

#[test]
fn what_the_driver_refuses_on_one_schedule_alone_is_a_defect() {
    let folder = tempfile::tempdir().unwrap();
    let refuses = |a: &mut CodeAssembler| {
        a.mov(eax, 0xC000_009Au32)?;
        a.add(rsp, 0x88)?;
        a.ret()
    };
    let driver = racy(folder.path(), refuses);

    let seen = explored(folder.path(), &driver);

    assert_eq!(seen.code, Some(1), "{}", seen.text);
    let defect = &seen.results["defects"][0];
    assert_eq!(defect["finding"], "start-failed", "{}", seen.text);
    assert_eq!(defect["schedule"].as_array().unwrap().len(), 1);
    assert!(seen.text.contains("0xc000009a"), "{}", seen.text);
}

#[test]
fn what_dmasan_lacks_on_one_schedule_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let driver = racy(folder.path(), |a| a.mov(dr7, rax));

    let seen = explored(folder.path(), &driver);

    assert_eq!(seen.code, Some(2), "{}", seen.text);
    assert_eq!(seen.results["whole"], false, "{}", seen.text);
    let open = &seen.results["open"][0];
    assert!(open["why"].as_str().unwrap().contains("privileged"));
    assert_eq!(open["schedule"].as_array().unwrap().len(), 1);
}

/// The default order itself never ends.
#[test]
fn ctrl_c_and_the_budget_end_any_run() {
    let folder = tempfile::tempdir().unwrap();
    let driver = folder.path().join("spins.sys");
    fs::write(&driver, image::spins()).unwrap();
    let began = Instant::now();
    let mut child = dmasan()
        .arg("explore")
        .arg(&driver)
        .arg("--out")
        .arg(folder.path().join("interrupted"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    let code = child.wait().unwrap().code();
    assert!(interrupt.unwrap().success());
    assert_eq!(code, Some(130));

    let cut = explore(&driver, &folder.path().join("cut"), &["--budget", "1"]);

    assert_eq!(cut.results["whole"], false, "{}", cut.text);
    assert!(began.elapsed() < Duration::from_secs(30), "{}", cut.text);
}

/// Needs `scripts/build-driver`.
#[test]
fn a_fault_that_is_injected_on_no_schedule_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("idle.toml");
    let fault = "[[fault]]\nat = \"interrupt\"\ndo = \"lost\"\nnth = 100000\n";
    fs::write(&plan, format!("workload = []\n{fault}")).unwrap();
    let arguments = ["--scenario", plan.to_str().unwrap(), "--bound", "0"];

    let seen = explore(&driver("plain"), &folder.path().join("out"), &arguments);

    assert_eq!(seen.code, Some(1), "{}", seen.text);
    let idle = seen.results["idle"][0].as_str().unwrap();
    assert!(idle.contains("never fired"), "{idle}");
}

/// Needs `scripts/build-driver`.
#[test]
fn findings_that_the_scenario_lists_are_no_defects_and_their_lack_is_one() {
    let folder = tempfile::tempdir().unwrap();
    for (listed, code, says) in [
        ("[\"double-free\"]", 0, "no defect"),
        (
            "[\"double-free\", \"wrong-irql\"]",
            1,
            "verify: no wrong-irql was found",
        ),
        ("[]", 1, "double-free"),
    ] {
        let plan = folder.path().join("listed.toml");
        let verify = format!("[verify]\nfindings = {listed}\n");
        fs::write(&plan, verify).unwrap();
        let arguments = planted("double-free", &plan, &["--bound", "0"]);
        let out = tempfile::tempdir().unwrap();

        let seen = explore(&driver("defects"), out.path(), &strs(&arguments));

        assert_eq!(seen.code, Some(code), "{listed}: {}", seen.text);
        let text = fs::read_to_string(out.path().join("explored.txt")).unwrap();
        assert!(text.contains(says), "{listed}: {text}");
    }
}
