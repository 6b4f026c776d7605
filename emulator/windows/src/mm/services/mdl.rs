//! Mapping, locking and building of MDLs.

use super::super::mdl::{self as engine, first_unowned};
use super::super::spec::{self, mdl as layout};
use super::super::{Absent, Mdl, MdlError, State, pool, user};
use super::{Flow, arguments, bad_mdl, check_irql, check_irql_of, finish, null, violation};
use crate::call::{Call, Outcome};
use crate::platform::{Platform, PlatformError, Protection};
use crate::rules::{Rule, mapping as map_rule, mm as rule};
use journal::event::Subject;
use memory::{Gva, PAGE_SIZE, Pfn};

const KERNEL_MODE: u8 = 0;
/// The highest user address (`MmHighestUserAddress`).
const LAST_USER: u64 = 0x0000_7fff_fffe_ffff;

/// `PVOID (PMDL, Mode, CacheType, RequestedAddress, BugCheckOnFailure,
/// Priority)`.
pub(super) fn map_locked_pages(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, mode, _cache, requested, bug_check, priority] = match arguments(platform, call) {
        Ok(values) => values,
        Err(error) => return error.into(),
    };
    let map = Map {
        name: "MmMapLockedPagesSpecifyCache",
        irql: [&map_rule::MAP_IRQL, &map_rule::MAP_USER_IRQL],
        mdl: Gva(mdl),
        mode: mode as u8,
        requested,
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
        irql: [&map_rule::MAP_OLD_IRQL, &map_rule::MAP_OLD_USER_IRQL],
        mdl: Gva(mdl),
        mode: mode as u8,
        requested: 0,
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
    /// RequestedAddress, for user mode.
    requested: u64,
    bug_check: bool,
    priority: u32,
}

impl Map {
    fn run(&self, state: &mut State, platform: &mut dyn Platform, irql: u8) -> Flow {
        let (name, at) = (self.name, self.mdl);
        let [kernel, user] = self.irql;
        let parameters = [at.0, u64::from(self.mode)];
        let to_user = self.mode != KERNEL_MODE;
        let rule = if to_user { user } else { kernel };
        check_irql_of(state, rule, name, irql, &parameters, at)?;
        let mut mdl = Mdl::read(platform, at).map_err(|error| bad_mdl(state, error))?;
        let mapped = mdl.flags & (layout::MAPPED_TO_SYSTEM_VA | layout::SOURCE_IS_NONPAGED_POOL);
        if mapped != 0 && !to_user {
            return Err(violation(
                state,
                &map_rule::MAPPED_TWICE,
                name,
                &mdl,
                Some(mapped),
            ));
        }
        // An MDL for nonpaged pool can be mapped for user mode as it is.
        let mut lockable = layout::PAGES_LOCKED | layout::PARTIAL;
        if to_user {
            lockable |= layout::SOURCE_IS_NONPAGED_POOL;
        }
        if mdl.flags & lockable == 0 {
            return Err(violation(
                state,
                &map_rule::MAPPED_UNLOCKED,
                name,
                &mdl,
                Some(lockable),
            ));
        }
        let frames = mdl
            .frames(platform)
            .map_err(|error| bad_mdl(state, error))?;
        if let Some((slot, frame)) = first_unowned(state, &frames) {
            let page = frame.0;
            let what =
                format!("{name}: slot {slot} of MDL {at} is page {page:#x}, which nobody owns");
            return Err(map_rule::MAPPED_FREE_PAGE
                .outcome(&[page], what)
                .about(state.subject_at(at)));
        }
        let protection = if self.priority & spec::MDL_MAPPING_NO_WRITE != 0 {
            Protection::READ
        } else {
            Protection::WRITE
        };
        if to_user {
            return self.map_for_user(state, platform, &mdl, &frames, protection);
        }
        match engine::map(state, platform, &mut mdl, &frames, protection) {
            Ok(address) => Ok(address.0),
            Err(failure) if self.bug_check => Err(map_rule::NO_PTES.outcome(
                &[mdl.pages()],
                format!("{name} with BugCheckOnFailure: {failure}"),
            )),
            Err(failure) => Ok(null(
                name,
                &failure,
                &map_rule::MAP_NULL,
                &map_rule::MAP_NULL,
            )),
        }
    }

    fn map_for_user(
        &self,
        state: &mut State,
        platform: &mut dyn Platform,
        mdl: &Mdl,
        frames: &[Pfn],
        protection: Protection,
    ) -> Flow {
        let raises = |why: String| {
            let what = format!(
                "{} of the MDL at {} for user mode: {why}",
                self.name, self.mdl
            );
            map_rule::MAP_USER_RAISES.outcome(&[self.mdl.0], what)
        };
        if self.requested != 0 {
            return Err(raises(format!(
                "the address {:#x} was asked for, and none can be chosen here",
                self.requested
            )));
        }
        let mapped = user::map(state, platform, mdl, frames, protection);
        mapped.map_or_else(|error| Err(raises(error.to_string())), |at| Ok(at.0))
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
    let to_user = address.0 <= LAST_USER;
    let rule = match to_user {
        true => &map_rule::UNMAP_USER_IRQL,
        false => &map_rule::UNMAP_IRQL,
    };
    check_irql_of(state, rule, NAME, irql, &[address.0, at.0], at)?;
    if to_user {
        // The MDL itself may be gone: the mapping has been noted.
        if state.unmap_user(platform, address, at) {
            return Ok(0);
        }
        let what = format!("{NAME} of the MDL at {at}, user address {address}");
        return Err(map_rule::UNMAP_USER_ADDRESS
            .outcome(&[address.0, at.0], what)
            .about(state.subject_at(at)));
    }
    let mdl = Mdl::read(platform, at).map_err(|error| bad_mdl(state, error))?;
    let own = mdl.flags & layout::PARTIAL_HAS_BEEN_MAPPED != 0;
    if mdl.flags & layout::PARTIAL != 0 && !own {
        return Err(violation(
            state,
            &map_rule::UNMAP_PARTIAL,
            NAME,
            &mdl,
            Some(layout::PARTIAL),
        ));
    }
    if mdl.flags & layout::MAPPED_TO_SYSTEM_VA == 0 {
        let missing = layout::MAPPED_TO_SYSTEM_VA;
        return Err(violation(
            state,
            &map_rule::UNMAP_UNMAPPED,
            NAME,
            &mdl,
            Some(missing),
        ));
    }
    let subject = state.subject_at(at);
    let misuse = |rule: &Rule| {
        let what = format!("{NAME} of the MDL at {at}, address {address}");
        rule.outcome(&[at.0, address.0], what).about(subject)
    };
    let Some(mapping) = state.mappings.get(&at).copied() else {
        return Err(misuse(&map_rule::UNMAP_UNKNOWN));
    };
    let start = mapping.base.0 + mapping.passed * PAGE_SIZE;
    if address != Gva(start + u64::from(mdl.byte_offset)) {
        return Err(misuse(&map_rule::UNMAP_ADDRESS));
    }
    if mdl.start_va != mapping.start_va {
        return Err(misuse(&map_rule::UNMAP_START));
    }
    let first = platform.read_u64(Gva(MdlError::slot_address(at, 0)))?;
    if mapping.first != Some(Pfn(first)) {
        return Err(misuse(&map_rule::UNMAP_PAGE));
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
        check_irql_of(state, &rule::PAGE_IRQL, NAME, irql, &[], at)?;
        let mdl = Mdl::read(platform, at);
        let flags = mdl.as_ref().map_or(0, |mdl| mdl.flags);
        if flags & layout::PARTIAL_HAS_BEEN_MAPPED != 0 {
            engine::drop_mapping(state, platform, at);
        } else if state.mappings.contains_key(&at) || state.is_user_mapped(at) {
            let what = format!("{NAME}: MDL {at}, flags {flags:#06x}");
            return Err(rule::FREE_MAPPED
                .outcome(&[at.0, u64::from(flags)], what)
                .about(state.subject_at(at)));
        }
        state.tell_pinned(platform, NAME, at, []);
        state.tell_other_free(platform, NAME, at);
        // A freed or foreign MDL is pool's to complain about.
        pool::free(state, platform, at, None).map_err(Outcome::Stop)?;
        Ok(0)
    };
    finish(flow())
}

/// `VOID (PMDL)`.
pub(super) fn build_for_nonpaged_pool(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [mdl, ..] = call.registers;
    let mut flow = || -> Flow {
        let mut mdl = Mdl::read(platform, Gva(mdl)).map_err(|error| bad_mdl(state, error))?;
        const NAME: &str = "MmBuildMdlForNonPagedPool";
        let at = mdl.address;
        let paged =
            state.pool_block_around(Gva(mdl.start_va.wrapping_add(u64::from(mdl.byte_offset))));
        if let Some((start, block)) = paged.filter(|(_, block)| block.paged) {
            let values = [u64::from(irql), at.0, u64::from(mdl.flags)];
            let what = format!("{NAME} of the MDL at {at}, for the paged block at {start}");
            let subject = Subject {
                allocation: Some(block.id),
                address: start.0,
            };
            return Err(rule::BUILD_PAGED.outcome(&values, what).about(subject));
        }
        let frames = match resident(platform, &mdl) {
            Ok(frames) => frames,
            Err(PlatformError::NotMapped(missing)) => {
                let what = format!("{NAME} of the MDL at {at}: {missing} is not mapped");
                return Err(rule::BUILD_ABSENT
                    .outcome(&[at.0, missing.0], what)
                    .about(state.subject_at(missing)));
            }
            Err(error) => return Err(error.into()),
        };
        let before = state.before_rewrite(platform, at);
        engine::write_slots(platform, at, frames.into_iter())?;
        let va = mdl.start_va.wrapping_add(u64::from(mdl.byte_offset));
        mdl.write_mapped_va(platform, va)?;
        let flags = mdl.flags | layout::SOURCE_IS_NONPAGED_POOL;
        mdl.write_flags(platform, flags)?;
        state.tell_rewritten(platform, NAME, at, before);
        Ok(0)
    };
    finish(flow())
}

/// `VOID (PMDL, KPROCESSOR_MODE, LOCK_OPERATION)`. All memory of a driver
/// here is resident; an address that is not there raises an exception, which
/// no driver catches here.
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
        check_irql_of(
            state,
            &rule::LOCK_IRQL,
            NAME,
            irql,
            &[at.0, mode & 0xff],
            at,
        )?;
        let mut mdl = Mdl::read(platform, at).map_err(|error| bad_mdl(state, error))?;
        let wrong = mdl.flags
            & (layout::PAGES_LOCKED
                | layout::MAPPED_TO_SYSTEM_VA
                | layout::SOURCE_IS_NONPAGED_POOL
                | layout::PARTIAL);
        if wrong != 0 {
            return Err(violation(
                state,
                &rule::LOCK_IN_USE,
                NAME,
                &mdl,
                Some(wrong),
            ));
        }
        let frames = match resident(platform, &mdl) {
            Ok(frames) => frames,
            Err(PlatformError::NotMapped(missing)) => return Err(unlockable(state, at, missing)),
            Err(error) => return Err(error.into()),
        };
        let ram = |frame: &Pfn| platform.memory().contains(frame.base(), PAGE_SIZE);
        if let Some(page) = frames.iter().find(|&frame| !ram(frame)) {
            let what = format!("{NAME} of the MDL at {at}: page {:#x} is no RAM", page.0);
            let highest = state.frames.end().saturating_sub(1);
            return Err(rule::LOCK_NO_RAM.outcome(&[at.0, page.0, highest], what));
        }
        let before = state.before_rewrite(platform, at);
        engine::write_slots(platform, at, frames.iter().copied())?;
        for frame in frames {
            *state.locks.entry(frame).or_default() += 1;
        }
        let mut flags = mdl.flags | layout::PAGES_LOCKED;
        if operation as u32 != 0 {
            flags |= layout::WRITE_OPERATION;
        }
        mdl.write_flags(platform, flags)?;
        state.tell_rewritten(platform, NAME, at, before);
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
        check_irql_of(state, &rule::UNLOCK_IRQL, NAME, irql, &[at.0], at)?;
        let mut mdl = Mdl::read(platform, at).map_err(|error| bad_mdl(state, error))?;
        let flags = mdl.flags;
        if flags & layout::SOURCE_IS_NONPAGED_POOL != 0 {
            return Err(violation(state, &rule::UNLOCK_POOL, NAME, &mdl, None));
        }
        if flags & layout::PARTIAL != 0 {
            let partial = Some(layout::PARTIAL);
            return Err(violation(state, &rule::UNLOCK_PARTIAL, NAME, &mdl, partial));
        }
        if flags & layout::PAGES_LOCKED == 0 {
            return Err(violation(state, &rule::UNLOCK_UNLOCKED, NAME, &mdl, None));
        }
        let frames = mdl
            .frames(platform)
            .map_err(|error| bad_mdl(state, error))?;
        state.tell_pinned(platform, NAME, at, []);
        for &frame in &frames {
            if !engine::unlock(state, frame) {
                let what = format!("{NAME}: page {:#x} of MDL {at} is not locked", frame.0);
                return Err(rule::UNLOCK_PAGE
                    .outcome(&[frame.0], what)
                    .about(state.subject_at(at)));
            }
        }
        engine::drop_mapping(state, platform, at);
        let held = layout::PAGES_LOCKED | layout::WRITE_OPERATION | layout::MAPPED_TO_SYSTEM_VA;
        mdl.write_flags(platform, flags & !held)?;
        Ok(0)
    };
    finish(flow())
}

/// What MmProbeAndLockPages raises where memory is not there: rule
/// `lock-freed-memory` if it was freed.
fn unlockable(state: &State, mdl: Gva, missing: Gva) -> Outcome {
    let what = format!("MmProbeAndLockPages of the MDL at {mdl}, {missing} is not mapped");
    match state.absent(missing) {
        Some(Absent::Gone(gone)) => rule::LOCK_FREED
            .outcome(&[mdl.0], format!("{what}: it lay in {}", gone.describe()))
            .about(gone.subject()),
        _ => rule::LOCK_RAISES.outcome(&[mdl.0], what),
    }
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
