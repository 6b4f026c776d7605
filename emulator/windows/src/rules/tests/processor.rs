//! What the driver's code does by itself, and pointers that lead nowhere.

use super::Case;
use super::world::{NOWHERE, World};
use crate::mm::testing::FIRST;
use crate::processor::{self, BadAccess};
use crate::{Outcome, Platform, PlatformError};
use memory::{Gva, PAGE_SIZE};

const RIP: Gva = Gva(0xffff_f800_1000_1234);
const READ: [bool; 2] = [false, false];
const WRITE: [bool; 2] = [true, false];
const FETCH: [bool; 2] = [false, true];

/// The driver's code accesses memory, as the processor and the machine have
/// it.
fn access(w: &mut World, address: u64, [write, fetch]: [bool; 2]) -> Outcome {
    let address = Gva(address);
    let page = w.machine.tables.get(&address.page()).copied();
    if let Some((_, protection)) = page
        && (!write || protection.write)
        && (!fetch || protection.execute)
    {
        return Outcome::Return(0);
    }
    let access = BadAccess {
        address,
        write,
        fetch,
        mapped: page.is_some(),
        rip: RIP,
        irql: w.windows.executive.irql(),
    };
    Outcome::Stop(w.windows.bad_access(&access))
}

fn freed_pool(w: &mut World) -> u64 {
    let block = w.pool();
    w.value("ExFreePool", &[block]);
    block
}

/// The address of an MDL that was unmapped.
fn unmapped(w: &mut World) -> u64 {
    let (mdl, address) = w.mapped();
    w.value("MmUnmapLockedPages", &[address, mdl]);
    address
}

/// The system address of an MDL of four pages that were asked for as eight.
fn partial(w: &mut World) -> u64 {
    let few = (FIRST + 4) * PAGE_SIZE - 1;
    let mdl = w.value("MmAllocatePagesForMdl", &[0, few, 0, 8 * PAGE_SIZE]);
    match w.map(mdl) {
        Outcome::Return(address) => address,
        other => panic!("{other:?}"),
    }
}

/// A dereference of Windows' own.
fn follow(w: &mut World, address: u64) -> Outcome {
    w.call("MmUnlockPages", &[address])
}

/// Windows reads a list of addresses.
fn list(w: &mut World, address: u64) -> Outcome {
    let result = w.space(8);
    w.call("MmAllocateMdlForIoSpace", &[address, 1, result])
}

fn gone() -> PlatformError {
    PlatformError::NotMapped(Gva(NOWHERE))
}

fn nothing(_: &mut World) -> Outcome {
    Outcome::Return(0)
}

pub const CASES: &[Case] = &[
    (
        "freed-pool-access",
        |w| {
            let block = freed_pool(w);
            access(w, block, READ)
        },
        |w| {
            freed_pool(w);
            let block = w.pool();
            access(w, block, READ)
        },
    ),
    (
        "unmapped-address-access",
        |w| {
            let address = unmapped(w);
            access(w, address, WRITE)
        },
        |w| {
            let (_, address) = w.mapped();
            access(w, address, WRITE)
        },
    ),
    (
        "gone-memory-at-dispatch",
        |w| {
            let address = unmapped(w);
            access(w.at_irql(2), address, READ)
        },
        |w| {
            let (_, address) = w.mapped();
            access(w.at_irql(2), address, READ)
        },
    ),
    (
        "past-partial-mdl",
        |w| {
            let address = partial(w);
            access(w, address + 4 * PAGE_SIZE, WRITE)
        },
        |w| {
            let address = partial(w);
            access(w, address + 4 * PAGE_SIZE - 1, WRITE)
        },
    ),
    (
        "past-partial-mdl-at-dispatch",
        |w| {
            let address = partial(w);
            access(w.at_irql(2), address + 8 * PAGE_SIZE - 1, READ)
        },
        |w| {
            let address = partial(w);
            access(w.at_irql(2), address, READ)
        },
    ),
    (
        "past-pool-block",
        |w| {
            let block = w.pool();
            access(w, block + PAGE_SIZE, WRITE)
        },
        |w| {
            let block = w.pool();
            access(w, block + PAGE_SIZE - 1, WRITE)
        },
    ),
    (
        "page-fault-irql",
        |w| access(w.at_irql(2), 0, READ),
        |w| {
            let at = w.space(8);
            access(w.at_irql(2), at, READ)
        },
    ),
    (
        "page-fault",
        |w| access(w, NOWHERE, READ),
        |w| {
            let at = w.space(8);
            access(w, at, READ)
        },
    ),
    (
        "write-to-read-only",
        |w| {
            let (mdl, address) = w.mapped();
            w.value("MmProtectMdlSystemAddress", &[mdl, 2]);
            access(w, address, WRITE)
        },
        |w| {
            let (mdl, address) = w.mapped();
            w.value("MmProtectMdlSystemAddress", &[mdl, 2]);
            access(w, address, READ)
        },
    ),
    (
        "execute-data",
        |w| {
            let (_, address) = w.mapped();
            access(w, address, FETCH)
        },
        |w| {
            let (mdl, address) = w.mapped();
            w.value("MmProtectMdlSystemAddress", &[mdl, 0x20]);
            access(w, address, FETCH)
        },
    ),
    (
        "access-violation",
        |w| access(w, 0x1000, READ),
        |w| {
            let (_, address) = w.user_mapped();
            access(w, address, READ)
        },
    ),
    (
        "exception",
        |_| Outcome::Stop(processor::exception(0xC000_0094, "a division by zero", RIP)),
        nothing,
    ),
    (
        "double-fault",
        |_| Outcome::Stop(processor::no_stack(8, "to call a routine")),
        nothing,
    ),
    (
        "fast-fail",
        |_| Outcome::Stop(processor::fast_fail(2)),
        nothing,
    ),
    (
        "irql-left",
        |_| Outcome::Stop(processor::irql_left("DxgkDdiStartDevice", 0, 2)),
        nothing,
    ),
    (
        "argument-in-freed-pool",
        |w| {
            let block = freed_pool(w);
            list(w, block)
        },
        |w| {
            let at = w.io_list(PAGE_SIZE);
            list(w, at)
        },
    ),
    (
        "argument-unmapped",
        |w| {
            let address = unmapped(w);
            follow(w, address)
        },
        |w| {
            let mdl = w.locked();
            follow(w, mdl)
        },
    ),
    (
        "argument-past-partial-mdl",
        |w| {
            let address = partial(w);
            list(w, address + 4 * PAGE_SIZE)
        },
        |w| {
            let address = partial(w);
            w.put(address, 0xc000_0000);
            w.put(address + 8, PAGE_SIZE);
            list(w, address)
        },
    ),
    (
        "timer-or-dpc-freed",
        |w| Outcome::Stop(w.windows.object_freed("KTIMER", "set", &gone())),
        nothing,
    ),
    (
        "left-behind",
        |_| Outcome::Stop(processor::left_behind(RIP, "a system thread")),
        nothing,
    ),
];

#[test]
fn a_stop_for_gone_memory_is_about_its_allocation() {
    let mut w = World::new();
    let block = w.pool();
    let id = w.windows.mm.pool_block(Gva(block)).unwrap().id;
    w.value("ExFreePool", &[block]);
    for outcome in [access(&mut w, block + 8, READ), list(&mut w, block)] {
        let Outcome::Stop(stop) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(stop.subject.allocation, Some(id));
        assert_eq!(stop.subject.address, block);
    }
    assert_eq!(w.machine.translate(Gva(block)), None);
}
