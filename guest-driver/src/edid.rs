//! Reading a display's EDID (VESA E-EDID 1.4), which the device hands out
//! and which is therefore checked before it is believed.

/// Bytes of a block.
pub const BLOCK: usize = 128;
/// Bytes kept of an EDID: the base block and one extension.
const CAPACITY: usize = 2 * BLOCK;
/// What every base block starts with.
const MAGIC: [u8; 8] = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
/// Base block: number of extension blocks.
const EXTENSIONS: usize = 126;
/// Base block: the first detailed timing, which is the preferred one.
const TIMING: usize = 54;

/// An EDID whose form and checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edid {
    bytes: [u8; CAPACITY],
    kept: usize,
    /// Bytes of the whole EDID.
    pub length: usize,
    /// Active pixels a row of the preferred timing.
    pub width: u32,
    /// Active rows of it.
    pub height: u32,
}

impl Edid {
    /// From what the device handed out; `None` if it is no EDID.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let base = bytes.get(..BLOCK)?;
        let length = BLOCK * (1 + usize::from(*base.get(EXTENSIONS)?));
        let whole = bytes.get(..length)?;
        let sums_to_zero =
            |block: &[u8]| block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0;
        if !base.starts_with(&MAGIC) || !whole.chunks_exact(BLOCK).all(sums_to_zero) {
            return None;
        }
        let timing: &[u8; 18] = base.get(TIMING..TIMING + 18)?.try_into().ok()?;
        let active = |low: u8, high: u8| u32::from(low) | u32::from(high >> 4) << 8;
        let kept = length.min(CAPACITY);
        let mut edid = Self {
            bytes: [0; CAPACITY],
            kept,
            length,
            width: active(timing[2], timing[4]),
            height: active(timing[5], timing[7]),
        };
        edid.bytes
            .get_mut(..kept)?
            .copy_from_slice(whole.get(..kept)?);
        Some(edid)
    }

    /// As much as is kept of its bytes from `offset` on.
    #[must_use]
    pub fn from_byte(&self, offset: usize) -> &[u8] {
        self.bytes.get(offset..self.kept).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(&MAGIC);
        // 1280 x 1024.
        block[TIMING + 2..TIMING + 8].copy_from_slice(&[0x00, 0, 0x50, 0x00, 0, 0x40]);
        checked(block)
    }

    fn checked(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
        block[BLOCK - 1] = 0;
        let sum = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        block[BLOCK - 1] = sum.wrapping_neg();
        block
    }

    #[test]
    fn a_right_block_tells_its_preferred_size() {
        let edid = Edid::parse(&block()).unwrap();
        assert_eq!((edid.width, edid.height, edid.length), (1280, 1024, BLOCK));
        assert_eq!(edid.from_byte(0), block());
        assert!(edid.from_byte(BLOCK).is_empty());
    }

    #[test]
    fn what_is_no_edid_is_refused() {
        let mut flipped = block();
        flipped[60] ^= 1;
        let mut headless = block();
        headless[1] = 0;
        let mut longer = block();
        longer[EXTENSIONS] = 255;
        for bytes in [
            &flipped[..],
            &checked(headless),
            &checked(longer),
            &block()[..BLOCK - 1],
            &[],
        ] {
            assert_eq!(Edid::parse(bytes), None);
        }
    }
}
