//! What this crate reads of a PE image: which PDB belongs to it, and where its
//! function table is.

use std::fmt;
use std::ops::Range;

use object::LittleEndian as LE;
use object::Object;
use object::pe::{IMAGE_DIRECTORY_ENTRY_EXCEPTION, ImageDosHeader, ImageNtHeaders64};
use object::read::pe::{ImageNtHeaders, PeFile64};

use crate::names::file_name;

/// A PDB name longer than this is cut: it is only printed and compared.
const MAX_PDB_NAME: usize = 260;

/// The identity of a PDB, as the image that it belongs to states it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PdbId {
    /// The GUID in the order in which it lies in the file (first three fields
    /// little-endian).
    pub guid: [u8; 16],
    /// How often the PDB was written by an incremental link.
    pub age: u32,
    /// The file name of the PDB, without its folder.
    pub name: String,
}

impl fmt::Display for PdbId {
    /// `name/GUIDage` in hexadecimal, the form in which symbol servers file it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = self.guid;
        let a = u32::from_le_bytes([a0, a1, a2, a3]);
        let b = u16::from_le_bytes([b0, b1]);
        let c = u16::from_le_bytes([c0, c1]);
        write!(f, "{}/{a:08X}{b:04X}{c:04X}", self.name)?;
        for byte in rest {
            write!(f, "{byte:02X}")?;
        }
        write!(f, "{:X}", self.age)
    }
}

/// The PDB that an image names, read from the RSDS record of its debug
/// directory. `image` is the file as it lies on disk. `None` if the image has
/// no such record or is damaged.
#[must_use]
pub fn pdb_reference(image: &[u8]) -> Option<PdbId> {
    let file = PeFile64::parse(image).ok()?;
    let code_view = file.pdb_info().ok()??;
    let path = String::from_utf8_lossy(code_view.path());
    Some(PdbId {
        guid: code_view.guid(),
        age: code_view.age(),
        name: file_name(&path).chars().take(MAX_PDB_NAME).collect(),
    })
}

/// The RVA range of the function table (`.pdata`) of an image in memory
/// layout, as its optional header gives it. `None` if the headers are damaged
/// or the table does not lie inside the image; an empty range if there is none.
pub(crate) fn exception_directory(image: &[u8]) -> Option<Range<usize>> {
    let dos = ImageDosHeader::parse(image).ok()?;
    let mut offset = u64::from(dos.nt_headers_offset());
    let (_, directories) = ImageNtHeaders64::parse(image, &mut offset).ok()?;
    let Some(directory) = directories.get(IMAGE_DIRECTORY_ENTRY_EXCEPTION) else {
        return Some(0..0);
    };
    let start = usize::try_from(directory.virtual_address.get(LE)).ok()?;
    let size = usize::try_from(directory.size.get(LE)).ok()?;
    let end = start.checked_add(size)?;
    (end <= image.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identity_is_printed_as_symbol_servers_file_it() {
        let id = PdbId {
            guid: [
                0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff,
            ],
            age: 0x1a,
            name: "driver.pdb".into(),
        };
        assert_eq!(
            id.to_string(),
            "driver.pdb/00112233445566778899AABBCCDDEEFF1A"
        );
    }

    #[test]
    fn image_names_its_pdb() {
        let image = crate::unwind::testing::file_with_code_view(r"C:\b\driver.pdb", [7; 16], 3);
        assert_eq!(
            pdb_reference(&image).unwrap(),
            PdbId {
                guid: [7; 16],
                age: 3,
                name: "driver.pdb".into()
            }
        );
    }

    #[test]
    fn bytes_that_are_no_image_name_no_pdb() {
        assert_eq!(pdb_reference(b""), None);
        assert_eq!(pdb_reference(b"MZ"), None);
    }

    proptest! {
        #[test]
        fn damaged_image_never_panics(
            cut in 0usize..0x800,
            flips in proptest::collection::vec((0usize..0x800, any::<u8>()), 0..16),
        ) {
            let mut image = crate::unwind::testing::file_with_code_view("a.pdb", [1; 16], 1);
            for (at, value) in flips {
                if let Some(byte) = image.get_mut(at) { *byte = value; }
            }
            image.truncate(cut);
            let _ = pdb_reference(&image);
            let _ = exception_directory(&image);
        }
    }
}
