#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::path::Path;

fn header() -> Header {
    Header {
        version: "1".into(),
        driver: "a.sys".into(),
        digest: digest(b"a driver"),
        arguments: vec!["Name=value".into()],
        scenario: "name = \"default\"\n".into(),
        bounds: Bounds::default(),
    }
}

fn deviation(number: u64, take: u32) -> Deviation {
    Deviation {
        number,
        take,
        what: What::Device,
        at: Some(number * 1000),
    }
}

fn unit(bound: u32, number: u64) -> Unit {
    Unit {
        bound,
        first: Some(deviation(number, 1)),
    }
}

fn found(schedule: Vec<Deviation>) -> Explored {
    Explored {
        runs: 3,
        cut: 1,
        defects: [(
            "kind stack".to_owned(),
            Defect {
                finding: "dma-use-after-free".into(),
                summary: "a read".into(),
                schedule,
            },
        )]
        .into(),
        places: [1, 2].into(),
        ..Explored::default()
    }
}

fn write(
    folder: &Path,
    name: &str,
    header: Header,
    units: &[(Unit, Explored)],
) -> std::path::PathBuf {
    let path = folder.join(name);
    let mut results = Results::open(&path, header).unwrap();
    for (unit, explored) in units {
        results.keep(*unit, explored.clone()).unwrap();
    }
    path
}

#[test]
fn results_are_taken_up_where_they_were_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "r", header(), &[(unit(1, 4), found(vec![]))]);

    let results = Results::open(&path, header()).unwrap();

    assert!(results.has(unit(1, 4)));
    assert!(!results.has(unit(2, 4)), "a deeper bound is another unit");
    assert_eq!(results.total().runs, 3);
}

#[test]
fn a_torn_last_line_is_a_unit_to_walk_again() {
    let folder = tempfile::tempdir().unwrap();
    let units = [(unit(1, 4), found(vec![])), (unit(1, 5), found(vec![]))];
    let path = write(folder.path(), "r", header(), &units);
    let text = std::fs::read_to_string(&path).unwrap();
    for cut in 1..text.lines().last().unwrap().len() {
        std::fs::write(&path, &text[..text.len() - cut]).unwrap();

        let mut results = Results::open(&path, header()).unwrap();

        assert!(results.has(unit(1, 4)) && !results.has(unit(1, 5)));
        results.keep(unit(1, 5), found(vec![])).unwrap();
        drop(results);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn results_of_another_exploration_are_refused_by_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "r", header(), &[]);
    let other = |change: fn(&mut Header)| {
        let mut header = header();
        change(&mut header);
        Results::open(&path, header).unwrap_err().to_string()
    };
    for (says, error) in [
        ("the driver", other(|h| h.digest = digest(b"another"))),
        ("the scenario", other(|h| h.scenario.clear())),
        ("an argument", other(|h| h.arguments.clear())),
        ("--no-reduction", other(|h| h.bounds.reduce = false)),
        ("--shard", other(|h| h.bounds.shard = (1, 2))),
    ] {
        assert!(error.contains(says), "{error} instead of {says}");
    }
    // A larger bound goes on from a smaller one.
    let mut deeper = header();
    deeper.bounds.deviations = 3;
    Results::open(&path, deeper).unwrap();
}

#[test]
fn bad_results_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "r", header(), &[(unit(1, 4), found(vec![]))]);
    let text = std::fs::read_to_string(&path).unwrap();
    let line = |n: usize| text.lines().nth(n).unwrap();
    for (bad, says) in [
        (format!("{}\n", line(1)), "line 1"),
        (format!("{}\nno JSON\n", line(0)), "line 2"),
        (format!("{}\n{}\n", line(0), line(0)), "line 2"),
        ("torn".to_owned(), "no result"),
        (text.replace("dma-use-after-free", "../x"), "line 2"),
    ] {
        std::fs::write(&path, bad).unwrap();
        let error = Results::open(&path, header()).unwrap_err();
        assert!(error.is_input());
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_last_line_torn_within_a_character_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "r", header(), &[(unit(1, 4), found(vec![]))]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&"{\"unit\": \"\u{e9}".as_bytes()[..11]);
    std::fs::write(&path, &bytes).unwrap();

    let results = Results::open(&path, header()).unwrap();

    assert!(std::str::from_utf8(&bytes).is_err(), "it is torn there");
    assert!(results.has(unit(1, 4)));
}

#[test]
fn shards_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for shard in [(0, 0), (3, 3), (0, u32::MAX)] {
        let mut header = header();
        header.bounds.shard = shard;
        let path = write(folder.path(), &format!("{shard:?}"), header, &[]);

        let error = merge(&[path]).unwrap_err();

        assert!(
            error.is_input() && error.to_string().contains("no shard"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_ends_within_its_header_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "r", header(), &[]);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();

        drop(Results::open(&path, header()).unwrap());

        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn a_file_that_another_writes_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let first = Results::open(&path, header()).unwrap();

    let refused = Results::open(&path, header()).unwrap_err();

    assert!(matches!(refused, ExploreError::InUse { .. }), "{refused}");
    drop(first);
    Results::open(&path, header()).unwrap();
}

#[test]
fn a_smaller_bound_tells_nothing_of_a_larger_one() {
    let folder = tempfile::tempdir().unwrap();
    let units = [
        (unit(1, 4), Explored::default()),
        (unit(2, 4), found(vec![deviation(4, 1), deviation(5, 1)])),
    ];
    let path = write(folder.path(), "r", header(), &units);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut smaller = header();
    smaller.bounds.deviations = 1;

    let results = Results::open(&path, smaller).unwrap();

    assert_eq!(results.total().runs, 0);
    assert_eq!(results.total().defects.len(), 0);
    drop(results);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn what_can_be_read_is_joined_and_the_rest_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut header = header();
    header.bounds.shard = (1, 1 << 20);
    let found = [(unit(1, 4), found(vec![deviation(4, 1)]))];
    let path = write(folder.path(), "r", header, &found);
    let (nothing, torn) = (folder.path().join("no"), folder.path().join("torn"));
    std::fs::write(&torn, "{\"hea").unwrap();

    let merged = merge(&[nothing.clone(), path, torn.clone()]).unwrap();

    assert_eq!(merged.total.defects.len(), 1);
    assert_eq!(merged.gaps.missing, [0..=0, 2..=(1 << 20) - 1]);
    let unreadable: Vec<_> = merged.gaps.unreadable.iter().map(|u| &u.0).collect();
    assert_eq!(unreadable, [&nothing, &torn]);
    let refused = merge(&[nothing, torn]).unwrap_err();
    assert!(refused.is_input(), "{refused}");
}

#[test]
fn a_place_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let more = |place| {
        let mut explored = found(vec![]);
        explored.places.insert(place);
        explored
    };
    let units = [(unit(1, 4), more(3)), (unit(1, 5), more(4))];
    let path = write(folder.path(), "r", header(), &units);

    let total = Results::open(&path, header()).unwrap().total().clone();
    let text = std::fs::read_to_string(&path).unwrap();
    let last: Line = serde_json::from_str(text.lines().last().unwrap()).unwrap();

    assert_eq!(total.places, [1, 2, 3, 4].into());
    let Line::Unit(_, last) = last else {
        panic!("{last:?}");
    };
    assert_eq!(last.places, [4].into());
}

#[test]
fn numbers_of_forged_results_add_up_to_no_more_than_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let most = Explored {
        runs: u64::MAX,
        cut: u64::MAX,
        steps: u64::MAX,
        choices: u64::MAX,
        states: u64::MAX,
        timeouts: u64::MAX,
        ..Explored::default()
    };
    let units = [(unit(1, 4), most.clone()), (unit(1, 5), most.clone())];
    let path = write(folder.path(), "r", header(), &units);

    let merged = merge(&[path]).unwrap();

    assert_eq!(merged.total, most);
}

#[test]
fn shards_join_in_any_order_and_the_missing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |index| {
        let mut header = header();
        header.bounds.shard = (index, 3);
        header
    };
    let long = found(vec![deviation(4, 1), deviation(9, 2)]);
    let short = found(vec![deviation(5, 1)]);
    let a = write(folder.path(), "a", shard(0), &[(unit(2, 4), long)]);
    let b = write(folder.path(), "b", shard(2), &[(unit(1, 5), short)]);

    let one = merge(&[a.clone(), b.clone()]).unwrap();
    let other = merge(&[b, a]).unwrap();

    assert_eq!(one, other);
    assert_eq!(one.gaps.missing, [1..=1]);
    assert_eq!(one.total.runs, 6);
    let defect = &one.total.defects["kind stack"];
    assert_eq!(defect.schedule, [deviation(5, 1)], "the shorter is kept");
}

/// A shard's file: units of each bound, as many as are said to be there.
fn shard(folder: &Path, index: u32, bound: u32, wholes: &[(u32, u64)]) -> std::path::PathBuf {
    let mut header = header();
    header.bounds.shard = (index, 2);
    header.bounds.deviations = bound;
    let name = format!("{index}-{bound}");
    let units = [
        (unit(0, 0), found(vec![])),
        (unit(1, index.into()), found(vec![])),
        (unit(2, index.into()), found(vec![])),
    ];
    let path = write(folder, &name, header.clone(), &units[..=bound as usize]);
    let mut results = Results::open(&path, header).unwrap();
    for &(bound, units) in wholes {
        results.finish(bound, units).unwrap();
    }
    path
}

#[test]
fn only_shards_that_finished_each_bound_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = shard(folder.path(), 0, 2, &[(0, 1), (1, 1), (2, 1)]);
    let gap = |bound, asked| {
        vec![Gap {
            shard: 1,
            bound,
            asked,
        }]
    };
    let rows: [(_, &[(u32, u64)], _, _); 5] = [
        (2, &[(0, 1), (1, 1), (2, 1)], vec![], "all is there"),
        (2, &[(0, 1), (1, 1)], gap(2, 2), "cut by a budget"),
        (2, &[], gap(0, 2), "interrupted"),
        (1, &[(0, 1), (1, 1)], gap(2, 1), "at a smaller bound"),
        (2, &[(0, 1), (1, 1), (2, 9)], gap(2, 2), "units were lost"),
    ];
    for (bound, wholes, unfinished, why) in rows {
        let other = shard(folder.path(), 1, bound, wholes);

        let merged = merge(&[whole.clone(), other.clone()]).unwrap();

        assert_eq!(merged.gaps.unfinished, unfinished, "{why}");
        assert_eq!(merged.gaps.is_empty(), unfinished.is_empty(), "{why}");
        assert_eq!(merged.header.bounds.deviations, 2, "{why}");
        let turned = merge(&[other.clone(), whole.clone()]).unwrap();
        assert_eq!(merged, turned, "{why}");
        std::fs::remove_file(other).unwrap();
    }
}

#[test]
fn what_a_unit_that_was_left_found_is_kept_and_the_unit_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let mut results = Results::open(&path, header()).unwrap();
    results.tell(found(vec![deviation(4, 1)])).unwrap();
    drop(results);

    let mut results = Results::open(&path, header()).unwrap();

    assert!(!results.has(unit(1, 4)));
    assert_eq!(results.total().defects.len(), 1);
    assert_eq!(results.total().runs, 0, "it is walked again");
    results.tell(found(vec![deviation(4, 1)])).unwrap();
    drop(results);
    let lines = std::fs::read_to_string(&path).unwrap();
    assert_eq!(lines.matches("\"found\":").count(), 1, "{lines}");
    assert_eq!(merge(&[path]).unwrap().total.defects.len(), 1);
}

#[test]
fn runs_that_were_left_open_are_an_error_in_junit() {
    let mut total = Explored::default();
    let open = Open {
        runs: 2,
        schedule: vec![deviation(5, 2)],
    };
    total.leave_open("a register that dmasan lacks".into(), open);

    let value: serde_json::Value =
        serde_json::from_str(&json(&header(), &total, (0, 0, 0), Extent::Whole)).unwrap();
    let junit = junit(&header(), &total, Extent::Whole);

    assert_eq!(value["whole"], false);
    assert!(junit.contains("errors=\"1\""), "{junit}");
    assert!(junit.contains("2 runs were not followed"), "{junit}");
}

#[test]
fn a_larger_bound_later_is_the_one_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard(folder.path(), 0, 1, &[(0, 1), (1, 1)]);
    let mut deeper = header();
    deeper.bounds.shard = (0, 2);
    deeper.bounds.deviations = 2;

    drop(Results::open(&path, deeper).unwrap());

    let merged = merge(&[path]).unwrap();
    assert_eq!(merged.header.bounds.deviations, 2);
    assert_eq!(merged.gaps.unfinished[0].bound, 2);
}

#[test]
fn what_shards_lack_is_no_success() {
    let gaps = Gaps {
        missing: vec![3..=3],
        ..Gaps::default()
    };
    let total = Explored::default();

    let value: serde_json::Value =
        serde_json::from_str(&json(&header(), &total, (0, 0, 0), Extent::Lacking(&gaps))).unwrap();
    let lacking = junit(&header(), &total, Extent::Lacking(&gaps));
    let cut = junit(&header(), &total, Extent::Cut);

    assert_eq!(value["whole"], false);
    assert_eq!(value["gaps"]["missing"][0]["start"], 3);
    assert!(lacking.contains("errors=\"1\""), "{lacking}");
    assert!(lacking.contains("shard 3 was not given"), "{lacking}");
    assert!(cut.contains("<skipped"), "{cut}");
}

#[test]
fn json_and_junit_tell_each_defect() {
    let total = found(vec![deviation(5, 2)]);
    let value: serde_json::Value =
        serde_json::from_str(&json(&header(), &total, (1, 2, 3), Extent::Whole)).unwrap();
    assert_eq!(value["defects"][0]["finding"], "dma-use-after-free");
    assert_eq!(value["defects"][0]["schedule"][0]["take"], 2);
    let junit = junit(&header(), &total, Extent::Whole);
    assert!(junit.contains("failures=\"1\""), "{junit}");
    assert!(junit.contains("name=\"dma-use-after-free "), "{junit}");
    assert!(junit.contains("choice 5: the device waits until the driver does"));
}

fn any_explored() -> impl Strategy<Value = Explored> {
    let defect = prop::collection::vec((0u64..4, 1u32..3), 0..3).prop_map(|schedule| Defect {
        finding: "hang".into(),
        summary: String::new(),
        schedule: schedule.into_iter().map(|(n, t)| deviation(n, t)).collect(),
    });
    let defects = prop::collection::btree_map("[ab]", defect, 0..3);
    (0u64..9, defects, prop::collection::btree_set(0u64..9, 0..4)).prop_map(
        |(runs, defects, places)| Explored {
            runs,
            defects,
            places,
            ..Explored::default()
        },
    )
}

proptest! {
    /// Workers and shards finish in any order.
    #[test]
    fn what_was_explored_adds_up_in_any_order(
        parts in prop::collection::vec(any_explored(), 0..6),
    ) {
        let sum = |parts: &[Explored]| {
            let mut sum = Explored::default();
            for part in parts { sum.add(part.clone()); }
            sum
        };
        let forward = sum(&parts);
        let backward: Vec<_> = parts.into_iter().rev().collect();
        prop_assert_eq!(forward, sum(&backward));
    }
}
