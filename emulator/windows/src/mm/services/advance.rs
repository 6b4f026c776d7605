//! `MmAdvanceMdl`.

use super::super::mdl::{self as engine};
use super::super::spec::mdl as layout;
use super::super::{Mdl, State};
use super::{Flow, bad_mdl, check_irql_of, finish};
use crate::call::{Call, Outcome};
use crate::platform::Platform;
use crate::rules::mm as rule;
use crate::status;
use memory::{Gva, PAGE_SIZE, Pfn};

/// `NTSTATUS (PMDL, ULONG NumberOfBytes)`: the MDL begins that much later.
/// Pages that it leaves are unlocked, and their part of a system mapping is
/// released.
pub(super) fn advance(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, bytes, ..] = call.registers;
    finish(run(state, platform, irql, Gva(mdl), bytes as u32))
}

fn run(state: &mut State, platform: &mut dyn Platform, irql: u8, at: Gva, bytes: u32) -> Flow {
    const NAME: &str = "MmAdvanceMdl";
    check_irql_of(state, &rule::PAGE_IRQL, NAME, irql, &[], at)?;
    let mut mdl = Mdl::read(platform, at).map_err(|error| bad_mdl(state, error))?;
    // An MDL of no bytes is none that another routine takes.
    let Some(count) = mdl.byte_count.checked_sub(bytes).filter(|&left| left > 0) else {
        let what = format_args!("{NAME} of the MDL at {at} by {bytes} of {}", mdl.byte_count);
        return Ok(rule::ADVANCE_PAST.refuse(what));
    };
    let slots = mdl.slots(platform).map_err(|error| bad_mdl(state, error))?;
    let offset = u64::from(mdl.byte_offset) + u64::from(bytes);
    let passed = offset / PAGE_SIZE;
    let (left, kept) = slots.split_at_checked(passed as usize).unwrap_or_default();
    if let Some(&page) = left.first()
        && state.mdls.contains_key(&at)
    {
        let what = format!("{NAME} of the MDL at {at} by {bytes} bytes, past page {page:#x}");
        return Err(rule::ADVANCE_ALLOCATED
            .outcome(&[page], what)
            .about(state.subject_at(at)));
    }
    let before = state.before_rewrite(platform, at);
    let own = layout::SOURCE_IS_NONPAGED_POOL | layout::PARTIAL;
    if mdl.flags & layout::PAGES_LOCKED != 0 && mdl.flags & own == 0 {
        for &frame in left {
            engine::unlock(state, Pfn(frame));
        }
    }
    engine::write_slots(platform, at, kept.iter().copied().map(Pfn))?;
    let start = mdl.start_va.wrapping_add(passed * PAGE_SIZE);
    platform.write_u64(Gva(at.0.wrapping_add(layout::START_VA)), start)?;
    platform.write_u32(Gva(at.0.wrapping_add(layout::BYTE_COUNT)), count)?;
    let byte_offset = (offset % PAGE_SIZE) as u32;
    platform.write_u32(Gva(at.0.wrapping_add(layout::BYTE_OFFSET)), byte_offset)?;
    let has_address = layout::MAPPED_TO_SYSTEM_VA | layout::SOURCE_IS_NONPAGED_POOL;
    if mdl.flags & has_address != 0 {
        let va = mdl.mapped_system_va.wrapping_add(u64::from(bytes));
        mdl.write_mapped_va(platform, va)?;
    }
    if let Some(mapping) = state.mappings.get_mut(&at) {
        let first = mapping.base.0 + mapping.passed * PAGE_SIZE;
        mapping.passed += passed;
        mapping.first = kept.first().copied().map(Pfn);
        mapping.start_va = start;
        for page in 0..passed {
            platform.unmap(Gva(first + page * PAGE_SIZE));
        }
    }
    state.tell_rewritten(platform, NAME, at, before);
    Ok(u64::from(status::SUCCESS))
}
