//! Resources: pixels on the host, and backing in device addresses.

use crate::spec::CURSOR_SIDE;
use crate::spec::format::{BYTES, CURSOR_FORMAT, FORMATS, Format};
use memory::{Iova, PAGE_SIZE};
use std::fmt;

/// Largest width or height of a resource, pixels.
pub const MAX_SIDE: u32 = 16_384;

/// The format of this number.
pub fn format(number: u32) -> Option<&'static Format> {
    FORMATS.iter().find(|f| f.number == number)
}

/// A rectangle, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left.
    pub x: u32,
    /// Top.
    pub y: u32,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// Does it have pixels, all inside `width` by `height`?
    pub fn lies_in(self, width: u32, height: u32) -> bool {
        let fits = |start: u32, length: u32, limit: u32| {
            length != 0 && start <= limit && length <= limit - start
        };
        fits(self.x, self.width, width) && fits(self.y, self.height, height)
    }

    /// What both cover. Both must lie in something of at most [`MAX_SIDE`].
    pub fn intersect(self, other: Self) -> Option<Self> {
        let common = |a: u32, a_length: u32, b: u32, b_length: u32| {
            let start = a.max(b);
            let end = a.saturating_add(a_length).min(b.saturating_add(b_length));
            (end > start).then(|| (start, end - start))
        };
        let (x, width) = common(self.x, self.width, other.x, other.width)?;
        let (y, height) = common(self.y, self.height, other.y, other.height)?;
        Some(Self {
            x,
            y,
            width,
            height,
        })
    }
}

impl fmt::Display for Rect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} at {},{}", self.width, self.height, self.x, self.y)
    }
}

/// Guest memory behind a resource: device addresses, never translated before
/// an access is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backing {
    /// Byte of the backing where an entry starts, its address and its bytes;
    /// ascending, without empty ones.
    entries: Vec<(u64, Iova, u32)>,
    /// Bytes in all.
    length: u64,
}

impl Backing {
    /// From the entries of ATTACH_BACKING; `None` if one leaves the address
    /// space or nothing is there.
    pub fn new(entries: &[(Iova, u32)]) -> Option<Self> {
        let mut backing = Self {
            entries: Vec::with_capacity(entries.len()),
            length: 0,
        };
        for &(iova, length) in entries.iter().filter(|(_, length)| *length != 0) {
            iova.checked_add(u64::from(length) - 1)?;
            backing.entries.push((backing.length, iova, length));
            backing.length += u64::from(length);
        }
        (backing.length != 0).then_some(backing)
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = (Iova, u32)> + '_ {
        self.entries.iter().map(|&(_, iova, length)| (iova, length))
    }

    /// How many entries are kept.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// The first piece of the `length` bytes at `offset`: in one entry and
    /// one page.
    pub fn piece(&self, offset: u64, length: u64) -> Option<(Iova, u32)> {
        let after = self
            .entries
            .partition_point(|&(start, _, _)| start <= offset);
        let &(start, iova, bytes) = self.entries.get(after.checked_sub(1)?)?;
        let inside = offset - start;
        let left = u64::from(bytes)
            .checked_sub(inside)
            .filter(|&left| left != 0)?;
        let iova = iova.checked_add(inside)?;
        let length = length.min(left).min(PAGE_SIZE - iova.offset());
        Some((iova, length as u32))
    }
}

/// A 2D resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    pub format: &'static Format,
    pub width: u32,
    pub height: u32,
    /// Rows top to bottom; empty until something is transferred, so that a
    /// resource costs what was put into it. Of a blob: the image of a cursor,
    /// while it is read.
    pixels: Vec<u8>,
    pub backing: Option<Backing>,
    pub uuid: Option<[u8; 16]>,
    /// Bytes of a blob. It has neither sides nor format.
    pub blob: Option<u64>,
}

impl Resource {
    /// Black, with sides of 1 to [`MAX_SIDE`].
    pub fn new(format: &'static Format, width: u32, height: u32) -> Self {
        Self {
            format,
            width,
            height,
            pixels: Vec::new(),
            backing: None,
            uuid: None,
            blob: None,
        }
    }

    /// A blob in guest memory.
    pub fn new_blob(size: u64, backing: Option<Backing>) -> Self {
        Self {
            format: &CURSOR_FORMAT,
            width: 0,
            height: 0,
            pixels: Vec::new(),
            backing,
            uuid: None,
            blob: Some(size),
        }
    }

    /// Bytes a row.
    pub fn stride(&self) -> u64 {
        u64::from(self.width) * u64::from(BYTES)
    }

    /// Bytes of its pixels.
    pub fn bytes(&self) -> u64 {
        self.stride() * u64::from(self.height)
    }

    /// The `length` bytes at byte `at` of the pixels, to put something there.
    pub fn slot(&mut self, at: u64, length: usize) -> Option<&mut [u8]> {
        if self.pixels.is_empty() {
            let cursor = u64::from(CURSOR_SIDE * CURSOR_SIDE * BYTES);
            let bytes = self.blob.map_or_else(|| self.bytes(), |_| cursor);
            self.pixels = vec![0; bytes as usize];
        }
        self.pixels.get_mut(at as usize..)?.get_mut(..length)
    }

    /// All pixels; empty while they are black.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The host's copy of a blob is not wanted any more.
    pub fn drop_blob_pixels(&mut self) {
        if self.blob.is_some() {
            self.pixels = Vec::new();
        }
    }

    /// The bytes of `width` pixels of row `y` from `x`; `None` while all are
    /// black, or outside.
    pub fn row(&self, x: u32, y: u32, width: u32) -> Option<&[u8]> {
        let at = u64::from(y) * self.stride() + u64::from(x) * u64::from(BYTES);
        let length = width as usize * BYTES as usize;
        self.pixels.get(at as usize..)?.get(..length)
    }
}

/// A TRANSFER_TO_HOST_2D under way. The resource cannot go away meanwhile:
/// commands are done one at a time, and a reset gives the transfer up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// Which resource.
    pub resource: u32,
    /// Byte of the backing of the current row's start.
    source: u64,
    /// Byte of the pixels of the current row's start.
    target: u64,
    /// Bytes of a row.
    row: u64,
    /// Bytes of the current row that are done.
    done: u64,
    /// Rows left, the current one included.
    rows: u64,
    /// Bytes from row to row in the backing. TRANSFER_TO_HOST_2D: as in the
    /// resource (§5.7.6.8).
    stride: u64,
    /// The same in the pixels.
    target_stride: u64,
}

impl Transfer {
    /// Of `rect`, which lies in the resource, from byte `offset` of the
    /// backing; `None` if the backing is too short for it.
    pub fn new(
        id: u32,
        resource: &Resource,
        backing: &Backing,
        rect: Rect,
        offset: u64,
    ) -> Option<Self> {
        let stride = resource.stride();
        let row = u64::from(rect.width) * u64::from(BYTES);
        let rows = u64::from(rect.height);
        let span = (rows - 1) * stride + row;
        if offset.checked_add(span)? > backing.length() {
            return None;
        }
        let mut transfer = Self {
            resource: id,
            source: offset,
            target: u64::from(rect.y) * stride + u64::from(rect.x) * u64::from(BYTES),
            row,
            done: 0,
            rows,
            stride,
            target_stride: stride,
        };
        transfer.join_rows();
        Some(transfer)
    }

    /// Of a picture in a blob into a frame: `rows` of `row` bytes (neither is
    /// 0), each `stride` after the other, from byte `source` on.
    pub fn scan(id: u32, source: u64, stride: u64, row: u64, rows: u64) -> Self {
        let mut transfer = Self {
            resource: id,
            source,
            target: 0,
            row,
            done: 0,
            rows,
            stride,
            target_stride: row,
        };
        transfer.join_rows();
        transfer
    }

    /// Where whole rows lie one after the other, pages, not rows, are the
    /// pieces.
    fn join_rows(&mut self) {
        if self.row == self.stride && self.row == self.target_stride {
            self.row *= self.rows;
            self.rows = 1;
        }
    }

    /// The next bytes to read: byte of the backing and how many are left of
    /// the row. `None` when all is done.
    pub fn next(&self) -> Option<(u64, u64)> {
        (self.rows != 0).then_some((self.source + self.done, self.row - self.done))
    }

    /// Where those bytes go in the pixels.
    pub fn target(&self) -> u64 {
        self.target + self.done
    }

    /// So many of them were put there.
    pub fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done >= self.row {
            self.done = 0;
            self.rows = self.rows.saturating_sub(1);
            self.source += self.stride;
            self.target += self.target_stride;
        }
    }
}
