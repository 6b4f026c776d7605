//! The rules of mapping MDLs, to system addresses and to user addresses.

use super::Irql::AtMost;
use super::Parameter::{Irql, Is, Of};
use super::{Rule, rules};
use crate::mm::spec::{APC_LEVEL, DISPATCH_LEVEL};
use crate::status;

const VERIFIER: &str = "bug check 0xC4, table of violations";
const PTE: &str = "bug check 0xDA; its parameters after the first are ours";
const NULL: &str = "the routine's page, return value";

const MAPS: &[&str] = &["MmMapLockedPagesSpecifyCache", "MmMapLockedPages"];
const NEW_MAP: &[&str] = &["MmMapLockedPagesSpecifyCache"];
const UNMAPS: &[&str] = &["MmUnmapLockedPages"];

rules! {
    MAP_OLD_IRQL "map-mdl-old-irql" = Rule::at(
        &["MmMapLockedPages"],
        AtMost(DISPATCH_LEVEL),
        "An MDL is mapped this way to system addresses at DISPATCH_LEVEL or below",
    )
    .stops(0xC4, [Is(0x74), Irql, Of("the MDL"), Of("the mode")])
    .documented(VERIFIER);
    MAP_OLD_USER_IRQL "map-mdl-old-user-irql" = Rule::at(
        &["MmMapLockedPages"],
        AtMost(APC_LEVEL),
        "An MDL is mapped this way to user addresses at APC_LEVEL or below",
    )
    .stops(0xC4, [Is(0x75), Irql, Of("the MDL"), Of("the mode")])
    .documented(VERIFIER);
    MAP_IRQL "map-mdl-irql" = Rule::at(
        NEW_MAP,
        AtMost(DISPATCH_LEVEL),
        "An MDL is mapped to system addresses at DISPATCH_LEVEL or below",
    )
    .stops(0xC4, [Is(0x76), Irql, Of("the MDL"), Of("the mode")])
    .documented(VERIFIER);
    MAP_USER_IRQL "map-mdl-user-irql" = Rule::at(
        NEW_MAP,
        AtMost(APC_LEVEL),
        "An MDL is mapped to user addresses at APC_LEVEL or below",
    )
    .stops(0xC4, [Is(0x77), Irql, Of("the MDL"), Of("the mode")])
    .documented(VERIFIER);
    UNMAP_IRQL "unmap-mdl-irql" = Rule::at(
        UNMAPS,
        AtMost(DISPATCH_LEVEL),
        "An MDL is unmapped at DISPATCH_LEVEL or below",
    )
    .stops(0xC4, [Is(0x79), Irql, Of("the address"), Of("the MDL")])
    .documented(VERIFIER);
    UNMAP_USER_IRQL "unmap-mdl-user-irql" = Rule::at(
        UNMAPS,
        AtMost(APC_LEVEL),
        "An MDL is unmapped from user addresses at APC_LEVEL or below",
    )
    .stops(0xC4, [Is(0x7A), Irql, Of("the address"), Of("the MDL")])
    .documented(VERIFIER);
    MAP_USER_RAISES "map-mdl-user-raises" = Rule::new(
        MAPS,
        "A mapping to user addresses that cannot be made, or only at another address than was \
         asked for, raises an exception",
    )
    // SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, STATUS_INSUFFICIENT_RESOURCES.
    .stops(0x7E, [Is(0xC000_009A), Is(0), Of("the MDL"), Is(0)])
    .inferred("the routine's page; a driver's handler is not run here, and no address can be \
               chosen");
    MAPPED_TWICE "mdl-mapped-twice" = Rule::new(
        MAPS,
        "An MDL has one system mapping at most",
    )
    .stops(0xC4, [Is(0xB2), Of("the MDL"), Of("its flags"), Of("the bad flags")])
    .documented(VERIFIER);
    MAPPED_UNLOCKED "mdl-mapped-unlocked" = Rule::new(
        MAPS,
        "Only an MDL whose pages are locked is mapped",
    )
    .stops(0xC4, [Is(0xB3), Of("the MDL"), Of("its flags"), Of("the missing flags")])
    .documented(VERIFIER);
    MAPPED_FREE_PAGE "mdl-mapped-free-page" = Rule::new(
        MAPS,
        "Only pages that somebody owns are mapped",
    )
    .finding("mdl-use-after-free")
    .stops(0x1A, [Is(0x1233), Of("the page"), Is(0), Is(0)])
    .documented("bug check 0x1A, 0x1233: mapping an unlocked page");
    NO_PTES "map-mdl-bug-check" = Rule::new(
        MAPS,
        "BugCheckOnFailure stops Windows where there are no system addresses",
    )
    // NO_MORE_SYSTEM_PTES.
    .stops(0x3F, [Is(0), Of("the pages"), Is(0), Is(0)])
    .inferred("bug check 0x3F");
    MAP_NULL "map-mdl-null" = Rule::new(
        NEW_MAP,
        "Without BugCheckOnFailure, NULL says that there are no system addresses",
    )
    .returns(0)
    .documented(NULL);
    // What Driver Verifier only advises, and nothing is done about
    MAP_OLD "map-mdl-old" = Rule::new(
        &["MmMapLockedPages"],
        "MmMapLockedPagesSpecifyCache is the routine to use",
    )
    .ours("bug check 0xC4, row 0x81; the old routine works, and a run shall go on");
    MAP_MAY_FAIL "map-mdl-may-fail" = Rule::new(
        NEW_MAP,
        "BugCheckOnFailure is FALSE",
    )
    .ours("bug check 0xC4, row 0x82; only a failure stops Windows here: map-mdl-bug-check");
    MAP_NO_EXECUTE "map-mdl-no-execute" = Rule::new(
        NEW_MAP,
        "An MDL is mapped with MdlMappingNoExecute",
    )
    .ours("bug check 0xC4, row 0x2002, a check of code integrity; no mapping of an MDL can be \
           executed here");
    UNMAP_PARTIAL "unmap-partial-mdl" = Rule::new(
        UNMAPS,
        "Only a mapping of its own is released from a partial MDL",
    )
    .stops(0xC4, [Is(0xB5), Of("the MDL"), Of("its flags"), Of("the flag")])
    .documented("bug check 0xC4, table of violations; MmPrepareMdlForReuse releases such a \
                 mapping this way");
    UNMAP_UNMAPPED "unmap-unmapped-mdl" = Rule::new(
        UNMAPS,
        "Only an MDL that is mapped is unmapped",
    )
    .stops(0xC4, [Is(0xB6), Of("the MDL"), Of("its flags"), Of("the missing flag")])
    .documented(VERIFIER);
    UNMAP_USER_ADDRESS "unmap-user-address" = Rule::new(
        UNMAPS,
        "An MDL is unmapped from the user address that it was mapped to",
    )
    .stops(0xC4, [Is(0xB9), Of("the address"), Of("the MDL"), Is(0)])
    .documented(VERIFIER);
    UNMAP_UNKNOWN "unmap-unknown-mdl" = Rule::new(
        UNMAPS,
        "Only the MDL itself that was mapped is unmapped, not a copy",
    )
    .stops(0xDA, [Is(0x06), Of("the MDL"), Of("the address"), Is(0)])
    .inferred(PTE);
    UNMAP_ADDRESS "unmap-wrong-address" = Rule::new(
        UNMAPS,
        "An MDL is unmapped from the address that it was mapped to",
    )
    .stops(0xDA, [Is(0x03), Of("the MDL"), Of("the address"), Is(0)])
    .inferred(PTE);
    UNMAP_START "unmap-changed-start" = Rule::new(
        UNMAPS,
        "StartVa of an MDL does not change while it is mapped",
    )
    .stops(0xDA, [Is(0x05), Of("the MDL"), Of("the address"), Is(0)])
    .inferred(PTE);
    UNMAP_PAGE "unmap-changed-page" = Rule::new(
        UNMAPS,
        "The first page of an MDL does not change while it is mapped",
    )
    .stops(0xDA, [Is(0x04), Of("the MDL"), Of("the address"), Is(0)])
    .inferred(PTE);
    PROTECTION "mdl-protection" = Rule::new(
        &["MmProtectMdlSystemAddress"],
        "NewProtect is one of PAGE_NOACCESS, READONLY, READWRITE, EXECUTE, EXECUTE_READ and \
         EXECUTE_READWRITE",
    )
    .returns(status::INVALID_PAGE_PROTECTION as u64)
    .documented("MmProtectMdlSystemAddress's page, return value");
    PROTECT_UNMAPPED "mdl-protect-unmapped" = Rule::new(
        &["MmProtectMdlSystemAddress"],
        "Only an MDL with a system mapping of its own is protected",
    )
    .returns(status::NOT_MAPPED_VIEW as u64)
    .documented("MmProtectMdlSystemAddress's page, return value");
    PROTECT_PAGE "mdl-protect-page" = Rule::new(
        &["MmProtectMdlSystemAddress"],
        "The pages of an MDL that is mapped are still its own",
    )
    .finding("mdl-use-after-free")
    .stops(0x1A, [Is(0x1235), Of("the MDL"), Of("address of the slot"), Of("the page")])
    .documented("bug check 0x1A, 0x1235: protecting an MDL with an invalid mapping");
}
