//! What the ledger finds.

use crate::history::Told;
use journal::event::{AllocationId, AllocationKind, Certainty, ContextId};
use memory::{Gpa, Iova, RequesterId};
use serde::{Serialize, Serializer};

/// Makes [`Kind`], every kind with its identifier.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $id:literal,)*) => {
        /// The kind of a finding. Its identifier is stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: [Self; [$($id),*].len()] = [$(Self::$name),*];

            /// The identifier: kebab case.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id,)*
                }
            }
        }
    };
}

kinds! {
    /// The device accessed, or tried to, a page of a freed allocation.
    DmaUseAfterFree "dma-use-after-free",
    /// The device tried to access an address that is not mapped for it.
    DmaUnmapped "dma-unmapped",
    /// The device tried what the mapping does not allow.
    DmaPermission "dma-permission",
    /// The device was given the CPU's physical address of memory that is not
    /// mapped for it.
    DmaRawPhysicalAddress "dma-raw-physical-address",
    /// A command or a queue uses an address whose memory was freed and belongs
    /// to another allocation by now.
    DmaReusedMemory "dma-reused-memory",
    /// The device was given an address in the interrupt range.
    DmaInterruptRange "dma-interrupt-range",
    /// An access went through by a cached translation that the tables no
    /// longer held.
    StaleIotlb "stale-iotlb",
    /// Pages were freed while the IOMMU could still hold their translations.
    MissingInvalidation "missing-invalidation",
    /// Pages were freed while a mapping still led to them.
    MappedAfterFree "mapped-after-free",
    /// Pages were freed while an access to them was in flight.
    FreeInFlight "free-in-flight",
    /// The CPU accessed memory that the driver had freed or unmapped.
    CpuUseAfterFree "cpu-use-after-free",
    /// Memory was freed twice.
    DoubleFree "double-free",
    /// A routine was given an MDL or handle that is not of its kind.
    ForeignMdl "foreign-mdl",
    /// An MDL that the driver must release was not.
    MdlNotReleased "mdl-not-released",
    /// Memory that the driver allocated was left when it was unloaded.
    MemoryLeak "memory-leak",
    /// An MDL was used, or is in use, after it was freed.
    MdlUseAfterFree "mdl-use-after-free",
    /// Windows gave a part of the pages, and the driver used more.
    PartialAllocationIgnored "partial-allocation-ignored",
    /// A routine was called at an IRQL at which it may not be.
    WrongIrql "wrong-irql",
    /// A handle of dxgkrnl's was still open when the adapter stopped.
    HandleLeak "handle-leak",
    /// The device accessed system memory during exclusive access.
    ExclusiveAccessViolation "exclusive-access-violation",
    /// A driver with isolation imports what it may not.
    ImportForbidden "import-forbidden",
    /// The driver went on for longer than it may.
    Hang "hang",
}

impl Kind {
    /// The kind with this identifier.
    #[must_use]
    pub fn find(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// A moment of the driver's: when, and where its code was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Virtual nanoseconds since the run began.
    pub time: u64,
    /// Instruction addresses, innermost first; all but the first are return
    /// addresses. Empty if no stack was recorded.
    pub stack: Vec<u64>,
}

/// What became of the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The IOMMU refused it: no byte was moved.
    Refused,
    /// It was carried out.
    WentThrough,
    /// It was carried out, some time after it was issued.
    LandedLate,
    /// There was none: the finding is about what could be accessed.
    NoAccess,
}

/// The allocation that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllocationFacts {
    /// Its id in the journal.
    pub id: AllocationId,
    /// How it was made.
    pub kind: AllocationKind,
    /// Tracking handle, or 0.
    pub handle: u64,
    /// Address of its MDL or memory, as the driver knows it.
    pub address: u64,
    /// Its pages.
    pub pages: u64,
    /// Index of the finding's page in it.
    pub page_index: Option<u64>,
    /// Who asked for it.
    pub allocated: Place,
    /// Who freed it.
    pub freed: Option<Place>,
}

/// The device's command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Its context id; 0 is the device's own housekeeping of its rings.
    pub context: ContextId,
    /// The queue it came by.
    pub queue: Option<u16>,
    /// Its position in the available ring.
    pub position: Option<u16>,
    /// Its head descriptor.
    pub head: Option<u16>,
    /// Its name, once the device had read it.
    pub name: Option<String>,
    /// What it works on.
    pub detail: String,
    /// What the device answered, once it had.
    pub answer: Option<String>,
    /// The doorbell that submitted it.
    pub submitted: Option<Place>,
}

/// The IOMMU's word on a refused access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Fault reason (VT-d 7.1.3).
    pub reason: u8,
    /// Was there room for it in a fault record?
    pub recorded: bool,
}

/// Whose defect it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// The driver under test.
    Driver,
    /// Windows, or whoever plays it.
    OperatingSystem,
    /// The device, or the IOMMU.
    Device,
    /// The scenario, which injected a fault, or who ordered the device to
    /// misbehave.
    Injected,
}

/// Who is at fault, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blame {
    /// Who.
    pub party: Party,
    /// Why, in a sentence.
    pub reason: String,
}

/// The bug check with which Windows answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// Bug check code.
    pub code: u32,
    /// Its parameters.
    pub parameters: [u64; 4],
    /// How sure it is that Windows does this.
    pub certainty: Certainty,
    /// Why, with the source.
    pub reason: String,
    /// Did this run see it (or is it what is to be expected)?
    pub seen: bool,
    /// It was seen, and the run went on all the same.
    pub continued: bool,
}

/// What a page beside the finding is to driver and IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// Whose it is.
    pub owner: Ownership,
    /// Can the device reach it?
    pub reach: Reach,
    /// Does it belong to the finding's allocation?
    pub same: bool,
}

/// Whose a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// Never the driver's.
    Never,
    /// The driver's.
    Owned,
    /// Freed, held in the quarantine.
    Freed,
    /// Freed, and out of the quarantine.
    Recycled,
}

/// Can the device reach a page?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// A table entry leads to it.
    Mapped,
    /// None does.
    Unmapped,
    /// By its physical address: nothing is isolated.
    Identity,
    /// No address that leads to it was ever seen; it is the page whose
    /// physical address this is.
    Never,
    /// The writes of the tables were not seen.
    Unknown,
}

/// The pages around the finding's, in the order of the device's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Surroundings {
    /// Address of the first.
    pub first: Iova,
    /// The pages.
    pub pages: Vec<Neighbour>,
}

/// The mapping of an MDL for the device that an access is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MdlFacts {
    /// Handle of the mapping.
    pub handle: u64,
    /// Address of the MDL.
    pub mdl: u64,
    /// Who mapped it.
    pub mapped: Place,
    /// Who unmapped it, if it was.
    pub unmapped: Option<Place>,
}

/// A part of a queue (virtio 1.2 §2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueuePart {
    /// Its descriptor table.
    DescriptorTable,
    /// Its available ring.
    AvailableRing,
    /// Its used ring.
    UsedRing,
}

impl QueuePart {
    /// The specification's name for it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::DescriptorTable => "descriptor table",
            Self::AvailableRing => "available ring",
            Self::UsedRing => "used ring",
        }
    }
}

/// The area of a queue that an access is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QueueArea {
    /// Which queue.
    pub queue: u16,
    /// What of it.
    pub part: QueuePart,
}

/// What a [`Clue`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClueKind {
    /// Where the IRQL was raised to what it was.
    Raised,
    /// Where the queue was enabled, with the addresses that it has.
    QueueEnabled,
    /// Where the device was told the address, as a resource's backing.
    Attached,
    /// Where the MDL or the block itself was freed.
    Released,
    /// Where the MDL was mapped to user addresses.
    UserMapped,
    /// Where the MDL was locked.
    Locked,
    /// The same, for reading alone.
    LockedForReading,
    /// When the guest told that it gave the memory up.
    Claimed,
}

/// Something that the driver did earlier, and that led to a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clue {
    /// What it tells.
    pub kind: ClueKind,
    /// The same in words, with the particulars.
    pub text: String,
    /// When and where.
    pub place: Place,
}

/// What the guest told of the memory that a finding is about. Nobody has
/// checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimFacts {
    /// What the guest calls the memory.
    pub cookie: u64,
    /// What it calls the place that allocates such memory.
    pub tag: u32,
    /// Its pages.
    pub pages: u64,
    /// Index of the finding's page in it.
    pub page_index: Option<u64>,
    /// When it was told to be allocated, virtual nanoseconds.
    pub allocated: u64,
    /// When it was told to be given up.
    pub retired: Option<u64>,
    /// When it was told to be freed.
    pub freed: Option<u64>,
}

/// What belongs to an access of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessFacts {
    /// The device.
    pub device: RequesterId,
    /// The domain that its requests are translated in, if known.
    pub domain: Option<u16>,
    /// The address it used.
    pub iova: Iova,
    /// The page there: where it led, or had led.
    pub page: Option<Gpa>,
    /// Bytes of the first access; 0 without one.
    pub length: u32,
    /// Did the device write to memory?
    pub write: bool,
    /// What became of the first access.
    pub outcome: Outcome,
    /// Generation of the mapping it used.
    pub generation: Option<u32>,
    /// The allocation that the page is part of by now, if it is another.
    pub reused_by: Option<AllocationFacts>,
    /// The command.
    pub command: Option<Command>,
    /// Why the IOMMU refused it, if it did.
    pub refusal: Option<Refusal>,
    /// The MDL by which the page was mapped last, if it was by one.
    pub mdl: Option<MdlFacts>,
    /// Where the driver asked for the address, if it asked Windows for a
    /// physical one.
    pub origin: Option<Place>,
    /// The area of a queue that the address is in, as the device was told of
    /// it.
    pub area: Option<QueueArea>,
    /// The pages around it.
    pub surroundings: Surroundings,
}

/// What belongs to a rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreachFacts {
    /// The rule (`dmasan rules`); `None` where the breach is of no one rule.
    pub rule: Option<String>,
    /// The routine of Windows that was called, or the driver's own that was
    /// running.
    pub routine: Option<String>,
    /// MDL, memory or handle that it is about; else 0.
    pub address: u64,
    /// What the routine returned (NTSTATUS); `None` where Windows is silent or
    /// stops.
    pub status: Option<u32>,
    /// Where the driver was.
    pub place: Place,
    /// How sure it is that Windows answers so.
    pub certainty: Certainty,
    /// What happened, what the rule says, and its source.
    pub reason: String,
}

/// One finding: accesses, or broken rules, that have one cause. It has
/// [`Finding::access`] or [`Finding::breach`], by its nature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// What happened, in a sentence.
    pub summary: String,
    /// How many accesses or breaches; for `mapped-after-free` and
    /// `missing-invalidation` of a device how many pages.
    pub count: u64,
    /// When the first was, virtual nanoseconds.
    pub time: u64,
    /// When the last was.
    pub last_time: u64,
    /// The device's access.
    pub access: Option<AccessFacts>,
    /// The broken rule.
    pub breach: Option<BreachFacts>,
    /// The allocation that it is about: the first, where the same happened to
    /// several.
    pub allocation: Option<AllocationFacts>,
    /// How many allocations it is about, as far as they were counted.
    pub allocations: u64,
    /// What the guest told, where the finding rests on that.
    pub claim: Option<ClaimFacts>,
    /// What the driver did earlier that led to it.
    pub clues: Vec<Clue>,
    /// Whose defect it is, first who must mend it first.
    pub blame: Vec<Blame>,
    /// The bug check that Windows raises; `None` if it raises none.
    pub stop: Option<Stop>,
    /// The life of the page.
    pub history: Told,
    /// Indices of findings about the same access.
    pub related: Vec<usize>,
}

impl Finding {
    /// The device's command, if it is about one.
    #[must_use]
    pub fn command(&self) -> Option<&Command> {
        self.access.as_ref()?.command.as_ref()
    }

    /// What the driver did earlier, if it is known.
    #[must_use]
    pub fn clue(&self, kind: ClueKind) -> Option<&Clue> {
        self.clues.iter().find(|clue| clue.kind == kind)
    }

    /// Where the driver's code did what the finding is about: submitted the
    /// command, or broke the rule.
    #[must_use]
    pub fn used(&self) -> Option<&Place> {
        match &self.breach {
            Some(breach) => Some(&breach.place),
            None => self.command()?.submitted.as_ref(),
        }
    }
}
