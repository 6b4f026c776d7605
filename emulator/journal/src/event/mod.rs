//! The vocabulary. Data only: what an event means is said by `ledger`.
//!
//! Events of the guest's side carry the addresses the guest used; names and
//! stacks are interned ([`Event::Name`], [`Event::Stack`]) and written before
//! their first use.

mod parts;

pub use parts::*;

use memory::{Gpa, Iova, RequesterId};
use serde::{Deserialize, Serialize};

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
    /// A rule was broken that Windows answers with a status, or with silence.
    Breach(Breach),
    /// The driver refused a step of the workload: the steps after it were
    /// not run.
    Refused {
        /// Which step, in words, and from 1.
        step: String,
        /// What the driver returned (NTSTATUS).
        status: u32,
    },
    /// The driver told its caps.
    Caps {
        /// `DXGK_VIDMMCAPS`, its first 32 bits.
        memory: u32,
    },
    /// Exclusive access began or ended: between the two the device may not
    /// touch system memory.
    ExclusiveAccess {
        /// Did it begin?
        begun: bool,
    },

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

    /// An MDL of the driver's was mapped for the device
    /// (`DxgkCbMapMdlToIoMmu`).
    MapMdl(MdlMapping),
    /// It was unmapped: the routine has done all it does.
    UnmapMdl {
        /// Its handle.
        handle: u64,
        /// Who unmapped it.
        stack: StackId,
    },
    /// The driver asked for the physical address of its memory
    /// (`MmGetPhysicalAddress`).
    Physical {
        /// The virtual address.
        address: u64,
        /// Where it leads.
        gpa: Gpa,
        /// Who asked.
        stack: StackId,
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

    /// A remapping unit that is not ours lets a device reach a range.
    Map {
        /// Which device.
        device: RequesterId,
        /// First address.
        iova: Iova,
        /// Bytes.
        length: u64,
        /// Where it leads; `None`: to what is no RAM.
        target: Option<Gpa>,
        /// May the device read?
        read: bool,
        /// May it write?
        write: bool,
        /// Generation of the mapping, as of [`Event::Fill`].
        generation: u32,
    },
    /// It lets the device reach a range no longer. What was in flight has
    /// landed.
    Unmap {
        /// Which device.
        device: RequesterId,
        /// First address.
        iova: Iova,
        /// Bytes; any part of them may have been mapped.
        length: u64,
        /// Pages that were.
        dropped: u64,
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
        /// The resource it works on, if it is one.
        resource: Option<u32>,
    },
    /// A command gave a resource its backing.
    Backing {
        /// The command.
        context: ContextId,
        /// The resource.
        resource: u32,
        /// Its memory, in order, as the driver named it.
        segments: Vec<Segment>,
    },
    /// A resource has no backing any more.
    NoBacking {
        /// The command; 0 for a reset.
        context: ContextId,
        /// The resource.
        resource: u32,
    },
    /// The driver enabled a queue.
    Queue {
        /// Which device.
        device: RequesterId,
        /// Which queue.
        queue: u16,
        /// Its descriptor table, available ring and used ring.
        areas: [Segment; 3],
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
    /// A fault of the scenario was injected.
    Injected {
        /// Which of the plan's, from 0.
        fault: u32,
        /// What it is called.
        name: String,
        /// Where: the kind of site first, then what is known of it.
        site: String,
        /// What was done.
        outcome: String,
    },

    /// The guest told something of its memory.
    Claim(Claim),
}
