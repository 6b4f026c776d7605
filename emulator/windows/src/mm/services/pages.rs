//! `MmAllocatePagesForMdl*` and their frees.

use super::super::spec::{allocate, mdl as layout};
use super::super::{Frame, Mdl, MdlError, POISON, PageRequest, State, frames};
use super::{Flow, arguments, bad_mdl, check_irql, check_irql_of, check_unlocked, finish, null};
use crate::call::{Call, Outcome};
use crate::platform::Platform;
use crate::rules::{Rule, mm as rule};
use journal::event::{AllocationId, AllocationKind, Subject};
use memory::{Gva, Pfn};

/// `PMDL (Low, High, Skip, SIZE_T)`: always clears.
pub(super) fn allocate_pages_for_mdl(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [low, high, skip, bytes] = call.registers;
    let range = [low, high, skip];
    let name = "MmAllocatePagesForMdl";
    let allowed = check_irql(&rule::PAGES_IRQL, name, irql, &[]);
    finish(allowed.and_then(|()| allocate_mdl(state, platform, name, range, bytes, 0)))
}

/// `PMDL (Low, High, Skip, SIZE_T, MEMORY_CACHING_TYPE, ULONG Flags)`.
pub(super) fn allocate_pages_for_mdl_ex(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [low, high, skip, bytes, _cache, flags] = match arguments(platform, call) {
        Ok(values) => values,
        Err(error) => return error.into(),
    };
    let range = [low, high, skip];
    let name = "MmAllocatePagesForMdlEx";
    let allowed = check_irql(&rule::PAGES_IRQL, name, irql, &[]);
    let flags = flags as u32;
    finish(allowed.and_then(|()| allocate_mdl(state, platform, name, range, bytes, flags)))
}

/// `PMDL (Low, High, Skip, SIZE_T, MEMORY_CACHING_TYPE, ULONG IdealNode,
/// ULONG Flags)`. There is one node.
pub(super) fn allocate_node_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let name = "MmAllocateNodePagesForMdlEx";
    finish(node_pages(state, platform, call, irql, name))
}

/// The same with `PVOID PartitionObject` at the end: NULL is the system's.
pub(super) fn allocate_partition_node_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let name = "MmAllocatePartitionNodePagesForMdlEx";
    match call.argument(platform, 7) {
        Err(error) => error.into(),
        Ok(0) => finish(node_pages(state, platform, call, irql, name)),
        Ok(object) => rule::PARTITION.refusal(format_args!("{name}, partition {object:#x}")),
    }
}

fn node_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
    name: &str,
) -> Flow {
    let [low, high, skip, bytes, _cache, node, flags] = arguments(platform, call)?;
    let (node, flags) = (node as u32, flags as u32);
    check_irql(&rule::NODE_PAGES_IRQL, name, irql, &[])?;
    let only = flags & allocate::FROM_LOCAL_NODE_ONLY != 0;
    if only && node != 0 && node != allocate::ANY_NODE {
        return Ok(rule::NODE.refuse(format_args!("{name}, node {node}")));
    }
    let range = [low, high, skip];
    allocate_mdl(state, platform, name, range, bytes, flags)
}

fn allocate_mdl(
    state: &mut State,
    platform: &mut dyn Platform,
    name: &str,
    [low, high, skip]: [u64; 3],
    bytes: u64,
    flags: u32,
) -> Flow {
    let request = PageRequest {
        low,
        high,
        skip,
        bytes,
        flags,
        kind: AllocationKind::MmMdl,
        handle: 0,
    };
    Ok(match state.allocate_pages_for_mdl(platform, &request) {
        Ok(allocation) => allocation.mdl.0,
        Err(failure) => null(name, &failure, &rule::PAGES_SIZE, &rule::PAGES_NONE),
    })
}

/// `VOID (PMDL)`. Leaves the MDL structure to `ExFreePool`; its slots are
/// emptied, so that a second free of it is seen.
pub(super) fn free_pages_from_mdl(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, ..] = call.registers;
    let (name, at) = ("MmFreePagesFromMdl", Gva(mdl));
    let allowed = check_irql_of(state, &rule::PAGES_IRQL, name, irql, &[], at);
    finish(allowed.and_then(|()| free_pages(state, platform, name, at, POISON)))
}

/// `VOID (PMDL, ULONG Flags)`: MM_FREE_MDL_PAGES_ZERO clears the pages, so
/// that a stale read shows zeros.
pub(super) fn free_pages_from_mdl_ex(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, flags, ..] = call.registers;
    let (name, at) = ("MmFreePagesFromMdlEx", Gva(mdl));
    let allowed = check_irql_of(state, &rule::NODE_PAGES_IRQL, name, irql, &[], at);
    let fill = match flags as u32 & allocate::FREE_ZERO {
        0 => POISON,
        _ => 0,
    };
    finish(allowed.and_then(|()| free_pages(state, platform, name, at, fill)))
}

fn free_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    name: &str,
    at: Gva,
    fill: u64,
) -> Flow {
    let foreign = |state: &State, what: &str| {
        let values = [at.0, MdlError::slot_address(at, 0), 0];
        rule::FOREIGN
            .outcome(&values, format!("{name} of {at}, {what}"))
            .about(state.subject_at(at))
    };
    if let Some(mdl) = state.mdl_around(at) {
        let what = format!("which lies inside the MDL at {mdl}");
        return Err(foreign(state, &what));
    }
    let mut mdl = match Mdl::read(platform, at) {
        Ok(mdl) => mdl,
        Err(MdlError::BadExtent { .. }) if !state.mdls.contains_key(&at) => {
            return Err(foreign(state, "which is no MDL"));
        }
        Err(error) => return Err(bad_mdl(state, error)),
    };
    let slots = mdl.slots(platform).map_err(|error| bad_mdl(state, error))?;
    let id = owner(state, name, at, &slots)?;
    let subject = Subject {
        allocation: Some(id),
        address: at.0,
    };
    let frames = || slots.iter().copied().map(Pfn);
    check_unlocked(state, name, frames(), subject)?;
    if let Some(made) = state.record(id).map(|record| record.address)
        && made != at
    {
        let what = format!("{name} of the MDL at {at}, with the pages of that at {made}");
        rule::COPIED.report(platform, subject, None, what);
    }
    state.tell_pinned(platform, name, at, frames());
    state.tell_user_mapped(platform, name, subject, frames());
    state.release_pages_as(platform, id, fill);
    // The MDL may have been a copy, mapped on its own.
    super::super::mdl::drop_mapping(state, platform, at);
    let empty = slots.iter().map(|_| Pfn(layout::EMPTY_SLOT));
    super::super::mdl::write_slots(platform, at, empty)?;
    let flags = mdl.flags & !(layout::PAGES_LOCKED | layout::MAPPED_TO_SYSTEM_VA);
    mdl.write_flags(platform, flags)?;
    Ok(0)
}

/// The allocation that the slots of an MDL describe, whole and in order.
/// Windows looks at each page by itself; a free of part of an allocation
/// through a shortened copy is not modelled and counts as a wrong MDL.
fn owner(state: &State, name: &str, mdl: Gva, slots: &[u64]) -> Result<AllocationId, Outcome> {
    let first = slots.first().copied().unwrap_or(layout::EMPTY_SLOT);
    let made = state.mdls.get(&mdl).map(|made| made.allocation);
    let subject = match made {
        Some(_) => state.subject_at(mdl),
        None => state.subject_of_frame(Pfn(first), mdl),
    };
    let wrong = |rule: &Rule, slot: u64, pfn: u64, why: &str| {
        rule.outcome(
            &[mdl.0, MdlError::slot_address(mdl, slot), pfn],
            format!("{name}: slot {slot} of MDL {mdl} holds page {pfn:#x}, {why}"),
        )
        .about(subject)
    };
    let (twice, foreign, changed) = (&rule::FREED_TWICE, &rule::FOREIGN, &rule::CHANGED);
    if first == layout::EMPTY_SLOT {
        return Err(wrong(twice, 0, first, "which marks a freed page"));
    }
    if made.is_some_and(|id| state.record(id).is_none()) {
        return Err(wrong(twice, 0, first, "and its pages were freed before"));
    }
    let id = match state.frame(Pfn(first)) {
        Some(Frame::Owned(id)) => id,
        Some(Frame::Free | Frame::Quarantined) => {
            return Err(wrong(twice, 0, first, "which no allocation owns"));
        }
        _ => return Err(wrong(foreign, 0, first, "which is no allocation's")),
    };
    let record = match state.record(id) {
        Some(record) if record.kind == AllocationKind::MmMdl => record,
        Some(record) if record.kind != AllocationKind::MmContiguous => {
            let why = "which dxgkrnl allocated and frees";
            return Err(wrong(foreign, 0, first, why));
        }
        _ => {
            let why = "which was not allocated for an MDL";
            return Err(wrong(foreign, 0, first, why));
        }
    };
    let mut expected = frames::each_frame(&record.pages);
    for (slot, &pfn) in (0..).zip(slots) {
        if expected.next() != Some(Pfn(pfn)) {
            let why = "not the page that was allocated there";
            return Err(wrong(changed, slot, pfn, why));
        }
    }
    if expected.next().is_some() {
        let end = slots.len() as u64;
        return Err(wrong(changed, end, 0, "fewer pages than were allocated"));
    }
    Ok(id)
}
