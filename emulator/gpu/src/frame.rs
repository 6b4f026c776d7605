//! What a scanout shows.

use crate::resource::{Rect, Resource};
use crate::spec::format::{BYTES, Format};
use thiserror::Error;

/// A picture of a scanout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Rows top to bottom, without padding; B8G8R8X8, the X always 0.
    pub pixels: Vec<u8>,
}

/// Why a frame cannot be encoded.
#[derive(Debug, Error)]
#[error("cannot encode a frame of {width}x{height} pixels as PNG: {error}")]
pub struct PngError {
    width: u32,
    height: u32,
    error: png::EncodingError,
}

impl Frame {
    /// A black one.
    pub(crate) fn black(width: u32, height: u32) -> Self {
        let bytes = u64::from(width) * u64::from(height) * u64::from(BYTES);
        Self {
            width,
            height,
            pixels: vec![0; bytes as usize],
        }
    }

    /// CRC-32 of the pixels.
    #[must_use]
    pub fn crc(&self) -> u32 {
        crc32fast::hash(&self.pixels)
    }

    /// The pixel at (`x`, `y`) as 0x00RRGGBB, if it is in the frame.
    #[must_use]
    pub fn pixel(&self, x: u32, y: u32) -> Option<u32> {
        if x >= self.width {
            return None;
        }
        let at = (y as usize * self.width as usize + x as usize) * BYTES as usize;
        let bytes = self.pixels.get(at..at + BYTES as usize)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The bytes of the pixel at (`x`, `y`), if it is in the frame.
    pub(crate) fn pixel_mut(&mut self, x: i64, y: i64) -> Option<&mut [u8]> {
        let inside = |at: i64, side: u32| (0..i64::from(side)).contains(&at);
        if !inside(x, self.width) || !inside(y, self.height) {
            return None;
        }
        let at = (y as usize * self.width as usize + x as usize) * BYTES as usize;
        self.pixels.get_mut(at..at + BYTES as usize)
    }

    /// As a PNG file, 8 bits a channel, no alpha.
    ///
    /// # Errors
    /// [`PngError`], for a frame without pixels.
    pub fn png(&self) -> Result<Vec<u8>, PngError> {
        let mut file = Vec::new();
        let fail = |error| PngError {
            width: self.width,
            height: self.height,
            error,
        };
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let rgb: Vec<u8> = self
            .pixels
            .chunks_exact(BYTES as usize)
            .flat_map(|p| match *p {
                [b, g, r, _] => [r, g, b],
                _ => [0; 3],
            })
            .collect();
        let mut writer = encoder.write_header().map_err(fail)?;
        writer.write_image_data(&rgb).map_err(fail)?;
        writer.finish().map_err(fail)?;
        Ok(file)
    }

    /// Take over `length` bytes of a picture of this size in `format`, from
    /// its byte `at` on: `read` puts them into the frame, without a copy
    /// between; an error leaves it as it was. `None`, and nothing is read, if
    /// they are not whole pixels of the frame.
    pub(crate) fn fill<E>(
        &mut self,
        at: u64,
        length: usize,
        format: &Format,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let whole = |bytes: usize| bytes.is_multiple_of(BYTES as usize);
        let at = usize::try_from(at).ok()?;
        if !whole(at) || !whole(length) {
            return None;
        }
        let pixels = self.pixels.get_mut(at..)?.get_mut(..length)?;
        let result = read(pixels);
        if result.is_ok() {
            convert(pixels, format);
        }
        Some(result)
    }

    /// The same of bytes that are no whole pixels.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8], format: &Format) {
        // Where each byte of a pixel goes; X and alpha go nowhere.
        let mut places = [None; BYTES as usize];
        for (to, &from) in format.bgr.iter().enumerate() {
            if let Some(place) = places.get_mut(from) {
                *place = Some(to);
            }
        }
        for (at, byte) in (at as usize..).zip(bytes) {
            let channel = at % BYTES as usize;
            if let Some(Some(to)) = places.get(channel)
                && let Some(place) = self.pixels.get_mut(at - channel + to)
            {
                *place = *byte;
            }
        }
    }

    /// Take over what `resource` has in `part`; `shown` is the part of the
    /// resource that the frame shows, and covers `part`.
    pub(crate) fn copy(&mut self, resource: &Resource, shown: Rect, part: Rect) {
        let width = part.width as usize * BYTES as usize;
        for y in part.y..part.y + part.height {
            let at = (u64::from(y - shown.y) * u64::from(self.width) + u64::from(part.x - shown.x))
                * u64::from(BYTES);
            let row = self
                .pixels
                .get_mut(at as usize..)
                .and_then(|rest| rest.get_mut(..width));
            let Some(row) = row else { return };
            let Some(source) = resource.row(part.x, y, part.width) else {
                row.fill(0);
                continue;
            };
            row.copy_from_slice(source);
            convert(row, resource.format);
        }
    }
}

/// Make whole pixels B8G8R8X8, the X 0. Shifts rather than indices, and one
/// decision for all, so that the loops become vector code.
fn convert(pixels: &mut [u8], format: &Format) {
    let (pixels, _) = pixels.as_chunks_mut();
    if format.bgr == [0, 1, 2] {
        for pixel in pixels {
            *pixel = (u32::from_le_bytes(*pixel) & 0x00ff_ffff).to_le_bytes();
        }
        return;
    }
    let [b, g, r] = format.bgr.map(|at| 8 * (at as u32 % BYTES));
    for pixel in pixels {
        let word = u32::from_le_bytes(*pixel);
        let [b, g, r] = [b, g, r].map(|shift| word >> shift & 0xff);
        *pixel = (b | g << 8 | r << 16).to_le_bytes();
    }
}
