//! The cursor of a scanout (§5.7.6.10).

use crate::frame::Frame;
use crate::resource::Resource;
use crate::spec::CURSOR_SIDE;
use crate::spec::format::BYTES;

/// Bytes of an image.
pub(crate) const IMAGE_BYTES: usize = (CURSOR_SIDE * CURSOR_SIDE * BYTES) as usize;

/// UPDATE_CURSOR, or without an image MOVE_CURSOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CursorUpdate {
    pub scanout: u32,
    pub at: (u32, u32),
    pub image: Option<Image>,
}

/// The image that an UPDATE_CURSOR names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// Resource; 0 hides the cursor.
    pub resource: u32,
    /// Which pixel of it lies at the cursor's position.
    pub hot: (u32, u32),
}

/// A cursor as it was last updated and moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cursor {
    /// Position of the hot spot in the scanout. A cursor at the left or upper
    /// edge is beyond it, so the 32 bits are a signed number.
    at: (i32, i32),
    hot: (u32, u32),
    /// [`CURSOR_SIDE`] rows of as many pixels, B8G8R8A8; empty: hidden.
    pixels: Vec<u8>,
}

impl Cursor {
    pub(crate) fn place(&mut self, (x, y): (u32, u32)) {
        self.at = (x as i32, y as i32);
    }

    pub(crate) fn hide(&mut self) {
        self.pixels = Vec::new();
    }

    /// Take over an image of [`CURSOR_SIDE`] by as many pixels, or a black one
    /// that nothing was put into. A format without alpha is opaque.
    pub(crate) fn load(&mut self, resource: &Resource, hot: (u32, u32)) {
        let [b, g, r] = resource.format.bgr;
        self.hot = hot;
        let black;
        let pixels = match resource.pixels() {
            [] => {
                black = vec![0; IMAGE_BYTES];
                black.as_slice()
            }
            pixels => pixels,
        };
        self.pixels = Vec::with_capacity(IMAGE_BYTES);
        for from in pixels.chunks_exact(BYTES as usize) {
            let channel = |at: usize| from.get(at).copied().unwrap_or(0);
            let alpha = resource.format.alpha.map_or(0xff, channel);
            self.pixels
                .extend([channel(b), channel(g), channel(r), alpha]);
        }
    }

    /// Draw it over a frame. Colours are not premultiplied: the standard does
    /// not say, and Windows' colour pointers are not.
    pub(crate) fn draw(&self, frame: &mut Frame) {
        let row_bytes = (CURSOR_SIDE * BYTES) as usize;
        let left = i64::from(self.at.0) - i64::from(self.hot.0);
        let top = i64::from(self.at.1) - i64::from(self.hot.1);
        for (y, row) in (top..).zip(self.pixels.chunks_exact(row_bytes)) {
            for (x, from) in (left..).zip(row.chunks_exact(BYTES as usize)) {
                if let (&[b, g, r, alpha], Some(to)) = (from, frame.pixel_mut(x, y)) {
                    for (under, over) in to.iter_mut().zip([b, g, r]) {
                        *under = blend(*under, over, alpha);
                    }
                }
            }
        }
    }
}

fn blend(under: u8, over: u8, alpha: u8) -> u8 {
    let alpha = u32::from(alpha);
    let sum = u32::from(over) * alpha + u32::from(under) * (255 - alpha);
    // At most 255: the weights add up to 255.
    ((sum + 127) / 255) as u8
}
