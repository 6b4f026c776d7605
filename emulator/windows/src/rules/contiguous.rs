//! The rules of contiguous and of device memory.

use super::Parameter::{Is, Of};
use super::{Rule, rules};
use crate::status;

const VERIFIER: &str = "bug check 0xC4, table of violations";
const PTE: &str = "bug check 0xDA; its parameters after the first are ours";
const NULL: &str = "the routine's page, return value";

const CONTIGUOUS: &[&str] = &[
    "MmAllocateContiguousMemory",
    "MmAllocateContiguousMemorySpecifyCache",
    "MmAllocateContiguousMemorySpecifyCacheNode",
    "MmAllocateContiguousNodeMemory",
];
const FREES_CONTIGUOUS: &[&str] = &[
    "MmFreeContiguousMemory",
    "MmFreeContiguousMemorySpecifyCache",
];

rules! {
    CONTIGUOUS_SIZE "contiguous-size" = Rule::new(
        CONTIGUOUS,
        "Contiguous memory is 1 byte to 4 GiB less a page",
    )
    .returns(0)
    .ours("the upper limit is that of an MDL");
    CONTIGUOUS_BOUNDARY "contiguous-boundary" = Rule::new(
        &[
            "MmAllocateContiguousMemorySpecifyCache",
            "MmAllocateContiguousMemorySpecifyCacheNode",
            "MmAllocateContiguousNodeMemory",
        ],
        "BoundaryAddressMultiple is 0 or a power of two, and no less than a page",
    )
    .returns(0)
    .inferred("the routine's page; that it fails is inferred");
    CONTIGUOUS_NONE "contiguous-none" = Rule::new(
        CONTIGUOUS,
        "Where no frames lie together as they are wanted, there is no memory",
    )
    .returns(0)
    .documented(NULL);
    CONTIGUOUS_EX_ARGUMENT "contiguous-ex-argument" = Rule::new(
        &["MmAllocateContiguousMemoryEx"],
        "Contiguous memory is 1 byte to 4 GiB less a page, its boundary 0 or a power of two, \
         its partition the system's",
    )
    .returns(status::INVALID_PARAMETER as u64)
    .inferred("the routine's page, return value");
    CONTIGUOUS_EX_NONE "contiguous-ex-none" = Rule::new(
        &["MmAllocateContiguousMemoryEx"],
        "Where no frames lie together as they are wanted, the status says so",
    )
    .returns(status::INSUFFICIENT_RESOURCES as u64)
    .documented("the routine's page, return value");
    CONTIGUOUS_TWICE "contiguous-freed-twice" = Rule::new(
        FREES_CONTIGUOUS,
        "Contiguous memory is freed once",
    )
    .finding("double-free")
    .stops(0x1A, [Is(0x5305), Of("the address"), Is(0), Is(0)])
    .ours("not documented; the nearest documented relative, a free of an invalid address");
    CONTIGUOUS_FOREIGN "contiguous-foreign" = Rule::new(
        FREES_CONTIGUOUS,
        "What DxgkCbAllocateContiguousMemory gave is freed by DxgkCbFreeContiguousMemory",
    )
    .stops(0x1A, [Is(0x5305), Of("the address"), Is(0), Is(0)])
    .ours("not documented; the nearest documented relative, a free of an invalid address");
    CONTIGUOUS_BASE "contiguous-base" = Rule::new(
        FREES_CONTIGUOUS,
        "Contiguous memory is freed by the address that was given",
    )
    .stops(0x1A, [Is(0x5305), Of("the address"), Is(0), Is(0)])
    .ours("not documented; the nearest documented relative, a free of an invalid address");
    CONTIGUOUS_FREE_SIZE "contiguous-free-size" = Rule::new(
        &["MmFreeContiguousMemorySpecifyCache"],
        "Contiguous memory is freed by the size that it was allocated with",
    )
    .stops(0x1A, [Is(0x5305), Of("the address"), Is(0), Is(0)])
    .ours("the routine's page demands it; the stop is the nearest documented relative");
    CONTIGUOUS_LEFT "contiguous-left-at-unload" = Rule::new(
        FREES_CONTIGUOUS,
        "Contiguous memory is freed before the driver is unloaded",
    )
    .finding("memory-leak")
    .inferred("MmAllocateContiguousMemory's page: it is the driver's to free; Windows says nothing, \
               and pool tracking does not count it");
    IO_SPACE_SIZE "io-space-size" = Rule::new(
        &["MmMapIoSpace"],
        "Device memory that is mapped is at least one byte, and ends within the address space",
    )
    .returns(0)
    .inferred(NULL);
    IO_SPACE_UNLOCKED "io-space-unlocked" = Rule::new(
        &["MmMapIoSpace"],
        "RAM that is mapped as device memory is somebody's",
    )
    .stops(0xC4, [Is(0x83), Of("the address"), Of("the bytes"), Of("the first such page")])
    .documented(VERIFIER);
    IO_SPACE_COUNT "io-space-count" = Rule::new(
        &["MmUnmapIoSpace"],
        "Device memory is unmapped by the size that it was mapped with",
    )
    .stops(0xDA, [Is(0x02), Of("the address"), Of("pages given"), Of("pages mapped")])
    .inferred(PTE);
    IO_SPACE_ADDRESS "io-space-address" = Rule::new(
        &["MmUnmapIoSpace"],
        "Device memory is unmapped once, at the address that was given",
    )
    .stops(0xDA, [Is(0x03), Of("the address"), Of("pages given"), Is(0)])
    .inferred(PTE);
}
