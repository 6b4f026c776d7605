//! The rules of pool.

use super::Irql::AtMost;
use super::Parameter::{Irql, Is, Of};
use super::{Rule, rules};
use crate::mm::spec::{APC_LEVEL, DISPATCH_LEVEL, SYSTEM_RANGE_START};

const CAUSES: &str = "bug check 0xC2, table of causes";
const ALLOCATES: &[&str] = &["ExAllocatePool", "ExAllocatePoolWithTag", "ExAllocatePool2"];
const FREES: &[&str] = &["ExFreePool", "ExFreePoolWithTag", "IoFreeMdl"];

rules! {
    ALLOCATE_IRQL "pool-allocate-irql" = Rule::at(
        ALLOCATES,
        AtMost(DISPATCH_LEVEL),
        "Pool is allocated at DISPATCH_LEVEL or below",
    )
    .stops(0xC2, [Is(0x08), Irql, Of("pool type or flags"), Of("the size")])
    .inferred(CAUSES);
    PAGED_IRQL "paged-pool-irql" = Rule::at(
        ALLOCATES,
        AtMost(APC_LEVEL),
        "Paged pool is allocated at APC_LEVEL or below",
    )
    .stops(0xC2, [Is(0x08), Irql, Of("pool type or flags"), Of("the size")])
    .inferred(CAUSES);
    FREE_IRQL "pool-free-irql" = Rule::at(
        &["ExFreePool", "ExFreePoolWithTag"],
        AtMost(DISPATCH_LEVEL),
        "Pool is freed at DISPATCH_LEVEL or below",
    )
    .stops(0xC2, [Is(0x09), Irql, Is(0), Of("the block")])
    .documented(CAUSES);
    ARGUMENTS "pool-arguments" = Rule::new(
        &["ExAllocatePool2"],
        "Pool has one kind, known required flags, a size and a tag",
    )
    .returns(0)
    .documented("ExAllocatePool2's page, POOL_FLAGS");
    NONE "pool-none" = Rule::new(ALLOCATES, "Where there is no memory, NULL says so")
        .returns(0)
        .documented("the routine's page, return value");
    WRONG_TAG "pool-wrong-tag" = Rule::new(
        &["ExFreePoolWithTag"],
        "A pool block is freed by the tag that it was allocated with",
    )
    .stops(0xC2, [Is(0x0A), Of("the block"), Of("its tag"), Of("the tag given")])
    .documented(CAUSES);
    FREED_TWICE "pool-freed-twice" = Rule::new(FREES, "A pool block is freed once")
        .finding("double-free")
        .stops(0xC2, [Is(0x07), Is(0), Is(0), Of("the block")])
        .documented(CAUSES);
    FREED_LOCKED "pool-freed-while-locked" = Rule::new(
        &["ExFreePool", "ExFreePoolWithTag"],
        "Pool is not freed while its pages are locked for I/O",
    )
    .finding("mdl-use-after-free")
    .inferred("MmProbeAndLockPages's page; bug check 0x4E, 0x9A, is for pages that go back: freed \
               pool keeps its pages for its next owner, and Windows says nothing until then");
    LEFT "pool-left-at-unload" = Rule::new(
        FREES,
        "Pool, and MDLs of IoAllocateMdl, are freed before the driver is unloaded",
    )
    .finding("memory-leak")
    .documented("Driver Verifier's page of pool tracking: bug check 0xC4, 0x62, at the unload; \
                 Windows by itself says nothing, and each block is told here, so none stops the \
                 run");
    USER_ADDRESS "pool-user-address" = Rule::new(FREES, "Pool has system addresses")
        .stops(0xC2, [Is(0x40), Of("the address"), Is(SYSTEM_RANGE_START), Is(0)])
        .documented(CAUSES);
    INSIDE "pool-inside-block" = Rule::new(
        FREES,
        "A pool block is freed by the address that was given",
    )
    .stops(0xC2, [Is(0x46), Of("the address"), Is(0), Is(0)])
    .inferred(CAUSES);
    NEVER_POOL "pool-never-allocated" = Rule::new(FREES, "Only pool is freed as pool")
        .stops(0xC2, [Is(0x42), Of("the address"), Is(0), Is(0)])
        .documented(CAUSES);
}
