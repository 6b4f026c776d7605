//! The kernel functions this driver imports from ntoskrnl.exe, and small
//! wrappers. None of them is on the HLK's list for isolated drivers.

use core::ffi::{c_char, c_void};

use crate::spec::nt::{
    Handle, IoStatusBlock, KERNEL_MODE, KEvent, Mdl, NtStatus, ObjectAttributes, PAGE_SIZE,
    UnicodeString,
};

/// A result whose error is an NTSTATUS.
pub type Result<T> = core::result::Result<T, NtStatus>;

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "system" {
    pub(crate) fn ExAllocatePoolWithTag(pool: u32, bytes: usize, tag: u32) -> *mut c_void;
    pub(crate) fn ExFreePoolWithTag(memory: *mut c_void, tag: u32);

    pub(crate) fn KeInitializeEvent(event: *mut KEvent, kind: u32, state: u8);
    pub(crate) fn KeSetEvent(event: *mut KEvent, increment: i32, wait: u8) -> i32;
    pub(crate) fn KeClearEvent(event: *mut KEvent);
    pub(crate) fn KeWaitForSingleObject(
        object: *mut c_void,
        reason: u32,
        mode: u8,
        alertable: u8,
        timeout: *const i64,
    ) -> NtStatus;
    fn KeDelayExecutionThread(mode: u8, alertable: u8, interval: *const i64) -> NtStatus;
    pub(crate) fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> u8;
    pub(crate) fn KeReleaseSpinLock(lock: *mut usize, irql: u8);
    fn KeBugCheckEx(code: u32, p1: usize, p2: usize, p3: usize, p4: usize) -> !;

    fn MmGetPhysicalAddress(address: *mut c_void) -> u64;
    pub(crate) fn MmMapLockedPagesSpecifyCache(
        mdl: *mut Mdl,
        mode: u8,
        cache: u32,
        requested: *mut c_void,
        bug_check: u32,
        priority: u32,
    ) -> *mut c_void;
    pub(crate) fn MmUnmapLockedPages(address: *mut c_void, mdl: *mut Mdl);

    pub(crate) fn IoGetDeviceObjectPointer(
        name: *const UnicodeString,
        access: u32,
        file: *mut *mut c_void,
        device: *mut *mut c_void,
    ) -> NtStatus;
    pub(crate) fn IoBuildDeviceIoControlRequest(
        code: u32,
        device: *mut c_void,
        input: *mut c_void,
        input_bytes: u32,
        output: *mut c_void,
        output_bytes: u32,
        internal: u8,
        event: *mut KEvent,
        status: *mut IoStatusBlock,
    ) -> *mut c_void;
    // __fastcall, which on x64 is the one convention there is.
    pub(crate) fn IofCallDriver(device: *mut c_void, irp: *mut c_void) -> NtStatus;
    pub(crate) fn ObfDereferenceObject(object: *mut c_void) -> isize;
    pub(crate) fn ZwLoadDriver(name: *const UnicodeString) -> NtStatus;
    pub(crate) fn ZwUnloadDriver(name: *const UnicodeString) -> NtStatus;

    pub(crate) fn ZwOpenKey(
        key: *mut Handle,
        access: u32,
        attributes: *const ObjectAttributes,
    ) -> NtStatus;
    pub(crate) fn ZwQueryValueKey(
        key: Handle,
        name: *const UnicodeString,
        class: u32,
        information: *mut c_void,
        bytes: u32,
        result_bytes: *mut u32,
    ) -> NtStatus;
    pub(crate) fn ZwClose(handle: Handle) -> NtStatus;
}

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    pub(crate) fn DbgPrint(format: *const c_char, ...) -> u32;
}

/// The compiler emits calls to these by name; the kernel exports them.
mod compiler {
    use core::ffi::{c_int, c_void};

    #[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
    #[allow(dead_code, reason = "named for the linker, called by generated code")]
    unsafe extern "C" {
        fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
        fn memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
        fn memset(to: *mut c_void, value: c_int, bytes: usize) -> *mut c_void;
        fn memcmp(left: *const c_void, right: *const c_void, bytes: usize) -> c_int;
    }
}

/// Pool tag, "DMSN" in a dump.
pub const TAG: u32 = u32::from_le_bytes(*b"DMSN");
/// Bug check code of a panic: private, "DMSN" in the dump's header.
const BUG_CHECK: u32 = u32::from_be_bytes(*b"DMSN");

/// A line in the debugger; see [`DbgPrint`] for the format.
macro_rules! log {
    ($format:literal $(, $argument:expr)* $(,)?) => {
        // SAFETY: the format is a literal with its terminator, and each
        // argument is an integer as the format has it.
        unsafe {
            $crate::nt::DbgPrint(
                concat!("dmasan-gpu: ", $format, "\n\0").as_ptr().cast()
                $(, $argument)*
            )
        }
    };
}
pub(crate) use log;

/// A status as a result.
pub const fn check(status: NtStatus) -> Result<()> {
    if status < 0 { Err(status) } else { Ok(()) }
}

/// A result as a status.
pub fn status_of(result: Result<()>) -> NtStatus {
    result.err().unwrap_or(0)
}

/// Stops the machine; `line` is the source line at fault.
pub fn bug_check(line: u32) -> ! {
    // SAFETY: callable at any IRQL; does not return.
    unsafe { KeBugCheckEx(BUG_CHECK, line as usize, 0, 0, 0) }
}

/// Lets other threads run for a millisecond; below DISPATCH_LEVEL.
pub fn delay_a_millisecond() {
    // Relative, in 100 ns.
    let interval = -10_000;
    // SAFETY: a kernel-mode, unalertable wait, which only time ends.
    let _ = unsafe { KeDelayExecutionThread(KERNEL_MODE, 0, &raw const interval) };
}

/// The address by which the device reaches `address`, which must be memory
/// of dxgkrnl's contiguous allocation.
///
/// Under isolation the domain is 1:1, so the device's address of a mapped
/// page is its physical address; that holds only for memory that came from
/// dxgkrnl's callbacks, since nothing else is mapped.
pub fn device_address(address: *mut u8) -> u64 {
    // SAFETY: only reads page tables; any address is allowed at any IRQL.
    unsafe { MmGetPhysicalAddress(address.cast()) }
}

/// Bytes rounded up to whole pages.
#[must_use]
pub const fn whole_pages(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE_SIZE)
}

/// A counted string over a terminated UTF-16 literal, which it does not
/// count.
pub const fn unicode<const N: usize>(text: &'static [u16; N]) -> UnicodeString {
    UnicodeString {
        length: (N as u16 - 1) * 2,
        maximum_length: N as u16 * 2,
        buffer: text.as_ptr().cast_mut(),
    }
}

/// ASCII as UTF-16 with a terminator; `N` is the length with it.
pub const fn utf16<const N: usize>(text: &str) -> [u16; N] {
    let bytes = text.as_bytes();
    assert!(bytes.len() + 1 == N);
    let mut wide = [0; N];
    let mut i = 0;
    while i < bytes.len() {
        wide[i] = bytes[i] as u16;
        i += 1;
    }
    wide
}

/// A `&'static [u16; N]` of a literal.
macro_rules! wide {
    ($text:literal) => {{
        static TEXT: [u16; $text.len() + 1] = $crate::nt::utf16($text);
        &TEXT
    }};
}
pub(crate) use wide;
