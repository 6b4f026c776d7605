//! The private Escape commands by which a user program on Windows, or
//! dmasan's machine, drives the guest driver, and the picture it draws.
//!
//! Both sides share this file, so the layout and the picture cannot drift
//! apart. All integers are little-endian; every command is one [`Escape`]
//! structure in `DXGKARG_ESCAPE::pPrivateDriverData`.
#![no_std]
#![forbid(unsafe_code)]

pub mod mutations;

/// `Escape::magic`: "DMSN" in memory order.
pub const MAGIC: u32 = u32::from_le_bytes(*b"DMSN");
/// `Escape::version` of this layout.
pub const VERSION: u32 = 2;

/// Does the driver speak this interface? Fills `value` with the number of
/// resources it can hold.
pub const QUERY: u32 = 0;
/// Create a resource of `width` x `height` pixels, 32 bits each
/// (B8G8R8X8), with backing, show it on `scanout`, and fill `resource`
/// with its id and `value` with the number of its backing pages.
pub const CREATE: u32 = 1;
/// Draw the frame of `seed` into `resource` and queue its transfer and
/// flush. Returns once they are queued; `value` is the fence that
/// completes with them.
pub const PRESENT: u32 = 2;
/// Wait until the device completed all that was presented to `resource`.
pub const WAIT: u32 = 3;
/// Give `resource` back: wait for its frames, detach, unreference, free
/// its pages.
pub const FREE: u32 = 4;
/// Replace `resource` by one of `width` x `height` pixels that is shown
/// where it was shown, and give the old one back. Fills `resource` with the
/// id of the new one and `value` with the number of its backing pages.
pub const RESIZE: u32 = 5;
/// Ask what is connected to `scanout`. Fills `width` and `height` with the
/// size of the display (0 x 0: none) and `value` with the number of
/// scanouts.
pub const DISPLAY: u32 = 6;
/// Read and check the EDID of `scanout`. Fills `width` and `height` with
/// the active pixels of its preferred timing and `value` with its bytes.
pub const EDID: u32 = 7;
/// Draw the picture of `seed` as the cursor of `scanout`
/// ([`CURSOR_SIDE`] pixels a side) and show it at (`x`, `y`); its hot spot
/// is (`width`, `height`).
pub const CURSOR_SHAPE: u32 = 8;
/// Move the cursor of `scanout` to (`x`, `y`).
pub const CURSOR_MOVE: u32 = 9;
/// Take the cursor off `scanout`, and give its picture back.
pub const CURSOR_HIDE: u32 = 10;
/// Like [`CREATE`], but as a blob in guest memory (B8G8R8X8), from which
/// the display is fed without transfers.
pub const CREATE_BLOB: u32 = 11;
/// Show `resource` on `scanout`; resource 0 turns the scanout off.
pub const SCANOUT: u32 = 12;

/// Pixels a side of a cursor (virtio 1.2 §5.7.6.10).
pub const CURSOR_SIDE: u32 = 64;

/// One command and its answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Escape {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u32,
    /// One of the commands, [`QUERY`] to [`SCANOUT`].
    pub command: u32,
    /// Resource id; answered by [`CREATE`], [`CREATE_BLOB`] and [`RESIZE`].
    pub resource: u32,
    /// Pixels a row, or the hot spot's x.
    pub width: u32,
    /// Rows, or the hot spot's y.
    pub height: u32,
    /// Which picture to draw, for [`PRESENT`] and [`CURSOR_SHAPE`].
    pub seed: u64,
    /// The command's answer.
    pub value: u64,
    /// Which scanout.
    pub scanout: u32,
    /// Where the cursor's hot spot is, from the left; may be negative.
    pub x: i32,
    /// The same from the top.
    pub y: i32,
    /// Zero.
    pub reserved: u32,
}

/// Size of [`Escape`] in bytes.
pub const ESCAPE_SIZE: usize = 56;
const _: () = assert!(core::mem::size_of::<Escape>() == ESCAPE_SIZE);

impl Escape {
    /// A command with every other field zero.
    #[must_use]
    pub const fn new(command: u32) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            command,
            resource: 0,
            width: 0,
            height: 0,
            seed: 0,
            value: 0,
            scanout: 0,
            x: 0,
            y: 0,
            reserved: 0,
        }
    }

    /// The structure as the driver sees it in memory.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ESCAPE_SIZE] {
        let mut bytes = [0; ESCAPE_SIZE];
        bytes[0..4].copy_from_slice(&self.magic.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.command.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.resource.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.width.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.height.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.seed.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.value.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.scanout.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.x.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.y.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.reserved.to_le_bytes());
        bytes
    }

    /// The structure read back from memory.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ESCAPE_SIZE]) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            magic: word(0),
            version: word(4),
            command: word(8),
            resource: word(12),
            width: word(16),
            height: word(20),
            seed: long(24),
            value: long(32),
            scanout: word(40),
            x: word(44) as i32,
            y: word(48) as i32,
            reserved: word(52),
        }
    }
}

/// The picture: the pixel at (`x`, `y`) of the frame that `seed` names, as
/// 0x00RRGGBB.
///
/// Integer arithmetic only, so that kernel code can draw it and a test can
/// compute it again. Every pixel depends on the seed and on its place, so a
/// page that is missing, stale or in the wrong place shows.
#[must_use]
pub const fn pixel(seed: u64, x: u32, y: u32) -> u32 {
    // A soft gradient whose hue comes from the seed, a fine weave over it
    // that changes with every pixel, and a grid of 64-pixel tiles.
    let hue = mix(seed);
    let r = (x >> 2).wrapping_add(hue as u32 & 0xff) & 0xff;
    let g = (y >> 1).wrapping_add((hue >> 8) as u32 & 0xff) & 0xff;
    let b = (x.wrapping_add(y) >> 3).wrapping_add((hue >> 16) as u32 & 0xff) & 0xff;
    let weave = (x ^ y ^ (hue >> 24) as u32) & 0x0f;
    let line = if x.is_multiple_of(64) || y.is_multiple_of(64) {
        0x40
    } else {
        0
    };
    let r = (r / 2 + weave + line) & 0xff;
    let g = (g / 2 + weave + line) & 0xff;
    let b = (b / 2 + weave + line + 0x20) & 0xff;
    r << 16 | g << 8 | b
}

/// The cursor that `seed` names: the pixel at (`x`, `y`) as 0xAARRGGBB, an
/// arrow's triangle of one colour on nothing.
#[must_use]
pub const fn cursor_pixel(seed: u64, x: u32, y: u32) -> u32 {
    if x <= y && y < CURSOR_SIDE {
        0xff00_0000 | mix(seed) as u32 & 0x00ff_ffff
    } else {
        0
    }
}

/// splitmix64's finaliser: spreads a small seed over 64 bits.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_survives_its_bytes() {
        let escape = Escape {
            resource: 3,
            width: 640,
            height: 480,
            seed: 0x0123_4567_89ab_cdef,
            value: u64::MAX - 1,
            scanout: 2,
            x: -7,
            y: i32::MAX,
            ..Escape::new(PRESENT)
        };
        assert_eq!(Escape::from_bytes(&escape.to_bytes()), escape);
    }

    #[test]
    fn two_seeds_draw_two_pictures() {
        let differing = (0..640)
            .filter(|&x| pixel(1, x, 7) != pixel(2, x, 7))
            .count();
        assert!(differing > 600);
    }
}
