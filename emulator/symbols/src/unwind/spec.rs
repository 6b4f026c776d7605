//! The x64 function table and unwind codes.
//!
//! Source: Microsoft, "x64 exception handling" (RUNTIME_FUNCTION, UNWIND_INFO,
//! UNWIND_CODE). Version 2 differs by one operation, UWOP_EPILOG, which is not
//! in that document; its size is from the .NET runtime's unwinder.

/// Size of a RUNTIME_FUNCTION: begin, end and unwind information RVA, 32 bits each.
pub(crate) const RUNTIME_FUNCTION_SIZE: usize = 12;
/// Size of UNWIND_INFO before its codes.
pub(crate) const UNWIND_INFO_SIZE: usize = 4;
/// Size of one UNWIND_CODE slot.
pub(crate) const UNWIND_CODE_SIZE: usize = 2;

/// UNWIND_INFO flag: another RUNTIME_FUNCTION follows the codes.
pub(crate) const UNW_FLAG_CHAININFO: u8 = 0x4;

/// Push a nonvolatile register; the operation info is its number.
pub(crate) const UWOP_PUSH_NONVOL: u8 = 0;
/// Allocate a large area: a 16-bit size divided by 8 (info 0) or a 32-bit size (info 1).
pub(crate) const UWOP_ALLOC_LARGE: u8 = 1;
/// Allocate info * 8 + 8 bytes.
pub(crate) const UWOP_ALLOC_SMALL: u8 = 2;
/// Establish the frame pointer.
pub(crate) const UWOP_SET_FPREG: u8 = 3;
/// Save a nonvolatile register with a move; 16-bit offset divided by 8.
pub(crate) const UWOP_SAVE_NONVOL: u8 = 4;
/// The same with a 32-bit offset.
pub(crate) const UWOP_SAVE_NONVOL_FAR: u8 = 5;
/// Version 2: where the epilogs are. Version 1: an obsolete save. Two slots in both.
pub(crate) const UWOP_EPILOG: u8 = 6;
/// Version 2: unused. Version 1: an obsolete save. Three slots in both.
pub(crate) const UWOP_SPARE: u8 = 7;
/// Save an XMM register; 16-bit offset divided by 16.
pub(crate) const UWOP_SAVE_XMM128: u8 = 8;
/// The same with a 32-bit offset.
pub(crate) const UWOP_SAVE_XMM128_FAR: u8 = 9;
/// A trap or interrupt pushed its frame; info 1 if with an error code.
pub(crate) const UWOP_PUSH_MACHFRAME: u8 = 10;

/// Offset of RSP in a machine frame without error code (after RIP, CS, RFLAGS).
pub(crate) const MACHINE_FRAME_RSP: u64 = 24;

/// Register numbers of unwind codes and of instruction encodings.
pub(crate) const RBX: usize = 3;
pub(crate) const RSP: usize = 4;
pub(crate) const RBP: usize = 5;
pub(crate) const RSI: usize = 6;
pub(crate) const RDI: usize = 7;
pub(crate) const R12: usize = 12;

/// One entry of `.pdata`. Addresses are RVAs; `end` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeFunction {
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) unwind_info: u32,
}

/// The little-endian integers of an image in memory layout, `None` outside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn slice(self, at: usize, len: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(len)?)
    }

    pub(crate) fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(crate) fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.slice(at, 2)?.try_into().ok()?))
    }

    pub(crate) fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.slice(at, 4)?.try_into().ok()?))
    }

    pub(crate) fn runtime_function(self, at: usize) -> Option<RuntimeFunction> {
        Some(RuntimeFunction {
            begin: self.u32(at)?,
            end: self.u32(at.checked_add(4)?)?,
            unwind_info: self.u32(at.checked_add(8)?)?,
        })
    }
}

/// The header of UNWIND_INFO, and where its codes are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnwindInfo {
    pub(crate) flags: u8,
    pub(crate) prolog_size: u8,
    /// Number of 16-bit slots.
    pub(crate) codes: usize,
    /// Register number, 0 if the function has no frame pointer.
    pub(crate) frame_register: usize,
    /// Distance of the frame pointer from RSP when it was set, in bytes.
    pub(crate) frame_offset: u64,
    /// Offset of the first code in the image.
    pub(crate) codes_at: usize,
}

impl UnwindInfo {
    pub(crate) fn parse(image: Bytes<'_>, rva: u32) -> Option<Self> {
        let at = usize::try_from(rva).ok()?;
        let head = image.slice(at, UNWIND_INFO_SIZE)?;
        let &[version_and_flags, prolog_size, codes, frame] = head else {
            return None;
        };
        if !matches!(version_and_flags & 7, 1 | 2) {
            return None;
        }
        Some(Self {
            flags: version_and_flags >> 3,
            prolog_size,
            codes: usize::from(codes),
            frame_register: usize::from(frame & 0xf),
            frame_offset: u64::from(frame >> 4) * 16,
            codes_at: at.checked_add(UNWIND_INFO_SIZE)?,
        })
    }

    /// The next RUNTIME_FUNCTION of a chain. It follows the codes, of which
    /// there is always an even number of slots.
    pub(crate) fn chained(&self, image: Bytes<'_>) -> Option<RuntimeFunction> {
        let slots = self.codes.checked_next_multiple_of(2)?;
        image.runtime_function(self.codes_at.checked_add(slots * UNWIND_CODE_SIZE)?)
    }
}
