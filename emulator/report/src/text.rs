//! The report as text for a terminal or a file.

use crate::layout::{self, Page, Tone};
use crate::model::Report;

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With ANSI colours?
    pub color: bool,
    /// Columns; between 60 and 100.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            color: false,
            width: 100,
        }
    }
}

/// SGR parameters (ECMA-48 8.3.117) of a tone.
fn sgr(tone: Tone) -> Option<&'static str> {
    Some(match tone {
        Tone::Plain => return None,
        Tone::Bold => "1",
        Tone::Faint => "2",
        Tone::Bad => "1;31",
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Name => "36",
    })
}

/// The report, lines ended with line feeds.
#[must_use]
pub fn render(report: &Report, style: Style) -> String {
    lines(layout::report(report, style.width), style)
}

/// A page without colours.
pub(crate) fn plain(page: Page) -> String {
    lines(page, Style::default())
}

fn lines(page: Page, style: Style) -> String {
    let mut out = String::new();
    for line in page.lines {
        let start = out.len();
        for span in line.0 {
            match sgr(span.tone).filter(|_| style.color && !span.text.trim().is_empty()) {
                Some(sgr) => {
                    out.push_str("\x1b[");
                    out.push_str(sgr);
                    out.push('m');
                    out.push_str(&span.text);
                    out.push_str("\x1b[0m");
                }
                None => out.push_str(&span.text),
            }
        }
        let length = out
            .get(start..)
            .map_or(0, |line| line.trim_end_matches(' ').len());
        out.truncate(start + length);
        out.push('\n');
    }
    out
}
