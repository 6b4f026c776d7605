//! DOS, file and optional header, and the section table.

use super::bytes::{FileBytes, u16_at, u32_at, u64_at};
use super::{LoadError, MAX_FILE, MAX_IMAGE, Section};
use crate::Protection;
use memory::PAGE_SIZE;
use object::pe;

/// Most sections an image may have: Windows' own limit.
const MAX_SECTIONS: u16 = 96;
/// Directories that the optional header of any linker has.
const DIRECTORIES: usize = 16;

/// One entry of the data directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Directory {
    pub rva: u32,
    pub size: u32,
}

/// What the headers say.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    pub base: u64,
    pub size: u32,
    pub entry: u32,
    pub time_stamp: u32,
    pub checksum: u32,
    /// Bytes of the file that are mapped as headers.
    pub header_bytes: u32,
    pub relocations_stripped: bool,
    pub directories: [Directory; DIRECTORIES],
    pub sections: Vec<RawSection>,
}

impl Headers {
    /// A directory, if there is one.
    pub fn directory(&self, index: usize) -> Option<Directory> {
        self.directories
            .get(index)
            .copied()
            .filter(|directory| directory.rva != 0 && directory.size != 0)
    }
}

/// A section and its bytes in the file.
#[derive(Clone, Debug)]
pub(super) struct RawSection {
    pub section: Section,
    pub file_offset: u32,
    pub file_size: u32,
}

/// Read and check the headers.
pub(super) fn parse(bytes: &[u8]) -> Result<Headers, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(LoadError::TooLarge {
            size: bytes.len() as u64,
            limit: MAX_FILE,
        });
    }
    if !bytes.starts_with(b"MZ") {
        return Err(LoadError::NotPe {
            found: looks_like(bytes),
        });
    }
    let file = FileBytes(bytes);
    let dos = file.slice(0, 0x40, "the DOS header")?;
    let nt = u64::from(u32_at(dos, 0x3c));
    let signature = file.slice(nt, 4, "the PE signature")?;
    if signature != b"PE\0\0" {
        return Err(LoadError::NotPe {
            found: "a DOS program without a PE header",
        });
    }
    let header = file.slice(nt + 4, 20, "the file header")?;
    check_machine(u16_at(header, 0))?;
    let characteristics = u16_at(header, 18);
    let optional_at = nt + 24;
    let optional_size = u64::from(u16_at(header, 16));
    let optional = file.slice(optional_at, optional_size, "the optional header")?;
    let mut headers = optional_header(optional)?;
    check_kind(
        characteristics,
        u16_at(optional, 68),
        headers.entry,
        headers.size,
    )?;
    headers.time_stamp = u32_at(header, 4);
    headers.relocations_stripped = characteristics & pe::IMAGE_FILE_RELOCS_STRIPPED.0 != 0;
    file.slice(0, u64::from(headers.header_bytes), "the headers")?;
    headers.sections = sections(
        file,
        optional_at + optional_size,
        u16_at(header, 2),
        &headers,
    )?;
    Ok(headers)
}

/// What a file that is no PE image is instead.
fn looks_like(bytes: &[u8]) -> &'static str {
    const MAGIC: &[(&[u8], &str)] = &[
        (b"\x7fELF", "an ELF file"),
        (b"Microsoft C/C++ MSF", "a PDB file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"MSCF", "a cabinet file"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\xfe\xed\xfa", "a Mach-O file"),
        (b"\xcf\xfa\xed\xfe", "a Mach-O file"),
        (b"!<arch>\n", "an archive of object files"),
        (b"\x64\x86", "an object file that is not linked"),
        (b"\xff\xfe", "a text (UTF-16), such as an INF file"),
    ];
    let known = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic));
    let start = bytes.get(..bytes.len().min(512)).unwrap_or_default();
    let is_text = std::str::from_utf8(start).is_ok()
        && start
            .iter()
            .all(|byte| !byte.is_ascii_control() || b"\t\r\n".contains(byte));
    match known {
        Some((_, name)) => name,
        None if is_text => "a text",
        None if start.iter().all(|&byte| byte == 0) => "a file of zeros",
        None => "no PE image (it does not start with \"MZ\")",
    }
}

fn check_machine(machine: u16) -> Result<(), LoadError> {
    let name = match pe::Machine(machine) {
        pe::IMAGE_FILE_MACHINE_AMD64 => return Ok(()),
        pe::IMAGE_FILE_MACHINE_I386 => "32-bit x86",
        pe::IMAGE_FILE_MACHINE_ARM64 => "ARM64",
        pe::IMAGE_FILE_MACHINE_ARM64EC => "ARM64EC",
        pe::IMAGE_FILE_MACHINE_ARM | pe::IMAGE_FILE_MACHINE_ARMNT => "32-bit ARM",
        pe::IMAGE_FILE_MACHINE_IA64 => "Itanium",
        _ => "an unknown machine",
    };
    Err(LoadError::WrongMachine { machine, name })
}

fn check_kind(
    characteristics: u16,
    subsystem: u16,
    entry: u32,
    size: u32,
) -> Result<(), LoadError> {
    if characteristics & pe::IMAGE_FILE_EXECUTABLE_IMAGE.0 == 0 {
        return Err(LoadError::NotLinked(characteristics));
    }
    let is_dll = characteristics & pe::IMAGE_FILE_DLL.0 != 0;
    let kind = match (subsystem, is_dll) {
        // Export drivers are native DLLs; the kernel loads them like others.
        (1, _) => {
            if entry == 0 {
                return Err(LoadError::NoEntry);
            }
            if entry >= size {
                return Err(LoadError::OutsideImage {
                    what: "the entry point".to_owned(),
                    rva: u64::from(entry),
                    bytes: 1,
                    size: u64::from(size),
                });
            }
            return Ok(());
        }
        (2 | 3, true) => "a user-mode DLL",
        (2 | 3, false) => "a user-mode program",
        (10..=13, _) => "an EFI image",
        (16, _) => "a boot application",
        _ => "an image of another kind",
    };
    Err(LoadError::WrongSubsystem { subsystem, kind })
}

/// The optional header: offsets from the PE format, "Optional Header
/// Windows-Specific Fields", PE32+.
fn optional_header(optional: &[u8]) -> Result<Headers, LoadError> {
    const WHAT: &str = "optional header";
    let bad = |field, value: u64, expected| {
        Err(LoadError::BadField {
            what: WHAT,
            field,
            value,
            expected,
        })
    };
    if optional.len() < 2 {
        return bad("size", optional.len() as u64, "at least 112 bytes");
    }
    match u16_at(optional, 0) {
        pe::IMAGE_NT_OPTIONAL_HDR64_MAGIC => {}
        pe::IMAGE_NT_OPTIONAL_HDR32_MAGIC => return Err(LoadError::ThirtyTwoBit),
        other => return bad("magic", u64::from(other), "0x20b for PE32+"),
    }
    if optional.len() < 112 {
        return bad("size", optional.len() as u64, "at least 112 bytes");
    }
    let base = u64_at(optional, 24);
    if !base.is_multiple_of(0x1_0000) {
        return bad("ImageBase", base, "not a multiple of 64 KiB");
    }
    let section_alignment = u64::from(u32_at(optional, 32));
    if section_alignment < PAGE_SIZE || !section_alignment.is_power_of_two() {
        return bad(
            "SectionAlignment",
            section_alignment,
            "not a power of two of at least a page (4096)",
        );
    }
    let size = u32_at(optional, 56);
    if size == 0 || u64::from(size) > MAX_IMAGE {
        return bad("SizeOfImage", u64::from(size), "not between 1 and 256 MiB");
    }
    let header_bytes = u32_at(optional, 60);
    if header_bytes == 0 || header_bytes > size {
        return bad(
            "SizeOfHeaders",
            u64::from(header_bytes),
            "not between 1 and SizeOfImage",
        );
    }
    let count = u32_at(optional, 108) as usize;
    let mut directories = [Directory::default(); DIRECTORIES];
    for (index, directory) in directories.iter_mut().take(count).enumerate() {
        let at = 112 + 8 * index;
        if at + 8 > optional.len() {
            return bad(
                "NumberOfRvaAndSizes",
                count as u64,
                "more than the header has room for",
            );
        }
        *directory = Directory {
            rva: u32_at(optional, at),
            size: u32_at(optional, at + 4),
        };
    }
    Ok(Headers {
        base,
        size,
        entry: u32_at(optional, 16),
        time_stamp: 0,
        checksum: u32_at(optional, 64),
        header_bytes,
        relocations_stripped: false,
        directories,
        sections: Vec::new(),
    })
}

fn sections(
    file: FileBytes<'_>,
    table_at: u64,
    count: u16,
    headers: &Headers,
) -> Result<Vec<RawSection>, LoadError> {
    if count == 0 || count > MAX_SECTIONS {
        return Err(LoadError::BadField {
            what: "file header",
            field: "NumberOfSections",
            value: u64::from(count),
            expected: "not between 1 and 96",
        });
    }
    let table = file.slice(table_at, 40 * u64::from(count), "the section table")?;
    let mut free_from = page_up(u64::from(headers.header_bytes));
    let mut sections = Vec::new();
    for (index, row) in table.chunks_exact(40).enumerate() {
        let raw = section(row);
        let Section {
            name, rva, size, ..
        } = &raw.section;
        let problem = |problem| LoadError::BadSection {
            index: index + 1,
            name: name.clone(),
            rva: *rva,
            size: *size,
            problem,
        };
        let (start, end) = (u64::from(*rva), u64::from(*rva) + u64::from(*size));
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(problem("does not start at a page"));
        }
        if start < free_from {
            return Err(problem(
                "overlaps the headers or the section before it, or is out of order",
            ));
        }
        if *size == 0 {
            return Err(problem("is empty"));
        }
        if end > page_up(u64::from(headers.size)) {
            return Err(problem("is not inside SizeOfImage"));
        }
        file.slice(
            u64::from(raw.file_offset),
            u64::from(raw.file_size),
            &format!("the data of section {} ({name})", index + 1),
        )?;
        free_from = page_up(end);
        sections.push(raw);
    }
    Ok(sections)
}

fn section(row: &[u8]) -> RawSection {
    let name: String = row
        .iter()
        .take(8)
        .take_while(|&&byte| byte != 0)
        .map(|&byte| match byte {
            b'!'..=b'~' => char::from(byte),
            _ => '?',
        })
        .collect();
    let (virtual_size, rva) = (u32_at(row, 8), u32_at(row, 12));
    let (raw_size, file_offset) = (u32_at(row, 16), u32_at(row, 20));
    let flags = u32_at(row, 36);
    // A virtual size of 0 means the raw one (old linkers).
    let size = if virtual_size == 0 {
        raw_size
    } else {
        virtual_size
    };
    // What lies in the file past the virtual size's last page is not mapped.
    let mapped = raw_size.min(u32::try_from(page_up(u64::from(size))).unwrap_or(u32::MAX));
    RawSection {
        section: Section {
            name,
            rva,
            size,
            protection: Protection {
                write: flags & pe::IMAGE_SCN_MEM_WRITE.0 != 0,
                execute: flags & pe::IMAGE_SCN_MEM_EXECUTE.0 != 0,
            },
            discardable: flags & pe::IMAGE_SCN_MEM_DISCARDABLE.0 != 0,
        },
        // A section without data may have any pointer.
        file_offset: if mapped == 0 { 0 } else { file_offset },
        file_size: mapped,
    }
}

/// Up to whole pages.
pub(super) const fn page_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_SIZE)
}
