//! The rules of the processor: what the driver's code does by itself, and
//! what Windows meets when it follows the driver's pointers.

use super::Parameter::{Is, Of};
use super::{Parameter, Rule, rules};

/// 0x50: the address, how it was accessed, and by which instruction.
const FAULT: [Parameter; 4] = [
    Of("the address"),
    Of("0 for a read, 2 for a write, 0x10 for an execution"),
    Of("the instruction"),
    Is(0),
];
/// 0xD1: the same, and the IRQL.
const DISPATCH: [Parameter; 4] = [
    Of("the address"),
    Of("the IRQL"),
    Of("0 for a read, 1 for a write, 8 for an execution"),
    Of("the instruction"),
];
/// 0xD5 and 0xD6.
const SPECIAL: [Parameter; 4] = [
    Of("the address"),
    Of("1 for a write, else 0"),
    Of("the instruction"),
    Is(0),
];
const AT_DISPATCH: &str = "bug check 0xD1: at DISPATCH_LEVEL and above no page fault is served";

rules! {
    // The driver's accesses
    FREED_POOL "freed-pool-access" = Rule::new(&[], "Freed pool is not accessed")
        .finding("cpu-use-after-free")
        .stops(0xD5, SPECIAL)
        .inferred("bug check 0xD5: all pool here is as special pool; without that, the access \
                   goes to whatever lies there by then");
    UNMAPPED "unmapped-address-access" = Rule::new(
        &[],
        "An address is not used after its mapping was released or its memory freed",
    )
    .finding("cpu-use-after-free")
    .stops(0x50, FAULT)
    .documented("bug check 0x50");
    GONE_AT_DISPATCH "gone-memory-at-dispatch" = Rule::new(
        &[],
        "Memory that was freed or unmapped is not accessed, least of all at DISPATCH_LEVEL or \
         above",
    )
    .finding("cpu-use-after-free")
    .stops(0xD1, DISPATCH)
    .documented(AT_DISPATCH);
    PAST_PARTIAL "past-partial-mdl" = Rule::new(
        &[],
        "Of an MDL with fewer pages than were asked for, only those that were given are used",
    )
    .finding("partial-allocation-ignored")
    .stops(0x50, FAULT)
    .documented("bug check 0x50; MmAllocatePagesForMdlEx's page, return value");
    PAST_PARTIAL_AT_DISPATCH "past-partial-mdl-at-dispatch" = Rule::new(
        &[],
        "Of an MDL with fewer pages than were asked for, only those that were given are used, \
         at any IRQL",
    )
    .finding("partial-allocation-ignored")
    .stops(0xD1, DISPATCH)
    .documented(AT_DISPATCH);
    PAST_POOL "past-pool-block" = Rule::new(&[], "A pool block is not accessed past its end")
        .stops(0xD6, SPECIAL)
        .inferred("bug check 0xD6: all pool here is as special pool; without that, the access \
                   goes to the next block");
    AT_HIGH_IRQL "page-fault-irql" = Rule::new(
        &[],
        "At DISPATCH_LEVEL and above only memory is accessed that is there",
    )
    .stops(0xD1, DISPATCH)
    .documented(AT_DISPATCH);
    NOT_MAPPED "page-fault" = Rule::new(&[], "A system address that is accessed is mapped")
        .stops(0x50, FAULT)
        .documented("bug check 0x50");
    READ_ONLY "write-to-read-only" = Rule::new(&[], "Memory that is only to be read is not written")
        .stops(0xBE, [Of("the address"), Is(0), Is(0), Is(0)])
        .documented("bug check 0xBE, ATTEMPTED_WRITE_TO_READONLY_MEMORY");
    NO_EXECUTE "execute-data" = Rule::new(&[], "Only code is executed")
        .stops(0xFC, [Of("the address"), Is(0), Is(0), Is(0)])
        .documented("bug check 0xFC, ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY");
    NO_KERNEL_ADDRESS "access-violation" = Rule::new(
        &[],
        "Driver code goes to kernel addresses, and to user addresses only while they are mapped",
    )
    // SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, STATUS_ACCESS_VIOLATION.
    .stops(0x7E, [Is(0xC000_0005), Of("the instruction"), Is(0), Is(0)])
    .inferred("bug check 0x7E: an access violation that nobody handles; no handlers are run \
               here");
    EXCEPTION "exception" = Rule::new(&[], "Every exception of the processor is handled")
        .stops(0x7E, [Of("the exception code"), Of("the instruction"), Is(0), Is(0)])
        .inferred("bug check 0x7E; no handlers are run here");
    NO_STACK "double-fault" = Rule::new(&[], "There is a kernel stack at RSP, with room left")
        .stops(0x7F, [Is(8), Of("the stack pointer"), Is(0), Is(0)])
        .documented("bug check 0x7F, UNEXPECTED_KERNEL_MODE_TRAP: 8, a double fault");
    FAST_FAIL "fast-fail" = Rule::new(&[], "Code that finds itself corrupt fails fast (int 29h)")
        .stops(0x139, [Of("the code"), Is(0), Is(0), Is(0)])
        .documented("bug check 0x139, KERNEL_SECURITY_CHECK_FAILURE");
    IRQL_LEFT "irql-left" = Rule::new(
        &[],
        "A routine of the driver returns at the IRQL that it was called at",
    )
    .finding("wrong-irql")
    .stops(0xC8, [Of("the IRQLs: now << 16, then << 8"), Is(0), Is(0), Is(0)])
    .inferred("bug check 0xC8, IRQL_UNEXPECTED_VALUE");

    // What Windows follows
    ARGUMENT_FREED "argument-in-freed-pool" = Rule::new(
        &[],
        "What an argument points at is not in freed pool",
    )
    .finding("cpu-use-after-free")
    .stops(0xCC, [Of("the address"), Is(0), Is(0), Is(0)])
    .inferred("bug check 0xCC: all pool here is as special pool; without that, Windows reads \
               whatever lies there by then");
    ARGUMENT_UNMAPPED "argument-unmapped" = Rule::new(
        &[],
        "What an argument points at was not unmapped",
    )
    .finding("cpu-use-after-free")
    .stops(0x50, [Of("the address"), Is(0), Is(0), Is(2)])
    .inferred("bug check 0x50: a system service that touches memory that is not there");
    ARGUMENT_PAST_PARTIAL "argument-past-partial-mdl" = Rule::new(
        &[],
        "What an argument points at is within the pages that an MDL was given",
    )
    .finding("partial-allocation-ignored")
    .stops(0x50, [Of("the address"), Is(0), Is(0), Is(2)])
    .inferred("bug check 0x50: a system service that touches memory that is not there");
    OBJECT_FREED "timer-or-dpc-freed" = Rule::new(
        &[],
        "A timer that is set and a DPC that is queued are not freed",
    )
    .finding("cpu-use-after-free")
    .stops(0xC7, [Is(0), Of("the object"), Is(0), Is(0)])
    .inferred("bug check 0xC7, TIMER_OR_DPC_INVALID");
    LEFT_BEHIND "left-behind" = Rule::new(
        &[],
        "Threads, timers and lookaside lists of a driver end before it is unloaded",
    )
    .stops(0xCE, [Of("the address"), Is(8), Of("the address"), Is(0)])
    .documented("bug check 0xCE, DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS");
}
