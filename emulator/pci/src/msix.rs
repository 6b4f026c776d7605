//! MSI-X: the table, masks, and messages held back until they are unmasked
//! (PCI Local Bus 3.0 §6.8.2).

use crate::spec::msix as spec;

/// A message to send: an address and its data.
pub type Message = (u64, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    /// Address low, address high, data, vector control.
    words: [u32; 4],
}

impl Entry {
    /// After reset a vector is masked (§6.8.2.9).
    const RESET: Self = Self {
        words: [0, 0, 0, spec::VECTOR_MASKED],
    };

    fn masked(self) -> bool {
        self.words[3] & spec::VECTOR_MASKED != 0
    }

    fn message(self) -> Message {
        let [low, high, data, _] = self.words;
        (u64::from(high) << 32 | u64::from(low), data)
    }
}

/// MSI-X of one function, of at most 64 vectors. Plain data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Msix {
    table: Vec<Entry>,
    /// The pending bit array.
    pending: u64,
    enabled: bool,
    function_mask: bool,
}

impl Msix {
    /// With this many vectors, at most 64.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        Self {
            table: vec![Entry::RESET; usize::from(vectors.min(64))],
            pending: 0,
            enabled: false,
            function_mask: false,
        }
    }

    /// How many vectors there are.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.table.len() as u16
    }

    /// Is MSI-X on?
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The message control register changed. Answers what it set free.
    pub fn set_control(&mut self, control: u16) -> Vec<Message> {
        self.enabled = control & spec::CONTROL_ENABLE != 0;
        self.function_mask = control & spec::CONTROL_FUNCTION_MASK != 0;
        self.release()
    }

    /// An interrupt for `vector`: the message to send now, or none because
    /// the vector is masked (it is then pending) or is not there.
    pub fn signal(&mut self, vector: u16) -> Option<Message> {
        let entry = self.table.get(usize::from(vector)).copied()?;
        if !self.enabled {
            return None;
        }
        if self.function_mask || entry.masked() {
            self.pending |= 1 << vector;
            return None;
        }
        Some(entry.message())
    }

    /// Forget what is pending.
    pub fn clear_pending(&mut self) {
        self.pending = 0;
    }

    /// Read the table; any offset and size.
    #[must_use]
    pub fn table_read(&self, offset: u64, size: u8) -> u64 {
        let byte = |at: u64| {
            let entry = self.table.get((at / spec::ENTRY_SIZE) as usize)?;
            let word = entry.words.get((at % spec::ENTRY_SIZE / 4) as usize)?;
            word.to_le_bytes().get((at % 4) as usize).copied()
        };
        read_bytes(size, |at| byte(offset + at))
    }

    /// Read the pending bit array; any offset and size.
    #[must_use]
    pub fn pba_read(&self, offset: u64, size: u8) -> u64 {
        let bits = self.pending.to_le_bytes();
        read_bytes(size, |at| bits.get((offset + at) as usize).copied())
    }

    /// Write the table. §6.8.2 defines aligned 4 and 8 byte accesses only;
    /// others change nothing. Answers what it set free.
    pub fn table_write(&mut self, offset: u64, size: u8, value: u64) -> Vec<Message> {
        if !matches!(size, 4 | 8) || !offset.is_multiple_of(u64::from(size)) {
            return Vec::new();
        }
        for half in 0..u64::from(size / 4) {
            let at = offset + 4 * half;
            let word = self
                .table
                .get_mut((at / spec::ENTRY_SIZE) as usize)
                .and_then(|e| e.words.get_mut((at % spec::ENTRY_SIZE / 4) as usize));
            if let Some(word) = word {
                *word = (value >> (32 * half)) as u32;
            }
        }
        self.release()
    }

    /// The pending messages whose vectors are no longer masked.
    fn release(&mut self) -> Vec<Message> {
        if !self.enabled || self.function_mask || self.pending == 0 {
            return Vec::new();
        }
        let mut free = Vec::new();
        for (vector, entry) in self.table.iter().enumerate() {
            if self.pending >> vector & 1 != 0 && !entry.masked() {
                self.pending &= !(1 << vector);
                free.push(entry.message());
            }
        }
        free
    }
}

/// `size` bytes, little-endian; those that are not there read as zero.
pub(crate) fn read_bytes(size: u8, byte: impl Fn(u64) -> Option<u8>) -> u64 {
    (0..u64::from(size.min(8))).fold(0, |value, at| {
        value | u64::from(byte(at).unwrap_or(0)) << (8 * at)
    })
}
