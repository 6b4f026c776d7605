//! A report as lines of toned text: the one thing that the terminal and the
//! picture both draw.

mod breach;
mod ending;
mod finding;
mod life;
mod neighbours;
pub(crate) mod stack;
pub(crate) mod triage;

use crate::model::Report;
use crate::triage::Standing;

pub(crate) use finding::stop_words;
pub(crate) use life::words as life_words;

/// Findings told in full; later ones in a line each.
const MAX_FULL: usize = 16;
/// Findings told in a line.
const MAX_BRIEF: usize = 64;
/// Column at which the text of a labelled row begins.
pub(crate) const INDENT: usize = 13;

/// How a stretch of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Bold,
    /// What one may skip.
    Faint,
    /// What is wrong.
    Bad,
    /// What is in order.
    Good,
    /// What to look at twice.
    Warn,
    /// Names: functions, commands.
    Name,
}

/// A stretch of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(pub(crate) Vec<Span>);

impl Line {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.0.push(Span {
            text: text.into(),
            tone,
        });
        self
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new().with(Tone::Plain, text)
    }

    /// Columns that it takes.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|span| span.text.chars().count()).sum()
    }

    /// Cut to `width` columns, with an ellipsis where something went.
    fn cut(&mut self, width: usize) {
        if self.width() <= width {
            return;
        }
        let mut left = width.saturating_sub(3);
        let mut spans = Vec::new();
        for span in self.0.drain(..) {
            let length = span.text.chars().count();
            let taken = length.min(left);
            left -= taken;
            spans.push(Span {
                text: span.text.chars().take(taken).collect(),
                tone: span.tone,
            });
            if taken < length {
                break;
            }
        }
        self.0 = spans;
        self.0.push(Span {
            text: "...".into(),
            tone: Tone::Faint,
        });
    }
}

/// Lines of at most `width` columns.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) lines: Vec<Line>,
    pub(crate) width: usize,
}

impl Page {
    pub(crate) fn new(width: usize) -> Self {
        Self {
            lines: Vec::new(),
            width: width.clamp(60, 100),
        }
    }

    /// A line, cut if it is too long.
    pub(crate) fn push(&mut self, mut line: Line) {
        line.cut(self.width);
        self.lines.push(line);
    }

    pub(crate) fn blank(&mut self) {
        if self.lines.last().is_some_and(|line| !line.0.is_empty()) {
            self.lines.push(Line::new());
        }
    }

    /// Text, broken at spaces, with its later lines indented.
    pub(crate) fn wrapped(&mut self, first: Line, indent: usize, tone: Tone, text: &str) {
        let room = self.width.saturating_sub(indent).max(20);
        let mut line = first;
        let missing = indent.saturating_sub(line.width());
        if missing > 0 {
            line = line.with(Tone::Plain, " ".repeat(missing));
        }
        for (index, row) in broken(text, room).into_iter().enumerate() {
            if index > 0 {
                line = Line::plain(" ".repeat(indent));
            }
            self.push(std::mem::take(&mut line).with(tone, row));
        }
    }

    /// A command line with a label: broken before options, with the backslash
    /// that a shell wants there, and never cut.
    pub(crate) fn command(&mut self, label: &str, command: &str) {
        let room = self.width.saturating_sub(INDENT + 2).max(20);
        let mut rows: Vec<String> = Vec::new();
        for (index, part) in command.split(" --").enumerate() {
            let part = match index {
                0 => part.to_owned(),
                _ => format!("--{part}"),
            };
            match rows.last_mut() {
                Some(row) if row.chars().count() + 1 + part.chars().count() <= room => {
                    row.push(' ');
                    row.push_str(&part);
                }
                _ => rows.push(part),
            }
        }
        let last = rows.len().saturating_sub(1);
        for (index, row) in rows.into_iter().enumerate() {
            let lead = match index {
                0 => format!("{:INDENT$}", format!("  {label}")),
                _ => " ".repeat(INDENT),
            };
            let end = if index == last { "" } else { " \\" };
            self.lines.push(
                Line::new()
                    .with(Tone::Faint, lead)
                    .with(Tone::Bold, row + end),
            );
        }
    }

    /// A row with a label.
    pub(crate) fn row(&mut self, label: &str, tone: Tone, text: &str) {
        self.wrapped(
            Line::new().with(Tone::Faint, format!("  {label}")),
            INDENT,
            tone,
            text,
        );
    }
}

/// Rows of at most `room` columns; a word that is longer is broken.
fn broken(text: &str, room: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        let gap = usize::from(used > 0);
        if used > 0 && used + gap + rest.len() > room {
            rows.push(String::new());
            used = 0;
        } else if gap > 0
            && let Some(row) = rows.last_mut()
        {
            row.push(' ');
            used += 1;
        }
        while !rest.is_empty() {
            if used == room {
                rows.push(String::new());
                used = 0;
            }
            let taken = rest.len().min(room - used);
            if let Some(row) = rows.last_mut() {
                row.extend(rest.drain(..taken));
            }
            used += taken;
        }
    }
    rows
}

/// The whole report.
pub(crate) fn report(report: &Report, width: usize) -> Page {
    let mut page = Page::new(width);
    // Those that a scenario asks for are what it is about.
    let told = (0..report.findings.len())
        .filter(|index| matches!(report.standing(*index), Standing::New | Standing::Expected));
    for index in told.take(MAX_FULL) {
        finding::draw(&mut page, report, index);
        page.blank();
    }
    brief(&mut page, report);
    triage::draw(&mut page, report);
    ending::draw(&mut page, report);
    page
}

/// One finding in full, for a document that has each by itself.
pub(crate) fn one(report: &Report, index: usize, width: usize) -> Page {
    let mut page = Page::new(width);
    finding::draw(&mut page, report, index);
    page
}

/// What a picture shows: the first finding in short, or how the run ended.
pub(crate) fn first(report: &Report, width: usize) -> Page {
    let mut page = Page::new(width);
    match report.new_findings().next() {
        None => ending::draw(&mut page, report),
        Some(first) => finding::sketch(&mut page, report, first),
    }
    page
}

/// Findings that are not told in full.
fn brief(page: &mut Page, report: &Report) {
    let rest = report.new_findings().skip(MAX_FULL).take(MAX_BRIEF);
    for (index, found) in rest.filter_map(|index| Some((index, report.findings.get(index)?))) {
        page.push(
            Line::new()
                .with(Tone::Bold, "==dmasan== ")
                .with(
                    Tone::Bad,
                    format!("#{} {}", index + 1, found.finding.kind.id()),
                )
                .with(Tone::Plain, format!(": {}", found.finding.summary)),
        );
    }
    let new = report.new_findings().count();
    let untold = new.saturating_sub(MAX_FULL + MAX_BRIEF) as u64;
    let untold = untold.saturating_add(report.facts.findings_omitted);
    if untold > 0 {
        page.push(
            Line::new()
                .with(Tone::Bold, "==dmasan== ")
                .with(Tone::Warn, format!("and {untold} more findings")),
        );
    }
    page.blank();
}
