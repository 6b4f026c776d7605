//! Little-endian fields of a file and of an image, with bounds.

use super::LoadError;

/// The file as it is on the disk.
#[derive(Clone, Copy)]
pub(super) struct FileBytes<'a>(pub &'a [u8]);

impl<'a> FileBytes<'a> {
    /// `length` bytes at `offset`, which are `what`.
    pub fn slice(self, offset: u64, length: u64, what: &str) -> Result<&'a [u8], LoadError> {
        part(self.0, offset, length).ok_or_else(|| LoadError::Truncated {
            what: what.to_owned(),
            offset,
            bytes: length,
            size: self.0.len() as u64,
        })
    }
}

/// The image as it lies in memory, at its preferred base or at any other.
#[derive(Clone, Copy)]
pub(super) struct ImageBytes<'a>(pub &'a [u8]);

impl<'a> ImageBytes<'a> {
    /// `length` bytes at `rva`, which are `what`.
    pub fn slice(self, rva: u64, length: u64, what: &str) -> Result<&'a [u8], LoadError> {
        part(self.0, rva, length).ok_or_else(|| LoadError::OutsideImage {
            what: what.to_owned(),
            rva,
            bytes: length,
            size: self.0.len() as u64,
        })
    }

    /// A 16-bit field.
    pub fn u16(self, rva: u64, what: &str) -> Result<u16, LoadError> {
        Ok(u16_at(self.slice(rva, 2, what)?, 0))
    }

    /// A 32-bit field.
    pub fn u32(self, rva: u64, what: &str) -> Result<u32, LoadError> {
        Ok(u32_at(self.slice(rva, 4, what)?, 0))
    }

    /// A 64-bit field.
    pub fn u64(self, rva: u64, what: &str) -> Result<u64, LoadError> {
        Ok(u64_at(self.slice(rva, 8, what)?, 0))
    }

    /// A NUL-terminated text of printable ASCII, not empty, at most `limit`
    /// characters.
    pub fn name(self, rva: u64, limit: usize, what: &str) -> Result<String, LoadError> {
        let broken = |problem| LoadError::BadName {
            what: what.to_owned(),
            rva,
            problem,
        };
        let start = usize::try_from(rva).unwrap_or(usize::MAX);
        let rest = self
            .0
            .get(start..)
            .filter(|rest| !rest.is_empty())
            .ok_or_else(|| broken("outside the image"))?;
        let text: Vec<u8> = rest
            .iter()
            .copied()
            .take(limit + 1)
            .take_while(|&byte| byte != 0)
            .collect();
        if text.is_empty() {
            return Err(broken("empty"));
        }
        if text.len() > limit {
            return Err(broken("too long"));
        }
        if text.len() == rest.len() {
            return Err(broken("not terminated"));
        }
        if !text.iter().all(u8::is_ascii_graphic) {
            return Err(broken("not printable ASCII"));
        }
        String::from_utf8(text).map_err(|_| broken("not printable ASCII"))
    }
}

fn part(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    bytes.get(start..end)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut field = [0; N];
    if let Some(source) = bytes.get(offset..offset.saturating_add(N)) {
        field.copy_from_slice(source);
    }
    field
}

/// A field of a slice whose length was checked; 0 past its end.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array(bytes, offset))
}

/// A field of a slice whose length was checked; 0 past its end.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array(bytes, offset))
}

/// A field of a slice whose length was checked; 0 past its end.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array(bytes, offset))
}
