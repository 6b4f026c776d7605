//! Layouts and constants of Windows' memory manager, x64 (public headers:
//! wdm.h, ntddk.h).

/// The MDL and its flags.
pub mod mdl {
    /// Offset of `Next`, 8 bytes.
    pub const NEXT: u64 = 0x00;
    /// Offset of `Size`, 2 bytes, signed; wraps for long MDLs.
    pub const SIZE: u64 = 0x08;
    /// Offset of `MdlFlags`, 2 bytes.
    pub const FLAGS: u64 = 0x0a;
    /// Offset of `Process`, 8 bytes.
    pub const PROCESS: u64 = 0x10;
    /// Offset of `MappedSystemVa`, 8 bytes.
    pub const MAPPED_SYSTEM_VA: u64 = 0x18;
    /// Offset of `StartVa`, 8 bytes, page aligned.
    pub const START_VA: u64 = 0x20;
    /// Offset of `ByteCount`, 4 bytes.
    pub const BYTE_COUNT: u64 = 0x28;
    /// Offset of `ByteOffset`, 4 bytes.
    pub const BYTE_OFFSET: u64 = 0x2c;
    /// Bytes before the array of page frame numbers, 8 bytes each.
    pub const HEADER: u64 = 0x30;

    /// MDL_MAPPED_TO_SYSTEM_VA.
    pub const MAPPED_TO_SYSTEM_VA: u16 = 0x0001;
    /// MDL_PAGES_LOCKED.
    pub const PAGES_LOCKED: u16 = 0x0002;
    /// MDL_SOURCE_IS_NONPAGED_POOL.
    pub const SOURCE_IS_NONPAGED_POOL: u16 = 0x0004;
    /// MDL_PARTIAL.
    pub const PARTIAL: u16 = 0x0010;
    /// MDL_PARTIAL_HAS_BEEN_MAPPED.
    pub const PARTIAL_HAS_BEEN_MAPPED: u16 = 0x0020;
    /// MDL_WRITE_OPERATION.
    pub const WRITE_OPERATION: u16 = 0x0080;
    /// MDL_IO_SPACE.
    pub const IO_SPACE: u16 = 0x0800;

    /// What an emptied slot of the array holds after its page was freed.
    pub const EMPTY_SLOT: u64 = u64::MAX;
    /// Bytes that one MDL can describe (4 GiB less a page).
    pub const MAX_BYTES: u64 = (1 << 32) - memory::PAGE_SIZE;
}

/// Flags of `MmAllocatePagesForMdlEx`.
pub mod allocate {
    /// MM_DONT_ZERO_ALLOCATION.
    pub const DONT_ZERO: u32 = 0x001;
    /// MM_ALLOCATE_FROM_LOCAL_NODE_ONLY.
    pub const FROM_LOCAL_NODE_ONLY: u32 = 0x002;
    /// MM_ALLOCATE_FULLY_REQUIRED.
    pub const FULLY_REQUIRED: u32 = 0x004;
    /// MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS.
    pub const REQUIRE_CONTIGUOUS_CHUNKS: u32 = 0x020;
    /// MM_ALLOCATE_FAST_LARGE_PAGES.
    pub const FAST_LARGE_PAGES: u32 = 0x040;
    /// MM_ALLOCATE_AND_HOT_REMOVE.
    pub const AND_HOT_REMOVE: u32 = 0x100;
    /// MM_ANY_NODE_OK, in the place of a node.
    pub const ANY_NODE: u32 = 0x8000_0000;
    /// MM_FREE_MDL_PAGES_ZERO, of `MmFreePagesFromMdlEx`.
    pub const FREE_ZERO: u32 = 0x1;
}

/// Flags of `ExAllocatePool2`.
pub mod pool {
    /// POOL_FLAG_UNINITIALIZED.
    pub const UNINITIALIZED: u64 = 0x0000_0002;
    /// POOL_FLAG_CACHE_ALIGNED.
    pub const CACHE_ALIGNED: u64 = 0x0000_0008;
    /// POOL_FLAG_NON_PAGED.
    pub const NON_PAGED: u64 = 0x0000_0040;
    /// POOL_FLAG_NON_PAGED_EXECUTE.
    pub const NON_PAGED_EXECUTE: u64 = 0x0000_0080;
    /// POOL_FLAG_PAGED.
    pub const PAGED: u64 = 0x0000_0100;
    /// Bits of the lower half that have a meaning: USE_QUOTA,
    /// UNINITIALIZED, SESSION, CACHE_ALIGNED, RAISE_ON_FAILURE and the three
    /// kinds. An unknown one fails the call; unknown bits of the upper half
    /// are ignored.
    pub const KNOWN: u64 = 0x0000_01ef;

    /// Bit of a POOL_TYPE that makes it paged.
    pub const TYPE_PAGED: u32 = 1;
    /// Bit of a POOL_TYPE for cache alignment.
    pub const TYPE_CACHE_ALIGNED: u32 = 4;
    /// POOL_NX_ALLOCATION.
    pub const TYPE_NO_EXECUTE: u32 = 512;
    /// Alignment of every block.
    pub const ALIGNMENT: u64 = 16;
    /// Alignment of a cache-aligned block.
    pub const CACHE_ALIGNMENT: u64 = 64;
    /// PROTECTED_POOL: a bit of the tag that is not part of its name.
    pub const PROTECTED: u32 = 0x8000_0000;
}

/// Protections of `MmProtectMdlSystemAddress`.
pub mod page {
    /// PAGE_NOACCESS.
    pub const NO_ACCESS: u32 = 0x01;
    /// PAGE_READONLY.
    pub const READ_ONLY: u32 = 0x02;
    /// PAGE_READWRITE.
    pub const READ_WRITE: u32 = 0x04;
    /// PAGE_EXECUTE.
    pub const EXECUTE: u32 = 0x10;
    /// PAGE_EXECUTE_READ.
    pub const EXECUTE_READ: u32 = 0x20;
    /// PAGE_EXECUTE_READWRITE.
    pub const EXECUTE_READ_WRITE: u32 = 0x40;
}

/// MdlMappingNoWrite: a bit of the priority of a mapping.
pub const MDL_MAPPING_NO_WRITE: u32 = 0x8000_0000;

/// APC_LEVEL.
pub const APC_LEVEL: u8 = 1;
/// DISPATCH_LEVEL.
pub const DISPATCH_LEVEL: u8 = 2;

/// The start of system addresses.
pub const SYSTEM_RANGE_START: u64 = 0xffff_8000_0000_0000;
