//! The machine's own pages in the driver's address space: descriptor tables,
//! exception stubs and the stack they run on. All are supervisor pages, and
//! all of it is data fixed at build time.
//!
//! An exception at CPL 3 pushes its frame on the one-page stack and enters a
//! stub of one instruction, an `out` to the port that is its vector. Code at
//! CPL 0 is slow on hosts that emulate it, so there is nothing more: the host
//! reads the frame from the page, and to go on writes a new one and sends the
//! vCPU to a lone `iretq`.

use super::pte::Protection;
use super::thunk;
use memory::{Gva, PAGE_SIZE};

/// Where the machine's pages start: the top of the half that Windows leaves
/// to the HAL, so that no image, pool or stack lands on it.
pub const SYSTEM_BASE: Gva = Gva(0xffff_ffff_ffa0_0000);
/// How many pages there are.
pub const SYSTEM_PAGES: u64 = 7;

// Selectors as on Windows x64; the user ones are Linux's too, which some
// hosts insist on.
/// The code selector that a kernel driver expects to see.
pub const KERNEL_CS: u16 = 0x10;
/// The stack selector that a kernel driver expects to see.
pub const KERNEL_SS: u16 = 0x18;
/// The code selector that the driver really runs with.
pub const USER_CS: u16 = 0x33;
/// The stack and data selector that the driver really runs with.
pub const USER_SS: u16 = 0x2b;
pub(super) const TSS_SELECTOR: u16 = 0x40;

const GDT_PAGE: u64 = 0;
const IDT_PAGE: u64 = 1;
const STUB_PAGE: u64 = 2;
pub(super) const STACK_PAGE: u64 = 3;
const TSS_PAGE: u64 = 4; // and two more

/// Vectors that have a stub; the port of each is the vector itself.
pub(super) const VECTORS: u16 = 32;
const STUB_SIZE: u64 = 4;

pub(super) const GDT: Gva = page(GDT_PAGE);
pub(super) const GDT_LIMIT: u16 = 0x4f;
pub(super) const IDT: Gva = page(IDT_PAGE);
pub(super) const IDT_LIMIT: u16 = VECTORS * 16 - 1;
pub(super) const TSS: Gva = page(TSS_PAGE);
/// 104 bytes, one bit for each of 65,536 ports, and the byte of ones that
/// must follow (Intel SDM vol. 1, 19.5.2).
pub(super) const TSS_LIMIT: u32 = TSS_SIZE as u32 - 1;
const TSS_BITMAP: usize = 104;
const TSS_SIZE: usize = TSS_BITMAP + 65536 / 8 + 1;
/// The lone `iretq`.
pub(super) const IRET_STUB: Gva = Gva(page(STUB_PAGE).0 + VECTORS as u64 * STUB_SIZE);
/// RSP0.
const STACK_TOP: Gva = Gva(page(STACK_PAGE).0 + PAGE_SIZE);
/// RIP, CS, RFLAGS, RSP, SS: below it, the error code if there is one.
pub(super) const FRAME: Gva = Gva(STACK_TOP.0 - 40);

const fn page(index: u64) -> Gva {
    Gva(SYSTEM_BASE.0 + index * PAGE_SIZE)
}

/// Is this an address in the machine's own pages?
pub(super) fn is_system(address: u64) -> bool {
    address.wrapping_sub(SYSTEM_BASE.0) < SYSTEM_PAGES * PAGE_SIZE
}

/// Does this vector push an error code? (Intel SDM vol. 3, table 6-1.)
pub(super) fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

/// One page to be mapped at [`SYSTEM_BASE`].
pub(super) struct SystemPage {
    pub bytes: Vec<u8>,
    pub protection: Protection,
}

/// The pages, in address order.
pub(super) fn system_pages() -> Vec<SystemPage> {
    let supervisor = |write, execute| Protection {
        write,
        execute,
        user: false,
    };
    let mut pages = vec![
        SystemPage {
            bytes: gdt(),
            protection: supervisor(true, false),
        },
        SystemPage {
            bytes: idt(),
            protection: supervisor(false, false),
        },
        SystemPage {
            bytes: stubs(),
            protection: supervisor(false, true),
        },
        SystemPage {
            bytes: Vec::new(), // the stack
            protection: supervisor(true, false),
        },
    ];
    let task = tss();
    pages.extend(task.chunks(PAGE_SIZE as usize).map(|bytes| SystemPage {
        bytes: bytes.to_vec(),
        protection: supervisor(true, false),
    }));
    pages
}

fn gdt() -> Vec<u8> {
    // Segment descriptors (Intel SDM vol. 3, 3.4.5): accessed, so that
    // loading one writes nothing.
    const CODE: u64 = 0x0020_9b00_0000_0000;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const DPL3: u64 = 3 << 45;
    let base = TSS.0;
    let busy_tss = u64::from(TSS_LIMIT & 0xffff)
        | (base & 0xff_ffff) << 16
        | 0x8b << 40
        | (base >> 24 & 0xff) << 56;
    let mut table = [0u64; 10];
    table[usize::from(KERNEL_CS / 8)] = CODE;
    table[usize::from(KERNEL_SS / 8)] = DATA;
    table[usize::from(USER_SS / 8)] = DATA | DPL3;
    table[usize::from(USER_CS / 8)] = CODE | DPL3;
    table[usize::from(TSS_SELECTOR / 8)] = busy_tss;
    table[usize::from(TSS_SELECTOR / 8) + 1] = base >> 32;
    table.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

fn idt() -> Vec<u8> {
    let mut table = Vec::new();
    for vector in 0..VECTORS {
        let stub = page(STUB_PAGE).0 + u64::from(vector) * STUB_SIZE;
        // An interrupt gate (Intel SDM vol. 3, 6.14.1). `int3` may use its
        // gate at CPL 3; any other `int n` is a #GP or #UD that we decode.
        let dpl: u64 = if vector == 3 { 3 } else { 0 };
        let low = stub & 0xffff
            | u64::from(KERNEL_CS) << 16
            | (0x8e | dpl << 5) << 40
            | (stub >> 16 & 0xffff) << 48;
        table.extend_from_slice(&low.to_le_bytes());
        table.extend_from_slice(&(stub >> 32).to_le_bytes());
    }
    table
}

fn stubs() -> Vec<u8> {
    let mut code = Vec::new();
    for vector in 0..VECTORS {
        // out vector, al; hlt; hlt
        code.extend_from_slice(&[0xe6, vector as u8, 0xf4, 0xf4]);
    }
    code.extend_from_slice(&[0x48, 0xcf]); // iretq
    code
}

fn tss() -> Vec<u8> {
    let mut task = vec![0u8; TSS_BITMAP];
    task[4..12].copy_from_slice(&STACK_TOP.0.to_le_bytes()); // RSP0
    task[102..104].copy_from_slice(&(TSS_BITMAP as u16).to_le_bytes());
    let mut bitmap = vec![0xff; TSS_SIZE - TSS_BITMAP];
    for port in thunk::PORTS {
        // `out port, eax` needs all four bits of the ports it covers.
        for covered in port..port + 4 {
            bitmap[usize::from(covered / 8)] &= !(1 << (covered % 8));
        }
    }
    task.extend_from_slice(&bitmap);
    task
}
