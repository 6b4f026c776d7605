//! MDLs made from others or for device memory, and the protection of a
//! mapping.

use super::super::mdl as engine;
use super::super::spec::{mdl as layout, page};
use super::super::{Mdl, MdlError, State};
use super::{Flow, bad_mdl, check_irql, finish, null};
use crate::call::{Call, Outcome};
use crate::platform::{Platform, PlatformError, Protection};
use crate::rules::{mapping as map_rule, mm as rule};
use crate::status;
use memory::{Gpa, Gva, PAGE_SIZE, Pfn, pages_spanned};

/// `VOID (PMDL Source, PMDL Target, PVOID, ULONG Length)`; a length of 0
/// means the rest of the source.
pub(super) fn build_partial(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [source, target, address, length] = call.registers;
    let length = u64::from(length as u32);
    let (source, target) = (Gva(source), Gva(target));
    finish(partial(
        state, platform, irql, source, target, address, length,
    ))
}

fn partial(
    state: &mut State,
    platform: &mut dyn Platform,
    irql: u8,
    source: Gva,
    target: Gva,
    address: u64,
    length: u64,
) -> Flow {
    const NAME: &str = "IoBuildPartialMdl";
    check_irql(&rule::PAGE_IRQL, NAME, irql, &[])?;
    let from = Mdl::read(platform, source).map_err(|error| bad_mdl(state, error))?;
    let start = from.start_va.wrapping_add(u64::from(from.byte_offset));
    let offset = address.wrapping_sub(start);
    let count = u64::from(from.byte_count);
    let wanted = match length {
        0 => count.saturating_sub(offset),
        length => length,
    };
    if wanted == 0 || offset >= count || wanted > count - offset {
        let what = format!(
            "{NAME}: {wanted} bytes from {address:#x}, the MDL at {source} describes {count} \
             from {start:#x}"
        );
        return Err(rule::PARTIAL_RANGE.outcome(&[source.0, target.0, address, length], what));
    }
    let pages = pages_spanned(address, wanted);
    let room = capacity(state, platform, target)?;
    if room < pages {
        let what = format!("{NAME}: the MDL at {target} has room for {room} pages of {pages}");
        return Err(rule::PARTIAL_ROOM.outcome(&[], what));
    }
    let before = state.before_rewrite(platform, target);
    let first = (u64::from(from.byte_offset) + offset) / PAGE_SIZE;
    let slots = from
        .slots(platform)
        .map_err(|error| bad_mdl(state, error))?;
    let kept = slots.iter().skip(first as usize).take(pages as usize);
    engine::write_slots(platform, target, kept.map(|&slot| Pfn(slot)))?;
    let base = address & !(PAGE_SIZE - 1);
    platform.write_u64(field(target, layout::START_VA)?, base)?;
    platform.write_u32(field(target, layout::BYTE_COUNT)?, wanted as u32)?;
    let byte_offset = (address - base) as u32;
    platform.write_u32(field(target, layout::BYTE_OFFSET)?, byte_offset)?;
    // A system address of the source serves the part as well.
    let inherited = from.flags
        & (layout::SOURCE_IS_NONPAGED_POOL | layout::MAPPED_TO_SYSTEM_VA | layout::IO_SPACE);
    let mut part = Mdl::read(platform, target).map_err(|error| bad_mdl(state, error))?;
    part.write_flags(platform, inherited | layout::PARTIAL)?;
    let has_address = layout::SOURCE_IS_NONPAGED_POOL | layout::MAPPED_TO_SYSTEM_VA;
    let va = match inherited & has_address {
        0 => 0,
        _ => from.mapped_system_va.wrapping_add(offset),
    };
    part.write_mapped_va(platform, va)?;
    state.tell_rewritten(platform, NAME, target, before);
    Ok(0)
}

/// Slots that fit the MDL structure at `mdl`: its `Size` wraps, so the pool
/// block tells, if it is one.
fn capacity(state: &State, platform: &dyn Platform, mdl: Gva) -> Result<u64, PlatformError> {
    let bytes = match state.pool_block(mdl) {
        Some(block) => block.size,
        None => u64::from(platform.read_u16(field(mdl, layout::SIZE)?)?),
    };
    Ok(bytes.saturating_sub(layout::HEADER) / 8)
}

fn field(mdl: Gva, offset: u64) -> Result<Gva, PlatformError> {
    mdl.checked_add(offset).ok_or(PlatformError::NotMapped(mdl))
}

/// `NTSTATUS (MM_PHYSICAL_ADDRESS_LIST*, SIZE_T Entries, PMDL*)`. An entry is
/// an address and a size, 8 bytes each.
pub(super) fn allocate_for_io_space(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [list, entries, result, _] = call.registers;
    finish(for_io_space(
        state,
        platform,
        irql,
        Gva(list),
        entries,
        Gva(result),
    ))
}

fn for_io_space(
    state: &mut State,
    platform: &mut dyn Platform,
    irql: u8,
    list: Gva,
    entries: u64,
    result: Gva,
) -> Flow {
    const NAME: &str = "MmAllocateMdlForIoSpace";
    const ENTRY: u64 = 16;
    check_irql(&rule::PAGE_IRQL, NAME, irql, &[])?;
    let mut frames = Vec::new();
    let mut at = list;
    // Each entry has a page at least: the limit of an MDL ends the loop.
    for index in 0..entries {
        let address = Gpa(platform.read_u64(at)?);
        let bytes = platform.read_u64(field(at, 8)?)?;
        let total = bytes.saturating_add(frames.len() as u64 * PAGE_SIZE);
        let aligned = address.0.is_multiple_of(PAGE_SIZE) && bytes.is_multiple_of(PAGE_SIZE);
        let within = bytes != 0 && total <= layout::MAX_BYTES;
        let device = aligned && within && is_device_memory(platform, address, bytes);
        if !device {
            let what = format!("{NAME}: entry {index}, {bytes:#x} bytes at {address}");
            return Ok(rule::IO_SPACE_LIST.refuse(what));
        }
        frames.extend((0..bytes / PAGE_SIZE).map(|page| Pfn(address.page() + page)));
        at = field(at, ENTRY)?;
    }
    if frames.is_empty() {
        return Ok(rule::IO_SPACE_LIST.refuse(format_args!("{NAME}: an empty list")));
    }
    let bytes = frames.len() as u64 * PAGE_SIZE;
    let mdl = match engine::create(state, platform, 0, bytes) {
        Ok(mdl) => mdl,
        Err(failure) => {
            return Ok(null(
                NAME,
                &failure,
                &rule::IO_SPACE_LIST,
                &rule::IO_SPACE_NONE,
            ));
        }
    };
    engine::write_slots(platform, mdl, frames.into_iter())?;
    let mut made = Mdl::read(platform, mdl).map_err(|error| bad_mdl(state, error))?;
    made.write_flags(platform, layout::IO_SPACE | layout::PAGES_LOCKED)?;
    platform.write_u64(result, mdl.0)?;
    Ok(u64::from(status::SUCCESS))
}

/// Is none of it RAM? The ends tell of a range that RAM does not lie inside
/// of; each page is looked at, as a list may be forged.
fn is_device_memory(platform: &dyn Platform, address: Gpa, bytes: u64) -> bool {
    let ram = |page: u64| {
        let at = Gpa(address.0 + page * PAGE_SIZE);
        platform.memory().contains(at, PAGE_SIZE)
    };
    address.checked_add(bytes).is_some() && !(0..bytes / PAGE_SIZE).any(ram)
}

/// `NTSTATUS (PMDL, ULONG NewProtect)`: the protection of an MDL's own system
/// mapping.
pub(super) fn protect(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, protection, ..] = call.registers;
    finish(protect_mapping(
        state,
        platform,
        irql,
        Gva(mdl),
        protection as u32,
    ))
}

fn protect_mapping(
    state: &mut State,
    platform: &mut dyn Platform,
    irql: u8,
    at: Gva,
    wanted: u32,
) -> Flow {
    const NAME: &str = "MmProtectMdlSystemAddress";
    check_irql(&rule::PAGE_IRQL, NAME, irql, &[])?;
    let rights = |write, execute| Some(Protection { write, execute });
    let protection = match wanted {
        page::NO_ACCESS => None,
        page::READ_ONLY => rights(false, false),
        page::READ_WRITE => rights(true, false),
        page::EXECUTE | page::EXECUTE_READ => rights(false, true),
        page::EXECUTE_READ_WRITE => rights(true, true),
        _ => {
            let what = format!("{NAME} of the MDL at {at}: {wanted:#x}");
            return Ok(map_rule::PROTECTION.refuse(what));
        }
    };
    let mdl = Mdl::read(platform, at).map_err(|error| bad_mdl(state, error))?;
    let Some(base) = state.mappings.get(&at).map(|mapping| mapping.base) else {
        return Ok(map_rule::PROTECT_UNMAPPED.refuse(format_args!("{NAME} of the MDL at {at}")));
    };
    let frames = mdl
        .frames(platform)
        .map_err(|error| bad_mdl(state, error))?;
    let mapped = state.space.pages(base).unwrap_or_default();
    if let Some((slot, page)) = engine::first_unowned(state, &frames) {
        let slot = MdlError::slot_address(at, slot);
        let what = format!("{NAME}: a page of the MDL at {at} is nobody's");
        return Err(map_rule::PROTECT_PAGE
            .outcome(&[at.0, slot, page.0], what)
            .about(state.subject_at(at)));
    }
    for (index, frame) in (0..mapped).zip(frames) {
        let address = Gva(base.0 + index * PAGE_SIZE);
        match protection {
            Some(protection) => platform.map(address, frame, protection)?,
            None => platform.unmap(address),
        }
    }
    Ok(u64::from(status::SUCCESS))
}
