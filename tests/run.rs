//! `dmasan run`: the healthy driver is silent, the defect is found and told.
#![allow(clippy::unwrap_used)]

mod support;

use interface::pixel;
use std::path::Path;
use support::{driver, finding_ids, json, run, told};

/// Rows of B8G8R8X8 pixels as 0x00RRGGBB, from a PNG file.
fn pixels(path: &Path) -> (u32, u32, Vec<u32>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let channels = info.color_type.samples();
    let pixels = bytes[..info.buffer_size()]
        .chunks_exact(channels)
        .map(|p| u32::from(p[0]) << 16 | u32::from(p[1]) << 8 | u32::from(p[2]))
        .collect();
    (info.width, info.height, pixels)
}

fn expected(seed: u64, width: u32, height: u32) -> Vec<u32> {
    (0..height)
        .flat_map(|y| (0..width).map(move |x| pixel(seed, x, y)))
        .collect()
}

#[test]
fn the_healthy_driver_is_silent_and_draws_the_seeds_frame() {
    for arguments in [
        &["--seed", "1"][..],
        &["--seed", "77", "--domain", "passthrough"],
        &["--seed", "3", "--quarantine", "0"],
        &["--seed", "4", "--set", "PollCompletion=1"],
        &["--seed", "5", "--keep-going"],
    ] {
        let out = tempfile::tempdir().unwrap();
        let output = run(&driver("plain"), out.path(), arguments);
        let (code, stdout, stderr) = told(&output);
        assert_eq!(code, Some(0), "{arguments:?}\n{stdout}\n{stderr}");
        assert!(finding_ids(&json(out.path())).is_empty());
        let seed = arguments[1].parse().unwrap();
        let (width, height, drawn) = pixels(&out.path().join("scanout-0.png"));
        assert_eq!((width, height), (640, 480));
        assert!(drawn == expected(seed, width, height), "{arguments:?}");
    }
}

#[test]
fn each_head_that_shows_something_gives_a_picture_and_no_other() {
    let out = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("two.toml");
    let text = r#"
        seed = 7
        displays = [[64, 32], [128, 16]]
        workload = [
          { do = "create", width = 64, height = 32 },
          { do = "create", width = 128, height = 16, scanout = 1 },
          { do = "present" },
          { do = "present", resource = 1, frame = 4 },
          { do = "wait" },
          { do = "wait", resource = 1 },
        ]"#;
    std::fs::write(&scenario, text).unwrap();
    // As an earlier run would have left it.
    std::fs::write(out.path().join("scanout-2.png"), "old").unwrap();
    let arguments = ["--scenario", scenario.to_str().unwrap()];
    let output = run(&driver("plain"), out.path(), &arguments);
    assert_eq!(told(&output).0, Some(0), "{}", told(&output).1);
    for (scanout, seed, width, height) in [(0, 7, 64, 32), (1, 11, 128, 16)] {
        let picture = out.path().join(format!("scanout-{scanout}.png"));
        let drawn = pixels(&picture);
        assert!(drawn == (width, height, expected(seed, width, height)));
    }
    assert!(!out.path().join("scanout-2.png").exists());
}

#[test]
fn the_defect_build_with_nothing_chosen_is_silent() {
    let out = tempfile::tempdir().unwrap();
    let output = run(&driver("defects"), out.path(), &[]);
    assert_eq!(told(&output).0, Some(0), "{}", told(&output).1);
}

#[test]
fn a_hundred_healthy_runs_give_one_journal() {
    let out = tempfile::tempdir().unwrap();
    let mut first: Option<Vec<u8>> = None;
    for n in 0..100 {
        let output = run(&driver("plain"), out.path(), &[]);
        assert_eq!(told(&output).0, Some(0), "run {n}: {}", told(&output).1);
        let journal = std::fs::read(out.path().join("journal")).unwrap();
        match &first {
            None => first = Some(journal),
            Some(first) => assert!(*first == journal, "run {n} gave another journal"),
        }
    }
}

const DEFECT: &[&str] = &["--set", "Defect=free-before-detach"];

#[test]
fn pages_freed_before_the_detach_are_found_with_three_stacks() {
    let out = tempfile::tempdir().unwrap();
    let output = run(&driver("defects"), out.path(), DEFECT);
    let (code, stdout, stderr) = told(&output);
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    let report = json(out.path());
    assert_eq!(finding_ids(&report), ["dma-use-after-free"], "{stdout}");
    for says in [
        "dma-use-after-free",
        "TRANSFER_TO_HOST_2D",
        "dmasan_gpu::resource::",
        "guest-driver/src/resource.rs:",
        "0xE6",
        "00:02.0",
        "--set Defect=free-before-detach",
    ] {
        assert!(stdout.contains(says), "{says:?} is not in\n{stdout}");
    }
    let finding = &report["findings"][0];
    for stack in [
        &finding["allocation"]["allocated"]["stack"],
        &finding["allocation"]["freed"]["stack"],
        &finding["command"]["submitted"]["stack"],
    ] {
        let frames = stack.as_array().unwrap();
        assert!(frames.len() >= 4, "{frames:?}");
        let text = serde_json::to_string(frames).unwrap();
        assert!(text.contains("guest-driver/src/escape.rs"), "{text}");
        assert!(text.contains("dmasan_gpu::resource::"), "{text}");
    }
}

#[test]
fn the_same_defect_is_found_where_no_iommu_stops_it() {
    let out = tempfile::tempdir().unwrap();
    let arguments = [DEFECT, &["--domain", "passthrough"]].concat();
    let output = run(&driver("defects"), out.path(), &arguments);
    let (code, stdout, _) = told(&output);
    assert_eq!(code, Some(1), "{stdout}");
    assert_eq!(finding_ids(&json(out.path())), ["dma-use-after-free"]);
}

#[test]
fn keep_going_reaches_the_end_and_tells_one_finding() {
    let out = tempfile::tempdir().unwrap();
    let arguments = [DEFECT, &["--keep-going"]].concat();
    let output = run(&driver("defects"), out.path(), &arguments);
    let (code, stdout, _) = told(&output);
    assert_eq!(code, Some(1), "{stdout}");
    assert_eq!(finding_ids(&json(out.path())), ["dma-use-after-free"]);
}

#[test]
fn a_driver_that_waits_before_it_frees_is_silent_even_with_the_defect() {
    // The defect only shows where a frame is outstanding: with a wait before
    // the free, nothing accesses the pages any more.
    let out = tempfile::tempdir().unwrap();
    let scenario = out.path().join("waits.toml");
    std::fs::write(
        &scenario,
        r#"name = "waits"
        workload = [
          { do = "create", width = 64, height = 64 },
          { do = "present" },
          { do = "wait" },
          { do = "free" },
        ]"#,
    )
    .unwrap();
    let arguments = [DEFECT, &["--scenario", scenario.to_str().unwrap()]].concat();
    let output = run(&driver("defects"), &out.path().join("out"), &arguments);
    assert_eq!(told(&output).0, Some(0), "{}", told(&output).1);
}

#[test]
fn several_resources_and_frames_are_silent() {
    let out = tempfile::tempdir().unwrap();
    let scenario = out.path().join("two.toml");
    std::fs::write(
        &scenario,
        r#"name = "two"
        workload = [
          { do = "create", width = 320, height = 200 },
          { do = "create", width = 64, height = 64 },
          { do = "present", resource = 0, frame = 1 },
          { do = "present", resource = 1, frame = 2 },
          { do = "present", resource = 0, frame = 3 },
          { do = "free", resource = 0 },
          { do = "present", resource = 1, frame = 4 },
          { do = "free", resource = 1 },
        ]"#,
    )
    .unwrap();
    let arguments = ["--scenario", scenario.to_str().unwrap()];
    let output = run(&driver("plain"), &out.path().join("out"), &arguments);
    assert_eq!(told(&output).0, Some(0), "{}", told(&output).1);
}
