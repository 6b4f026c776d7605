//! The driver's image: a PE32+ file of kernel mode becomes the bytes that
//! Windows would map.
//!
//! [`Image::parse`] reads a file that anybody may have made: every offset and
//! count in it is checked, and nothing is allocated beyond [`MAX_IMAGE`].
//! [`Image::load`] moves it to its base. Mapping pages is the machine's
//! part: [`LoadedImage::pages`] says which, and how.
//!
//! Layouts are those of the PE format's specification (Microsoft, "PE
//! Format").

mod bytes;
mod directories;
mod error;
mod headers;
mod image;
#[cfg(test)]
mod tests;

pub use error::LoadError;
pub use image::{Image, LoadedImage};

use crate::Protection;

/// Longest file that is read, bytes.
pub const MAX_FILE: u64 = 256 << 20;
/// Largest image in memory, bytes.
pub const MAX_IMAGE: u64 = 256 << 20;

/// A section, as it is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    /// Its name; unprintable characters are `?`.
    pub name: String,
    /// Where it starts; a multiple of the page size.
    pub rva: u32,
    /// Bytes in memory, not rounded to pages.
    pub size: u32,
    /// What the driver may do with its pages.
    pub protection: Protection,
    /// Windows drops it after `DriverEntry` (INIT, relocations).
    pub discardable: bool,
}

/// What is imported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Symbol {
    /// By name.
    Name(String),
    /// By number.
    Ordinal(u16),
}

impl std::fmt::Display for Symbol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ordinal(number) => write!(f, "#{number}"),
        }
    }
}

/// One slot of the import address table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Import {
    /// Which DLL, in lower case.
    pub dll: String,
    /// What of it.
    pub symbol: Symbol,
    /// The slot: 8 bytes to be filled with the address.
    pub iat_rva: u32,
}

/// An exported name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Export {
    /// The name.
    pub name: String,
    /// Where it is.
    pub rva: u32,
}

/// What the load configuration leads to, as RVAs of 8-byte fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The `/GS` security cookie: to be set to a value nobody may foresee,
    /// neither 0 nor the linker's.
    pub cookie: Option<u32>,
    /// Slot of the pointer to the control-flow-guard check (target in RCX).
    pub check: Option<u32>,
    /// Slot of the pointer to the dispatch routine (target in RAX).
    pub dispatch: Option<u32>,
    /// The same for extended flow guard (target in RAX, hash in R10).
    pub xfg_check: Option<u32>,
    /// As above.
    pub xfg_dispatch: Option<u32>,
    /// As above.
    pub xfg_table_dispatch: Option<u32>,
    /// `GuardFlags`.
    pub flags: u32,
}

/// For fuzzers: whatever the bytes are, no panic and no huge allocation.
#[doc(hidden)]
pub mod fuzzing {
    use super::Image;
    use memory::Gva;

    /// Parse, and move what parses.
    pub fn loader(data: &[u8]) {
        let Ok(image) = Image::parse(data) else {
            return;
        };
        if image.size() > 1 << 20 {
            return;
        }
        let Ok(mut loaded) = image.load("fuzz.sys", Gva(0xffff_f800_0000_0000)) else {
            return;
        };
        loaded.bind(|import| u64::from(import.iat_rva));
        loaded.set_cookie(1);
        loaded.set_guard(2, 3);
        assert!(loaded.pages().count() <= 257);
        assert!(loaded.code_ranges().iter().all(|range| range.0 < range.1));
    }
}
