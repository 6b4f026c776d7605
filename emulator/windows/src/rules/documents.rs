//! Where Windows' documents contradict each other: what was decided, and why.

use super::{Rule, rules};

rules! {
    CALLBACK_IRQL "callback-irql-pages" = Rule::new(
        super::dxgk::CALLBACKS,
        "The callbacks' pages say PASSIVE_LEVEL, the isolation article APC_LEVEL or below: \
         APC_LEVEL is allowed",
    )
    .ours("the wider one, so that no correct driver is accused");
    REMAPPING_VALUE "remapping-value-3" = Rule::new(
        &[],
        "DmaRemappingCompatible 3 is said to exist since Windows 10 1803 and since Windows 11: \
         a run does not look at the value",
    )
    .ours("the isolation article asks for the driver's cap alone");
    REMAPPING_VERSION "remapping-version" = Rule::new(
        &[],
        "The DMA remapping callbacks are said to be of WDDM 2.9 and of WDDM 3.0: \
         DXGKRNL_INTERFACE ends before them",
    )
    .ours("the interface is that of WDDM 2.4, which both agree on");
    PAGES_APC_LEVEL "pages-apc-level" = Rule::new(
        &["MmAllocatePagesForMdl", "MmAllocatePagesForMdlEx", "MmFreePagesFromMdl"],
        "The pages' remarks allow DISPATCH_LEVEL, Driver Verifier's rule IrqlMmApcLte does not: \
         DISPATCH_LEVEL is allowed",
    )
    .ours("the remarks say since when it is allowed, and no correct driver is to be accused");
    ADL_EXAMPLE "adl-example" = Rule::new(
        &[],
        "DXGK_ADL's page gives three pages from 100 as 0x100000 to 0x102000: page numbers are \
         addresses divided by the page size",
    )
    .ours("the example is wrong in whichever base it is read");
    CLOSE_ARGUMENT "close-object-argument" = Rule::new(
        &[],
        "DXGKCB_CLOSEPHYSICALMEMORYOBJECT's page names another routine's argument: it is not \
         there to be called",
    )
    .ours("it belongs to the DMA remapping callbacks; see remapping-version");
    PFN_NUMBER "pfn-number-size" = Rule::new(
        &["MmGetMdlPfnArray"],
        "MmGetMdlPfnArray's page has PFN_NUMBER as ULONG: it is 8 bytes on x64",
    )
    .ours("the headers have ULONG_PTR");
    PAGES_CACHE_TYPE "pages-cache-type" = Rule::new(
        &["MmAllocatePagesForMdl"],
        "The pages are said to have no cache type until mapped, and to be MmCached: they have \
         none",
    )
    .ours("the type cannot be seen here: all RAM is cached and coherent");
    DISPATCH_TEXT "contiguous-free-irql" = Rule::new(
        &["MmFreeContiguousMemory"],
        "Rule IrqlMmDispatch says only at DISPATCH_LEVEL, the routine's page at DISPATCH_LEVEL \
         or below: the page is followed",
    )
    .ours("drivers free at PASSIVE_LEVEL, and nobody reports a stop for it");
}
