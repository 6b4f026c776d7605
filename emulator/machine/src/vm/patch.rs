//! Instructions that run at CPL 3 without a trap although they show the
//! processor's own state: flags, time, segment bases, randomness. They are
//! found by decoding a driver's code, and a one-byte `hlt`, which always
//! traps, goes over the first byte of each.
//!
//! What `.pdata` and direct branches lead to is code. The rest is taken as
//! code only where it decodes without a fault up to an instruction that ends
//! a path: jump tables lie between functions too, and a data byte must not be
//! patched. What is left is reported.

use super::emulate::is_silent;
use super::error::SpaceError;
use super::space::AddressSpace;
use super::step::MAX_INSTRUCTION;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};
use memory::Gva;
use std::collections::BTreeMap;
use std::ops::Range;

/// What goes over the first byte of a site: `hlt`.
pub const PATCH: u8 = 0xf4;

/// An instruction to be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatchSite {
    /// Its first byte.
    pub rva: u32,
    /// That byte.
    pub original: u8,
    /// What it is.
    pub kind: Mnemonic,
    /// Bytes.
    pub length: u8,
}

/// Bytes that could not be told from data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Undecoded {
    /// The first.
    pub rva: u32,
    /// How many.
    pub length: u32,
}

/// What a section of code contains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scan {
    /// Ascending.
    pub sites: Vec<PatchSite>,
    /// Ascending; padding is not listed, jump tables neither.
    pub undecoded: Vec<Undecoded>,
}

/// Scan one section of code that starts at `base`. `functions` are the ranges
/// of `.pdata`, `entries` further addresses that are surely code (the entry
/// point, exports). Both are RVAs; what lies outside the section is ignored.
#[must_use]
pub fn scan(code: &[u8], base: u32, functions: &[Range<u32>], entries: &[u32]) -> Scan {
    let mut scanner = Scanner {
        code,
        base,
        class: vec![Class::Unknown; code.len()],
        sites: BTreeMap::new(),
        sure: Vec::new(),
        leads: Vec::new(),
    };
    let mut ranges: Vec<Range<usize>> = functions
        .iter()
        .filter_map(|f| Some(scanner.offset(f.start)?..scanner.offset(f.end.checked_sub(1)?)? + 1))
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    scanner.sure = ranges.iter().map(|range| range.start).collect();
    for entry in entries {
        scanner.sure.extend(scanner.offset(*entry));
    }
    scanner.follow();
    for range in &ranges {
        scanner.rest_of(range.clone(), std::slice::from_ref(range));
    }
    while let Some(lead) = scanner.leads.pop() {
        scanner.attempt(lead);
        scanner.follow();
    }
    scanner.rest_of(0..code.len(), &ranges);
    scanner.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    Unknown,
    /// The first byte of an instruction.
    Start,
    /// A further byte of one.
    Inside,
    /// An entry of a jump table.
    Table,
    /// Padding.
    Padding,
    /// Tried, and no code.
    Data,
}

struct Scanner<'a> {
    code: &'a [u8],
    base: u32,
    class: Vec<Class>,
    sites: BTreeMap<u32, PatchSite>,
    /// Offsets that are code.
    sure: Vec<usize>,
    /// Offsets that may be code.
    leads: Vec<usize>,
}

impl Scanner<'_> {
    fn offset(&self, rva: u32) -> Option<usize> {
        let offset = rva.checked_sub(self.base)? as usize;
        (offset < self.code.len()).then_some(offset)
    }

    fn class(&self, offset: usize) -> Option<Class> {
        self.class.get(offset).copied()
    }

    fn decode(&self, offset: usize) -> Option<Instruction> {
        let end = self.code.len().min(offset + MAX_INSTRUCTION);
        let bytes = self.code.get(offset..end)?;
        let ip = u64::from(self.base) + offset as u64;
        let instruction = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    fn is_unknown(&self, range: Range<usize>) -> bool {
        self.class
            .get(range)
            .is_some_and(|bytes| bytes.iter().all(|class| *class == Class::Unknown))
    }

    fn mark(&mut self, range: Range<usize>, class: Class) {
        if let Some(bytes) = self.class.get_mut(range) {
            bytes.fill(class);
        }
    }

    /// Note an instruction that is code.
    fn accept(&mut self, offset: usize, instruction: &Instruction) {
        let length = instruction.len();
        self.mark(offset..offset + length, Class::Inside);
        self.mark(offset..offset + 1, Class::Start);
        if is_silent(instruction) {
            let site = PatchSite {
                rva: instruction.ip() as u32,
                original: self.code.get(offset).copied().unwrap_or(PATCH),
                kind: instruction.mnemonic(),
                length: length as u8,
            };
            self.sites.insert(site.rva, site);
        }
        // Code whose address is taken, such as a callback in a gap.
        if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
            let target = u32::try_from(instruction.ip_rel_memory_address()).ok();
            self.leads.extend(target.and_then(|rva| self.offset(rva)));
        }
    }

    fn target(&self, instruction: &Instruction) -> Option<usize> {
        let near = matches!(
            instruction.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        );
        if !near {
            return None;
        }
        self.offset(u32::try_from(instruction.near_branch_target()).ok()?)
    }

    /// Decode from every sure offset along all direct branches.
    fn follow(&mut self) {
        while let Some(mut at) = self.sure.pop() {
            while self.class(at) == Some(Class::Unknown) {
                let Some(instruction) = self.decode(at) else {
                    break;
                };
                let end = at + instruction.len();
                if !self.is_unknown(at..end) {
                    break; // it overlaps what is decoded already
                }
                self.accept(at, &instruction);
                self.sure.extend(self.target(&instruction));
                if ends_path(&instruction) {
                    break;
                }
                at = end;
            }
        }
    }

    /// Try an offset that may be code: all or nothing. Returns whether it was.
    fn attempt(&mut self, start: usize) -> bool {
        let mut found = Vec::new();
        let mut at = start;
        loop {
            match self.class(at) {
                Some(Class::Unknown) => {}
                // It falls through into known code.
                Some(Class::Start) if !found.is_empty() => break,
                _ => return false,
            }
            let Some(instruction) = self.decode(at) else {
                return false;
            };
            let end = at + instruction.len();
            if !self.is_unknown(at..end) {
                return false;
            }
            found.push((at, instruction));
            if ends_path(&instruction) {
                break;
            }
            at = end;
        }
        for (offset, instruction) in found {
            self.accept(offset, &instruction);
            self.leads.extend(self.target(&instruction));
        }
        true
    }

    /// Decide about the unknown bytes of `range`; jump tables lead into
    /// `functions`.
    fn rest_of(&mut self, range: Range<usize>, functions: &[Range<usize>]) {
        let mut at = range.start;
        while at < range.end {
            if self.class(at) != Some(Class::Unknown) {
                at += 1;
                continue;
            }
            let padding = self.padding(at);
            if padding > 0 {
                self.mark(at..at + padding, Class::Padding);
                at += padding;
                continue;
            }
            let table = self.jump_table(at, functions);
            if !table.is_empty() {
                let end = at + 4 * table.len();
                self.mark(at..end, Class::Table);
                self.sure.extend(table);
                self.follow();
                at = end;
                continue;
            }
            if self.attempt(at) {
                self.follow();
                continue;
            }
            // Functions start at multiples of 16.
            let next = (at / 16 + 1) * 16;
            while at < next.min(range.end) && self.class(at) == Some(Class::Unknown) {
                self.mark(at..at + 1, Class::Data);
                at += 1;
            }
        }
    }

    /// Bytes of padding at `at`: `int3`, zeros, or a `nop`.
    fn padding(&self, at: usize) -> usize {
        let rest = self.code.get(at..).unwrap_or_default();
        let same = |byte| rest.iter().take_while(|b| **b == byte).count();
        let (int3, zero) = (same(0xcc), same(0));
        if int3 > 0 {
            return int3;
        }
        if zero >= 2 {
            return zero;
        }
        match self.decode(at) {
            Some(i) if i.mnemonic() == Mnemonic::Nop && self.is_unknown(at..at + i.len()) => {
                i.len()
            }
            _ => 0,
        }
    }

    /// The offsets that a table of 4-byte RVAs at `at` leads to: at least
    /// two, all into the same function.
    fn jump_table(&self, at: usize, functions: &[Range<usize>]) -> Vec<usize> {
        let mut targets = Vec::new();
        let mut home: Option<&Range<usize>> = None;
        if !(self.base as usize + at).is_multiple_of(4) {
            return targets;
        }
        loop {
            let entry = at + 4 * targets.len();
            if !self.is_unknown(entry..entry + 4) {
                break;
            }
            let Some(bytes) = self.code.get(entry..).and_then(|b| b.first_chunk()) else {
                break;
            };
            let Some(target) = self.offset(u32::from_le_bytes(*bytes)) else {
                break;
            };
            let function = home.or_else(|| containing(functions, target));
            match function {
                Some(range) if range.contains(&target) => home = Some(range),
                _ => break,
            }
            targets.push(target);
        }
        if targets.len() < 2 {
            targets.clear();
        }
        targets
    }

    fn finish(self) -> Scan {
        let mut undecoded: Vec<Undecoded> = Vec::new();
        for (offset, class) in self.class.iter().enumerate() {
            if !matches!(class, Class::Data | Class::Unknown) {
                continue;
            }
            let rva = self.base.wrapping_add(offset as u32);
            match undecoded.last_mut() {
                Some(last) if last.rva + last.length == rva => last.length += 1,
                _ => undecoded.push(Undecoded { rva, length: 1 }),
            }
        }
        Scan {
            sites: self.sites.into_values().collect(),
            undecoded,
        }
    }
}

/// The range, of ascending ones, that holds `offset`.
fn containing(ranges: &[Range<usize>], offset: usize) -> Option<&Range<usize>> {
    let after = ranges.partition_point(|range| range.start <= offset);
    let range = ranges.get(after.checked_sub(1)?)?;
    range.contains(&offset).then_some(range)
}

/// Nothing follows this instruction on its path.
fn ends_path(instruction: &Instruction) -> bool {
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::Return
        | FlowControl::Exception => true,
        FlowControl::Interrupt => {
            instruction.mnemonic() == Mnemonic::Int3
                || instruction.mnemonic() == Mnemonic::Int && instruction.immediate8() == 0x29
        }
        _ => false,
    }
}

/// The patched sites of all images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PatchTable {
    sites: BTreeMap<Gva, PatchSite>,
}

impl PatchTable {
    /// Patch the sites of an image mapped at `image`.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`]; sites before that one are patched.
    pub fn install(
        &mut self,
        space: &AddressSpace,
        image: Gva,
        sites: &[PatchSite],
    ) -> Result<(), SpaceError> {
        for site in sites {
            let at = Gva(image.0.wrapping_add(u64::from(site.rva)));
            space.write(at, &[PATCH])?;
            self.sites.insert(at, *site);
        }
        Ok(())
    }

    /// Forget the sites of an image that is unloaded.
    pub fn remove(&mut self, image: Gva, size: u64) {
        self.sites
            .retain(|at, _| at.0.wrapping_sub(image.0) >= size);
    }

    /// The site at an address.
    #[must_use]
    pub fn site(&self, at: Gva) -> Option<&PatchSite> {
        self.sites.get(&at)
    }

    /// The driver's own bytes at `rip`, patches undone: up to 15, fewer where
    /// the next page is not mapped, none where nothing is.
    #[must_use]
    pub fn original_code(&self, space: &AddressSpace, rip: Gva) -> Vec<u8> {
        let mut code = Vec::with_capacity(MAX_INSTRUCTION);
        for offset in 0..MAX_INSTRUCTION as u64 {
            let at = Gva(rip.0.wrapping_add(offset));
            let mut byte = [0];
            match self.sites.get(&at) {
                Some(site) => byte = [site.original],
                None if space.read(at, &mut byte).is_err() => break,
                None => {}
            }
            code.push(byte[0]);
        }
        code
    }
}
