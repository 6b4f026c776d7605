//! PE images made by hand, for tests.

/// Where the function table of [`mapped_image`] lies.
const PDATA: usize = 0x3000;
/// Where its unwind information lies.
const XDATA: usize = 0x2000;
/// Where its code lies.
pub(crate) const TEXT: u32 = 0x1000;
const IMAGE_SIZE: usize = 0x4000;

const NT_HEADERS: usize = 0x40;
const OPTIONAL_HEADER: usize = NT_HEADERS + 24;
const DIRECTORIES: usize = OPTIONAL_HEADER + 112;
const SECTIONS: usize = DIRECTORIES + 16 * 8;

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put32(image: &mut [u8], at: usize, value: usize) {
    put(
        image,
        at,
        &u32::try_from(value).expect("fits").to_le_bytes(),
    );
}

fn headers(image: &mut [u8], sections: u8) {
    put(image, 0, b"MZ");
    put32(image, 0x3c, NT_HEADERS);
    put(image, NT_HEADERS, b"PE\0\0");
    put(image, NT_HEADERS + 4, &[0x64, 0x86, sections, 0]);
    put(image, NT_HEADERS + 20, &[0xf0, 0]);
    put(image, OPTIONAL_HEADER, &[0x0b, 0x02]);
    put32(image, OPTIONAL_HEADER + 108, 16);
}

/// A function of a test image: RVA range and the bytes of its UNWIND_INFO.
pub(crate) struct TestFunction {
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) unwind_info: Vec<u8>,
}

/// The RVA of the unwind information of the function with this index, for chains.
pub(crate) fn unwind_info_rva(index: usize) -> u32 {
    u32::try_from(XDATA + index * 0x40).expect("fits")
}

/// An image in memory layout. Its code is `int3` but for `code`.
pub(crate) fn mapped_image(functions: &[TestFunction], code: &[(u32, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; IMAGE_SIZE];
    headers(&mut image, 0);
    image[TEXT as usize..XDATA].fill(0xcc);
    put32(&mut image, DIRECTORIES + 3 * 8, PDATA);
    put32(&mut image, DIRECTORIES + 3 * 8 + 4, functions.len() * 12);
    for (index, function) in functions.iter().enumerate() {
        let entry = PDATA + index * 12;
        put32(&mut image, entry, function.begin as usize);
        put32(&mut image, entry + 4, function.end as usize);
        put32(&mut image, entry + 8, unwind_info_rva(index) as usize);
        put(
            &mut image,
            unwind_info_rva(index) as usize,
            &function.unwind_info,
        );
    }
    for (rva, bytes) in code {
        put(&mut image, *rva as usize, bytes);
    }
    image
}

/// An image in file layout with one section and an RSDS record in it.
pub(crate) fn file_with_code_view(pdb: &str, guid: [u8; 16], age: u32) -> Vec<u8> {
    const RAW: usize = 0x400;
    let mut image = vec![0; 0x800];
    headers(&mut image, 1);
    put(&mut image, SECTIONS, b".rdata\0\0");
    put32(&mut image, SECTIONS + 8, 0x400);
    put32(&mut image, SECTIONS + 12, 0x1000);
    put32(&mut image, SECTIONS + 16, 0x400);
    put32(&mut image, SECTIONS + 20, RAW);
    put32(&mut image, DIRECTORIES + 6 * 8, 0x1000);
    put32(&mut image, DIRECTORIES + 6 * 8 + 4, 28);
    // IMAGE_DEBUG_DIRECTORY: type 2 is CodeView.
    put32(&mut image, RAW + 12, 2);
    put32(&mut image, RAW + 16, 24 + pdb.len() + 1);
    put32(&mut image, RAW + 20, 0x1040);
    put32(&mut image, RAW + 24, RAW + 0x40);
    put(&mut image, RAW + 0x40, b"RSDS");
    put(&mut image, RAW + 0x44, &guid);
    put(&mut image, RAW + 0x54, &age.to_le_bytes());
    put(&mut image, RAW + 0x58, pdb.as_bytes());
    image
}
