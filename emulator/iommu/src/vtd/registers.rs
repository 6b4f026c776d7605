//! The register file: what reads and writes do to bits. What a write sets in
//! motion is said by [`super::Vtd`].

use crate::spec::registers::{END, LAYOUT, Row};

const WORDS: usize = END as usize / 4;
const NONE: u8 = u8::MAX;

/// Row of [`LAYOUT`] that a doubleword belongs to.
const ROWS: [u8; WORDS] = {
    let mut rows = [NONE; WORDS];
    let mut i = 0;
    while i < LAYOUT.len() {
        let word = LAYOUT[i].offset as usize / 4;
        rows[word] = i as u8;
        if LAYOUT[i].size == 8 {
            rows[word + 1] = i as u8;
        }
        i += 1;
    }
    rows
};

/// What a write reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// Which register.
    pub offset: u16,
    /// The value as it was written, in its place in the register.
    pub value: u64,
    /// Which bits of the register the write covered.
    pub covered: u64,
}

/// The bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Registers {
    words: [u32; WORDS],
}

impl Registers {
    pub fn reset() -> Self {
        let mut registers = Self { words: [0; WORDS] };
        for row in &LAYOUT {
            match row.size {
                4 => registers.set(row.offset, row.reset as u32),
                _ => registers.set64(row.offset, row.reset),
            }
        }
        registers
    }

    #[inline]
    pub fn get(&self, offset: u16) -> u32 {
        self.words
            .get(usize::from(offset) / 4)
            .copied()
            .unwrap_or(0)
    }

    #[inline]
    pub fn set(&mut self, offset: u16, value: u32) {
        if let Some(word) = self.words.get_mut(usize::from(offset) / 4) {
            *word = value;
        }
    }

    #[inline]
    pub fn get64(&self, offset: u16) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    #[inline]
    pub fn set64(&mut self, offset: u16, value: u64) {
        self.set(offset, value as u32);
        self.set(offset + 4, (value >> 32) as u32);
    }

    pub fn set_bits(&mut self, offset: u16, bits: u32) {
        self.set(offset, self.get(offset) | bits);
    }

    pub fn clear_bits(&mut self, offset: u16, bits: u32) {
        self.set(offset, self.get(offset) & !bits);
    }

    /// As the CPU sees it: any size up to 8 that does not leave its aligned
    /// doubleword, or quadword; zero elsewhere.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let size = u64::from(size);
        if !matches!(size, 1 | 2 | 4 | 8) || !offset.is_multiple_of(size) {
            return 0;
        }
        let Ok(offset) = u16::try_from(offset) else {
            return 0;
        };
        if size == 8 {
            return self.get64(offset);
        }
        let shifted = self.get(offset & !3) >> (8 * (offset & 3));
        u64::from(shifted) & ((1 << (8 * size)) - 1)
    }

    /// Write the register, or half of one, that the doubleword or quadword at
    /// `offset` is. `None` where there is no register.
    pub fn write(&mut self, offset: u16, size: u8, value: u64) -> Option<Written> {
        let index = *ROWS.get(usize::from(offset) / 4)?;
        let row: &Row = LAYOUT.get(usize::from(index))?;
        let (covered, value) = match (size, offset == row.offset) {
            (8, true) => (u64::MAX, value),
            (_, true) => (0xffff_ffff, value & 0xffff_ffff),
            (_, false) => (0xffff_ffff << 32, value << 32),
        };
        let old = match row.size {
            4 => u64::from(self.get(row.offset)),
            _ => self.get64(row.offset),
        };
        let written = row.writable & covered;
        let new = ((old & !written) | (value & written)) & !(value & row.clear & covered);
        match row.size {
            4 => self.set(row.offset, new as u32),
            _ => self.set64(row.offset, new),
        }
        Some(Written {
            offset: row.offset,
            value,
            covered,
        })
    }

    /// Is the quadword at `offset` one register?
    pub fn is_wide(offset: u16) -> bool {
        ROWS.get(usize::from(offset) / 4)
            .and_then(|&index| LAYOUT.get(usize::from(index)))
            .is_some_and(|row| row.offset == offset && row.size == 8)
    }
}
