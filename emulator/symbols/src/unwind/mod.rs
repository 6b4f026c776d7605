//! Walking x64 stacks with the function tables of PE images.
//!
//! This is an interpreter of its own because the crates at hand cannot be
//! given the stack and the images of a hostile guest. In pe-unwind-info 0.6.1
//! (which framehop 0.16 uses): the trailer of an UNWIND_INFO with an odd number
//! of codes is read two bytes early, so its chain is wrong; a chain that points
//! to itself is followed for ever (framehop collects it, without limit); a
//! function that ends beyond its section, or before its beginning, panics, as
//! does an RSP near 2^64 where overflow is checked; the displacement of an
//! epilog's `lea` is read as unsigned.

mod epilog;
mod spec;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::image::exception_directory;
use epilog::Step;
use spec::{Bytes, RuntimeFunction, UnwindInfo};

/// Chained UNWIND_INFOs that are followed for one frame. Windows' own limit is 32.
const MAX_CHAIN: usize = 32;

/// Why a module cannot be unwound through.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnwindError {
    /// The headers or the exception directory are damaged.
    #[error("module {name} has no readable PE headers or its function table lies outside of it")]
    BadImage {
        /// The module's name.
        name: String,
    },
    /// The module's addresses are taken, or wrap around.
    #[error("module {name} at {base:#x} overlaps another module or the end of the address space")]
    BadRange {
        /// The module's name.
        name: String,
        /// Where it was to be.
        base: u64,
    },
}

/// The registers that a walk starts from: the instruction pointer, the stack
/// pointer, and what the x64 calling convention preserves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

#[derive(Clone, Debug)]
struct Module {
    name: String,
    base: u64,
    image: Vec<u8>,
    /// Sorted by `begin`; empty and inverted entries are left out.
    functions: Vec<RuntimeFunction>,
}

impl Module {
    fn function_at(&self, rva: u32) -> Option<RuntimeFunction> {
        let after = self
            .functions
            .partition_point(|function| function.begin <= rva);
        let function = *self.functions.get(after.checked_sub(1)?)?;
        (rva < function.end).then_some(function)
    }
}

/// The function tables of the loaded modules, and the walk over them.
///
/// It is derived from the images and may be rebuilt at any time: adding a
/// module copies its image and decodes its `.pdata`, nothing more.
#[derive(Clone, Debug, Default)]
pub struct Unwinder {
    /// Sorted by `base`, not overlapping.
    modules: Vec<Module>,
}

/// A frame during the walk.
struct Frame {
    rip: u64,
    /// By register number; the volatile ones are zero and never used.
    registers: [u64; 16],
    /// True if `rip` is the instruction itself: the first frame, and one that
    /// a trap interrupted. False if it is a return address.
    exact: bool,
}

impl Frame {
    fn rsp(&self) -> u64 {
        self.registers[spec::RSP]
    }

    fn pop(&mut self, read: &mut dyn FnMut(u64) -> Option<u64>) -> Option<u64> {
        let value = read(self.rsp())?;
        self.registers[spec::RSP] = self.rsp().checked_add(8)?;
        Some(value)
    }

    fn set(&mut self, register: usize, value: u64) {
        if let Some(place) = self.registers.get_mut(register) {
            *place = value;
        }
    }
}

impl Unwinder {
    /// An unwinder that knows no module.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module loaded at `base`. `image` is its memory layout, headers
    /// included: byte n is what lies at `base + n`.
    ///
    /// # Errors
    /// The headers are damaged, or the range is not free. The unwinder is then
    /// unchanged.
    pub fn add_module(&mut self, name: &str, base: u64, image: &[u8]) -> Result<(), UnwindError> {
        let bad_image = || UnwindError::BadImage {
            name: name.to_owned(),
        };
        let bad_range = || UnwindError::BadRange {
            name: name.to_owned(),
            base,
        };
        let table = exception_directory(image).ok_or_else(bad_image)?;
        // RVAs have 32 bits.
        let size = u32::try_from(image.len()).map_err(|_| bad_image())?;
        let end = base.checked_add(u64::from(size)).ok_or_else(bad_range)?;
        let place = self.modules.partition_point(|module| module.base < base);
        let before = place
            .checked_sub(1)
            .and_then(|before| self.modules.get(before));
        if before.is_some_and(|module| module.base + module.image.len() as u64 > base)
            || self
                .modules
                .get(place)
                .is_some_and(|module| module.base < end)
        {
            return Err(bad_range());
        }

        let bytes = Bytes(image.get(table).ok_or_else(bad_image)?);
        let count = bytes.0.len() / spec::RUNTIME_FUNCTION_SIZE;
        let mut functions: Vec<RuntimeFunction> = (0..count)
            .filter_map(|index| bytes.runtime_function(index * spec::RUNTIME_FUNCTION_SIZE))
            .filter(|function| function.begin < function.end)
            .collect();
        // The linker sorts the table; a damaged one must not break the search.
        functions.sort_by_key(|function| function.begin);
        let module = Module {
            name: name.to_owned(),
            base,
            image: image.to_vec(),
            functions,
        };
        self.modules.insert(place, module);
        Ok(())
    }

    /// Forgets the module loaded at `base`. False if there is none.
    pub fn remove_module(&mut self, base: u64) -> bool {
        let before = self.modules.len();
        self.modules.retain(|module| module.base != base);
        self.modules.len() != before
    }

    /// The name of the module at `address`, and the address's RVA in it.
    #[must_use]
    pub fn module_at(&self, address: u64) -> Option<(&str, u32)> {
        let (module, rva) = self.find(address)?;
        Some((&module.name, rva))
    }

    /// The instruction addresses of the stack that `start` is in: `rip` first,
    /// then return addresses, innermost first. At most `limit` of them.
    ///
    /// `read` gives the 64 bits at an address of the guest, `None` where there
    /// is no memory; it is called a bounded number of times for each frame.
    ///
    /// The walk ends before an address that is in no known module. The first
    /// address is the exception: if it is in none (an import thunk, a call
    /// through a null pointer), its caller is taken from the top of the stack.
    /// It also ends where the stack cannot be read or does not grow.
    ///
    /// All but the first are return addresses: symbolise them with
    /// [`SymbolTable::lookup_return`](crate::SymbolTable::lookup_return).
    pub fn unwind(
        &self,
        start: &Registers,
        read: &mut dyn FnMut(u64) -> Option<u64>,
        limit: usize,
    ) -> Vec<u64> {
        let mut registers = [0; 16];
        registers[spec::RBX] = start.rbx;
        registers[spec::RSP] = start.rsp;
        registers[spec::RBP] = start.rbp;
        registers[spec::RSI] = start.rsi;
        registers[spec::RDI] = start.rdi;
        registers[spec::R12..].copy_from_slice(&[start.r12, start.r13, start.r14, start.r15]);
        let mut frame = Frame {
            rip: start.rip,
            registers,
            exact: true,
        };

        let mut addresses = Vec::new();
        while addresses.len() < limit {
            if !addresses.is_empty() && self.find(frame.control_pc()).is_none() {
                break;
            }
            addresses.push(frame.rip);
            let rsp = frame.rsp();
            if self.step(&mut frame, read).is_none() {
                break;
            }
            // A frame always frees at least its return address. Only a trap's
            // frame may be on another stack; `limit` bounds those.
            if !frame.exact && frame.rsp() <= rsp {
                break;
            }
        }
        addresses
    }

    fn find(&self, address: u64) -> Option<(&Module, u32)> {
        let after = self
            .modules
            .partition_point(|module| module.base <= address);
        let module = self.modules.get(after.checked_sub(1)?)?;
        let rva = address - module.base;
        if rva >= module.image.len() as u64 {
            return None;
        }
        Some((module, u32::try_from(rva).ok()?))
    }

    /// Turns `frame` into its caller's. `None` if the stack cannot be followed.
    fn step(&self, frame: &mut Frame, read: &mut dyn FnMut(u64) -> Option<u64>) -> Option<()> {
        if !frame.rsp().is_multiple_of(8) {
            return None;
        }
        let Some((module, rva)) = self.find(frame.control_pc()) else {
            return leave(frame, read);
        };
        // A leaf function has no entry: it neither moves RSP nor saves registers.
        let Some(function) = module.function_at(rva) else {
            return leave(frame, read);
        };
        let image = Bytes(&module.image);
        let info = UnwindInfo::parse(image, function.unwind_info)?;
        // The codes compare with the address after the last executed instruction.
        let offset = frame
            .rip
            .checked_sub(module.base + u64::from(function.begin))?;
        if frame.exact
            && offset >= u64::from(info.prolog_size)
            && let Some(steps) = epilog::parse(image, function, rva, info.frame_register)
        {
            for step in steps {
                frame.epilog_step(step, info.frame_register, read)?;
            }
            return leave(frame, read);
        }
        frame.undo_prologs(image, info, offset, read)
    }
}

/// Undoes the call: the return address is at the top of the stack.
fn leave(frame: &mut Frame, read: &mut dyn FnMut(u64) -> Option<u64>) -> Option<()> {
    frame.rip = frame.pop(read)?;
    frame.exact = false;
    Some(())
}

impl Frame {
    /// An address inside the instruction that is being executed. A call may be
    /// the last instruction of its function, so a return address may lie in
    /// the next one.
    fn control_pc(&self) -> u64 {
        if self.exact {
            self.rip
        } else {
            self.rip.wrapping_sub(1)
        }
    }

    fn epilog_step(
        &mut self,
        step: Step,
        frame_register: usize,
        read: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<()> {
        match step {
            Step::Add(bytes) => {
                self.registers[spec::RSP] = self.rsp().checked_add_signed(bytes.into())?;
            }
            Step::FromFrame(bytes) => {
                let pointer = *self.registers.get(frame_register)?;
                self.registers[spec::RSP] = pointer.checked_add_signed(bytes.into())?;
            }
            Step::Pop(register) => {
                let value = self.pop(read)?;
                self.set(register, value);
            }
        }
        Some(())
    }

    /// Undoes what the prologs of a chain of UNWIND_INFOs did. Only the codes
    /// of the first that lie at or before `offset` were executed; those that it
    /// is chained to have run as a whole.
    fn undo_prologs(
        &mut self,
        image: Bytes<'_>,
        mut info: UnwindInfo,
        offset: u64,
        read: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<()> {
        let mut offset = offset;
        for _ in 0..MAX_CHAIN {
            if self.undo_prolog(image, &info, offset, read)? {
                return Some(());
            }
            if info.flags & spec::UNW_FLAG_CHAININFO == 0 {
                return leave(self, read);
            }
            let function = info.chained(image)?;
            info = UnwindInfo::parse(image, function.unwind_info)?;
            offset = u64::MAX;
        }
        None
    }

    /// Undoes one prolog. True if it ended with a machine frame, which gives
    /// the caller outright.
    fn undo_prolog(
        &mut self,
        image: Bytes<'_>,
        info: &UnwindInfo,
        offset: u64,
        read: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<bool> {
        let slot = |index: usize| info.codes_at.checked_add(index * spec::UNWIND_CODE_SIZE);
        let frame_base = self.frame_base(image, info, offset)?;
        let mut index = 0;
        while index < info.codes {
            let at = slot(index)?;
            let executed = u64::from(image.u8(at)?) <= offset;
            let operation = image.u8(at.checked_add(1)?)?;
            let (operation, argument) = (operation & 0xf, usize::from(operation >> 4));
            let next = slot(index + 1)?;
            index += slots(operation, argument)?;
            if !executed {
                continue;
            }
            match operation {
                spec::UWOP_PUSH_NONVOL => {
                    let value = self.pop(read)?;
                    self.set(argument, value);
                }
                spec::UWOP_ALLOC_LARGE => {
                    let bytes = match argument {
                        0 => u64::from(image.u16(next)?) * 8,
                        _ => u64::from(image.u32(next)?),
                    };
                    self.registers[spec::RSP] = self.rsp().checked_add(bytes)?;
                }
                spec::UWOP_ALLOC_SMALL => {
                    let bytes = argument as u64 * 8 + 8;
                    self.registers[spec::RSP] = self.rsp().checked_add(bytes)?;
                }
                spec::UWOP_SET_FPREG => {
                    let pointer = *self.registers.get(info.frame_register)?;
                    self.registers[spec::RSP] = pointer.checked_sub(info.frame_offset)?;
                }
                spec::UWOP_SAVE_NONVOL | spec::UWOP_SAVE_NONVOL_FAR => {
                    let distance = match operation {
                        spec::UWOP_SAVE_NONVOL => u64::from(image.u16(next)?) * 8,
                        _ => u64::from(image.u32(next)?),
                    };
                    let value = read(frame_base.checked_add(distance)?)?;
                    self.set(argument, value);
                }
                spec::UWOP_PUSH_MACHFRAME => {
                    let skip = if argument == 1 { 8 } else { 0 };
                    let at = self.rsp().checked_add(skip)?;
                    self.rip = read(at)?;
                    self.registers[spec::RSP] = read(at.checked_add(spec::MACHINE_FRAME_RSP)?)?;
                    self.exact = true;
                    return Some(true);
                }
                // XMM registers hold no address and epilogs are found by their
                // instructions.
                _ => {}
            }
        }
        Some(false)
    }

    /// What the offsets of saved registers count from: RSP after the prolog's
    /// allocations, which the frame register keeps once it is set. RSP itself
    /// does for a function without one, and before it is set.
    fn frame_base(&self, image: Bytes<'_>, info: &UnwindInfo, offset: u64) -> Option<u64> {
        if info.frame_register == 0 {
            return Some(self.rsp());
        }
        let mut index = 0;
        while index < info.codes {
            let at = info.codes_at.checked_add(index * spec::UNWIND_CODE_SIZE)?;
            let operation = image.u8(at.checked_add(1)?)?;
            if operation & 0xf == spec::UWOP_SET_FPREG && u64::from(image.u8(at)?) > offset {
                return Some(self.rsp());
            }
            index += slots(operation & 0xf, usize::from(operation >> 4))?;
        }
        // Also for a chained part, whose prolog does not set it again.
        self.registers
            .get(info.frame_register)?
            .checked_sub(info.frame_offset)
    }
}

/// Number of slots that an operation takes. `None` if there is no such one.
fn slots(operation: u8, argument: usize) -> Option<usize> {
    Some(match (operation, argument) {
        (spec::UWOP_PUSH_NONVOL | spec::UWOP_ALLOC_SMALL, _)
        | (spec::UWOP_SET_FPREG | spec::UWOP_PUSH_MACHFRAME, _) => 1,
        (spec::UWOP_ALLOC_LARGE, 0) => 2,
        (spec::UWOP_ALLOC_LARGE, 1) => 3,
        (spec::UWOP_SAVE_NONVOL | spec::UWOP_SAVE_XMM128 | spec::UWOP_EPILOG, _) => 2,
        (spec::UWOP_SAVE_NONVOL_FAR | spec::UWOP_SAVE_XMM128_FAR | spec::UWOP_SPARE, _) => 3,
        _ => return None,
    })
}
