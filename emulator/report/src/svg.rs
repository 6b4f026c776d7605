//! The first finding as a picture: its text in short, and under it the life of
//! the page as lanes: what the driver owns, what the tables map, what the
//! IOTLB holds, what the device did.

use crate::layout::{self, Tone};
use crate::model::{Found, Report};
use ledger::{Step, span};
use std::fmt::Write as _;

/// A character cell, pixels.
const CELL: (f64, f64) = (8.0, 18.0);
const MARGIN: f64 = 22.0;
const BAR: f64 = 36.0;
const COLUMNS: usize = 100;
/// Height of a lane and of the lanes' frame.
const LANE: f64 = 26.0;
const LANES: f64 = 4.0 * LANE + 3.0 * LABEL + 40.0;
/// Height of a row of the lanes' labels.
const LABEL: f64 = 15.0;
/// Column where lanes begin, pixels from the left.
const LABELS: f64 = 150.0;
/// Lines drawn at most.
const MAX_LINES: usize = 200;

const BACKGROUND: &str = "#14171c";
const FRAME: &str = "#262b33";
const FAINT: &str = "#7d8794";
const PLAIN: &str = "#d5dae1";
const GOOD: &str = "#7fc77f";
const WARN: &str = "#e2b35c";
const BAD: &str = "#f2686a";
const NAME: &str = "#6cb8e6";

fn color(tone: Tone) -> (&'static str, bool) {
    match tone {
        Tone::Plain => (PLAIN, false),
        Tone::Bold => ("#ffffff", true),
        Tone::Faint => (FAINT, false),
        Tone::Bad => (BAD, true),
        Tone::Good => (GOOD, false),
        Tone::Warn => (WARN, false),
        Tone::Name => (NAME, false),
    }
}

/// Text for XML; what XML 1.0 has no place for is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if character.is_control() => {}
            _ => out.push(character),
        }
    }
    out
}

/// Text at a place. Its length is fixed, so that columns stay columns in any
/// monospaced font.
fn write_text(out: &mut String, (x, y): (f64, f64), fill: &str, bold: bool, text: &str) {
    let columns = text.chars().count();
    if text.trim().is_empty() {
        return;
    }
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    let length = columns as f64 * CELL.0;
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\"{weight} textLength=\"{length:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\">{}</text>",
        escaped(text)
    );
}

/// The picture, a whole SVG 1.1 document without external parts.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut lines = layout::first(report, COLUMNS).lines;
    lines.truncate(MAX_LINES);
    let first = report.new_findings().next();
    let first = first.and_then(|index| report.findings.get(index));
    let found = first.filter(|found| found.finding.history.moments.len() > 1);
    let width = COLUMNS as f64 * CELL.0 + 2.0 * MARGIN;
    let text_end = BAR + MARGIN + lines.len() as f64 * CELL.1;
    let height = text_end + MARGIN + if found.is_some() { LANES } else { 0.0 };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" xml:space=\"preserve\" font-size=\"13.3\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\">"
    );
    let title = match first {
        Some(found) => format!("dmasan: {}", found.finding.kind.id()),
        None if report.findings.is_empty() => "dmasan: no findings".to_owned(),
        None => "dmasan: no new findings".to_owned(),
    };
    let _ = writeln!(out, "<title>{}</title>", escaped(&title));
    let _ = writeln!(
        out,
        "<rect width=\"{width}\" height=\"{height}\" rx=\"10\" fill=\"{BACKGROUND}\"/>\n\
         <path d=\"M0 {BAR}V10A10 10 0 0 1 10 0H{right}A10 10 0 0 1 {width} 10V{BAR}Z\" \
         fill=\"{FRAME}\"/>",
        right = width - 10.0
    );
    for (index, fill) in [BAD, WARN, GOOD].iter().enumerate() {
        let x = 22.0 + 20.0 * index as f64;
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"18\" r=\"6\" fill=\"{fill}\"/>"
        );
    }
    let caption: String = match &report.begin {
        Some(begin) => format!("dmasan: {}, {} domain", begin.driver, begin.domain),
        None => "dmasan".to_owned(),
    };
    let caption: String = caption.chars().take(90).collect();
    write_text(&mut out, (90.0, 23.0), FAINT, false, &caption);
    let mut y = BAR + MARGIN + 4.0;
    for line in &lines {
        let mut column = 0;
        for span in &line.0 {
            let (fill, bold) = color(span.tone);
            // Leading blanks are position, not text.
            let blanks = span.text.chars().take_while(|c| *c == ' ').count();
            let x = MARGIN + (column + blanks) as f64 * CELL.0;
            write_text(&mut out, (x, y), fill, bold, span.text.trim());
            column += span.text.chars().count();
        }
        y += CELL.1;
    }
    if let Some(found) = found {
        lanes(&mut out, found, text_end + 8.0, width);
    }
    out.push_str("</svg>\n");
    out
}

/// What holds after a moment: owned, freed, mapped, cached.
#[derive(Clone, Copy, Default)]
struct Holds {
    owned: bool,
    freed: bool,
    mapped: bool,
    cached: bool,
}

impl Holds {
    fn after(mut self, step: &Step) -> Self {
        match step {
            Step::Allocated { .. } => (self.owned, self.freed) = (true, false),
            Step::Freed { .. } => (self.owned, self.freed) = (false, true),
            Step::Mapped { .. } => self.mapped = true,
            Step::Unmapped { .. } => self.mapped = false,
            Step::Filled { .. } => self.cached = true,
            Step::Invalidated { .. } => self.cached = false,
            _ => {}
        }
        self
    }
}

fn lanes(out: &mut String, found: &Found, top: f64, width: f64) {
    let moments = &found.finding.history.moments;
    let last = moments.len().saturating_sub(1);
    let step = (width - MARGIN - LABELS - 10.0) / moments.len().max(1) as f64;
    let x = |index: usize| LABELS + (index as f64 + 0.4) * step;
    let _ = writeln!(
        out,
        "<rect x=\"{MARGIN}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\" \
         fill=\"none\" stroke=\"{FRAME}\"/>",
        width - 2.0 * MARGIN,
        LANES - 16.0
    );
    let labels = ["driver owns", "tables map", "IOTLB holds", "device"];
    for (lane, label) in labels.iter().enumerate() {
        let y = top + 22.0 + lane as f64 * LANE;
        write_text(out, (MARGIN + 12.0, y + 4.0), FAINT, false, label);
    }
    let mut holds = Holds::default();
    for (index, moment) in moments.iter().enumerate() {
        holds = holds.after(&moment.step);
        let end = if index == last {
            width - MARGIN - 8.0
        } else {
            x(index + 1)
        };
        // Reachable after the free is what must not be.
        let reach = if holds.freed { BAD } else { NAME };
        let bars = [
            (holds.owned, 0.0, GOOD),
            (holds.mapped, 1.0, reach),
            (holds.cached, 2.0, if holds.mapped { NAME } else { reach }),
        ];
        for (on, lane, fill) in bars {
            let y = top + 15.0 + lane * LANE;
            let (height, opacity) = if on { (12.0, 0.85) } else { (2.0, 0.25) };
            let y = if on { y } else { y + 5.0 };
            let fill = if on { fill } else { FAINT };
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\" \
                 fill=\"{fill}\" opacity=\"{opacity}\"/>",
                x(index),
                (end - x(index)).max(1.0)
            );
        }
        let y = top + 21.0 + 3.0 * LANE;
        let dot = match moment.step {
            Step::Refused { .. } => Some(("none", BAD)),
            Step::Accessed { .. } | Step::Landed { .. } if holds.freed => Some((BAD, BAD)),
            Step::Accessed { .. } | Step::Landed { .. } => Some((GOOD, GOOD)),
            Step::Issued { .. } => Some(("none", WARN)),
            _ => None,
        };
        if let Some((fill, stroke)) = dot {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{fill}\" \
                 stroke=\"{stroke}\" stroke-width=\"2\"/>",
                x(index)
            );
        }
        let (what, _, tone) = layout::life_words(found, moment);
        let (fill, _) = color(tone);
        // The first and the last would stand over the frame.
        let anchor = match index {
            _ if index == last => "end",
            0 => "start",
            _ => "middle",
        };
        // Three rows in turn, for neighbours are closer than labels are long.
        let y = top + 30.0 + 3.6 * LANE + LABEL * (index % 3) as f64;
        if moments.len() <= 12 || index == 0 || index == last {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{y:.1}\" font-size=\"11\" fill=\"{fill}\" \
                 text-anchor=\"{anchor}\">{} {}</text>",
                if index == last { end - 4.0 } else { x(index) },
                escaped(&what),
                escaped(&span(moment.time))
            );
        }
    }
}
