//! Mapping, locking and building of MDLs.

use super::super::mdl::{self as engine, first_unowned};
use super::super::rules::irql as check_irql;
use super::super::spec::{self, mdl as layout};
use super::super::{Mdl, MdlError, State, pool};
use super::{Flow, arguments, bad_mdl, finish, mdl_violation, null, stop};
use crate::call::{Call, Outcome};
use crate::platform::{Platform, PlatformError, Protection};
use journal::event::Certainty;
use memory::{Gva, PAGE_SIZE, Pfn};

const KERNEL_MODE: u8 = 0;

/// `PVOID (PMDL, Mode, CacheType, RequestedAddress, BugCheckOnFailure,
/// Priority)`. There are no user mappings here: they fail.
pub(super) fn map_locked_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, mode, _cache, _requested, bug_check, priority] = match arguments(platform, call) {
        Ok(values) => values,
        Err(error) => return error.into(),
    };
    let map = Map {
        mdl: Gva(mdl),
        mode: mode as u8,
        bug_check: bug_check as u32 != 0,
        priority: priority as u32,
    };
    finish(map.run(state, platform, irql))
}

struct Map {
    mdl: Gva,
    mode: u8,
    bug_check: bool,
    priority: u32,
}

impl Map {
    fn run(&self, state: &mut State, platform: &mut dyn Platform, irql: u8) -> Flow {
        const NAME: &str = "MmMapLockedPagesSpecifyCache";
        let at = self.mdl;
        let parameters = [u64::from(irql), at.0, u64::from(self.mode)];
        check_irql(NAME, irql, parameters)?;
        if self.mode != KERNEL_MODE {
            check_irql("user mapping of an MDL", irql, parameters)?;
            log::warn!("{NAME} for user mode is not supported and returns NULL");
            return Ok(0);
        }
        let mut mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
        let mapped = mdl.flags & (layout::MAPPED_TO_SYSTEM_VA | layout::SOURCE_IS_NONPAGED_POOL);
        if mapped != 0 {
            let what = "MmMapLockedPagesSpecifyCache of an MDL that has a system address";
            return Err(mdl_violation(0xb2, at, mdl.flags, u64::from(mapped), what));
        }
        let lockable = layout::PAGES_LOCKED | layout::PARTIAL;
        if mdl.flags & lockable == 0 {
            let missing = u64::from(lockable);
            let what = "MmMapLockedPagesSpecifyCache of an MDL whose pages are not locked";
            return Err(mdl_violation(0xb3, at, mdl.flags, missing, what));
        }
        let frames = mdl.frames(platform).map_err(bad_mdl)?;
        if let Some((slot, frame)) = first_unowned(state, &frames) {
            return Err(stop(
                (0x1a, Certainty::Documented),
                [0x1233, frame.0, 0, 0],
                format!(
                    "MmMapLockedPagesSpecifyCache: slot {slot} of MDL {at} is page {:#x}, \
                     which nobody owns (bug check 0x1A, 0x1233: mapping an unlocked page)",
                    frame.0
                ),
            ));
        }
        let protection = if self.priority & spec::MDL_MAPPING_NO_WRITE != 0 {
            Protection::READ
        } else {
            Protection::WRITE
        };
        match engine::map(state, platform, &mut mdl, &frames, protection) {
            Ok(address) => Ok(address.0),
            Err(failure) if self.bug_check => Err(stop(
                // NO_MORE_SYSTEM_PTES.
                (0x3f, Certainty::Inferred),
                [0, mdl.pages(), 0, 0],
                format!("{NAME} with BugCheckOnFailure: {failure}"),
            )),
            Err(failure) => Ok(null(NAME, &failure)),
        }
    }
}

/// `VOID (PVOID, PMDL)`.
pub(super) fn unmap_locked_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [address, mdl, ..] = call.registers;
    finish(unmap(state, platform, irql, Gva(address), Gva(mdl)))
}

fn unmap(state: &mut State, platform: &mut dyn Platform, irql: u8, address: Gva, at: Gva) -> Flow {
    let parameters = [u64::from(irql), address.0, at.0];
    check_irql("MmUnmapLockedPages", irql, parameters)?;
    let mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
    if mdl.flags & layout::PARTIAL != 0 {
        let what = "MmUnmapLockedPages of a partial MDL";
        let partial = u64::from(layout::PARTIAL);
        return Err(mdl_violation(0xb5, at, mdl.flags, partial, what));
    }
    if mdl.flags & layout::MAPPED_TO_SYSTEM_VA == 0 {
        let what = "MmUnmapLockedPages of an MDL that is not mapped";
        let missing = u64::from(layout::MAPPED_TO_SYSTEM_VA);
        return Err(mdl_violation(0xb6, at, mdl.flags, missing, what));
    }
    // SYSTEM_PTE_MISUSE; its parameters after the first are ours.
    let misuse = |kind: u64, what: &str| {
        stop(
            (0xda, Certainty::Inferred),
            [kind, at.0, address.0, 0],
            format!("MmUnmapLockedPages({address}, MDL {at}): {what} (bug check 0xDA)"),
        )
    };
    let Some(mapping) = state.mappings.get(&at).copied() else {
        return Err(misuse(0x06, "Windows has no mapping for this MDL"));
    };
    if address != Gva(mapping.base.0 + u64::from(mdl.byte_offset)) {
        return Err(misuse(0x03, "it is mapped to another address"));
    }
    if mdl.start_va != mapping.start_va {
        return Err(misuse(0x05, "StartVa has changed since"));
    }
    let first = platform.read_u64(Gva(MdlError::slot_address(at, 0)))?;
    if mapping.first != Some(Pfn(first)) {
        return Err(misuse(0x04, "its first page has changed since"));
    }
    engine::drop_mapping(state, platform, at);
    Ok(0)
}

/// `PMDL (PVOID, ULONG Length, BOOLEAN, BOOLEAN, PIRP)`. There are no IRPs
/// with buffers here, so the last three are not looked at.
pub(super) fn allocate_mdl(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    const NAME: &str = "IoAllocateMdl";
    let [address, length, ..] = call.registers;
    let mut flow = || -> Flow {
        check_irql(NAME, irql, [u64::from(irql), 0, 0])?;
        let length = u64::from(length as u32);
        Ok(match engine::create(state, platform, address, length) {
            Ok(mdl) => mdl.0,
            Err(failure) => null(NAME, &failure),
        })
    };
    finish(flow())
}

/// `VOID (PMDL)`: the structure only.
pub(super) fn free_mdl(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, ..] = call.registers;
    let at = Gva(mdl);
    let mut flow = || -> Flow {
        check_irql("IoFreeMdl", irql, [u64::from(irql), 0, 0])?;
        let mdl = Mdl::read(platform, at);
        let flags = mdl.as_ref().map_or(0, |mdl| mdl.flags);
        if flags & layout::PARTIAL_HAS_BEEN_MAPPED != 0 {
            engine::drop_mapping(state, platform, at);
        } else if state.mappings.contains_key(&at) {
            let what = "IoFreeMdl of an MDL that is still mapped";
            return Err(mdl_violation(0xb8, at, flags, 0, what));
        }
        // A freed or foreign MDL is pool's to complain about.
        pool::free(state, platform, at, None).map_err(Outcome::Stop)?;
        Ok(0)
    };
    finish(flow())
}

/// `VOID (PMDL)`.
pub(super) fn build_for_nonpaged_pool(
    _: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    _: u8,
) -> Outcome {
    let [mdl, ..] = call.registers;
    let mut flow = || -> Flow {
        let mut mdl = Mdl::read(platform, Gva(mdl)).map_err(bad_mdl)?;
        let frames = resident(platform, &mdl)?;
        engine::write_slots(platform, mdl.address, frames.into_iter())?;
        let va = mdl.start_va.wrapping_add(u64::from(mdl.byte_offset));
        mdl.write_mapped_va(platform, va)?;
        let flags = mdl.flags | layout::SOURCE_IS_NONPAGED_POOL;
        mdl.write_flags(platform, flags)?;
        Ok(0)
    };
    finish(flow())
}

/// `VOID (PMDL, KPROCESSOR_MODE, LOCK_OPERATION)`. All memory of a driver
/// here is resident; an address that is not there stops Windows, where a
/// user's would raise an exception.
pub(super) fn probe_and_lock(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, mode, operation, _] = call.registers;
    let at = Gva(mdl);
    let mut flow = || -> Flow {
        let parameters = [u64::from(irql), at.0, mode & 0xff];
        check_irql("MmProbeAndLockPages", irql, parameters)?;
        let mut mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
        let wrong = mdl.flags
            & (layout::PAGES_LOCKED
                | layout::MAPPED_TO_SYSTEM_VA
                | layout::SOURCE_IS_NONPAGED_POOL
                | layout::PARTIAL);
        if wrong != 0 {
            let what = "MmProbeAndLockPages of an MDL in use";
            return Err(mdl_violation(0xb0, at, mdl.flags, u64::from(wrong), what));
        }
        let frames = resident(platform, &mdl)?;
        engine::write_slots(platform, at, frames.iter().copied())?;
        for frame in frames {
            *state.locks.entry(frame).or_default() += 1;
        }
        let mut flags = mdl.flags | layout::PAGES_LOCKED;
        if operation as u32 != 0 {
            flags |= layout::WRITE_OPERATION;
        }
        mdl.write_flags(platform, flags)?;
        Ok(0)
    };
    finish(flow())
}

/// `VOID (PMDL)`: releases the system mapping too.
pub(super) fn unlock(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, ..] = call.registers;
    let at = Gva(mdl);
    let mut flow = || -> Flow {
        check_irql("MmUnlockPages", irql, [u64::from(irql), at.0, 0])?;
        let mut mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
        let flags = mdl.flags;
        if flags & layout::SOURCE_IS_NONPAGED_POOL != 0 {
            let what = "MmUnlockPages of an MDL for nonpaged pool";
            return Err(mdl_violation(0x7d, at, flags, 0, what));
        }
        if flags & layout::PARTIAL != 0 {
            let what = "MmUnlockPages of a partial MDL";
            let partial = u64::from(layout::PARTIAL);
            return Err(mdl_violation(0xb4, at, flags, partial, what));
        }
        if flags & layout::PAGES_LOCKED == 0 {
            let what = "MmUnlockPages of an MDL that is not locked";
            return Err(mdl_violation(0x7c, at, flags, 0, what));
        }
        let frames = mdl.frames(platform).map_err(bad_mdl)?;
        for &frame in &frames {
            let Some(count) = state.locks.get_mut(&frame) else {
                return Err(stop(
                    (0x4e, Certainty::Documented),
                    [0x07, frame.0, 0, 0],
                    format!(
                        "MmUnlockPages: page {:#x} of MDL {at} is not locked (bug check 0x4E)",
                        frame.0
                    ),
                ));
            };
            *count -= 1;
            if *count == 0 {
                state.locks.remove(&frame);
            }
        }
        engine::drop_mapping(state, platform, at);
        let held = layout::PAGES_LOCKED | layout::WRITE_OPERATION | layout::MAPPED_TO_SYSTEM_VA;
        mdl.write_flags(platform, flags & !held)?;
        Ok(0)
    };
    finish(flow())
}

/// The frames of the memory that an MDL's addresses name.
fn resident(platform: &dyn Platform, mdl: &Mdl) -> Result<Vec<Pfn>, PlatformError> {
    // No capacity ahead: ByteCount may be forged.
    let mut frames = Vec::new();
    for index in 0..mdl.pages() {
        let at = Gva(mdl.start_va.wrapping_add(index * PAGE_SIZE));
        let gpa = platform.translate(at).ok_or(PlatformError::NotMapped(at))?;
        frames.push(Pfn::from(gpa));
    }
    Ok(frames)
}
