//! The cases of `tests/faults.rs`: a fault each, in a run that shows it
//! acting.

/// A fault, and what a run with it must say.
pub struct Case {
    pub at: &'static str,
    pub does: &'static str,
    /// Its filters and triggers, and further faults. `{page}` is a page of
    /// the first picture, `{response}` the ends of the page of the device's
    /// answers.
    pub fault: &'static str,
    /// What the run is, for the table.
    pub run: &'static str,
    pub driver: &'static str,
    pub arguments: &'static [&'static str],
    pub workload: &'static str,
    /// What `[verify]` says; it must hold.
    pub verify: &'static str,
    pub findings: &'static [&'static str],
    /// Who is blamed first for each finding.
    pub blamed: &'static str,
    /// What the trace or report must say.
    pub says: &'static [&'static str],
}

pub const PLAIN: Case = Case {
    at: "",
    does: "",
    fault: "",
    run: "",
    driver: "plain",
    arguments: &[],
    workload: ONCE,
    verify: "findings = []\nreleased = true",
    findings: &[],
    blamed: "injected",
    says: &[],
};

/// One life of a picture of four pages.
pub const ONCE: &str = r#"workload = [
  { do = "create", width = 64, height = 64 },
  { do = "present" },
  { do = "wait" },
  { do = "free" },
]
"#;

/// Two lives, one after the other, in different pages.
pub const TWICE: &str = r#"workload = [
  { do = "create", width = 64, height = 64 },
  { do = "present" },
  { do = "wait" },
  { do = "free" },
  { do = "create", width = 64, height = 64 },
  { do = "present", resource = 1, frame = 1 },
  { do = "wait", resource = 1 },
  { do = "free", resource = 1 },
]
"#;

/// A picture of one page, freed with its frame outstanding.
const PAGE: &str = r#"workload = [
  { do = "create", width = 32, height = 32 },
  { do = "present" },
  { do = "free" },
]
"#;

const SAME: &str = "findings = []\nreleased = true\nframe = \"unchanged\"";
const IN_TRANSFER: &str = "command = \"TRANSFER*\"\ndirection = \"read\"\nnth = 1";

/// A command that reads a page which was freed.
macro_rules! astray {
    () => {
        "\n[[fault]]\nname = \"astray\"\nat = \"access\"\ndo = \"redirect\"\nto = {page}\n\
         command = \"TRANSFER*\"\nafter = \"DxgkCbFreePagesFromMdl\"\nnth = 1\n"
    };
}

/// A command that reads where nothing is mapped.
macro_rules! into_nothing {
    () => {
        "\n[[fault]]\nname = \"astray\"\nat = \"access\"\ndo = \"redirect\"\nto = 65536\n\
         command = \"TRANSFER*\"\nnth = 1\n"
    };
}

/// A read that is under way as its page is freed.
macro_rules! under_way {
    () => {
        "\n[[fault]]\nat = \"access\"\ndo = \"delay\"\nns = 1000000000\ncommand = \"TRANSFER*\"\n\
         direction = \"read\"\n"
    };
}

pub const CASES: &[Case] = &[
    Case {
        at: "call",
        does: "fail",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"\nnth = 1",
        run: "the pages of a picture",
        verify: "findings = []\nreleased = true\nstatus = [\
                 { function = \"DxgkCbAllocatePagesForMdl\", returns = \"STATUS_NO_MEMORY\" }]",
        says: &["REFUSED step 1 (create): 0xc0000017"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "fail",
        fault: "function = \"DxgkCb*\"\ncaller = \"dmasan-gpu!*resource::build*\"\nnth = 1\n\
                status = 0xC0000185",
        run: "the first callback below a function of the driver, with a status",
        says: &["REFUSED step 1 (create): 0xc0000185"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "partial",
        fault: "function = \"MmAllocatePagesForMdl*\"\npages = 1",
        run: "a driver that takes what it gets",
        driver: "defects",
        arguments: &["--set", "Defect=partial-as-whole"],
        verify: "",
        findings: &["partial-allocation-ignored"],
        blamed: "driver",
        ..PLAIN
    },
    Case {
        at: "call",
        does: "partial",
        fault: "function = \"MmAllocatePagesForMdl*\"\npages = 1",
        run: "a driver that looks at what it gets",
        driver: "defects",
        arguments: &["--set", "Defect=partial-as-whole-fixed"],
        says: &["REFUSED step 1 (create): 0xc000009a"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "low-memory",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"",
        run: "from the first picture on",
        says: &["REFUSED step 1 (create): 0xc0000017"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "scattered",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"",
        run: "the pages of a picture",
        verify: SAME,
        says: &["4 entries"],
        ..PLAIN
    },
    Case {
        at: "call",
        does: "above-4g",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"\n\
                [[fault]]\nname = \"reached\"\nat = \"access\"\ndo = \"repeat\"\n\
                iova = [0x100000000, 0xffffffffff]",
        run: "the pages of a picture, in a machine of 6 GiB",
        arguments: &["--memory", "6144"],
        verify: SAME,
        says: &["repeat at access read 0x1000"],
        ..PLAIN
    },
    Case {
        at: "map",
        does: "fail",
        fault: "function = \"DxgkCbAllocatePagesForMdl\"",
        run: "the pages of a picture",
        says: &["REFUSED step 1 (create): 0xc0000017"],
        ..PLAIN
    },
    Case {
        at: "unmap",
        does: "fail",
        fault: "function = \"DxgkCbFreePagesFromMdl\"",
        run: "the pages of a picture",
        verify: "",
        findings: &["mapped-after-free"],
        ..PLAIN
    },
    Case {
        at: "attach",
        does: "fail",
        run: "the adapter's start",
        says: &["isolation could not be enabled"],
        ..PLAIN
    },
    Case {
        at: "entry",
        does: "not-present",
        fault: IN_TRANSFER,
        run: "a transfer's first page",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "entry",
        does: "read-only",
        fault: "iova = [{response}]",
        run: "the page that the device answers into",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "entry",
        does: "reserved-bits",
        fault: IN_TRANSFER,
        run: "a transfer's first page",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "fill",
        does: "none-cached",
        fault: "iova = [{response}]\nevery = 1",
        run: "the page that the device answers into",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "fill",
        does: "one-entry",
        run: "every fill",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "drop",
        fault: concat!(
            "descriptor = \"iotlb\"\nafter = \"DxgkCbFreePagesFromMdl\"\n\
             iova = [{page}, {page}]\nnth = 1",
            astray!()
        ),
        run: "the invalidation of a freed page, which a command then reads",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free", "missing-invalidation", "stale-iotlb"],
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "delay",
        fault: concat!(
            "descriptor = \"iotlb\"\nafter = \"DxgkCbFreePagesFromMdl\"\n\
             iova = [{page}, {page}]\nnth = 1\nns = 1000000",
            astray!()
        ),
        run: "the same invalidation, a millisecond",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free", "missing-invalidation", "stale-iotlb"],
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "wrong-granularity",
        fault: concat!("after = \"DxgkCbFreePagesFromMdl\"\nnth = 1", astray!()),
        run: "one page of two, the other of which a command then reads",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free", "missing-invalidation", "stale-iotlb"],
        ..PLAIN
    },
    Case {
        at: "descriptor",
        does: "complete-early",
        fault: concat!("after = \"DxgkCbFreePagesFromMdl\"", under_way!()),
        run: "the invalidation of a page that a read is under way to",
        driver: "defects",
        arguments: &["--set", "Defect=free-before-detach"],
        workload: PAGE,
        verify: "",
        findings: &["free-in-flight"],
        ..PLAIN
    },
    Case {
        at: "fault-record",
        does: "overflow",
        fault: into_nothing!(),
        run: "a read of what is not mapped",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["REFUSED step 3 (wait)"],
        ..PLAIN
    },
    Case {
        at: "fault-record",
        does: "interrupt-lost",
        fault: into_nothing!(),
        run: "a read of what is not mapped",
        verify: "",
        findings: &["dma-unmapped"],
        says: &["REFUSED step 3 (wait)"],
        ..PLAIN
    },
    Case {
        at: "access",
        does: "drop",
        fault: IN_TRANSFER,
        run: "a transfer's first read",
        verify: "findings = []\nreleased = true\nframe = \"changed\"",
        ..PLAIN
    },
    Case {
        at: "access",
        does: "delay",
        fault: IN_TRANSFER,
        run: "a transfer's first read, a millisecond",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "access",
        does: "repeat",
        fault: "command = \"TRANSFER*\"",
        run: "a transfer's accesses",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "access",
        does: "torn",
        fault: "command = \"TRANSFER*\"",
        run: "a transfer's accesses",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "access",
        does: "redirect",
        fault: "to = {page}\ncommand = \"TRANSFER*\"\nafter = \"DxgkCbFreePagesFromMdl\"\nnth = 1",
        run: "a transfer's read, to a page that was freed",
        workload: TWICE,
        verify: "",
        findings: &["dma-use-after-free"],
        says: &["0xe6"],
        ..PLAIN
    },
    Case {
        at: "interrupt",
        does: "spurious",
        fault: "nth = 2",
        run: "the second interrupt",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "interrupt",
        does: "lost",
        fault: "nth = 2",
        run: "the second interrupt",
        ..PLAIN
    },
    Case {
        at: "interrupt",
        does: "late",
        fault: "nth = 2\nns = 5000000",
        run: "the second interrupt, five milliseconds",
        verify: SAME,
        ..PLAIN
    },
    Case {
        at: "queue",
        does: "device-reset",
        fault: "queue = 0\nafter = \"DxgkCbAllocatePagesForMdl\"\nnth = 1",
        run: "the first command of a picture",
        says: &["REFUSED step 1 (create): 0xc00000b5"],
        ..PLAIN
    },
    Case {
        at: "queue",
        does: "unplug",
        fault: "queue = 0\nafter = \"DxgkCbAllocatePagesForMdl\"\nnth = 1",
        run: "the first command of a picture",
        says: &["REFUSED step 1 (create): 0xc00000b5"],
        ..PLAIN
    },
    Case {
        at: "queue",
        does: "unplug",
        fault: "queue = 0\nafter = \"DxgkCbAllocatePagesForMdl\"\nnth = 1",
        run: "the first command of a picture, of a driver that polls",
        arguments: &["--set", "PollCompletion=1"],
        says: &["REFUSED step 1 (create): 0xc00000b5"],
        ..PLAIN
    },
];
