//! What a new user meets: bad input, a missing host feature, Ctrl-C.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{dmasan, driver, image, run, told};

fn run_bytes(bytes: &[u8], arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("driver.sys");
    std::fs::write(&path, bytes).unwrap();
    let output = run(&path, &folder.path().join("out"), arguments);
    told(&output)
}

#[test]
fn what_is_no_driver_is_refused_by_name() {
    let plain = std::fs::read(driver("plain")).unwrap();
    let elf = std::fs::read("/proc/self/exe").unwrap();
    let random: Vec<u8> = (0..4096u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for (bytes, says) in [
        (&[][..], "empty"),
        (&random[..], "not a"),
        (&elf[..], "ELF"),
        (&plain[..plain.len() / 2], "the file ends inside"),
        (&plain[..70], ""),
        (&b"hello, world\n"[..], ""),
    ] {
        let (code, stdout, stderr) = run_bytes(bytes, &[]);
        assert_eq!(code, Some(2), "{says}: {stdout}\n{stderr}");
        assert!(stderr.contains(says), "{says:?} is not in {stderr:?}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn a_missing_file_and_a_directory_are_named() {
    for (path, says) in [("no-such.sys", "no-such.sys"), ("/", "directory")] {
        let output = run(
            Path::new(path),
            &std::env::temp_dir().join("unused-out"),
            &[],
        );
        let (code, _, stderr) = told(&output);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn bad_usage_says_what_to_write() {
    for arguments in [
        &["run"][..],
        &["run", "x.sys", "--domain", "none"],
        &["run", "x.sys", "--set", "nonsense"],
        &["run", "x.sys", "--quarantine", "many"],
        &["report", "/dev/null"],
        &["replay", "/no/such/journal"],
        &["frobnicate"],
    ] {
        let output = dmasan().args(arguments).output().unwrap();
        let (code, _, stderr) = told(&output);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn an_unknown_import_is_named_with_its_caller() {
    for (bytes, what) in [
        (image::calls("ExNobodyKnowsThis"), "calls"),
        (image::reads("ExNobodyKnowsThis"), "reads"),
    ] {
        let (code, stdout, stderr) = run_bytes(&bytes, &[]);
        assert_eq!(code, Some(3), "{stdout}\n{stderr}");
        let all = format!("{stdout}{stderr}");
        assert!(all.contains("ntoskrnl.exe!ExNobodyKnowsThis"), "{all}");
        assert!(all.contains(what), "{all}");
        assert!(all.contains("driver.sys+0x1"), "{all}");
    }
}

#[test]
fn a_driver_that_refuses_to_start_gives_its_status() {
    let (code, stdout, _) = run_bytes(&image::returns(0xC000_009A), &[]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("DriverEntry"), "{stdout}");
    assert!(stdout.contains("STATUS_INSUFFICIENT_RESOURCES"), "{stdout}");
}

#[test]
fn a_driver_that_spins_is_a_hang_with_its_place() {
    let (code, stdout, stderr) = run_bytes(&image::spins(), &["--timeout", "1"]);
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    assert!(stdout.contains("hang"), "{stdout}");
    assert!(stdout.contains("driver.sys+0x1000"), "{stdout}");
}

/// A run that goes on for long, once its journal has begun.
fn spinning(folder: &Path, out: &Path) -> Child {
    let path = folder.join("spins.sys");
    std::fs::write(&path, image::spins()).unwrap();
    let child = dmasan()
        .arg("run")
        .arg(&path)
        .arg("--out")
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&out.join("journal"));
    std::thread::sleep(Duration::from_millis(200));
    child
}

#[test]
fn ctrl_c_ends_with_130_and_a_journal_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut child = spinning(folder.path(), &out);
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let status = child.wait().unwrap();
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    assert_eq!(status.code(), Some(130), "{stdout}");
    let report = dmasan()
        .arg("report")
        .arg(out.join("journal"))
        .output()
        .unwrap();
    let (_, text, stderr) = told(&report);
    assert!(text.contains("interrupted"), "{text}\n{stderr}");
}

#[test]
fn a_killed_run_leaves_a_journal_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut child = spinning(folder.path(), &out);
    child.kill().unwrap();
    child.wait().unwrap();
    let journal = out.join("journal");
    let whole = std::fs::read(&journal).unwrap();
    assert!(whole.len() > 100);
    // And torn at some byte on top of that.
    std::fs::write(&journal, &whole[..whole.len() - 3]).unwrap();
    let report = dmasan().arg("report").arg(&journal).output().unwrap();
    let (code, text, stderr) = told(&report);
    assert_eq!(code, Some(0), "{text}\n{stderr}");
    assert!(
        format!("{text}{stderr}").contains("torn"),
        "{text}\n{stderr}"
    );
}

fn wait_for(path: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while !path.exists() || std::fs::metadata(path).unwrap().len() < 100 {
        assert!(Instant::now() < until, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Run a shell command in a mount namespace of its own, as root.
fn in_namespace(script: &str) -> std::process::Output {
    Command::new("unshare")
        .args(["--mount", "--", "sh", "-c", script])
        .output()
        .unwrap()
}

/// May this user make a mount namespace? If not, the test proves nothing and
/// says so; CI runs as root, where it must.
fn namespaces() -> bool {
    let can = in_namespace("true").status.success();
    assert!(
        can || std::env::var_os("CI").is_none(),
        "CI must run this as root"
    );
    if !can {
        eprintln!("skipped: no mount namespace for this user");
    }
    can
}

#[test]
fn without_kvm_the_remedy_is_told() {
    if !namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && exec {} run {} --out {}",
        env!("CARGO_BIN_EXE_dmasan"),
        driver("plain").display(),
        folder.path().display()
    );
    let (code, stdout, stderr) = told(&in_namespace(&script));
    assert_eq!(code, Some(3), "{stdout}\n{stderr}");
    assert!(stderr.contains("/dev/kvm does not exist"), "{stderr}");
}

#[test]
fn a_full_disk_is_told_and_what_was_written_can_be_read() {
    if !namespaces() {
        return;
    }
    let dmasan = env!("CARGO_BIN_EXE_dmasan");
    // Room for what a run keeps of its input, and for a part of the journal.
    let driver = driver("plain");
    let kept = [driver.clone(), driver.with_extension("pdb")];
    let kept = kept.map(|path| std::fs::metadata(path).unwrap().len());
    let size = (kept.iter().sum::<u64>() >> 10) + 32;
    let script = format!(
        "mount -t tmpfs -o size={size}k tmpfs /mnt && {dmasan} run {} --out /mnt/out; echo exit=$?; \
         {dmasan} report /mnt/out/journal; echo report=$?",
        driver.display()
    );
    let (_, stdout, stderr) = told(&in_namespace(&script));
    assert!(stdout.contains("exit=3"), "{stdout}\n{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(stdout.contains("report=0"), "{stdout}\n{stderr}");
}

#[test]
fn a_driver_named_like_a_result_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["journal", "scanout-0.png", "scanout-15.png"] {
        let path = folder.path().join(name);
        std::fs::write(&path, image::returns(0)).unwrap();
        let output = run(&path, folder.path(), &[]);
        let (code, _, stderr) = told(&output);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("rename"), "{stderr}");
        assert_eq!(std::fs::read(&path).unwrap(), image::returns(0));
    }
}

#[test]
fn a_step_that_the_driver_refuses_is_told_and_not_green() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("huge.toml");
    // 64 MiB of backing in a machine of 24 MiB.
    let text = r#"workload = [{ do = "create", width = 4096, height = 4096 }, { do = "free" }]"#;
    std::fs::write(&scenario, text).unwrap();
    let arguments = ["--memory", "24", "--scenario", scenario.to_str().unwrap()];
    let output = run(&driver("plain"), &folder.path().join("out"), &arguments);
    let (code, stdout, stderr) = told(&output);
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    assert!(
        stdout.contains("the driver refused step 1 (create)"),
        "{stdout}"
    );
    assert!(
        !stdout.contains("ERROR"),
        "no defect is found in it: {stdout}"
    );
}

#[test]
fn a_driver_that_is_no_display_miniport_is_told_so() {
    let (code, stdout, _) = run_bytes(&image::returns(0), &[]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("did not register"), "{stdout}");
}
