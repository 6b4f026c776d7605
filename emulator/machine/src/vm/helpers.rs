//! Guest code for the imports that are called too often for a trap, or that
//! take their argument in RAX, which a thunk destroys.
//!
//! All of it is position-independent, follows the Win64 calling convention
//! (RDI and RSI are kept) and moves no stack pointer where a fault can occur,
//! save `__chkstk`. Copies are single `rep` instructions: one fault for each
//! trapped page, not one for each byte.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// The helpers as one image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HelperImage {
    /// Code, to be mapped executable at any 16-byte boundary.
    pub code: Vec<u8>,
    /// Names and offsets into `code`. Some functions have several names.
    pub symbols: Vec<(&'static str, u32)>,
}

impl HelperImage {
    /// Where a function starts.
    #[must_use]
    pub fn offset(&self, name: &str) -> Option<u32> {
        let (_, offset) = self.symbols.iter().find(|(known, _)| *known == name)?;
        Some(*offset)
    }
}

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const FUNCTIONS: &[(&[&str], Body)] = &[
    // Windows' memcpy allows overlap too.
    (
        &["memcpy", "memmove", "RtlCopyMemory", "RtlMoveMemory"],
        memmove,
    ),
    (&["memset"], memset),
    (&["memcmp"], memcmp),
    (&["strlen"], strlen),
    (&["wcslen"], wcslen),
    (&["__chkstk"], chkstk),
    (
        &["_guard_dispatch_icall", "_guard_xfg_dispatch_icall"],
        guard_dispatch,
    ),
    (&["_guard_check_icall"], guard_check),
];

/// Assemble the helpers.
///
/// # Errors
/// An assembler error would be a defect of this file.
pub fn image() -> Result<HelperImage, IcedError> {
    let mut image = HelperImage {
        code: Vec::new(),
        symbols: Vec::new(),
    };
    for (names, body) in FUNCTIONS {
        let offset = image.code.len().next_multiple_of(16);
        image.code.resize(offset, 0xcc);
        for name in *names {
            image.symbols.push((name, offset as u32));
        }
        let mut assembler = CodeAssembler::new(64)?;
        body(&mut assembler)?;
        image.code.extend(assembler.assemble(0)?);
    }
    Ok(image)
}

/// RCX: destination, RDX: source, R8: bytes. Returns the destination.
fn memmove(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut backward = a.create_label();
    a.mov(rax, rcx)?;
    a.mov(r10, rdi)?;
    a.mov(r11, rsi)?;
    a.mov(rdi, rcx)?;
    a.mov(rsi, rdx)?;
    // The destination starts within the source if and only if this is less
    // than the length, without a sign.
    a.sub(rcx, rdx)?;
    a.cmp(rcx, r8)?;
    a.mov(rcx, r8)?;
    a.jb(backward)?;
    a.rep().movsb()?;
    a.mov(rdi, r10)?;
    a.mov(rsi, r11)?;
    a.ret()?;
    a.set_label(&mut backward)?;
    a.lea(rdi, qword_ptr(rdi + r8 - 1))?;
    a.lea(rsi, qword_ptr(rsi + r8 - 1))?;
    a.std()?;
    a.rep().movsb()?;
    a.cld()?;
    a.mov(rdi, r10)?;
    a.mov(rsi, r11)?;
    a.ret()
}

/// RCX: destination, DL: byte, R8: bytes. Returns the destination.
fn memset(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(r9, rcx)?;
    a.mov(r10, rdi)?;
    a.mov(rdi, rcx)?;
    a.mov(eax, edx)?;
    a.mov(rcx, r8)?;
    a.rep().stosb()?;
    a.mov(rdi, r10)?;
    a.mov(rax, r9)?;
    a.ret()
}

/// RCX, RDX: what to compare, R8: bytes. Returns the difference of the first
/// bytes that differ, or 0.
fn memcmp(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut done = a.create_label();
    a.mov(r10, rdi)?;
    a.mov(r11, rsi)?;
    a.mov(rsi, rcx)?;
    a.mov(rdi, rdx)?;
    a.mov(rcx, r8)?;
    a.xor(eax, eax)?;
    a.test(rcx, rcx)?;
    a.je(done)?;
    a.repe().cmpsb()?;
    a.je(done)?;
    a.movzx(eax, byte_ptr(rsi - 1))?;
    a.movzx(ecx, byte_ptr(rdi - 1))?;
    a.sub(eax, ecx)?;
    a.set_label(&mut done)?;
    a.mov(rdi, r10)?;
    a.mov(rsi, r11)?;
    a.ret()
}

/// RCX: the string. Returns its length.
fn strlen(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    let mut done = a.create_label();
    a.xor(eax, eax)?;
    a.set_label(&mut top)?;
    a.cmp(byte_ptr(rcx + rax), 0)?;
    a.je(done)?;
    a.inc(rax)?;
    a.jmp(top)?;
    a.set_label(&mut done)?;
    a.ret()
}

/// RCX: the string of 16-bit characters. Returns its length in those.
fn wcslen(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    let mut done = a.create_label();
    a.xor(eax, eax)?;
    a.set_label(&mut top)?;
    a.cmp(word_ptr(rcx + rax * 2), 0)?;
    a.je(done)?;
    a.inc(rax)?;
    a.jmp(top)?;
    a.set_label(&mut done)?;
    a.ret()
}

/// RAX: bytes of stack that the caller is about to take. Reads one byte of
/// each page of them and changes no register.
fn chkstk(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = a.create_label();
    let mut last = a.create_label();
    a.push(r10)?;
    a.push(r11)?;
    a.lea(r10, qword_ptr(rsp + 24))?;
    a.mov(r11, rax)?;
    a.set_label(&mut top)?;
    a.cmp(r11, 0x1000)?;
    a.jb(last)?;
    a.sub(r10, 0x1000)?;
    a.test(byte_ptr(r10), r10b)?;
    a.sub(r11, 0x1000)?;
    a.jmp(top)?;
    a.set_label(&mut last)?;
    a.sub(r10, r11)?;
    a.test(byte_ptr(r10), r10b)?;
    a.pop(r11)?;
    a.pop(r10)?;
    a.ret()
}

/// RAX: where to go. Every other register is an argument.
fn guard_dispatch(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.jmp(rax)
}

/// RCX: the target to check. All targets pass.
fn guard_check(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.ret()
}
