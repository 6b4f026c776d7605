//! The smallest driver images, for what no real driver does.

/// Where the import's address slot lies, relative to the image.
const SLOT: u32 = 0x2000;
const TEXT: u32 = 0x1000;
const SIZE: u32 = 0x3000;

/// Where such an image is loaded.
const BASE: u64 = 0xFFFF_F800_1000_0000;
/// Most imports of an image.
const MAX_IMPORTS: usize = 15;

/// A native x64 image that imports `import` from ntoskrnl.exe and whose entry
/// point is `code`. `code` reaches the import's slot at [`slot_from`].
pub fn driver(import: &str, code: &[u8]) -> Vec<u8> {
    driver_with(&[import], code)
}

/// The same with several imports; the slot of each is at [`slot`].
pub fn driver_with(imports: &[&str], code: &[u8]) -> Vec<u8> {
    assert!(imports.len() <= MAX_IMPORTS && code.len() <= 0x200);
    let mut file = vec![0u8; 0x800];
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut file, 0, b"MZ");
    put(&mut file, 0x3c, &0x80u32.to_le_bytes());
    put(&mut file, 0x80, b"PE\0\0");
    // COFF header: x64, two sections, optional header of 0xF0 bytes,
    // executable image.
    put(&mut file, 0x84, &0x8664u16.to_le_bytes());
    put(&mut file, 0x86, &2u16.to_le_bytes());
    put(&mut file, 0x94, &0xF0u16.to_le_bytes());
    put(&mut file, 0x96, &0x0022u16.to_le_bytes());
    let optional = 0x98;
    put(&mut file, optional, &0x20Bu16.to_le_bytes());
    put(&mut file, optional + 0x10, &TEXT.to_le_bytes()); // entry
    put(&mut file, optional + 0x18, &BASE.to_le_bytes());
    put(&mut file, optional + 0x20, &0x1000u32.to_le_bytes());
    put(&mut file, optional + 0x24, &0x200u32.to_le_bytes());
    put(&mut file, optional + 0x28, &10u16.to_le_bytes());
    put(&mut file, optional + 0x30, &10u16.to_le_bytes());
    put(&mut file, optional + 0x38, &SIZE.to_le_bytes());
    put(&mut file, optional + 0x3C, &0x200u32.to_le_bytes());
    put(&mut file, optional + 0x44, &1u16.to_le_bytes()); // native
    put(&mut file, optional + 0x6C, &16u32.to_le_bytes());
    // Import directory.
    put(&mut file, optional + 0x78, &0x2100u32.to_le_bytes());
    put(&mut file, optional + 0x7C, &40u32.to_le_bytes());
    let section = |file: &mut Vec<u8>,
                   index: usize,
                   name: &[u8],
                   rva: u32,
                   raw: u32,
                   size: u32,
                   flags: u32| {
        let at = optional + 0xF0 + 40 * index;
        put(file, at, name);
        put(file, at + 8, &0x1000u32.to_le_bytes());
        put(file, at + 12, &rva.to_le_bytes());
        put(file, at + 16, &size.to_le_bytes());
        put(file, at + 20, &raw.to_le_bytes());
        put(file, at + 36, &flags.to_le_bytes());
    };
    section(&mut file, 0, b".text", TEXT, 0x200, 0x200, 0x6800_0020);
    section(&mut file, 1, b".rdata", SLOT, 0x400, 0x400, 0x4800_0040);
    put(&mut file, 0x200, code);
    // .rdata: address table at +0, lookup table at +0x80, descriptor at
    // +0x100, library at +0x140, names from +0x160 on.
    for (index, import) in imports.iter().enumerate() {
        let name = 0x160 + 0x20 * index;
        assert!(import.len() < 0x1E);
        for table in [0x400, 0x480] {
            let entry = u64::from(SLOT) + name as u64;
            put(&mut file, table + 8 * index, &entry.to_le_bytes());
        }
        put(&mut file, 0x400 + name + 2, import.as_bytes());
    }
    put(&mut file, 0x500, &(SLOT + 0x80).to_le_bytes());
    put(&mut file, 0x50C, &(SLOT + 0x140).to_le_bytes());
    put(&mut file, 0x510, &SLOT.to_le_bytes());
    put(&mut file, 0x540, b"ntoskrnl.exe");
    file
}

/// Where the address of import `index` is, at run time.
pub fn slot(index: usize) -> u64 {
    BASE + u64::from(SLOT) + 8 * index as u64
}

/// The RIP-relative displacement of the import's slot for an instruction
/// that ends `end` bytes into the code.
pub fn slot_from(end: u32) -> [u8; 4] {
    (SLOT - TEXT - end).to_le_bytes()
}

/// `sub rsp, 28h; call [slot]; add rsp, 28h; ret`.
pub fn calls(import: &str) -> Vec<u8> {
    let mut code = vec![0x48, 0x83, 0xEC, 0x28, 0xFF, 0x15];
    code.extend(slot_from(10));
    code.extend([0x48, 0x83, 0xC4, 0x28, 0xC3]);
    driver(import, &code)
}

/// `mov rax, [slot]; mov eax, [rax]; ret`.
pub fn reads(import: &str) -> Vec<u8> {
    let mut code = vec![0x48, 0x8B, 0x05];
    code.extend(slot_from(7));
    code.extend([0x8B, 0x00, 0xC3]);
    driver(import, &code)
}

/// `jmp $`.
pub fn spins() -> Vec<u8> {
    driver("KeBugCheck", &[0xEB, 0xFE])
}

/// `mov eax, status; ret`.
pub fn returns(status: u32) -> Vec<u8> {
    let mut code = vec![0xB8];
    code.extend(status.to_le_bytes());
    code.push(0xC3);
    driver("KeBugCheck", &code)
}
