//! The guest's own VT-d tables, walked through shared memory: what it wants
//! the device to reach, whatever QEMU was told of it.

use super::pieces::{Piece, joined};
use crate::qmp;
use iommu::spec::{registers, tables as spec};
use memory::{Gpa, GuestMemory, PAGE_SIZE, RequesterId};
use std::path::Path;

/// Where q35's VT-d has its registers.
const BASE: u64 = 0xfed9_0000;
/// Root pointer: bits 11:10 say which mode the tables are of (10.4.6); 0 is
/// legacy.
const TABLE_MODE: u64 = 0b11 << 10;
/// Tables read at most: a guest can let them form loops.
const MAX_TABLES: usize = 1 << 12;

/// Where the guest's tables begin.
///
/// # Errors
/// In words: QEMU does not say, or there are no tables to walk.
pub(super) fn root(monitor: &Path) -> Result<Gpa, String> {
    let read = |register: u16, wide| {
        qmp::physical(monitor, BASE + u64::from(register), wide)
            .map_err(|error| format!("QEMU does not say where the tables are: {error}"))
    };
    let status = read(registers::GSTS, false)?;
    if status & u64::from(registers::TRANSLATION_ENABLE) == 0 {
        return Err("the guest has not turned translation on".to_owned());
    }
    let root = read(registers::RTADDR, true)?;
    if root & TABLE_MODE != 0 {
        return Err("the guest's tables are not of legacy mode".to_owned());
    }
    Ok(Gpa(root & spec::ADDRESS))
}

/// What the guest's tables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// The device's requests are passed through.
    PassThrough,
    /// Nothing is there for the device.
    NoContext,
    /// What is mapped; and were all tables read?
    Mapped(Vec<Piece>, bool),
}

/// Walk the tables of a device.
pub(super) fn walk(memory: &GuestMemory, root: Gpa, device: RequesterId) -> Walked {
    let pair = |table: u64, index: u8| {
        let at = table + 16 * u64::from(index);
        let low = memory.read_u64(Gpa(at)).ok()?;
        Some((low, memory.read_u64(Gpa(at + 8)).ok()?))
    };
    let context = pair(root.0, device.bus())
        .filter(|(low, _)| low & spec::ROOT_PRESENT != 0)
        .and_then(|(low, _)| pair(low & spec::ADDRESS, device.devfn()))
        .filter(|(low, _)| low & spec::CONTEXT_PRESENT != 0);
    let Some((low, high)) = context else {
        return Walked::NoContext;
    };
    if (low >> spec::CONTEXT_TYPE) & 0b11 == spec::TYPE_PASS_THROUGH {
        return Walked::PassThrough;
    }
    let Some(levels) = spec::levels(high & spec::CONTEXT_WIDTH) else {
        return Walked::NoContext;
    };
    let mut walk = Walk {
        memory,
        left: MAX_TABLES,
        found: Vec::new(),
    };
    let rights = spec::ENTRY_READ | spec::ENTRY_WRITE;
    let whole = walk.table(low & spec::ADDRESS, levels, 0, rights);
    Walked::Mapped(joined(walk.found), whole)
}

struct Walk<'a> {
    memory: &'a GuestMemory,
    left: usize,
    found: Vec<Piece>,
}

impl Walk<'_> {
    /// One table; false if something was left out.
    fn table(&mut self, table: u64, level: u8, base: u64, rights: u64) -> bool {
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        let mut bytes = [0; PAGE_SIZE as usize];
        // What is no RAM holds no entries.
        if self.memory.read(Gpa(table), &mut bytes).is_err() {
            return true;
        }
        let shift = 12 + 9 * (u32::from(level) - 1);
        let mut whole = true;
        for (index, word) in bytes.chunks_exact(8).enumerate() {
            let mut entry = [0; 8];
            entry.copy_from_slice(word);
            let entry = u64::from_le_bytes(entry);
            let rights = rights & entry;
            if rights == 0 {
                continue;
            }
            let iova = base | (index as u64) << shift;
            if level == 1 || (level < 4 && entry & spec::ENTRY_LARGE != 0) {
                let target = entry & spec::ADDRESS & !((1 << shift) - 1);
                let ram = self.memory.contains(Gpa(target), PAGE_SIZE);
                self.found.push(Piece {
                    iova,
                    length: 1 << shift,
                    target: ram.then_some(target),
                    read: rights & spec::ENTRY_READ != 0,
                    write: rights & spec::ENTRY_WRITE != 0,
                });
            } else {
                whole &= self.table(entry & spec::ADDRESS, level - 1, iova, rights);
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Root at 0x1000, context table at 0x2000, tables from 0x3000 on.
    fn guest(kind: u64) -> GuestMemory {
        let memory = GuestMemory::new(16 << 12).unwrap();
        let write = |at, value| memory.write_u64(Gpa(at), value).unwrap();
        write(0x1000, 0x2000 | spec::ROOT_PRESENT);
        let function = 0x2000 + 16 * 8;
        write(function, 0x3000 | kind << spec::CONTEXT_TYPE | 1);
        write(function + 8, 0b001);
        write(0x3000, 0x4003);
        write(0x4000, 0x5003);
        write(0x5000 + 8 * 5, 0x7003);
        write(0x5000 + 8 * 6, 0x8003);
        write(0x5000 + 8 * 9, 0x9001);
        memory
    }

    #[test]
    fn leaves_are_found_and_neighbours_joined() {
        let walked = walk(&guest(0), Gpa(0x1000), RequesterId::new(0, 1, 0));
        let leaf = |iova, pages: u64, target, write| Piece {
            iova,
            length: pages << 12,
            target: Some(target),
            read: true,
            write,
        };
        let all = vec![
            leaf(0x5000, 2, 0x7000, true),
            leaf(0x9000, 1, 0x9000, false),
        ];
        assert_eq!(walked, Walked::Mapped(all, true));
    }

    #[test]
    fn pass_through_and_an_absent_context_are_told() {
        let device = RequesterId::new(0, 1, 0);
        let walked = walk(&guest(2), Gpa(0x1000), device);
        assert_eq!(walked, Walked::PassThrough);
        let other = RequesterId::new(0, 2, 0);
        let walked = walk(&guest(0), Gpa(0x1000), other);
        assert_eq!(walked, Walked::NoContext);
    }

    #[test]
    fn tables_that_form_a_loop_have_an_end() {
        let memory = guest(0);
        for entry in 0..512 {
            memory.write_u64(Gpa(0x3000 + 8 * entry), 0x3003).unwrap();
        }
        let walked = walk(&memory, Gpa(0x1000), RequesterId::new(0, 1, 0));
        assert!(matches!(walked, Walked::Mapped(_, false)));
    }
}
