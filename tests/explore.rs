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
use std::path::Path;
use support::{dmasan, driver};

/// A short exploration, of start and stop alone, that finds something.
fn short(out: &Path, more: &[&str]) -> Explored {
    let plan = scenario(out.parent().unwrap(), "short", "");
    let mut arguments = planted("reset-outstanding", &plan, &["--bound", "2"]);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    explore(&driver("defects"), out, &strs(&arguments))
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
    let merge = |folders: [&str; 2]| {
        let mut command = dmasan();
        command.args(["merge", "--json", "-"]);
        command.args(folders.map(at));
        Explored::of(&command.output().unwrap())
    };
    let merged = merge(["shard-0", "shard-1"]);
    assert_eq!(merged.code, Some(1), "{}", merged.text);
    assert_eq!(found(&merged.results), found(&one.results));
    let turned = merge(["shard-1", "shard-0"]);
    assert_eq!(turned.results, merged.results);

    let cut = short(&at("cut"), &["--budget", "1", "--jobs", "1"]);
    if cut.results["whole"] == true {
        // A host that is fast enough: what it kept is cut instead.
        let path = at("cut").join("explored.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
    }
    let resumed = short(&at("cut"), &["--jobs", "1"]);
    assert_eq!(resumed.results, one.results);
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
