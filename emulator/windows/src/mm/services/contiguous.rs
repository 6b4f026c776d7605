//! `MmAllocateContiguousMemory*` and their frees.

use super::super::past::{Gone, Kind};
use super::super::spec::DISPATCH_LEVEL;
use super::super::{Absent, AllocFailure, ContiguousRequest, State, frames};
use super::{Flow, arguments, check_irql, check_irql_of, check_unlocked, finish, null};
use crate::call::{Call, Outcome};
use crate::platform::Platform;
use crate::rules::{contiguous as contiguous_rule, mm as rule};
use crate::status;
use journal::event::AllocationKind;
use memory::{Gva, PAGE_SIZE};

/// `PVOID (SIZE_T, PHYSICAL_ADDRESS Highest)`.
pub(super) fn allocate_contiguous(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [bytes, high, ..] = call.registers;
    let name = "MmAllocateContiguousMemory";
    finish(contiguous(state, platform, irql, name, [bytes, 0, high, 0]))
}

/// `PVOID (SIZE_T, Lowest, Highest, Boundary, MEMORY_CACHING_TYPE)`.
pub(super) fn allocate_contiguous_specify_cache(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let name = "MmAllocateContiguousMemorySpecifyCache";
    finish(contiguous(state, platform, irql, name, call.registers))
}

/// The same with `NODE_REQUIREMENT` at the end, a preference: there is one
/// node.
pub(super) fn allocate_contiguous_specify_cache_node(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let name = "MmAllocateContiguousMemorySpecifyCacheNode";
    finish(contiguous(state, platform, irql, name, call.registers))
}

/// `PVOID (SIZE_T, Lowest, Highest, Boundary, ULONG Protect, NODE_REQUIREMENT)`.
/// All memory here can be read and written, and none of it executed.
pub(super) fn allocate_contiguous_node(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let name = "MmAllocateContiguousNodeMemory";
    finish(contiguous(state, platform, irql, name, call.registers))
}

/// `NTSTATUS (PSIZE_T, Lowest, Highest, Boundary, NODE_REQUIREMENT, ULONG
/// Protect, PVOID Partition, ULONG Tag, ULONG Flags, PVOID* Base)`.
pub(super) fn allocate_contiguous_ex(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    finish(contiguous_ex(state, platform, call, irql))
}

fn contiguous_ex(state: &mut State, platform: &mut dyn Platform, call: &Call, irql: u8) -> Flow {
    const NAME: &str = "MmAllocateContiguousMemoryEx";
    let [
        size,
        low,
        high,
        boundary,
        _node,
        _protect,
        partition,
        _tag,
        _flags,
        base,
    ] = arguments(platform, call)?;
    check_irql(&rule::PAGE_IRQL, NAME, irql, &[])?;
    let (size, base) = (Gva(size), Gva(base));
    let bytes = platform.read_u64(size)?;
    // Where the address is to go is there: nothing is allocated in vain.
    platform.read_u64(base)?;
    if partition != 0 {
        let what = format_args!("{NAME}, partition {partition:#x}");
        return Ok(contiguous_rule::CONTIGUOUS_EX_ARGUMENT.refuse(what));
    }
    let request = request(bytes, low, high, boundary);
    match state.allocate_contiguous(platform, &request) {
        Ok(made) => {
            platform.write_u64(size, bytes.next_multiple_of(PAGE_SIZE))?;
            platform.write_u64(base, made.address.0)?;
            Ok(u64::from(status::SUCCESS))
        }
        Err(failure @ (AllocFailure::BadSize { .. } | AllocFailure::BadArgument { .. })) => {
            Ok(contiguous_rule::CONTIGUOUS_EX_ARGUMENT.refuse(format_args!("{NAME}: {failure}")))
        }
        Err(failure) => {
            Ok(contiguous_rule::CONTIGUOUS_EX_NONE.refuse(format_args!("{NAME}: {failure}")))
        }
    }
}

fn request(bytes: u64, lowest: u64, highest: u64, boundary: u64) -> ContiguousRequest {
    ContiguousRequest {
        bytes,
        lowest,
        highest,
        boundary,
        kind: AllocationKind::MmContiguous,
        handle: 0,
    }
}

fn contiguous(
    state: &mut State,
    platform: &mut dyn Platform,
    irql: u8,
    name: &str,
    [bytes, low, high, boundary]: [u64; 4],
) -> Flow {
    check_irql(&rule::PAGE_IRQL, name, irql, &[])?;
    let request = request(bytes, low, high, boundary);
    Ok(match state.allocate_contiguous(platform, &request) {
        Ok(made) => made.address.0,
        Err(failure) => null(
            name,
            &failure,
            &contiguous_rule::CONTIGUOUS_SIZE,
            &contiguous_rule::CONTIGUOUS_NONE,
        ),
    })
}

/// `VOID (PVOID, SIZE_T, MEMORY_CACHING_TYPE)`: the exact base, and as many
/// pages as were allocated. The cache type is not kept, so not compared.
pub(super) fn free_contiguous_specify_cache(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [address, bytes, ..] = call.registers;
    let pages = state
        .record_at(Gva(address))
        .map(|(_, record)| frames::count_frames(&record.pages));
    match pages {
        Some(pages) if irql <= DISPATCH_LEVEL && bytes.div_ceil(PAGE_SIZE) != pages => {
            let what = format!(
                "MmFreeContiguousMemorySpecifyCache of {bytes} bytes at {address:#x}, {pages} \
                 pages were allocated"
            );
            contiguous_rule::CONTIGUOUS_FREE_SIZE
                .outcome(&[address], what)
                .about(state.subject_at(Gva(address)))
        }
        _ => free_contiguous(state, platform, call, irql),
    }
}

/// `VOID (PVOID)`: the exact base.
pub(super) fn free_contiguous(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [address, ..] = call.registers;
    let address = Gva(address);
    let name = "MmFreeContiguousMemory";
    if let Err(outcome) = check_irql_of(state, &rule::PAGE_IRQL, name, irql, &[], address) {
        return outcome;
    }
    match state.record_at(address) {
        Some((id, record)) if record.kind == AllocationKind::MmContiguous => {
            let pages = record.pages.clone();
            let subject = state.subject_at(address);
            let frames = frames::each_frame(&pages);
            if let Err(outcome) = check_unlocked(state, name, frames, subject) {
                return outcome;
            }
            state.tell_pinned(platform, name, address, frames::each_frame(&pages));
            state.tell_user_mapped(platform, name, subject, frames::each_frame(&pages));
            state.release_contiguous(platform, id);
            Outcome::Return(0)
        }
        Some((_, record)) if record.kind == AllocationKind::DxgkContiguous => {
            let what = format!("{name} of {address}, which dxgkrnl allocated and frees");
            contiguous_rule::CONTIGUOUS_FOREIGN
                .outcome(&[address.0], what)
                .about(state.subject_at(address))
        }
        _ => match state.absent(address) {
            Some(Absent::Gone(
                gone @ Gone {
                    kind: Kind::Contiguous,
                    ..
                },
            )) if gone.address == address => {
                let what = format!("{name} of {}", gone.describe());
                contiguous_rule::CONTIGUOUS_TWICE
                    .outcome(&[address.0], what)
                    .about(gone.subject())
            }
            _ => contiguous_rule::CONTIGUOUS_BASE
                .outcome(
                    &[address.0],
                    format!("{name} of {address}, where no such memory begins"),
                )
                .about(state.subject_at(address)),
        },
    }
}
