//! Builds a small driver: `.text`, `.rdata` with every directory, `.data`.

/// File offset of the PE signature.
pub const NT: usize = 0x80;
/// File offset of the section table.
pub const SECTIONS: usize = NT + 24 + OPTIONAL;
const OPTIONAL: usize = 240;
/// `.text` at RVA 0x1000, file 0x400; `.rdata` at 0x2000, file 0x600;
/// `.data` at 0x3000, file 0xe00.
const RDATA: u32 = 0x2000;
const RDATA_FILE: usize = 0x600;

const IMPORTS: u32 = RDATA;
pub const IMPORTS_FILE: usize = RDATA_FILE;
const LOOKUP: u32 = RDATA + 0x80;
/// Three slots and a terminator, then one and its terminator.
pub const IAT: u32 = RDATA + 0x100;
const NAMES: u32 = RDATA + 0x180;
pub const DLL_NAME_FILE: usize = RDATA_FILE + 0x180;
const PDATA: u32 = RDATA + 0x280;
pub const PDATA_FILE: usize = RDATA_FILE + 0x280;
const RELOCATIONS: u32 = RDATA + 0x300;
pub const RELOCATIONS_FILE: usize = RDATA_FILE + 0x300;
const EXPORTS: u32 = RDATA + 0x400;
pub const EXPORTS_FILE: usize = RDATA_FILE + 0x400;
const CONFIG: u32 = RDATA + 0x500;
pub const CONFIG_FILE: usize = RDATA_FILE + 0x500;
/// A pointer to the start of `.text`, relocated.
pub const POINTER: u32 = 0x3000;
const PREFERRED: u64 = 0x1_4000_0000;

/// What may differ from driver to driver.
pub struct Builder {
    pub characteristics: u16,
    pub subsystem: u16,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            characteristics: 0x22,
            subsystem: 1,
        }
    }
}

impl Builder {
    pub fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 0x1000];
        put(&mut file, 0, b"MZ");
        put(&mut file, 0x3c, &(NT as u32).to_le_bytes());
        self.headers(&mut file);
        put(&mut file, 0x400, &[0xc3; 0x100]);
        imports(&mut file);
        // begin, end, unwind information
        for (index, value) in [0x1000u32, 0x1010, 0, 0x1010, 0x1020, 0].iter().enumerate() {
            put(&mut file, PDATA_FILE + 4 * index, &value.to_le_bytes());
        }
        // One block: the pointer, and padding.
        put(&mut file, RELOCATIONS_FILE, &0x3000u32.to_le_bytes());
        put(&mut file, RELOCATIONS_FILE + 4, &12u32.to_le_bytes());
        put(&mut file, RELOCATIONS_FILE + 8, &0xa000u16.to_le_bytes());
        exports(&mut file);
        // Size, cookie, check and dispatch slots.
        put(&mut file, CONFIG_FILE, &0x94u32.to_le_bytes());
        for (offset, rva) in [(0x58, 0x3008u64), (0x70, 0x3010), (0x78, 0x3018)] {
            put(
                &mut file,
                CONFIG_FILE + offset,
                &(PREFERRED + rva).to_le_bytes(),
            );
        }
        put(&mut file, 0xe00, &(PREFERRED + 0x1000).to_le_bytes());
        file
    }

    fn headers(&self, file: &mut [u8]) {
        put(file, NT, b"PE\0\0");
        put(file, NT + 4, &0x8664u16.to_le_bytes());
        put(file, NT + 6, &3u16.to_le_bytes());
        put(file, NT + 8, &0x6543_2100u32.to_le_bytes());
        put(file, NT + 20, &(OPTIONAL as u16).to_le_bytes());
        put(file, NT + 22, &self.characteristics.to_le_bytes());
        let optional = NT + 24;
        put(file, optional, &0x20bu16.to_le_bytes());
        put(file, optional + 16, &0x1010u32.to_le_bytes());
        put(file, optional + 24, &PREFERRED.to_le_bytes());
        put(file, optional + 32, &0x1000u32.to_le_bytes());
        put(file, optional + 36, &0x200u32.to_le_bytes());
        put(file, optional + 56, &0x4000u32.to_le_bytes());
        put(file, optional + 60, &0x400u32.to_le_bytes());
        put(file, optional + 68, &self.subsystem.to_le_bytes());
        put(file, optional + 108, &16u32.to_le_bytes());
        let directories = [
            (0, EXPORTS, 0x80u32),
            (1, IMPORTS, 60),
            (3, PDATA, 24),
            (5, RELOCATIONS, 12),
            (10, CONFIG, 0x94),
        ];
        for (index, rva, size) in directories {
            put(file, optional + 112 + 8 * index, &rva.to_le_bytes());
            put(file, optional + 116 + 8 * index, &size.to_le_bytes());
        }
        let sections = [
            (
                ".text",
                0x100u32,
                0x1000u32,
                0x200u32,
                0x400u32,
                0x6000_0020u32,
            ),
            (
                ".rdata",
                0x800,
                RDATA,
                0x800,
                RDATA_FILE as u32,
                0x4000_0040,
            ),
            (".data", 0x800, 0x3000, 0x200, 0xe00, 0xc000_0040),
        ];
        for (index, (name, size, rva, raw, offset, flags)) in sections.into_iter().enumerate() {
            let row = SECTIONS + 40 * index;
            put(file, row, name.as_bytes());
            for (at, value) in [(8, size), (12, rva), (16, raw), (20, offset), (36, flags)] {
                put(file, row + at, &value.to_le_bytes());
            }
        }
    }
}

fn imports(file: &mut [u8]) {
    let rows = [(LOOKUP, NAMES, IAT), (LOOKUP + 24, NAMES + 0x20, IAT + 24)];
    for (index, (lookup, name, iat)) in rows.into_iter().enumerate() {
        let row = IMPORTS_FILE + 20 * index;
        put(file, row, &lookup.to_le_bytes());
        put(file, row + 12, &name.to_le_bytes());
        put(file, row + 16, &iat.to_le_bytes());
    }
    put(file, DLL_NAME_FILE, b"NTOSKRNL.exe\0");
    put(file, DLL_NAME_FILE + 0x20, b"HAL.dll\0");
    put(file, DLL_NAME_FILE + 0x42, b"DbgPrint\0");
    put(file, DLL_NAME_FILE + 0x62, b"KeStallExecutionProcessor\0");
    let entries = [
        u64::from(NAMES) + 0x40,
        1 << 63 | 7,
        0,
        u64::from(NAMES) + 0x60,
        0,
    ];
    for (index, entry) in entries.iter().enumerate() {
        let table = (LOOKUP - RDATA) as usize + RDATA_FILE + 8 * index;
        put(file, table, &entry.to_le_bytes());
    }
}

fn exports(file: &mut [u8]) {
    // Two functions, two names; the second is a forwarder (it leads into
    // the directory itself).
    let fields = [
        (20, 2),
        (24, 2),
        (28, EXPORTS + 0x28),
        (32, EXPORTS + 0x30),
        (36, EXPORTS + 0x38),
        (0x28, 0x1020),
        (0x2c, EXPORTS + 0x50),
        (0x30, EXPORTS + 0x40),
        (0x34, EXPORTS + 0x48),
    ];
    for (offset, value) in fields {
        put(file, EXPORTS_FILE + offset, &value.to_le_bytes());
    }
    put(file, EXPORTS_FILE + 0x3a, &1u16.to_le_bytes());
    put(file, EXPORTS_FILE + 0x40, b"Probe\0");
    put(file, EXPORTS_FILE + 0x48, b"Moved\0");
}

fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// The file with `bytes` at `offset`.
pub fn patch(mut file: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    put(&mut file, offset, bytes);
    file
}
