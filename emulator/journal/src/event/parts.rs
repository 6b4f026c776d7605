//! What events are made of.

use memory::{Gpa, Iova, Pfn, RequesterId};
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u32);
    };
}

id!(
    /// An interned text.
    NameId
);
id!(
    /// An interned stack; 0 is the empty one.
    StackId
);
id!(
    /// The command on whose behalf a device accesses memory: minted when its
    /// available entry is read. 0 is the device itself (ring housekeeping).
    ContextId
);
id!(
    /// One allocation of pages, from its birth to its free. Never reused.
    AllocationId
);
id!(
    /// One access between its issue and its landing. Never reused.
    TokenId
);

/// The queue of a context that came by none: work of the device's own, such
/// as reading a screen at its vertical blank.
pub const NO_QUEUE: u16 = 0xffff;

/// The name of a command that is none: somebody ordered the device to do what
/// its driver did not ask for.
pub const ORDERED: &str = "ORDERED";

/// What is run, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Version of dmasan.
    pub version: String,
    /// File name (no path) of the driver.
    pub driver: String,
    /// `passthrough`, `isolation` or `isolation-forced`.
    pub domain: String,
    /// The registry value IOMMUFlags, besides what `domain` stands for.
    pub iommu_flags: u32,
    /// Is there no memory to pin the frame buffer's save area in?
    pub framebuffer_pin_fails: bool,
    /// Seed of frames and random bytes.
    pub seed: u64,
    /// Name of the scenario.
    pub scenario: String,
    /// Frames held back after a free.
    pub quarantine: u64,
    /// Go on after a bug check?
    pub keep_going: bool,
    /// Registry values set for the driver.
    pub settings: Vec<(String, String)>,
    /// Guest RAM, bytes.
    pub memory: u64,
    /// The device behind the IOMMU.
    pub device: RequesterId,
}

/// A loaded image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// File name.
    pub name: String,
    /// Where it is.
    pub base: u64,
    /// Bytes.
    pub size: u32,
    /// From the file header: identifies the image.
    pub time_stamp: u32,
    /// Its PDB, if it names one.
    pub pdb: Option<Pdb>,
}

/// The PDB that belongs to an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pdb {
    /// File name.
    pub name: String,
    /// Signature.
    pub guid: [u8; 16],
    /// Age.
    pub age: u32,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub enum End {
    /// Unloaded; nothing left to do.
    Completed,
    /// The driver refused to start, with this NTSTATUS, in this routine.
    StartFailed {
        /// Which routine.
        routine: String,
        /// What it returned.
        status: u32,
    },
    /// Windows stopped; the bug check is the event before.
    BugCheck,
    /// The driver went on for longer than it may.
    Hang {
        /// What it was doing.
        reason: String,
        /// Where.
        stack: StackId,
    },
    /// The driver did what this machine cannot do.
    Unsupported {
        /// What, and what to do about it.
        reason: String,
        /// Where.
        stack: StackId,
    },
    /// The user stopped it.
    Interrupted,
    /// The same as [`End::Hang`], but that the host's clock says so: the same
    /// driver may get further on another host, or another day.
    OutOfTime {
        /// What it was doing.
        reason: String,
        /// Where.
        stack: StackId,
    },
}

/// Why the driver's code trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TrapKind {
    /// Read of device memory (a BAR).
    MmioRead,
    /// Write of device memory (a BAR).
    MmioWrite,
    /// Read of memory that the device may write while it has work to do.
    Poll,
    /// Read of the shared time page.
    Time,
    /// A privileged instruction, emulated.
    Privileged,
    /// An access to an address that is not there, or not so.
    PageFault,
    /// Any other exception.
    Exception,
    /// A write of CR8, which sets the IRQL; emulated.
    Irql,
}

/// What was to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Point {
    /// After a trap: does the device take a step (0), wait until the next
    /// (1), wait until the driver does (2), or do all it can (3)?
    Device,
    /// An interrupt is pending: deliver it now (0), at a later trap (1), or
    /// when the driver waits (2)?
    Interrupt,
    /// An access was issued: does it land at once (0), or later (1)?
    Landing,
    /// An access is in flight: does it land now (0), or later (1)?
    InFlight,
    /// Bytes that the driver may not foresee.
    Random,
    /// A DPC is due: run it now (0), at a later trap (1), or when the driver
    /// waits (2)?
    Dpc,
    /// After a trap: does the thread go on (0), or another that is ready?
    Thread,
    /// The driver asks for memory or for a mapping: is there any (0), or not
    /// (1)?
    Fail,
}

/// A stop of Windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BugCheck {
    /// The bug check code.
    pub code: u32,
    /// Its four parameters.
    pub parameters: [u64; 4],
    /// How sure we are that Windows would do this.
    pub certainty: Certainty,
    /// Why, in words, with the source.
    pub reason: String,
    /// Where the driver was.
    pub stack: StackId,
    /// Did the run go on all the same (`--keep-going`)?
    pub continued: bool,
    /// The rule that was broken (`dmasan rules`), if it was one.
    pub rule: Option<String>,
    /// Identifier of the finding that the rule's breach is, if it is one.
    pub finding: Option<String>,
    /// What the breach is about.
    pub subject: Subject,
}

/// A rule broken, and no bug check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// The rule (`dmasan rules`).
    pub rule: String,
    /// Identifier of the finding that its breach is.
    pub finding: String,
    /// What happened, what the rule says, and its source.
    pub reason: String,
    /// How sure we are of what Windows does about it.
    pub certainty: Certainty,
    /// What the routine returned (NTSTATUS); `None` where Windows is silent.
    pub status: Option<u32>,
    /// What it is about.
    pub subject: Subject,
    /// Where the driver was; empty where none of its code was running.
    pub stack: StackId,
}

/// What a broken rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The allocation, live or freed.
    pub allocation: Option<AllocationId>,
    /// MDL, memory or handle, as the driver knows it; else 0.
    pub address: u64,
}

/// Memory as a device was told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// Where it begins.
    pub iova: Iova,
    /// Bytes.
    pub length: u32,
}

/// An MDL mapped for the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdlMapping {
    /// The handle that the driver got.
    pub handle: u64,
    /// Address of the MDL.
    pub mdl: u64,
    /// Its frames, in the order of the MDL.
    pub pages: Vec<PageRun>,
    /// May the device write?
    pub write: bool,
    /// Who asked.
    pub stack: StackId,
}

/// How sure we are of what Windows does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Certainty {
    /// Microsoft's documents say so.
    Documented,
    /// It follows from the documents or from public observations.
    Inferred,
    /// The documents are silent: our choice.
    Ours,
}

/// A run of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageRun {
    /// The first.
    pub first: Pfn,
    /// How many.
    pub count: u64,
}

/// Pages given to the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Its id.
    pub id: AllocationId,
    /// How it was made.
    pub kind: AllocationKind,
    /// The tracking handle, for dxgkrnl's callbacks; else 0.
    pub handle: u64,
    /// Address of the MDL, or of the memory; as the driver knows it.
    pub address: u64,
    /// Its frames, in the order of the MDL.
    pub pages: Vec<PageRun>,
    /// Pages that were asked for; more than there are frames if Windows gave
    /// a part.
    pub requested: u64,
    /// Who asked for it.
    pub stack: StackId,
}

/// How pages came to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AllocationKind {
    /// `DxgkCbAllocatePagesForMdl`.
    DxgkMdl,
    /// `DxgkCbAllocateContiguousMemory`.
    DxgkContiguous,
    /// `MmAllocatePagesForMdl` and its kin.
    MmMdl,
    /// `MmAllocateContiguousMemory` and its kin.
    MmContiguous,
    /// Pool pages.
    Pool,
    /// The section that a frame buffer is saved to, while it is pinned.
    FramebufferSave,
    /// A range that the driver reported as reserved by its hardware.
    HardwareReserved,
}

/// Which table the OS wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Table {
    /// Root table (VT-d 9.1); the half-entry of a bus.
    Root {
        /// Which bus.
        bus: u8,
    },
    /// Context table (VT-d 9.3); a half-entry.
    Context {
        /// Whose.
        device: RequesterId,
    },
    /// Second-level table (VT-d 9.8).
    SecondLevel {
        /// The domain it belongs to.
        domain: u16,
        /// 1 for the table whose entries map 4 KiB.
        level: u8,
        /// First address the entry maps.
        iova: Iova,
    },
    /// Invalidation queue.
    Queue,
    /// Status that a wait descriptor writes.
    Status,
}

/// How much an invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Every cached context entry.
    ContextGlobal,
    /// Context entries of a domain.
    ContextDomain(u16),
    /// Context entries of a device.
    ContextDevice(u16, RequesterId),
    /// Every IOTLB entry.
    Global,
    /// IOTLB entries of a domain.
    Domain(u16),
    /// IOTLB entries of a domain within a range of pages.
    Pages {
        /// Which domain.
        domain: u16,
        /// First address.
        iova: Iova,
        /// How many pages.
        count: u64,
    },
}

/// How the issue of an access went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Translated and copied at once.
    Done {
        /// Where it led.
        gpa: Gpa,
        /// Generation of the mapping it used.
        generation: u32,
        /// Did the translation come from the IOTLB?
        cached: bool,
    },
    /// Translated; in flight under this token.
    InFlight {
        /// Its token.
        token: TokenId,
        /// Where it leads.
        gpa: Gpa,
        /// Generation of the mapping it used.
        generation: u32,
        /// Did the translation come from the IOTLB?
        cached: bool,
    },
    /// Refused; an [`Event::Fault`](super::Event::Fault) says why.
    Refused,
}

/// What a guest's driver tells of memory by the device's vendor region. A
/// claim, not a fact: nobody has checked it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The device whose region it came by.
    pub device: RequesterId,
    /// What the guest calls the memory.
    pub cookie: u64,
    /// What the guest calls the place that allocates such memory.
    pub tag: u32,
    /// What it tells.
    pub step: ClaimStep,
    /// Frames, of a step that names some.
    pub pages: Vec<PageRun>,
}

/// What a [`Claim`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClaimStep {
    /// These pages were allocated.
    Allocated,
    /// These pages belong to it too.
    Extended,
    /// It is about to be freed: the device is to leave it alone from now on.
    Retired,
    /// Its pages were given back, and whatever mapped them for the device is
    /// gone.
    Freed,
    /// All that was told so far is void.
    Forgotten,
}
