//! Lookaside lists. What takes an entry and gives one back is inline in the
//! driver: it goes by the structure, so that is all there is to do here.

use crate::call::{Call, Outcome};
use crate::executive::spec::lookaside as layout;
use crate::mm::spec::pool;
use crate::platform::{Platform, PlatformError};
use crate::rules::{Rule, executive as rule};
use crate::{Windows, status};
use memory::Gva;

/// EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL and FAIL_NO_RAISE.
const FLAGS: [u32; 2] = [1, 2];

/// What a list is initialised with, but for its memory.
struct Shape {
    allocate: u64,
    free: u64,
    kind: u32,
    size: u32,
    tag: u32,
}

fn irql(windows: &Windows, rule: &Rule, name: &str, list: Gva) -> Result<(), Outcome> {
    match rule.breach(name, windows.executive.irql(), &[list.0]) {
        Some(stop) => Err(Outcome::Stop(stop.or_return(0u64))),
        None => Ok(()),
    }
}

fn initialize(
    windows: &mut Windows,
    p: &mut dyn Platform,
    list: Gva,
    shape: &Shape,
) -> Result<(), PlatformError> {
    let mut default = |routine: u64, name: &str| match routine {
        0 => windows.resolve_routine("ntoskrnl.exe", name).0,
        own => own,
    };
    // Both take their arguments as the list's own routines do.
    let allocate = default(shape.allocate, "ExAllocatePoolWithTag");
    let free = default(shape.free, "ExFreePool");
    let at = |offset| {
        list.checked_add(offset)
            .ok_or(PlatformError::NotMapped(list))
    };
    // Depth stays 0 (rule lookaside-depth).
    p.write(list, &[0; layout::SIZE as usize])?;
    p.write(at(layout::MAXIMUM_DEPTH)?, &layout::LIMIT.to_le_bytes())?;
    p.write_u32(at(layout::TYPE)?, shape.kind)?;
    p.write_u32(at(layout::TAG)?, shape.tag)?;
    p.write_u32(at(layout::ENTRY_SIZE)?, shape.size)?;
    p.write_u64(at(layout::ALLOCATE)?, allocate)?;
    p.write_u64(at(layout::FREE)?, free)?;
    let entry = at(layout::LIST)?;
    p.write_u64(entry, entry.0)?;
    p.write_u64(at(layout::LIST + 8)?, entry.0)?;
    windows.executive.add_lookaside(list);
    Ok(())
}

/// VOID (Lookaside, Allocate, Free, ULONG Flags, SIZE_T Size, ULONG Tag,
/// USHORT Depth), for one kind of pool.
fn initialize_old(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
    (name, rule): (&str, &Rule),
    kind: u32,
) -> Result<Outcome, Outcome> {
    let [list, allocate, free, flags] = call.registers;
    irql(windows, rule, name, Gva(list))?;
    let shape = Shape {
        allocate,
        free,
        // POOL_NX_ALLOCATION and POOL_RAISE_IF_ALLOCATION_FAILURE.
        kind: kind | flags as u32,
        size: call.argument(p, 4)? as u32,
        tag: call.argument(p, 5)? as u32,
    };
    initialize(windows, p, Gva(list), &shape)?;
    Ok(Outcome::Return(0))
}

fn end(result: Result<Outcome, Outcome>) -> Outcome {
    result.unwrap_or_else(|outcome| outcome)
}

/// VOID ExInitializeNPagedLookasideList(...).
pub(crate) fn initialize_nonpaged(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    let row = ("ExInitializeNPagedLookasideList", &rule::LOOKASIDE_IRQL);
    end(initialize_old(windows, p, call, row, 0))
}

/// VOID ExInitializePagedLookasideList(...).
pub(crate) fn initialize_paged(
    windows: &mut Windows,
    p: &mut dyn Platform,
    call: &Call,
) -> Outcome {
    let row = (
        "ExInitializePagedLookasideList",
        &rule::LOOKASIDE_PAGED_IRQL,
    );
    end(initialize_old(windows, p, call, row, pool::TYPE_PAGED))
}

/// NTSTATUS ExInitializeLookasideListEx(Lookaside, Allocate, Free, POOL_TYPE,
/// ULONG Flags, SIZE_T Size, ULONG Tag, USHORT Depth).
pub(crate) fn initialize_ex(windows: &mut Windows, p: &mut dyn Platform, call: &Call) -> Outcome {
    let mut flow = || -> Result<Outcome, Outcome> {
        let name = "ExInitializeLookasideListEx";
        let [list, allocate, free, kind] = call.registers;
        irql(windows, &rule::LOOKASIDE_IRQL, name, Gva(list))?;
        let flags = call.argument(p, 4)? as u32;
        if flags != 0 && !FLAGS.contains(&flags) {
            let what = format_args!("{name} of {list:#x}, flags {flags:#x}");
            return Ok(rule::LOOKASIDE_FLAGS.refusal(what));
        }
        let shape = Shape {
            allocate,
            free,
            kind: kind as u32,
            size: call.argument(p, 5)? as u32,
            tag: call.argument(p, 6)? as u32,
        };
        initialize(windows, p, Gva(list), &shape)?;
        Ok(Outcome::Return(u64::from(status::SUCCESS)))
    };
    end(flow())
}

fn delete(windows: &mut Windows, call: &Call, name: &str, rule: &Rule) -> Outcome {
    let [list, ..] = call.registers;
    if let Err(outcome) = irql(windows, rule, name, Gva(list)) {
        return outcome;
    }
    if !windows.executive.remove_lookaside(Gva(list)) {
        let what = format!("{name}: no lookaside list is in use at {list:#x}");
        let subject = windows.mm.subject_at(Gva(list));
        return rule::LOOKASIDE_UNKNOWN
            .outcome(&[list], what)
            .about(subject);
    }
    Outcome::Return(0)
}

/// VOID ExDeleteNPagedLookasideList(PNPAGED_LOOKASIDE_LIST).
pub(crate) fn delete_nonpaged(windows: &mut Windows, _: &mut dyn Platform, call: &Call) -> Outcome {
    let name = "ExDeleteNPagedLookasideList";
    delete(windows, call, name, &rule::LOOKASIDE_IRQL)
}

/// VOID ExDeletePagedLookasideList(PPAGED_LOOKASIDE_LIST).
pub(crate) fn delete_paged(windows: &mut Windows, _: &mut dyn Platform, call: &Call) -> Outcome {
    let name = "ExDeletePagedLookasideList";
    delete(windows, call, name, &rule::LOOKASIDE_PAGED_IRQL)
}

/// VOID ExDeleteLookasideListEx(PLOOKASIDE_LIST_EX).
pub(crate) fn delete_ex(windows: &mut Windows, _: &mut dyn Platform, call: &Call) -> Outcome {
    let name = "ExDeleteLookasideListEx";
    delete(windows, call, name, &rule::LOOKASIDE_IRQL)
}

/// VOID ExFlushLookasideListEx(PLOOKASIDE_LIST_EX): the list keeps nothing.
pub(crate) fn flush(windows: &mut Windows, _: &mut dyn Platform, call: &Call) -> Outcome {
    let [list, ..] = call.registers;
    let name = "ExFlushLookasideListEx";
    let allowed = irql(windows, &rule::LOOKASIDE_IRQL, name, Gva(list));
    end(allowed.map(|()| Outcome::Return(0)))
}
