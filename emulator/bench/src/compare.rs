//! Two runs of the benchmarks, row by row.

use crate::results::Results;
use crate::row::figure;
use std::fmt::Write;

/// Differences below this are noise: runs of the same revision on a host that
/// others use too differ by as much.
const NOISE: f64 = 0.15;

/// What `after` does better and worse than `before`, as text.
#[must_use]
pub fn compare(before: &Results, after: &Results) -> String {
    let mut text = format!("{} -> {}\n", before.revision, after.revision);
    if before.host != after.host {
        text.push_str("the hosts differ: look at ratios only\n");
    }
    let _ = writeln!(
        text,
        "{:<46} {:<26} {:>10} {:>10} {:<6} {:>8} {:>8}  change",
        "what", "peer", "before", "after", "unit", "ratio", "after"
    );
    for row in &after.rows {
        let old = before.rows.iter().find(|old| old.same_as(row));
        let ratio = |ratio: Option<f64>| ratio.map(figure).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<46} {:<26} {:>10} {:>10} {:<6} {:>8} {:>8}  {}",
            row.name,
            row.peer_name.as_deref().unwrap_or_default(),
            old.map(|old| figure(old.ours)).unwrap_or_default(),
            figure(row.ours),
            row.unit,
            ratio(old.and_then(|old| old.ratio)),
            ratio(row.ratio),
            old.map_or_else(|| "new".to_owned(), |old| verdict(old.gain(row))),
        );
    }
    for old in &before.rows {
        if !after.rows.iter().any(|row| row.same_as(old)) {
            let _ = writeln!(
                text,
                "{:<46} {:<26} gone",
                old.name,
                old.peer_name.as_deref().unwrap_or_default()
            );
        }
    }
    text
}

fn verdict(gain: f64) -> String {
    let percent = (gain - 1.0) * 100.0;
    if gain > 1.0 + NOISE {
        format!("better by {percent:.0} %")
    } else if gain < 1.0 / (1.0 + NOISE) {
        format!("worse by {:.0} %", (1.0 / gain - 1.0) * 100.0)
    } else if gain.is_finite() {
        "noise".to_owned()
    } else {
        "unknown".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Row;

    fn results(rows: &[(&str, f64)]) -> Results {
        Results {
            rows: rows
                .iter()
                .map(|&(name, ours)| Row::new(name, "ns", ours))
                .collect(),
            ..Results::default()
        }
    }

    fn line(before: f64, after: f64) -> String {
        let text = compare(&results(&[("a", before)]), &results(&[("a", after)]));
        text.lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn small_differences_are_noise() {
        assert!(line(100.0, 110.0).ends_with("noise"));
        assert!(line(110.0, 100.0).ends_with("noise"));
    }

    #[test]
    fn large_differences_have_a_direction() {
        assert!(line(100.0, 50.0).ends_with("better by 100 %"));
        assert!(line(50.0, 100.0).ends_with("worse by 100 %"));
    }

    #[test]
    fn rows_of_one_run_only_are_told() {
        let text = compare(&results(&[("a", 1.0)]), &results(&[("b", 1.0)]));
        assert!(
            text.lines()
                .any(|l| l.starts_with('a') && l.ends_with("gone"))
        );
        assert!(
            text.lines()
                .any(|l| l.starts_with('b') && l.ends_with("new"))
        );
    }
}
