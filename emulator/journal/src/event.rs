//! The vocabulary. Data only: what an event means is said by `ledger`.
//!
//! Events of the guest's side carry the addresses the guest used; names and
//! stacks are interned ([`Event::Name`], [`Event::Stack`]) and written before
//! their first use.

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

/// One event and the virtual time at which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Virtual nanoseconds since the run began.
    pub time: u64,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    // ---- the run ---------------------------------------------------------
    /// The first event: what is run, and every setting that shapes it.
    Begin(Begin),
    /// An image was loaded.
    Module(Module),
    /// A text got its id.
    Name {
        /// Its id from now on.
        id: NameId,
        /// The text.
        text: String,
    },
    /// A stack got its id.
    Stack {
        /// Its id from now on.
        id: StackId,
        /// Instruction addresses, innermost first; the first is the place
        /// itself, the rest are return addresses.
        frames: Vec<u64>,
    },
    /// The last event.
    End(End),

    // ---- the driver and Windows -------------------------------------------
    /// The driver calls Windows.
    Call {
        /// The routine.
        function: NameId,
        /// Its first arguments, as raw register or stack values.
        arguments: Vec<u64>,
        /// IRQL of the caller.
        irql: u8,
        /// Index of the calling thread.
        thread: u32,
        /// Who called.
        stack: StackId,
    },
    /// Windows returns to the driver.
    Return {
        /// The routine.
        function: NameId,
        /// RAX.
        value: u64,
    },
    /// Windows calls the driver.
    Enter {
        /// The driver's routine, by the name of its slot.
        routine: NameId,
        /// Where it is.
        address: u64,
        /// Its first arguments.
        arguments: Vec<u64>,
        /// IRQL it runs at.
        irql: u8,
        /// Index of the thread it runs in.
        thread: u32,
    },
    /// The driver's routine returns.
    Leave {
        /// The routine.
        routine: NameId,
        /// RAX.
        value: u64,
    },
    /// The driver's code trapped other than by a call.
    Trap {
        /// Why.
        kind: TrapKind,
        /// Address accessed, or of the instruction.
        address: u64,
        /// Value written, read, or set.
        value: u64,
        /// Bytes, where it is an access.
        size: u8,
        /// Where.
        stack: StackId,
    },
    /// The driver printed.
    DebugPrint {
        /// One call's text.
        text: String,
    },
    /// Something about the run that a reader of its results must know.
    Note {
        /// In words.
        text: String,
    },
    /// A choice was made.
    Choice {
        /// Number of the choice in this run, from 0.
        number: u64,
        /// What was to choose.
        point: Point,
        /// How many ways there were.
        options: u32,
        /// Which was taken; 0 is the default.
        taken: u32,
    },
    /// Windows stops, or would stop.
    BugCheck(BugCheck),

    // ---- who owns pages ----------------------------------------------------
    /// Pages were given to the driver.
    Allocate(Allocation),
    /// Pages are back with Windows: the routine that frees them has done all
    /// it does.
    Free {
        /// Which allocation.
        allocation: AllocationId,
        /// Who freed it.
        stack: StackId,
    },
    /// Frames left the quarantine and can be given out again.
    Recycle {
        /// The frames.
        pages: Vec<PageRun>,
    },

    // ---- programming of the IOMMU -----------------------------------------
    /// A register of the IOMMU was written.
    RegisterWrite {
        /// Byte offset in the register page.
        offset: u16,
        /// 4 or 8.
        size: u8,
        /// The value.
        value: u64,
    },
    /// The OS wrote an 8-byte entry of a table or a half descriptor.
    TableWrite {
        /// Where.
        address: Gpa,
        /// What it held.
        old: u64,
        /// What it holds now.
        new: u64,
        /// Which table.
        table: Table,
    },
    /// The IOMMU fetched an invalidation descriptor.
    Descriptor {
        /// Low and high half (128 bits, VT-d 6.5.2).
        words: [u64; 2],
    },
    /// The IOMMU dropped cached translations.
    Invalidate {
        /// How much was asked for.
        scope: Scope,
        /// Were reads in flight landed first (DR)?
        drain_reads: bool,
        /// Were writes in flight landed first (DW)?
        drain_writes: bool,
        /// Entries that were dropped.
        dropped: u32,
    },
    /// The IOMMU wrote the status of a wait descriptor.
    WaitDone {
        /// Where.
        address: Gpa,
        /// What.
        value: u32,
    },
    /// A walk of the tables ended in a leaf, which was cached.
    Fill {
        /// Domain id of the context entry.
        domain: u16,
        /// First address that the leaf maps.
        iova: Iova,
        /// Where it leads.
        page: Gpa,
        /// Bytes that the leaf maps.
        size: u64,
        /// Where the leaf entry lies.
        entry: Gpa,
        /// The leaf entry as the walk read it.
        value: u64,
        /// Generation of the mapping: grows with every fill of the unit, so
        /// that two mappings of one address are told apart.
        generation: u32,
    },

    // ---- the device --------------------------------------------------------
    /// The driver notified a queue of the device.
    Notify {
        /// Which device.
        device: RequesterId,
        /// Which queue.
        queue: u16,
        /// The available index then, if it could be read.
        available: Option<u16>,
    },
    /// A context was minted: the device took an available entry.
    Context {
        /// Its id.
        context: ContextId,
        /// Which device.
        device: RequesterId,
        /// Which queue.
        queue: u16,
        /// Position in the available ring (the free-running index).
        position: u16,
        /// Head descriptor.
        head: u16,
    },
    /// The device learnt which command a context is.
    Command {
        /// Whose.
        context: ContextId,
        /// The command, in the specification's words.
        name: NameId,
        /// What it works on, in words.
        detail: String,
    },
    /// The device answered a command.
    Response {
        /// Whose.
        context: ContextId,
        /// The answer's code.
        code: u32,
        /// The answer, in the specification's words.
        name: NameId,
    },
    /// The device accessed memory: the issue of the access.
    Access {
        /// For which command.
        context: ContextId,
        /// Which device.
        device: RequesterId,
        /// Where.
        iova: Iova,
        /// Bytes; never crosses a page.
        length: u32,
        /// To memory?
        write: bool,
        /// How it went.
        outcome: Outcome,
    },
    /// An access that was parted from its issue landed.
    Landed {
        /// Which.
        token: TokenId,
        /// Was it an invalidation that made it land?
        drained: bool,
    },
    /// The device gave an access up between issue and landing (a reset).
    Cancelled {
        /// Which.
        token: TokenId,
    },
    /// The IOMMU refused an access.
    Fault {
        /// For which command.
        context: ContextId,
        /// Which device.
        device: RequesterId,
        /// Where.
        iova: Iova,
        /// To memory?
        write: bool,
        /// Fault reason (VT-d 7.1.3).
        reason: u8,
        /// Is it in a fault record, or was there no room (overflow)?
        recorded: bool,
    },
    /// The device sent a message-signalled interrupt.
    Message {
        /// Which device.
        device: RequesterId,
        /// Address of the message.
        address: u64,
        /// Its data.
        data: u32,
        /// Why it went nowhere, if it did.
        refused: Option<NameId>,
    },
    /// The device stopped until it is reset, or was reset.
    DeviceState {
        /// Which device.
        device: RequesterId,
        /// In the specification's words.
        state: NameId,
    },
    /// A frame reached a scanout.
    Flush {
        /// Which scanout.
        scanout: u32,
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
        /// CRC-32 of its pixels, rows top to bottom, B8G8R8X8.
        crc: u32,
    },
}

/// What is run, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Version of dmasan.
    pub version: String,
    /// File name (no path) of the driver.
    pub driver: String,
    /// `passthrough` or `isolation`.
    pub domain: String,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// What was to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Point {
    /// After a trap: does the device take a step (0), or wait (1)?
    Device,
    /// An interrupt is pending: deliver it now (0), or later (1)?
    Interrupt,
    /// An access was issued: does it land at once (0), or later (1)?
    Landing,
    /// An access is in flight: does it land now (0), or later (1)?
    InFlight,
    /// Bytes that the driver may not foresee.
    Random,
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
    /// Refused; an [`Event::Fault`] says why.
    Refused,
}
