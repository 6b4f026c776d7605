//! Mapping, locking and building of MDLs.

use super::super::mdl::{self as engine, first_unowned};
use super::super::spec::{self, mdl as layout};
use super::super::{Mdl, MdlError, State, pool};
use super::{Flow, arguments, bad_mdl, check_irql, finish, null, violation};
use crate::call::{Call, Outcome};
use crate::platform::{Platform, PlatformError, Protection};
use crate::rules::{Rule, mm as rule};
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
        name: "MmMapLockedPagesSpecifyCache",
        irql: [&rule::MAP_IRQL, &rule::MAP_USER_IRQL],
        mdl: Gva(mdl),
        mode: mode as u8,
        bug_check: bug_check as u32 != 0,
        priority: priority as u32,
    };
    finish(map.run(state, platform, irql))
}

/// `PVOID (PMDL, Mode)`: the old routine, which stops Windows where there are
/// no system addresses.
pub(super) fn map_locked_pages_old(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, mode, ..] = call.registers;
    let map = Map {
        name: "MmMapLockedPages",
        irql: [&rule::MAP_OLD_IRQL, &rule::MAP_OLD_USER_IRQL],
        mdl: Gva(mdl),
        mode: mode as u8,
        bug_check: true,
        priority: 0,
    };
    finish(map.run(state, platform, irql))
}

struct Map {
    name: &'static str,
    /// For kernel mode and for user mode.
    irql: [&'static Rule; 2],
    mdl: Gva,
    mode: u8,
    bug_check: bool,
    priority: u32,
}

impl Map {
    fn run(&self, state: &mut State, platform: &mut dyn Platform, irql: u8) -> Flow {
        let (name, at) = (self.name, self.mdl);
        let [kernel, user] = self.irql;
        let parameters = [at.0, u64::from(self.mode)];
        if self.mode != KERNEL_MODE {
            check_irql(user, name, irql, &parameters)?;
            log::warn!("{name} for user mode is not supported and returns NULL");
            return Ok(rule::MAP_USER.refuse(name));
        }
        check_irql(kernel, name, irql, &parameters)?;
        let mut mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
        let mapped = mdl.flags & (layout::MAPPED_TO_SYSTEM_VA | layout::SOURCE_IS_NONPAGED_POOL);
        if mapped != 0 {
            return Err(violation(&rule::MAPPED_TWICE, name, &mdl, Some(mapped)));
        }
        let lockable = layout::PAGES_LOCKED | layout::PARTIAL;
        if mdl.flags & lockable == 0 {
            return Err(violation(
                &rule::MAPPED_UNLOCKED,
                name,
                &mdl,
                Some(lockable),
            ));
        }
        let frames = mdl.frames(platform).map_err(bad_mdl)?;
        if let Some((slot, frame)) = first_unowned(state, &frames) {
            let page = frame.0;
            return Err(rule::MAPPED_FREE_PAGE.outcome(
                &[page],
                format!("{name}: slot {slot} of MDL {at} is page {page:#x}, which nobody owns"),
            ));
        }
        let protection = if self.priority & spec::MDL_MAPPING_NO_WRITE != 0 {
            Protection::READ
        } else {
            Protection::WRITE
        };
        match engine::map(state, platform, &mut mdl, &frames, protection) {
            Ok(address) => Ok(address.0),
            Err(failure) if self.bug_check => Err(rule::NO_PTES.outcome(
                &[mdl.pages()],
                format!("{name} with BugCheckOnFailure: {failure}"),
            )),
            Err(failure) => Ok(null(name, &failure, &rule::MAP_NULL, &rule::MAP_NULL)),
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
    const NAME: &str = "MmUnmapLockedPages";
    check_irql(&rule::UNMAP_IRQL, NAME, irql, &[address.0, at.0])?;
    let mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
    let own = mdl.flags & layout::PARTIAL_HAS_BEEN_MAPPED != 0;
    if mdl.flags & layout::PARTIAL != 0 && !own {
        return Err(violation(
            &rule::UNMAP_PARTIAL,
            NAME,
            &mdl,
            Some(layout::PARTIAL),
        ));
    }
    if mdl.flags & layout::MAPPED_TO_SYSTEM_VA == 0 {
        let missing = layout::MAPPED_TO_SYSTEM_VA;
        return Err(violation(&rule::UNMAP_UNMAPPED, NAME, &mdl, Some(missing)));
    }
    let misuse = |rule: &Rule| {
        rule.outcome(
            &[at.0, address.0],
            format!("{NAME} of the MDL at {at}, address {address}"),
        )
    };
    let Some(mapping) = state.mappings.get(&at).copied() else {
        return Err(misuse(&rule::UNMAP_UNKNOWN));
    };
    if address != Gva(mapping.base.0 + u64::from(mdl.byte_offset)) {
        return Err(misuse(&rule::UNMAP_ADDRESS));
    }
    if mdl.start_va != mapping.start_va {
        return Err(misuse(&rule::UNMAP_START));
    }
    let first = platform.read_u64(Gva(MdlError::slot_address(at, 0)))?;
    if mapping.first != Some(Pfn(first)) {
        return Err(misuse(&rule::UNMAP_PAGE));
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
        check_irql(&rule::PAGE_IRQL, NAME, irql, &[])?;
        let length = u64::from(length as u32);
        Ok(match engine::create(state, platform, address, length) {
            Ok(mdl) => mdl.0,
            Err(failure) => null(NAME, &failure, &rule::MDL_SIZE, &rule::MDL_NONE),
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
        const NAME: &str = "IoFreeMdl";
        check_irql(&rule::PAGE_IRQL, NAME, irql, &[])?;
        let mdl = Mdl::read(platform, at);
        let flags = mdl.as_ref().map_or(0, |mdl| mdl.flags);
        if flags & layout::PARTIAL_HAS_BEEN_MAPPED != 0 {
            engine::drop_mapping(state, platform, at);
        } else if state.mappings.contains_key(&at) {
            let what = format!("{NAME}: MDL {at}, flags {flags:#06x}");
            return Err(rule::FREE_MAPPED.outcome(&[at.0, u64::from(flags)], what));
        }
        state.tell_pinned(platform, NAME, at, []);
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
        const NAME: &str = "MmProbeAndLockPages";
        check_irql(&rule::LOCK_IRQL, NAME, irql, &[at.0, mode & 0xff])?;
        let mut mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
        let wrong = mdl.flags
            & (layout::PAGES_LOCKED
                | layout::MAPPED_TO_SYSTEM_VA
                | layout::SOURCE_IS_NONPAGED_POOL
                | layout::PARTIAL);
        if wrong != 0 {
            return Err(violation(&rule::LOCK_IN_USE, NAME, &mdl, Some(wrong)));
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
        const NAME: &str = "MmUnlockPages";
        check_irql(&rule::UNLOCK_IRQL, NAME, irql, &[at.0])?;
        let mut mdl = Mdl::read(platform, at).map_err(bad_mdl)?;
        let flags = mdl.flags;
        if flags & layout::SOURCE_IS_NONPAGED_POOL != 0 {
            return Err(violation(&rule::UNLOCK_POOL, NAME, &mdl, None));
        }
        if flags & layout::PARTIAL != 0 {
            let partial = Some(layout::PARTIAL);
            return Err(violation(&rule::UNLOCK_PARTIAL, NAME, &mdl, partial));
        }
        if flags & layout::PAGES_LOCKED == 0 {
            return Err(violation(&rule::UNLOCK_UNLOCKED, NAME, &mdl, None));
        }
        let frames = mdl.frames(platform).map_err(bad_mdl)?;
        state.tell_pinned(platform, NAME, at, []);
        for &frame in &frames {
            let Some(count) = state.locks.get_mut(&frame) else {
                let what = format!("{NAME}: page {:#x} of MDL {at} is not locked", frame.0);
                return Err(rule::UNLOCK_PAGE.outcome(&[frame.0], what));
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
