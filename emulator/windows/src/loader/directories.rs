//! Imports, exports, relocations, function ranges and the load
//! configuration: what the data directories lead to.

use super::bytes::{ImageBytes, u16_at, u32_at, u64_at};
use super::headers::{Directory, Headers};
use super::{Export, Guard, Import, LoadError, Symbol};
use object::pe;

/// Most DLLs a driver imports from.
const MAX_DLLS: usize = 64;
/// Most imports in all, and most exports.
const MAX_SYMBOLS: usize = 0x1_0000;
/// Longest name of a DLL.
const MAX_DLL_NAME: usize = 255;
/// Longest name of a symbol: C++ names are long.
const MAX_SYMBOL_NAME: usize = 4096;
/// Most rows of `.pdata`.
const MAX_FUNCTIONS: usize = 1 << 20;

/// The import tables.
pub(super) fn imports(image: ImageBytes<'_>, headers: &Headers) -> Result<Vec<Import>, LoadError> {
    let mut imports = Vec::new();
    let Some(directory) = headers.directory(pe::IMAGE_DIRECTORY_ENTRY_IMPORT) else {
        return Ok(imports);
    };
    for number in 0.. {
        let at = u64::from(directory.rva) + 20 * number;
        let row = image.slice(at, 20, "the import directory")?;
        let (lookup, name, iat) = (u32_at(row, 0), u32_at(row, 12), u32_at(row, 16));
        // The table ends with a row without a name; its size is not to be
        // trusted.
        if name == 0 || iat == 0 {
            break;
        }
        if number as usize >= MAX_DLLS {
            return Err(LoadError::TooMany {
                what: "DLLs to import from",
                limit: MAX_DLLS,
            });
        }
        let what = format!("the name of DLL {}", number + 1);
        let dll = image.name(u64::from(name), MAX_DLL_NAME, &what)?;
        let dll = dll.to_ascii_lowercase();
        let lookup = if lookup == 0 { iat } else { lookup };
        symbols(image, &dll, lookup, iat, &mut imports)?;
    }
    Ok(imports)
}

/// The lookup table of one DLL.
fn symbols(
    image: ImageBytes<'_>,
    dll: &str,
    lookup: u32,
    iat: u32,
    imports: &mut Vec<Import>,
) -> Result<(), LoadError> {
    const BY_ORDINAL: u64 = 1 << 63;
    for number in 0u64.. {
        let what = format!("the import lookup table of {dll}");
        let entry = image.u64(u64::from(lookup) + 8 * number, &what)?;
        if entry == 0 {
            return Ok(());
        }
        if imports.len() >= MAX_SYMBOLS {
            return Err(LoadError::TooMany {
                what: "imports",
                limit: MAX_SYMBOLS,
            });
        }
        let slot = u64::from(iat) + 8 * number;
        let what = format!("slot {number} of the import address table of {dll}");
        image.slice(slot, 8, &what)?;
        let symbol = if entry & BY_ORDINAL != 0 {
            Symbol::Ordinal(entry as u16)
        } else {
            let what = format!("the name of import {number} of {dll}");
            // Two bytes of hint first.
            let rva = (entry & 0x7fff_ffff) + 2;
            Symbol::Name(image.name(rva, MAX_SYMBOL_NAME, &what)?)
        };
        imports.push(Import {
            dll: dll.to_owned(),
            symbol,
            iat_rva: slot as u32,
        });
    }
    Ok(())
}

/// The names that the image exports, forwarders left out. They only serve as
/// symbols, so a broken table gives none.
pub(super) fn exports(image: ImageBytes<'_>, headers: &Headers) -> Vec<Export> {
    headers
        .directory(pe::IMAGE_DIRECTORY_ENTRY_EXPORT)
        .and_then(|directory| exported(image, directory).ok())
        .unwrap_or_default()
}

fn exported(image: ImageBytes<'_>, directory: Directory) -> Result<Vec<Export>, LoadError> {
    let what = "the export directory";
    let table = image.slice(u64::from(directory.rva), 40, what)?;
    let (functions, names) = (u32_at(table, 20), u32_at(table, 24) as usize);
    let (addresses, name_table) = (u32_at(table, 28), u32_at(table, 32));
    let ordinals = u32_at(table, 36);
    let end = directory.rva.saturating_add(directory.size);
    let mut exports = Vec::new();
    for index in 0..names.min(MAX_SYMBOLS) as u64 {
        let name = image.u32(u64::from(name_table) + 4 * index, what)?;
        let ordinal = image.u16(u64::from(ordinals) + 2 * index, what)?;
        if u32::from(ordinal) >= functions {
            continue;
        }
        let rva = image.u32(u64::from(addresses) + 4 * u64::from(ordinal), what)?;
        let is_forwarder = (directory.rva..end).contains(&rva);
        if !is_forwarder {
            exports.push(Export {
                name: image.name(u64::from(name), MAX_SYMBOL_NAME, what)?,
                rva,
            });
        }
    }
    Ok(exports)
}

/// RVAs of the 64-bit fields to relocate.
pub(super) fn relocations(image: ImageBytes<'_>, headers: &Headers) -> Result<Vec<u32>, LoadError> {
    let mut fields = Vec::new();
    let Some(directory) = headers.directory(pe::IMAGE_DIRECTORY_ENTRY_BASERELOC) else {
        return Ok(fields);
    };
    let what = "the relocation directory";
    let table = image.slice(u64::from(directory.rva), u64::from(directory.size), what)?;
    let mut rest = table;
    while rest.len() >= 8 {
        let (page, size) = (u32_at(rest, 0), u32_at(rest, 4) as usize);
        if size < 8 || size > rest.len() || !size.is_multiple_of(2) {
            return Err(LoadError::BadField {
                what: "relocation block",
                field: "SizeOfBlock",
                value: size as u64,
                expected: "not an even number of at least 8 bytes inside the directory",
            });
        }
        let (block, next) = rest.split_at(size);
        rest = next;
        for entry in block.get(8..).unwrap_or_default().chunks_exact(2) {
            let entry = u16_at(entry, 0);
            let rva = page.wrapping_add(u32::from(entry & 0xfff));
            match entry >> 12 {
                kind if kind == pe::IMAGE_REL_BASED_ABSOLUTE.0 => {}
                kind if kind == pe::IMAGE_REL_BASED_DIR64.0 => {
                    image.slice(u64::from(rva), 8, "the target of a relocation")?;
                    fields.push(rva);
                }
                kind => {
                    return Err(LoadError::BadRelocation {
                        kind: kind as u8,
                        rva,
                    });
                }
            }
        }
    }
    Ok(fields)
}

/// Begin and end of each function of `.pdata`, in its order.
pub(super) fn functions(
    image: ImageBytes<'_>,
    headers: &Headers,
) -> Result<Vec<(u32, u32)>, LoadError> {
    let Some(directory) = headers.directory(pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION) else {
        return Ok(Vec::new());
    };
    let count = directory.size as usize / 12;
    if count > MAX_FUNCTIONS {
        return Err(LoadError::TooMany {
            what: "functions in .pdata",
            limit: MAX_FUNCTIONS,
        });
    }
    let table = image.slice(
        u64::from(directory.rva),
        u64::from(directory.size),
        "the exception directory (.pdata)",
    )?;
    let mut functions = Vec::new();
    for row in table.chunks_exact(12) {
        let (begin, end) = (u32_at(row, 0), u32_at(row, 4));
        if begin == 0 && end == 0 {
            continue; // padding
        }
        if begin >= end || end > headers.size {
            return Err(LoadError::OutsideImage {
                what: "a function of .pdata".to_owned(),
                rva: u64::from(begin),
                bytes: u64::from(end.wrapping_sub(begin)),
                size: u64::from(headers.size),
            });
        }
        functions.push((begin, end));
    }
    Ok(functions)
}

/// The load configuration: offsets of IMAGE_LOAD_CONFIG_DIRECTORY64.
pub(super) fn guard(image: ImageBytes<'_>, headers: &Headers) -> Result<Guard, LoadError> {
    let Some(directory) = headers.directory(pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG) else {
        return Ok(Guard::default());
    };
    let what = "the load configuration";
    let at = u64::from(directory.rva);
    // The structure's own size counts: it grew with each Windows.
    let size = u64::from(image.u32(at, what)?).clamp(4, 0x1000);
    let config = image.slice(at, size, what)?;
    let slot = |offset: usize, name: &str| -> Result<Option<u32>, LoadError> {
        if offset + 8 > config.len() {
            return Ok(None);
        }
        let address = u64_at(config, offset);
        if address == 0 {
            return Ok(None);
        }
        let rva = address.wrapping_sub(headers.base);
        image.slice(rva, 8, name)?;
        Ok(Some(rva as u32))
    };
    Ok(Guard {
        cookie: slot(0x58, "the security cookie")?,
        check: slot(0x70, "the slot of the control-flow-guard check")?,
        dispatch: slot(0x78, "the slot of the control-flow-guard dispatch")?,
        xfg_check: slot(0x118, "the slot of the extended-flow-guard check")?,
        xfg_dispatch: slot(0x120, "the slot of the extended-flow-guard dispatch")?,
        xfg_table_dispatch: slot(0x128, "the slot of the extended-flow-guard table dispatch")?,
        flags: if config.len() >= 0x94 {
            u32_at(config, 0x90)
        } else {
            0
        },
    })
}
