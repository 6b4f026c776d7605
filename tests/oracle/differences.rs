//! Differences that are known, and why: seen with QEMU 7.2 (Debian 12).

use crate::bench::Row;

/// A letter, and the reason it stands for.
pub type Reason = (&'static str, &'static str);

const CAPABILITY: Reason = (
    "a",
    "capabilities that a unit chooses: zero-length reads, 8 fault records instead of 1, coherent walks",
);
const OPTIONAL: Reason = (
    "b",
    "optional bits: QEMU has RTADDR.TTM for scalable mode, upper message addresses only with EIM, 32 bits of IEDATA",
);
const READ_BACK: Reason = (
    "c",
    "QEMU reads IQA back from the queue that runs, and IVA as write-only (its value is undefined in the specification)",
);
const COARSE: Reason = (
    "d",
    "QEMU drops more contexts than asked for, which 6.5.1.1 allows: all for a domain, whatever the domain for a device",
);
const REGISTERS_OFF: Reason = (
    "e",
    "registers must not be used while the queue is on (6.5.1): QEMU leaves IVT set, we answer with IAIG 0",
);
const FPD: Reason = (
    "f",
    "a reserved bit of a context entry is a qualified fault (LCT.3 of the table in 7.1.3): FPD silences it, in QEMU not",
);
const INTERRUPT_READ: Reason = (
    "g",
    "a read of the interrupt range: QEMU lets it end in its interrupt region and records nothing",
);
const PASS_THROUGH: Reason = (
    "h",
    "pass-through: QEMU checks no address against the host's width (LGN.1.3), and the ignored table address against it",
);
const EIGHT_BITS: Reason = (
    "i",
    "QEMU keeps the mask of a page-selective invalidation in 8 bits, and so drops more than was asked for",
);
const CACHED_RIGHTS: Reason = (
    "j",
    "a cached translation without the right: we walk again, so granting needs no invalidation; QEMU refuses without a record",
);
const TAGGED: Reason = (
    "k",
    "QEMU tags its IOTLB with the device and asks it before the context; the specification tags it with the domain (6.2.1)",
);
const FLUSHES: Reason = (
    "l",
    "QEMU drops its caches at SRTP (as with CAP.ESRTPS, which neither has) and when TE changes; software must not rely on it",
);
const BARE_WAIT: Reason = (
    "m",
    "a wait with neither SW nor IF is only a fence; QEMU takes it for an error",
);
const STATUS: Reason = (
    "n",
    "a status write to where there is no RAM: lost as on a bus; QEMU stops the queue",
);
const LENIENT: Reason = (
    "o",
    "QEMU accepts what ECAP does not offer: device-TLB and PASID descriptors (6.5.2.5 asks for IQE), and ignores IQA.DW (IQEI 5)",
);
const NO_RECORD: Reason = (
    "p",
    "QEMU 7.2 has no IQERCD: 0 means that no information is available",
);
const NO_RESUME: Reason = (
    "q",
    "after IQE was cleared hardware fetches again from the head; QEMU waits for the next write of the tail",
);
const COLLAPSE: Reason = (
    "r",
    "QEMU merges faults of a device that has one pending, which 7.2.1 allows; ours keep each",
);

/// Reason, case, step, what ours shows, what QEMU shows.
type Known = (
    Reason,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    (CAPABILITY, "capabilities", "CAP.ZLR", "0x1", "0x0"),
    (CAPABILITY, "capabilities", "CAP.NFR", "0x7", "0x0"),
    (CAPABILITY, "capabilities", "ECAP.C", "0x1", "0x0"),
    (OPTIONAL, "registers", "RTADDR after ones", "0xfffffffffffff000", "0xfffffffffffffc00"),
    (OPTIONAL, "registers", "FEUADDR after ones", "0xffffffff", "0x0"),
    (READ_BACK, "registers", "IQA after ones", "0xfffffffffffff807", "0x7"),
    (OPTIONAL, "registers", "IEDATA after ones", "0xffff", "0xffffffff"),
    (OPTIONAL, "registers", "IEUADDR after ones", "0xffffffff", "0x0"),
    (READ_BACK, "registers", "IVA after ones", "0xfffffffffffff07f", "0x0"),
    (READ_BACK, "registers", "IQA after an address of 47 bits and QS 7", "0x7ffffffff007", "0x7"),
    (OPTIONAL, "registers", "FEUADDR after 8 bytes to FEADDR", "0x1", "0x0"),
    (COARSE, "invalidation by register", "CCMD after 2", "0x5000000000000007", "0x4800000000000007"),
    (REGISTERS_OFF, "invalidation by register, queue on", "IOTLB after 1", "0x1000000000000000", "0x9200000000000000"),
    (FPD, "walk", "context FPD, bit 4: write", "refused", "refused PPF [W reason b from 0020 at 0x1234567000]"),
    (FPD, "walk", "context FPD, bit 4: read", "refused", "refused PPF [R reason b from 0020 at 0x1234567000]"),
    (INTERRUPT_READ, "addresses", "the interrupt range, read", "refused PPF [R reason e from 0020 at 0xfee00000]", "refused"),
    (PASS_THROUGH, "pass-through", "beyond 48 bits", "refused PPF [W reason 4 from 0020 at 0x1000005000000]", "refused"),
    (PASS_THROUGH, "pass-through, table beyond the host width", "write", "landed", "refused PPF [W reason b from 0020 at 0x5000000]"),
    (EIGHT_BITS, "cleared 2 MiB page", "the page after it: after", "landed", "refused PPF [W reason 5 from 0020 at 0x40009000]"),
    (CACHED_RIGHTS, "widened leaf", "read-only was cached, now writable", "landed", "refused"),
    (CACHED_RIGHTS, "denied by the cache", "read-only is cached: write", "refused PPF [W reason 5 from 0020 at 0x1234567000]", "refused"),
    (COARSE, "changed context", "its new domain: to the old page", "landed", "refused"),
    (COARSE, "changed context", "its new domain: to the new page", "refused", "landed"),
    (COARSE, "changed context", "the device, new domain: to the old page", "landed", "refused"),
    (COARSE, "changed context", "the device, new domain: to the new page", "refused", "landed"),
    (TAGGED, "removed context", "its context invalidated", "refused PPF [W reason 2 from 0020 at 0x1234567000]", "landed"),
    (FLUSHES, "changed root", "SRTP", "landed", "refused PPF [W reason 1 from 0020 at 0x1234567000]"),
    (FLUSHES, "translation off and on", "leaf cleared", "landed", "refused PPF [W reason 5 from 0020 at 0x1234567000]"),
    (TAGGED, "one domain, two devices", "the other device, after the leaf was cleared", "landed", "refused PPF [W reason 5 from 0028 at 0x1234567000]"),
    (BARE_WAIT, "descriptors", "wait, SW clear", "status 2 0, IQH 0x30, ICS 0", "status 1 0, IQH 0x10, ICS 0 IQE"),
    (STATUS, "descriptors", "wait, status outside RAM", "status 2 0, IQH 0x30, ICS 0", "status 1 0, IQH 0x10, ICS 0 IQE"),
    (LENIENT, "descriptors", "device TLB", "status 1 0, IQH 0x10, ICS 0 IQE", "status 2 0, IQH 0x30, ICS 0"),
    (LENIENT, "descriptors", "type 6", "status 1 0, IQH 0x10, ICS 0 IQE", "status 2 0, IQH 0x30, ICS 0"),
    (LENIENT, "descriptors", "type 7", "status 1 0, IQH 0x10, ICS 0 IQE", "status 2 0, IQH 0x30, ICS 0"),
    (NO_RECORD, "IQERCD", "type 0", "0x3", "0x0"),
    (NO_RECORD, "IQERCD", "reserved bits", "0x4", "0x0"),
    (LENIENT, "wide descriptors", "one wait", "status 0 IQE", "status 3"),
    (NO_RESUME, "a stopped queue", "IQE cleared, nothing mended", "status 0 IQE", "status 0"),
    (NO_RESUME, "a stopped queue", "mended, IQE cleared", "status 6", "status 0"),
    (COLLAPSE, "records", "another of the same device", " PPF [W reason 5 from 0020 at 0x700000000] [W reason 5 from 0020 at 0x700005000]", " PPF [W reason 5 from 0020 at 0x700000000]"),
    (NO_RESUME, "fault event", "IQE cleared, the descriptor still broken", "FSTS 0x12", "FSTS 0x2"),
];

/// Why these two differ, if it is known that they do in this way.
pub fn reason(ours: &Row, theirs: &Row) -> Option<Reason> {
    KNOWN
        .iter()
        .find(|(_, case, step, mine, other)| {
            (*case, *step) == (ours.case, ours.step.as_str())
                && (*mine, *other) == (ours.seen.as_str(), theirs.seen.as_str())
        })
        .map(|known| known.0)
}

/// Known differences that `differs` does not confirm.
pub fn gone(differs: impl Fn(&str, &str) -> bool) -> Vec<(&'static str, &'static str)> {
    KNOWN
        .iter()
        .filter(|(_, case, step, ..)| !differs(case, step))
        .map(|(_, case, step, ..)| (*case, *step))
        .collect()
}
