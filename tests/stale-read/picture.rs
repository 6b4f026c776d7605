//! Frames with words on them, and both screens side by side.

use crate::machine::SIZE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use font8x8::UnicodeFonts as _;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

/// Pixels of a letter's dot.
const DOT: usize = 2;

/// A frame's pixels, 0x00RRGGBB, row by row.
pub type Frame = Vec<u32>;

/// Lines of text on a ground that has a pattern, so that no two rows of it
/// are alike.
pub fn frame(lines: &[&str], ground: u32) -> Frame {
    let (width, height) = (SIZE.0 as usize, SIZE.1 as usize);
    let mut pixels: Frame = (0..width * height)
        .map(|at| ground + (((at % width) ^ (at / width)) as u32 & 0x1f))
        .collect();
    let top = (height - lines.len() * 12 * DOT) / 2;
    for (row, line) in lines.iter().enumerate() {
        let left = (width - line.len() * 8 * DOT) / 2;
        for (column, letter) in line.chars().enumerate() {
            let glyph = font8x8::BASIC_FONTS.get(letter).unwrap_or([0; 8]);
            for y in 0..8 * DOT {
                for x in 0..8 * DOT {
                    if glyph[y / DOT] >> (x / DOT) & 1 == 1 {
                        let x = left + column * 8 * DOT + x;
                        pixels[(top + row * 12 * DOT + y) * width + x] = 0xf0_f0f0;
                    }
                }
            }
        }
    }
    pixels
}

/// A frame as the bytes of B8G8R8X8.
pub fn bytes(frame: &Frame) -> Vec<u8> {
    frame.iter().flat_map(|pixel| pixel.to_le_bytes()).collect()
}

/// What a PNG file shows.
pub fn read(path: &Path) -> io::Result<Frame> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size().unwrap_or(0);
    let mut bytes = vec![0; size];
    let info = reader.next_frame(&mut bytes)?;
    if (info.width, info.height) != SIZE {
        let said = format!("{} x {} pixels", info.width, info.height);
        return Err(io::Error::other(said));
    }
    let channels = info.color_type.samples();
    let pixel = |bytes: &[u8]| {
        let [red, green, blue] = [0, 1, 2].map(|index| u32::from(bytes[index]));
        red << 16 | green << 8 | blue
    };
    Ok(bytes[..info.buffer_size()]
        .chunks(channels)
        .map(pixel)
        .collect())
}

/// One side of the comparison.
pub struct Side<'a> {
    pub name: String,
    pub shots: [&'a Path; 2],
    /// What happened at the second reading, and whether that is well.
    pub said: Vec<(String, bool)>,
}

const GAP: u32 = 24;
const LINE: u32 = 20;

/// Both sides as an SVG document without external parts.
pub fn side_by_side(title: &str, between: [&str; 2], sides: &[Side<'_>; 2]) -> io::Result<String> {
    let (w, h) = SIZE;
    let most = sides.iter().map(|side| side.said.len()).max().unwrap_or(0) as u32;
    let width = 2 * w + 3 * GAP;
    let (first, second) = (96, 96 + h + 2 * LINE + 16);
    let height = second + h + 16 + most * LINE + 12;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-size=\"13\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\">\n\
         <title>{title}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"10\" fill=\"#14171c\"/>\n"
    );
    let text = |out: &mut String, x: u32, y: u32, fill: &str, text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{y}\" fill=\"{fill}\">{text}</text>"
        );
    };
    text(&mut out, GAP, 32, "#ffffff", title);
    for (index, line) in between.iter().enumerate() {
        let y = first + h + 20 + LINE * index as u32;
        text(&mut out, GAP, y, "#e2b35c", line);
    }
    for (index, side) in sides.iter().enumerate() {
        let x = GAP + index as u32 * (w + GAP);
        text(&mut out, x, 72, "#6cb8e6", &side.name);
        for (shot, y) in side.shots.iter().zip([first - 12, second - 4]) {
            let data = STANDARD.encode(fs::read(shot)?);
            let _ = writeln!(
                out,
                "<image x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" \
                 href=\"data:image/png;base64,{data}\"/>"
            );
        }
        for (row, (said, good)) in side.said.iter().enumerate() {
            let y = second + h + 20 + LINE * row as u32;
            let fill = if *good { "#7fc77f" } else { "#f2686a" };
            text(&mut out, x, y, fill, said);
        }
    }
    out.push_str("</svg>\n");
    Ok(out)
}
