//! What `dmasan explore` and `dmasan merge` promise: the same results however
//! they are come by, and none that are something else's. What is found in the
//! guest driver's races is in `tests/ordering.rs`.
//!
//! Needs KVM and `scripts/build-driver`.
#![allow(clippy::unwrap_used)]

#[path = "support/explore.rs"]
mod exploring;
mod support;

use exploring::{Explored, explore, planted, scenario, strs};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{dmasan, driver};

/// A short exploration, of start and stop alone, that finds something.
fn short(out: &Path, more: &[&str]) -> Explored {
    let plan = scenario(out.parent().unwrap(), "short", "");
    let mut arguments = planted("reset-outstanding", &plan, &["--bound", "2"]);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    explore(&driver("defects"), out, &strs(&arguments))
}

/// The healthy driver's start and stop.
fn healthy(out: &Path, more: &[&str]) -> Explored {
    let plan = scenario(out.parent().unwrap(), "healthy", "");
    let mut arguments = vec!["--scenario", plan.to_str().unwrap(), "--jobs", "1"];
    arguments.extend(more);
    explore(&driver("plain"), out, &arguments)
}

fn merge(folders: &[PathBuf]) -> Explored {
    merge_with(&[], folders)
}

fn merge_with(more: &[&str], folders: &[PathBuf]) -> Explored {
    let mut command = dmasan();
    command.args(["merge", "--json", "-"]);
    command.args(more).args(folders);
    Explored::of(&command.output().unwrap())
}

/// What was found, without what of it merging does not know.
fn found(results: &Value) -> Value {
    let mut found = results.clone();
    let fields = found.as_object_mut().unwrap();
    fields.remove("coverage");
    fields["bounds"].as_object_mut().unwrap().remove("shard");
    found
}

#[test]
fn results_do_not_depend_on_workers_shards_or_interruptions() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let one = short(&at("one"), &["--jobs", "1"]);
    assert_eq!(one.code, Some(1), "{}", one.text);
    assert_eq!(one.results["whole"], true, "{}", one.text);

    let two = short(&at("two"), &["--jobs", "2"]);
    assert_eq!(one.results, two.results);

    for shard in ["0/2", "1/2"] {
        let out = at(&format!("shard-{}", &shard[..1]));
        let part = short(&out, &["--shard", shard]);
        assert!(
            part.code == Some(0) || part.code == Some(1),
            "{}",
            part.text
        );
        assert!(part.results["runs"].as_u64() < one.results["runs"].as_u64());
    }
    let merged = merge(&["shard-0", "shard-1"].map(at));
    assert_eq!(merged.code, Some(1), "{}", merged.text);
    assert_eq!(found(&merged.results), found(&one.results));
    let turned = merge(&["shard-1", "shard-0"].map(at));
    assert_eq!(turned.results, merged.results);
    let joined = at("joined");
    let lost = ["shard-0", "shard-1", "nowhere"].map(at);
    let partly = merge_with(&["--out", joined.to_str().unwrap()], &lost);
    assert_eq!(partly.code, Some(1), "{}", partly.text);
    assert_eq!(partly.results["defects"], merged.results["defects"]);
    assert_eq!(partly.results["whole"], false);
    let scenario = |out: &str| fs::read(at(out).join("1-cpu-use-after-free/scenario.toml"));
    assert_eq!(scenario("joined").unwrap(), scenario("one").unwrap());

    let cut = short(&at("cut"), &["--budget", "1", "--jobs", "1"]);
    if cut.results["whole"] == true {
        // A host that is fast enough: what it kept is cut instead.
        let path = at("cut").join("explored.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
    }
    let old = at("cut").join("9-dma-unmapped");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("scenario.toml"), "").unwrap();
    let resumed = short(&at("cut"), &["--jobs", "1"]);
    assert_eq!(resumed.results, one.results);
    assert!(!old.exists(), "it is of an earlier count");
}

#[test]
fn a_shard_that_is_not_whole_is_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    let first = healthy(&one, &["--bound", "1", "--shard", "0/2"]);
    assert_eq!(first.results["whole"], true, "{}", first.text);
    let both = [one, other.clone()];

    let missing = merge(&both[..1]);
    assert_eq!(missing.code, Some(2), "{}", missing.text);
    assert_eq!(missing.results["gaps"]["missing"][0]["start"], 1);

    let smaller = healthy(&other, &["--bound", "0", "--shard", "1/2"]);
    assert_eq!(smaller.code, Some(0), "{}", smaller.text);
    let merged = merge(&both);
    assert_eq!(merged.code, Some(2), "{}", merged.text);
    assert_eq!(merged.results["whole"], false);
    let gap = &merged.results["gaps"]["unfinished"][0];
    assert_eq!((&gap["shard"], &gap["asked"]), (&1.into(), &0.into()));

    let cut = healthy(&other, &["--bound", "1", "--shard", "1/2", "--budget", "0"]);
    assert_eq!(cut.results["whole"], false, "{}", cut.text);
    let merged = merge(&both);
    assert_eq!(merged.code, Some(2), "{}", merged.text);
    assert_eq!(merged.results["gaps"]["unfinished"][0]["bound"], 1);

    let rest = healthy(&other, &["--bound", "1", "--shard", "1/2"]);
    assert_eq!(rest.results["whole"], true, "{}", rest.text);
    let merged = merge(&both);
    assert_eq!(merged.code, Some(0), "{}", merged.text);
    assert_eq!(merged.results["whole"], true);
}

#[test]
fn an_exploration_that_is_interrupted_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let [out, other] = ["out", "other"].map(|name| folder.path().join(name));
    let plan = scenario(folder.path(), "healthy", "");
    let mut child = dmasan()
        .arg("explore")
        .arg(driver("plain"))
        .args(["--bound", "2", "--jobs", "1", "--scenario"])
        .arg(&plan)
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = || fs::read_to_string(out.join("explored.jsonl")).map_or(0, |t| t.lines().count());
    let began = Instant::now();
    while lines() < 6 && child.try_wait().unwrap().is_none() {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "nothing is kept"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    let code = child.wait().unwrap().code();
    assert!(interrupt.unwrap().success());
    assert_eq!(code, Some(130));
    let kept = lines();
    assert!(kept >= 6);

    let resumed = healthy(&out, &["--bound", "2"]);

    assert_eq!(resumed.code, Some(0), "{}", resumed.text);
    let whole = healthy(&other, &["--bound", "2"]);
    assert_eq!(resumed.results, whole.results);
}

/// What the reduction leaves out finds nothing new, and is much.
#[test]
fn reduction_finds_what_all_schedules_find() {
    let folder = tempfile::tempdir().unwrap();
    let [reduced, all] = [("reduced", &[][..]), ("all", &["--no-reduction"])]
        .map(|(name, more)| short(&folder.path().join(name), more));

    let findings = |of: &Explored| {
        let defects = of.results["defects"].as_array().unwrap();
        let mut found: Vec<_> = defects.iter().map(|d| d["identity"].to_string()).collect();
        found.sort();
        found
    };
    assert!(!findings(&reduced).is_empty(), "{}", reduced.text);
    assert_eq!(findings(&reduced), findings(&all));
    assert!(reduced.results["steps"].as_u64() < all.results["steps"].as_u64());
}

/// Where a scenario lists a choice itself, the others there are deviations,
/// and what follows keeps its numbers.
#[test]
fn a_scenario_that_lists_choices_is_deviated_from() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("listed.toml");
    let text = "name = \"listed\"\nchoice = [{ number = 5, take = 2 }]\nworkload = []\n";
    fs::write(&plan, text).unwrap();
    let arguments = ["--scenario", plan.to_str().unwrap(), "--bound", "1"];

    let reduced = explore(&driver("plain"), &folder.path().join("a"), &arguments);
    let arguments = [&arguments[..], &["--no-reduction"]].concat();
    let all = explore(&driver("plain"), &folder.path().join("b"), &arguments);

    assert_eq!(reduced.code, Some(0), "{}", reduced.text);
    assert_eq!(all.results["runs"], reduced.results["runs"]);
    assert!(reduced.results["cut"].as_u64() > Some(0));
    let units = fs::read_to_string(folder.path().join("b/explored.jsonl")).unwrap();
    assert!(
        units.contains("\"number\":5,\"take\":0"),
        "the default is a deviation"
    );
    assert!(
        !units.contains("\"number\":5,\"take\":2"),
        "it is none itself"
    );
}

#[test]
fn results_of_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("explored.jsonl"), "{\"a\": 1}\n").unwrap();
    let unknown = short(&out, &[]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.text);

    fs::remove_file(out.join("explored.jsonl")).unwrap();
    let begun = short(&out, &["--budget", "1"]);
    assert!(
        begun.code == Some(0) || begun.code == Some(1),
        "{}",
        begun.text
    );
    let kept = fs::read(out.join("explored.jsonl")).unwrap();
    for (other, name) in [
        (vec!["--seed", "77"], "the scenario"),
        (vec!["--keep-going"], "an argument"),
        (vec!["--shard", "0/3"], "--shard"),
        (vec!["--no-reduction"], "--no-reduction"),
    ] {
        let refused = short(&out, &other);
        assert_eq!(refused.code, Some(2), "{}", refused.text);
        assert!(refused.text.contains(name), "{}", refused.text);
    }
    let plain = explore(&driver("plain"), &out, &["--bound", "1"]);
    assert_eq!(plain.code, Some(2), "{}", plain.text);
    assert_eq!(fs::read(out.join("explored.jsonl")).unwrap(), kept);
}
