//! The defects of `tests/defects.rs`: what each is, and how it shows.

/// A defect, and what a run must say of it.
pub struct Planted {
    /// Value of `Defect`.
    pub name: &'static str,
    /// The mistake, for the table.
    pub mistake: &'static str,
    /// What it is called in a report.
    pub finding: &'static str,
    /// The planted function, or the one in which the mistake shows: on one
    /// of the finding's stacks.
    pub function: &'static str,
    /// What the driver is made to do; `COMMON` if empty.
    pub workload: &'static str,
    /// Further arguments of the run.
    pub arguments: &'static [&'static str],
    /// Modes in which nothing can be found, and why.
    pub silent: &'static [(&'static str, &'static str)],
}

const PLAIN: Planted = Planted {
    name: "",
    mistake: "",
    finding: "",
    function: "",
    workload: COMMON,
    arguments: &[],
    silent: &[],
};

/// Two lives of a picture of more pages than a command has room for, the
/// first freed with a frame outstanding.
pub const COMMON: &str = r#"
  { do = "create", width = 320, height = 200 },
  { do = "present" },
  { do = "free" },
  { do = "create", width = 320, height = 200 },
  { do = "present", resource = 1, frame = 1 },
  { do = "wait", resource = 1 },
  { do = "free", resource = 1 },
"#;

/// A picture that grows.
const RESIZE: &str = r#"
  { do = "create", width = 64, height = 64 },
  { do = "present" },
  { do = "wait" },
  { do = "resize", width = 320, height = 200 },
  { do = "present", frame = 1 },
  { do = "wait" },
  { do = "free" },
"#;

const NOT_ATTACHED: &str = "the device is never attached to a domain: no exclusive access";
const NO_RIGHTS: &str = "no IOMMU holds the device to the rights of a mapping";
const ALL_RIGHTS: &str = "all memory is mapped for writing too";

pub const PLANTED: &[Planted] = &[
    Planted {
        name: "free-before-detach",
        mistake: "pages go back first; only then the driver waits and detaches",
        finding: "dma-use-after-free",
        function: "planted::free_before_detach",
        ..PLAIN
    },
    Planted {
        name: "free-in-flight",
        mistake: "pages go back after a detach that was queued, not acknowledged",
        finding: "dma-use-after-free",
        function: "planted::free_in_flight",
        ..PLAIN
    },
    Planted {
        name: "double-free",
        mistake: "the table keeps a freed resource, and StopDevice frees it again",
        finding: "double-free",
        function: "planted::free_and_keep",
        ..PLAIN
    },
    Planted {
        name: "free-foreign-mdl",
        mistake: "MmFreePagesFromMdl and ExFreePool of dxgkrnl's MDL",
        finding: "foreign-mdl",
        function: "pages::free_foreign_mdl",
        ..PLAIN
    },
    Planted {
        name: "free-copied-pfns",
        mistake: "MmFreePagesFromMdl of a copy of the MDL",
        finding: "foreign-mdl",
        function: "pages::free_copied_pfns",
        ..PLAIN
    },
    Planted {
        name: "mdl-dies-mapped",
        mistake: "an MDL and its pages are freed before UnmapMdlFromIoMmu",
        finding: "mdl-use-after-free",
        function: "pages::mdl_dies_mapped",
        ..PLAIN
    },
    Planted {
        name: "no-exfreepool",
        mistake: "MmFreePagesFromMdl without ExFreePool of the MDL",
        finding: "mdl-not-released",
        function: "pages::allocate_own",
        ..PLAIN
    },
    Planted {
        name: "exfreepool-first",
        mistake: "ExFreePool of the MDL before MmFreePagesFromMdl",
        finding: "mdl-use-after-free",
        function: "pages::ex_free_pool_first",
        ..PLAIN
    },
    Planted {
        name: "partial-as-whole",
        mistake: "an allocation that came short is used to the length asked for",
        finding: "partial-allocation-ignored",
        function: "pages::allocate_in_window",
        ..PLAIN
    },
    Planted {
        name: "physical-address",
        mistake: "MmGetPhysicalAddress of pool as a backing",
        finding: "dma-raw-physical-address",
        function: "pages::list_physical_pages",
        ..PLAIN
    },
    Planted {
        name: "irql-allocate",
        mistake: "DxgkCbAllocatePagesForMdl under a spin lock",
        finding: "wrong-irql",
        function: "Pages::allocate",
        ..PLAIN
    },
    Planted {
        name: "irql-free",
        mistake: "DxgkCbFreePagesFromMdl under a spin lock",
        finding: "wrong-irql",
        function: "Pages::release",
        ..PLAIN
    },
    Planted {
        name: "irql-contiguous",
        mistake: "DxgkCbAllocateContiguousMemory under a spin lock",
        finding: "wrong-irql",
        function: "Contiguous::allocate",
        ..PLAIN
    },
    Planted {
        name: "irql-map",
        mistake: "DxgkCbMapMdlToIoMmu under a spin lock",
        finding: "wrong-irql",
        function: "pages::map_to_device",
        ..PLAIN
    },
    Planted {
        name: "irql-mm",
        mistake: "MmAllocatePagesForMdlEx in the interrupt routine",
        finding: "wrong-irql",
        function: "irql::note_in_pages",
        ..PLAIN
    },
    Planted {
        name: "irql-pool",
        mistake: "ExAllocatePoolWithTag in the interrupt routine",
        finding: "wrong-irql",
        function: "irql::note_in_pool",
        ..PLAIN
    },
    Planted {
        name: "irql-wait",
        mistake: "KeWaitForSingleObject under a spin lock",
        finding: "wrong-irql",
        function: "Queue::wait",
        ..PLAIN
    },
    Planted {
        name: "dma-in-exclusive-access",
        mistake: "BeginExclusiveAccess sends a command after it waited",
        finding: "exclusive-access-violation",
        function: "life::refresh_displays",
        silent: &[("passthrough", NOT_ATTACHED)],
        ..PLAIN
    },
    Planted {
        name: "leak-handle",
        mistake: "StopDevice keeps the command buffer",
        finding: "handle-leak",
        function: "Contiguous::allocate",
        ..PLAIN
    },
    Planted {
        name: "ring-freed-on-resize",
        mistake: "a resize makes new rings, and the device keeps the old ones",
        finding: "dma-use-after-free",
        function: "Adapter::renew_rings",
        workload: RESIZE,
        ..PLAIN
    },
    Planted {
        name: "read-only-mapping",
        mistake: "a buffer that the device writes is locked with IoReadAccess",
        finding: "dma-permission",
        function: "buffers::allocate_locked",
        silent: &[("passthrough", NO_RIGHTS), ("isolation-forced", ALL_RIGHTS)],
        ..PLAIN
    },
    Planted {
        name: "ring-in-interrupt-range",
        mistake: "the used ring lies where interrupt messages go",
        finding: "dma-interrupt-range",
        function: "Adapter::bring_up",
        ..PLAIN
    },
    Planted {
        name: "free-user-mapped",
        mistake: "pages are freed while a program has them mapped",
        finding: "mapped-after-free",
        function: "pages::free_user_mapped",
        ..PLAIN
    },
    Planted {
        name: "reuse-old-backing",
        mistake: "a cached resource gets new pages, and the device keeps the old ones",
        finding: "dma-reused-memory",
        function: "planted::renew",
        arguments: &["--quarantine", "0"],
        ..PLAIN
    },
    Planted {
        name: "cpu-freed-pool",
        mistake: "a pool block is wiped after ExFreePoolWithTag",
        finding: "cpu-use-after-free",
        function: "cpu::wipe_freed",
        ..PLAIN
    },
    Planted {
        name: "cpu-unmapped-address",
        mistake: "a picture is wiped after MmUnmapLockedPages",
        finding: "cpu-use-after-free",
        function: "pages::unmap_and_wipe",
        ..PLAIN
    },
];

/// A defect that no step of a workload shows, but `dmasan fuzz`.
pub struct Fuzzed {
    /// Value of `Defect`.
    pub name: &'static str,
    /// The mistake, for the table.
    pub mistake: &'static str,
    /// What Windows stops with, once or more.
    pub bug_check: &'static str,
    /// A function that is on the stack then.
    pub function: &'static str,
}

pub const FUZZED: &[Fuzzed] = &[Fuzzed {
    name: "escape-size-unchecked",
    mistake: "the private data of an Escape is taken for a command, however short it is",
    bug_check: "0x50",
    function: "escape::handle",
}];
