//! Tables of the documentation that tests make from runs.

use super::top;
use serde_json::Value;
use std::thread;

const END: &str = "<!-- end -->\n";

/// Compares `table` with the one that `test` (a file of `tests/`, without its
/// extension) has in `docs/`, in a file of its own name. With
/// `DMASAN_UPDATE=1` it is written there instead.
///
/// # Panics
/// If they differ, or the file lacks the marks between which the table lies.
pub fn compare(test: &str, table: &str) {
    let path = top().join(format!("docs/{test}.md"));
    let begin = format!("<!-- made by tests/{test}.rs -->\n");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(&begin).unwrap();
    let (old, after) = rest.split_once(END).unwrap();
    if std::env::var_os("DMASAN_UPDATE").is_some() {
        std::fs::write(&path, [before, &begin, table, END, after].concat()).unwrap();
    } else {
        assert_eq!(
            old, table,
            "docs/{test}.md is not what the runs gave; DMASAN_UPDATE=1 writes it anew"
        );
    }
}

/// Codes of the bug checks in a report, as they are written in tables.
pub fn bug_checks(report: &Value) -> Vec<String> {
    let mut codes: Vec<String> = report["bug_checks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|check| check["code"].as_str().unwrap())
        .map(|code| format!("0x{}", code[2..].to_uppercase()))
        .collect();
    codes.dedup();
    codes
}

/// Does `work` for each item, two at a time; the results in the items' order.
pub fn each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let half = items.len().div_ceil(2).max(1);
    thread::scope(|scope| {
        let halves: Vec<_> = items
            .chunks(half)
            .map(|part| scope.spawn(|| part.iter().map(&work).collect::<Vec<T>>()))
            .collect();
        halves
            .into_iter()
            .flat_map(|half| half.join().unwrap())
            .collect()
    })
}
