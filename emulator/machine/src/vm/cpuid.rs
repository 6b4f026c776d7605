//! The processor that a driver sees: the same on every host.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const fn bits(list: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

// Leaf 1 (Intel SDM vol. 2, CPUID): SSE to 4.2, CMPXCHG16B, POPCNT. No XSAVE,
// so no AVX; no RDRAND; and the hypervisor bit, as the truth.
const LEAF1_ECX: u32 = bits(&[0, 9, 13, 19, 20, 23, 31]);
// FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT,
// PSE36, CLFLUSH, MMX, FXSR, SSE, SSE2.
const LEAF1_EDX: u32 = bits(&[
    0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26,
]);
// Fast `rep movsb`; UMIP.
const LEAF7_EBX: u32 = bits(&[9]);
const LEAF7_ECX: u32 = bits(&[2]);
// SYSCALL, NX, RDTSCP, long mode; LAHF.
const EXT1_EDX: u32 = bits(&[11, 20, 27, 29]);
const EXT1_ECX: u32 = bits(&[0]);
/// 40 physical and 48 virtual address bits.
const ADDRESS_BITS: u32 = 48 << 8 | 40;
/// Family 6, model 0x5e, stepping 3.
const SIGNATURE: u32 = 0x0005_06e3;

/// (leaf, eax, ebx, ecx, edx)
const LEAVES: &[(u32, u32, u32, u32, u32)] = &[
    // "GenuineIntel"
    (0, 7, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
    (1, SIGNATURE, 8 << 8 | 1 << 16, LEAF1_ECX, LEAF1_EDX),
    (2, 0, 0, 0, 0),
    (7, 0, LEAF7_EBX, LEAF7_ECX, 0),
    // "dmasan", as hypervisors name themselves from here on.
    (
        0x4000_0000,
        0x4000_0000,
        u32::from_le_bytes(*b"dmas"),
        u32::from_le_bytes(*b"an\0\0"),
        0,
    ),
    (0x8000_0000, 0x8000_0008, 0, 0, 0),
    (0x8000_0001, 0, 0, EXT1_ECX, EXT1_EDX),
    (
        0x8000_0002,
        u32::from_le_bytes(*b"dmas"),
        u32::from_le_bytes(*b"an v"),
        u32::from_le_bytes(*b"irtu"),
        u32::from_le_bytes(*b"al p"),
    ),
    (
        0x8000_0003,
        u32::from_le_bytes(*b"roce"),
        u32::from_le_bytes(*b"ssor"),
        0,
        0,
    ),
    (0x8000_0004, 0, 0, 0, 0),
    (0x8000_0008, ADDRESS_BITS, 0, 0, 0),
];

/// EAX, EBX, ECX, EDX for a leaf: what [`table`] tells KVM to show. No leaf
/// here has subleaves.
pub(super) fn read(leaf: u32) -> [u32; 4] {
    LEAVES
        .iter()
        .find(|row| row.0 == leaf)
        .map_or([0; 4], |&(_, eax, ebx, ecx, edx)| [eax, ebx, ecx, edx])
}

/// The table for KVM_SET_CPUID2; `None` cannot happen for so few entries.
pub(super) fn table() -> Option<CpuId> {
    let entries: Vec<kvm_cpuid_entry2> = LEAVES
        .iter()
        .map(|&(function, eax, ebx, ecx, edx)| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        })
        .collect();
    CpuId::from_entries(&entries).ok()
}
