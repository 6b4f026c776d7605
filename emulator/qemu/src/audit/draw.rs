//! Guest memory as a picture: what the device reaches of it.

use super::Audit;
use gpu::Frame;
use memory::PAGE_SIZE;

/// Largest side of a picture, pixels.
const SIDE: u64 = 1024;
/// Blue, green, red.
type Colour = [u8; 3];
const OUT_OF_REACH: Colour = [0x28, 0x28, 0x28];
const READ: Colour = [0xd0, 0x90, 0x30];
const WRITE: Colour = [0x50, 0xb0, 0x40];
const UNOWNED: Colour = [0x20, 0xa0, 0xf0];
const IDENTITY: Colour = [0x30, 0x30, 0xe0];

/// What a place of a map shows; the worst of what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shade {
    #[default]
    OutOfReach,
    /// The device's, to read.
    Read,
    /// The device's, to write.
    Write,
    /// In reach, and none of the device's business.
    Unowned,
    /// The same, at its physical address.
    Identity,
}

impl Shade {
    fn colour(self) -> Colour {
        match self {
            Self::OutOfReach => OUT_OF_REACH,
            Self::Read => READ,
            Self::Write => WRITE,
            Self::Unowned => UNOWNED,
            Self::Identity => IDENTITY,
        }
    }
}

/// All of guest memory in `cells` places, each so many pages.
pub(super) fn shades(audit: &Audit, cells: u64) -> (Vec<Shade>, u64) {
    let each = audit.guest_pages.div_ceil(cells.max(1)).max(1);
    let used = audit.guest_pages.div_ceil(each);
    let mut all = vec![Shade::OutOfReach; used as usize];
    for patch in &audit.map {
        let shade = match (patch.identity, patch.owned, patch.write) {
            (true, false, _) => Shade::Identity,
            (_, false, _) => Shade::Unowned,
            (_, true, true) => Shade::Write,
            (_, true, false) => Shade::Read,
        };
        // RAM above 4 GiB follows that below.
        let mut before = 0;
        for &(base, size) in &audit.slots {
            if patch.gpa >= base && patch.gpa - base < size {
                let first = (before + patch.gpa - base) / PAGE_SIZE;
                let last = first + (patch.length / PAGE_SIZE).saturating_sub(1);
                let cells = all.iter_mut().take((last / each + 1) as usize);
                for cell in cells.skip((first / each) as usize) {
                    *cell = (*cell).max(shade);
                }
            }
            before += size;
        }
    }
    (all, each)
}

/// The map as a picture, and how many pages a pixel is.
#[must_use]
pub fn picture(audit: &Audit) -> (Frame, u64) {
    let (shades, each) = shades(audit, SIDE * SIDE);
    let count = (shades.len() as u64).max(1);
    // About twice as wide as high.
    let width = (2 * count).isqrt().next_multiple_of(64).clamp(64, SIDE);
    let height = count.div_ceil(width);
    let mut pixels = Vec::with_capacity((width * height * 4) as usize);
    for at in 0..width * height {
        let [b, g, r] = shades
            .get(at as usize)
            .map_or([0; 3], |shade| shade.colour());
        pixels.extend([b, g, r, 0]);
    }
    let frame = Frame {
        width: width as u32,
        height: height as u32,
        pixels,
    };
    (frame, each)
}
