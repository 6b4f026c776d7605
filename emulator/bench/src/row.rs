//! One measurement beside its peer.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// What a figure must be to be good enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Ours, in the row's unit.
    AtMost(f64),
    /// Ours, in the row's unit.
    AtLeast(f64),
    /// The ratio.
    RatioAtLeast(f64),
}

/// What ours is measured against, in the same process or the same run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peer<'a> {
    /// What it is.
    pub name: &'a str,
    /// Its figure, in the row's unit.
    pub value: f64,
}

/// One measurement beside its peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured. With `peer_name` it names the row.
    pub name: String,
    /// Of `ours` and `peer`. More is better if it is a rate (`1/s`), less is
    /// better otherwise.
    pub unit: String,
    /// Our figure.
    pub ours: f64,
    /// The peer's.
    pub peer: Option<f64>,
    /// Who the peer is.
    pub peer_name: Option<String>,
    /// How many times as good as the peer ours is.
    pub ratio: Option<f64>,
    /// What ours or the ratio should be.
    pub goal: Option<Goal>,
    /// Is it?
    pub met: Option<bool>,
}

impl Row {
    /// A figure on its own.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: &str, ours: f64) -> Self {
        Self {
            name: name.into(),
            unit: unit.to_owned(),
            ours,
            peer: None,
            peer_name: None,
            ratio: None,
            goal: None,
            met: None,
        }
    }

    /// Beside a peer.
    #[must_use]
    pub fn beside(mut self, peer: Peer<'_>) -> Self {
        let (better, worse) = if self.more_is_better() {
            (self.ours, peer.value)
        } else {
            (peer.value, self.ours)
        };
        // JSON knows no infinity: next to nothing there is no ratio.
        self.ratio = Some(better / worse).filter(|ratio| ratio.is_finite());
        self.peer = Some(peer.value);
        self.peer_name = Some(peer.name.to_owned());
        self
    }

    /// With a goal; the peer must be there already.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self.met = match goal {
            Goal::AtMost(limit) => Some(self.ours <= limit),
            Goal::AtLeast(limit) => Some(self.ours >= limit),
            Goal::RatioAtLeast(limit) => self.ratio.map(|ratio| ratio >= limit),
        };
        self
    }

    fn more_is_better(&self) -> bool {
        self.unit.ends_with("/s")
    }

    /// How much better `other` is than this row: 1.1 is a tenth better. By
    /// the ratios where both have one (what slows the host slows the peer
    /// too), else by the figures.
    #[must_use]
    pub fn gain(&self, other: &Self) -> f64 {
        match (self.ratio, other.ratio) {
            (Some(before), Some(after)) => after / before,
            _ if self.more_is_better() => other.ours / self.ours,
            _ => self.ours / other.ours,
        }
    }

    /// Are both the same measurement?
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        (&self.name, &self.peer_name, &self.unit) == (&other.name, &other.peer_name, &other.unit)
    }
}

/// A figure with about three digits.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || size == size.trunc() {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn goal(row: &Row) -> String {
    let Some(goal) = row.goal else {
        return String::new();
    };
    let wanted = match goal {
        Goal::AtMost(limit) => format!("<= {}", figure(limit)),
        Goal::AtLeast(limit) => format!(">= {}", figure(limit)),
        Goal::RatioAtLeast(limit) => format!(">= {} x", figure(limit)),
    };
    let met = match row.met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "unknown",
    };
    format!("{wanted} {met}")
}

/// The rows as a person reads them.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<46} {:>12} {:<6} {:<26} {:>12} {:>8}  {}\n",
        "what", "ours", "unit", "peer", "peer's", "ratio", "goal"
    );
    for row in rows {
        let line = format!(
            "{:<46} {:>12} {:<6} {:<26} {:>12} {:>8}  {}",
            row.name,
            figure(row.ours),
            row.unit,
            row.peer_name.as_deref().unwrap_or_default(),
            row.peer.map(figure).unwrap_or_default(),
            row.ratio.map(figure).unwrap_or_default(),
            goal(row),
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The rows as a table of the documentation.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text =
        "| what | ours | peer | peer's | ratio | goal |\n|---|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {} {} | {} | {} | {} | {} |",
            row.name,
            grouped(&figure(row.ours)),
            row.unit,
            row.peer_name.as_deref().unwrap_or_default(),
            row.peer
                .map(figure)
                .as_deref()
                .map(grouped)
                .unwrap_or_default(),
            row.ratio.map(figure).unwrap_or_default(),
            goal(row).replace("NOT MET", "**not met**"),
        );
    }
    text
}

/// A figure with its thousands parted.
fn grouped(figure: &str) -> String {
    let (whole, part) = figure
        .split_once('.')
        .map_or((figure, None), |(whole, part)| (whole, Some(part)));
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    match part {
        Some(part) => text + "." + part,
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEN: Peer<'static> = Peer {
        name: "peer",
        value: 10.0,
    };

    #[test]
    fn a_time_half_the_peers_is_twice_as_good() {
        assert_eq!(Row::new("a", "ns", 5.0).beside(TEN).ratio, Some(2.0));
    }

    #[test]
    fn a_rate_half_the_peers_is_half_as_good() {
        assert_eq!(Row::new("a", "1/s", 5.0).beside(TEN).ratio, Some(0.5));
    }

    #[test]
    fn no_ratio_to_nothing() {
        assert_eq!(Row::new("a", "ns", 0.0).beside(TEN).ratio, None);
    }

    #[test]
    fn goals_are_told_from_figures() {
        let row = || Row::new("a", "ns", 5.0).beside(TEN);
        assert_eq!(row().goal(Goal::AtMost(5.0)).met, Some(true));
        assert_eq!(row().goal(Goal::AtMost(4.9)).met, Some(false));
        assert_eq!(row().goal(Goal::AtLeast(5.1)).met, Some(false));
        assert_eq!(row().goal(Goal::RatioAtLeast(2.0)).met, Some(true));
        assert_eq!(row().goal(Goal::RatioAtLeast(2.1)).met, Some(false));
    }

    #[test]
    fn a_gain_is_by_ratio_where_there_is_one() {
        let before = Row::new("a", "ns", 5.0).beside(TEN);
        // Slower, on a host where the peer is slower still.
        let after = Row::new("a", "ns", 10.0).beside(Peer {
            name: "peer",
            value: 40.0,
        });
        assert_eq!(before.gain(&after), 2.0);
        let alone = |value| Row::new("a", "ns", value);
        assert_eq!(alone(5.0).gain(&alone(10.0)), 0.5);
    }

    #[test]
    fn a_row_of_the_documentation_has_its_thousands_parted() {
        let row = Row::new("copy", "ns", 676_060.0).goal(Goal::AtMost(5.0));
        let text = markdown(&[row]);
        let line = text.lines().last().unwrap();
        assert_eq!(line, "| copy | 676,060 ns |  |  |  | <= 5 **not met** |");
    }

    #[test]
    fn a_row_survives_json() {
        // Figures that JSON holds exactly.
        let row = Row::new("a", "ns", 4.0)
            .beside(TEN)
            .goal(Goal::RatioAtLeast(2.0));
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }
}
