//! An image that was read, and one that was moved to its place.

use super::bytes::{FileBytes, ImageBytes, u64_at};
use super::headers::{self, Headers, page_up};
use super::{Export, Guard, Import, LoadError, Section, directories};
use crate::Protection;
use memory::{Gva, PAGE_SIZE};
use std::fmt;

/// A driver file that was read and checked.
#[derive(Clone)]
pub struct Image {
    headers: Headers,
    /// The image as the linker meant it, at its preferred base.
    bytes: Vec<u8>,
    imports: Vec<Import>,
    exports: Vec<Export>,
    relocations: Vec<u32>,
    functions: Vec<(u32, u32)>,
    guard: Guard,
}

// Without the bytes: they are megabytes.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LoadedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedImage")
            .field("name", &self.name)
            .field("base", &self.base)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Image {
    /// Read a file.
    ///
    /// # Errors
    /// [`LoadError`], naming the structure and the place.
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        let headers = headers::parse(bytes)?;
        let file = FileBytes(bytes);
        // Zeroed lazily by the allocator: what no section fills costs
        // address space only.
        let mut image = vec![0; page_up(u64::from(headers.size)) as usize];
        let mut place = |rva: u32, source: &[u8]| {
            let start = rva as usize;
            if let Some(target) = image.get_mut(start..start + source.len()) {
                target.copy_from_slice(source);
            }
        };
        place(
            0,
            file.slice(0, u64::from(headers.header_bytes), "the headers")?,
        );
        for raw in &headers.sections {
            let (offset, size) = (u64::from(raw.file_offset), u64::from(raw.file_size));
            place(
                raw.section.rva,
                file.slice(offset, size, &raw.section.name)?,
            );
        }
        let view = ImageBytes(&image);
        let imports = directories::imports(view, &headers)?;
        let exports = directories::exports(view, &headers);
        let relocations = directories::relocations(view, &headers)?;
        let functions = directories::functions(view, &headers)?;
        let guard = directories::guard(view, &headers)?;
        Ok(Self {
            bytes: image,
            imports,
            exports,
            relocations,
            functions,
            guard,
            headers,
        })
    }

    /// Bytes in memory, whole pages.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the linker put it.
    #[must_use]
    pub fn preferred_base(&self) -> u64 {
        self.headers.base
    }

    /// What it imports, in the order of its tables.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    /// Move it to `base`, which is page-aligned. `name` is its file name.
    ///
    /// # Errors
    /// [`LoadError::BadBase`], [`LoadError::NotRelocatable`].
    pub fn load(self, name: &str, base: Gva) -> Result<LoadedImage, LoadError> {
        let size = self.size();
        let bad_base = |problem| LoadError::BadBase {
            base: base.0,
            size,
            problem,
        };
        if base.offset() != 0 {
            return Err(bad_base("not at a page"));
        }
        if base.checked_add(size).is_none() {
            return Err(bad_base("past the end of the address space"));
        }
        let Self {
            headers, mut bytes, ..
        } = self;
        let delta = base.0.wrapping_sub(headers.base);
        if delta != 0 {
            if headers.relocations_stripped {
                return Err(LoadError::NotRelocatable {
                    preferred: headers.base,
                    base: base.0,
                });
            }
            for &rva in &self.relocations {
                let start = rva as usize;
                if let Some(field) = bytes.get_mut(start..start + 8) {
                    let moved = u64_at(field, 0).wrapping_add(delta);
                    field.copy_from_slice(&moved.to_le_bytes());
                }
            }
        }
        Ok(LoadedImage {
            name: name.to_owned(),
            base,
            entry: Gva(base.0.wrapping_add(u64::from(headers.entry))),
            time_stamp: headers.time_stamp,
            checksum: headers.checksum,
            sections: headers
                .sections
                .into_iter()
                .map(|raw| raw.section)
                .collect(),
            header_bytes: headers.header_bytes,
            bytes,
            imports: self.imports,
            exports: self.exports,
            functions: self.functions,
            guard: self.guard,
        })
    }
}

/// An image at its base: what is to be mapped, and what is to be known.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LoadedImage {
    /// File name.
    pub name: String,
    /// Its first byte.
    pub base: Gva,
    /// `DriverEntry`, or what the linker put before it.
    pub entry: Gva,
    /// From the file header; identifies the image.
    pub time_stamp: u32,
    /// From the optional header.
    pub checksum: u32,
    /// Its sections, in address order.
    pub sections: Vec<Section>,
    /// What it imports.
    pub imports: Vec<Import>,
    /// What it exports.
    pub exports: Vec<Export>,
    /// Begin and end RVA of each function of `.pdata`; leaf functions have
    /// no row.
    pub functions: Vec<(u32, u32)>,
    /// Slots that the loader fills.
    pub guard: Guard,
    /// The whole image, relocated; whole pages. Offsets are RVAs.
    pub bytes: Vec<u8>,
    header_bytes: u32,
}

impl LoadedImage {
    /// Bytes in memory, whole pages.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Fill the import address table with what `resolve` says. To be done
    /// before the pages are mapped: the table is mostly in a read-only
    /// section.
    pub fn bind(&mut self, mut resolve: impl FnMut(&Import) -> u64) {
        for import in &self.imports {
            put(&mut self.bytes, import.iat_rva, resolve(import));
        }
    }

    /// Set the security cookie, if the image has one. Its upper 16 bits are
    /// cleared, as `__security_init_cookie` expects of an x64 cookie.
    pub fn set_cookie(&mut self, random: u64) {
        let default = 0x0000_2b99_2ddf_a232;
        let cookie = match random & 0x0000_ffff_ffff_ffff {
            0 => 1,
            value if value == default => default + 1,
            value => value,
        };
        if let Some(rva) = self.guard.cookie {
            put(&mut self.bytes, rva, cookie);
        }
    }

    /// Point the control-flow-guard slots at a check routine (target in
    /// RCX) and at a dispatch routine (jumps to RAX). The slots of extended
    /// flow guard get the same: its hash in R10 goes unread.
    pub fn set_guard(&mut self, check: u64, dispatch: u64) {
        let guard = self.guard;
        for rva in [guard.check, guard.xfg_check].into_iter().flatten() {
            put(&mut self.bytes, rva, check);
        }
        for rva in [guard.dispatch, guard.xfg_dispatch, guard.xfg_table_dispatch]
            .into_iter()
            .flatten()
        {
            put(&mut self.bytes, rva, dispatch);
        }
    }

    /// The pages to map, in address order: RVA and protection. Pages between
    /// sections are not there.
    pub fn pages(&self) -> impl Iterator<Item = (u32, Protection)> + '_ {
        let headers = (0, self.header_bytes, Protection::READ);
        let sections = self
            .sections
            .iter()
            .map(|section| (section.rva, section.size, section.protection));
        std::iter::once(headers)
            .chain(sections)
            .flat_map(|(rva, size, protection)| {
                (rva..rva.saturating_add(size))
                    .step_by(PAGE_SIZE as usize)
                    .map(move |page| (page, protection))
            })
    }

    /// The bytes of the page at `rva`.
    #[must_use]
    pub fn page(&self, rva: u32) -> Option<&[u8]> {
        let start = rva as usize;
        self.bytes.get(start..start + PAGE_SIZE as usize)
    }

    /// First and one-past-last RVA of each executable section.
    #[must_use]
    pub fn code_ranges(&self) -> Vec<(u32, u32)> {
        self.sections
            .iter()
            .filter(|section| section.protection.execute)
            .map(|section| (section.rva, section.rva.saturating_add(section.size)))
            .collect()
    }

    /// Does the address lie in the image?
    #[must_use]
    pub fn contains(&self, address: Gva) -> bool {
        address.0.wrapping_sub(self.base.0) < self.size()
    }
}

/// Write an 8-byte field whose place was checked when it was read.
fn put(bytes: &mut [u8], rva: u32, value: u64) {
    let start = rva as usize;
    if let Some(field) = bytes.get_mut(start..start + 8) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}
