//! The rules of page allocations and of MDLs; how these are mapped is in
//! [`super::mapping`].

use super::Irql::AtMost;
use super::Parameter::{Irql, Is, Of};
use super::{Rule, rules};
use crate::mm::spec::DISPATCH_LEVEL;
use crate::status;

const VERIFIER: &str = "bug check 0xC4, table of violations";
const MEMORY: &str = "bug check 0x1A, 0x1236: the MDL contains an unlocked or invalid page; \
                      which pages these are is inferred";
const NULL: &str = "the routine's page, return value";

const ALLOCATES_EX: &[&str] = &[
    "MmAllocatePagesForMdlEx",
    "MmAllocateNodePagesForMdlEx",
    "MmAllocatePartitionNodePagesForMdlEx",
];
const ALLOCATES: &[&str] = &[
    "MmAllocatePagesForMdl",
    "MmAllocatePagesForMdlEx",
    "MmAllocateNodePagesForMdlEx",
    "MmAllocatePartitionNodePagesForMdlEx",
];
const FREES: &[&str] = &["MmFreePagesFromMdl", "MmFreePagesFromMdlEx"];
const FREES_PAGES: &[&str] = &[
    "MmFreePagesFromMdl",
    "MmFreePagesFromMdlEx",
    "MmFreeContiguousMemory",
    "MmFreeContiguousMemorySpecifyCache",
];
const LOCKS: &[&str] = &["MmProbeAndLockPages"];
const UNLOCKS: &[&str] = &["MmUnlockPages"];
const READS_MDL: &[&str] = &[
    "MmFreePagesFromMdl",
    "MmFreePagesFromMdlEx",
    "MmMapLockedPagesSpecifyCache",
    "MmMapLockedPages",
    "MmUnmapLockedPages",
    "IoBuildPartialMdl",
    "MmProtectMdlSystemAddress",
    "MmBuildMdlForNonPagedPool",
    "MmProbeAndLockPages",
    "MmUnlockPages",
    "MmAdvanceMdl",
];

rules! {
    PAGES_IRQL "pages-irql" = Rule::at(
        &[
            "MmAllocatePagesForMdl",
            "MmAllocatePagesForMdlEx",
            "MmFreePagesFromMdl",
        ],
        AtMost(DISPATCH_LEVEL),
        "Pages for an MDL are allocated and freed at DISPATCH_LEVEL or below",
    )
    .stops(0xC4, [Is(0x7E), Irql, Is(DISPATCH_LEVEL as u64), Is(0)])
    .documented("bug check 0xC4, row 0x7E; see pages-apc-level");
    NODE_PAGES_IRQL "node-pages-irql" = Rule::at(
        &[
            "MmAllocateNodePagesForMdlEx",
            "MmAllocatePartitionNodePagesForMdlEx",
            "MmFreePagesFromMdlEx",
        ],
        AtMost(DISPATCH_LEVEL),
        "Pages of a node are allocated, and pages freed with flags, at DISPATCH_LEVEL or below",
    )
    .stops(0xC4, [Is(0x7E), Irql, Is(DISPATCH_LEVEL as u64), Is(0)])
    .inferred("bug check 0xC4, row 0x7E, names MmAllocatePagesForMdl, its Ex and \
               MmFreePagesFromMdl alone: these do the same");
    LOCK_IRQL "lock-pages-irql" = Rule::at(
        LOCKS,
        AtMost(DISPATCH_LEVEL),
        "Pages are locked at DISPATCH_LEVEL or below",
    )
    .stops(0xC4, [Is(0x70), Irql, Of("the MDL"), Of("the mode")])
    .documented(VERIFIER);
    UNLOCK_IRQL "unlock-pages-irql" = Rule::at(
        UNLOCKS,
        AtMost(DISPATCH_LEVEL),
        "Pages are unlocked at DISPATCH_LEVEL or below",
    )
    .stops(0xC4, [Is(0x78), Irql, Of("the MDL"), Is(0)])
    .documented(VERIFIER);
    PAGE_IRQL "memory-irql" = Rule::at(
        &[
            "MmAllocateContiguousMemory",
            "MmAllocateContiguousMemorySpecifyCache",
            "MmAllocateContiguousMemorySpecifyCacheNode",
            "MmAllocateContiguousNodeMemory",
            "MmAllocateContiguousMemoryEx",
            "MmAdvanceMdl",
            "MmFreeContiguousMemory",
            "MmFreeContiguousMemorySpecifyCache",
            "IoBuildPartialMdl",
            "MmAllocateMdlForIoSpace",
            "MmProtectMdlSystemAddress",
            "IoAllocateMdl",
            "IoFreeMdl",
            "MmMapIoSpace",
            "MmUnmapIoSpace",
        ],
        AtMost(DISPATCH_LEVEL),
        "Contiguous memory, device memory and MDL structures are had and freed at \
         DISPATCH_LEVEL or below",
    )
    .stops(0x0A, [Is(0), Irql, Is(0), Is(0)])
    .inferred("the routine's page, IRQL; Windows may go on for a while");

    // Any MDL
    MDL_FREED "mdl-freed" = Rule::new(
        READS_MDL,
        "An MDL is used before its structure is freed",
    )
    .finding("mdl-use-after-free")
    .stops(0xCC, [Of("the MDL"), Is(0), Is(0), Is(0)])
    .inferred("bug check 0xCC: all pool here is as special pool; without that, Windows reads \
               whatever lies there by then");
    MDL_EXTENT "mdl-extent" = Rule::new(
        READS_MDL,
        "An MDL describes at least one byte, from an offset less than a page",
    )
    .stops(0x1A, [Is(0x1236), Of("the MDL"), Is(0), Is(0)])
    .ours("an MDL that MmInitializeMdl could not have made; its nearest documented relative");
    MDL_NO_RAM "mdl-page-no-ram" = Rule::new(
        &["MmMapLockedPagesSpecifyCache", "MmUnlockPages"],
        "An MDL that is not for I/O space holds page frame numbers of RAM",
    )
    .stops(0xC4, [Is(0x89), Of("the MDL"), Of("address of the slot"), Of("the slot")])
    .documented(VERIFIER);

    // Page allocations
    PAGES_SIZE "pages-size" = Rule::new(
        ALLOCATES,
        "One MDL's pages are 1 byte to 4 GiB less a page",
    )
    .returns(0)
    .documented("MmAllocatePagesForMdlEx's page, TotalBytes");
    PAGES_SKIP "pages-skip" = Rule::new(
        ALLOCATES,
        "SkipBytes is a multiple of the page size",
    )
    .returns(0)
    .inferred("MmAllocatePagesForMdlEx's page, SkipBytes; that it fails is inferred");
    PAGES_CHUNKS "pages-chunks" = Rule::new(
        ALLOCATES_EX,
        "With MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS, SkipBytes is 0, or a power of two that \
         TotalBytes is a multiple of",
    )
    .returns(0)
    .inferred("MmAllocatePagesForMdlEx's page, Flags; that it fails is inferred");
    PAGES_LARGE "pages-large" = Rule::new(
        ALLOCATES_EX,
        "With MM_ALLOCATE_FAST_LARGE_PAGES, pages come from the cache of large pages alone, \
         which is empty",
    )
    .returns(0)
    .documented("MmAllocatePagesForMdlEx's page, Flags: it fails where the cache has none");
    PAGES_HOT_REMOVE "pages-hot-remove" = Rule::new(
        ALLOCATES_EX,
        "With MM_ALLOCATE_AND_HOT_REMOVE, pages leave the machine, and none can",
    )
    .returns(0)
    .ours("no display driver takes memory out of the machine");
    NODE "pages-node" = Rule::new(
        &["MmAllocateNodePagesForMdlEx", "MmAllocatePartitionNodePagesForMdlEx"],
        "With MM_ALLOCATE_FROM_LOCAL_NODE_ONLY, pages come from the ideal node: node 0 is all",
    )
    .returns(0)
    .inferred("MmAllocatePagesForMdlEx's page, Flags");
    PARTITION "pages-partition" = Rule::new(
        &["MmAllocatePartitionNodePagesForMdlEx"],
        "There is no memory partition but the system's, which NULL names",
    )
    .returns(0)
    .ours("partition objects are made for virtual machines");
    PAGES_NONE "pages-none" = Rule::new(
        ALLOCATES,
        "Where there is no page, or too few and all are required, there is no MDL",
    )
    .returns(0)
    .documented(NULL);
    FREED_TWICE "pages-freed-twice" = Rule::new(
        FREES,
        "The pages of an MDL are freed once",
    )
    .finding("double-free")
    .stops(0x1A, [Is(0x1236), Of("the MDL"), Of("address of the slot"), Of("the slot")])
    .inferred(MEMORY);
    FOREIGN "pages-foreign" = Rule::new(
        FREES,
        "Only pages are freed that were allocated for an MDL by the Mm routines",
    )
    .finding("foreign-mdl")
    .stops(0x1A, [Is(0x1236), Of("the MDL"), Of("address of the slot"), Of("the slot")])
    .inferred(MEMORY);
    COPIED "pages-copied" = Rule::new(
        FREES,
        "Pages are freed through the MDL that they were allocated with, not through a copy of \
         its array",
    )
    .finding("foreign-mdl")
    .inferred("MmFreePagesFromMdl's page: the MDL is one that MmAllocatePagesForMdl made; \
               Windows looks at the pages alone, and frees them");
    CHANGED "pages-changed" = Rule::new(
        FREES,
        "The pages of an MDL are freed whole, and are those that were allocated",
    )
    .finding("foreign-mdl")
    .stops(0x1A, [Is(0x1236), Of("the MDL"), Of("address of the slot"), Of("the slot")])
    .inferred("MmGetMdlPfnArray's page; Windows looks at each page by itself, so that a free \
               of part of an allocation is not modelled");
    FREED_LOCKED "pages-freed-while-locked" = Rule::new(
        FREES_PAGES,
        "No page is freed while it is locked for I/O",
    )
    .finding("mdl-use-after-free")
    .stops(0x4E, [Is(0x9A), Of("the page"), Is(0), Of("how often it is locked")])
    .documented("bug check 0x4E, 0x9A");

    PARTIAL_SLOTS "partial-slots" = Rule::new(
        ALLOCATES,
        "An MDL with fewer pages than were asked for has room for all, and the slots past those \
         that were given hold -1, which no page is",
    )
    .ours("the documents name ByteCount alone; ReactOS ends a short array so, and a driver that \
           takes the slots for pages is seen at once");
    UNRELEASED "mdl-not-released" = Rule::new(
        &["ExFreePool", "ExFreePoolWithTag"],
        "The structure of an MDL that was allocated with pages is freed by ExFreePool",
    )
    .finding("mdl-not-released")
    .documented("MmAllocatePagesForMdlEx's page; Windows says nothing, but loses the memory");
    PAGES_LEFT "mdl-freed-before-pages" = Rule::new(
        FREES,
        "The pages of an MDL are freed before its structure: without it nobody can",
    )
    .finding("mdl-use-after-free")
    .inferred("MmAllocatePagesForMdlEx's page: MmFreePagesFromMdl, then ExFreePool; Windows \
               says nothing, but loses the pages");
    OTHER_FREE "mdl-freed-by-other" = Rule::new(
        &["IoFreeMdl", "ExFreePool", "ExFreePoolWithTag"],
        "IoFreeMdl frees what IoAllocateMdl and MmAllocateMdlForIoSpace made, ExFreePool what \
         MmAllocatePagesForMdl made, and dxgkrnl its own",
    )
    .finding("foreign-mdl")
    .inferred("the routines' pages; Windows frees the memory all the same");
    USER_MAPPED "pages-user-mapped" = Rule::new(
        &[
            "MmFreePagesFromMdl",
            "MmFreePagesFromMdlEx",
            "ExFreePool",
            "ExFreePoolWithTag",
            "MmFreeContiguousMemory",
            "MmFreeContiguousMemorySpecifyCache",
        ],
        "Memory is not freed while it is mapped to user addresses",
    )
    .finding("mapped-after-free")
    .inferred("MmMapLockedPagesSpecifyCache's page; the process keeps the pages, whose they may \
               be, until bug check 0x4E or 0x1A");
    DEVICE_MAPPED "mdl-device-mapped" = Rule::new(
        &[
            "IoFreeMdl",
            "ExFreePool",
            "ExFreePoolWithTag",
            "MmFreePagesFromMdl",
            "MmFreePagesFromMdlEx",
            "MmUnlockPages",
            "MmFreeContiguousMemory",
            "MmFreeContiguousMemorySpecifyCache",
            "DxgkCbUnmapMdlFromIoMmu",
        ],
        "An MDL, and its pages, outlive the mapping that DxgkCbMapMdlToIoMmu made of them",
    )
    .finding("mdl-use-after-free")
    .documented("DXGKCB_MAPMDLTOIOMMU's page: it is undefined what happens; here, nothing");
    DEVICE_REWRITTEN "mdl-rewritten-while-device-mapped" = Rule::new(
        &[
            "MmAdvanceMdl",
            "MmBuildMdlForNonPagedPool",
            "MmProbeAndLockPages",
            "IoBuildPartialMdl",
            "DxgkCbUnmapMdlFromIoMmu",
        ],
        "An MDL stays as it is from DxgkCbMapMdlToIoMmu to DxgkCbUnmapMdlFromIoMmu",
    )
    .finding("mdl-use-after-free")
    .documented("DXGKCB_MAPMDLTOIOMMU's page: MDL and pages stay unchanged, and it is undefined \
                 what happens else; here the device goes on to reach the pages that were mapped");

    // Locking and structures
    LOCK_IN_USE "lock-mdl-in-use" = Rule::new(
        LOCKS,
        "Pages are locked through an MDL that is not locked, mapped, partial or for nonpaged \
         pool",
    )
    .stops(0xC4, [Is(0xB0), Of("the MDL"), Of("its flags"), Of("the bad flags")])
    .documented(VERIFIER);
    LOCK_NO_RAM "lock-no-ram" = Rule::new(
        LOCKS,
        "Only RAM is locked: device memory has no page frames",
    )
    .stops(0xC4, [Is(0x6F), Of("the MDL"), Of("the page"), Of("the highest page")])
    .documented(VERIFIER);
    LOCK_RAISES "lock-absent-memory" = Rule::new(
        LOCKS,
        "Locking memory that is not there raises an exception",
    )
    // SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, STATUS_ACCESS_VIOLATION.
    .stops(0x7E, [Is(0xC000_0005), Is(0), Of("the MDL"), Is(0)])
    .inferred("the routine's page; what a driver without a handler sees, as handlers are not \
               run here");
    LOCK_FREED "lock-freed-memory" = Rule::new(
        LOCKS,
        "Memory is locked before it is freed: afterwards, an exception is raised",
    )
    .finding("cpu-use-after-free")
    .stops(0x7E, [Is(0xC000_0005), Is(0), Of("the MDL"), Is(0)])
    .inferred("the routine's page; what a driver without a handler sees, as handlers are not \
               run here");
    BUILD_PAGED "build-paged-pool" = Rule::new(
        &["MmBuildMdlForNonPagedPool"],
        "An MDL is built this way for memory that is not paged",
    )
    .stops(0xC4, [Is(0x7F), Of("the IRQL"), Of("the MDL"), Of("its flags")])
    .documented(VERIFIER);
    BUILD_ABSENT "build-absent-memory" = Rule::new(
        &["MmBuildMdlForNonPagedPool"],
        "An MDL is built this way for memory that is there",
    )
    .stops(0x1A, [Is(0x1240), Of("the MDL"), Of("the address"), Is(0)])
    .documented("bug check 0x1A, 0x1240");
    ADVANCE_PAST "advance-past-end" = Rule::new(
        &["MmAdvanceMdl"],
        "An MDL is not advanced to its end or past it",
    )
    .returns(status::INVALID_PARAMETER_2 as u64)
    .documented("MmAdvanceMdl's page, return value; that the end itself is too far is ours");
    ADVANCE_ALLOCATED "advance-allocated-pages" = Rule::new(
        &["MmAdvanceMdl"],
        "An MDL that was allocated with its pages is not advanced past any of them",
    )
    .finding("foreign-mdl")
    .stops(0x4E, [Is(0x07), Of("the page"), Is(0), Is(0)])
    .inferred("MmAdvanceMdl's page: pages that are passed are unlocked; these were allocated, \
               and nobody locked them, which is bug check 0x4E, 0x07");
    UNLOCK_POOL "unlock-nonpaged-pool" = Rule::new(
        UNLOCKS,
        "An MDL for nonpaged pool is not unlocked",
    )
    .stops(0xC4, [Is(0x7D), Of("the MDL"), Of("its flags"), Is(0)])
    .documented(VERIFIER);
    UNLOCK_PARTIAL "unlock-partial-mdl" = Rule::new(UNLOCKS, "A partial MDL is not unlocked")
        .stops(0xC4, [Is(0xB4), Of("the MDL"), Of("its flags"), Of("the flag")])
        .documented(VERIFIER);
    UNLOCK_UNLOCKED "unlock-unlocked-mdl" = Rule::new(
        UNLOCKS,
        "Only an MDL whose pages are locked is unlocked",
    )
    .stops(0xC4, [Is(0x7C), Of("the MDL"), Of("its flags"), Is(0)])
    .documented(VERIFIER);
    UNLOCK_PAGE "unlock-unlocked-page" = Rule::new(
        UNLOCKS,
        "A page is unlocked as often as it was locked",
    )
    .stops(0x4E, [Is(0x07), Of("the page"), Is(0), Is(0)])
    .documented("bug check 0x4E, 0x07");
    FREE_MAPPED "free-mapped-mdl" = Rule::new(
        &["IoFreeMdl"],
        "An MDL is unmapped before its structure is freed",
    )
    .stops(0xC4, [Is(0xB8), Of("the MDL"), Of("its flags"), Is(0)])
    .documented(VERIFIER);

    PARTIAL_RANGE "partial-range" = Rule::new(
        &["IoBuildPartialMdl"],
        "A partial MDL describes a part of its source",
    )
    .stops(0x12E, [Of("the source"), Of("the target"), Of("the address"), Of("the length")])
    .documented("bug check 0x12E");
    PARTIAL_ROOM "partial-room" = Rule::new(
        &["IoBuildPartialMdl"],
        "A target MDL has room for the pages of its part",
    )
    .stops(0x40, [Is(0), Is(0), Is(0), Is(0)])
    .documented("bug check 0x40, which has no parameters");
    IO_SPACE_LIST "io-space-list" = Rule::new(
        &["MmAllocateMdlForIoSpace"],
        "An MDL for I/O space is of whole pages, none of them RAM, and less than 4 GiB of them",
    )
    .returns(status::INVALID_PARAMETER_1 as u64)
    .documented("MmAllocateMdlForIoSpace's page, return value");
    IO_SPACE_NONE "io-space-none" = Rule::new(
        &["MmAllocateMdlForIoSpace"],
        "Where there is no memory for the MDL, the status says so",
    )
    .returns(status::INSUFFICIENT_RESOURCES as u64)
    .documented("MmAllocateMdlForIoSpace's page, return value");
    MDL_SIZE "mdl-size" = Rule::new(
        &["IoAllocateMdl"],
        "An MDL describes 4 GiB less a page at most",
    )
    .returns(0)
    .documented("IoAllocateMdl's page, Length");
    MDL_NONE "mdl-none" = Rule::new(
        &["IoAllocateMdl"],
        "Where there is no memory for an MDL, NULL says so",
    )
    .returns(0)
    .documented(NULL);
}
