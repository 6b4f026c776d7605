//! The walk: root entry, context entry, second-level tables (VT-d 3.4, 3.7).
//! Reads guest memory and changes nothing.

use super::contexts::Context;
use crate::fault::FaultReason;
use crate::spec::tables as spec;
use memory::{Gpa, GuestMemory, Iova, RequesterId};

/// Why a walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Refusal {
    pub reason: FaultReason,
    /// The context entry disables the processing of its faults (FPD).
    pub silent: bool,
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaf {
    /// First byte of the page.
    pub page: Gpa,
    /// log2 of its bytes.
    pub shift: u32,
    /// What every level on the way allows.
    pub read: bool,
    pub write: bool,
    /// Where the leaf entry lies, and what it was.
    pub entry: Gpa,
    pub value: u64,
}

/// Find the context entry of `device` from the root table at `root`.
pub(super) fn context(
    memory: &GuestMemory,
    root: u64,
    device: RequesterId,
) -> Result<Context, Refusal> {
    // Faults before the context entry cannot be disabled (the table in 7.1.3
    // calls them unqualified).
    let loud = |reason| Refusal {
        reason,
        silent: false,
    };
    let (low, high) = pair(memory, root, device.bus()).ok_or(loud(FaultReason::RootAccess))?;
    if low & spec::ROOT_PRESENT == 0 {
        return Err(loud(FaultReason::RootNotPresent));
    }
    if low & spec::ROOT_RESERVED != 0 || high != 0 {
        return Err(loud(FaultReason::RootReserved));
    }
    let table = low & spec::ADDRESS;
    let (low, high) =
        pair(memory, table, device.devfn()).ok_or(loud(FaultReason::ContextAccess))?;
    let silent = low & spec::CONTEXT_FAULT_DISABLE != 0;
    let refuse = |reason| Refusal { reason, silent };
    if low & spec::CONTEXT_PRESENT == 0 {
        return Err(refuse(FaultReason::ContextNotPresent));
    }
    let kind = (low >> spec::CONTEXT_TYPE) & 0b11;
    if low & spec::context_reserved_low(kind) != 0 || high & spec::CONTEXT_RESERVED_HIGH != 0 {
        return Err(refuse(FaultReason::ContextReserved));
    }
    let pass_through = match kind {
        spec::TYPE_TRANSLATE => false,
        spec::TYPE_PASS_THROUGH => true,
        // 01 needs a device TLB (ECAP.DT), 11 is reserved.
        _ => return Err(refuse(FaultReason::ContextInvalid)),
    };
    let levels =
        spec::levels(high & spec::CONTEXT_WIDTH).ok_or(refuse(FaultReason::ContextInvalid))?;
    // Without paging it is the host's width that limits addresses, not that
    // of the tables (3.9; LGN.1.3 of the table in 7.1.3).
    let bits = if pass_through {
        spec::HOST_ADDRESS_BITS
    } else {
        spec::input_bits(levels)
    };
    Ok(Context {
        domain: (high >> spec::CONTEXT_DOMAIN) as u16,
        levels,
        bits: bits as u8,
        pass_through,
        silent,
        table: low & spec::ADDRESS,
    })
}

/// Walk the second-level tables of `context` for an access. `bend` is what a
/// scenario makes of the leaf entry.
pub(super) fn leaf(
    memory: &GuestMemory,
    context: &Context,
    iova: Iova,
    length: u32,
    write: bool,
    bend: impl FnOnce(u64) -> u64,
) -> Result<Leaf, FaultReason> {
    // A read of no bytes needs either permission (CAP.ZLR).
    let (needs, denied) = match (write, length) {
        (true, _) => (spec::ENTRY_WRITE, FaultReason::WriteDenied),
        (false, 0) => (
            spec::ENTRY_READ | spec::ENTRY_WRITE,
            FaultReason::ReadDenied,
        ),
        (false, _) => (spec::ENTRY_READ, FaultReason::ReadDenied),
    };
    let mut bend = Some(bend);
    let mut table = context.table;
    let mut rights = spec::ENTRY_READ | spec::ENTRY_WRITE;
    let mut level = context.levels;
    loop {
        let shift = 12 + 9 * (u32::from(level) - 1);
        let entry = Gpa(table | ((iova.0 >> shift) & 0x1ff) << 3);
        // The top table is the context entry's fault (LCT.4.3 of the table in
        // 7.1.3), the others are that of the table above (LSS.1).
        let mut value = memory.read_u64(entry).map_err(|_| {
            if level == context.levels {
                FaultReason::ContextInvalid
            } else {
                FaultReason::TableAccess
            }
        })?;
        let is_leaf = level == 1 || (level < 4 && value & spec::ENTRY_LARGE != 0);
        if let Some(bend) = bend.take_if(|_| is_leaf) {
            value = bend(value);
        }
        // Permission first: reserved bits of an entry that is not present are
        // ignored, and R and W are its present bits (9.8).
        rights &= value;
        if rights & needs == 0 {
            return Err(denied);
        }
        if value & spec::entry_reserved(level, is_leaf) != 0 {
            return Err(FaultReason::TableReserved);
        }
        if is_leaf {
            return Ok(Leaf {
                page: Gpa(value & spec::ADDRESS & !((1 << shift) - 1)),
                shift,
                read: rights & spec::ENTRY_READ != 0,
                write: rights & spec::ENTRY_WRITE != 0,
                entry,
                value,
            });
        }
        table = value & spec::ADDRESS;
        level -= 1;
    }
}

/// One of 256 entries of 128 bits.
fn pair(memory: &GuestMemory, table: u64, index: u8) -> Option<(u64, u64)> {
    let at = table + 16 * u64::from(index);
    let low = memory.read_u64(Gpa(at)).ok()?;
    let high = memory.read_u64(Gpa(at + 8)).ok()?;
    Some((low, high))
}
