//! Registers (§11.4): offsets, bits, and the layout table.

/// Version (§11.4.1).
pub const VER: u16 = 0x00;
/// Capabilities (§11.4.2).
pub const CAP: u16 = 0x08;
/// Extended capabilities (§11.4.3).
pub const ECAP: u16 = 0x10;
/// Global command (§11.4.4.1).
pub const GCMD: u16 = 0x18;
/// Global status (§11.4.4.2).
pub const GSTS: u16 = 0x1c;
/// Root table address (§11.4.5).
pub const RTADDR: u16 = 0x20;
/// Context command (§11.4.6): invalidation of context entries by register.
pub const CCMD: u16 = 0x28;
/// Fault status (§11.4.7.1).
pub const FSTS: u16 = 0x34;
/// Fault event control (§11.4.7.2).
pub const FECTL: u16 = 0x38;
/// Fault event data (§11.4.7.3).
pub const FEDATA: u16 = 0x3c;
/// Fault event address (§11.4.7.4).
pub const FEADDR: u16 = 0x40;
/// Fault event upper address (§11.4.7.5).
pub const FEUADDR: u16 = 0x44;
/// Invalidation queue head (§11.4.9).
pub const IQH: u16 = 0x80;
/// Invalidation queue tail (§11.4.9).
pub const IQT: u16 = 0x88;
/// Invalidation queue address (§11.4.9).
pub const IQA: u16 = 0x90;
/// Invalidation completion status (§11.4.9).
pub const ICS: u16 = 0x9c;
/// Invalidation event control (§11.4.9).
pub const IECTL: u16 = 0xa0;
/// Invalidation event data (§11.4.9).
pub const IEDATA: u16 = 0xa4;
/// Invalidation event address (§11.4.9).
pub const IEADDR: u16 = 0xa8;
/// Invalidation event upper address (§11.4.9).
pub const IEUADDR: u16 = 0xac;
/// Invalidation queue error record (§11.4.9).
pub const IQERCD: u16 = 0xb0;
/// Invalidate address (§11.4.6), at 16 × ECAP.IRO.
pub const IVA: u16 = 0xf0;
/// IOTLB invalidate (§11.4.6.3), 8 bytes after [`IVA`].
pub const IOTLB: u16 = 0xf8;
/// The first fault record (§11.4.7.6), at 16 × CAP.FRO; 16 bytes each.
pub const FRCD: u16 = 0x220;
/// How many fault records there are.
pub const FAULT_RECORDS: usize = 8;
/// One past the last register.
pub const END: u16 = FRCD + 16 * FAULT_RECORDS as u16;

/// Bits of a domain id: CAP.ND = 6 is 16 of them.
const CAP_ND: u64 = 6;
/// Widths of domains: 39 bits (3 levels) and 48 bits (4 levels).
const CAP_SAGAW: u64 = 0b0_0110 << 8;
/// Bits of an input address.
pub const GUEST_ADDRESS_BITS: u32 = 48;
/// Zero-length reads of write-only pages are allowed.
const CAP_ZLR: u64 = 1 << 22;
/// 2 MiB and 1 GiB leaves.
const CAP_SLLPS: u64 = 0b0011 << 34;
/// Page-selective invalidation.
const CAP_PSI: u64 = 1 << 39;
/// Largest address mask of a page-selective invalidation: 1 GiB.
pub const MAX_ADDRESS_MASK: u8 = 18;
/// Write and read draining.
const CAP_DRAIN: u64 = 1 << 54 | 1 << 55;

/// Value of [`CAP`]. CM is clear: what is not present is not cached, so an OS
/// need not invalidate after mapping. AFL, RWBF, PLMR and PHMR are clear.
/// ESRTPS is clear: setting the root pointer drops nothing by itself.
pub const CAP_VALUE: u64 = CAP_ND
    | CAP_SAGAW
    | ((GUEST_ADDRESS_BITS as u64 - 1) << 16)
    | CAP_ZLR
    | ((FRCD as u64 / 16) << 24)
    | CAP_SLLPS
    | CAP_PSI
    | ((FAULT_RECORDS as u64 - 1) << 40)
    | ((MAX_ADDRESS_MASK as u64) << 48)
    | CAP_DRAIN;

/// Value of [`ECAP`]: coherent walks (C), queued invalidation (QI), pass-through
/// (PT), and where [`IVA`] lies. DT is clear, so translation type 01 and
/// device-TLB descriptors are invalid; SC is clear, so bit 11 of an entry is
/// reserved; IR is clear.
pub const ECAP_VALUE: u64 = 1 | 1 << 1 | 1 << 6 | ((IVA as u64 / 16) << 8);

/// GCMD.TE and GSTS.TES: translation.
pub const TRANSLATION_ENABLE: u32 = 1 << 31;
/// GCMD.SRTP and GSTS.RTPS: set root table pointer, one-shot.
pub const SET_ROOT_POINTER: u32 = 1 << 30;
/// GCMD.QIE and GSTS.QIES: queued invalidation.
pub const QUEUE_ENABLE: u32 = 1 << 26;

/// CCMD.ICC: do it; clears when done.
pub const CCMD_INVALIDATE: u64 = 1 << 63;
/// Position of CCMD.CIRG, what is asked for (1 global, 2 domain, 3 device).
pub const CCMD_REQUESTED: u32 = 61;
/// Position of CCMD.CAIG, what was done.
pub const CCMD_ACTUAL: u32 = 59;
/// IOTLB.IVT: do it; clears when done.
pub const IOTLB_INVALIDATE: u64 = 1 << 63;
/// Position of IOTLB.IIRG, what is asked for (1 global, 2 domain, 3 pages).
pub const IOTLB_REQUESTED: u32 = 60;
/// Position of IOTLB.IAIG, what was done.
pub const IOTLB_ACTUAL: u32 = 57;
/// IOTLB.DR: drain reads.
pub const IOTLB_DRAIN_READS: u64 = 1 << 49;
/// IOTLB.DW: drain writes.
pub const IOTLB_DRAIN_WRITES: u64 = 1 << 48;
/// Position of IOTLB.DID.
pub const IOTLB_DOMAIN: u32 = 32;

/// FSTS.PFO: a fault found no free record; none is recorded until cleared.
pub const FAULT_OVERFLOW: u32 = 1;
/// FSTS.PPF: some record holds a fault.
pub const FAULT_PENDING: u32 = 1 << 1;
/// FSTS.IQE: the queue stopped at an error.
pub const QUEUE_ERROR: u32 = 1 << 4;
/// Position of FSTS.FRI, the record that set PPF.
pub const FAULT_INDEX: u32 = 8;
/// Every status bit of FSTS that this unit can set.
pub const FAULT_STATUS: u32 = FAULT_OVERFLOW | FAULT_PENDING | QUEUE_ERROR;

/// FECTL.IM and IECTL.IM: hold the message back.
pub const EVENT_MASK: u32 = 1 << 31;
/// FECTL.IP and IECTL.IP: a message is held back.
pub const EVENT_PENDING: u32 = 1 << 30;
/// ICS.IWC: a wait descriptor with IF completed.
pub const WAIT_COMPLETE: u32 = 1;

/// FRCD.F (bit 127), in the high half.
pub const RECORD_FAULT: u64 = 1 << 63;
/// FRCD.T1 (bit 126), in the high half: set for a read.
pub const RECORD_READ: u64 = 1 << 62;
/// Position of FRCD.FR in the high half.
pub const RECORD_REASON: u32 = 32;

/// IQA.QS: log2 of the queue's size in pages.
pub const QUEUE_SIZE: u64 = 0b111;
/// IQA.DW: descriptors of 256 bits, which belong to scalable mode.
pub const QUEUE_WIDE: u64 = 1 << 11;
/// IQERCD.IQEI, why the queue stopped (§11.4.9).
pub mod queue_error {
    /// The tail is beyond the queue.
    pub const TAIL: u64 = 1;
    /// The descriptor could not be fetched.
    pub const FETCH: u64 = 2;
    /// Its type is none that this unit has.
    pub const TYPE: u64 = 3;
    /// A reserved field is set, or a field has a reserved value.
    pub const RESERVED: u64 = 4;
    /// IQA.DW is set, and ECAP offers neither scalable nor abort-DMA mode.
    pub const WIDTH: u64 = 5;
}

/// One register: a row of the layout.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Byte offset.
    pub offset: u16,
    /// Bytes: 4 or 8.
    pub size: u8,
    /// Value after reset.
    pub reset: u64,
    /// Bits that software writes.
    pub writable: u64,
    /// Bits that software clears by writing 1.
    pub clear: u64,
}

const fn row(offset: u16, size: u8, reset: u64, writable: u64, clear: u64) -> Row {
    Row {
        offset,
        size,
        reset,
        writable,
        clear,
    }
}

const FIXED: usize = 23;
const PAGE: u64 = !0xfff;

const fn layout() -> [Row; FIXED + 2 * FAULT_RECORDS] {
    // GCMD is write-only: it holds nothing, and its bits act as they come.
    let fixed: [Row; FIXED] = [
        row(VER, 4, 0x10, 0, 0),
        row(CAP, 8, CAP_VALUE, 0, 0),
        row(ECAP, 8, ECAP_VALUE, 0, 0),
        row(GCMD, 4, 0, 0, 0),
        row(GSTS, 4, 0, 0, 0),
        row(RTADDR, 8, 0, PAGE, 0),
        row(CCMD, 8, 0, !(0b11 << CCMD_ACTUAL), 0),
        row(FSTS, 4, 0, 0, (FAULT_OVERFLOW | QUEUE_ERROR) as u64),
        row(FECTL, 4, EVENT_MASK as u64, EVENT_MASK as u64, 0),
        row(FEDATA, 4, 0, 0xffff, 0),
        row(FEADDR, 4, 0, 0xffff_fffc, 0),
        row(FEUADDR, 4, 0, 0xffff_ffff, 0),
        row(IQH, 8, 0, 0, 0),
        row(IQT, 8, 0, 0x7_fff0, 0),
        row(IQA, 8, 0, PAGE | QUEUE_WIDE | QUEUE_SIZE, 0),
        row(ICS, 4, 0, 0, WAIT_COMPLETE as u64),
        row(IECTL, 4, EVENT_MASK as u64, EVENT_MASK as u64, 0),
        row(IEDATA, 4, 0, 0xffff, 0),
        row(IEADDR, 4, 0, 0xffff_fffc, 0),
        row(IEUADDR, 4, 0, 0xffff_ffff, 0),
        row(IQERCD, 8, 0, 0, 0),
        row(IVA, 8, 0, PAGE | 0x7f, 0),
        row(IOTLB, 8, 0, !(0b11 << IOTLB_ACTUAL), 0),
    ];
    let mut rows = [row(0, 0, 0, 0, 0); FIXED + 2 * FAULT_RECORDS];
    let mut i = 0;
    while i < FIXED {
        rows[i] = fixed[i];
        i += 1;
    }
    let mut record = 0;
    while record < FAULT_RECORDS {
        let offset = FRCD + 16 * record as u16;
        rows[i] = row(offset, 8, 0, 0, 0);
        rows[i + 1] = row(offset + 8, 8, 0, 0, RECORD_FAULT);
        i += 2;
        record += 1;
    }
    rows
}

/// Every register.
pub const LAYOUT: [Row; FIXED + 2 * FAULT_RECORDS] = layout();
