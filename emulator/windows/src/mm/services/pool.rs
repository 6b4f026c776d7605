//! `ExAllocatePool*`, `ExFreePool*`.

use super::super::frames::each_frame;
use super::super::pool::{self, Shape};
use super::super::spec::pool as layout;
use super::super::{AllocFailure, State};
use super::{Flow, check_irql, check_irql_of, finish, null};
use crate::call::{Call, Outcome};
use crate::platform::Platform;
use crate::rules::{Rule, pool as rule};
use memory::Gva;

/// The tag that `ExAllocatePool` gives.
const NO_TAG: u32 = u32::from_le_bytes(*b"None");

/// `PVOID (POOL_TYPE, SIZE_T)`.
pub(super) fn allocate_pool(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let mut tagged = *call;
    tagged.registers[2] = u64::from(NO_TAG);
    allocate_pool_with_tag(state, platform, &tagged, irql)
}

/// `PVOID (POOL_TYPE, SIZE_T, ULONG Tag)`.
pub(super) fn allocate_pool_with_tag(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    const NAME: &str = "ExAllocatePoolWithTag";
    let [kind, bytes, tag, _] = call.registers;
    let kind = kind as u32;
    let paged = kind & layout::TYPE_PAGED != 0;
    let mut flow = || -> Flow {
        check_irql(irql_rule(paged), NAME, irql, &[u64::from(kind), bytes])?;
        let shape = Shape {
            bytes,
            tag: tag as u32,
            alignment: alignment(kind & layout::TYPE_CACHE_ALIGNED != 0),
            zero: false,
            paged,
            // Paged pool is never executable on x64.
            execute: !paged && kind & layout::TYPE_NO_EXECUTE == 0,
        };
        Ok(or_null(NAME, pool::allocate(state, platform, shape)))
    };
    finish(flow())
}

/// `PVOID (POOL_FLAGS, SIZE_T, ULONG Tag)`: clears unless told not to, and
/// returns NULL for flags that make no sense.
pub(super) fn allocate_pool2(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    const NAME: &str = "ExAllocatePool2";
    let [flags, bytes, tag, _] = call.registers;
    let paged = flags & layout::PAGED != 0;
    let mut flow = || -> Flow {
        check_irql(irql_rule(paged), NAME, irql, &[flags, bytes])?;
        let kinds = layout::NON_PAGED | layout::NON_PAGED_EXECUTE | layout::PAGED;
        let unknown = flags & 0xffff_ffff & !layout::KNOWN != 0;
        if (flags & kinds).count_ones() != 1 || unknown || bytes == 0 || tag as u32 == 0 {
            let what = format_args!("{NAME} of {bytes} bytes, flags {flags:#x}");
            return Ok(rule::ARGUMENTS.refuse(what));
        }
        let shape = Shape {
            bytes,
            tag: tag as u32,
            alignment: alignment(flags & layout::CACHE_ALIGNED != 0),
            zero: flags & layout::UNINITIALIZED == 0,
            paged,
            execute: flags & layout::NON_PAGED_EXECUTE != 0,
        };
        Ok(or_null(NAME, pool::allocate(state, platform, shape)))
    };
    finish(flow())
}

/// `VOID (PVOID)`.
pub(super) fn free_pool(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [address, ..] = call.registers;
    finish(free(state, platform, irql, address, None))
}

/// `VOID (PVOID, ULONG Tag)`; a tag of 0 matches any.
pub(super) fn free_pool_with_tag(
    state: &mut State,
    platform: &mut dyn Platform,
    call: &Call,
    irql: u8,
) -> Outcome {
    let [address, tag, ..] = call.registers;
    let tag = Some(tag as u32).filter(|&tag| tag != 0);
    finish(free(state, platform, irql, address, tag))
}

fn free(
    state: &mut State,
    platform: &mut dyn Platform,
    irql: u8,
    address: u64,
    tag: Option<u32>,
) -> Flow {
    let name = if tag.is_some() {
        "ExFreePoolWithTag"
    } else {
        "ExFreePool"
    };
    let at = Gva(address);
    check_irql_of(state, &rule::FREE_IRQL, name, irql, &[address], at)?;
    if let Some(block) = state.pool_block(at).filter(|block| block.has_tag(tag)) {
        let pages = block.pages.clone();
        let subject = state.subject_at(at);
        let pinned = state.tell_pinned(platform, name, at, each_frame(&pages));
        if let Some((frame, count)) = state.first_locked(each_frame(&pages)).filter(|_| !pinned) {
            let page = frame.0;
            let what = format!("{name} of {at}: page {page:#x} is locked for I/O, {count} times");
            rule::FREED_LOCKED.report(platform, subject, None, what);
        }
        state.tell_user_mapped(platform, name, subject, each_frame(&pages));
        state.tell_other_free(platform, name, at);
    }
    pool::free(state, platform, at, tag).map_err(Outcome::Stop)?;
    Ok(0)
}

fn irql_rule(paged: bool) -> &'static Rule {
    if paged {
        &rule::PAGED_IRQL
    } else {
        &rule::ALLOCATE_IRQL
    }
}

fn alignment(cache: bool) -> u64 {
    if cache {
        layout::CACHE_ALIGNMENT
    } else {
        layout::ALIGNMENT
    }
}

fn or_null(name: &str, result: Result<Gva, AllocFailure>) -> u64 {
    match result {
        Ok(address) => address.0,
        Err(failure) => null(name, &failure, &rule::NONE, &rule::NONE),
    }
}
